"""Where a layout's folder comes from: it is there, or it is unpacked from an archive, once."""

import gzip
import logging
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from flix_lightning.common.errors import UserError
from flix_lightning.common.files import atomic_folder, sha256
from flix_lightning.data.layout import Layout, find_layout

_log = logging.getLogger(__name__)

#: Most bytes and files that an archive may unpack to; a small file that claims more is made to fill disks.
MAX_BYTES, MAX_FILES = 32 * 2**30, 100_000

#: Most bytes of what stands before a file in an archive.
MAX_HEADER = 2**20

_KINDS = ".tgz, .tar.gz or .tar.xz"
_OPENERS = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\0": lzma.open}


def open_layout(root: str | Path, unpack_to: Path) -> Layout:
    """Give the layout that a folder or an archive holds, at its top or in one folder of it.

    root: `~` is the home folder.
    unpack_to: an archive is unpacked to `<its name>-<hash of its content>` below it, unless that is there.
    Raises UserError for a place with neither, for what `unpack` refuses, and where no layout is found.
    """
    root = Path(root).expanduser()
    if root.is_dir():
        return Layout(find_layout(root))
    if not root.is_file():
        raise UserError(
            f"{root}: no such folder or archive; data.root is a folder of <task>/<split>/<language>.jsonl, "
            f"or a {_KINDS} of one"
        )
    name = re.sub(r"(\.jsonl)?\.(tgz|tar\.\w+)$", "", root.name)
    folder = unpack_to / f"{name}-{sha256(root)[:16]}"
    if not folder.is_dir():
        _log.info("unpacking %s to %s, once", root, folder)
        with atomic_folder(folder) as draft:
            unpack(root, draft)
            find_layout(draft, called=root)
    return Layout(find_layout(folder))


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .tgz, .tar.gz or .tar.xz below `folder`.

    Raises UserError for what `check_archive` refuses, anything in it that is neither file nor folder (a
    link), a path that leads out of `folder`, more than MAX_BYTES or MAX_FILES, what cannot be written, and a
    Python before 3.11.4, whose tarfile has no filters. What was unpacked by then stays: give a folder that
    goes with it.
    """
    if not hasattr(tarfile, "data_filter"):
        raise UserError(
            f"{archive}: this Python cannot unpack safely, 3.11.4 or later can; unpack it yourself, and give "
            "data.root the folder"
        )
    with _opened(archive) as members:
        for tar, member in members:
            try:
                tar.extract(member, folder, filter="data")
            except tarfile.FilterError as error:
                raise UserError(
                    f"{archive}: {member.name!r} leads out of the folder that it is unpacked to"
                ) from error


def check_archive(archive: Path) -> None:
    """Read an archive to its end, where its checksum stands.

    Raises UserError for a file of another kind, and for one that is cut off or damaged.
    """
    with _opened(archive) as members:
        for _ in members:
            pass


@contextmanager
def _opened(archive: Path) -> Iterator[Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]]:
    """Open an archive to be read once, member by member, each when it was looked at."""
    try:
        with _decompressed(archive) as plain:
            stream = _Limited(archive, plain)
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                yield _members(archive, stream, tar)
            while plain.read(2**20):
                pass
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, tarfile.TarError) as error:
        raise UserError(f"{archive}: cut off or damaged ({error}); get the archive again") from error
    except OSError as error:
        raise UserError(f"{archive}: cannot be unpacked ({error.strerror}: {error.filename})") from error


def _decompressed(archive: Path) -> BinaryIO:
    with archive.open("rb") as file:
        head = file.read(max(map(len, _OPENERS)))
    for magic, opener in _OPENERS.items():
        if head.startswith(magic):
            return opener(archive)
    raise UserError(f"{archive}: no archive that can be read: a {_KINDS} is needed")


class _Limited:
    """A stream that gives MAX_HEADER bytes, and more when it is told.

    A header may claim any size, and tarfile would hold all of it in memory.
    """

    def __init__(self, archive: Path, stream: BinaryIO):
        self.archive, self.stream, self.left = archive, stream, MAX_HEADER

    def read(self, size: int) -> bytes:
        found = self.stream.read(size)
        self.left -= len(found)
        if self.left < 0:
            raise UserError(
                f"{self.archive}: a header of more than {MAX_HEADER >> 20} MiB, which no data set has; "
                "unpack it yourself, and give data.root the folder"
            )
        return found


def _members(
    archive: Path, stream: _Limited, tar: tarfile.TarFile
) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    size = 0
    for count, member in enumerate(tar, start=1):
        size += member.size
        _refuse(archive, member, size, count)
        stream.left = member.size + MAX_HEADER
        yield tar, member


def _refuse(archive: Path, member: tarfile.TarInfo, size: int, count: int) -> None:
    if not (member.isfile() or member.isdir()):
        raise UserError(
            f"{archive}: {member.name!r} is a link or a device; files and folders alone are unpacked"
        )
    if size > MAX_BYTES or count > MAX_FILES:
        raise UserError(
            f"{archive}: unpacks to more than {MAX_BYTES >> 30} GiB or {MAX_FILES} files, which no data set "
            "does; unpack it yourself, and give data.root the folder"
        )
