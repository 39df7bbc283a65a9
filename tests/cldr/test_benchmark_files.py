import hashlib
import multiprocessing
import time
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from cldr_reference import ABSENT, LOCALE_DATA, SIZES, THIN, own
from folders import made
from omegaconf import OmegaConf

from flix_lightning.cldr import benchmark
from flix_lightning.cldr.benchmark import VERSIONS, datasets, ensure, examples, missing_languages
from flix_lightning.common.errors import UserError
from flix_lightning.data.layout import Layout
from flix_lightning.models import base as models

CONFIGS = Path(__file__).parents[2] / "conf"
DATASETS = datasets()
NEWEST = [*VERSIONS][-1]
SMALL = {"train": 1, "validation": 1, "test": 1, "seed": 0}


@pytest.fixture
def two_datasets(monkeypatch):
    monkeypatch.setattr(benchmark, "datasets", lambda: [("ner", "sw"), ("translation", "sw")])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.jsonl")}


def test_datasets_are_the_papers_lists_less_what_is_lacking():
    wanted = defaultdict(set)
    for name in ("joint", "semantic_parsing_holdout"):
        mixture = yaml.safe_load((CONFIGS / f"mixture/{name}.yaml").read_text("utf-8"))
        for entry in mixture["train"] + mixture["evaluate"]:
            wanted[entry["task"]] |= set(entry["languages"])
    assert set(wanted) == set(benchmark.APPENDIX_B)
    for task, codes in wanted.items():
        served = [code for one, code in DATASETS if one == task]
        assert len(served) == len(set(served))
        assert set(served) | set(missing_languages(task)) == codes
        assert not set(served) & set(missing_languages(task))


@pytest.mark.parametrize(
    ("task", "codes"),
    [
        ("semantic_parsing", set()),
        ("qa_in_lang", set()),
        ("qa_cross_lang", {"gbm", "hne", "mwr", "bho", "mni", "sa", "mai"}),
        ("ner", {"bbj", "mos", "ny", "tn", "rw"}),
        ("translation", ABSENT | THIN | {"en"}),
    ],
)
def test_what_is_lacking_has_its_reason(task, codes):
    reasons = missing_languages(task)
    assert set(reasons) == codes
    for code, reason in reasons.items():
        if code in ABSENT:
            assert "no locale" in reason
            assert not (LOCALE_DATA / f"{code}.dat").exists()
        elif code in THIN:
            count = sum(len(one) == 2 for one in own(code).get("territories", ()))
            assert count < 100
            assert f"{count} territories" in reason
        elif code == "mai":
            assert "year, month and day" in reason
            assert "duration-year" not in own("mai").get("unit_display_names", {})
        else:
            assert "English" in reason


def test_every_file_is_read_in_its_size_and_without_repetition(folder):
    layout = Layout(folder)
    for task, code in DATASETS:
        texts = Counter()
        for split, size in SIZES.items():
            read = list(layout.read(task, split, code))
            assert len(read) == size
            texts.update((example.input, example.target) for example in read)
        assert texts.total() == len(texts)
    assert len(list(folder.rglob("*.jsonl"))) == len(DATASETS) * len(SIZES)


def test_ner_lines_have_ids_of_their_own(lines):
    found = [line for (task, *_), rows in lines.items() if task == "ner" for line in rows]
    assert len({line["example_id"] for line in found}) == len(found)
    assert {line["language"] for line in found} == {code for task, code in DATASETS if task == "ner"}


def test_two_processes_at_once_give_the_same_benchmark(folder, tmp_path):
    # Fresh interpreters, so that nothing may depend on the order of a set.
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        built = pool.starmap(ensure, [(str(tmp_path), *SIZES.values(), 0, NEWEST)] * 2, chunksize=1)
    assert made(tmp_path) == [built[0]] == [built[1]]
    assert built[0].name == folder.name
    assert contents(built[0]) == contents(folder)


def test_a_killed_build_is_no_benchmark(folder, tmp_path):
    arguments = (str(tmp_path), *SIZES.values(), 0, NEWEST)
    build = multiprocessing.get_context("fork").Process(target=ensure, args=arguments)
    build.start()
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.001)
    build.kill()
    build.join()
    (left,) = made(tmp_path)
    assert 0 < len(contents(left)) < len(contents(folder))
    again = ensure(str(tmp_path), **SIZES, seed=0, version=NEWEST)
    assert made(tmp_path) == [again]
    assert contents(again) == contents(folder)


def test_a_failed_build_leaves_nothing(tmp_path, monkeypatch):
    def full(folder, version, sizes, seed):
        (folder / "ner").mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(benchmark, "write", full)
    with pytest.raises(OSError, match="No space left"):
        ensure(str(tmp_path), 1, 1, 1, 0)
    assert not made(tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_frozen_comes_out_again(version, tmp_path):
    frozen = VERSIONS[version]
    folder = ensure(str(tmp_path), **frozen.sizes, seed=frozen.seed, version=version)
    # Each file's place and content, as `sha256sum` has them.
    files = sorted(contents(folder).items())
    listed = "".join(f"{file} {hashlib.sha256(content).hexdigest()}\n" for file, content in files)
    assert hashlib.sha256(listed.encode()).hexdigest() == frozen.sha256
    assert models.fingerprint(frozen.base, "main") == frozen.base_fingerprint


@pytest.mark.parametrize(("name", "version"), [("cldr", NEWEST), ("cldr_v1", "v1")])
def test_a_config_says_what_its_version_was_frozen_with(name, version):
    shipped = OmegaConf.load(CONFIGS / f"data/{name}.yaml").root
    assert shipped.get("version", version) == version
    assert {split: shipped[split] for split in SIZES} == VERSIONS[version].sizes
    assert shipped.seed == VERSIONS[version].seed


def test_the_shipped_base_is_that_of_the_newest_version():
    shipped = yaml.safe_load((CONFIGS / "model/cldr.yaml").read_text("utf-8"))
    assert shipped["pretrained"] == [*VERSIONS.values()][-1].base


def test_other_content_than_was_frozen_is_refused(two_datasets, tmp_path, monkeypatch):
    sizes = {split: 1 for split in SIZES}
    monkeypatch.setitem(VERSIONS, "v1", replace(VERSIONS["v1"], sizes=sizes))
    with pytest.raises(UserError, match=r"SHA-256 \w{12}….*Babel .* 2\.18\.0 is needed"):
        ensure(str(tmp_path), 1, 1, 1, VERSIONS["v1"].seed)
    assert not made(tmp_path)


def test_an_unknown_version_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"data\.root\.version=v9: one of v1.* is needed"):
        ensure(str(tmp_path), 1, 1, 1, 0, version="v9")


def test_another_release_of_babel_writes_a_folder_of_its_own(two_datasets, tmp_path, monkeypatch):
    first = ensure(str(tmp_path), **SMALL)
    monkeypatch.setattr(benchmark.babel, "__version__", "2.99")
    assert ensure(str(tmp_path), **SMALL) != first


@pytest.mark.parametrize("changed", [{"seed": 2}, {"train": 2}, {"version": "v0"}])
def test_another_seed_size_or_version_is_another_benchmark(two_datasets, tmp_path, changed, monkeypatch):
    monkeypatch.setitem(VERSIONS, "v0", VERSIONS["v1"])
    folders = [ensure(str(tmp_path), **arguments) for arguments in (SMALL, SMALL | changed)]
    assert folders[0] != folders[1]
    one, other = map(contents, folders)
    assert set(one) == set(other)
    different = {Path(file).parts[1] for file in one if one[file] != other[file]}
    assert different == ({"train"} if "train" in changed else set(SIZES))


@pytest.mark.parametrize("bad", [0, -3, 2.5, "many"])
def test_a_size_that_is_none_is_refused(tmp_path, bad):
    with pytest.raises(UserError, match=rf"data\.root\.validation={bad}: .*whole number from 1"):
        ensure(str(tmp_path), train=1, validation=bad, test=1, seed=0)
    assert not made(tmp_path)


def test_samples_follow_from_their_arguments():
    one = examples("v1", "ner", "sw", "test", 4, seed=3)
    assert (
        examples("v1", "ner", "sw", "test", 4, seed=3)
        == one
        == examples("v1", "ner", "sw", "test", 6, seed=3)[:4]
    )
    assert all(
        one != examples("v1", "ner", "sw", split, 4, seed) for split, seed in (("test", 4), ("train", 3))
    )
