"""Each family of base models, from its folder to its predictions, beside its own plain forward passes."""

from statistics import fmean
from types import SimpleNamespace

import pytest
import torch
from families import FAMILIES
from folders import line_of, write_split
from tiny_runs import config

from flix_lightning.adapter.features import FeatureDropout, FeatureSpace
from flix_lightning.adapter.projection import inject
from flix_lightning.adapter.reference import merge
from flix_lightning.data.datamodule import DataModule
from flix_lightning.data.tokenization import Tokenization
from flix_lightning.models import base as models
from flix_lightning.runs.run import Run
from flix_lightning.training.module import FlixModule

#: (task, language, text, target), of different lengths, some of them too long.
TEXTS = [
    ("semantic_parsing", "sw", "a", "one"),
    ("semantic_parsing", "sw", "b" * 9, "two"),
    ("semantic_parsing", "yo", "c" * 4, "three"),
    ("semantic_parsing", "yo", "d" * 60, "four"),
    ("ner", "sw", "e" * 17, "go"),
    ("ner", "sw", "f", "a long one"),
    ("ner", "am", "g" * 3, "no"),
    ("ner", "am", "h" * 30, "x"),
]
RANKS = {"task:semantic_parsing": 3, "task:ner": 3, "language:sw": 2, "language:yo": 2}
MAX_INPUT, MAX_TARGET, STEPS = 40, 6, 80


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for task, language in {text[:2] for text in TEXTS}:
        for split in ("train", "validation", "test"):
            lines = [line_of(task, *text[2:]) for text in TEXTS if text[:2] == (task, language)]
            write_split(folder, task, split, language, lines)
    return folder


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    return family.save(tmp_path_factory.mktemp("family"))


class Training:
    """A base of a folder, its adapter, its data and its module, as a run puts them together."""

    def __init__(self, folder, texts, dtype, cache):
        lists = "[{task:semantic_parsing,languages:[sw,yo]},{task:ner,languages:[sw,am]}]"
        cfg = config(
            ["data=xtreme_up", f"data.root={texts}", f"mixture.train={lists}", f"mixture.evaluate={lists}"]
        )
        run = Run.resolve(cfg)
        self.base = models.load(str(folder), "main", dtype)
        self.adapter = inject(self.base.model, FeatureSpace(RANKS), "all-linear")
        self.data = DataModule(
            run.layout,
            run.mixture,
            Tokenization(self.base.tokenizer, self.base.is_encoder_decoder, MAX_INPUT, MAX_TARGET),
            kinds=["task", "language"],
            batch_size=8,
            micro_batch_size=8,
            eval_batch_size=8,
            validation_cap=None,
            test_cap=None,
            max_steps=STEPS,
            seed=0,
            cache_dir=cache,
        )
        self.scores = []
        self.module = FlixModule(
            self.base,
            self.adapter,
            FeatureDropout(0, 0.0),
            run.mixture.evaluate,
            learning_rate=1e-2,
            warmup_steps=5,
            lazy=False,
            max_new_tokens=MAX_TARGET,
            on_scores=lambda _, scores: self.scores.extend(scores),
        )
        self.module.trainer = SimpleNamespace(accumulate_grad_batches=1, world_size=1)

    def fit(self):
        """Train; give the loss of each step."""
        configured = self.module.configure_optimizers()
        optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
        losses = []
        for batch in self.data.train_dataloader():
            loss = self.module.training_step(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.adapter.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return losses

    def predictions(self):
        """Generate for all of the test data in one batch: (id, prediction, target) of each example."""
        self.scores.clear()
        with torch.no_grad():
            for batch in self.data.eval_loader("test"):
                self.module.test_step(batch)
        self.module.on_test_epoch_end()
        return [one for score in self.scores for one in score.predictions]


def scrambled(training):
    """Give the adapter other weights than its start, so that each example's update differs."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for pool in training.adapter.parameters():
            pool[:-1] = torch.empty(pool[:-1].shape).normal_(std=0.2, generator=generator)
    return training


def alone(folder, training, split):
    """Id -> the row of an example, and the base, as its folder has it, with that example's update merged."""
    plain = models.load(str(folder), "main", "float32").model
    return {
        row["id"]: (row, merge(plain, training.adapter.state_dict(), RANKS, row["features"]))
        for row in training.data.table(split)
    }


@torch.no_grad()
def next_logits(model, family, row, written):
    """Logits of the token after `written`, in one plain forward pass."""
    prompt = torch.tensor([row["input_ids"]])
    if family.start:
        return model(prompt, decoder_input_ids=torch.tensor([[*family.start, *written]])).logits[0, -1]
    return model(torch.tensor([[*row["input_ids"], *written]])).logits[0, -1]


def step(training, batch):
    """The loss of one training step, its gradients, and how often an adapted projection ran."""
    runs = []
    handles = [
        module.base.register_forward_hook(lambda *_: runs.append(1))
        for module in training.adapter.modules.values()
    ]
    loss = training.module.training_step(batch)
    loss.backward()
    gradients = [pool.grad for pool in training.adapter.parameters()]
    training.module.zero_grad()
    for handle in handles:
        handle.remove()
    return loss.item(), gradients, len(runs)


def test_a_mixed_batch_is_trained_and_generated_as_each_example_alone(family, folder, texts, tmp_path):
    training = scrambled(Training(folder, texts, "float32", tmp_path))
    parts = {name.rpartition(".")[2] for name in training.adapter.modules}
    assert parts == set(family.projections.split())
    assert all(f".{part} (" in training.adapter.summary() for part in parts)

    batch = next(iter(training.data.train_dataloader()))
    assert len(set(batch["features"])) > 2
    singles, total, count = alone(folder, training, "train"), 0.0, 0
    for row, model in map(singles.get, batch["ids"]):
        for place, token in enumerate(row["target_ids"]):
            logits = next_logits(model, family, row, row["target_ids"][:place])
            total -= logits.double().log_softmax(-1)[token].item()
            count += 1
    loss, gradients, runs = step(training, batch)
    assert loss == pytest.approx(total / count, rel=1e-4)

    training.adapter.checkpoint_layers(training.base.model)
    again, recomputed, more_runs = step(training, batch)
    assert again == pytest.approx(loss)
    assert more_runs > 1.5 * runs
    torch.testing.assert_close(recomputed, gradients)

    found = {id: prediction for id, prediction, _ in training.predictions()}
    end = training.base.tokenizer.eos_token_id
    assert len(set(found.values())) > 1
    for id, (row, model) in alone(folder, training, "test").items():
        written = []
        while len(written) < MAX_TARGET and end not in written:
            written.append(int(next_logits(model, family, row, written).argmax()))
        assert found[id] == training.base.tokenizer.decode(written, skip_special_tokens=True)


def test_it_learns_in_bfloat16_and_its_adapter_is_saved_and_loaded(folder, texts, tmp_path, caplog):
    training = Training(folder, texts, "bfloat16", tmp_path)
    losses = training.fit()
    assert fmean(losses[-8:]) < 0.15 * losses[0]
    assert "train: 3 of 8 inputs cut to 40 tokens" in caplog.text
    assert "train: 1 of 8 targets cut to 6 tokens" in caplog.text
    written = training.predictions()
    right = [found == target[: MAX_TARGET - 1] for _, found, target in written]
    assert len(right) == 8
    assert sum(right) >= 6

    torch.save(training.adapter.state_dict(), tmp_path / "adapter.pt")
    other = Training(folder, texts, "bfloat16", tmp_path)
    assert other.predictions() != written
    other.adapter.load_state_dict(torch.load(tmp_path / "adapter.pt"), RANKS)
    assert other.predictions() == written
