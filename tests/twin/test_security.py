"""The door of a running twin: a stranger's key, a wrong role, too large, too often, another version; each refused, and it is said."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from hal import wire
from hal.errors import LateArrival, Misuse, RemoteFault
from hal.keys import allow, answering, asking, new, revoke
from hal.session import PROTOCOL, Client, Keys, Patience
from twin.build import Twin
from twin.bus import ZmqBus
from twin.client import Subscriber, connect
from twin.keys import arguments as key_arguments
from twin.keys import run as run_keys
from twin.outside import Claim
from twin.scenario import load

SMOKE = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"
BRISK = Patience(1.0, 2.0)
ROLES = ("monitor", "controller", "device", "admin")


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("twin", *ROLES, "stranger"):
        key = new(folder, name)
        if name in ROLES:
            allow(folder, key, name, name)
    return folder


class Door:
    """A bus with a door, served in small turns while a client is asking in a thread of its own."""

    def __init__(self, bus: ZmqBus, where: Path) -> None:
        self.bus, self.where = bus, where
        self.asked: list[str] = []
        for kind in ("claim", "act", "bye", "pause", "status"):
            bus.answer(kind, lambda payload, kind=kind: self.asked.append(kind) or b"")
        self.refused: list[tuple[str, str]] = []

    def keys(self, name: str) -> Keys:
        return asking(name, "twin", self.where)

    def until(self, done: Callable[[], bool]) -> None:
        stop = time.monotonic() + 10
        while not done():
            assert time.monotonic() < stop
            self.bus.service()
            self.bus.wait(5)
            self.refused += self.bus.refused()

    def ask(self, keys: Keys | None, kind: str, payload: bytes = b"", times: int = 1) -> list[str]:
        """What became of a question: "" where it was answered, else what was said."""
        from concurrent.futures import ThreadPoolExecutor

        def put() -> list[str]:
            said = []
            try:
                client = Client(self.bus.control, BRISK, keys, name="tester")
            except (RemoteFault, LateArrival) as error:
                return [str(error)]
            for _ in range(times):
                try:
                    client.ask(kind, payload)
                    said.append("")
                except (Misuse, RemoteFault) as error:
                    said.append(str(error))
            client.close()
            return said

        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(put)
            self.until(asking.done)
            self.bus.service()
            self.refused += self.bus.refused()
            return asking.result()


@pytest.fixture
def door(where: Path) -> Iterator[Door]:
    with ZmqBus("r", "tcp://127.0.0.1:0", keys=answering("twin", where)) as bus:
        yield Door(bus, where)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("kind", "who"),
    [
        ("status", {"monitor", "controller", "admin"}),
        ("claim", {"controller", "admin"}),
        ("act", {"controller", "admin"}),
        ("pause", {"admin"}),
    ],
)
def test_a_role_opens_what_is_its_own_and_nothing_else(
    door: Door, caplog: Any, role: str, kind: str, who: set[str]
) -> None:
    (said,) = door.ask(door.keys(role), kind)
    assert (said == "") == (role in who)
    assert door.asked == ([kind] if role in who else [])
    if role not in who:
        assert f"this key is a {role}'s" in said
        assert any(f"a {role}'s" in why for _, why in door.refused)
        assert any(f"a {role}'s" in record.message for record in caplog.records)


def test_a_stranger_is_refused_and_named(door: Door, caplog: Any) -> None:
    (said,) = door.ask(door.keys("stranger"), "status")
    assert "refused our key" in said
    assert any("stranger" in why for _, why in door.refused)
    assert any("allow-list" in record.message for record in caplog.records)
    assert door.asked == []


def test_who_takes_another_for_the_twin_gets_nowhere(door: Door) -> None:
    """A client that means another server does not talk to this one: the twin, too, has to prove who it is."""
    mine = door.keys("admin")
    public, _ = zmq.curve_keypair()
    (said,) = door.ask(Keys(mine.public, mine.secret, server=public), "status")
    assert said
    assert door.asked == []


def test_who_speaks_without_keys_is_refused_and_it_is_said(door: Door) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as plain:
        plain.linger = 0
        plain.connect(door.bus.control)
        plain.send_multipart([b"hello", b""])
        door.until(lambda: bool(door.refused))
    assert any("CURVE" in why for _, why in door.refused)
    assert door.asked == []


def test_a_device_s_key_hears_no_state(door: Door) -> None:
    heard: dict[str, zmq.Socket[bytes]] = {}
    with zmq.Context() as context:
        for name in ("monitor", "device", "stranger"):
            sub = heard[name] = context.socket(zmq.SUB)
            sub.linger = 0
            keys = door.keys(name)
            sub.curve_publickey, sub.curve_secretkey, sub.curve_serverkey = keys.public, keys.secret, keys.server
            sub.connect(door.bus.state)
            sub.subscribe("flat.")
        door.until(lambda: door.bus.wanted("flat.x.") and len(door.refused) >= 2)
        door.bus.flat("x.", {"a": 1.0}, 0)
        assert heard["monitor"].poll(5000)
        assert not heard["device"].poll(0)
        assert not heard["stranger"].poll(0)
        assert any("a device's key does not open state" in why for _, why in door.refused)
        for sub in heard.values():
            sub.close()


def test_too_large_is_refused_unread(door: Door) -> None:
    (said,) = door.ask(door.keys("admin"), "status", b"x" * 70_000)
    assert "70000 bytes: the limit is 65536" in said
    assert door.asked == []
    assert any("limit" in why for _, why in door.refused)


def test_too_often_is_refused_and_the_log_is_not_flooded(door: Door, caplog: Any) -> None:
    said = door.ask(door.keys("controller"), "claim", times=200)
    assert said.count("") == len(door.asked) < 120
    assert sum("more often" in why for why in said) > 80
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) < 80


def test_another_version_is_refused_and_it_is_said(door: Door) -> None:
    keys = door.keys("admin")
    with zmq.Context() as context, context.socket(zmq.DEALER) as old:
        old.linger = 0
        old.curve_publickey, old.curve_secretkey, old.curve_serverkey = keys.public, keys.secret, keys.server
        old.connect(door.bus.control)
        old.send_multipart([msgspec.msgpack.encode([PROTOCOL, [99, 0], "pause", 1]), b""])
        door.until(lambda: bool(door.refused))
        assert old.poll(5000)
        assert b"99.0" in old.recv_multipart()[1]
    assert any("version 99.0" in why for _, why in door.refused)
    assert door.asked == []


def test_a_monitor_with_its_key_follows_as_without_a_door(door: Door) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def follow() -> str:
        with connect(door.bus.state, keys=door.keys("monitor"), patience=BRISK) as twin:
            message = twin.receive(5.0)
            assert twin.joined
            return "" if message is None else message.kind

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(follow)
        door.until(following.done)
        assert following.result() == "start"


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:0", "tcp://*:0"])
def test_the_world_outside_needs_keys_or_the_word(endpoint: str, where: Path) -> None:
    with pytest.raises(Misuse, match="insecure"):
        Twin(load(SMOKE, {"bus.state": endpoint}))
    with Twin(load(SMOKE, {"bus.state": endpoint, "bus.insecure": True})) as twin:
        assert isinstance(twin.bus, ZmqBus)


def test_a_run_behind_a_door_says_whom_it_turned_away(
    where: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threading import Thread

    from twin.build import run
    from twin.record import read

    monkeypatch.setenv("ISAC_TWIN_KEYS", str(where))
    state = f"ipc://{tmp_path}/state"
    sets = {"bus.state": state, "bus.keys": "twin", "clock.mode": "lockstep", "controllers.wait_for": ["late"]}
    sets |= {"sensing.fidelity": "bound", "duration_s": 0.02}
    played = Thread(target=run, args=(SMOKE, sets), kwargs={"out": tmp_path / "run"})
    played.start()
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "state.control").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        for name, kind in (("stranger", "hello"), ("monitor", "pause")):
            with (
                pytest.raises((RemoteFault, Misuse)),
                closing(Client(f"{state}.control", Patience(5.0, 20.0), asking(name, "twin"))) as client,
            ):
                client.ask(kind)
        claim = wire.encode(Claim(name="late", knobs=("bs0.plan",)))
        late = Client(f"{state}.control", Patience(5.0, 20.0), asking("controller", "twin"))
        late.ask("claim", claim)
        late.close()
    finally:
        played.join(60)
    said = [d["why"] for _, _, d in read(tmp_path / "run" / "recording.mcap", "bs0.event.") if d["what"] == "refused"]
    assert any("stranger" in why for why in said)
    assert any("monitor's" in why for why in said)


def test_the_command_line_makes_allows_lists_and_revokes(tmp_path: Path, capsys: Any) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    key_arguments(parser)

    def keys(*words: str) -> str:
        assert run_keys(parser.parse_args([*words, "--dir", str(tmp_path)])) == 0
        return str(capsys.readouterr().out)

    assert "no keys yet" in keys("list")
    keys("new", "twin")
    keys("new", "eye")
    assert "let in as monitor" in keys("allow", "eye", "--role", "monitor")
    listed = keys("list")
    assert "monitor     eye" in listed
    secret = (tmp_path / "eye.key").read_text().split()[-1]
    assert secret not in listed + keys("list", "--json")
    keys("revoke", "eye")
    assert "monitor" not in keys("list")
    with pytest.raises(Misuse, match="--role"):
        keys("allow", "eye")
    with pytest.raises(Misuse, match="name which"):
        keys("new")


def test_a_subscriber_without_a_server_key_says_so() -> None:
    with pytest.raises(Misuse, match="public key of the twin"):
        Subscriber("tcp://127.0.0.1:1", keys=Keys(*zmq.curve_keypair()))


def test_a_key_that_is_revoked_is_out_without_a_restart(tmp_path: Path) -> None:
    for name in ("twin", "admin", "other"):
        key = new(tmp_path, name)
        if name != "twin":
            allow(tmp_path, key, "admin", name)
    with ZmqBus("r", "tcp://127.0.0.1:0", keys=answering("twin", tmp_path)) as bus:
        door = Door(bus, tmp_path)
        assert door.ask(door.keys("admin"), "status") == [""]
        revoke(tmp_path, "admin")
        (said,) = door.ask(door.keys("admin"), "status")
        assert "refused our key" in said
        assert door.ask(door.keys("other"), "status") == [""]
        assert any("stranger" in why for _, why in door.refused)


def test_a_connection_that_stands_loses_what_its_key_no_longer_may(tmp_path: Path) -> None:
    for name in ("twin", "admin"):
        key = new(tmp_path, name)
    allow(tmp_path, key, "admin", "admin")
    allow(tmp_path, "a" * 40, "monitor", "other")
    with ZmqBus("r", "tcp://127.0.0.1:0", keys=answering("twin", tmp_path)) as bus:
        door = Door(bus, tmp_path)
        bus.answer("pause", lambda payload: revoke(tmp_path, "admin") or b"")  # type: ignore[func-returns-value]
        said = door.ask(door.keys("admin"), "pause", times=2)
        assert said[0] == ""
        assert "this key is a none's" in said[1]


def test_revoking_the_last_key_shuts_the_door(tmp_path: Path) -> None:
    new(tmp_path, "twin")
    allow(tmp_path, new(tmp_path, "only"), "admin", "only")
    with ZmqBus("r", "tcp://127.0.0.1:0", keys=answering("twin", tmp_path)) as bus:
        door = Door(bus, tmp_path)
        revoke(tmp_path, "only")
        assert "refused our key" in door.ask(door.keys("only"), "status")[0]
