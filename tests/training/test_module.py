import copy
import traceback
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import sacrebleu
import torch
from folders import line_of, write_split
from tiny_models import ARCHITECTURES, FEATURES, RANKS, adapt, batch, build
from tiny_runs import checkpoint, config, do, json_lines, rows
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, ByT5Tokenizer

from flix_lightning.adapter.features import FeatureDropout
from flix_lightning.adapter.reference import merge
from flix_lightning.common.errors import UserError
from flix_lightning.models.base import Base
from flix_lightning.models.generation import Generator
from flix_lightning.models.loss import token_loss
from flix_lightning.runs.run import Run
from flix_lightning.training import train as experiment
from flix_lightning.training.module import FlixModule

IDS = ["a", "b", "c", "d"]
LANGUAGES = {"sw": "Swahili", "en": "English", "yo": "Yoruba", "zu": "Zulu"}
PROMPTS = {"semantic_parsing": "parse {}: {}", "ner": "find entities in {}: {}"}


def tiny_module(architecture="t5", rescale=False, **options):
    model = build(architecture)
    base = Base(model, ByT5Tokenizer(), model.config.is_encoder_decoder)
    settings = {"learning_rate": 0.1, "warmup_steps": 4, "max_new_tokens": 4, "on_scores": None}
    settings |= {"lazy": False, **options}
    return FlixModule(base, adapt(model), FeatureDropout(0, 0.5, rescale), [], **settings)


def count(labels, module):
    """How many labels are predicted."""
    return int(((labels if module.base.is_encoder_decoder else labels[:, 1:]) != -100).sum())


# -- training


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("step", [0, 1])
def test_loss_is_that_of_one_example_at_a_time(architecture, step):
    """Each with the features it keeps merged into the base, and Transformers' own loss."""
    module = tiny_module(architecture)
    inputs = batch(module.model)
    inputs["labels"][1, 3:] = -100
    dropped = FeatureDropout(0, 0.5)(FEATURES, IDS, step)
    assert dropped != [tuple(one) for one in FEATURES]
    total = 0
    for i, kept in enumerate(dropped):
        alone = merge(build(architecture), module.adapter.state_dict(), RANKS, kept)
        one = {key: value[i : i + 1] for key, value in inputs.items()}
        labels = one["labels"] if module.base.is_encoder_decoder else one["labels"][:, 1:]
        total += alone(**one).loss * (labels != -100).sum()
    trainer = SimpleNamespace(accumulate_grad_batches=2, world_size=3)
    module.trainer = trainer
    facts = {"features": FEATURES, "ids": IDS, "step": step, "target_tokens": 50, "examples": 12}
    facts["own_target_tokens"] = count(inputs["labels"], module)
    loss = module.training_step({**inputs, **facts})
    # Lightning divides by the accumulation, and DDP's gradients by the number of processes.
    torch.testing.assert_close(loss, total.to(loss.dtype) / 50 * 2 * 3, rtol=1e-5, atol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_are_made_only_where_there_is_a_target(architecture):
    module = tiny_module(architecture)
    inputs = batch(module.model)
    inputs["labels"][1, 3:] = -100
    wanted = count(inputs["labels"], module)
    made = []
    head = module.model.get_output_embeddings()
    head.register_forward_hook(lambda _, seen, logits: made.append(logits.shape[:-1]))
    with module.adapter.route(module.adapter.space.rows(FEATURES)):
        token_loss(module.base, inputs, wanted)
        module.model(**inputs)  # any other call has them all
    assert made == [(wanted,), inputs["labels"].shape]


class Waits(TorchDispatchMode):
    """Counts what would have the CPU wait for a GPU, by the code that asks for it."""

    ASKING = ("_local_scalar_dense", "nonzero", "masked_select", "equal")

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, indices = function.overloadpacket.__name__, []
        if name in ("index", "index_put", "index_put_"):
            indices = [index for index in args[1] if index is not None and index.dtype == torch.bool]
        if name in self.ASKING or indices:
            frames = traceback.extract_stack()[:-1]
            frame = next(f for f in reversed(frames) if "/torch/" not in f.filename)
            self.found[f"{Path(frame.filename).name}: {frame.name}"] += 1
        return function(*args, **(kwargs or {}))


def test_no_step_waits_for_a_gpu(tiny, tmp_path):
    found = []
    for steps in (2, 6):
        options = [f"trainer.max_steps={steps}", "evaluation.every=100", "trainer.progress=lines"]
        with Waits() as waits:
            do([*tiny, *options, "evaluation.test=false"], tmp_path / str(steps))
        found.append(waits.found)
    assert "generation.py: _generate" in found[0], "it finds those of the validation"
    # Transformers asks once for a stack of layers whether there is any padding.
    assert set(found[1] - found[0]) == {"masking_utils.py: _ignore_bidirectional_mask_sdpa"}


def test_any_micro_batching_trains_the_same(tiny, tmp_path):
    overrides = [*tiny, "model.dtype=float64", "trainer.precision=64-true", "flix.controls=[]"]
    found = [
        checkpoint(do([*overrides, f"trainer.micro_batch_size={size}"], tmp_path / str(size)))
        for size in (8, 4, 2)
    ]
    assert found[0]["adapter"]["encoder.block.0.layer.0.SelfAttention.q.B"].abs().max() > 0.01
    for other in found[1:]:
        torch.testing.assert_close(other["adapter"], found[0]["adapter"], rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(other["seen_without"], found[0]["seen_without"])


def test_the_base_stays_as_it_is(tiny, tmp_path, base, monkeypatch):
    made = []

    class Spy(FlixModule):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            made.append(self)

        def training_step(self, batch):
            assert self.training
            assert not any(module.training for module in self.model.modules())
            return super().training_step(batch)

    monkeypatch.setattr(experiment, "FlixModule", Spy)
    do(tiny, tmp_path)
    (module,) = made
    module.train()
    assert not any(part.training for part in module.model.modules())
    trained = {id(pool) for pool in module.adapter.parameters()}
    assert {id(p) for p in module.parameters() if p.requires_grad} == trained
    before = AutoModelForSeq2SeqLM.from_pretrained(base).state_dict()
    after = module.model.state_dict()
    for key, weight in before.items():
        place, _, last = key.rpartition(".")
        found = after[key] if key in after else after[f"{place}.base.{last}"]
        assert torch.equal(found, weight), key


def test_optimizer():
    module = tiny_module()
    optimizer = module.configure_optimizers()["optimizer"]
    assert type(optimizer) is torch.optim.AdamW
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == 0
    assert group["fused"]
    assert {id(p) for p in group["params"]} == {id(p) for p in module.adapter.parameters()}


@pytest.mark.parametrize(
    ("warmup", "rates"), [(4, [0.025, 0.05, 0.075, 0.1, 0.1]), (1, [0.1] * 3), (0, [0.1] * 3)]
)
def test_warmup(warmup, rates):
    configured = tiny_module(warmup_steps=warmup).configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]
    assert schedule["interval"] == "step"
    found = []
    for _ in rates:
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule["scheduler"].step()
    assert found == pytest.approx(rates)


@pytest.mark.parametrize(("value", "norm"), [(0.5, 0.5), (1e9, None), (None, None)])
def test_clipping(value, norm):
    module = tiny_module()
    module.trainer = trainer = SimpleNamespace(precision_plugin=SimpleNamespace())
    for pool in module.adapter.parameters():
        pool.grad = torch.ones_like(pool)
    pools = sum(pool.numel() for pool in module.adapter.parameters())
    module.configure_gradient_clipping(None, value)
    found = sum(float(pool.grad.square().sum()) for pool in module.adapter.parameters()) ** 0.5
    assert found == pytest.approx(norm or pools**0.5)
    trainer.precision, trainer.precision_plugin.scaler = "16-mixed", object()
    if value is not None:
        with pytest.raises(UserError, match=r"trainer\.precision=16-mixed scales .* bf16-mixed"):
            module.configure_gradient_clipping(None, value)


# -- evaluation


@pytest.mark.parametrize("architecture", ["encoder-decoder", "decoder-only"])
def test_predictions_are_those_of_the_chosen_weights(architecture, tiny, tmp_path, base, decoder_base, data):
    """One example at a time, with what it has of features merged into the base."""
    folder, family, end = base, AutoModelForSeq2SeqLM, ""
    if architecture == "decoder-only":
        folder, family, end = decoder_base, AutoModelForCausalLM, "\n"
    overrides = [
        f"model.pretrained={folder}",
        "trainer.max_steps=6",
        "evaluation.every=6",
        "flix.controls=[[],[language]]",
    ]
    done = do([*tiny, *overrides], tmp_path)
    tokenizer, plain = AutoTokenizer.from_pretrained(folder), family.from_pretrained(folder).eval()
    texts = {}
    for path in sorted((done / "predictions").glob("test-*/*/*.jsonl")):
        active, task, language = path.parts[-3].removeprefix("test-"), path.parts[-2], path.stem
        kept = checkpoint(done, f"best-{task}")
        on = {"all": ("task", "language"), "none": (), "language": ("language",)}[active]
        features = [
            f"{kind}:{name}" for kind, name in {"task": task, "language": language}.items() if kind in on
        ]
        model = merge(plain, kept["adapter"], kept["ranks"], features)
        lines = json_lines(data / task / "test" / f"{language}.jsonl")
        found = json_lines(path)
        texts[path] = [row["prediction"] for row in found]
        for number, (line, row) in enumerate(zip(lines, found, strict=True), start=1):
            prompt = PROMPTS[task].format(LANGUAGES[language], line.get("input") or line["text"]) + end
            inputs = tokenizer(prompt, return_tensors="pt")
            ids = model.generate(**inputs, max_new_tokens=4, do_sample=False, pad_token_id=0)[0]
            if end:
                ids = ids[inputs["input_ids"].shape[1] :]
            assert row == {
                "id": f"{task}/{language}/test/{number}",
                "prediction": tokenizer.decode(ids, skip_special_tokens=True),
                "target": line["target"],
            }
    assert len(texts) == 6 * 3
    assert (
        texts[done / "predictions/test-all/ner/sw.jsonl"]
        != texts[done / "predictions/test-none/ner/sw.jsonl"]
    )


ANSWERS = {
    "semantic_parsing": ["go home", "go home now", "go hom", ""],
    "translation": ["nyumba kubwa", "nyumba ndogo", "kubwa nyumba kubwa", "zzz"],
    "ner": ["PER: Ada $$ LOC: Rome", "LOC: Rome", "PER: Rome $$ PER: Ada", "Ada"],
    "qa_in_lang": ["the red house", "red", "blue house door", "none"],
    "qa_cross_lang": ["house red", "red house", "red red", ""],
}
TARGETS = {
    "semantic_parsing": "go home",
    "translation": "nyumba kubwa",
    "ner": "PER: Ada $$ LOC: Rome",
    "qa_in_lang": "red house",
    "qa_cross_lang": "red house",
}


def overlap(predicted, wanted):
    predicted, wanted = Counter(predicted), Counter(wanted)
    return sum((predicted & wanted).values()), sum(predicted.values()), sum(wanted.values())


def mean_f1(pairs):
    scores = []
    for prediction, target in pairs:
        shared, predicted, wanted = overlap([w for w in prediction.split() if w != "the"], target.split())
        scores.append(200 * shared / (predicted + wanted))
    return sum(scores) / len(scores)


def entity_f1(pairs):
    counts = [
        overlap([one for one in prediction.split(" $$ ") if ":" in one], target.split(" $$ "))
        for prediction, target in pairs
    ]
    shared, predicted, wanted = (sum(column) for column in zip(*counts, strict=True))
    return 200 * shared / (predicted + wanted)


SCORES = {
    "semantic_parsing": lambda pairs: 100 * sum(p == t for p, t in pairs) / len(pairs),
    "translation": lambda pairs: sacrebleu.corpus_chrf([p for p, _ in pairs], [[t for _, t in pairs]]).score,
    "ner": entity_f1,
    "qa_in_lang": mean_f1,
    "qa_cross_lang": mean_f1,
}


def test_scores_are_those_of_the_predictions(tiny, tmp_path, monkeypatch):
    """Of each task and language, whatever batches they were generated in."""
    answers = {}
    for task, texts in ANSWERS.items():
        for split in ("train", "validation", "test"):
            for offset, language in enumerate(("sw", "yo")):
                said = [texts[(n + offset) % 4] for n in range(3)]
                lines = [line_of(task, f"{task} {split} {language} {n}", TARGETS[task]) for n in range(3)]
                write_split(tmp_path / "data", task, split, language, lines)
                answers.update({f"{task} {split} {language} {n}": text for n, text in enumerate(said)})

    def says(_, batch, features):
        prompts = ByT5Tokenizer().batch_decode(batch["input_ids"], skip_special_tokens=True)
        return [next(text for key, text in answers.items() if key in prompt) for prompt in prompts]

    monkeypatch.setattr(Generator, "__call__", says)
    entries = ",".join(f"{{task:{task},languages:[sw,yo]}}" for task in ANSWERS)
    cfg = config(
        [
            *tiny,
            f"data.root={tmp_path / 'data'}",
            "data.max_input_length=200",
            f"mixture.train=[{entries}]",
            f"mixture.evaluate=[{entries}]",
            f"mixture.report=[{','.join(ANSWERS)}]",
            "evaluation.batch_size=4",
            "evaluation.selection=average",
            "trainer.max_steps=1",
            f"output={tmp_path}",
        ]
    )
    mean = experiment.train(cfg)
    folder = Run.resolve(cfg).path
    expected = {}
    for split, place in (("validation", "validation-1"), ("test", "test-all")):
        for task in ANSWERS:
            for language in ("sw", "yo"):
                found = json_lines(folder / "predictions" / place / task / f"{language}.jsonl")
                pairs = [(row["prediction"], row["target"]) for row in found]
                assert [p for p, _ in pairs] == [answers[f"{task} {split} {language} {n}"] for n in range(3)]
                expected[split, task, language] = SCORES[task](pairs)
    scores = {
        (r["split"], r["task"], r["language"]): r["value"] for r in rows(folder, active="all") if r["task"]
    }
    assert scores == pytest.approx(expected)
    assert len(set(scores.values())) > 6
    validation = [value for (split, *_), value in expected.items() if split == "validation"]
    assert mean == pytest.approx(sum(validation) / 10)
    assert checkpoint(folder, "last")["callbacks"]
    (best,) = [
        state["best_model_score"]
        for state in checkpoint(folder, "last")["callbacks"].values()
        if state.get("monitor") == "val/mean"
    ]
    assert float(best) == pytest.approx(sum(validation) / 10)


# -- checkpoints


def test_a_checkpoint_holds_the_adapter_only(tiny, tmp_path, base):
    folder = do([*tiny, "model.targets=default"], tmp_path)
    for name in ("best-ner", "last"):
        found = checkpoint(folder, name)  # with weights_only=True
        assert found["state_dict"] == {}
        assert {key.rpartition(".")[2] for key in found["adapter"]} == {"A", "B"}
        size = sum(pool.numel() for pool in found["adapter"].values())
        # Ranks 4 for two tasks and 2 for three languages; q and v of three attentions, each 32 wide.
        assert size == (2 * 4 + 3 * 2) * 6 * (32 + 32)
        moments = 3 if name == "last" else 1  # of AdamW
        assert (folder / "checkpoints" / f"{name}.ckpt").stat().st_size < moments * 4 * size + 40_000


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c["ranks"].update({"task:ner": 2}), "task:ner 2 instead of 3"),
        (lambda c: c["ranks"].pop("language:sw"), "no features language:sw"),
        (lambda c: c["ranks"].update({"language:zu": 2}), "unexpected features language:zu"),
        (lambda c: c["adapter"].popitem(), "no pools decoder.block.1.layer.2.DenseReluDense.wo.B"),
        (
            lambda c: c["adapter"].update({"encoder.block.0.layer.0.SelfAttention.q.A": torch.zeros(8, 3)}),
            r"encoder.block.0.layer.0.SelfAttention.q.A \[8, 3\] instead of \[8, 16\]",
        ),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(change, named):
    module = tiny_module()
    start = copy.deepcopy(module.adapter.state_dict())
    saved = {"adapter": {key: pool + 1 for key, pool in start.items()}, "ranks": dict(RANKS)}
    module.adapter.load_state_dict(saved["adapter"], saved["ranks"])
    torch.testing.assert_close(module.adapter.state_dict(), saved["adapter"], rtol=0, atol=0)
    module.adapter.load_state_dict(start, saved["ranks"])
    change(saved)
    with pytest.raises(UserError, match=named):
        module.adapter.load_state_dict(saved["adapter"], saved["ranks"])
    torch.testing.assert_close(module.adapter.state_dict(), start, rtol=0, atol=0)
