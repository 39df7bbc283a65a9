import pytest
import torch
from tiny_models import ARCHITECTURES, FEATURES, adapt, batch, build

from flix_lightning.common.errors import UserError


def gradients(architecture, checkpointed):
    """Forward two batches of different features, then go back once; count how often base projections run."""
    model = build(architecture)
    adapter = adapt(model)
    if checkpointed:
        adapter.checkpoint_layers(model)
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


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_recomputation_uses_the_rows_of_its_own_forward(architecture):
    expected, recomputed, _ = gradients(architecture, False)
    assert recomputed == 0
    result, recomputed, forward_runs = gradients(architecture, True)
    assert recomputed >= forward_runs - 2 * 2  # early stopping may spare the last layer of each checkpoint
    for own, wanted in zip(result, expected, strict=True):
        assert wanted.abs().max() > 0
        torch.testing.assert_close(own, wanted)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_(en|dis)able")
def test_transformers_own_switch_which_knows_no_rows_is_refused():
    model = build("gpt2")
    model.gradient_checkpointing_enable()
    with pytest.raises(UserError, match="gradient checkpointing must be off"):
        adapt(model)
    model.gradient_checkpointing_disable()
    adapt(model)
    with pytest.raises(ValueError, match="does not support"):
        model.gradient_checkpointing_enable()
