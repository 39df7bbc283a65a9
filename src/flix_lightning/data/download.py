"""Download XTREME-UP from its publishers: `python -m flix_lightning.data.download [folder]`.

XTREME-UP's archive has no NER. Its NER comes from MasakhaNER-X and is put beside the other tasks. A broken
transfer is tried again from its start. A file that is complete is not downloaded again by a later call. The
publishers give no checksums, so that the SHA-256 of what is downloaded is printed. The data's licences are
those of its publishers, and are printed too.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pooch

from flix_lightning.common.errors import UserError
from flix_lightning.common.files import atomic_folder, sha256
from flix_lightning.common.scripts import name_commands
from flix_lightning.data.archive import unpack
from flix_lightning.data.layout import SPLITS, Layout, find_layout, read_lines
from flix_lightning.tasks.definitions import PAPER_TASKS, Tasks

ARCHIVE = "https://storage.googleapis.com/xtreme-up/xtreme-up-v1.1.jsonl.tgz"
#: One commit, so that the data is the same at any time.
NER = (
    "https://raw.githubusercontent.com/masakhane-io/masakhane-ner/"
    "5f6416439f1f308f7c35148559192f0670ca7333/xtreme-up/MasakhaNER-X"
)
NER_LANGUAGES = "am bbj bm ee ha ig lg luo mos ny pcm rw sn sw tn tw wo xh yo zu".split()

LICENCES = """\
qa_in_lang        TyDi QA       Apache-2.0
qa_cross_lang     XOR-TyDi QA   MIT
translation       FLORES        CC-BY-SA
semantic_parsing  MTOP          CC-BY-SA, as far as is known
ner               MasakhaNER    CC-BY-NC-4.0: not for commercial use"""

RETRIES = 3  # after the first try of each file
TIMEOUT = 60  # seconds that a server may stay silent


def download(folder: Path, archive: str = ARCHIVE, ner: str = NER) -> Path:
    """Download XTREME-UP with its NER, unless it is there; return the folder of the data.

    Args:
        folder: Gets the data as `xtreme_up`, complete or not at all, and downloaded files in `downloads`.
        archive: Address of XTREME-UP's archive.
        ner: Address below which NER's files are, as `<split>/<language>.jsonl`.

    Raises:
        UserError: A file cannot be downloaded or is not what it should be. Such a file is deleted.
    """
    tasks = Tasks.of()
    complete, downloads = folder / "xtreme_up", folder / "downloads"
    if complete.is_dir():
        return complete
    packed = _fetch(archive, downloads / archive.rpartition("/")[2])
    print(f"{packed}: {packed.stat().st_size:,} bytes, SHA-256 {sha256(packed)}")
    paths = [
        downloads / "ner" / split / f"{language}.jsonl" for split in SPLITS for language in NER_LANGUAGES
    ]
    for path in paths:
        _fetch(f"{ner}/{path.relative_to(downloads / 'ner').as_posix()}", path)
        with _deleted_if_invalid(path):
            for _ in read_lines(path, tasks.get("ner")):
                pass
    print(f"{downloads / 'ner'}: {len(paths)} files, SHA-256 of all {Layout(downloads).fingerprint(paths)}")
    with atomic_folder(complete) as draft, _deleted_if_invalid(packed):
        unpack(packed, draft)
        root = find_layout(draft, tasks, shown_as=packed)
        shutil.copytree(downloads / "ner", root / "ner", dirs_exist_ok=True)
        for split in SPLITS:
            if lacking := set(PAPER_TASKS) - {task for task, _ in Layout(root).datasets(split)}:
                raise UserError(f"{packed}: has no {split} files of {', '.join(sorted(lacking))}")
    return complete


def _fetch(url: str, path: Path) -> Path:
    name = path.name
    files = pooch.create(path.parent, "", registry={name: None}, urls={name: url}, retry_if_failed=RETRIES)
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**16, timeout=TIMEOUT)
    try:
        files.fetch(name, downloader=downloader)
    except OSError as error:  # errors of HTTP among them
        raise UserError(f"{url}: cannot be downloaded ({error}); call again to try again") from error
    return path


@contextmanager
def _deleted_if_invalid(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        path.unlink()
        raise UserError(f"{error}; it is deleted, so that another call downloads it again") from error


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m flix_lightning.data.download", description=__doc__)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("outputs/data"), help="target folder [outputs/data]"
    )
    parser.add_argument("--archive", default=ARCHIVE, metavar="URL", help="another address of the archive")
    parser.add_argument("--ner", default=NER, metavar="URL", help="another address of MasakhaNER-X")
    options = parser.parse_args()
    print(f"The licences of the data:\n{LICENCES}", flush=True)
    pooch.get_logger().setLevel("WARNING")
    try:
        complete = download(options.folder, options.archive, options.ner)
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; call again to download the rest")
    use = name_commands(f"python train.py data=xtreme_up data.root={complete}")
    print(f"XTREME-UP is complete: {use} ({options.folder / 'downloads'} can be deleted)")


if __name__ == "__main__":
    main()
