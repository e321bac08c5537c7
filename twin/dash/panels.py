"""What the page shows of one run: a panel each, made anew only when what it shows has changed or is due."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from hal.array import LIGHT_MPS
from hal.errors import Misuse
from hal.frontend import FrontendSpec
from twin.client import Message
from twin.dash import look
from twin.dash.courses import courses
from twin.dash.numbers import number, packed, rounded
from twin.records import Numerology
from twin.scenario import Scenario, ScenarioError, frontend_spec, loads, numerology
from twin.scene import Scene

__all__ = ["Panels"]

COURSE_S = 0.18  # between two looks back over the time courses
SLOW_S = 0.45  # between two looks at what is dear: squint, C-S correlation
NOTES = 60
BAD = ("refused", "missed", "dropped", "failed", "injected")
NOTHING = msgspec.Raw(b"null")


@dataclass(frozen=True)
class Optics:
    """What follows from a scenario's text and is needed to draw its waves."""

    scenario: Scenario
    spec: FrontendSpec
    numerology: Numerology
    lobes: look.Lobes


@lru_cache(maxsize=4)  # a scenario is read once, however often it is run
def optics_of(text: str) -> Optics:
    """Raises ScenarioError or Misuse for a scenario that is not understood here."""
    scenario = loads(text)
    spec = frontend_spec(scenario, next(iter(scenario.sites)))
    return Optics(scenario, spec, numerology(scenario), look.Lobes(spec))


class Panels:
    """All that is known of one run beside its scene, and the frame made of both."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.memory = look.Memory()
        self.clock: dict[str, Any] | None = None
        self.replay: dict[str, Any] | None = None
        self.optics: Optics | None = None
        self.unknown = ""  # why there is no scenario
        self.map: msgspec.Raw | None = None  # of the last dwell that was mapped
        self._lobes: dict[int, tuple[int, dict[str, Any]]] = {}
        self._correlated: deque[tuple[float, float]] = deque(maxlen=400)
        self._lags: deque[tuple[float, float]] = deque(maxlen=4096)
        self._slow_s = self._course_s = 0.0
        self._courses = self._squint = NOTHING

    def take(self, message: Message) -> None:
        """One document of this run."""
        if message.kind == "start":
            self._learn(message.data["about"].get("scenario"))
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

    def _learn(self, text: str | None) -> None:
        if text is None:
            self.unknown = "this twin does not say its scenario, so beams and maps cannot be drawn"
            return
        try:
            self.optics = optics_of(text)
        except (ScenarioError, Misuse) as error:
            self.unknown = (
                f"the scenario is not understood here ({str(error).splitlines()[0]}), so beams and maps cannot be drawn"
            )

    def frame(self, chosen: int | None) -> dict[str, Any]:
        """Everything the page shows; ``chosen`` is the user whose row the squint panel shows (None: who is served)."""
        scene = self.scene
        out: dict[str, Any] = {
            "run": scene.run,
            "title": scene.title,
            "endpoint": scene.endpoint,
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
            self._course_s = now_s
            self._courses = msgspec.Raw(msgspec.json.encode(courses(scene, self._correlated, list(self._lags))))
        out |= {
            "t": int(kpi["t_ns"]) * 1e-9,
            "k": int(kpi["k"]),
            "movers": self._movers(users),
            "tracks": self._tracks(),
            "users": self._users(users),
            "counts": {name: number(value) for name, value in scene.counts().items()},
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
            self._squint = msgspec.Raw(msgspec.json.encode(self._slowly(users, chosen)))
        out["squint"], out["map"] = self._squint, self._marks() if self.map is None else self.map
        return out

    def _marks(self) -> dict[str, Any] | None:
        """What was there and what was detected, over range and speed: all there is of a dwell whose samples were not kept."""
        scene = self.scene
        if self.optics is None or scene.truth is None or scene.belief is None:
            return None
        scenario, frame = self.optics.scenario, self.optics.numerology
        far, fast = scenario.sensing.range_m, LIGHT_MPS / (4 * frame.carrier_hz * frame.frame_ns * 1e-9)
        away = scene.truth["position_m"] - np.array(next(iter(scenario.sites.values())).position_m)
        range_m = np.linalg.norm(away, axis=1)
        closing = -(away * scene.truth["velocity_mps"]).sum(axis=1) / range_m
        rows = zip(scene.truth["entity"].tolist(), range_m.tolist(), closing.tolist(), strict=True)
        return {
            "range": [0.0, far],
            "velocity": [-fast, fast],
            "truth": [[scene.name(e), *rounded([r, v], 2)] for e, r, v in rows if r < far and abs(v) < fast],
            "found": [rounded(row, 2) for row in scene.belief["detections"]["value"][:, 2:].tolist()],
        }

    def _site(self) -> dict[str, Any] | None:
        if self.optics is None:
            return None
        array = self.optics.spec.transmit.array
        gain = 10 * np.log10(len(array.position_m)) + array.element_gain_dbi
        return {
            "position": array.origin_m.tolist(),
            "rotation": array.rotation.ravel().tolist(),
            "range": self.optics.scenario.sensing.range_m,
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
                "at": rounded(at),
                "v": rounded(v),
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
                "at": rounded(tracks["state"][i, :3].tolist()),
                "axes": rounded(axes[i].ravel().tolist()),
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
                "rate": number(rate[i] * 1e-9),
                "believed": number(believed[i] * 1e-9),
                "snr": number(snr[i]),
                "loss": number(loss[i]),
                "track": bound.get(u, -1),
            }
            for i, u in enumerate(users)
        ]

    def _drawn_lobes(self, users: list[int]) -> list[Any]:
        scene = self.scene
        if self.optics is None or scene.plan is None:
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
            one = self.optics.lobes.lobe(slot, beam, commanded)
            top = float(one.gain_db.max())
            height = np.clip((one.gain_db - top) / look.DEPTH_DB + 1, 0, 1) * 255
            known = (
                version,
                {
                    "slot": slot,
                    "grid": packed(height),
                    "uy": rounded(one.uy.tolist(), 5),
                    "uz": rounded(one.uz.tolist(), 5),
                    "top_db": round(top, 2),
                    "peak": rounded(one.peak.tolist(), 5),
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

    def _slowly(self, users: list[int], chosen: int | None) -> dict[str, Any] | None:
        """What takes milliseconds each: gain over angle and subcarrier, C-S correlation."""
        scene = self.scene
        if self.optics is None or scene.plan is None or scene.belief is None:
            return None
        spec, frame = self.optics.spec, self.optics.numerology
        channel, plan = scene.belief["channel"], scene.plan
        user = next(
            (u for u in (chosen, *plan["user"][plan["served"].any(axis=0)].tolist()) if u in channel["user"].tolist()),
            None,
        )
        if user is None:
            return None
        served = plan["served"][:, plan["user"] == user].any(axis=1) & (plan["slot"] >= 0)
        slot = int(plan["slot"][served][0]) if served.any() else -1
        if slot not in self.memory.rows:
            return None
        (beam, commanded), at = self.memory.rows[slot], int(np.flatnonzero(channel["user"] == user)[0])
        direction = channel["direction"][at]
        found = look.squint(spec, frame, beam, direction)
        top = 10 * np.log10(len(spec.transmit.array.position_m)) + spec.transmit.array.element_gain_dbi
        shown = {
            "user": users.index(user) if user in users else -1,
            "name": scene.name(user),
            "slot": slot,
            "commanded": commanded,
            "grid": packed(np.clip((found["gain_db"] - top) / 30 + 1, 0, 1) * 255),
            "angle": [float(found["angle_deg"][0]), float(found["angle_deg"][-1])],
            "ghz": [float(frame.subcarrier_hz[0] * 1e-9), float(frame.subcarrier_hz[-1] * 1e-9)],
            "azimuth": found["azimuth_deg"],
            "elevation": found["elevation_deg"],
            "top_db": float(top),
            "towards": rounded(found["towards_db"].tolist(), 2),
        }
        tracks = scene.belief["tracks"]
        others = tracks["confirmed"] & (tracks["user"] != user)
        value = look.cs_correlation(spec, frame, beam, (direction, channel["gain"][at]), tracks["state"][others, :3])
        if value is not None and scene.kpi is not None:
            t_s = int(scene.kpi["t_ns"]) * 1e-9
            while self._correlated and self._correlated[-1][0] >= t_s:  # a replay went back
                self._correlated.pop()
            self._correlated.append((t_s, value))
        return shown
