"""XTREME-UP from where it is published: `python -m flix_lightning.data.download [folder]`.

Its archive has no NER; that comes from MasakhaNER-X, and is laid beside the other tasks. A transfer that
broke off is gone on with by the same command. The data's licences are its makers' own, and printed.
"""

import argparse
import shutil
import sys
from pathlib import Path

from flix_lightning.common.errors import UserError
from flix_lightning.common.files import atomic_folder, sha256
from flix_lightning.data.archive import check_archive, unpack
from flix_lightning.data.fetch import fetch
from flix_lightning.data.layout import SPLITS, Layout, find_layout, read_lines
from flix_lightning.tasks.definitions import TASKS, get_task

ARCHIVE = "https://storage.googleapis.com/xtreme-up/xtreme-up-v1.1.jsonl.tgz"
#: At one commit, so that it is the same data whenever it is downloaded.
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


def download(folder: Path, archive: str = ARCHIVE, ner: str = NER) -> Path:
    """Give the folder with XTREME-UP below `folder`, downloaded and put together unless it is there.

    archive: address of the archive; ner: address below which `<split>/<language>.jsonl` of NER are.
    What is downloaded stays in `folder/downloads`; the data comes about whole or not at all.
    Raises UserError for what `fetch` and `unpack` refuse, and for an archive that lacks a task's split.
    """
    whole = folder / "xtreme_up"
    if whole.is_dir():
        return whole
    downloads = folder / "downloads"
    packed = downloads / archive.rpartition("/")[2]
    fetch(archive, packed, check_archive)
    print(f"{packed}: {packed.stat().st_size:,} bytes, SHA-256 {sha256(packed)}")
    files = Layout(downloads)
    for split in SPLITS:
        for language in NER_LANGUAGES:
            fetch(f"{ner}/{split}/{language}.jsonl", files.path("ner", split, language), _check_ner)
    paths = [files.path("ner", split, language) for split in SPLITS for language in NER_LANGUAGES]
    print(f"{downloads / 'ner'}: {len(paths)} files, SHA-256 of all {files.fingerprint(paths)}")
    with atomic_folder(whole) as draft:
        unpack(packed, draft)
        root = find_layout(draft, called=packed)
        for path in paths:
            beside = root / path.relative_to(downloads)
            beside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, beside)
        for task in TASKS:
            for split in SPLITS:
                if not any(root.glob(f"{task}/{split}/*.jsonl")):
                    raise UserError(
                        f"{packed}: holds no {task}/{split}/<language>.jsonl; it is another archive"
                    )
    return whole


def _check_ner(path: Path) -> None:
    for _ in read_lines(path, get_task("ner")):
        pass


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m flix_lightning.data.download", description=__doc__)
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("outputs/data"),
        help="where to; outputs/data if not said",
    )
    parser.add_argument("--archive", default=ARCHIVE, metavar="URL", help="another address of the archive")
    parser.add_argument("--ner", default=NER, metavar="URL", help="another address of MasakhaNER-X")
    options = parser.parse_args()
    print(f"The licences of the data:\n{LICENCES}", flush=True)
    try:
        whole = download(options.folder, options.archive, options.ner)
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; call again to go on from there")
    print(
        f"XTREME-UP is complete: python train.py data=xtreme_up data.root={whole} "
        f"({options.folder / 'downloads'} is needed no more)"
    )


if __name__ == "__main__":
    main()
