"""Keys on disk: modes, the allow-list, and what is refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import zmq

from hal.errors import Misuse
from hal.keys import Allowed, allow, allowed, answering, asking, folder, new, public, revoke


@pytest.fixture
def where(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_a_secret_is_its_owner_s_alone_whatever_the_umask(where: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        new(where, "twin")
        allow(where, public(where, "twin"), "admin", "twin")
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in where.iterdir()}
    assert modes == {"twin.key": 0o600, "twin.pub": 0o644, "allowed": 0o600}
    assert stat.S_IMODE(where.stat().st_mode) == 0o700


def test_the_pair_belongs_together_and_the_public_file_has_no_secret(where: Path) -> None:
    key = new(where, "twin")
    mine = asking("twin", "twin", where)
    assert mine.public == key.encode()
    assert zmq.curve_public(mine.secret) == mine.public
    assert mine.secret.decode() not in (where / "twin.pub").read_text()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660])
def test_a_secret_that_others_may_read_is_refused(where: Path, mode: int) -> None:
    new(where, "twin")
    (where / "twin.key").chmod(mode)
    with pytest.raises(Misuse, match="chmod 600"):
        asking("twin", "twin", where)


def test_a_list_that_others_may_write_is_refused(where: Path) -> None:
    allow(where, new(where, "me"), "monitor", "me")
    (where / "allowed").chmod(0o620)
    with pytest.raises(Misuse, match="chmod go-w"):
        allowed(where)


def test_a_key_is_never_overwritten_nor_a_link_followed(where: Path, tmp_path: Path) -> None:
    new(where, "twin")
    with pytest.raises(Misuse, match="never overwritten"):
        new(where, "twin")
    (where / "sly.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Misuse, match="never overwritten"):
        new(where, "sly")
    assert not (tmp_path / "elsewhere").exists()


def test_the_list_says_who_is_let_in_as_what(where: Path) -> None:
    new(where, "twin")
    keys = {name: new(where, name) for name in ("eye", "hand")}
    allow(where, keys["eye"], "monitor", "eye")
    allow(where, keys["hand"], "monitor", "hand")
    allow(where, keys["hand"], "controller", "hand")  # another role: in its place
    assert allowed(where) == [Allowed("monitor", "eye", keys["eye"]), Allowed("controller", "hand", keys["hand"])]
    door = answering("twin", where)
    assert door.role(keys["eye"].encode()) == "monitor"
    assert door.role(b"x" * 40) == "none"
    revoke(where, "eye")
    assert keys["eye"].encode() not in answering("twin", where).allowed


@pytest.mark.parametrize(
    ("line", "says"),
    [("king me " + "a" * 40, "allowed:1"), ("monitor me short", "allowed:1"), ("monitor me", "allowed:1")],
)
def test_a_wrong_line_is_named(where: Path, line: str, says: str) -> None:
    where.mkdir()
    (where / "allowed").write_text(line + "\n")
    with pytest.raises(Misuse, match=says):
        allowed(where)


def test_what_cannot_be_says_why(where: Path) -> None:
    with pytest.raises(Misuse, match="no such key"):
        asking("nobody", "twin", where)
    new(where, "twin")
    with pytest.raises(Misuse, match="lets nobody in"):
        answering("twin", where)
    with pytest.raises(Misuse, match="must be letters"):
        new(where, "../twin")
    with pytest.raises(Misuse, match="one of monitor"):
        allow(where, "a" * 40, "king", "me")
    allow(where, "a" * 40, "admin", "me")
    with pytest.raises(Misuse, match="another key's"):
        allow(where, "b" * 40, "admin", "me")
    with pytest.raises(Misuse, match="which has me"):
        revoke(where, "you")
    with pytest.raises(Misuse, match="no public key"):
        public(where, "nobody")
    (where / "twin.key").write_text(f"public {'a' * 40}\nsecret {zmq.curve_keypair()[1].decode()}\n")
    with pytest.raises(Misuse, match="do not belong together"):
        asking("twin", "twin", where)


def test_the_folder_may_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ISAC_TWIN_KEYS", str(tmp_path))
    assert folder() == tmp_path
    monkeypatch.delenv("ISAC_TWIN_KEYS")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "c"))
    assert folder() == tmp_path / "c" / "isac-twin" / "keys"


def test_the_list_is_followed_while_a_twin_runs(where: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = {name: new(where, name).encode() for name in ("twin", "a", "b")}
    allow(where, keys["a"].decode(), "monitor", "a")
    listed = answering("twin", where)
    assert (listed.role(keys["a"]), listed.role(keys["b"])) == ("monitor", "none")
    allow(where, keys["b"].decode(), "admin", "b")
    allow(where, keys["a"].decode(), "device", "a")
    assert (listed.role(keys["a"]), listed.role(keys["b"])) == ("device", "admin")
    revoke(where, "b")
    assert listed.role(keys["b"]) == "none"
    assert keys["b"] not in listed.allowed
    (where / "allowed").write_text("king b " + keys["b"].decode())  # spoilt by hand: neither opened nor shut by that
    assert (listed.role(keys["a"]), listed.role(keys["b"])) == ("device", "none")
    assert "who was let in before still is" in caplog.text
    (where / "allowed").unlink()
    assert listed.role(keys["a"]) == "none"
    assert len(listed.allowed) == 0
