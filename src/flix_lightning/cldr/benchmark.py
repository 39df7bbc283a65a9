"""The benchmark's datasets, and their files in XTREME-UP's layout."""

import json
import random
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from pathlib import Path

import babel

from flix_lightning.cldr.examples import MAKERS
from flix_lightning.cldr.locales import LANGUAGES, PAPER_LANGUAGES, locality, reason_missing
from flix_lightning.cldr.values import PARTITIONS
from flix_lightning.common.errors import UserError
from flix_lightning.common.files import make_folder, make_once
from flix_lightning.data.layout import Layout


@dataclass(frozen=True)
class Version:
    """A version of the benchmark, frozen together with its base model.

    Attributes:
        sizes: examples of each dataset's split.
        seed: what the examples follow from.
        sha256: `Layout.fingerprint` of the files at these sizes and this seed, written with FROZEN_BABEL.
        base: name of its base in `models.base.BUILT_IN`.
        base_fingerprint: `models.base.fingerprint` of that base.
    """

    sizes: dict[str, int]
    seed: int
    sha256: str
    base: str
    base_fingerprint: str


VERSIONS = {
    "v1": Version(
        {"train": 200, "validation": 20, "test": 100},
        0,
        "04d2c41cc76ae45a81bebab86fc3df889a9211d6d7fd772f0a698a80a8e64153",
        "cldr-base",
        "9e26313dcafb5ef6",
    ),
    "v2": Version(
        {"train": 20, "validation": 50, "test": 100},
        0,
        "8b24cc616a456f406a4276be76075c57301a9e31c91eaa8ec868223ebefcf6c5",
        "cldr-base-3",
        "f40feb4c43b24445",
    ),
}
FROZEN_BABEL = "2.18.0"

MAX_EXAMPLES = 100_000  # of one dataset's split
MAX_REPEATS = 1000  # draws in a row without a new example, after which there are no more

#: The paper's Appendix B: for each task, every language that any of its mixtures trains on or evaluates.
APPENDIX_B = {
    "semantic_parsing": "am be bn fi ha hu ja pt_br ru sw ta tr yo zu de_localized en de es fr hi th".split(),
    "qa_in_lang": "ar bn fi id ko ru sw te en".split(),
    "qa_cross_lang": (
        "ar bn fi ko ru te as bho brx gbm gom gu hi hne kn mai ml mni mr mwr or pa ps sa ta ur"
    ).split(),
    "ner": "am bm bbj ee ha ig rw lg luo mos ny pcm sn sw tn tw wo xh yo zu".split(),
    "translation": PAPER_LANGUAGES,
}


def missing_languages(task: str) -> dict[str, str]:
    """Return the languages of APPENDIX_B that CLDR cannot serve in `task`, with the reasons."""
    reasons = {code: reason for code in APPENDIX_B[task] if (reason := reason_missing(code))}
    if task == "translation":
        reasons["en"] = "English into English"
    if task.startswith("qa_"):
        for code in APPENDIX_B[task]:
            if code in LANGUAGES and not locality(code).fields:
                reasons[code] = "no words of its own for year, month and day"
    return reasons


def datasets() -> list[tuple[str, str]]:
    """Return every (task, language) of the benchmark."""
    return [
        (task, code)
        for task, codes in APPENDIX_B.items()
        for missing in [missing_languages(task)]
        for code in codes
        if code not in missing
    ]


def examples(version: str, task: str, language: str, split: str, size: int, seed: int) -> list[dict]:
    """Return `size` different examples of a version, made from the values of the partition `split`.

    Raises:
        UserError: `size` is not in 1 to MAX_EXAMPLES, or CLDR does not give so many different examples.
    """
    where = f"{task}/{split}/{language}: {size:,} examples are asked for"
    if not 1 <= size <= MAX_EXAMPLES:
        raise UserError(f"{where}; a number from 1 to {MAX_EXAMPLES:,} is needed")
    rng = random.Random(f"{version}/{seed}/{task}/{language}/{split}")
    found: dict[str, dict] = {}
    repeats = 0
    while len(found) < size:
        example = MAKERS[task](language, rng, split)
        repeats += 1
        if found.setdefault(json.dumps(example, sort_keys=True), example) is example:
            repeats = 0
        elif repeats == MAX_REPEATS:
            raise UserError(f"{where}; CLDR gives about {len(found):,} different ones")
    return list(found.values())


def write(folder: Path, version: str, sizes: dict[str, int], seed: int) -> None:
    """Write `sizes[split]` examples of every dataset and split under `folder`."""
    layout = Layout(folder)
    for (task, language), split in product(datasets(), sizes):
        lines = []
        for number, example in enumerate(examples(version, task, language, split, sizes[split], seed)):
            ids = (
                {"example_id": f"{language}-{split}-{number}", "language": language} if task == "ner" else {}
            )
            lines.append(json.dumps(ids | example, ensure_ascii=False) + "\n")
        path = layout.path(task, split, language)
        make_folder(path.parent)
        path.write_text("".join(lines), encoding="utf-8")


def ensure(root: str, train: int, validation: int, test: int, seed: int, version: str = "v1") -> Path:
    """Return the benchmark's folder below `root`, which holds every version and size; write it if it is new.

    Two processes may ask at once, and a killed one leaves nothing that looks like the benchmark.

    Args:
        train, validation, test: examples of that split of each dataset.
        seed: what the examples follow from.
        version: a key of VERSIONS. The configs of the first version's runs name none.

    Raises:
        UserError: as `examples`; or there is no such version, a size is not a whole number from 1, or the
            content is not what was frozen.
    """
    if version not in VERSIONS:
        raise UserError(f"data.root.version={version}: one of {', '.join(VERSIONS)} is needed")
    sizes = {"train": train, "validation": validation, "test": test}
    for split, size in sizes.items():
        if type(size) is not int or size < 1:
            raise UserError(
                f"data.root.{split}={size}: examples a dataset, a whole number from 1, are needed"
            )
    ingredients = [version, sizes, seed, PARTITIONS, babel.__version__]
    folder = Path(root) / f"cldr-{version}-{sha256(json.dumps(ingredients).encode()).hexdigest()[:8]}"

    def write_checked(draft: Path) -> None:
        write(draft, version, sizes, seed)
        frozen = VERSIONS[version]
        content = Layout(draft).fingerprint(sorted(draft.rglob("*.jsonl")))
        if (sizes, seed) == (frozen.sizes, frozen.seed) and content != frozen.sha256:
            raise UserError(
                f"the benchmark cldr {version} has SHA-256 {content[:12]}…, but was frozen with "
                f"{frozen.sha256[:12]}…: Babel {babel.__version__} is installed, {FROZEN_BABEL} is needed"
            )

    return make_once(folder, write_checked)
