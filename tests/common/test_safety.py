"""What comes from others is data: it runs no code, leaves no folder, and learns no secret."""

import json
import os
import pickle
import shutil
import tarfile
from contextlib import suppress

import pytest
import torch
from archives import member, write_tar
from folders import made

import commands
from flix_lightning.cldr.pretraining import pretrain
from flix_lightning.common.errors import UserError
from flix_lightning.data.archive import MAX_BYTES, open_layout
from flix_lightning.models import base as models
from flix_lightning.runs.checkpoints import Checkpoint

LINE = b'{"text": "a", "target": ""}\n'
GOOD = member("top/ner/train/sw.jsonl", LINE)


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


@pytest.fixture
def proof(tmp_path):
    """A folder that no code may make; and whose making works."""
    pickle.loads(pickle.dumps(Evil(tmp_path / "works")))
    assert (tmp_path / "works").is_dir()
    yield tmp_path / "proof"
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "pickle"])
def test_a_checkpoint_runs_no_code(proof, tmp_path, as_zip):
    path = tmp_path / "last.ckpt"
    torch.save({"adapter": Evil(proof)}, path, _use_new_zipfile_serialization=as_zip)
    with pytest.raises(
        UserError, match=r"last\.ckpt: no readable checkpoint \((UnpicklingError|RuntimeError)\)"
    ):
        Checkpoint.read(path)


def test_a_checkpoint_of_pretraining_runs_no_code(proof, tmp_path, monkeypatch):
    class Tokenizer:
        pad_token_id, eos_token_id = 0, 1
        from_pretrained = classmethod(lambda cls, _: cls())

        def __len__(self):
            return 8

    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setattr(pretrain, "PreTrainedTokenizerFast", Tokenizer)
    torch.save({"step": Evil(proof)}, tmp_path / "checkpoint.pt")
    with pytest.raises(pickle.UnpicklingError):
        pretrain.pretrain(tmp_path, 1, 0)


def test_a_models_weights_run_no_code(proof, base, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(base, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"shared.weight": Evil(proof)}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"model\.pretrained=.* cannot be loaded"):
        models.load(str(folder), "main", "float32")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_models_own_code_is_not_run(proof, base, tmp_path, file):
    folder = tmp_path / "model"
    shutil.copytree(base, folder)
    (folder / "own.py").write_text(f"import os\nos.mkdir({str(proof)!r})\n")
    said = json.loads((folder / file).read_text())
    own = {"AutoConfig": "own.C", "AutoModelForSeq2SeqLM": "own.M", "AutoTokenizer": ["own.T", "own.T"]}
    said |= {"auto_map": own, "model_type": "own", "tokenizer_class": "OwnTokenizer"}
    (folder / file).write_text(json.dumps(said))
    with suppress(UserError):  # some can do without it
        models.load(str(folder), "main", "float32")


# -- archives; what else they may hold is in test_archive.py


def refused(tmp_path, members, message):
    archive = write_tar(tmp_path / "data.tgz", members, "w:gz")
    assert archive.stat().st_size < 2**20
    with pytest.raises(UserError, match=message):
        open_layout(archive, tmp_path / "out")
    assert not made(tmp_path / "out")


def test_a_bomb_of_one_file_is_refused_before_it_is_unpacked(tmp_path):
    head = tarfile.TarInfo("top/ner/train/sw.jsonl")
    head.size = MAX_BYTES + 1
    path = tmp_path / "data.tgz"
    with tarfile.open(path, "w:gz") as tar:
        tar.fileobj.write(head.tobuf() + bytes(2**26))
    assert path.stat().st_size < 2**17
    with pytest.raises(UserError, match="unpacks to more than 32 GiB"):
        open_layout(path, tmp_path / "out")
    assert not made(tmp_path / "out")


@pytest.mark.parametrize("type", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_bomb_in_a_header_is_refused(tmp_path, type):
    refused(tmp_path, [GOOD, member("x", bytes(2**26), type=type), GOOD], "a header of more than 1 MiB")


def test_many_files_with_long_names_are_no_bomb(tmp_path):
    many = [member(f"top/ner/train/{'x' * 200}{n}.jsonl", LINE * 500) for n in range(300)]
    open_layout(write_tar(tmp_path / "data.tgz", [GOOD, *many], "w:gz"), tmp_path / "out")


# -- secrets

CANARIES = {
    "WANDB_API_KEY": "0123456789canary0123456789canary01234567",
    "HF_TOKEN": "hf_canaryCANARYcanaryCANARYcanary",
}


def keep_secrets():
    os.environ.update(CANARIES)


@pytest.mark.parametrize("overrides", [[], ["flix.dropout=2"]], ids=["a run", "a mistake"])
def test_no_secret_is_written_or_said(tiny, tmp_path, overrides):
    arguments = [*tiny, "logger=[csv,wandb]", "trainer.max_steps=1", *overrides]
    commands.run(tmp_path, "train.py", *arguments, before=keep_secrets, code=1 if overrides else 0)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"stdout", "stderr"} <= {path.name for path in files}
    assert overrides or any(path.suffix == ".wandb" for path in files)
    for path in files:
        content = path.read_bytes()
        assert not [name for name, value in CANARIES.items() if value.encode() in content], path
