"""The dashboard in a real browser: what is drawn is what is published, and it says so when nothing is."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("nicegui")
playwright = pytest.importorskip("playwright.sync_api")

from hal import wire  # noqa: E402
from hal.frontend import BeamReport  # noqa: E402
from twin.build import run  # noqa: E402
from twin.dash.look import Lobes  # noqa: E402
from twin.patterns import gain_db  # noqa: E402
from twin.record import read  # noqa: E402
from twin.reel import Reel  # noqa: E402
from twin.scenario import frontend_spec, load  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SMOKE = Path(__file__).parents[3] / "scenarios" / "smoke.yaml"
LONG_MS = 60_000  # a browser on a busy machine
DASH = "import argparse, sys; from twin import dash; p = argparse.ArgumentParser(); dash.arguments(p); sys.exit(dash.run(p.parse_args()))"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    given = {"duration_s": 0.2, "record.echoes": True, "record.beams_ms": 0}
    return run(SMOKE, given, out=tmp_path_factory.mktemp("dash") / "run")


@contextmanager
def spoken(*words, until):
    """A process, and what it said on the line that ``until`` is found in."""
    env = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST")
    }  # NiceGUI behaves otherwise under pytest
    command = [sys.executable, *map(str, words)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**env, "PYTHONUNBUFFERED": "1"})
    try:
        assert child.stdout is not None
        for line in child.stdout:
            if until in line:
                yield SimpleNamespace(line=line, child=child)
                return
        raise AssertionError(f"{words}: ended without a word of {until!r}")
    finally:
        child.kill()
        child.wait(30)
        child.stdout.close()


def free_port():
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def replaying(done, state="tcp://127.0.0.1:0", *more):
    return spoken("-m", "twin.replay", done.path, "--state", state, *more, until=" on tcp://")


@pytest.fixture(scope="module")
def shown(done):
    """The page in a browser, over a replay that loops slowly; ``stack`` holds what a test may end before."""
    with ExitStack() as stack:
        replay = stack.enter_context(replaying(done, "tcp://127.0.0.1:0", "--loop", "--speed", "0.1"))
        endpoint = re.search(r" on (tcp://\S+);", replay.line)[1]
        port = free_port()
        dash = stack.enter_context(spoken("-c", DASH, endpoint, "--port", port, until="dashboard of"))
        browser = stack.enter_context(playwright.sync_playwright()).chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        )
        stack.callback(browser.close)
        page = browser.new_page(viewport={"width": 1366, "height": 768}, color_scheme="light")
        page.set_default_timeout(LONG_MS)
        said, asked = [], set()
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.add(request.url.split("/")[2]))
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_function("window.twinDash && twinDash.drawn().frames > 3 && twinDash.drawn().frame.squint")
        yield SimpleNamespace(
            page=page, said=said, asked=asked, replay=replay, endpoint=endpoint, port=port, dash=dash, stack=stack
        )


def drawn(shown):
    return shown.page.evaluate("twinDash.drawn()")


def at_rest(shown, k):
    """The replay paused at a subframe, and what is drawn then."""
    page = shown.page
    if page.locator("#twin-badge").inner_text() == "REPLAY":
        page.locator(".twin-head button").first.click()
        page.wait_for_function("document.getElementById('twin-badge').textContent === 'PAUSED'")
    page.evaluate("t => { twinDash.view.$emit('seek', t) }", k * 5_000_000)
    page.wait_for_function("k => twinDash.drawn().frame.k === k", arg=k)
    return drawn(shown)


def test_nothing_is_fetched_from_elsewhere_and_nothing_complains(shown):
    assert shown.asked == {f"127.0.0.1:{shown.port}"}
    assert not [text for text in shown.said if "GPU stall" not in text and "GL Driver" not in text]


def test_movers_stand_where_the_truth_has_them(done, shown):
    truth = {t_ns: document for topic, t_ns, document in read(done.path / "recording.mcap", "truth.")}
    for k in (8, 30):
        now, there = truth[k * 5_000_000], at_rest(shown, k)
        names = dict(zip(done.entity, done.kpi.entity[0].tolist(), strict=True))
        assert set(there["movers"]) == set(done.entity)
        for name, at in there["movers"].items():
            row = now["entity"].tolist().index(names[name])
            np.testing.assert_allclose(at[:2], now["position_m"][row][:2], atol=2e-3)


def test_tracks_are_drawn_with_their_covariance(done, shown):
    there = at_rest(shown, 35)
    beliefs = {t_ns: document for topic, t_ns, document in read(done.path / "recording.mcap", "bs0.belief.")}
    tracks = beliefs[35 * 5_000_000]["tracks"]
    assert set(map(int, there["tracks"])) == set(tracks["track"].tolist())
    assert len(tracks["track"])
    for row, name in enumerate(tracks["track"].tolist()):
        one = there["tracks"][str(name)]
        np.testing.assert_allclose(one["at"], tracks["state"][row, :3], atol=2e-3)
        axes = np.array(one["axes"]).reshape(4, 4)[:3, :3].T
        np.testing.assert_allclose(axes @ axes.T, 9 * tracks["covariance"][row, :3, :3], atol=2e-2)


def test_a_lobe_points_where_the_beam_in_force_points_and_moves_with_it(done, shown):
    """Each lobe's tip against the peak of the beam last read back in that slot, at two times; and pixels change."""
    spec, reel = frontend_spec(load(SMOKE), "bs0"), Reel(done.path)
    optics, tips, pictures = Lobes(spec), [], []
    street = shown.page.locator(".twin .street")
    for k in (10, 39):
        there = at_rest(shown, k)
        seen = {
            row.t_ns: wire.decode(row.data, BeamReport)
            for topic in ("bs0.memory.transmit.", "bs0.beam.transmit.")
            for row in reel.rows(topic)
        }
        data = {slot: one for slot, one in there["lobes"].items() if one["kind"] == "data"}
        assert data
        for slot, one in data.items():
            report = [r for t_ns, r in sorted(seen.items()) if t_ns <= k * 5_000_000 and int(slot) in r.readback.slot][
                -1
            ]
            row = report.readback.slot.tolist().index(int(slot))
            beam = type(report.readback)(
                half="transmit",
                slot=report.readback.slot[row : row + 1],
                **{
                    name: getattr(report.readback, name)[row : row + 1]
                    for name in ("delay_s", "phase_rad", "amplitude")
                },
            )
            peak = optics.lobe(int(slot), beam, False).peak
            towards = spec.transmit.array.rotation.T @ (np.array(one["tip"]) - spec.transmit.array.origin_m)
            assert towards @ peak / np.linalg.norm(towards) > np.cos(
                np.deg2rad(1.5)
            )  # heights come in 256 steps: a few points share the top
            # and it is a peak: no direction about it has more gain
            about = peak + np.random.default_rng(1).normal(scale=0.1, size=(50, 3))
            about /= np.linalg.norm(about, axis=1)[:, None]
            top = gain_db(spec, beam, peak[None], np.array([spec.carrier_hz]))[0, 0]
            assert (gain_db(spec, beam, about, np.array([spec.carrier_hz]))[:, 0] < top + 0.3).all()
        tips.append({slot: one["tip"] for slot, one in data.items()})
        pictures.append(street.screenshot())
    moved = [np.linalg.norm(np.subtract(tips[0][slot], tips[1][slot])) for slot in tips[0].keys() & tips[1].keys()]
    assert moved
    assert max(moved) > 0.5
    first, second = (pixels(png) for png in pictures)
    assert first.shape == second.shape
    assert (np.abs(first.astype(int) - second) > 40).any(axis=-1).sum() > 200


def pixels(png):
    from matplotlib.image import imread

    return (imread(io.BytesIO(png))[..., :3] * 255).astype(np.uint8)


def test_the_squint_panel_shows_the_user_that_is_chosen(shown):
    page, said = shown.page, set()
    at_rest(shown, 30)
    for name in ("near", "far"):
        page.locator(".twin .users tbody tr", has_text=name).click()
        page.wait_for_function(
            "name => twinDash.drawn().frame.squint?.name === name && document.querySelector('.squint h3').textContent.includes(name)",
            arg=name,
        )
        page.wait_for_function("() => twinDash.view.pictures.squintKey === twinDash.drawn().frame.squint.grid.data")
        said.add(page.evaluate("document.querySelector('.squint canvas').toDataURL()"))
        grid = pixels(page.locator(".twin .squint canvas").screenshot())
        assert len(np.unique(grid.reshape(-1, 3), axis=0)) > 60  # a picture, and not one colour
    assert len(said) == 2


def test_delay_and_doppler_of_recorded_echoes_are_drawn(shown):
    page = shown.page
    if page.locator("#twin-badge").inner_text() == "PAUSED":
        page.locator(".twin-head button").first.click()
    page.wait_for_function(
        "twinDash.drawn().frame.map?.grid && document.querySelector('.map h3').textContent.includes('Delay and Doppler of the dwell')"
    )
    grid = pixels(page.locator(".twin .map canvas").screenshot())
    assert len(np.unique(grid.reshape(-1, 3), axis=0)) > 100


def test_step_and_slider_move_the_time(shown):
    page = shown.page
    at_rest(shown, 12)
    page.locator(".twin-head button").nth(1).click()
    page.wait_for_function("twinDash.drawn().frame.k === 13")
    slider = page.locator(".twin .scrub input")
    slider.evaluate(
        "node => { node.value = 25 * 5e6; node.dispatchEvent(new Event('input')); node.dispatchEvent(new Event('change')); }"
    )
    page.wait_for_function(
        "twinDash.drawn().frame.k === 25 && document.getElementById('twin-time').textContent.includes('0.125 s')"
    )
    assert page.locator("#twin-badge").inner_text() == "PAUSED"


def test_dark_and_light_are_both_readable(shown):
    page, seen = shown.page, {}
    for name in ("dark", "light"):
        page.emulate_media(color_scheme=name)
        page.wait_for_function("dark => document.body.classList.contains('body--dark') === dark", arg=name == "dark")
        colours = page.evaluate(
            "[['.twin td', 'color'], ['.twin .users', 'backgroundColor']].map(([where, what]) => getComputedStyle(document.querySelector(where))[what])"
        )
        ink, paper = (np.array([int(n) for n in re.findall(r"\d+", colour)[:3]]) / 255 for colour in colours)
        luminance = [
            np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
            for c in (ink, paper)
        ]
        assert (max(luminance) + 0.05) / (min(luminance) + 0.05) > 7  # WCAG AAA
        seen[name] = colours
    assert seen["dark"] != seen["light"]


def test_it_fits_a_laptop_without_scrolling_and_a_phone_in_width(shown):
    page = shown.page
    for width, height in ((1366, 768), (1280, 720), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        tall = height if width > 900 else 10_000
        page.wait_for_function(
            "most => document.documentElement.scrollWidth <= most[0] && document.documentElement.scrollHeight <= most[1]",
            arg=[width, tall],
        )
    page.set_viewport_size({"width": 1366, "height": 768})


def test_another_site_s_page_gets_no_frames(shown):
    head = "GET /frames HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    answers = {}
    for origin in (f"http://127.0.0.1:{shown.port}", "http://elsewhere.example"):
        with closing(socket.create_connection(("127.0.0.1", shown.port), timeout=30)) as line:
            key = f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nOrigin: {origin}\r\n\r\n"
            line.sendall((head.format(port=shown.port) + key).encode())
            answers[origin] = line.recv(64).split(b"\r\n")[0]
    assert [answer[:12] for answer in answers.values()] == [b"HTTP/1.1 101", b"HTTP/1.1 403"]


def test_it_says_that_the_twin_is_gone_and_that_it_is_back(done, shown):
    """Last of all: the replay is killed without a word, and another one comes to the same place."""
    page = shown.page
    shown.replay.child.kill()
    shown.replay.child.wait(30)
    page.wait_for_function("document.querySelector('.banner')?.textContent.includes('The twin is gone')")
    words = page.locator(".twin .banner").inner_text()
    assert f"nobody listens at {shown.endpoint}" in words
    assert "what you see is old" in words
    assert page.locator("#twin-badge").inner_text() == "GONE"
    with replaying(done, shown.endpoint, "--loop", "--speed", "0.1"):
        page.wait_for_function("twinDash.drawn().frame.condition === 'live' && !document.querySelector('.banner')")
