import json
import logging
import tarfile
import tracemalloc
from collections import Counter
from pathlib import Path

import lightning
import pytest
import torch
from folders import line_of, write_dataset, write_split
from tiny_models import byte_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from flix_lightning.common.errors import UserError
from flix_lightning.data import build, tokenized
from flix_lightning.data.datamodule import DataModule
from flix_lightning.data.layout import Layout
from flix_lightning.data.mixture import Mixture
from flix_lightning.data.tokenization import Tokenization

LITE = Path(__file__).parents[3] / "shared/data/xtreme-up-lite.tgz"
MIXTURE = {
    "name": "small",
    "ranks": {"task": 4, "language": 2},
    "train": [{"task": "ner", "languages": ["sw", "yo"]}, {"task": "translation", "languages": ["am"]}],
    "evaluate": [
        {"task": "translation", "languages": ["am"]},
        {"task": "ner", "languages": ["zu", "sw", "yo"]},
    ],
    "report": ["ner"],
}


@pytest.fixture
def folder(tmp_path):
    write_dataset(tmp_path, "ner", "sw", 7)
    write_dataset(tmp_path, "ner", "yo", 5)
    write_dataset(tmp_path, "translation", "am", 4)
    write_dataset(tmp_path, "ner", "zu", 6, splits=["test"])
    return tmp_path


def module(
    folder,
    tokenizer=None,
    cfg=MIXTURE,
    *,
    is_encoder_decoder=True,
    max_input_length=64,
    max_target_length=16,
    **changes,
):
    layout = Layout(folder)
    lengths = max_input_length, max_target_length
    tokenization = Tokenization(tokenizer or ByT5Tokenizer(), is_encoder_decoder, *lengths)
    options = {
        "kinds": ["task", "language"],
        "batch_size": 8,
        "micro_batch_size": 4,
        "eval_batch_size": 4,
        "validation_cap": None,
        "test_cap": None,
        "max_steps": 6,
        "seed": 1,
        "cache_dir": folder / "cache",
        **changes,
    }
    return DataModule(layout, Mixture.resolve(cfg, layout), tokenization, **options)


def ids_of(loader):
    return [id for batch in loader for id in batch["ids"]]


def test_train_batch_of_an_encoder_decoder(folder):
    tokenizer = ByT5Tokenizer()
    batches = list(module(folder, tokenizer).train_dataloader())
    assert len(batches) == 12
    batch = batches[0]
    for row, id in enumerate(batch["ids"]):
        task, language, split, number = id.split("/")
        length = int(number) - 1  # the line's input is so many letters: see folders.write_dataset
        prompt = {"ner/sw": "find entities in Swahili", "ner/yo": "find entities in Yoruba"}.get(
            f"{task}/{language}", "translate to Amharic"
        )
        assert split == "train"
        assert batch["features"][row] == (f"task:{task}", f"language:{language}")
        ids = batch["input_ids"][row][batch["attention_mask"][row].bool()]
        assert tokenizer.decode(ids) == f"{prompt}: {'x' * length}</s>"
        labels = batch["labels"][row]
        assert tokenizer.decode(labels[labels != -100]) == "y" * (length % 5) + "</s>"
    for step in range(6):
        parts = [one for one in batches if one["step"] == step]
        assert len(parts) == 2
        tokens = sum(int((one["labels"] != -100).sum()) for one in parts)
        assert {one["target_tokens"] for one in parts} == {tokens}
        assert sum(len(one["ids"]) for one in parts) == 8


def test_decoder_only_learns_the_target_and_generates_after_the_prompt(folder):
    tokenizer = byte_tokenizer()
    data = module(folder, tokenizer, is_encoder_decoder=False)
    for batch in data.train_dataloader():
        for row, id in enumerate(batch["ids"]):
            length = int(id.split("/")[-1]) - 1
            mask, learned = batch["attention_mask"][row].bool(), batch["labels"][row] != -100
            text = tokenizer.decode(batch["input_ids"][row][mask])
            target = "y" * (length % 5) + "<end>"
            assert text.endswith(f": {'x' * length}\n{target}")
            assert tokenizer.decode(batch["labels"][row][learned]) == target
            assert torch.equal(batch["labels"][row][learned], batch["input_ids"][row][learned])
    for batch in data.eval_loader("test"):
        assert batch["attention_mask"][:, -1].all()
        for row, id in enumerate(batch["ids"]):
            mask = batch["attention_mask"][row].bool()
            text = tokenizer.decode(batch["input_ids"][row][mask])
            assert text.endswith(f": {'x' * (int(id.split('/')[-1]) - 1)}\n")


def test_evaluation_batches(folder):
    data = module(folder, max_target_length=2)
    batches = list(data.eval_loader("test"))
    seen = ids_of(batches)
    expected = {
        f"ner/{lang}/test/{n + 1}" for lang, count in (("zu", 6), ("sw", 7), ("yo", 5)) for n in range(count)
    }
    expected |= {f"translation/am/test/{n + 1}" for n in range(4)}
    assert sorted(seen) == sorted(expected)
    for batch in batches:
        for row, id in enumerate(batch["ids"]):
            dataset = data.mixture.evaluate[int(batch["dataset"][row])]
            number = int(id.split("/")[-1])
            assert id == f"{dataset.task}/{dataset.language}/test/{number}"
            assert int(batch["position"][row]) == number - 1
            assert batch["targets"][row] == "y" * ((number - 1) % 5)  # whole, though longer than 2 tokens
    assert max(len(batch["dataset"].unique()) for batch in batches) > 1  # a batch may mix datasets


def test_validation_is_of_seen_datasets_of_reported_tasks(folder):
    data = module(folder)
    assert {id.rsplit("/", 2)[0] for id in ids_of(data.val_dataloader())} == {"ner/sw", "ner/yo"}
    indices = {int(one) for batch in data.val_dataloader() for one in batch["dataset"]}
    assert [data.mixture.evaluate[index].language for index in sorted(indices)] == ["sw", "yo"]
    only = [3]
    assert {id.rsplit("/", 2)[0] for id in ids_of(data.eval_loader("validation", only))} == {"ner/yo"}


def test_caps_keep_the_same_ids_whatever_else_is_evaluated(folder):
    kept = ids_of(module(folder, test_cap=3).eval_loader("test"))
    assert Counter(id.rsplit("/", 2)[0] for id in kept) == dict.fromkeys(
        ("ner/sw", "ner/yo", "ner/zu", "translation/am"), 3
    )
    fewer = {**MIXTURE, "evaluate": [{"task": "ner", "languages": ["yo"]}]}
    assert {id for id in kept if id.startswith("ner/yo")} == set(
        ids_of(module(folder, cfg=fewer, test_cap=3).eval_loader("test"))
    )
    assert set(ids_of(module(folder, test_cap=2).eval_loader("test"))) < set(kept)
    batches = list(module(folder, test_cap=3).eval_loader("test", [2]))
    order = sorted(
        (int(p), id) for batch in batches for p, id in zip(batch["position"], batch["ids"], strict=True)
    )
    assert [position for position, _ in order] == [0, 1, 2]
    assert [id for _, id in order] == sorted(id for id in kept if id.startswith("ner/sw"))


def test_what_is_cut_is_counted_and_keeps_its_end(folder, caplog):
    tokenizer = ByT5Tokenizer()
    # `find entities in Swahili: ` is 26 bytes, Yoruba's 25, `translate to Amharic: ` 22; and an eos.
    data = module(folder, tokenizer, max_input_length=30, max_target_length=4)
    with caplog.at_level(logging.WARNING):
        table = data.table("train")
    # sw: inputs of 27..33 tokens, 3 above 30; yo: 26..30, none. Targets of 4 letters: one in sw, one in yo.
    assert "train: 3 of 16 inputs cut to 30 tokens" in caplog.text
    assert "train: 2 of 16 targets cut to 4 tokens" in caplog.text
    assert max(map(len, table["input_ids"])) == 30
    assert all(ids[-1] == tokenizer.eos_token_id for ids in [*table["input_ids"], *table["target_ids"]])
    caplog.clear()
    module(folder, tokenizer, max_input_length=30, max_target_length=4).table("train")
    assert "3 of 16 inputs" in caplog.text  # said of a table found again, too


def test_targets_that_no_answer_can_equal_are_counted(folder, caplog):
    """Whichever part of the tokenizer changes them: here its normalizer, and its decoder, which cleans up."""
    words = {word: id for id, word in enumerate(["<end>", "a", ",", "b"])}
    backend = Tokenizer(models.WordPiece(words, unk_token="a"))
    backend.normalizer, backend.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.WordPiece(cleanup=True)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
    targets = ["a", "a b", "a , b", "A"]
    write_split(folder, "ner", "test", "zu", [line_of("ner", "a", target) for target in targets])
    write_split(folder, "ner", "train", "sw", [line_of("ner", "a", "a , b")])
    for name in ("sw", "yo"):
        write_split(folder, "ner", "test", name, [line_of("ner", "a", "b b b b")])
    write_split(folder, "translation", "test", "am", [line_of("translation", "a", "b")])
    for _ in range(2):  # said of a table found again, too
        caplog.clear()
        data = module(folder, tokenizer, max_target_length=4)
        with caplog.at_level(logging.WARNING):
            data.table("test"), data.table("train")
        (said,) = [one for one in caplog.messages if "tokenizer" in one]
        assert said.startswith(
            "test: 2 of 7 targets are changed by the tokenizer, the first of them ner/zu/test/3"
        )
        assert "'a , b' becomes 'a, b'" in said


def test_a_line_of_2_mb_is_cut_and_named(folder, caplog):
    """As a line is that is only somewhat too long, and as fast."""
    texts = ["a", "b " * 2**20, "b " * 100]
    write_split(folder, "ner", "train", "yo", [line_of("ner", text, text) for text in texts])
    with caplog.at_level(logging.WARNING):
        table = module(folder, byte_tokenizer(), max_target_length=50).table("train")
    _, huge, long = table.select(range(7, 10))
    assert (len(huge["input_ids"]), len(huge["target_ids"])) == (64, 50)
    for column in ("input_ids", "target_ids", "input_cut", "target_cut"):
        assert huge[column] == long[column]
    assert huge["target"] == texts[1]
    assert "2 of 14 inputs cut to 64 tokens, the first of them ner/yo/train/2" in caplog.text
    assert "2 of 14 targets cut to 50 tokens, the first of them ner/yo/train/2" in caplog.text


SIDES = {"truncation_side": "left"}, {"padding_side": "left"}, {"model_max_length": 5}


@pytest.mark.parametrize("make", [ByT5Tokenizer, byte_tokenizer])
@pytest.mark.parametrize("settings", [*SIDES, "saved in the backend"], ids=str)
def test_what_is_too_long_loses_its_end_whatever_the_tokenizers_config_says(make, settings, tmp_path):
    texts = ["short", "find entities in Swahili: " + "x" * 50, "y" * 5000, ""]
    plain, tokenizer = make(), make()
    expected = Tokenization(plain, True, 12, 5)
    if tokenizer.is_fast and settings == "saved in the backend":
        tokenizer.backend_tokenizer.enable_truncation(4, direction="left")
        tokenizer.backend_tokenizer.enable_padding(length=40)
    tokenizer.save_pretrained(tmp_path)
    if isinstance(settings, dict):
        config = json.loads((tmp_path / "tokenizer_config.json").read_text())
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | settings))
    loaded = type(tokenizer).from_pretrained(tmp_path)
    found = Tokenization(loaded, True, 12, 5)
    assert found.inputs(texts) == expected.inputs(texts)
    assert found.targets(texts) == expected.targets(texts)
    (_, cut, *_), _ = found.inputs(texts)
    assert plain.decode(cut).startswith("find entit")
    if isinstance(settings, dict):
        assert {name: getattr(loaded, name) for name in settings} == settings  # the caller's stays as it is


def test_a_cut_prompt_keeps_the_separator(folder):
    tokenizer = byte_tokenizer()
    table = module(folder, tokenizer, is_encoder_decoder=False, max_input_length=28).table("train")
    assert max(map(len, table["input_ids"])) == 28
    assert all(tokenizer.decode(ids).endswith("\n") for ids in table["input_ids"])


def tables_in(folder):
    return sorted(path.name for path in (folder / "cache").iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("make", [ByT5Tokenizer, byte_tokenizer])
def test_tokenized_once(folder, make, monkeypatch):
    tokenizer = make()
    first = module(folder, tokenizer).table("train").to_dict()
    tokenizer(["a", "bb"], truncation=True, max_length=1)  # a fast tokenizer's files now hold these settings
    again = module(folder, make())
    monkeypatch.setattr(type(again.tokenization), "inputs", lambda *_: pytest.fail("tokenized again"))
    assert again.table("train").to_dict() == first
    assert module(folder, tokenizer).table("train").to_dict() == first
    assert len(tables_in(folder)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"kinds": ["language"]},
        {"max_input_length": 63},
        {"max_target_length": 15},
        {"tokenizer": byte_tokenizer()},
        {"tokenizer": byte_tokenizer(), "is_encoder_decoder": False},
    ],
    ids=str,
)
def test_another_setting_is_another_table(folder, changes):
    module(folder).table("train")
    module(folder, **changes).table("train")
    assert len(tables_in(folder)) == 2


def test_changed_data_is_tokenized_again(folder):
    module(folder).table("test")
    module(folder).table("train")
    write_split(folder, "ner", "train", "sw", [line_of("ner", "new", "PER: x")])
    again = module(folder)
    again.table("test")
    assert again.table("train")["target"][0] == "PER: x"
    assert [name.split("-")[0] for name in tables_in(folder)] == ["test", "train", "train"]


@pytest.mark.parametrize(("parallel_from", "cap"), [(1000, None), (1000, 3), (2, None)])
def test_how_the_work_is_shared_out_changes_no_row(folder, monkeypatch, parallel_from, cap):
    expected = module(folder, byte_tokenizer(), test_cap=cap).table("test").to_dict()
    monkeypatch.setattr(tokenized, "SHARD_BYTES", 80)
    monkeypatch.setattr(build, "PARALLEL_FROM", parallel_from)
    shared = module(folder, byte_tokenizer(), test_cap=cap, cache_dir=folder / "other")
    assert shared.table("test").to_dict() == expected
    assert len(list((folder / "other").glob("test-*/*.arrow"))) > 3


def test_a_bad_line_has_the_same_number_in_any_shard(folder, monkeypatch):
    monkeypatch.setattr(tokenized, "SHARD_BYTES", 80)
    monkeypatch.setattr(build, "PARALLEL_FROM", 1000)
    path = folder / "ner/train/sw.jsonl"
    path.write_text(path.read_text().replace('"number": "4"}', '"number": }'))
    with pytest.raises(UserError, match=r"sw\.jsonl:5: not JSON"):
        module(folder).table("train")
    assert not tables_in(folder)


def test_memory_does_not_grow_with_the_file(tmp_path):
    """But for 8 bytes a line."""
    peaks = []
    for lines in (800, 2_400):
        folder = tmp_path / str(lines)
        write_dataset(folder, "ner", "sw", 2)
        write_split(folder, "ner", "train", "sw", [line_of("ner", "x" * 600, "PER: y")] * lines)
        one = [{"task": "ner", "languages": ["sw"]}]
        data = module(
            folder, byte_tokenizer(), {**MIXTURE, "train": one, "evaluate": one}, max_input_length=700
        )
        tracemalloc.start()
        assert len(data.table("train")) == lines
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2**20


def test_a_repeated_id_is_said_once_and_every_line_is_kept(folder, caplog):
    ids = ["a", "b", "a", "b", "a"]
    write_split(folder, "ner", "train", "sw", [line_of("ner", "x", "", example_id=id) for id in ids])
    write_split(folder, "ner", "train", "yo", [line_of("ner", "x", "", id=id) for id in ids[:2]])
    data = module(folder)
    with caplog.at_level(logging.WARNING):
        ids = data.table("train")["id"]
    assert [id for id in ids if "/sw/" in id] == [f"ner/sw/train/{n}" for n in range(1, 6)]
    (said,) = caplog.messages
    assert said.startswith(
        "train: 3 lines in 1 files have the id of an earlier line of their file, "
        "first ner/sw/train/3 that of ner/sw/train/1"
    )


def test_kinds_from_the_mixture_and_from_lines(folder):
    train = [{"task": "ner", "languages": ["sw", "yo"], "family": {"sw": "bantu", "yo": "volta"}}]
    cfg = {**MIXTURE, "train": train, "evaluate": train}
    batch = next(iter(module(folder, cfg=cfg, kinds=["number", "family", "shared"]).train_dataloader()))
    family = {"sw": "bantu", "yo": "volta"}
    for id, features in zip(batch["ids"], batch["features"], strict=True):
        _, language, _, line = id.split("/")
        assert features == (f"number:{int(line) - 1}", f"family:{family[language]}", "shared:all")
    with pytest.raises(UserError, match=r"'script'.*ner/sw/train/1"):
        module(folder, cfg=cfg, kinds=["script"]).train_dataloader()


def test_tokenizer_without_eos(folder):
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="no eos token"):
        module(folder, tokenizer)


class Recorder(lightning.LightningModule):
    """Notes down which examples it gets, and at which step."""

    def __init__(self, folder=None):
        super().__init__()
        self.layer, self.folder = torch.nn.Linear(1, 1), folder
        self.trained, self.validated = [], []

    def training_step(self, batch, index):
        self.trained.append((batch["step"], self.global_step, batch["ids"]))
        return self.layer(torch.ones(1)).sum()

    def validation_step(self, batch, index):
        self.validated += batch["ids"]

    def on_fit_end(self):
        if self.folder:
            torch.save((self.trained, self.validated), self.folder / f"rank{self.global_rank}.pt")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(folder, max_steps, **options):
    options = {"accelerator": "cpu", "accumulate_grad_batches": 2, "val_check_interval": None, **options}
    return lightning.Trainer(
        max_steps=max_steps, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, num_sanity_val_steps=0, default_root_dir=folder, **options,
    )  # fmt: skip


@pytest.mark.filterwarnings("error:.*dataloader is not resumable")
def test_resumed_in_lightning_it_goes_on_with_the_next_step(folder):
    whole, first, rest = Recorder(), Recorder(), Recorder()
    trainer(folder, 6).fit(whole, datamodule=module(folder))
    interrupted = trainer(folder, 4)
    interrupted.fit(first, datamodule=module(folder))
    interrupted.save_checkpoint(folder / "at4.ckpt")
    trainer(folder, 6).fit(rest, datamodule=module(folder), ckpt_path=folder / "at4.ckpt", weights_only=False)
    assert [(step, seen) for step, seen, _ in whole.trained] == [(n // 2, n // 2) for n in range(12)]
    assert (len(first.trained), len(rest.trained)) == (8, 4)
    assert first.trained + rest.trained == whole.trained


def test_a_bad_test_file_stops_a_run_before_its_first_step(folder):
    with (folder / "ner/test/zu.jsonl").open("a") as file:
        file.write("{")
    recorder = Recorder()
    with pytest.raises(UserError, match=r"zu\.jsonl:7: not JSON"):
        trainer(folder, 6).fit(recorder, datamodule=module(folder))
    assert recorder.trained == []


def test_two_processes_of_lightning_share_every_batch_without_repeats(folder):
    if torch.cuda.is_initialized():
        pytest.skip("a process that has used CUDA cannot be forked")
    alone = Recorder()
    trainer(folder, 6).fit(alone, datamodule=module(folder))
    # Lightning's own sampler is on (its default), and must leave ours in place.
    pair = trainer(folder, 6, devices=2, strategy="ddp_fork", accumulate_grad_batches=1)
    pair.fit(Recorder(folder), datamodule=module(folder))
    ranks = [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]

    def steps(records):
        return {n: sorted(id for step, _, ids in records for id in ids if step == n) for n in range(6)}

    assert [len(trained) for trained, _ in ranks] == [6, 6]
    assert steps(ranks[0][0] + ranks[1][0]) == steps(alone.trained)
    assert sorted(ranks[0][1] + ranks[1][1]) == sorted(alone.validated)
    assert min(len(validated) for _, validated in ranks) > 0


def test_real_data_reads(tmp_path):
    if not LITE.is_file():
        pytest.skip(f"{LITE} is not there: the archive of real data stands beside the checkout")
    with tarfile.open(LITE) as archive:
        files = ("train/sw", "validation/sw", "test/sw", "test/zu")
        members = [archive.getmember(f"xtreme_up_lite_v1/semantic_parsing/{file}.jsonl") for file in files]
        archive.extractall(tmp_path, members, filter="data")
    cfg = {
        **MIXTURE,
        "train": [{"task": "semantic_parsing", "languages": ["sw"]}],
        "evaluate": [{"task": "semantic_parsing", "languages": ["sw", "zu"]}],
        "report": ["semantic_parsing"],
    }
    data = module(tmp_path / "xtreme_up_lite_v1", cfg=cfg, max_input_length=256, max_target_length=256)
    assert [len(data.table(split)) for split in ("train", "validation", "test")] == [1000, 200, 400]
    assert [one.seen for one in data.mixture.evaluate] == ["seen", "unseen_language"]
    targets = [target for batch in data.eval_loader("test") for target in batch["targets"]]
    assert all(target.startswith("[IN:") for target in targets)
