"""Speed and memory against PEFT: `python -m benchmarks`."""
