"""Show samples of the benchmark: `python -m flix_lightning.cldr [task] [language] [--split test]`.

Without a language, list the languages of the task, and those that CLDR lacks with the reason.
"""

import argparse
import json

from rich import print as rich_print

from flix_lightning.cldr.benchmark import APPENDIX_B, VERSIONS, datasets, examples, missing_languages
from flix_lightning.common.errors import UserError
from flix_lightning.data.layout import SPLITS
from flix_lightning.tasks.languages import find_name


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m flix_lightning.cldr", description=__doc__)
    parser.add_argument("task", nargs="?", choices=APPENDIX_B, help="default: list every task")
    parser.add_argument("language", nargs="?", help="language code of the paper, as sw; default: list them")
    parser.add_argument("--split", default="train", choices=SPLITS)
    parser.add_argument("--count", type=int, default=5, help="number of samples")
    parser.add_argument("--seed", type=int, default=0, help="the benchmark's seed")
    parser.add_argument(
        "--version", default=[*VERSIONS][-1], choices=VERSIONS, help="the benchmark's version"
    )
    options = parser.parse_args()
    if options.language is None:
        for task in [options.task] if options.task else APPENDIX_B:
            _list_languages(task)
    elif (options.task, options.language) in datasets():
        try:
            of = options.task, options.language, options.split, options.count, options.seed
            found = examples(options.version, *of)
        except UserError as error:
            parser.error(str(error))
        for example in found:
            print(json.dumps(example, ensure_ascii=False))
    else:
        reason = missing_languages(options.task).get(
            options.language, "not a language of this task in the paper"
        )
        parser.error(f"{options.task}/{options.language}: {reason}")


def _list_languages(task: str) -> None:
    found = [f"{code} ({find_name(code)})" for one, code in datasets() if one == task]
    rich_print(f"[bold]{task}[/]: {', '.join(found)}")
    for code, reason in missing_languages(task).items():
        rich_print(f"  lacking {code} ({find_name(code)}): {reason}")


if __name__ == "__main__":
    main()
