"""Counts: floating-point operations, bytes kept for the backward pass, parameters."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, baddbmm_flop

from benchmarks import contenders
from benchmarks.contenders import COUNTS, FROZEN, LORA, Contender, name
from benchmarks.measure import Measure, measure
from benchmarks.workloads import TARGETS, Workload

BATCH = 8  # examples; the ratios of counts do not depend on it
FLOPS, KEPT = 1.001, 1.01  # bars: largest ratios to PEFT's LoRA of the active rank
#: Parts of the names of operations that multiply matrices.
PRODUCTS = ("mm", "matmul", "mv", "dot", "einsum", "linear", "conv", "attention")
#: FLix's in-place product, which PyTorch counts as 0.
IN_PLACE = {torch.ops.aten.baddbmm_: baddbmm_flop.__wrapped__}


def count(workload: Workload, targets: str) -> list[Measure]:
    """Count every contender's operations, bytes kept for the backward pass, and trained parameters."""
    workload = replace(workload, batch=BATCH)
    base = workload.build()
    inputs = workload.inputs(base)
    everyone = contenders.trainable(base, targets, workload.batch)
    base.set_attn_implementation("eager")  # PyTorch counts the CPU's fused attention as 0
    counted = contenders.trainable(base, targets, workload.batch)
    where = f"{workload.title}, {TARGETS[targets]}"
    ours = [name(features) for features in COUNTS]
    gigaflops, megabytes, trained = {}, {}, {}
    for title, contender in everyone.items():
        gigaflops[title] = [flops(counted[title], inputs) / 1e9]
        megabytes[title] = [kept(contender, inputs) / 1e6]
        if title != FROZEN:
            trained[title] = [sum(weight.numel() for weight in contender.trained) / 1e6]
    return [
        measure(f"forward and backward of {where}", "GFLOP", gigaflops, LORA, dict.fromkeys(ours, FLOPS)),
        measure(f"activations of {where}", "MB", megabytes, LORA, dict.fromkeys(ours, KEPT)),
        measure(f"trained parameters of {where} (AdamW keeps two numbers for each)", "M", trained, LORA, {}),
    ]


def flops(contender: Contender, inputs: dict[str, Tensor]) -> int:
    """Count the floating-point operations of a forward and a backward pass.

    Raises:
        RuntimeError: PyTorch has no count for an operation that multiplies matrices.
    """
    counter = FlopCounterMode(display=False, custom_mapping=IN_PLACE)
    with counter, _NoneUncounted(counter):
        with contender.around():
            loss = contender.model(**inputs).loss
        loss.backward()
    contender.model.zero_grad()
    return counter.get_total_flops()


class _NoneUncounted(TorchDispatchMode):
    def __init__(self, counter: FlopCounterMode):
        super().__init__()
        self._counted = counter.flop_registry

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        word = func.overloadpacket.__name__
        if any(part in word for part in PRODUCTS) and func.overloadpacket not in self._counted:
            raise RuntimeError(f"{word} multiplies matrices, but PyTorch does not count it")
        return func(*args, **(kwargs or {}))


def kept(contender: Contender, inputs: dict[str, Tensor]) -> int:
    """Count the bytes of the tensors that a forward pass keeps for the backward pass, without weights."""
    own = {tensor.untyped_storage().data_ptr() for tensor in _tensors(contender.model)}
    found: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in own:
            found[place] = tensor  # kept alive, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), contender.around():
        loss = contender.model(**inputs).loss
    loss.backward()
    contender.model.zero_grad()
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
