import json
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from cldr_reference import SIZES

from flix_lightning.cldr.benchmark import VERSIONS, datasets, ensure
from flix_lightning.cldr.pretraining.corpus import pairs


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return ensure(str(tmp_path_factory.mktemp("cldr")), **SIZES, seed=0, version=[*VERSIONS][-1])


@pytest.fixture(scope="session")
def lines(folder) -> dict[tuple[str, str, str], list[dict]]:
    """Every line of every file, read by nothing of ours."""
    return {
        (task, code, split): [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for task, code in datasets()
        for split in SIZES
        for path in [folder / task / split / f"{'en2' * (task == 'translation')}{code}.jsonl"]
    }


@pytest.fixture(scope="session")
def pretraining():
    return list(islice(pairs(Random(0)), 4000))
