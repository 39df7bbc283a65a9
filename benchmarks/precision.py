"""A real model's step and generation on a CPU: bfloat16 against float32, FLix against its frozen base.

The model is Gemma 3 270M with as many tokens as the lite data needs. Its weights are random: no time depends
on them. All but PEFT's LoRA compute the base's layers and the loss as `train.py` does.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from benchmarks import contenders
from benchmarks.clock import interleave
from benchmarks.contenders import ACTIVE_RANK, FROZEN, JOINT, LORA, Contender, name
from benchmarks.measure import Measure, measure
from benchmarks.steps import step
from benchmarks.workloads import CUT_GEMMA, Workload
from flix_lightning.adapter.onednn import use_onednn
from flix_lightning.models.base import Base
from flix_lightning.models.loss import IGNORED, token_loss

TARGETS, NEW_TOKENS = 32, 24
FLOAT32, BFLOAT16 = "float32", "bfloat16"
STEP_BAR, ADDED_BAR, GENERATION_BAR = 0.6, 1.1, 0.7
OURS, PRODUCTS = name(JOINT), "the base's products alone"


def time_precision(rounds: int) -> Iterator[Measure]:
    """Time steps in which the last 32 tokens of each text are learned, and generation after the others."""
    steps: dict[str, Callable[[], object]] = {}
    generations: dict[str, Callable[[], object]] = {}
    for dtype in (FLOAT32, BFLOAT16):
        workload = CUT_GEMMA[dtype]
        base = workload.build().requires_grad_(False)
        inputs = workload.inputs(base)
        inputs |= {"attention_mask": torch.ones_like(inputs["input_ids"]), "labels": inputs["labels"].clone()}
        inputs["labels"][:, :-TARGETS] = IGNORED
        lora = contenders.lora(base, ACTIVE_RANK, "all-linear")
        use_onednn(base)
        ours, frozen = contenders.flix(base, JOINT, "all-linear", workload.batch), contenders.frozen(base)
        steps |= {
            f"{OURS}, {dtype}": step(ours, inputs, _token_loss),
            f"{FROZEN}, {dtype}": step(frozen, inputs, _token_loss),
            f"{LORA}, {dtype}": step(lora, inputs),
            f"{PRODUCTS}, {dtype}": _products(base, workload),
        }
        prompts = {key: ids[:, :-TARGETS] for key, ids in inputs.items() if key != "labels"}
        generations |= {
            f"{OURS}, {dtype}": _generate(ours, prompts),
            f"{FROZEN}, {dtype}": _generate(frozen, prompts),
            f"{LORA}, {dtype}": _generate(lora, prompts),
        }
        # The same made anew, to which each bar is a ratio: it shows the noise.
        if dtype == FLOAT32:
            again = contenders.flix(base, JOINT, "all-linear", workload.batch)
            steps[f"{OURS}, {dtype}, again"] = step(again, inputs, _token_loss)
            generations[f"{OURS}, {dtype}, again"] = _generate(again, prompts)
        else:
            steps[f"{FROZEN}, {dtype}, again"] = step(contenders.frozen(base), inputs, _token_loss)
    exact, rounded, alone = (f"{OURS}, {FLOAT32}", f"{OURS}, {BFLOAT16}", f"{FROZEN}, {BFLOAT16}")
    where = f"{workload.title}, all linear"
    size = f"{workload.batch} x {workload.length} tokens"
    seconds = interleave(steps, rounds)
    in_bfloat16 = {title: own for title, own in seconds.items() if BFLOAT16 in title}
    yield measure(f"step of {where}, {size}", "s", seconds, exact, {rounded: STEP_BAR})
    yield measure(f"step of {where}, {size}, in bfloat16", "s", in_bfloat16, alone, {rounded: ADDED_BAR})
    seconds = interleave(generations, rounds)
    title = f"generation of {where}, {NEW_TOKENS} tokens for {workload.batch} texts"
    yield measure(title, "s", seconds, exact, {rounded: GENERATION_BAR})


def _token_loss(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    labels = inputs["labels"]
    return token_loss(Base(model, None, False), inputs, len(labels) * TARGETS) / labels.numel()


def _products(model: PreTrainedModel, workload: Workload) -> Callable[[], None]:
    """What no step can save: each linear layer's product, and its gradient's."""
    head = model.get_output_embeddings()

    def call() -> None:
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                length = TARGETS if layer is head else workload.length
                shape = (workload.batch, length, layer.in_features)
                x = torch.ones(shape, dtype=model.dtype, requires_grad=True)
                output = layer(x)
                output.backward(output.detach())

    return call


def _generate(contender: Contender, prompts: dict[str, Tensor]) -> Callable[[], None]:
    def call() -> None:
        with contender.around():
            contender.model.generate(
                **prompts, do_sample=False, min_new_tokens=NEW_TOKENS, max_new_tokens=NEW_TOKENS
            )

    return call
