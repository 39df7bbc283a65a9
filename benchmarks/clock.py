"""Time of things that do the same work, taken turn about in one process: CPU time, or a GPU's."""

import ctypes
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence

import torch

WARM_UP = 2  # calls of each before the first that counts
LEAST = 0.1  # seconds that each is called for in a round


def keep_memory() -> None:
    """Have the C library keep what is freed, where it is glibc.

    It gives memory back to the system and takes it anew as the heap happens to lie, which has to do with what
    else is in the process and not with who asks: up to a tenth of a step, and another part of it in each run.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        for threshold in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
            mallopt(threshold, 2**31 - 1)


def interleave(
    contenders: Mapping[str, Callable[[], object]], rounds: int, on_gpu: bool = False
) -> dict[str, list[float]]:
    """Give each contender's seconds a call, one figure a round.

    A round calls every contender, in an order drawn anew, so that what else the machine does falls on all;
    CPU time leaves out what it only waits for.

    Args:
        contenders: name -> what is called.
        rounds: at least 1.
        on_gpu: take the time until the GPU has done all it was given, and not that of the CPU.
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


def milliseconds(seconds: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Convert what `interleave` gives."""
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
