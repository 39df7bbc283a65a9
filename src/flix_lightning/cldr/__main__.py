"""Look at the benchmark: `python -m flix_lightning.cldr [task] [language] [--split test] [--count 5]`.

Without a language, every language of the task and those that CLDR lacks, with the reason.
"""

import argparse

from rich import print_json
from rich.console import Console

from flix_lightning.cldr.benchmark import APPENDIX_B, datasets, examples, lacking
from flix_lightning.common.errors import UserError
from flix_lightning.tasks.languages import language_name


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m flix_lightning.cldr", description=__doc__)
    parser.add_argument(
        "task", nargs="?", choices=APPENDIX_B, help="one task; without it, all of them are listed"
    )
    parser.add_argument(
        "language", nargs="?", help="a code of the paper's, as sw; without it, they are listed"
    )
    parser.add_argument("--split", default="train", choices=("train", "validation", "test"))
    parser.add_argument("--count", type=_from_1, default=5, help="how many samples")
    parser.add_argument("--seed", type=int, default=0, help="the benchmark's seed")
    options = parser.parse_args()
    if options.language is None:
        _list(list(APPENDIX_B) if options.task is None else [options.task])
    elif (options.task, options.language) in datasets():
        try:
            found = examples(options.task, options.language, options.split, options.count, options.seed)
        except UserError as error:
            parser.error(str(error))
        for example in found:
            print_json(data=example, ensure_ascii=False)
    else:
        reason = lacking(options.task).get(options.language, "no language of the paper's in this task")
        parser.error(f"{options.task}/{options.language}: {reason}")


def _from_1(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def _list(tasks: list[str]) -> None:
    console = Console(highlight=False)
    for task in tasks:
        found = [language for one, language in datasets() if one == task]
        console.print(f"[bold]{task}[/]: {', '.join(f'{code} ({language_name(code)})' for code in found)}")
        for code, reason in lacking(task).items():
            console.print(f"  lacking {code} ({language_name(code)}): {reason}")


if __name__ == "__main__":
    main()
