"""The picture in the README: the dashboard, live on the street: ``python -m tools.figures.dashboard [--browser PATH] [--out FILE]``.

Needs the extra ``dash``, Playwright for Python and a Chromium. The street is played slowly enough that a computer without graphics draws every frame.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.bench.dashboard import DASH, free_port

OUT = Path("docs/img/dashboard.png")


def shot(browser: str, out: Path, at_s: float, wide: int, high: int) -> None:
    """Play the street, look at it through a browser, and keep the page as it is when the run has come to ``at_s``."""
    from playwright.sync_api import sync_playwright

    state, port = free_port(), free_port()
    dash = subprocess.Popen(
        [sys.executable, "-c", DASH, f"tcp://127.0.0.1:{state}", "--port", str(port)], stdout=subprocess.PIPE, text=True
    )
    assert dash.stdout is not None
    dash.stdout.readline()
    words = "run scenarios/street.yaml --pace 0.05 --no-report --state".split()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        run = subprocess.Popen(
            [sys.executable, "-m", "twin", *words, f"tcp://127.0.0.1:{state}", "--out", f"{folder}/run"],
            stdout=subprocess.DEVNULL,
        )
        try:
            software = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
            chromium = play.chromium.launch(executable_path=browser, args=software)
            page = chromium.new_page(viewport={"width": wide, "height": high})
            page.goto(f"http://127.0.0.1:{port}/")
            page.wait_for_function("window.twinDash", timeout=120_000)
            page.wait_for_function(f"(twinDash.drawn().frame?.t ?? 0) >= {at_s}", timeout=600_000, polling=50)
            page.screenshot(path=out)
            chromium.close()
        finally:
            for program in (run, dash):
                program.terminate()
                program.wait(20)
            dash.stdout.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.figures.dashboard", description=__doc__)
    parser.add_argument(
        "--browser", default="/usr/bin/chromium", metavar="PATH", help="a Chromium (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="default: %(default)s")
    parser.add_argument("--at", type=float, default=2.0, metavar="SECONDS", help="of the run (default %(default)g)")
    given = parser.parse_args()
    shot(given.browser, given.out, given.at, 1400, 820)
    print(f"{given.out}: {given.out.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
