"""The wheel: what `pip install` of it gives, away from the repository."""

import json
import os
import subprocess
import sys

import pytest

from commands import REPOSITORY


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that the wheel is installed into; its dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "wheel", REPOSITORY]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (folder / "wheel").glob("flix_lightning-*.whl")
    install = [*pip, "install", "--no-deps", "--no-index", "--target", folder / "packages", wheel]
    subprocess.run(install, check=True, capture_output=True)
    return folder / "packages"


def call(installed, folder, name, *arguments, code=0):
    """Run a command of the wheel in a folder, and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    environment.pop(
        "HYDRA_FULL_ERROR", None
    )  # flix_lightning.common.cli sets it, where another test imports it
    folder.mkdir(exist_ok=True)
    command = [sys.executable, installed / "bin" / name, *arguments]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stderr if code else ran.stdout


def test_every_script_is_a_command(installed):
    scripts = {f"flix-{path.stem}" for path in REPOSITORY.glob("*.py")}
    assert {path.name for path in (installed / "bin").iterdir()} == scripts


def test_every_config_is_in_it(installed):
    for name in ("conf", "sweeps"):
        found, own = installed / "flix_lightning/commands" / name, REPOSITORY / name
        assert {path.relative_to(found) for path in found.rglob("*.yaml")} == {
            path.relative_to(own) for path in own.rglob("*.yaml")
        }


def test_its_help_and_errors_name_its_commands(installed, tmp_path):
    said = [
        call(installed, tmp_path, "flix-train", "--help"),
        call(installed, tmp_path, "flix-report", "--help"),
        call(installed, tmp_path, "flix-train", "sede=1", code=1),
    ]
    assert "flix-train [group=choice]" in said[0]
    assert "flix-report +sweeps=table1" in said[1]
    assert "`flix-train --cfg job` prints them all" in said[2]
    assert ".py" not in "".join(said)


def test_it_trains_from_an_empty_folder(installed, tiny, tmp_path):
    assert "optimizer.learning_rate" in call(installed, tmp_path / "empty", "flix-train", "--help")
    assert "tables:\n- table3\n" in call(
        installed, tmp_path / "empty", "flix-train", "+sweeps=table3", "--cfg", "job"
    )
    ends = call(installed, tmp_path / "empty", "flix-train", "+debug=smoke", *tiny)
    (folder,) = (tmp_path / "empty").glob("outputs/runs/*")
    assert f"Run: {folder.relative_to(tmp_path / 'empty')}" in ends
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert {line["split"] for line in lines} == {"train", "validation", "test"}
