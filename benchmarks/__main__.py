"""Compare speed and memory with PEFT's: see `--help`."""

import argparse
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console

from benchmarks import clock, counts, generation, layer, precision, steps, workloads
from benchmarks.measure import Measure
from benchmarks.report import report, write
from benchmarks.workloads import TARGETS
from flix_lightning.common.cli import errors_as_lines
from flix_lightning.common.files import make_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the figures.

    Returns:
        1 if --quick finds a count above its bar, else 0: times have noise, counts have none.
    """
    options = _options(arguments)
    make_folder(options.out)  # before hours of measuring
    torch.set_num_threads(1)
    if not options.quick:
        clock.keep_memory()
    measures, console = [], Console()
    if options.precision:
        timed = precision.time_precision(options.rounds)
    else:
        timed = _gpu(options.rounds) if options.gpu else _cpu(options.rounds, options.quick)
    for one in timed:
        measures.append(one)
        report([one], ()).terminal(console)
    write(measures, _notes(options), options.out)
    for one in measures:
        for row in one.missed():
            console.print(f"missed: {one.title}: {row.contender} is at {row.ratio:.3f}, its bar is {row.bar}")
    console.print(f"Written: {options.out}/report.md, figure.png, rows.jsonl")
    return 1 if options.quick and any(one.missed() for one in measures) else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only count: no times")
    parser.add_argument(
        "--gpu", action="store_true", help="time training steps of a model of 270M parameters on a GPU"
    )
    parser.add_argument("--precision", action="store_true", help="bfloat16 and float32, a model of 198M")
    parser.add_argument("--rounds", type=int, default=11, help="rounds in which each contender is timed (11)")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"), help="folder to write to")
    options = parser.parse_args(arguments)
    if options.rounds < 2:
        parser.error("--rounds: at least 2 are needed for quartiles")
    if options.gpu and not torch.cuda.is_available():
        parser.error("--gpu: PyTorch finds no GPU")
    return options


def _cpu(rounds: int, quick: bool) -> Iterator[Measure]:
    for workload in workloads.WORKLOADS:
        for targets in TARGETS:
            yield from counts.count(workload, targets)
    if quick:
        return
    for width in layer.WIDTHS:
        yield layer.time_layer(width, rounds)
    for workload in workloads.WORKLOADS:
        for targets in TARGETS:
            yield from steps.time_steps(workload, targets, rounds)
            yield generation.time_generation(workload, targets, rounds)
    yield steps.time_lazy_steps(workloads.WORKLOADS[0], rounds)


def _gpu(rounds: int) -> Iterator[Measure]:
    for targets in TARGETS:
        yield from steps.time_steps(workloads.ON_GPU, targets, rounds, "cuda")


def _notes(options: argparse.Namespace) -> list[str]:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    device = torch.cuda.get_device_name() if options.gpu else f"{_processor()}, one thread"
    return [
        f"{packages}; {device}. Times are medians of {options.rounds} rounds. In each round every contender "
        "is timed, and ratios are taken within a round; quartiles are over rounds. The process keeps freed "
        "memory. The line 'again' is a second copy of the reference: it shows the noise."
    ]


def _processor() -> str:
    """The processor's name from /proc/cpuinfo, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    with errors_as_lines():
        sys.exit(main())
