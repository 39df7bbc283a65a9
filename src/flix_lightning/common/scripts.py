"""The commands of an installed package: `flix-train` is `python train.py` of the repository, and so on."""

import runpy
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]

#: The folder with train.py and the other scripts, conf/ and sweeps/: of the wheel, or the repository.
HOME = next(one for one in (_PACKAGE / "commands", _PACKAGE.parents[1]) if (one / "conf").is_dir())
CONF = HOME / "conf"


def main() -> None:
    """Run the script that the command is named after."""
    name = Path(sys.argv[0]).stem.removeprefix("flix-")
    runpy.run_path(str(HOME / f"{name}.py"), run_name="__main__")
