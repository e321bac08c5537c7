"""``twin watch``: a running or replayed twin in a terminal, as one screen, or as JSON lines; a plain listener that costs the twin nothing."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import select
import signal
import socket as sockets
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import IO, Any

from hal.errors import LateArrival, Misuse, RemoteFault
from hal.session import Keys, Patience
from twin.client import Message, Silence, Subscriber
from twin.keys import given_keys, key_arguments
from twin.scene import Scene

__all__ = ["STATE", "Ear", "arguments", "lines", "live", "once", "port_answers", "run"]

STATE = "tcp://127.0.0.1:5570"
TRIES = 3  # joins before names are done without
ASIDE = "truth."  # enough to be told on ``run.`` which sites there are


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``twin watch`` takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Watch a running or replayed twin: users and their rates, signal to noise and beam losses, sensing errors beside\n"
        "their bounds, tracks and bindings, the plan, losses, and what happens. Needs nothing but the twin's state\n"
        "endpoint; if the twin goes, the screen says so and waits for it. Leave with q or Ctrl-C."
    )
    parser.epilog = (
        "Examples:\n"
        f"  twin run scenarios/street.yaml --pace 1 --state {STATE} &   a twin that publishes\n"
        "  twin watch                                                                 watch it\n"
        "  twin watch --once                                                          one screen, then leave\n"
        "  twin watch --json | jq .users                                              every subframe as one JSON line\n"
        "  ssh -L 5570:localhost:5570 -L 5571:localhost:5571 HOST                     a twin on another computer:\n"
        "                                                                             run this, then `twin watch` here\n"
        "Colours: red is wrong, yellow wants a look. Under `outage`: blocks below 0 dB of blocks served. `off m` is the\n"
        "track's true error, `sigma` what the track believes it to be, CRB the bound no unbiased estimate beats. NEES is\n"
        "the normalised error; behind it, what it should be."
    )
    parser.add_argument("endpoint", nargs="?", default=STATE, help="the twin's state endpoint (default %(default)s)")
    parser.add_argument("--control", metavar="ENDPOINT", help="its control endpoint (default: the port after state's)")
    parser.add_argument("--site", help="which base station, where there are several (default: the first by name)")
    key_arguments(parser)
    parser.add_argument("--once", action="store_true", help="listen for a second, print one screen and leave")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON line a subframe until the run ends; with --once, one line"
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how long --once and --json wait for a twin (default %(default)g)",
    )
    parser.add_argument(
        "--window",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="simulated time that errors, counts and sparklines look back (default %(default)g)",
    )
    parser.add_argument(
        "--refresh",
        type=float,
        default=5.0,
        metavar="HZ",
        help="screens a second, 0.1 to 10 (default %(default)g); frames in between are not drawn",
    )
    parser.add_argument(
        "--ascii",
        action="store_true",
        help="no characters beyond ASCII (the default where the terminal's encoding has none)",
    )


def run(given: argparse.Namespace) -> int:
    """``twin watch``; returns 0, or 1 where --once or --json heard no twin."""
    if not 0.1 <= given.refresh <= 10:
        raise Misuse(f"--refresh {given.refresh:g}: must be 0.1 to 10 screens a second")
    for option in ("window", "wait"):
        if not getattr(given, option) > 0:
            raise Misuse(f"--{option} {getattr(given, option):g}: must be > 0 seconds")
    scene = Scene(given.endpoint, given.window)
    with contextlib.closing(Ear(scene, given.site, given.control, keys=given_keys(given))) as ear:
        if given.json:
            try:
                return lines(ear, sys.stdout, given.wait, given.once)
            except BrokenPipeError:  # the reader has enough; Python would complain once more when it flushes at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 0
        from rich.console import Console

        console = Console(highlight=False)
        plain = given.ascii or not (console.encoding or "").lower().startswith("utf")
        if given.once or not console.is_terminal:
            return once(ear, console, given.wait, plain)
        return live(ear, console, given.refresh, plain)


class Ear:
    """Listens for a scene: finds the site's topics, follows runs, and says how the connection fares. One thread owns it.

    ``also`` are further topics (``beam.transmit.`` is the site's, ``/replay.`` nobody's), whose documents ``heard`` is given, like all others.
    """

    def __init__(
        self,
        scene: Scene,
        site: str | None = None,
        control: str | None = None,
        *,
        silence: Silence | None = None,
        patience: Patience | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        answers: Callable[[str], bool | None] | None = None,
        keys: Keys | None = None,
        also: Sequence[str] = (),
        heard: Callable[[Message], None] = lambda message: None,
    ) -> None:
        self._keys, self._also, self._heard = keys, also, heard
        self.scene, self.lock, self.clock = scene, threading.Lock(), clock
        self._asked, self._control = site, control
        self._silence = Silence(late_s=2.5, gone_s=6.0) if silence is None else silence
        self._patience = Patience(warn_s=60.0, give_up_s=1.5) if patience is None else patience
        self._answers = port_answers if answers is None else answers
        self._probed_ns, self._tries = clock(), 0
        self._past: Counter[str] = Counter()  # lost by subscribers before this one
        self._told = ""  # the last complaint about sites
        self._site = site
        self._sub = self._listen()

    def hear(self, timeout_s: float) -> bool:
        """Take in what comes in ``timeout_s``, at most one document; return whether it completed a subframe."""
        message = self._sub.receive(timeout_s)
        with self.lock:
            done = message is not None and self.scene.take(message, self.clock())
            if message is not None:
                self._heard(message)
            self.scene.turn(self._sub.condition, self._past + self._sub.lost, self._sub.garbage)
        if message is not None:
            self._look_about(message)
            self.scene.answers = None
        elif self.scene.condition in ("late", "gone") and self.clock() - self._probed_ns > 1e9:
            self._probed_ns = self.clock()
            self.scene.answers = self._answers(self.scene.endpoint)
        return done

    def close(self) -> None:
        """Let go of the connection; a second call does nothing."""
        self._sub.close()

    def _listen(self) -> Subscriber:
        site = self._site
        own = ("plan.", "belief.", "kpi.", *(topic for topic in self._also if not topic.startswith("/")))
        topics = (ASIDE, *(topic[1:] for topic in self._also if topic.startswith("/")))
        if site is not None:
            topics += tuple(f"{site}.{topic}" for topic in own)
        return Subscriber(
            self.scene.endpoint,
            topics,
            control=self._control,
            keys=self._keys,
            silence=self._silence,
            patience=self._patience,
            follow=True,
            notice=lambda text: None,  # the scene tells what happens in its own words
            clock=self.clock,
        )

    def _look_about(self, message: Message) -> None:
        """Tune to the sites there are; join again if joining failed when the twin was too busy to answer."""
        sites: list[str] = []
        if message.kind == "start":
            sites = sorted(message.data["about"].get("sites") or [])
        elif message.kind == "heartbeat":
            sites = sorted(topic[: -len(".kpi.")] for topic in message.data["streams"] if topic.endswith(".kpi."))
        if sites and self._site not in sites:
            if self._asked is not None:
                said = f"no site {self._asked!r} here; there {'is' if len(sites) == 1 else 'are'} {', '.join(sites)}"
                if said != self._told:
                    self._told = said
                    self._say(said)
            else:
                self._anew(sites[0])
        elif message.kind == "heartbeat" and not self._sub.joined and self._tries < TRIES:
            self._tries += 1
            self._anew(self._site)
            if self._tries == TRIES:
                self._say(
                    f"{self._sub.control} answers nothing: names are unknown (over ssh, forward that port as well)"
                )

    def _say(self, text: str) -> None:
        with self.lock:
            self.scene.say(text, "bad")

    def _anew(self, site: str | None) -> None:
        self._past += self._sub.lost
        self._sub.close()
        self._site = site
        self._sub = self._listen()


def port_answers(endpoint: str) -> bool | None:
    """Whether a tcp endpoint takes connections now; None for other transports."""
    transport, _, address = endpoint.partition("://")
    host, _, port = address.rpartition(":")
    if transport != "tcp" or not port.isdigit():
        return None
    try:
        with sockets.create_connection((host, int(port)), timeout=0.3):
            return True
    except OSError:
        return False


def lines(ear: Ear, out: IO[str], wait_s: float, one: bool) -> int:
    """One JSON line a subframe to ``out`` until the run ends; 1 if no twin is heard in ``wait_s``."""
    began, heard = ear.clock(), False
    while True:
        if ear.hear(0.25):
            heard = True
            json.dump(ear.scene.line(), out, separators=(",", ":"))
            out.write("\n")
            out.flush()
            if one:
                return 0
        elif ear.scene.condition == "stopped" and ear.scene.reason is not None:
            return 0 if heard else 1
        elif not heard and ear.clock() - began > wait_s * 1e9:
            return nobody(ear.scene, wait_s)


def once(ear: Ear, console: Any, wait_s: float, plain: bool, listen_s: float = 1.0) -> int:
    """One screen of what ``listen_s`` of listening told; 1 if no twin is heard in ``wait_s``."""
    from twin.screen import screen

    began, first = ear.clock(), None
    while first is None or ear.clock() - first < listen_s * 1e9:
        if ear.hear(0.1) and first is None:
            first = ear.clock()
        elif ear.scene.condition == "stopped" and ear.scene.reason is not None:
            break
        elif first is None and ear.clock() - began > wait_s * 1e9:
            return nobody(ear.scene, wait_s)
    if ear.scene.kpi is None:
        return nobody(ear.scene, wait_s)
    for line in screen(ear.scene, console.width, 10_000, ear.clock(), plain):
        console.print(line, soft_wrap=True)
    return 0


def nobody(scene: Scene, wait_s: float) -> int:
    """Say on standard error that there is no twin to be heard."""
    what = f"run {scene.run} has no key figures" if scene.run else f"no twin heard in {wait_s:g} s"
    print(
        f"twin watch: {scene.endpoint}: {what}; a twin publishes with `twin run FILE --state {scene.endpoint}`",
        file=sys.stderr,
    )
    return 1


def live(ear: Ear, console: Any, refresh_hz: float, plain: bool) -> int:
    """Draw at most ``refresh_hz`` screens a second until q or Ctrl-C; listening goes on beside it and never waits for the terminal."""
    from rich.console import Group
    from rich.live import Live

    from twin.screen import screen

    over, failed = threading.Event(), list[str]()
    logging.getLogger("hal").addHandler(logging.NullHandler())  # its words would land in the middle of the screen

    def listen() -> None:
        try:
            while not over.is_set():
                ear.hear(0.1)
        except (RemoteFault, LateArrival, Misuse) as error:
            failed.append(str(error))

    listener = threading.Thread(target=listen, name="twin watch", daemon=True)
    listener.start()
    shown: Any = None
    try:
        with keyboard() as pressed, Live(console=console, screen=True, auto_refresh=False) as display:
            while not failed:
                width, height = console.size
                with ear.lock:
                    drawn = screen(ear.scene, width, height, ear.clock(), plain)
                if (width, height, drawn) != shown:
                    shown = (width, height, drawn)
                    display.update(Group(*drawn), refresh=True)
                if pressed(1 / refresh_hz):
                    break
    except KeyboardInterrupt:
        pass
    over.set()
    listener.join(5.0)
    if failed:
        print(f"twin watch: {failed[0]}", file=sys.stderr)
        return 1
    lost = sum(ear.scene.lost.values())
    print(f"watched {ear.scene.endpoint}: {ear.scene.subframes} subframes heard, {lost} documents lost")
    return 0


@contextlib.contextmanager
def keyboard() -> Iterator[Callable[[float], bool]]:
    """Keys one by one without echo while it lasts; yields ``pressed(timeout_s)``: whether it was time to leave."""

    def ended(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, ended)
    try:
        if not sys.stdin.isatty():
            yield lambda timeout_s: threading.Event().wait(timeout_s)  # nobody to press a key
            return
        import termios

        descriptor = sys.stdin.fileno()
        saved = termios.tcgetattr(descriptor)
        cooked = termios.tcgetattr(descriptor)
        cooked[3] &= ~(termios.ICANON | termios.ECHO)
        cooked[6][termios.VSUSP] = b"\0"  # stopping here would leave the terminal in our screen
        termios.tcsetattr(descriptor, termios.TCSADRAIN, cooked)

        def pressed(timeout_s: float) -> bool:
            until = time.monotonic() + timeout_s
            while (left := until - time.monotonic()) > 0:
                if not select.select([descriptor], [], [], left)[0]:
                    return False
                keys = os.read(descriptor, 64)
                if not keys or keys.lower()[:1] in (b"q", b"\x04"):
                    return True
            return False

        try:
            yield pressed
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, saved)
    finally:
        signal.signal(signal.SIGTERM, before)
