"""Delay and Doppler: one dwell's echoes now and then, and the map of their power."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import zmq

from hal.errors import Misuse
from hal.session import Keys
from twin.client import plain
from twin.dash.numbers import packed, rounded
from twin.dwell import recorded_map
from twin.history import opened
from twin.scenario import Scenario
from twin.scene import Scene

__all__ = ["Dwells", "mapped"]


class Dwells:
    """Echo samples now and then: subscribed to for the moment it takes to hear one, since they are a megabyte each."""

    def __init__(self, endpoint: str, keys: Keys | None) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.SUB)
        self._socket.linger = 0
        self._socket.set(zmq.RCVHWM, 4)
        if keys is not None and keys.server is not None:
            self._socket.curve_publickey, self._socket.curve_secretkey = keys.public, keys.secret
            self._socket.curve_serverkey = keys.server
        self._socket.connect(endpoint)
        self._topic = ""

    def ask(self, topic: str) -> None:
        """Listen for one."""
        if topic != self._topic:
            self._quiet()
            self._socket.subscribe(topic)
            self._topic = topic

    def poll(self, topic: str) -> tuple[int, dict[str, Any]] | None:
        """What came, the newest: its time and the reception."""
        found = None
        while self._socket.poll(0):
            _, body = self._socket.recv_multipart()
            document = msgspec.msgpack.decode(body)
            if document.get("document") == "event":
                found = document["t_ns"], plain(document["data"])
        if found is not None:
            self._quiet()
        return found

    def close(self) -> None:
        """Let go."""
        self._socket.close()
        self._context.term()

    def _quiet(self) -> None:
        if self._topic:
            self._socket.unsubscribe(self._topic)
            self._topic = ""


def mapped(
    scenario: Scenario, scene: Scene, seen: tuple[Any, Any, Any], found: tuple[int, dict[str, Any]], number: int
) -> msgspec.Raw | None:
    """The panel of one dwell's echoes (``Dwells.poll``), with the plan, belief and truth it was heard beside; None where they do not fit."""
    (t_ns, heard), (plan, belief, truth) = found, map(opened, seen)
    try:
        made = recorded_map(scenario, plan, belief, truth, opened(heard))
    except Misuse:
        return None
    power, range_m, velocity = (made[name] for name in ("power_db", "range_m", "velocity_mps"))
    names = [scene.name(int(e)) for e in made["entity"]]
    inside = (made["truth"][:, 2] < range_m[-1]) & (np.abs(made["truth"][:, 3]) < velocity[-1])
    panel = {
        "number": number,
        "t": t_ns * 1e-9,
        "grid": packed(np.clip(power / 40, 0, 1) * 255),
        "top_db": 40,
        "range": [float(range_m[0]), float(range_m[-1])],
        "velocity": [float(velocity[0]), float(velocity[-1])],
        "truth": [
            [n, *rounded(row[2:].tolist(), 2)]
            for n, row, here in zip(names, made["truth"], inside, strict=True)
            if here
        ],
        "found": [rounded(row[2:].tolist(), 2) for row in made["detected"]],
    }
    return msgspec.Raw(msgspec.json.encode(panel))
