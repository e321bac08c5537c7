"""Watching: what is heard is what was published, drawn at any size; a twin that goes and comes back; a terminal left as it was."""

import argparse
import io
import json
import os
import pty
import queue
import select
import signal
import sys
import termios
import threading
from collections import Counter
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from hal import wire
from hal.errors import Misuse
from hal.session import Patience
from twin import watch
from twin.bus import ZmqBus
from twin.client import Message, Silence, plain
from twin.kpi import Kpi
from twin.record import rows
from twin.records import Belief, Plan, Truth
from twin.scene import FIGURES, Scene
from twin.screen import screen, sparkline

KINDS = {kind.__name__: kind for kind in (Truth, Plan, Belief, Kpi)}
SMOKE = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"
ABOUT = {"title": "smoke", "movers": {}}  # filled in by the run
SECOND = 1_000_000_000


@pytest.fixture(scope="session")
def said(tmp_path_factory):
    """What a short run says: one list of (topic, t_ns, record) a subframe, key figures last."""
    from twin.build import run

    out = tmp_path_factory.mktemp("watched") / "run"
    done = run(SMOKE, out=out)
    ABOUT["movers"] |= {str(e): name for e, name in zip(done.kpi.entity[0], done.entity, strict=True)}
    subframes, now = [], []
    for row in rows(out / "recording.mcap"):
        if row.record in KINDS:
            now.append((row.topic, row.t_ns, wire.decode(row.data, KINDS[row.record])))
        if row.record == "Kpi":
            subframes.append(now)
            now = []
    assert len(subframes) == 20
    return subframes


def kpis(subframes):
    return [records[-1][2] for records in subframes]


class Twin(threading.Thread):
    """A bus that is serviced all the time on a thread of its own."""

    def __init__(self, run="r1", state="tcp://127.0.0.1:0", about=ABOUT, site="bs0"):
        super().__init__(daemon=True)
        self.tasks, self.site = queue.Queue(), site
        self.bus = ZmqBus(run, state, about=about, heartbeat_s=0.02)
        self.state = self.bus.state
        self.start()

    def run(self):
        while True:
            try:
                task, answer = self.tasks.get(timeout=0.0005)
                if task is None:
                    return
                answer.put(task(self.bus))
            except queue.Empty:
                pass
            self.bus.service()

    def play(self, subframes):
        def say(bus):
            for records in subframes:
                for topic, t_ns, record in records:
                    bus.publish(topic.replace("bs0.", f"{self.site}."), record, t_ns)

        answer = queue.Queue()
        self.tasks.put((say, answer))
        answer.get(timeout=10)

    def end(self, reason="finished", say=True):
        self.tasks.put((None, None))
        self.join(10)
        if say:
            self.bus.close(reason)
        else:
            self.bus._release(linger_ms=0)


@pytest.fixture
def twins():
    made = []

    def make(*given, **options):
        made.append(Twin(*given, **options))
        return made[-1]

    yield make
    for twin in made:
        if twin.is_alive():
            twin.end()


class Clock:
    """Stands still unless told, or goes on by a step with every look at it."""

    def __init__(self, step_ns=0):
        self.ns, self.step_ns = 10**12, step_ns

    def __call__(self):
        self.ns += self.step_ns
        return self.ns


@pytest.fixture
def ears():
    made = []

    def make(endpoint, *given, **options):
        options.setdefault("patience", Patience(5.0, 5.0))
        made.append(watch.Ear(Scene(endpoint), *given, **options))
        return made[-1]

    yield make
    for ear in made:
        ear.close()


def until(ear, enough, timeout_s=0.02, tick=None):
    for _ in range(2000):
        ear.hear(timeout_s)
        if enough(ear.scene):
            return ear.scene
        if tick is not None:
            tick()
    raise AssertionError(f"never: {ear.scene.condition}, run {ear.scene.run!r}, {ear.scene.notes}")


def told(subframes, about=ABOUT, run="r1", step_ns=SECOND // 10, clock_ns=10**12):
    """A scene that was told of the subframes without any network."""
    scene = Scene("tcp://127.0.0.1:5570")
    scene.take(Message("run.", "start", run, 0, 0, {"about": about, "control": ""}), clock_ns)
    for n, records in enumerate(subframes):
        for topic, t_ns, record in records:
            scene.take(event(topic, t_ns, record, run), clock_ns + n * step_ns)
    scene.turn("live", Counter(), 0)
    return scene


def event(topic, t_ns, record, run="r1"):
    import msgspec

    return Message(topic, "event", run, 1, t_ns, plain(msgspec.msgpack.decode(wire.encode(record))))


def text(scene, width=80, height=24, now_ns=None, ascii=False):
    console = Console(width=width, height=height, record=True, file=io.StringIO())
    lines = screen(scene, width, height, scene.heard_ns if now_ns is None else now_ns, ascii)
    for line in lines:
        console.print(line)
    out = console.export_text()
    assert out.count("\n") == len(lines) <= height, "a line was wrapped"
    return out


def test_the_default_endpoint_is_the_buss_own():
    assert signature(ZmqBus).parameters["state"].default == watch.STATE


def test_what_was_published_is_what_is_known(twins, ears, said):
    twin = twins()
    twin.play(said[:1])
    ear = ears(twin.state)
    scene = until(ear, lambda s: s.kpi is not None)  # found the site by itself
    assert (scene.site, scene.run, scene.title, scene.condition) == ("bs0", "r1", "smoke", "live")
    twin.play(said[1:])
    until(ear, lambda s: s.kpi["k"] == 19)
    last = kpis(said)[-1]
    line = json.loads(json.dumps(scene.line()))
    assert [line["users"][name]["snr_db"] for name in ("near", "far")] == pytest.approx(last.snr_db, nan_ok=True)
    assert line["k"] == 19
    assert line["t_s"] == 0.095
    np.testing.assert_allclose(line["movers"]["van"]["position_m"], [40, 20, 1.5])
    assert scene.subframes >= 20
    assert sum(scene.lost.values()) == 0


def test_nothing_but_what_is_shown_is_asked_of_the_twin(twins, ears, said):
    twin = twins()
    twin.play(said[:2])
    ear = ears(twin.state)
    until(ear, lambda s: s.kpi is not None)
    wanted = queue.Queue()
    twin.tasks.put((lambda bus: [bus.wanted(t) for t in ("bs0.beam.transmit.", "flat.bs0.kpi.", "bs0.kpi.")], wanted))
    assert wanted.get(timeout=10) == [False, False, True]


def test_the_screen_shows_the_means_of_the_last_moments(said):
    scene = told(said)
    figures = kpis(said)
    near, far = np.nanmean([kpi.rate_bps for kpi in figures], axis=0) * 1e-9  # 0.1 s is less than the 0.25 s shown
    shown = text(scene)
    row = next(line for line in shown.splitlines() if line.startswith("a near"))
    assert row.split()[2] == f"{near:.2f}"
    assert next(line for line in shown.splitlines() if line.startswith("b far")).split()[2] == f"{far:.2f}"
    assert "t 0.095 s  subframe 19" in shown
    assert "speed 0.05 x real time" in shown  # 5 ms in every 100 ms
    for name in ("van", "near", "far"):
        assert any(line.startswith(name) for line in shown.splitlines()), name
    assert "q quits" in shown


def test_errors_are_root_mean_squares_beside_the_bound_of_the_same_looks(said):
    error, bound, times = told(said).errors()
    e, b = (np.array([getattr(kpi, name) for kpi in kpis(said)]) for name in ("error", "bound"))
    seen = np.isfinite(e) & np.isfinite(b)
    assert times.tolist() == seen[..., 0].sum(axis=0).tolist()
    assert times.max() > 2
    for entity in np.flatnonzero(times):
        for p in range(4):
            mine = seen[:, entity, p]
            assert error[entity, p] == pytest.approx(np.sqrt(np.mean(e[mine, entity, p] ** 2)))
            assert bound[entity, p] == pytest.approx(np.sqrt(np.mean(b[mine, entity, p] ** 2)))


def test_counts_are_means_a_subframe(said):
    counts = told(said).counts()
    for name in FIGURES:
        value = np.array([getattr(kpi, name) for kpi in kpis(said)], float)
        expected = value[np.isfinite(value)].mean() if np.isfinite(value).any() else np.nan
        assert counts[name] == pytest.approx(expected, nan_ok=True), name


@given(heard=st.integers(1, 400), width=st.integers(1, 60), gaps=st.sets(st.integers(0, 399)))
@settings(max_examples=60)
def test_sparkline_bins_are_means_of_whole_stretches(said, heard, width, gaps):
    topic, _, kpi = said[0][-1]
    scene = Scene("tcp://127.0.0.1:1")
    kept = [k for k in range(heard) if k not in gaps] or [0]
    for k in kept:
        rate = np.array([k, np.nan])
        message = event(topic, k * 5_000_000, replace(kpi, k=k, t_ns=k * 5_000_000, rate_bps=rate))
        scene.take(message, k)
    found = scene.rates(width)
    k_last, first = kept[-1], kept[0]
    each = 1
    while each * width < k_last - first + 1:
        each *= 2
    bins = {}
    for k in kept:
        bins.setdefault(k // each, []).append(k)
    expected = [bins.get(b, [np.nan]) for b in range(first // each, k_last // each + 1)][-width:]
    assert len(found) <= width
    whole = slice(1, None) if len(found) == width else slice(None)  # the oldest may have lost its head
    np.testing.assert_allclose(found[whole, 0], [np.mean(one) for one in expected][whole])
    assert np.isnan(found[:, 1]).all()


def test_sparkline_has_a_bar_a_value_and_a_blank_for_none():
    assert sparkline([0, 1, 2, np.nan, 8], 8) == "▁▂▃ █"
    assert sparkline([0, np.nan, 8], 8, ascii=True) == "_ #"
    assert sparkline([0.0, 0.0], 0.0) == "▁▁"


@given(width=st.integers(10, 220), height=st.integers(2, 70), heard=st.integers(0, 20), ascii=st.booleans())
@settings(max_examples=80)
def test_every_size_is_kept_to(said, width, height, heard, ascii):
    scene = told(said[:heard])
    for condition in ("live", "late", "gone", "stopped", "waiting"):
        scene.condition = condition
        lines = screen(scene, width, height, scene.heard_ns + 5 * SECOND, ascii)
        assert len(lines) <= height
        assert all(line.cell_len <= width for line in lines)
        assert not ascii or all(line.plain.isascii() for line in lines)


def test_a_larger_screen_shows_more(said):
    scene = told(said)
    small, large = text(scene, 80, 24), text(scene, 160, 50)
    assert "speed mm/s (CRB)" in large
    assert "speed mm/s (CRB)" not in small
    assert "range mm (CRB)" in small
    assert "follows" in large  # the table of tracks
    assert "# sensing" in large  # the legend of blocks


def test_before_anything_is_heard_it_says_how_to_be_heard():
    shown = text(Scene("tcp://127.0.0.1:7001"))
    assert "NO TWIN YET" in shown
    assert "twin run scenarios/street.yaml --pace 1 --state tcp://127.0.0.1:7001" in shown


def test_gone_is_said_and_the_next_run_is_found(twins, ears, said):
    clock = Clock()
    first = twins()
    first.play(said[:3])
    answers = {True: True}
    ear = ears(first.state, clock=clock, silence=Silence(2.5, 6.0), answers=lambda endpoint: answers[True])
    scene = until(ear, lambda s: s.kpi is not None)
    first.end(say=False)  # killed
    until(ear, lambda s: ear._sub._socket.poll(0) == 0)  # its last words are in
    clock.ns += 3 * SECOND
    ear.hear(0)
    assert scene.condition == "late"
    assert "SILENT" in text(scene, now_ns=clock.ns)
    assert "no word for 3 s, but its port answers" in text(scene, now_ns=clock.ns)
    answers[True] = False
    clock.ns += 4 * SECOND
    ear.hear(0)
    assert scene.condition == "gone"
    shown = text(scene, now_ns=clock.ns)
    assert "GONE" in shown
    assert "no word for 7 s, and nobody listens there" in shown
    assert "a near" in shown  # the last heard stays
    second = twins("r2", first.state, site="roof")
    second.play(said[:5])
    until(ear, lambda s: s.run == "r2" and s.site == "roof" and s.kpi is not None)
    assert scene.condition == "live"
    notes = [note.text for note in scene.notes]
    assert "the twin is gone" in notes
    assert "a new run: r2" in notes
    assert "GONE" not in text(scene, now_ns=clock.ns)


def test_the_end_of_a_run_is_told_with_its_reason(twins, ears, said):
    twin = twins()
    twin.play(said[:3])
    ear = ears(twin.state)
    scene = until(ear, lambda s: s.kpi is not None)
    twin.end("RemoteFault: the device is gone")
    until(ear, lambda s: s.condition == "stopped")
    assert "the run ended: RemoteFault: the device is gone" in text(scene)


def test_another_site_than_asked_for_is_told(twins, ears, said):
    twin = twins(site="roof")
    twin.play(said[:1])
    ear = ears(twin.state, "mast")
    scene = until(ear, lambda s: len(s.notes) > 0)
    assert scene.notes[-1].text == "no site 'mast' here; there is roof"
    assert scene.kpi is None


def test_losses_are_noted_once_and_shown(said):
    scene = told(said)
    scene.turn("live", Counter({"bs0.kpi.": 3}), 0)
    scene.turn("live", Counter({"bs0.kpi.": 3}), 0)
    scene.turn("live", Counter({"bs0.kpi.": 4, "truth.": 1}), 0)
    assert [note.text for note in scene.notes][-2:] == [
        "3 documents lost on the way here: bs0.kpi.",
        "2 documents lost on the way here: bs0.kpi. truth.",
    ]
    assert "lost here 5" in text(scene)


def test_lag_counts_from_the_best_heard(said):
    """Paced by half: a subframe of 5 ms every 10 ms; then one comes 30 ms late."""
    scene = told(said[:6], {**ABOUT, "clock": {"mode": "paced", "factor": 0.5}}, step_ns=10_000_000)
    assert scene.lag_ns == 0
    late_ns = scene.heard_ns + 40_000_000
    for topic, t_ns, record in said[6]:
        scene.take(event(topic, t_ns, record), late_ns)
    assert scene.lag_ns == pytest.approx(30e6)
    assert "asked 0.5), lag 30 ms" in text(scene)
    assert told(said).lag_ns is None  # nobody knows what was asked


def belief_with(belief, kpi, tracks, k):
    """``tracks``: (track, user, confirmed, entity followed)."""
    n, given = len(tracks), {}
    for entry in fields(belief.tracks):
        value = getattr(belief.tracks, entry.name)
        if isinstance(value, np.ndarray):
            given[entry.name] = np.zeros((n, *value.shape[1:]), value.dtype)
    given["track"], given["user"] = (np.array([t[column] for t in tracks], int) for column in (0, 1))
    given["confirmed"] = np.array([t[2] for t in tracks], bool)
    given["state"] = np.full((n, 6), 1.0)
    now = replace(belief.tracks, t_ns=k * 5_000_000, **given)
    tracked = np.array([next((t[0] for t in tracks if t[3] == e and t[2]), -1) for e in kpi.entity.tolist()])
    return replace(belief, tracks=now), replace(kpi, k=k, t_ns=k * 5_000_000, tracked=tracked)


def test_what_happens_to_tracks_and_bindings_is_noted(said):
    near, far, van = kpis(said)[0].entity.tolist()
    story = [
        [(1, -1, False, near)],
        [(1, near, True, near), (2, -1, True, None)],
        [(1, near, True, near), (3, far, True, far)],
        [(3, far, True, far), (4, near, True, near)],
        [(3, near, True, far), (5, -1, True, van)],
    ]
    (truth_topic, _, truth), _, (belief_topic, _, belief), (kpi_topic, _, kpi) = said[0]
    scene = told([])
    for k, tracks in enumerate(story, start=1):
        believed, scored = belief_with(belief, kpi, tracks, k)
        present = np.isin(truth.entity, [near, far] if k < 5 else [near, far, van])
        seen = replace(
            truth,
            **{
                name: getattr(truth, name)[present]
                for name in ("entity", "is_user", "position_m", "velocity_mps", "rcs_m2")
            },
        )
        for topic, record in ((truth_topic, seen), (belief_topic, believed), (kpi_topic, scored)):
            scene.take(event(topic, k * 5_000_000, record), k)
    names = {e: scene.name(e) for e in (near, far, van)}
    assert [note.text for note in scene.notes] == [
        f"track 1 confirmed: is {names[near]}",
        "track 2 confirmed: follows nobody, at x 1.0, y 1.0 m",
        f"{names[near]} is bound to track 1",
        f"track 3 confirmed: is {names[far]}",
        "track 2 dropped: followed nobody",
        f"{names[far]} is bound to track 3",
        f"track 4 confirmed: is {names[near]}",
        f"track 1 dropped: was {names[near]}",
        f"{names[near]} is bound anew: track 1 -> 4",
        f"{names[van]} arrives",
        f"track 5 confirmed: is {names[van]}",
        f"track 4 dropped: was {names[near]}",
        f"{names[near]} is bound anew: track 4 -> 3",
        f"{names[far]} has lost its track 3",
    ]


def test_clipped_settings_are_noted_and_counted(said):
    topic, _, kpi = said[0][-1]
    scene = told(said[:1])
    for k in (1, 2, 3):
        scene.take(event(topic, k * 5_000_000, replace(kpi, k=k, t_ns=k * 5_000_000, beams_clipped=4)), k)
    assert scene.notes[-1].text == "4 beam settings out of range, clipped"
    assert scene.notes[-1].times == 3
    assert "(3 times)" in text(scene, 120, 40)


def test_a_replay_that_begins_again_starts_afresh(said):
    scene = told([*said, *said[:2]])
    assert scene.kpi["k"] == 1
    assert any("time went back" in note.text for note in scene.notes)
    assert len(scene.rates(40)) == 2


def test_json_is_a_line_a_subframe_until_the_run_ends(twins, ears, said):
    twin = twins()
    twin.play(said[:2])
    ear = ears(twin.state)
    until(ear, lambda s: s.kpi is not None)
    out = io.StringIO()
    twin.play(said[2:])
    twin.end()
    assert watch.lines(ear, out, 5.0, False) == 0
    got = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["k"] for line in got] == list(range(2, 20))
    assert "NaN" not in out.getvalue()


def test_once_is_one_screen(twins, ears, said):
    twin = twins()
    twin.play(said[:4])
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    assert watch.once(ears(twin.state), console, 5.0, True, listen_s=0.05) == 0
    shown = console.file.getvalue()
    assert "subframe 3" in shown
    assert "near" in shown


def test_nobody_there_is_said_on_standard_error(ears, capsys):
    clock = Clock(step_ns=SECOND)
    ear = ears("tcp://127.0.0.1:9", clock=clock, patience=Patience(60.0, 0.1))
    assert watch.lines(ear, io.StringIO(), 10.0, False) == 1
    assert "no twin heard in 10 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"), [("--refresh=50", "0.1 to 10"), ("--window=nan", "must be > 0"), ("--wait=0", "must be > 0")]
)
def test_impossible_options_are_refused(option, message):
    parser = argparse.ArgumentParser()
    watch.arguments(parser)
    with pytest.raises(Misuse, match=message):
        watch.run(parser.parse_args([option]))


@pytest.mark.parametrize("key", [b"q", b"\x03"], ids=["q", "Ctrl-C"])
def test_the_terminal_is_left_as_it_was(key):
    """On a real terminal: its own screen, no echo while it lasts; after q or Ctrl-C everything as before."""
    code = (
        "import argparse, sys; from twin import watch; p = argparse.ArgumentParser(); watch.arguments(p); "
        "sys.exit(watch.run(p.parse_args(['tcp://127.0.0.1:9'])))"
    )
    child, master = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm"
        signal.signal(
            signal.SIGINT, signal.SIG_DFL
        )  # tests that run in the background are deaf to it, and would hand that on
        os.execv(sys.executable, [sys.executable, "-W", "ignore", "-c", code])
    before = termios.tcgetattr(master)
    seen = b""
    while b"NO TWIN YET" not in seen:
        seen += read(master)
    assert b"\x1b[?1049h" in seen  # its own screen, so what was there before comes back
    assert not termios.tcgetattr(master)[3] & termios.ECHO
    os.write(master, key)
    while b"documents lost" not in seen:
        seen += read(master)
    assert b"\x1b[?1049l" in seen
    assert b"\x1b[?25h" in seen  # the cursor is back
    assert termios.tcgetattr(master)[3] == before[3]
    _, status = os.waitpid(child, 0)
    os.close(master)
    assert os.waitstatus_to_exitcode(status) == 0


def read(descriptor):
    assert select.select([descriptor], [], [], 30)[0], "the terminal stays silent"
    return os.read(descriptor, 65536)
