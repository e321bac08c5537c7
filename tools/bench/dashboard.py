"""What an open dashboard costs: ``python -m tools.bench.dashboard`` plays pairs of runs, one of each looked at through ``twin dash``.

The page's frames are taken by a listener without a browser, which asks for the next as soon as it has one, so nothing but the dashboard's own
server is beside the loop; ``--browser PATH`` opens the page in a headless Chromium with software rendering instead. Printed are lag and CPU time
of the subframes with and without (medians over pairs, and over pairs of their differences), how many frames a second were drawn, and what share of
a core the dashboard's server took.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

DASH = "import argparse, sys; from twin import dash; p = argparse.ArgumentParser(); dash.arguments(p); sys.exit(dash.run(p.parse_args()))"


def free_port() -> int:
    """A port nobody uses, and neither the one after it."""
    while True:
        with closing(socket.socket()) as one, closing(socket.socket()) as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                other.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return int(port)


def viewed(port: int, frames: list[float], over: threading.Event) -> None:
    """Take frames as a page does."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    with contextlib.suppress(ConnectionClosed), connect(f"ws://127.0.0.1:{port}/frames", max_size=None) as page:
        while not over.is_set():
            page.recv()
            frames.append(time.monotonic())
            page.send("next")


def drawn(browser: str, port: int, frames: list[float], over: threading.Event) -> None:
    """Look at the page in a browser; note when each frame of a live run was drawn, to a tenth of a second."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        software = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        page = play.chromium.launch(executable_path=browser, args=software).new_page(
            viewport={"width": 1366, "height": 768}
        )
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_function("window.twinDash")
        seen = 0
        while not over.is_set():
            page.wait_for_timeout(100)
            count, live = page.evaluate(
                "(({ frames, frame }) => [frames, frame?.condition === 'live'])(twinDash.drawn())"
            )
            frames += [time.monotonic()] * ((count - seen) * live)
            seen = count


def cpu_s(process: int) -> float:
    """CPU time of a process so far (Linux)."""
    words = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / 100


def played(given: argparse.Namespace, port: int) -> dict[str, float]:
    """One run, published on ``port``: its lag and CPU time in microseconds."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            sys.executable,
            "-m",
            "twin",
            "run",
            given.file,
            "--duration",
            given.duration,
            "--pace",
            given.pace,
            "--json",
            "--no-report",
        ]
        words += ["--state", f"tcp://127.0.0.1:{port}", "--out", f"{folder}/run"]
        done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=True)
    clock = json.loads(done.stdout)["clock"]
    return {
        "lag p50": clock["lag"]["p50_us"],
        "lag p99": clock["lag"]["p99_us"],
        "CPU p50": clock["subframe"]["cpu_p50_us"],
        "CPU mean": clock["subframe"]["cpu_mean_us"],
        "publish CPU p50": clock["stages"]["publish"]["cpu_p50_us"],
        "publish CPU mean": clock["stages"]["publish"]["cpu_mean_us"],
    }


def main() -> int:
    """Play the pairs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", default="scenarios/street.yaml")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--duration", type=float, default=1.0)
    parser.add_argument("--pace", type=float, default=0.05, help="so slow that the loop keeps it (default %(default)g)")
    parser.add_argument("--browser", metavar="PATH", help="look through this Chromium, without a screen")
    given = parser.parse_args()
    quiet, seen, page = free_port(), free_port(), free_port()
    dash = subprocess.Popen(
        [sys.executable, "-c", DASH, f"tcp://127.0.0.1:{seen}", "--port", str(page)], stdout=subprocess.PIPE, text=True
    )
    assert dash.stdout is not None
    dash.stdout.readline()
    frames: list[float] = []
    over = threading.Event()
    look = (drawn, (given.browser, page, frames, over)) if given.browser else (viewed, (page, frames, over))
    viewer = threading.Thread(target=look[0], args=look[1], daemon=True)
    viewer.start()
    pairs: list[tuple[dict[str, float], dict[str, float]]] = []
    busy = wall = 0.0
    hz: list[float] = []
    try:
        for i in range(given.pairs):
            both: dict[bool, dict[str, float]] = {}
            for looked_at in (bool(i % 2), not i % 2):
                before, began, had = cpu_s(dash.pid), time.monotonic(), len(frames)
                both[looked_at] = played(given, seen if looked_at else quiet)
                if looked_at:
                    busy, wall = busy + cpu_s(dash.pid) - before, wall + time.monotonic() - began
                    own = frames[had:]
                    hz.append((len(own) - 1) / (own[-1] - own[0]) if len(own) > 1 else 0.0)
            pairs.append((both[False], both[True]))
            print(f"pair {i + 1} of {given.pairs}", file=sys.stderr)
    finally:
        over.set()
        viewer.join(10)
        dash.terminate()
        dash.wait(10)
    print(f"{given.file}, {given.duration:g} s at {given.pace:g} x real time, {given.pairs} pairs; microseconds")
    print(f"{'':18}{'nobody looks':>14}{'dashboard':>12}{'difference':>12}{'least':>10}{'most':>10}")
    for name in pairs[0][0]:
        without, through = ([pair[i][name] for pair in pairs] for i in (0, 1))
        more = [b - a for a, b in zip(without, through, strict=True)]
        cells = (statistics.median(without), statistics.median(through), statistics.median(more), min(more), max(more))
        print(f"{name:18}{cells[0]:14.0f}{cells[1]:12.0f}{cells[2]:12.0f}{cells[3]:10.0f}{cells[4]:10.0f}")
    print(
        f"dashboard: {100 * busy / wall:.1f} % of a core, {statistics.median(hz):.1f} frames a second while a run is live"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
