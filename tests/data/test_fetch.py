import pytest
from servers import serving

from flix_lightning.common.errors import UserError
from flix_lightning.data import fetch as fetching
from flix_lightning.data.fetch import fetch

CONTENT = bytes(range(256)) * 400  # 102,400 bytes, no two neighbours alike


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetching, "PAUSE", 0)
    monkeypatch.setenv("no_proxy", "*")
    with serving({"data.bin": CONTENT}) as server:
        yield server


def anything(path):
    pass


def download(server, folder, check=anything):
    path = folder / "data.bin"
    fetch(f"{server.url}/data.bin", path, check)
    assert [one.name for one in folder.iterdir()] == ["data.bin"]
    return path.read_bytes()


def test_whole(server, tmp_path):
    assert download(server, tmp_path) == CONTENT
    assert server.sent == [("data.bin", 0, len(CONTENT))]
    assert download(server, tmp_path) == CONTENT
    assert len(server.sent) == 1


def test_broken_transfers_go_on_where_they_broke(server, tmp_path):
    server.faults = [1000, 0, 1, 50_000, (503,), (429,), 20_000]
    assert download(server, tmp_path) == CONTENT
    starts = [start for _, start, _ in server.sent]
    assert starts == [0, 1000, 1000, 1001, 51_001, 71_001]
    assert server.bytes_of("data.bin") == len(CONTENT)


def test_given_up_and_gone_on_with_by_a_later_call(server, tmp_path):
    server.faults = [70_000, *[0] * 5]
    with pytest.raises(UserError, match=r"broke off 5 times in a row .*; 70,000 bytes are kept, call again"):
        download(server, tmp_path)
    assert not (tmp_path / "data.bin").exists()
    assert download(server, tmp_path) == CONTENT
    assert server.sent[-1] == ("data.bin", 70_000, len(CONTENT) - 70_000)


def test_what_the_server_changed_meanwhile_begins_anew(server, tmp_path):
    server.faults = [70_000, *[0] * 5]
    with pytest.raises(UserError):
        download(server, tmp_path)
    server.files["data.bin"] = CONTENT[::-1]
    assert download(server, tmp_path) == CONTENT[::-1]


@pytest.mark.parametrize("facts", ["ranges", "sizes"])
def test_a_server_that_says_less(server, tmp_path, facts):
    setattr(server, facts, False)
    server.faults = [70_000]

    def check(path):
        if path.stat().st_size < len(CONTENT):
            raise UserError("too short")

    if facts == "sizes":  # nobody can know that it is not whole, but the check
        with pytest.raises(UserError, match="too short; what arrived is thrown away"):
            download(server, tmp_path, check)
        assert list(tmp_path.iterdir()) == []
    assert download(server, tmp_path, check) == CONTENT


@pytest.mark.parametrize("status", [404, 403])
def test_an_address_that_the_server_refuses_is_tried_once(server, tmp_path, status):
    server.faults = [(status,)]
    with pytest.raises(UserError, match=rf"{server.url}/data\.bin: the server says {status} "):
        download(server, tmp_path)
    assert server.faults == []
    with pytest.raises(UserError, match=r"other: the server says 404"):
        fetch(f"{server.url}/other", tmp_path / "other", anything)


def test_no_server(tmp_path, server):
    with serving({}) as gone:
        url = gone.url
    with pytest.raises(UserError, match=rf"{url}/x: broke off 5 times in a row .*refused"):
        fetch(f"{url}/x", tmp_path / "x", anything)


def test_what_a_check_refuses_is_thrown_away(server, tmp_path):
    def check(path):
        assert path.read_bytes() == CONTENT
        raise UserError(f"{path}: no archive")

    with pytest.raises(UserError, match=r"/data\.bin: data\.bin: no archive; what arrived is thrown away"):
        download(server, tmp_path, check)
    assert list(tmp_path.iterdir()) == []
