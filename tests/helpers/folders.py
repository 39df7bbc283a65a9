"""Small folders in XTREME-UP's layout for tests."""

import json
from collections.abc import Iterable
from pathlib import Path


def line_of(task: str, input_text: str, target: str, **more: str) -> dict[str, str]:
    """One line of a task, spelled out here so that no test reads the keys from the code under test."""
    if task == "ner":
        return {"text": input_text, "target": target, **more}
    if task.startswith("qa"):
        return {"question": input_text, "title": "t", "context": "c", "target": target, **more}
    return {"input": input_text, "target": target, **more}


def write_split(root: Path, task: str, split: str, language: str, lines: Iterable[dict]) -> Path:
    stem = f"en2{language}" if task == "translation" else language
    path = root / task / split / f"{stem}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def write_dataset(root: Path, task: str, language: str, count: int, splits=("train", "validation", "test")):
    """`count` lines a split; the n-th has an input of n and a target of n % 5 letters."""
    for split in splits:
        lines = [line_of(task, "x" * n, "y" * (n % 5), number=str(n)) for n in range(count)]
        write_split(root, task, split, language, lines)


def made(folder):
    """What was made in a folder, without the files of locks."""
    return [path for path in folder.iterdir() if path.suffix != ".lock"]
