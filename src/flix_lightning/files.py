"""Files that are written whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path

from flix_lightning.errors import UserError


def write_whole(path: Path, content: str | bytes) -> None:
    """Put `content` at `path` through a temporary file beside it, so that no reader ever sees half of it.

    Whatever stood at `path` before stays untouched until all of the new content is on the disk.

    Raises:
        UserError: the file cannot be written (full disk, no permission).
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        reason = error.strerror or error
        raise UserError(f"cannot write {path}: {reason}; what stood there is untouched") from error
