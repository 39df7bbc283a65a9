"""Training steps: look rows up, forward, backward, optimizer."""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks import contenders
from benchmarks.clock import gpu_busy, interleave, milliseconds
from benchmarks.contenders import COUNTS, JOINT, LORA, ONEDNN, Contender, name
from benchmarks.measure import Measure, measure
from benchmarks.workloads import TARGETS, Workload
from flix_lightning.adapter.lazy_adam import LazyAdam
from flix_lightning.adapter.onednn import use_onednn

BAR = 0.95  # largest ratio to PEFT's LoRA of the active rank; D = 40 and 120, all linears
GPU_BAR = 1.0
GROWTH = 1.10  # largest ratio of D = 1000 to D = 10, and of D = 10,000 with the lazy optimizer
THOUSANDS = 10_000


def time_steps(workload: Workload, targets: str, rounds: int, device: str = "cpu") -> list[Measure]:
    """Time the step of every contender, and FLix with many features against FLix with few.

    On a GPU, also time compiled layers, and how long the GPU computes in each step.
    """
    base = workload.build().to(device)
    inputs = workload.inputs(base)
    everyone = contenders.trainable(base, targets, workload.batch)
    on_gpu = device != "cpu"
    if on_gpu:
        everyone |= contenders.compiled(base, targets, workload.batch)
    else:
        by_onednn = contenders.flix(base, JOINT, targets, workload.batch)
        use_onednn(by_onednn.model)
        everyone[f"{name(JOINT)}, {ONEDNN}"] = by_onednn
    calls = {title: step(contender, inputs) for title, contender in everyone.items()}
    few, many = name(COUNTS[0]), name(COUNTS[-1])
    calls[alone := f"{many}, its dense gradient and AdamW alone"] = _dense_alone(
        contenders.flix(base, COUNTS[-1], targets, workload.batch)
    )
    figures = milliseconds(interleave(calls, rounds, on_gpu=on_gpu))
    where = _where(workload, targets)
    bar = GPU_BAR if on_gpu else BAR
    bars = {name(count): bar for count in (JOINT, 120)} if targets == "all-linear" else {}
    growth = {title: figures[title] for title in (few, many, alone)}
    measures = [
        measure(f"step of {where}", "ms", figures, LORA, bars),
        measure(f"growth with D of the step of {where}", "ms", growth, few, {many: GROWTH}),
    ]
    if on_gpu:
        busy = milliseconds({title: [gpu_busy(call)] for title, call in calls.items()})
        measures.append(measure(f"the GPU's own time in the step of {where}", "ms", busy, LORA, {}))
    return measures


def time_lazy_steps(workload: Workload, rounds: int) -> Measure:
    """Time the step of thousands of features with the lazy optimizer, against few with the dense one."""
    base, targets = workload.build(), "all-linear"
    inputs = workload.inputs(base)
    few, many = COUNTS[0], COUNTS[-1]
    everyone = {
        name(few): contenders.flix(base, few, targets, workload.batch),
        f"{name(few)}, again": contenders.flix(base, few, targets, workload.batch),
        f"{name(many)}, lazy": contenders.flix(base, many, targets, workload.batch, lazy=True),
        f"{name(THOUSANDS)}, lazy": contenders.flix(base, THOUSANDS, targets, workload.batch, lazy=True),
    }
    calls = {title: step(contender, inputs) for title, contender in everyone.items()}
    figures = milliseconds(interleave(calls, rounds))
    bars = {f"{name(THOUSANDS)}, lazy": GROWTH}
    title = f"growth with D, lazy, of the step of {_where(workload, targets)}"
    return measure(title, "ms", figures, name(few), bars)


Loss = Callable[[PreTrainedModel, dict[str, Tensor]], Tensor]


def own_loss(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    """Return the loss that the model itself computes."""
    return model(**inputs).loss


def step(contender: Contender, inputs: dict[str, Tensor], loss: Loss = own_loss) -> Callable[[], None]:
    """Return a function that does one training step of one micro-batch, with training's optimizer."""
    optimizer = optimizer_of(contender) if contender.trained else None

    def call() -> None:
        with contender.around():
            total = loss(contender.model, inputs)
        total.backward()
        if optimizer:
            optimizer.step()
            optimizer.zero_grad()

    return call


def _where(workload: Workload, targets: str) -> str:
    return f"{workload.title}, {TARGETS[targets]}, {workload.batch} x {workload.length} tokens"


def _dense_alone(contender: Contender) -> Callable[[], None]:
    """Return the part of a step that grows with D: a dense gradient of every row, and its AdamW step."""
    optimizer = optimizer_of(contender)

    def call() -> None:
        for weight in contender.trained:
            weight.grad = torch.zeros_like(weight)
        optimizer.step()
        optimizer.zero_grad()

    return call


def optimizer_of(contender: Contender) -> torch.optim.Optimizer:
    """Make a contender's optimizer, as in training."""
    if contender.lazy:
        return LazyAdam(contender.trained, lr=1e-3)
    return torch.optim.AdamW(contender.trained, lr=1e-3, weight_decay=0.0, fused=True)
