"""Greedy generation for a batch in which every example has its own combination of features."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks import contenders
from benchmarks.clock import interleave
from benchmarks.contenders import ACTIVE_RANK, FROZEN, JOINT, LORA, ONEDNN, name
from benchmarks.measure import Measure, measure
from benchmarks.workloads import TARGETS, Workload
from flix_lightning.adapter.onednn import use_onednn
from flix_lightning.adapter.projection import Adapter, inject
from flix_lightning.adapter.targets import find_targets

COMBINATIONS, TOKENS = 16, 32
NAMES = [f"combination {n}" for n in range(COMBINATIONS)]
MIXED = f"PEFT adapter_names, {COMBINATIONS} adapters"
BARS = {True: 1.6, False: 1.3}  # encoder-decoder? -> smallest ratio of tokens a second to MIXED


def time_generation(workload: Workload, targets: str, rounds: int) -> Measure:
    """Time generation of 32 tokens for each of 16 combinations of features, one example each.

    Raises:
        RuntimeError: FLix and PEFT do not generate the same tokens.
    """
    base = workload.build()
    inputs = replace(workload, batch=COMBINATIONS).inputs(base)
    del inputs["labels"]
    ours = copy.deepcopy(base)
    adapter = inject(ours, contenders.space(JOINT), targets)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in adapter.modules.values():
            module.B[:-1].normal_(std=0.02, generator=generator)
    named = [(f"task:{n % contenders.TASKS}", f"language:{n}") for n in range(COMBINATIONS)]
    index = adapter.space.rows(named).index
    mixed, one = _lora(base, targets, adapter, index), contenders.lora(base, ACTIVE_RANK, targets).model
    by_onednn = copy.deepcopy((ours, adapter))
    use_onednn(by_onednn[0])

    def routed(model: PreTrainedModel, adapter: Adapter) -> Tensor:
        with adapter.route(adapter.space.rows(named)):
            return _generate(model, inputs)

    calls: dict[str, Callable[[], Tensor]] = {
        FROZEN: lambda: _generate(base, inputs),
        LORA: lambda: _generate(one, inputs),
        MIXED: lambda: _generate(mixed, inputs, adapter_names=NAMES),
        f"{MIXED}, again": lambda: _generate(mixed, inputs, adapter_names=NAMES),
        name(JOINT): lambda: routed(ours, adapter),
        f"{name(JOINT)}, {ONEDNN}": lambda: routed(*by_onednn),
    }
    if not torch.equal(calls[MIXED](), calls[name(JOINT)]()):
        raise RuntimeError("FLix and PEFT do not generate the same tokens from the same weights")
    speeds = {
        title: [COMBINATIONS * TOKENS / second for second in seconds]
        for title, seconds in interleave(calls, rounds).items()
    }
    bars = {name(JOINT): BARS[base.config.is_encoder_decoder]}
    title = f"generation of {workload.title}, {TARGETS[targets]}, {COMBINATIONS} combinations"
    return measure(title, "tokens/s", speeds, MIXED, bars, more_is_better=True)


def _lora(base: PreTrainedModel, targets: str, adapter: Adapter, index: Tensor) -> PeftModel:
    """PEFT's model with one LoRA a combination, made of the rows that FLix adds up."""
    config = LoraConfig(
        r=ACTIVE_RANK, lora_alpha=ACTIVE_RANK, target_modules=list(find_targets(base, targets))
    )
    model = get_peft_model(copy.deepcopy(base), config, adapter_name=NAMES[0])
    for other in NAMES[1:]:
        model.add_adapter(other, config)
    with torch.no_grad():
        for place, pools in adapter.modules.items():
            module = model.base_model.model.get_submodule(place)
            for own, rows in zip(NAMES, index, strict=True):
                module.lora_A[own].weight.copy_(pools.A[rows])
                module.lora_B[own].weight.copy_(pools.B[rows].T)
    return model.eval()


def _generate(model: PreTrainedModel | PeftModel, inputs: dict[str, Tensor], **options: Any) -> Tensor:
    return model.generate(**inputs, **options, do_sample=False, min_new_tokens=TOKENS, max_new_tokens=TOKENS)
