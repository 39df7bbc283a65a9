import pytest

import commands
from tiny_runs import do


@pytest.fixture(scope="module")
def done(tiny, tmp_path_factory):
    return do(tiny, tmp_path_factory.mktemp("runs"))


def test_own(done, tmp_path):
    ran = commands.run(tmp_path, "evaluate.py", f"run={done}")
    print(ran.out, ran.err)
    import subprocess

    print(subprocess.run(["find", str(tmp_path / "outputs")], capture_output=True, text=True).stdout)
    ran = commands.run(tmp_path, "evaluate.py", f"run={done}")
    print(ran.out, ran.err)
    assert 0
