"""The commands of an installed package: `flix-train` is `python train.py` of the repository, and so on."""

import re
import runpy
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]

#: The folder with train.py and the other scripts, conf/ and sweeps/: of the wheel, or the repository.
HOME = next(one for one in (_PACKAGE / "commands", _PACKAGE.parents[1]) if (one / "conf").is_dir())
CONF = HOME / "conf"


def name_commands(text: str) -> str:
    """Replace `python train.py` in a text by `flix-train`, and so on, where the package is installed."""
    if HOME.parent != _PACKAGE and not Path(sys.argv[0]).name.startswith("flix-"):
        return text
    text = re.sub(r"(torchrun [^`]*?)(\w+)\.py\b", r"\1--no-python flix-\2", text)
    return re.sub(r"(\.venv/bin/)?python (\w+)\.py\b", r"flix-\2", text)


def main() -> None:
    """Run the script that the command is named after."""
    name = Path(sys.argv[0]).stem.removeprefix("flix-")
    runpy.run_path(str(HOME / f"{name}.py"), run_name="__main__")
