"""``twin dash``: a running or replayed twin in a browser; a plain listener in a process of its own, which costs the loop nothing."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from hal.errors import Misuse, RemoteFault
from twin.keys import given_keys, key_arguments

__all__ = ["arguments", "run"]

STATE = "tcp://127.0.0.1:5570"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``twin dash`` takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Show a twin in a browser: the street with tracks and beams in three dimensions, gain over angle and frequency,\n"
        "delay and Doppler, time courses beside their bounds, and what happens. Given a run directory instead of an\n"
        "endpoint it replays that run, with a slider to go back and forth. Needs the extra: pip install 'isac-twin[dash]'."
    )
    parser.epilog = (
        "Examples:\n"
        f"  twin run scenarios/street.yaml --pace 1 --state {STATE} &\n"
        "  twin dash                                    watch it on http://127.0.0.1:8570\n"
        "  twin dash runs/street-001                    look back at a run\n"
        "  ssh -L 8570:localhost:8570 HOST              a dashboard on another computer: run this, open the page here"
    )
    parser.add_argument(
        "endpoint",
        nargs="?",
        default=STATE,
        metavar="ENDPOINT|RUN",
        help="the twin's state endpoint, or a run directory (default %(default)s)",
    )
    parser.add_argument("--control", metavar="ENDPOINT", help="its control endpoint (default: the port after state's)")
    parser.add_argument("--site", help="which base station, where there are several (default: the first by name)")
    key_arguments(parser)
    parser.add_argument("--port", type=int, default=8570, help="of the page (default %(default)s)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address the page is served on (default %(default)s: this computer only; the page has no password)",
    )


def run(given: argparse.Namespace) -> int:
    """``twin dash``; serves the page until Ctrl-C."""
    try:
        import nicegui  # noqa: F401
    except ImportError:
        raise Misuse("the dashboard needs NiceGUI, which is not installed: pip install 'isac-twin[dash]'") from None
    if not 1 <= given.port <= 65535:
        raise Misuse(f"--port {given.port}: must be 1 .. 65535")
    from twin.dash.feed import Feed
    from twin.dash.page import serve

    replay = replayed(given.endpoint)
    endpoint = given.endpoint if replay is None else replay[1]
    feed = Feed(endpoint, given.control, site=given.site, keys=given_keys(given))
    try:
        serve(feed, given.host, given.port)
    finally:
        feed.close()
        if replay is not None:
            replay[0].terminate()
            replay[0].wait(5.0)
    return 0


def replayed(where: str) -> tuple[subprocess.Popen[str], str] | None:
    """For a run directory (or a recording) a replay of it in a process of its own, and where it publishes; None for an endpoint."""
    if "://" in where:
        return None
    from twin.reel import recording_of

    recording_of(Path(where))
    command = [sys.executable, "-m", "twin.replay", where, "--hold", "--state", "tcp://127.0.0.1:0"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = child.stdout.readline()
    if " on tcp://" not in said:
        child.terminate()
        raise RemoteFault(f"{where}: its replay did not start; `twin replay {where}` says why")
    return child, said.split(" on ")[1].split(";")[0].strip()
