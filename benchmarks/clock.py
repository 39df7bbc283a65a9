"""Interleaved timing of functions in one process: CPU time, or a GPU's time."""

import ctypes
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

WARM_UP = 2  # untimed calls of each function
LEAST = 0.1  # shortest time of one function in a round, seconds


def keep_memory() -> None:
    """Make glibc keep freed memory; do nothing with another C library.

    Otherwise glibc returns memory to the system and asks for it again, depending on what else is on the heap.
    This takes up to a tenth of a step, and another share in each run.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        for threshold in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
            mallopt(threshold, 2**31 - 1)


def interleave(
    contenders: Mapping[str, Callable[[], object]], rounds: int, on_gpu: bool = False
) -> dict[str, list[float]]:
    """Time each contender, in seconds a call, once a round.

    A round calls every contender, in a new random order, so that other work of the machine slows all of them
    alike. CPU time does not count waiting.

    Args:
        contenders: name -> function to time.
        rounds: at least 1.
        on_gpu: measure the time until the GPU is done, instead of CPU time.
    """
    calls = {}
    for name, call in contenders.items():
        for _ in range(WARM_UP):
            call()
        calls[name] = max(1, math.ceil(LEAST / _seconds(call, 1, on_gpu)))
    order, draw = list(contenders), random.Random(0)
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        draw.shuffle(order)
        for name in order:
            figures[name].append(_seconds(contenders[name], calls[name], on_gpu))
    return figures


def gpu_busy(call: Callable[[], object]) -> float:
    """Return for how many seconds the GPU computes in one call; the rest of the time it waits for the CPU."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize()
    events = profiler.key_averages()
    computed = (one for one in events if one.device_type == DeviceType.CUDA and not one.is_user_annotation)
    return sum(one.self_device_time_total for one in computed) / 1e6


def milliseconds(seconds: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Convert the result of `interleave`."""
    return {name: [1e3 * one for one in own] for name, own in seconds.items()}


def _seconds(call: Callable[[], object], times: int, on_gpu: bool) -> float:
    begun = _now(on_gpu)
    for _ in range(times):
        call()
    return (_now(on_gpu) - begun) / times


def _now(on_gpu: bool) -> float:
    if not on_gpu:
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()
