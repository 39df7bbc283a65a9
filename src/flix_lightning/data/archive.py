"""Open a data folder, or unpack an archive to one on first use."""

import gzip
import logging
import lzma
import re
import tarfile
import zlib
from pathlib import Path
from typing import Any

from flix_lightning.common.errors import UserError
from flix_lightning.common.files import make_once, sha256
from flix_lightning.data.layout import Layout, find_layout, is_hidden
from flix_lightning.tasks.definitions import Tasks

_log = logging.getLogger(__name__)

#: Limits of the bytes and files that an archive may unpack to. A small archive can claim to hold terabytes.
MAX_BYTES, MAX_FILES = 32 * 2**30, 100_000

#: Limit of the bytes of a header. tarfile reads a header into memory at once, whatever size it claims.
MAX_HEADER = 2**20

_KINDS = ".tgz, .tar.gz or .tar.xz"
_OPENERS = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\0": lzma.open}
_BY_HAND = "unpack it yourself, and give data.root the folder"


def open_layout(root: str | Path, unpack_to: Path, tasks: Tasks | None = None) -> Layout:
    """Open the data that stands at the top of a folder or archive, or in one folder of it.

    Args:
        root: The folder or archive. `~` is the home folder.
        unpack_to: Where an archive is unpacked to `<its name>-<hash of its content>`, unless that is there.
        tasks: As for `Layout`.

    Raises:
        UserError: There is neither folder nor archive, no layout is found, or `unpack` refuses the archive.
    """
    root, tasks = Path(root).expanduser(), tasks or Tasks.of()
    if root.is_dir():
        return Layout(find_layout(root, tasks), tasks)
    if not root.is_file():
        raise UserError(
            f"{root}: no such folder or archive; data.root is a folder of <task>/<split>/<language>.jsonl, "
            f"or a {_KINDS} of one"
        )
    name = re.sub(r"(\.jsonl)?\.(tgz|tar\.\w+)$", "", root.name)
    folder = unpack_to / f"{name}-{sha256(root)[:16]}"

    def unpack_checked(draft: Path) -> None:
        _log.info("unpacking %s to %s", root, folder)
        unpack(root, draft)
        find_layout(draft, tasks, shown_as=root)

    return Layout(find_layout(make_once(folder, unpack_checked), tasks), tasks)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the files of a .tgz, .tar.gz or .tar.xz, except hidden ones. After an error, some may be there.

    Raises:
        UserError: The archive is of another kind, is damaged, holds a link or a device or more than MAX_BYTES
            or MAX_FILES, or a path leads out of `folder`; or Python is older than 3.11.4.
        OSError: A file cannot be written.
    """
    if not hasattr(tarfile, "data_filter"):
        raise UserError(f"{archive}: unpacking safely needs Python 3.11.4 or later; {_BY_HAND}")
    with archive.open("rb") as file:
        magic = file.read(max(map(len, _OPENERS)))
    opener = next((opener for start, opener in _OPENERS.items() if magic.startswith(start)), None)
    if opener is None:
        raise UserError(f"{archive}: not an archive that can be read; a {_KINDS} is needed")
    try:
        with opener(archive) as stream:
            with tarfile.open(fileobj=_BoundedReads(archive, stream), mode="r:") as tar:
                _extract(archive, tar, folder)
            while stream.read(2**20):  # up to the checksum
                pass
    except tarfile.FilterError as error:
        raise UserError(f"{archive}: {error.tarinfo.name!r} leads out of the target folder") from error
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, tarfile.TarError) as error:
        raise UserError(f"{archive}: cut off or damaged ({error}); get the archive again") from error


class _BoundedReads:
    """A stream that refuses to read much at once. tarfile reads files in pieces, but a header at once."""

    def __init__(self, archive: Path, stream: Any):
        self._archive, self._stream = archive, stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if size > MAX_HEADER:
            raise UserError(f"{self._archive}: has a header of more than {MAX_HEADER >> 20} MiB; {_BY_HAND}")
        return self._stream.read(size)


def _extract(archive: Path, tar: tarfile.TarFile, folder: Path) -> None:
    size = 0
    for count, member in enumerate(tar, start=1):
        size += member.size
        # Before 3.11.13, the data filter of Python does not keep all links within the folder.
        if not (member.isfile() or member.isdir()):
            raise UserError(f"{archive}: {member.name!r} is a link or a device; only files can be unpacked")
        if size > MAX_BYTES or count > MAX_FILES:
            raise UserError(
                f"{archive}: unpacks to more than {MAX_BYTES >> 30} GiB or {MAX_FILES} files; {_BY_HAND}"
            )
        if not any(map(is_hidden, Path(member.name).parts)):
            tar.extract(member, folder, filter="data")
