"""An adapter that is saved, uploaded and loaded again."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import ARCHITECTURES, FEATURES, RANKS, adapt, batch, build

from flix_lightning.adapter import load_adapter, projection, saving
from flix_lightning.common.errors import UserError

CONFIG, WEIGHTS = "flix_config.json", "flix_adapter.safetensors"


@pytest.fixture
def saved(tmp_path):
    """The folder of an adapter of a tiny llama."""
    adapt(build("llama")).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@torch.no_grad()
def logits(model, adapter):
    with adapter.route(adapter.space.rows(FEATURES)):
        return model(**batch(model)).logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_loaded_is_what_was_saved(architecture, tmp_path):
    model = build(architecture)
    adapter = adapt(model)
    adapter.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG, WEIGHTS}
    other = build(architecture)
    loaded = load_adapter(other, tmp_path)
    assert loaded.space.ranks == RANKS
    assert torch.equal(logits(other, loaded), logits(model, adapter))


def test_only_some_projections_are_adapted_again(tmp_path):
    adapt(build("t5"), targets=r".*layer\.0.*\.(q|v)").save_pretrained(tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config["version"] == 1
    assert list(config["ranks"].items()) == list(RANKS.items())
    loaded = load_adapter(build("t5"), tmp_path)
    assert list(loaded.modules) == config["targets"]
    assert {name.rpartition(".")[2] for name in loaded.modules} == {"q", "v"}


def test_a_base_of_another_name_is_logged(saved, caplog):
    model = build("llama")
    model.name_or_path = "owner/other"
    load_adapter(model, saved)
    assert "is loaded into owner/other" in caplog.text


def rewrite(**changes):
    def change(folder):
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(config | changes))

    return change


def set_nan(folder):
    pools = load_file(folder / WEIGHTS)
    pools["model.layers.0.mlp.up_proj.A"][0, 0] = torch.nan
    save_file(pools, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda folder: (folder / WEIGHTS).unlink(), f"no adapter of FLix .*{WEIGHTS}"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"no"), f"no adapter of FLix .*{WEIGHTS}"),
        (lambda folder: (folder / CONFIG).write_text("{"), f"no adapter of FLix .*{CONFIG}"),
        (rewrite(version=2), f"{CONFIG}: version is 2; this package reads version 1"),
        (rewrite(base=None), f"{CONFIG}: base is None"),
        (rewrite(ranks=[]), "ranks or pools are no mapping"),
        (rewrite(ranks={"task:ner": 3}), "is no pool of 3 rows"),
        (rewrite(ranks={**RANKS, "task:ner": "3"}), "rank of task:ner is '3'"),
        (set_nan, r"layers\.0\.mlp\.up_proj\.A holds a value that is not finite"),
    ],
)
def test_what_is_wrong_with_a_saved_adapter_is_named(saved, spoil, named):
    spoil(saved)
    with pytest.raises(UserError, match=named):
        load_adapter(build("llama"), saved)


def test_another_base_is_refused_and_left_as_it_was(saved):
    model = build("gpt2")
    with pytest.raises(
        UserError, match=r"another base model.*GPT2LMHeadModel has no projection model\.layers"
    ):
        load_adapter(model, saved)
    assert all(parameter.requires_grad for parameter in model.parameters())


class Hub:
    """Hugging Face's hub, of one repository in a folder."""

    def __init__(self, folder):
        self.folder, self.created = folder, []

    def __call__(self, token):
        return self

    def create_repo(self, name, **options):
        self.created.append((name, options))

    def upload_folder(self, repo_id, folder_path, commit_message):
        shutil.copytree(folder_path, self.folder / repo_id)
        return f"https://hub/{repo_id}"

    def download(self, name, revision, allow_patterns):
        if not (self.folder / name).is_dir():
            raise FileNotFoundError(f"404 for {name}")
        assert {path.name for path in (self.folder / name).iterdir()} == set(allow_patterns)
        return str(self.folder / name)


def test_an_adapter_goes_to_the_hub_and_comes_back(tmp_path, monkeypatch):
    hub = Hub(tmp_path)
    monkeypatch.setattr(projection, "HfApi", hub)
    monkeypatch.setattr(saving, "snapshot_download", hub.download)
    model = build("t5")
    adapter = adapt(model)
    assert adapter.push_to_hub("me/flix", private=True) == "https://hub/me/flix"
    assert hub.created == [("me/flix", {"private": True, "exist_ok": True})]
    other = build("t5")
    assert torch.equal(logits(other, load_adapter(other, "me/flix")), logits(model, adapter))
    with pytest.raises(UserError, match=r"me/other: no such folder, and the hub does not give it \(404"):
        load_adapter(build("t5"), "me/other")
    for place in ("/no/such/folder", Path("there")):
        with pytest.raises(UserError, match="no such folder; a folder, or owner/name"):
            load_adapter(build("t5"), place)
