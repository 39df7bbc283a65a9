"""The adapter and whole runs on a GPU, against the CPU; skipped where there is none."""

import copy

import pytest
import torch
from tiny_models import ARCHITECTURES, FEATURES, adapt, batch, build
from tiny_runs import checkpoint, do, predictions, rows

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def placed(model):
    """A batch on the model's device."""
    return {key: value.to(model.device) for key, value in batch(model).items()}


def trained(model, adapter):
    """The loss and the gradient of every pool after one backward pass."""
    with adapter.route(adapter.space.rows(FEATURES)):
        loss = model(**placed(model)).loss
    loss.backward()
    return [value.detach().cpu() for value in (loss, *(pool.grad for pool in adapter.parameters()))]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_and_answers_are_those_of_the_cpu(architecture):
    model = build(architecture)
    on_gpu = copy.deepcopy(model).cuda()
    adapters = adapt(model), adapt(on_gpu)
    torch.testing.assert_close(trained(on_gpu, adapters[1]), trained(model, adapters[0]))
    answers = []
    for one in (model, on_gpu):
        inputs = placed(one)
        del inputs["labels"]
        answers.append(one.generate(**inputs, features=FEATURES).cpu())
    assert torch.equal(*answers)


EXACT = ["model.dtype=float64", "trainer.precision=64-true"]


def distance(one, other):
    """The norm of the difference of two adapters, relative to that of the first."""
    one, other = (torch.cat([pool.flatten() for pool in pools.values()]) for pools in (one, other))
    return (one - other).norm() / one.norm()


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [("encoder-decoder", 1e-3), ("decoder", 1e-6)],  # T5 computes its attention weights in float32
)
@pytest.mark.parametrize("recomputed", [False, True])
def test_a_run_ends_as_on_the_cpu(kind, tolerance, recomputed, tiny, decoder_base, tmp_path):
    tiny = [*tiny, *EXACT, *([f"model.pretrained={decoder_base}"] if kind == "decoder" else [])]
    cpu = do(tiny, tmp_path / "cpu")
    gpu = do(
        [*tiny, "trainer.accelerator=gpu", f"trainer.activation_checkpointing={recomputed}"], tmp_path / "gpu"
    )
    assert gpu.name == cpu.name
    assert distance(checkpoint(cpu)["adapter"], checkpoint(gpu)["adapter"]) < tolerance
    assert predictions(gpu) == predictions(cpu)


def test_a_run_of_compiled_layers_ends_as_any_does(tiny, decoder_base, tmp_path):
    model = [f"model.pretrained={decoder_base}", r"model.targets='.*\.c_attn'"]
    short = [*tiny, *model, *EXACT, "trainer.accelerator=gpu", "trainer.max_steps=2", "trainer.batch_size=4"]
    plain = do(short, tmp_path / "plain")
    compiled = do([*short, "trainer.compile=true"], tmp_path / "compiled")
    assert distance(checkpoint(plain)["adapter"], checkpoint(compiled)["adapter"]) < 1e-6
    assert predictions(compiled) == predictions(plain)


def test_half_precision_trains_on_the_paper_s_trainer(tiny, tmp_path):
    folder = do(["trainer=gpu", *tiny], tmp_path)
    assert {row["active"] for row in rows(folder, split="test")} == {"all", "none", "task", "language"}
    for pool in checkpoint(folder)["adapter"].values():
        assert pool.dtype == torch.float32
        assert pool.isfinite().all()
