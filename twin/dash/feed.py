"""The dashboard's ear: one thread that listens to a twin and keeps the newest of everything, and what it makes of it for the page.

Old frames are dropped: however many subframes came since the last one, the next frame is made of the newest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from hal.errors import LateArrival, Misuse, RemoteFault
from hal.session import Keys
from twin.client import Message
from twin.dash.courses import WINDOW_S
from twin.dash.dwells import Dwells, mapped
from twin.dash.panels import Panels
from twin.scene import Scene
from twin.watch import Ear

__all__ = ["Feed"]

ALSO = ("beam.transmit.", "memory.transmit.", "clock.", "event.", "change.", "/replay.")
FRAME_S = 1 / 12  # between two frames
QUIET_S = 1.0  # between two when nothing comes
DWELL_S = 2.0  # between two delay-Doppler maps


class Feed:
    """What the page shows of one twin, kept by a thread; ``frame`` is the newest as JSON, ``number`` counts them.

    With nobody watching (``watch``) nothing is computed. ``user`` names whose row the squint panel shows (None: who is served).
    """

    def __init__(
        self, endpoint: str, control: str | None = None, keys: Keys | None = None, site: str | None = None
    ) -> None:
        self.endpoint, self.keys = endpoint, keys
        self.scene = Scene(endpoint, window_s=WINDOW_S)
        self.user: int | None = None
        self.frame, self.number = b"{}", 0
        self._told: list[Callable[[], None]] = []
        self._control, self._asked_site = control, site
        self._over = threading.Event()
        self.run, self.panels = "", Panels(self.scene)
        self.lock: threading.Lock | None = None  # of the scene, once there is a listener
        self._threads = [
            threading.Thread(target=target, name=f"twin dash {target.__name__}", daemon=True)
            for target in (self._listen, self._look)
        ]

    def start(self) -> None:
        """Begin to listen."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._over.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(5.0)

    def watch(self, told: Callable[[], None]) -> None:
        """Call ``told``, from a thread of our own, whenever there is a new frame."""
        self._told.append(told)

    def unwatch(self, told: Callable[[], None]) -> None:
        """Call it no more."""
        self._told.remove(told)

    @property
    def control(self) -> str:
        """The twin's control endpoint."""
        from twin.bus import control_beside

        return control_beside(self.endpoint) if self._control is None else self._control

    @property
    def replay(self) -> dict[str, Any] | None:
        """Where a replay stands; None for a twin that runs."""
        return self.panels.replay

    def _listen(self) -> None:
        try:
            ear = Ear(self.scene, self._asked_site, self._control, keys=self.keys, also=ALSO, heard=self._heard)
        except (RemoteFault, Misuse) as error:
            self.panels.unknown = str(error)
            return
        self.lock = ear.lock
        while not self._over.is_set():
            try:
                ear.hear(0.1)
            except (RemoteFault, LateArrival, Misuse) as error:
                with ear.lock:
                    self.scene.say(str(error), "bad")
                self._over.wait(1.0)
        ear.close()

    def _heard(self, message: Message) -> None:
        if message.run != self.run:
            self.run, self.panels = message.run, Panels(self.scene)
        self.panels.take(message)

    def _look(self) -> None:
        """Make a frame whenever one is due and somebody looks."""
        shown, number = (-1, "", -1), 0
        dwells = Dwells(self.endpoint, self.keys)
        last_s = made_s = mapped_s = 0.0
        while not self._over.wait(max(0.0, FRAME_S - (time.monotonic() - last_s))):
            last_s = time.monotonic()
            if not self._told or self.lock is None:
                continue
            made: dict[str, Any] | None = None
            with self.lock:
                scene, panels = self.scene, self.panels
                state = (scene.subframes, scene.condition, scene.noted)
                seen, topic = (scene.plan, scene.belief, scene.truth), f"{scene.site}.echo."
                if state != shown or last_s - made_s > QUIET_S:
                    made, made_s, shown = panels.frame(self.user), last_s, state
            if made is not None:
                self._publish(msgspec.json.encode(made))
            found = dwells.poll(topic) if scene.site else None
            if found is not None and panels.optics is not None and None not in seen:
                number, mapped_s = number + 1, last_s
                panels.map = mapped(panels.optics.scenario, scene, seen, found, number)
            elif last_s - mapped_s > DWELL_S and scene.condition == "live":
                dwells.ask(topic)
        dwells.close()

    def _publish(self, frame: bytes) -> None:
        self.frame, self.number = frame, self.number + 1
        for told in list(self._told):
            told()
