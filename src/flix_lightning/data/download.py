"""Download XTREME-UP from its publishers: `python -m flix_lightning.data.download [folder]`.

XTREME-UP's archive has no NER. Its NER comes from MasakhaNER-X and is put beside the other tasks. A broken
transfer is tried again from its start, and a file that is complete is not downloaded again by a later call.
The publishers give no checksums. What is downloaded is read to its end before it is kept, and its SHA-256 is
printed. The licences of the data are those of its publishers, and are printed too.
"""

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pooch
from tqdm import tqdm

from flix_lightning.common.errors import UserError
from flix_lightning.common.files import atomic_folder, sha256
from flix_lightning.data.archive import check_archive, unpack
from flix_lightning.data.layout import SPLITS, Layout, find_layout, read_lines
from flix_lightning.tasks.definitions import TASKS, get_task

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
    """Download XTREME-UP with its NER, unless it is there.

    Args:
        folder: The data is put into `xtreme_up` below this folder, complete or not at all. Downloaded files
            stay in `downloads` below it.
        archive: Address of XTREME-UP's archive.
        ner: Address below which NER's files are, as `<split>/<language>.jsonl`.

    Returns:
        The folder of the data.

    Raises:
        UserError: A file cannot be downloaded or is not what it should be, or the archive lacks a task.
    """
    complete = folder / "xtreme_up"
    if complete.is_dir():
        return complete
    downloads = folder / "downloads"
    packed = downloads / archive.rpartition("/")[2]
    _fetch(archive, packed, check_archive)
    print(f"{packed}: {packed.stat().st_size:,} bytes, SHA-256 {sha256(packed)}")
    paths = [
        downloads / "ner" / split / f"{language}.jsonl" for split in SPLITS for language in NER_LANGUAGES
    ]
    for path in paths:
        _fetch(f"{ner}/{path.relative_to(downloads / 'ner').as_posix()}", path, _check_ner)
    print(f"{downloads / 'ner'}: {len(paths)} files, SHA-256 of all {Layout(downloads).fingerprint(paths)}")
    with atomic_folder(complete) as draft:
        unpack(packed, draft)
        root = find_layout(draft, shown_as=packed)
        shutil.copytree(downloads / "ner", root / "ner", dirs_exist_ok=True)
        layout = Layout(root)
        for split in SPLITS:
            if lacking := TASKS.keys() - {task for task, _ in layout.datasets(split)}:
                names = ", ".join(sorted(lacking))
                raise UserError(
                    f"{packed}: lacks {split} files of {names}; delete it, and name another archive"
                )
    return complete


def _fetch(url: str, path: Path, check: Callable[[Path], None]) -> None:
    def transfer(url: str, temporary: str, _: pooch.Pooch) -> None:
        with tqdm(desc=path.name, total=1, unit="B", unit_scale=True, disable=None, leave=False) as bar:
            pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, timeout=TIMEOUT)(url, temporary, _)
        try:
            check(Path(temporary))
        except UserError as error:
            raise UserError(f"{url}: {str(error).replace(temporary, path.name)}") from error

    registry = {path.name: None}
    files = pooch.create(path.parent, "", registry=registry, urls={path.name: url}, retry_if_failed=RETRIES)
    try:
        files.fetch(path.name, downloader=transfer)
    except OSError as error:  # those of HTTP among them
        raise UserError(f"{url}: cannot be downloaded ({error}); call again to try again") from error


def _check_ner(path: Path) -> None:
    for _ in read_lines(path, get_task("ner")):
        pass


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
    print(
        f"XTREME-UP is complete: python train.py data=xtreme_up data.root={complete} "
        f"({options.folder / 'downloads'} can be deleted)"
    )


if __name__ == "__main__":
    main()
