"""What a listener knows of a running twin: the last of every stream, a window of key figures, and what happened, as notes.

Takes in documents as they come (``Scene.take``); draws nothing and opens nothing, so a screen, a script and a test read the same.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from hal.record import Array, Float
from twin.client import Message

__all__ = ["FIGURES", "History", "Note", "Scene"]

SUBFRAMES = 4096  # remembered: 20 s at 5 ms
FIGURES = ("detections", "false_alarms", "lit", "missed", "nees", "tracks_false", "track_nees", "beams_clipped")
PARAMETERS = ("uy", "uz", "range_m", "velocity_mps")
WHOLE = (
    *("tracks_confirmed", "tracks_tentative", "tracks_false", "users_bound", "users_bound_right", "swaps"),
    *("rebindings", "detections", "false_alarms", "lit", "missed", "nees", "track_nees", "sensing_share"),
    *("beams_set", "beams_clipped", "beam_delay_us", "doppler_block"),
)
PACE_S = 3.0  # wall time over which speed is measured


@dataclass
class Note:
    """One thing that happened; the same thing again only counts."""

    t_ns: int
    text: str
    tone: str  # good | bad | plain
    times: int = 1


class History:
    """An array a subframe, the last few thousand of them, found by subframe number."""

    def __init__(self, shape: tuple[int, ...], subframes: int = SUBFRAMES) -> None:
        self._k = np.full(subframes, -1)
        self._value = np.full((subframes, *shape), np.nan)

    def put(self, k: int, value: Any) -> None:
        """Remember ``value`` for subframe ``k``; what lies ``subframes`` back is forgotten."""
        row = k % len(self._k)
        self._k[row], self._value[row] = k, value

    def last(self, k: int, count: int) -> tuple[Any, Any]:
        """Numbers and values of the subframes in ``(k - count, k]`` that were heard, in order."""
        asked = np.arange(max(0, k - min(count, len(self._k)) + 1), k + 1)
        row = asked % len(self._k)
        heard = self._k[row] == asked
        return asked[heard], self._value[row[heard]]


def mean(value: Any) -> Any:
    """Mean over the first axis of what is a number; NaN where nothing is, without a warning."""
    value = np.asarray(value, float)
    known = np.isfinite(value)
    count = known.sum(axis=0)
    return np.where(count, np.where(known, value, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)


class Scene:
    """All that was heard of one twin. ``window_s`` of simulated time is what errors and counts are averaged over."""

    def __init__(self, endpoint: str, window_s: float = 10.0, notes: int = 200) -> None:
        self.endpoint, self.window_s = endpoint, window_s
        self.notes: deque[Note] = deque(maxlen=notes)
        self.noted = 0  # how many were ever made
        self.condition = "waiting"  # waiting, live, late, gone, stopped
        self.answers: bool | None = None  # whether the endpoint's port takes connections, where that was tried
        self.heard_ns = 0  # wall clock of the last document
        self.lost: Counter[str] = Counter()
        self.garbage = 0
        self.subframes = 0  # heard, of all runs
        self._anew("")

    def _anew(self, run: str) -> None:
        self.run, self.about = run, dict[str, Any]()
        self.site = ""
        self.reason: str | None = None  # of the stop
        self.listeners = self.lost_by_all = 0
        self.truth: dict[str, Any] | None = None
        self.plan: dict[str, Any] | None = None
        self.belief: dict[str, Any] | None = None
        self._before: dict[str, Any] | None = None  # the belief before
        self.kpi: dict[str, Any] | None = None
        self._first_k = 0
        self._pace: deque[tuple[int, int]] = deque()  # wall and simulated time of the last seconds
        self._best_ns: float | None = None  # least wall time ahead of the schedule: what lag counts from
        self.lag_ns: int | None = None

    def say(self, text: str, tone: str = "plain") -> None:
        """Make a note of what happened."""
        self.noted += 1
        t_ns = 0 if self.kpi is None else int(self.kpi["t_ns"])
        if self.notes and self.notes[-1].text == text:
            self.notes[-1].times += 1
            self.notes[-1].t_ns = t_ns
            return
        self.notes.append(Note(t_ns, text, tone))

    def turn(self, condition: str, lost: Counter[str], garbage: int) -> None:
        """Take over how the listener fares."""
        if not self.run and condition != "stopped":
            condition = "waiting"
        if condition != self.condition:
            if condition == "gone":
                self.say("the twin is gone", "bad")
            elif condition == "live" and self.condition in ("late", "gone"):
                self.say("the twin is back", "good")
        self.condition = condition
        new = {topic: count - self.lost[topic] for topic, count in lost.items() if count > self.lost[topic]}
        if new:
            self.say(f"{sum(new.values())} documents lost on the way here: {' '.join(sorted(new))}", "bad")
        self.lost, self.garbage = Counter(lost), garbage

    def take(self, message: Message, now_ns: int) -> bool:
        """Take in one document; return whether it completes a subframe (key figures come last)."""
        self.heard_ns = now_ns
        if message.run != self.run:
            before = self.run
            self._anew(message.run)
            if before:
                self.say(f"a new run: {message.run}")
        if message.kind == "start":
            self.about = message.data["about"]
        elif message.kind == "heartbeat":
            self.listeners, self.lost_by_all = message.data["listeners"], message.data["lost"]
        elif message.kind == "stop":
            self.reason = str(message.data["reason"])
            self.say(f"the run ended: {self.reason}", "good" if self.reason == "finished" else "bad")
        elif message.kind == "event":
            return self._event(message, now_ns)
        return False

    def _event(self, message: Message, now_ns: int) -> bool:
        data = message.data
        if message.topic == "truth.":
            self._met(data)
            self.truth = data
        elif message.topic.endswith(".plan."):
            self.plan = data
        elif message.topic.endswith(".belief."):
            self._believed(data)
        elif message.topic.endswith(".kpi."):
            self.site = message.topic[: -len(".kpi.")]
            self._scored(data, now_ns)
            return True
        return False

    def _met(self, truth: dict[str, Any]) -> None:
        if self.truth is None:
            return
        before, now = set(self.truth["entity"].tolist()), set(truth["entity"].tolist())
        for entity in sorted(now - before):
            self.say(f"{self.name(entity)} arrives")
        for entity in sorted(before - now):
            self.say(f"{self.name(entity)} leaves")

    def _believed(self, belief: dict[str, Any]) -> None:
        self._before = self.belief
        self.belief = belief

    def _changed(self, kpi: dict[str, Any]) -> None:
        """Notes of what the belief did in this subframe; whom a track follows is the truth's word, in ``kpi``."""
        if self._before is None or self.belief is None or self.kpi is None:
            return
        before, now = self._before["tracks"], self.belief["tracks"]
        old, new = set(before["track"][before["confirmed"]].tolist()), set(now["track"][now["confirmed"]].tolist())
        for track in sorted(new - old):
            x, y = now["state"][now["track"] == track][0][:2]
            who = self.followed(track, kpi)
            said = f"is {who}" if who else f"follows nobody, at x {x:.1f}, y {y:.1f} m"
            self.say(f"track {track} confirmed: {said}", "good" if who else "bad")
        for track in sorted(old - set(now["track"].tolist())):
            who = self.followed(track, self.kpi)
            self.say(f"track {track} dropped: {f'was {who}' if who else 'followed nobody'}", "bad" if who else "plain")
        was, is_ = bindings(before), bindings(now)
        for user in sorted(was.keys() | is_.keys()):
            left, taken = was.get(user), is_.get(user)
            if left == taken:
                continue
            name = self.name(user)
            if taken is None:
                self.say(f"{name} has lost its track {left}", "bad")
            elif left is None:
                self.say(f"{name} is bound to track {taken}", "good")
            else:
                self.say(f"{name} is bound anew: track {left} -> {taken}", "bad")

    def followed(self, track: int, kpi: dict[str, Any]) -> str:
        """Name of the mover that a track follows, or nothing."""
        row = np.flatnonzero(kpi["tracked"] == track)
        return self.name(int(kpi["entity"][row[0]])) if len(row) else ""

    def _scored(self, kpi: dict[str, Any], now_ns: int) -> None:
        k, t_ns = int(kpi["k"]), int(kpi["t_ns"])
        if self.kpi is None or k <= self.kpi["k"]:
            if self.kpi is not None:
                self.say(f"time went back to t = {t_ns * 1e-9:.3f} s: a replay begins again", "plain")
            self._first_k = k
            users, movers = len(kpi["user"]), len(kpi["entity"])
            self.service, self.sensed = History((4, users)), History((2, movers, 4))
            self.figures = History((len(FIGURES),))
            self._pace.clear()
            self._best_ns = None
        self._changed(kpi)
        if kpi["beams_clipped"] > 0:
            self.say(f"{kpi['beams_clipped']} beam settings out of range, clipped", "bad")
        self.kpi = kpi
        self.subframes += 1
        served = [kpi[name] for name in ("rate_bps", "predicted_bps", "snr_db", "beam_loss_db")]
        self.service.put(k, np.stack(served))
        self.sensed.put(k, np.stack([kpi["error"], kpi["bound"]]))
        self.figures.put(k, [kpi[name] for name in FIGURES])
        self._pace.append((now_ns, t_ns))
        while now_ns - self._pace[0][0] > PACE_S * 1e9 and len(self._pace) > 2:
            self._pace.popleft()
        clock = self.about.get("clock") or {}
        if clock.get("mode") == "paced":
            behind = now_ns - t_ns / float(clock.get("factor", 1.0))
            self._best_ns = behind if self._best_ns is None else min(self._best_ns, behind)
            self.lag_ns = round(behind - self._best_ns)

    def name(self, entity: int) -> str:
        """What the scenario calls a mover; its number where that is not known."""
        return str((self.about.get("movers") or {}).get(str(entity), f"mover {entity}"))

    @property
    def title(self) -> str:
        """What is running."""
        return str(self.about.get("title") or self.run)

    @property
    def period_ns(self) -> float:
        """Length of a subframe, as far as it is known."""
        if self.kpi is None or not self.kpi["k"] > 0:
            return 5e6
        return float(self.kpi["t_ns"]) / float(self.kpi["k"])

    @property
    def heard_s(self) -> float:
        """Simulated time listened to in this run."""
        return 0.0 if self.kpi is None else (int(self.kpi["k"]) - self._first_k + 1) * self.period_ns * 1e-9

    def subframes_in(self, seconds: float) -> int:
        """How many subframes a stretch of simulated time has, at least one."""
        return max(1, round(seconds * 1e9 / self.period_ns))

    @property
    def speed(self) -> float | None:
        """Simulated over wall time in the last seconds; None before there are two subframes."""
        if len(self._pace) < 2 or not self._pace[-1][0] > self._pace[0][0]:
            return None
        return (self._pace[-1][1] - self._pace[0][1]) / (self._pace[-1][0] - self._pace[0][0])

    def lately(self, seconds: float = 0.25) -> Float[Array, "4 user"]:
        """Rate, believed rate (bit/s), SNR and beam loss (dB) of each user, means over the last moments."""
        assert self.kpi is not None
        return np.asarray(mean(self.service.last(int(self.kpi["k"]), self.subframes_in(seconds))[1]))

    def rates(self, width: int) -> Float[Array, "bin user"]:
        """Rate of each user (bit/s) over the window in at most ``width`` bins, the newest last; a bin keeps its subframes as time goes on."""
        assert self.kpi is not None
        k = int(self.kpi["k"])
        heard = min(k - self._first_k + 1, self.subframes_in(self.window_s))
        each = 1
        while each * width < heard:
            each *= 2
        last = k // each
        numbers, value = self.service.last(k, each * width)
        numbers, value = numbers[numbers >= self._first_k], value[numbers >= self._first_k, 0]
        bins = range(max(last - width + 1, self._first_k // each), last + 1)
        return np.array([mean(value[numbers // each == b]) for b in bins])

    def errors(self) -> tuple[Float[Array, "entity 4"], Float[Array, "entity 4"], Any]:
        """Root mean square error and bound of each mover's detections over the window, and how many there were."""
        assert self.kpi is not None
        _, value = self.sensed.last(int(self.kpi["k"]), self.subframes_in(self.window_s))
        seen = np.isfinite(value[:, 0, :, 0]) & np.isfinite(value[:, 1, :, 0])
        squared = np.where(seen[:, None, :, None], value, np.nan) ** 2
        rms = np.sqrt(mean(squared))
        return rms[0], rms[1], seen.sum(axis=0)

    def counts(self) -> dict[str, float]:
        """Mean a subframe of each of ``FIGURES`` over the window."""
        assert self.kpi is not None
        found = mean(self.figures.last(int(self.kpi["k"]), self.subframes_in(self.window_s))[1])
        return dict(zip(FIGURES, found.tolist(), strict=True))

    def bound_tracks(self) -> dict[int, int]:
        """The track of each user that has one."""
        return {} if self.belief is None else bindings(self.belief["tracks"])

    def line(self) -> dict[str, Any]:
        """The last subframe as plain numbers: what ``twin watch --json`` prints."""
        assert self.kpi is not None
        kpi, truth, bound = self.kpi, self.truth, self.bound_tracks()
        users = {
            self.name(user): {
                "rate_gbps": known(kpi["rate_bps"][i] * 1e-9),
                "believed_gbps": known(kpi["predicted_bps"][i] * 1e-9),
                "snr_db": known(kpi["snr_db"][i]),
                "beam_loss_db": known(kpi["beam_loss_db"][i]),
                "served_blocks": int(kpi["served_blocks"][i]),
                "outage_blocks": int(kpi["outage_blocks"][i]),
                "track": bound.get(user),
            }
            for i, user in enumerate(kpi["user"].tolist())
        }
        where: dict[int, int] = {}
        if truth is not None:
            where = {entity: row for row, entity in enumerate(truth["entity"].tolist())}
        movers = {}
        for i, entity in enumerate(kpi["entity"].tolist()):
            row = where.get(entity)
            movers[self.name(entity)] = {
                "position_m": None if truth is None or row is None else truth["position_m"][row].tolist(),
                "velocity_mps": None if truth is None or row is None else truth["velocity_mps"][row].tolist(),
                "track": int(kpi["tracked"][i]) if kpi["tracked"][i] >= 0 else None,
                "track_error_m": known(kpi["position_error_m"][i]),
                "track_sigma_m": known(kpi["track_sigma_m"][i]),
                "error": {p: known(v) for p, v in zip(PARAMETERS, kpi["error"][i], strict=True)},
                "bound": {p: known(v) for p, v in zip(PARAMETERS, kpi["bound"][i], strict=True)},
                "echo_snr_db": known(kpi["echo_snr_db"][i]),
            }
        return {
            "run": self.run,
            "site": self.site,
            "k": int(kpi["k"]),
            "t_s": int(kpi["t_ns"]) / 1e9,
            "speed": self.speed,
            "lag_s": None if self.lag_ns is None else self.lag_ns / 1e9,
            "users": users,
            "movers": movers,
            **{name: known(kpi[name]) for name in WHOLE},
            "lost": dict(self.lost),
        }


def bindings(tracks: dict[str, Any]) -> dict[int, int]:
    """User -> track."""
    bound = tracks["user"] >= 0
    return dict(zip(tracks["user"][bound].tolist(), tracks["track"][bound].tolist(), strict=True))


def known(value: Any) -> float | int | None:
    """A JSON number, or None for what is none."""
    number = value.item() if isinstance(value, np.generic) else value
    return number if np.isfinite(number) else None
