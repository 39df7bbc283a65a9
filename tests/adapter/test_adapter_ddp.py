"""Two processes under DistributedDataParallel against one, on a loss over the tokens of the whole batch."""

import pytest
import torch
import torch.distributed as dist
from tiny_models import RANKS, adapt, batch, build
from torch import multiprocessing
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

SCENARIOS = {
    "disjoint features": [
        ("task:ner", "language:sw"),
        ("task:ner",),
        ("task:qa", "language:am"),
        ("task:qa",),
    ],
    "one process has none": [("task:ner", "language:sw"), ("task:ner",), (), ("language:xx",)],
    "the same everywhere": [("task:ner", "language:am")] * 4,
    "none anywhere": [()] * 4,
}


def train(features, part=slice(None), wrap=lambda model: model, processes=1):
    """Take three SGD steps on `part` of a batch of four; return the pools and the first step's gradients."""
    model = build("t5")
    adapter = adapt(model, targets="default")
    forward = wrap(model)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
    first = None
    for step in range(3):
        inputs = batch(model, seed=step)
        inputs["labels"][0, 2:] = -100  # so that the processes have different numbers of tokens
        tokens = (inputs["labels"] != -100).sum()
        own = {key: value[part] for key, value in inputs.items()}
        optimizer.zero_grad()
        with adapter.route(adapter.space.rows(features[part])):
            logits = forward(**own).logits
        loss = cross_entropy(logits.flatten(0, 1), own["labels"].flatten(), reduction="sum") / tokens
        (loss * processes).backward()  # DDP averages over the processes
        first = first or [pool.grad.clone() for pool in adapter.parameters()]
        optimizer.step()
    return first, [pool.detach() for pool in adapter.parameters()]


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    part = slice(2 * rank, 2 * rank + 2)
    results = {name: train(f, part, DistributedDataParallel, 2) for name, f in SCENARIOS.items()}
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_two_processes_train_as_one_does(two_processes, scenario):
    expected = train(SCENARIOS[scenario])
    gradients, _ = expected
    touched = any(name in RANKS for names in SCENARIOS[scenario] for name in names)
    assert any(gradient.any() for gradient in gradients) == touched
    for result in two_processes:
        torch.testing.assert_close(result[scenario], expected)
