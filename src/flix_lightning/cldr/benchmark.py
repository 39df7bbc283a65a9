"""The benchmark's files: which datasets there are, how large, written in XTREME-UP's layout."""

import json
import random
from hashlib import sha256
from pathlib import Path

import babel

from flix_lightning.cldr.examples import MAKERS
from flix_lightning.cldr.locales import LANGUAGES, PAPER_LANGUAGES, lack, locality
from flix_lightning.cldr.values import PARTITIONS
from flix_lightning.common.errors import UserError
from flix_lightning.common.files import atomic_folder
from flix_lightning.data.layout import Layout

VERSION = "v1"

#: What VERSION came to when it was frozen, at these sizes and seed, written with this release of Babel.
FROZEN_SIZES, FROZEN_SEED = {"train": 200, "validation": 20, "test": 100}, 0
FROZEN_SHA256 = "04d2c41cc76ae45a81bebab86fc3df889a9211d6d7fd772f0a698a80a8e64153"
FROZEN_BABEL = "2.18.0"

#: Most examples a dataset; draws in a row that give nothing new, after which there are no more.
MOST_EXAMPLES, MOST_REPEATS = 100_000, 1000

#: The paper's Appendix B, for each task every language that any of its mixtures trains or evaluates.
APPENDIX_B = {
    "semantic_parsing": "am be bn fi ha hu ja pt_br ru sw ta tr yo zu de_localized en de es fr hi th".split(),
    "qa_in_lang": "ar bn fi id ko ru sw te en".split(),
    "qa_cross_lang": (
        "ar bn fi ko ru te as bho brx gbm gom gu hi hne kn mai ml mni mr mwr or pa ps sa ta ur"
    ).split(),
    "ner": "am bm bbj ee ha ig rw lg luo mos ny pcm sn sw tn tw wo xh yo zu".split(),
    "translation": PAPER_LANGUAGES,
}


def lacking(task: str) -> dict[str, str]:
    """The languages of APPENDIX_B that CLDR cannot serve in `task`, each with its reason."""
    reasons = {code: reason for code in APPENDIX_B[task] if (reason := lack(code))}
    if task == "translation":
        reasons["en"] = "English into English"
    if task.startswith("qa_"):
        for code in APPENDIX_B[task]:
            if code in LANGUAGES and not locality(code).fields:
                reasons[code] = "no words of its own for year, month and day"
    return reasons


def datasets() -> list[tuple[str, str]]:
    """Every (task, language) of the benchmark."""
    found = []
    for task, codes in APPENDIX_B.items():
        lacks = lacking(task)
        found += [(task, code) for code in codes if code not in lacks]
    return found


def examples(task: str, language: str, split: str, size: int, seed: int) -> list[dict]:
    """`size` different examples, the same for the same arguments, from the values of `split`.

    Raises:
        UserError: there are not so many, or they are above MOST_EXAMPLES.
    """
    if size > MOST_EXAMPLES:
        raise UserError(
            f"{task}/{split}/{language}: {size:,} examples are asked for, {MOST_EXAMPLES:,} are the most"
        )
    rng = random.Random(f"{VERSION}/{seed}/{task}/{language}/{split}")
    found: dict[str, dict] = {}
    repeats = 0  # in a row
    while len(found) < size:
        example = MAKERS[task](language, rng, split)
        known = len(found)
        found.setdefault(json.dumps(example, sort_keys=True), example)
        repeats = repeats + 1 if len(found) == known else 0
        if repeats == MOST_REPEATS:
            raise UserError(
                f"{task}/{split}/{language}: {size:,} different examples are asked for, and CLDR gives about "
                f"{known:,}"
            )
    return list(found.values())


def write(folder: Path, sizes: dict[str, int], seed: int) -> None:
    """Write every dataset's `sizes[split]` examples under `folder`."""
    layout = Layout(folder)
    for task, language in datasets():
        for split, size in sizes.items():
            path = layout.path(task, split, language)
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [
                json.dumps(
                    {"example_id": f"{language}-{split}-{i}", "language": language, **example},
                    ensure_ascii=False,
                )
                if task == "ner"
                else json.dumps(example, ensure_ascii=False)
                for i, example in enumerate(examples(task, language, split, size, seed))
            ]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def ensure(root: str, train: int, validation: int, test: int, seed: int) -> Path:
    """The folder with the benchmark of these sizes (examples a dataset), written first if need be.

    Whole or not at all, so that two processes may ask at once and a killed one leaves nothing that a
    later one would take for the benchmark.

    Raises:
        UserError: a size that is no whole number from 1, or what was frozen comes out otherwise.
    """
    sizes = {"train": train, "validation": validation, "test": test}
    for split, size in sizes.items():
        if type(size) is not int or size < 1:
            raise UserError(
                f"data.root.{split}={size}: examples a dataset, a whole number from 1, are needed"
            )
    made_of = [VERSION, sizes, seed, PARTITIONS, babel.__version__]
    key = sha256(json.dumps(made_of).encode()).hexdigest()[:8]
    folder = Path(root) / f"cldr-{VERSION}-{key}"
    if folder.exists():
        return folder
    with atomic_folder(folder) as draft:
        write(draft, sizes, seed)
        if (sizes, seed) == (FROZEN_SIZES, FROZEN_SEED):
            _check_frozen(draft)
    return folder


def _check_frozen(folder: Path) -> None:
    found = Layout(folder).fingerprint(sorted(folder.rglob("*.jsonl")))
    if found != FROZEN_SHA256:
        raise UserError(
            f"the benchmark cldr {VERSION} comes out with SHA-256 {found[:12]}…, but was frozen with "
            f"{FROZEN_SHA256[:12]}…: Babel {babel.__version__} is installed, {FROZEN_BABEL} is needed"
        )
