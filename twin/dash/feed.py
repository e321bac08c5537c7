"""The dashboard's ear: one thread that listens to a twin and keeps the newest of everything, and what it makes of it for the page.

Old frames are dropped: however many subframes came since the last one, the next frame is made of the newest.
"""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import zmq

from hal.array import LIGHT_MPS
from hal.errors import LateArrival, Misuse, RemoteFault
from hal.frontend import FrontendSpec
from hal.record import Array
from hal.session import Keys
from twin.client import Message, plain
from twin.dash import look
from twin.dwell import recorded_map
from twin.history import opened
from twin.records import Numerology
from twin.scenario import Scenario, ScenarioError, frontend_spec, loads, numerology
from twin.scene import Scene
from twin.watch import Ear

__all__ = ["Feed"]

ALSO = ("beam.transmit.", "memory.transmit.", "clock.", "event.", "change.", "/replay.")
FRAME_S = 1 / 12  # between two frames
COURSE_S = 0.18  # between two looks back over the time courses
SLOW_S = 0.45  # between two looks at what is dear: squint, C-S correlation
DWELL_S = 2.0  # between two delay-Doppler maps
WINDOW_S, BINS = 10.0, 100  # of the time series
NOTES = 60
BAD = ("refused", "missed", "dropped", "failed", "injected")
_log = logging.getLogger("twin.dash")


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
        self.busy_s = 0.0  # CPU spent on frames
        self._control, self._asked_site = control, site
        self._over = threading.Event()
        self._anew("")
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

    def _anew(self, run: str) -> None:
        self.run = run
        self.memory = look.Memory()
        self.clock: dict[str, Any] | None = None
        self.replay: dict[str, Any] | None = None
        self.scenario: Scenario | None = None
        self.spec: FrontendSpec | None = None
        self.numerology: Numerology | None = None
        self.optics: look.Lobes | None = None
        self.unknown = ""  # why there is no scenario
        self.map: dict[str, Any] | None = None
        self.map_number = 0
        self._lobes: dict[int, tuple[int, dict[str, Any]]] = {}
        self._squint: dict[str, Any] | None = None
        self._cs: deque[tuple[float, float]] = deque(maxlen=400)
        self._lags: deque[tuple[float, float]] = deque(maxlen=4096)
        self._slow_s = self._course_s = 0.0
        self._courses: dict[str, Any] = {}

    def _listen(self) -> None:
        try:
            ear = Ear(self.scene, self._asked_site, self._control, keys=self.keys, also=ALSO, heard=self._heard)
        except (RemoteFault, Misuse) as error:
            self.unknown = str(error)
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
            self._anew(message.run)
        if message.kind == "start":
            self._learn(message.data["about"])
        elif message.kind == "event":
            if message.topic.endswith((".beam.transmit.", ".memory.transmit.")):
                self.memory.take(message.data)
            elif message.topic.endswith(".clock."):
                self.clock = message.data
                self._lags.append((message.t_ns * 1e-9, message.data["lag_ns"] * 1e-6))
            elif message.topic.endswith(".event."):
                what = " ".join(str(message.data[key]) for key in ("who", "what", "why"))
                self.scene.say(what.strip(), "bad" if message.data["what"] in BAD else "plain")
            elif message.topic.endswith(".change."):
                self.scene.say("goes by another scenario from here: a fork, or an admin's change", "plain")
            elif message.topic == "replay.":
                self.replay = message.data

    def _learn(self, about: dict[str, Any]) -> None:
        text = about.get("scenario")
        if text is None:
            self.unknown = "this twin does not say its scenario, so beams and maps cannot be drawn"
            return
        try:
            self.scenario = loads(text)
            self.spec = frontend_spec(self.scenario, next(iter(self.scenario.sites)))
            self.numerology = numerology(self.scenario)
            self.optics = look.Lobes(self.spec)
        except (ScenarioError, Misuse) as error:
            self.unknown = (
                f"the scenario is not understood here ({str(error).splitlines()[0]}), so beams and maps cannot be drawn"
            )

    def _look(self) -> None:
        """Make a frame whenever one is due and somebody looks."""
        shown = (-1, "", -1)
        dwell = _Dwells(self.endpoint, self.keys)
        last_s = mapped_s = 0.0
        while not self._over.wait(max(0.0, FRAME_S - (time.monotonic() - last_s))):
            last_s = time.monotonic()
            if not self._told or not hasattr(self, "lock"):
                continue
            began = time.thread_time()
            with self.lock:
                scene = self.scene
                state = (scene.subframes, scene.condition, scene.noted)
                made = self._made(state != shown) if state != shown or last_s - self._slow_s > 1.0 else None
                shown = state
            if made is not None:
                self._publish(msgspec.json.encode(made))
            found = dwell.poll(f"{self.scene.site}.echo.") if self.scene.site else None
            if found is not None:
                self._mapped(found)
                mapped_s = last_s
            elif last_s - mapped_s > DWELL_S and self.scene.condition == "live":
                dwell.ask(f"{self.scene.site}.echo.")
            self.busy_s += time.thread_time() - began
        dwell.close()

    def _publish(self, frame: bytes) -> None:
        self.frame, self.number = frame, self.number + 1
        for told in list(self._told):
            told()

    def _made(self, changed: bool) -> dict[str, Any]:
        scene = self.scene
        out: dict[str, Any] = {
            "run": scene.run,
            "title": scene.title,
            "endpoint": self.endpoint,
            "condition": scene.condition,
            "answers": scene.answers,
            "silent_s": max(0.0, (time.monotonic_ns() - scene.heard_ns) * 1e-9) if scene.run else 0.0,
            "reason": scene.reason,
            "speed": scene.speed,
            "lost": sum(scene.lost.values()),
            "subframes": scene.about.get("subframes"),
            "clock": scene.about.get("clock"),
            "replay": self.replay,
            "unknown": self.unknown,
            "site": self._site(),
            "fault": self.memory.fault,
            "notes": [[note.t_ns * 1e-9, note.text, note.tone, note.times] for note in list(scene.notes)[-NOTES:]],
        }
        if scene.kpi is None or scene.truth is None:
            return out
        kpi = scene.kpi
        users = kpi["user"].tolist()
        now_s = time.monotonic()
        if now_s - self._course_s > COURSE_S:
            self._course_s, self._courses = now_s, self._series()
        out |= {
            "t": int(kpi["t_ns"]) * 1e-9,
            "k": int(kpi["k"]),
            "movers": self._movers(users),
            "tracks": self._tracks(),
            "users": self._users(users),
            "counts": {name: _number(value) for name, value in scene.counts().items()},
            "series": self._courses,
            "plan": [] if scene.plan is None else look.plan_line(scene.plan, users),
            "updates": [] if scene.plan is None else scene.plan["update_block"].tolist(),
            "lobes": self._drawn_lobes(users),
            "stages": None
            if self.clock is None
            else {"budget_ns": self.clock["budget_ns"], "stage_ns": self.clock["stage_ns"]},
        }
        if now_s - self._slow_s > SLOW_S:
            self._slow_s = now_s
            self._slowly(users)
        out["squint"], out["map"] = self._squint, self.map or self._marks()
        return out

    def _marks(self) -> dict[str, Any] | None:
        """What was there and what was detected, over range and speed: all there is of a dwell whose samples were not kept."""
        scene, frame = self.scene, self.numerology
        if frame is None or self.scenario is None or scene.truth is None or scene.belief is None:
            return None
        far, fast = self.scenario.sensing.range_m, LIGHT_MPS / (4 * frame.carrier_hz * frame.frame_ns * 1e-9)
        away = scene.truth["position_m"] - np.array(next(iter(self.scenario.sites.values())).position_m)
        range_m = np.linalg.norm(away, axis=1)
        closing = -(away * scene.truth["velocity_mps"]).sum(axis=1) / range_m
        rows = zip(scene.truth["entity"].tolist(), range_m.tolist(), closing.tolist(), strict=True)
        return {
            "range": [0.0, far],
            "velocity": [-fast, fast],
            "truth": [[scene.name(e), *_round([r, v], 2)] for e, r, v in rows if r < far and abs(v) < fast],
            "found": [_round(row, 2) for row in scene.belief["detections"]["value"][:, 2:].tolist()],
        }

    def _site(self) -> dict[str, Any] | None:
        if self.spec is None or self.scenario is None:
            return None
        array = self.spec.transmit.array
        gain = 10 * np.log10(len(array.position_m)) + array.element_gain_dbi
        return {
            "position": array.origin_m.tolist(),
            "rotation": array.rotation.ravel().tolist(),
            "range": self.scenario.sensing.range_m,
            "full_db": float(gain),
        }

    def _movers(self, users: list[int]) -> list[Any]:
        truth = self.scene.truth
        assert truth is not None
        rows = zip(
            truth["entity"].tolist(),
            truth["is_user"].tolist(),
            truth["position_m"].tolist(),
            truth["velocity_mps"].tolist(),
            strict=True,
        )
        return [
            {
                "id": e,
                "name": self.scene.name(e),
                "user": users.index(e) if user and e in users else -1,
                "at": _round(at),
                "v": _round(v),
            }
            for e, user, at, v in rows
        ]

    def _tracks(self) -> list[Any]:
        if self.scene.belief is None or self.scene.kpi is None:
            return []
        tracks, kpi = self.scene.belief["tracks"], self.scene.kpi
        follows = dict(zip(kpi["tracked"].tolist(), kpi["entity"].tolist(), strict=True))
        axes = look.axes_of(tracks["covariance"][:, :3, :3]) if len(tracks["track"]) else np.zeros((0, 3, 3))
        return [
            {
                "id": t,
                "sure": bool(tracks["confirmed"][i]),
                "at": _round(tracks["state"][i, :3].tolist()),
                "axes": _round(axes[i].ravel().tolist()),
                "user": int(tracks["user"][i]),
                "follows": follows.get(t, -1),
            }
            for i, t in enumerate(tracks["track"].tolist())
        ]

    def _users(self, users: list[int]) -> list[Any]:
        rate, believed, snr, loss = self.scene.lately()
        bound = self.scene.bound_tracks()
        return [
            {
                "id": u,
                "name": self.scene.name(u),
                "rate": _number(rate[i] * 1e-9),
                "believed": _number(believed[i] * 1e-9),
                "snr": _number(snr[i]),
                "loss": _number(loss[i]),
                "track": bound.get(u, -1),
            }
            for i, u in enumerate(users)
        ]

    def _series(self) -> dict[str, Any]:
        """The last ten seconds in bins that stay where they are as time goes on."""
        scene = self.scene
        assert scene.kpi is not None
        k, whole = int(scene.kpi["k"]), scene.subframes_in(WINDOW_S)
        each = max(1, whole // BINS)
        last = k // each
        numbers, service = scene.service.last(k, (BINS + 1) * each)
        _, sensed = scene.sensed.last(k, (BINS + 1) * each)
        row = numbers // each - (last - BINS + 1)
        squared = np.where(np.isfinite(sensed[:, :1]) & np.isfinite(sensed[:, 1:]), sensed, np.nan)[..., [0, 2]] ** 2
        # one root mean square over movers and bin: of the first cosine (in millidegrees off boresight) and of range (millimetres)
        flat = squared.transpose(0, 1, 3, 2).reshape(len(numbers), 4, -1)
        error = np.sqrt(_binned(row, flat)) * np.array([np.rad2deg(1e3), 1e3] * 2)
        rate = _binned(row, service[:, 0, :, None]) * 1e-9
        step_s = each * scene.period_ns * 1e-9
        first_s = (last - BINS + 1) * step_s
        return {
            "first": first_s,
            "since": max(first_s, int(scene.kpi["t_ns"]) * 1e-9 - scene.heard_s),
            "step": step_s,
            "now": int(scene.kpi["t_ns"]) * 1e-9,
            "rate": [_numbers(column) for column in rate.T],
            "angle": _numbers(error[:, 0]),
            "angle_bound": _numbers(error[:, 2]),
            "range": _numbers(error[:, 1]),
            "range_bound": _numbers(error[:, 3]),
            "cs": [[t, v] for t, v in self._cs if t >= first_s],
            "lag": [[t, v] for t, v in list(self._lags)[:: max(1, len(self._lags) // 300)] if t >= first_s],
        }

    def _drawn_lobes(self, users: list[int]) -> list[Any]:
        scene = self.scene
        if self.spec is None or scene.plan is None:
            return []
        plan, wanted = scene.plan, dict[int, tuple[str, int]]()
        for slot, target in zip(plan["dwell_transmit_slot"].tolist(), plan["dwell_target"].tolist(), strict=True):
            wanted[slot] = ("search" if target < 0 else "look", target)
        for slot, served in zip(plan["slot"].tolist(), plan["served"], strict=True):
            names = plan["user"][served].tolist()
            if slot >= 0 and names:
                wanted[slot] = ("data", names[0])
        return [
            drawn for slot, (kind, whom) in wanted.items() if (drawn := self._lobe(slot, kind, whom, users)) is not None
        ]

    def _lobe(self, slot: int, kind: str, whom: int, users: list[int]) -> dict[str, Any] | None:
        if slot not in self.memory.rows or self.optics is None:
            return None
        version, known = self.memory.version[slot], self._lobes.get(slot)
        if known is None or known[0] != version:
            beam, commanded = self.memory.rows[slot]
            one = self.optics.lobe(slot, beam, commanded)
            top = float(one.gain_db.max())
            height = np.clip((one.gain_db - top) / look.DEPTH_DB + 1, 0, 1) * 255
            known = (
                version,
                {
                    "slot": slot,
                    "grid": _packed(height),
                    "uy": _round(one.uy.tolist(), 5),
                    "uz": _round(one.uz.tolist(), 5),
                    "top_db": round(top, 2),
                    "peak": _round(one.peak.tolist(), 5),
                    "commanded": commanded,
                },
            )
            self._lobes[slot] = known
        return {
            **known[1],
            "version": version,
            "kind": kind,
            "whom": users.index(whom) if kind == "data" and whom in users else whom,
        }

    def _slowly(self, users: list[int]) -> None:
        """What takes milliseconds each: gain over angle and subcarrier, C-S correlation."""
        scene, self._squint = self.scene, None
        if self.spec is None or self.numerology is None or scene.plan is None or scene.belief is None:
            return
        channel, plan = scene.belief["channel"], scene.plan
        user = next(
            (
                u
                for u in (self.user, *plan["user"][plan["served"].any(axis=0)].tolist())
                if u in channel["user"].tolist()
            ),
            None,
        )
        if user is None:
            return
        served = plan["served"][:, plan["user"] == user].any(axis=1) & (plan["slot"] >= 0)
        slot = int(plan["slot"][served][0]) if served.any() else -1
        if slot not in self.memory.rows:
            return
        (beam, commanded), at = self.memory.rows[slot], int(np.flatnonzero(channel["user"] == user)[0])
        direction = channel["direction"][at]
        found = look.squint(self.spec, self.numerology, beam, direction)
        top = 10 * np.log10(len(self.spec.transmit.array.position_m)) + self.spec.transmit.array.element_gain_dbi
        self._squint = {
            "user": users.index(user) if user in users else -1,
            "name": scene.name(user),
            "slot": slot,
            "commanded": commanded,
            "grid": _packed(np.clip((found["gain_db"] - top) / 30 + 1, 0, 1) * 255),
            "angle": [float(found["angle_deg"][0]), float(found["angle_deg"][-1])],
            "ghz": [float(self.numerology.subcarrier_hz[0] * 1e-9), float(self.numerology.subcarrier_hz[-1] * 1e-9)],
            "azimuth": found["azimuth_deg"],
            "elevation": found["elevation_deg"],
            "top_db": float(top),
            "towards": _round(found["towards_db"].tolist(), 2),
        }
        tracks = scene.belief["tracks"]
        others = tracks["confirmed"] & (tracks["user"] != user)
        value = look.cs_correlation(
            self.spec, self.numerology, beam, (direction, channel["gain"][at]), tracks["state"][others, :3]
        )
        if value is not None and scene.kpi is not None:
            t_s = int(scene.kpi["t_ns"]) * 1e-9
            while self._cs and self._cs[-1][0] >= t_s:  # a replay went back
                self._cs.pop()
            self._cs.append((t_s, value))

    def _mapped(self, found: tuple[int, dict[str, Any]]) -> None:
        t_ns, heard = found
        with self.lock:
            scenario, belief, truth, plan = self.scenario, self.scene.belief, self.scene.truth, self.scene.plan
        if scenario is None or plan is None or belief is None or truth is None:
            return
        try:
            made = recorded_map(scenario, opened(plan), opened(belief), opened(truth), opened(heard))
        except Misuse:
            return
        power, range_m, velocity = (made[name] for name in ("power_db", "range_m", "velocity_mps"))
        names = [self.scene.name(int(e)) for e in made["entity"]]
        inside = (made["truth"][:, 2] < range_m[-1]) & (np.abs(made["truth"][:, 3]) < velocity[-1])
        self.map_number += 1
        self.map = {
            "number": self.map_number,
            "t": t_ns * 1e-9,
            "grid": _packed(np.clip(power / 40, 0, 1) * 255),
            "top_db": 40,
            "range": [float(range_m[0]), float(range_m[-1])],
            "velocity": [float(velocity[0]), float(velocity[-1])],
            "truth": [
                [n, *_round(row[2:].tolist(), 2)]
                for n, row, here in zip(names, made["truth"], inside, strict=True)
                if here
            ],
            "found": [_round(row[2:].tolist(), 2) for row in made["detected"]],
        }


class _Dwells:
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


def _binned(row: Array, value: Array) -> Array:
    """Means of ``value[sample column more]`` over samples of one bin (``row``, ascending) and over ``more``; NaN where nothing is known."""
    known = np.isfinite(value)
    edge = np.searchsorted(row, np.arange(BINS + 1))
    total, count = (
        np.diff(np.concatenate([np.zeros((1, value.shape[1])), np.cumsum(part.sum(axis=-1), axis=0)])[edge], axis=0)
        for part in (np.where(known, value, 0.0), known)
    )
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _packed(grid: Array) -> dict[str, Any]:
    return {"shape": list(grid.shape), "data": base64.b64encode(np.round(grid).astype(np.uint8).tobytes()).decode()}


def _round(values: list[float], digits: int = 3) -> list[float]:
    return [round(value, digits) for value in values]


def _number(value: float) -> float | None:
    return round(float(value), 3) if np.isfinite(value) else None


def _numbers(column: Array) -> list[float | None]:
    return [_number(value) for value in column]
