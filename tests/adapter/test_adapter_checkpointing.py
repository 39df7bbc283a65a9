import pytest
import torch
from tiny_models import ARCHITECTURES, FEATURES, adapt, batch, build

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_(en|dis)able"),
    pytest.mark.parametrize("architecture", ARCHITECTURES),
]


def gradients(architecture, use_reentrant=None, enable=None):
    """Forward two batches of different features, then go back once; count how often base projections run."""
    # Training mode, since transformers checkpoints in no other; the model has no dropout.
    model = build(architecture).train()
    arguments = {"gradient_checkpointing_kwargs": {"use_reentrant": use_reentrant}}
    if enable == "before":
        model.gradient_checkpointing_enable(**arguments)
    adapter = adapt(model)
    if enable == "after":
        model.gradient_checkpointing_enable(**arguments)
    runs = []
    for module in adapter.modules.values():
        module.base.register_forward_hook(lambda *_: runs.append(1))

    losses = []
    for seed, features in enumerate([FEATURES, [("language:am", "task:qa")] * 4]):
        with adapter.route(adapter.space.rows(features)):
            losses.append(model(**batch(model, seed=seed), use_cache=False).loss)
    forward_runs = len(runs)
    sum(losses).backward()
    return [pool.grad for pool in adapter.parameters()], len(runs) - forward_runs, forward_runs


@pytest.mark.parametrize("enable", ["before", "after"])
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_recomputation_uses_the_rows_of_its_own_forward(architecture, use_reentrant, enable):
    expected, recomputed, _ = gradients(architecture)
    assert recomputed == 0
    result, recomputed, forward_runs = gradients(architecture, use_reentrant, enable)
    assert recomputed >= forward_runs - 2 * 2  # early stopping may spare the last layer of each checkpoint
    for own, wanted in zip(result, expected, strict=True):
        assert wanted.abs().max() > 0
        torch.testing.assert_close(own, wanted)


def test_checkpointing_can_be_switched_off_again(architecture):
    model = build(architecture).train()
    adapter = adapt(model)
    model.gradient_checkpointing_enable()
    model.gradient_checkpointing_disable()
    runs = []
    next(iter(adapter.modules.values())).base.register_forward_hook(lambda *_: runs.append(1))
    with adapter.route(adapter.space.rows(FEATURES)):
        model(**batch(model)).loss.backward()
    assert len(runs) == 1
