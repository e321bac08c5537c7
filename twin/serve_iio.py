"""``twin serve iio``: a scenario's front end as an IIO context, for laboratory software that knows ADAR1000 boards."""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path
from types import FrameType

__all__ = ["arguments", "run"]

ENDPOINT = "tcp://127.0.0.1:30431"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``twin serve iio`` takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Offer a scenario's arrays as ADAR1000 chips and its receiver as an IIO buffer, in the protocol of libiio 0.24. The scene\n"
        "moves with the wall clock. iio_info, pylibiio, adi.adar1000_array and GNU Radio's IIO source use it unchanged (docs/iio.md)."
    )
    parser.epilog = (
        "Example:\n"
        "  twin serve iio scenarios/phaser.yaml &\n"
        "  iio_attr -u ip:127.0.0.1 -D -d twin-scene truth\n"
        "  python -m tools.examples.phaser_sweep"
    )
    parser.add_argument("file", type=Path, help="the scenario")
    parser.add_argument("--endpoint", default=ENDPOINT, help="where to listen (default %(default)s; port 0 picks one)")
    parser.add_argument(
        "--hold",
        type=float,
        metavar="SECONDS",
        help="the scene stands still at this time (twin-scene's hold lets it go)",
    )
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", dest="sets")


def run(given: argparse.Namespace) -> int:
    """Serve until an interrupt or a polite kill."""
    from hal.errors import Misuse
    from twin.commands import pair
    from twin.iio.face import Face, Scene
    from twin.iio.server import Server
    from twin.scenario import load

    hold_ns = None if given.hold is None else round(given.hold * 1e9)
    if hold_ns is not None and not hold_ns >= 0:
        raise Misuse(f"--hold {given.hold:g}: must be >= 0 seconds of the scene's time")
    scene = Scene(load(given.file, dict(pair(text) for text in given.sets)), hold_ns)
    over = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        over.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    try:
        face = Face(scene)
        face.warm()
        server = Server(face.context(), given.endpoint)
        server.start()
        chips = {name: len(face.chips[name]) for name in face.chips}
        print(
            f"serving {scene.spec.name} on {server.endpoint}: {chips['receive']} chips receive, {chips['transmit']} transmit",
            flush=True,
        )
        over.wait()
        server.stop()
    finally:
        scene.close()
    return 0
