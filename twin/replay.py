"""``twin replay``: a recording served like a running twin, so that every monitor works on it; or run again from its seed and compared."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from hal import wire
from hal.errors import Misuse, RemoteFault
from twin.bus import ZmqBus, flatten
from twin.client import plain
from twin.records import Playing
from twin.reel import Reel

__all__ = ["Pace", "Player", "Seek", "Step", "arguments", "moment", "run", "serve"]

STATE = "tcp://127.0.0.1:5570"
TELL_S = 0.5  # between two words on where the replay stands
REST_S = 0.01  # between two looks at the control socket while nothing is due
JOIN_S = 1.0  # a listener that asks for no snapshot in this time wants none
WAIT_S = 2.0  # how long a replay that goes as fast as it can waits for a listener that does not keep up


class Seek(msgspec.Struct):
    """Payload of the question ``seek``: go there, and go on from there."""

    t_ns: int


class Step(msgspec.Struct):
    """Payload of the question ``step``: pause, and say so many subframes more."""

    subframes: int = 1


class Pace(msgspec.Struct):
    """Payload of the question ``pace``: so many simulated seconds a wall second; 0: as fast as it goes."""

    factor: float


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``twin replay`` takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Serve a recording on the sockets of a running twin, with the same documents: twin watch, twin dash and any other\n"
        "monitor work on it. It begins when somebody listens. With --verify: run it again from its seed and the commands\n"
        "that were in force, and prove that every record is the same, byte for byte."
    )
    parser.epilog = (
        "Examples:\n"
        "  twin replay runs/street-001 &  twin watch            look at it in the terminal\n"
        "  twin replay runs/street-001 --from 1.5 --speed 0.2   from 1.5 s on, five times slower\n"
        "  twin replay runs/street-001 --verify                 is the run what its scenario and seed make?"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory, or a recording of its own")
    parser.add_argument("--verify", action="store_true", help="run it again and compare, instead of serving it")
    parser.add_argument(
        "--speed",
        type=float,
        default=1.0,
        help="simulated seconds a wall second (default %(default)g); 0: as fast as it goes",
    )
    parser.add_argument("--from", dest="begin", metavar="TIME", help="begin there (1.25, 1.25s or 1250ms)")
    parser.add_argument("--to", dest="end", metavar="TIME", help="end there")
    parser.add_argument("--loop", action="store_true", help="begin again at the end")
    parser.add_argument(
        "--hold", action="store_true", help="stay at the end, for whoever wants to go back (the dashboard's slider)"
    )
    parser.add_argument("--now", action="store_true", help="begin without waiting for a listener")
    parser.add_argument("--state", default=STATE, metavar="ENDPOINT", help="publish there (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="with --verify: print the verdict as JSON")


def run(given: argparse.Namespace) -> int:
    """``twin replay``; with --verify 0 means proved, 1 that the run came out otherwise."""
    if given.verify:
        from twin.verify import told, verify

        verdict = verify(given.run, progress=not given.json)
        print(json.dumps(verdict, indent=1) if given.json else told(verdict))
        return 0 if verdict["equal"] else 1
    if not given.speed >= 0 or given.speed == float("inf"):
        raise Misuse(f"--speed {given.speed:g}: must be a finite number >= 0; 0 is as fast as it goes")
    reel = Reel(given.run)
    begin, end = (
        None if text is None else moment(text, option)
        for option, text in (("--from", given.begin), ("--to", given.end))
    )
    player = Player(reel, speed=given.speed, begin_ns=begin, end_ns=end, loop=given.loop, hold=given.hold)
    return serve(player, given.state, given.now)


def moment(text: str, option: str) -> int:
    """A time as people write it (``1.25``, ``1.25s``, ``1250ms``) in nanoseconds; Misuse, naming ``option``, for anything else."""
    scale = next((s for unit, s in (("ms", 1e6), ("us", 1e3), ("ns", 1.0), ("s", 1e9)) if text.endswith(unit)), 1e9)
    try:
        value = round(float(text.rstrip("unms")) * scale)
    except (ValueError, OverflowError):
        raise Misuse(
            f"{option} {text}: is not a time; write seconds (1.25 or 1.25s) or milliseconds (1250ms)"
        ) from None
    if not value >= 0:
        raise Misuse(f"{option} {text}: must be >= 0; a run begins at 0 s")
    return value


class Player:
    """Says a recording's subframes when they are due; ``turn`` does what is due now and never sleeps.

    ``begin_ns .. end_ns`` is the stretch played (both ends included). At the end it begins again (``loop``), waits there (``hold``), or is ``over``.
    ``handlers`` answer the questions ``pause``, ``resume``, ``step``, ``pace`` and ``seek``, each with where the replay then stands. Raises
    Misuse for a stretch outside the recording.
    """

    def __init__(
        self,
        reel: Reel,
        *,
        speed: float = 1.0,
        begin_ns: int | None = None,
        end_ns: int | None = None,
        loop: bool = False,
        hold: bool = False,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.reel, self.speed, self.loop, self.hold = reel, speed, loop, hold
        begin_ns = reel.first_ns if begin_ns is None else self._inside("--from", begin_ns)
        end_ns = reel.last_ns if end_ns is None else self._inside("--to", end_ns)
        if not begin_ns <= end_ns:
            raise Misuse(f"--from {begin_ns * 1e-9:g} s lies after --to {end_ns * 1e-9:g} s")
        self.first, self.end = reel.frame(begin_ns), reel.frame(end_ns + 1)
        if not self.first < self.end:
            raise Misuse(
                f"--from {begin_ns * 1e-9:g} --to {end_ns * 1e-9:g}: no subframe begins in this stretch; make it longer"
            )
        self.frame = self.first  # to be said next
        self.playing, self.over = True, False
        self.bus: ZmqBus | None = None
        self._clock = clock
        self._told_ns = 0
        self._settle()

    @property
    def handlers(self) -> dict[str, Callable[[bytes], bytes]]:
        """What the control socket answers besides the bus's own."""
        return {
            "pause": self._answer(None, lambda asked: self.play(False)),
            "resume": self._answer(None, lambda asked: self.play(True)),
            "step": self._answer(Step, lambda asked: self.step(asked.subframes)),
            "pace": self._answer(Pace, lambda asked: self.pace(asked.factor)),
            "seek": self._answer(Seek, lambda asked: self.seek(asked.t_ns)),
        }

    @property
    def about(self) -> dict[str, Any]:
        """What the run said of itself, with this being a replay of it."""
        return {**self.reel.about, "clock": {"mode": "replay", "factor": self.speed}, "controls": list(self.handlers)}

    def turn(self) -> float:
        """Do what is due; return how many seconds there is nothing to do."""
        assert self.bus is not None
        now_ns = self._clock()
        if now_ns - self._told_ns > TELL_S * 1e9:
            self.tell()
        if not self.playing or self.over:
            return REST_S
        if self.frame >= self.end:
            self._ended()
            return 0.0
        due_s = self._due_s(now_ns)
        if due_s > 0:
            return min(due_s, REST_S)
        self.say(self.frame)
        self.frame += 1
        return 0.0

    def play(self, on: bool) -> None:
        """Go on, or stand still; at the end, going on begins anew."""
        if on and self.frame >= self.end:
            self.seek(self._t_ns(self.first))
        self.playing = on
        self._settle()

    def pace(self, factor: float) -> None:
        """Go at another speed from here on."""
        if not 0 <= factor < float("inf"):
            raise Misuse(f"pace: factor = {factor!r}: must be a finite number >= 0; 0 is as fast as it goes")
        self.speed = factor
        self._settle()

    def step(self, subframes: int) -> None:
        """Stand still, and say so many subframes more."""
        if not 1 <= subframes <= 10_000:
            raise Misuse(f"step: subframes = {subframes}: must be 1 .. 10000")
        self.playing = False
        for _ in range(min(subframes, self.end - self.frame)):
            self.say(self.frame)
            self.frame += 1

    def seek(self, t_ns: int) -> None:
        """Say what was known at a time, as if one had listened until then, and go on from there (or stand still there)."""
        wanted = min(max(self.reel.frame(t_ns + 1) - 1, self.first), self.end - 1)
        fresh = {int(self.reel.topic[n]) for n in range(self.reel.frames[wanted], self.reel.frames[wanted + 1])}
        for number in self.reel.before(wanted):
            if int(self.reel.topic[number]) not in fresh:
                self._relay(number)
        self.say(wanted)
        self.frame = wanted + 1
        self._settle()

    def say(self, frame: int) -> None:
        """Say one subframe's messages."""
        for number in range(self.reel.frames[frame], self.reel.frames[frame + 1]):
            self._relay(number)

    def tell(self) -> None:
        """Say where the replay stands."""
        if self.bus is not None:
            standing = self._standing()
            self.bus.publish("replay.", standing, standing.t_ns)
            self._told_ns = self._clock()

    def _relay(self, number: int) -> None:
        assert self.bus is not None
        row, (name, schema) = self.reel.message(number), self.reel.kinds[int(self.reel.topic[number])]
        self.bus.relay(row.topic, name, schema, row.data, row.t_ns)
        if row.topic.endswith(".kpi.") and self.bus.wanted(f"flat.{row.topic}"):
            self.bus.flat(row.topic, flatten(plain(msgspec.msgpack.decode(row.data))), row.t_ns)

    def _ended(self) -> None:
        if self.loop:
            self.seek(self._t_ns(self.first))
        elif self.hold:
            self.playing = False
        else:
            self.over = True
        self.tell()

    def _due_s(self, now_ns: int) -> float:
        if self.speed == 0:
            return 0.0
        ahead_ns = (self._t_ns(self.frame) - self._from[1]) / self.speed - (now_ns - self._from[0])
        return max(ahead_ns * 1e-9, 0.0)

    def _settle(self) -> None:
        """From now on, time is counted from here."""
        self._from = self._clock(), self._t_ns(min(self.frame, self.end - 1))

    def _t_ns(self, frame: int) -> int:
        return int(self.reel.t_ns[self.reel.frames[frame]])

    def _standing(self) -> Playing:
        first_ns, last_ns = self._t_ns(self.first), self._t_ns(self.end - 1)
        return Playing(
            t_ns=self._t_ns(max(self.frame - 1, self.first)),
            first_ns=first_ns,
            last_ns=last_ns,
            period_ns=(last_ns - first_ns) // max(self.end - 1 - self.first, 1),
            playing=self.playing,
            speed=self.speed,
            loop=self.loop,
        )

    def _answer(self, payload: type | None, do: Callable[[Any], None]) -> Callable[[bytes], bytes]:
        def answer(asked: bytes) -> bytes:
            try:
                do(None if payload is None else msgspec.msgpack.decode(asked, type=payload))
            except msgspec.DecodeError as error:
                raise RemoteFault(str(error)) from None
            self.tell()
            return wire.encode(self._standing())

        return answer

    def _inside(self, option: str, t_ns: int) -> int:
        reel = self.reel
        if not reel.first_ns <= t_ns <= reel.last_ns:
            raise Misuse(
                f"{option} {t_ns * 1e-9:g} s: lies outside the recording, which has subframes from {reel.first_ns * 1e-9:g} s to "
                f"{reel.last_ns * 1e-9:g} s"
            )
        return t_ns


def serve(
    player: Player,
    state: str = STATE,
    now: bool = False,
    announce: Callable[[str], object] = lambda text: print(text, flush=True),
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Serve a recording until it is over or Ctrl-C; ``now``: without waiting for a listener. Returns an exit status."""
    name = f"replay-of-{player.reel.path.parent.name or 'run'}-{time.time_ns():x}"
    signal.signal(signal.SIGTERM, interrupted)
    with ZmqBus(name, state, about=player.about, wait_s=WAIT_S, handlers=player.handlers) as bus:
        player.bus = bus
        announce(f"replaying {player.reel.path} on {bus.state}; stop it with Ctrl-C")
        try:
            if not now:
                _await_listener(bus, sleep)
            player.play(True)
            while not player.over:
                rest_s = player.turn()
                bus.service()
                if rest_s > 0:
                    sleep(rest_s)
            bus.close("finished", told(player.reel.summary))
        except KeyboardInterrupt:
            bus.close("interrupted")
    return 0


def _await_listener(bus: ZmqBus, sleep: Callable[[float], None]) -> None:
    since: float | None = None
    while since is None or (bus.counts["joined"] == 0 and time.monotonic() - since < JOIN_S):
        bus.service()
        if since is None and bus.listeners("truth."):
            since = time.monotonic()
        sleep(REST_S)


def told(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The summary that the recorded run closed with."""
    return {"recorded": dict(summary)}


def interrupted(number: int, frame: FrameType | None) -> None:
    """A polite kill is a Ctrl-C."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    arguments(parser)
    sys.exit(run(parser.parse_args()))
