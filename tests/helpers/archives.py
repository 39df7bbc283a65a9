"""Archives for tests, good and bad."""

import io
import tarfile


def member(name, content=b"", **facts):
    """One entry of a tar, with its content; facts: fields of its header (type, linkname, size)."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in facts.items():
        setattr(info, key, value)
    return info, content


def write_tar(path, members, mode):
    """Write a tar of (header, content); mode: w:gz, w:xz, …"""
    with tarfile.open(path, mode) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


def of_folder(path, folder, top, mode="w:gz"):
    """Write a tar of a folder's files, in a folder of its own called `top` (or none)."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    names = [(top / file.relative_to(folder) if top else file.relative_to(folder)) for file in files]
    entries = [member(name.as_posix(), file.read_bytes()) for name, file in zip(names, files, strict=True)]
    return write_tar(path, entries, mode)
