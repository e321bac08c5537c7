"""Raw samples on a socket of their own, and as SigMF: the numbers that the loop saw, bit for bit."""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zmq

from hal.errors import Misuse
from twin import record_iq
from twin.build import Run, run
from twin.iq import Tap
from twin.record import read

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "scenarios" / "smoke.yaml"
GNURADIO = "/usr/bin/python3"


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Run:
    sets = {"record.echoes": True, "duration_s": 0.02}
    return run(SMOKE, sets, out=tmp_path_factory.mktemp("iq") / "run")


def observation(k: int) -> Any:
    """One subframe of two frames and three chains, every sample another number."""
    samples = (np.arange(2 * 3 * 5).reshape(2, 3, 5) + 100 * k) * (1 + 0.5j)
    return SimpleNamespace(echo=SimpleNamespace(samples=samples), drive=SimpleNamespace(samples=2 * samples[:, :1]))


def test_a_tap_is_two_parts_of_complex64() -> None:
    tap = Tap("tcp://127.0.0.1:0", ("bs0.echo.1", "bs0.sent.0", "bs0.echo.7"), "bs0")
    with zmq.Context() as context, context.socket(zmq.SUB) as sub:
        sub.linger = 0
        sub.connect(tap.endpoint)
        sub.subscribe("bs0.")
        until = time.monotonic() + 10
        while not sub.poll(5):
            assert time.monotonic() < until
            tap.say(observation(1))
        got = dict(sub.recv_multipart() for _ in range(2) if sub.poll(2000))
    tap.close()
    assert set(got) == {b"bs0.echo.1.", b"bs0.sent.0."}  # a chain there is not is not said
    wanted = observation(1).echo.samples[:, 1].ravel()
    assert np.array_equal(np.frombuffer(got[b"bs0.echo.1."], "<c8"), wanted.astype(np.complex64))


def test_nobody_who_does_not_read_stops_it() -> None:
    tap = Tap("tcp://127.0.0.1:0", ("bs0.echo.0",), "bs0")
    big = SimpleNamespace(echo=SimpleNamespace(samples=np.ones((1, 1, 100_000), complex)), drive=None)
    with zmq.Context() as context, context.socket(zmq.SUB) as stalled:
        stalled.linger = 0
        stalled.set(zmq.RCVHWM, 1)
        stalled.connect(tap.endpoint)
        stalled.subscribe("")
        until = time.monotonic() + 10
        while not stalled.poll(5):
            assert time.monotonic() < until
            tap.say(big)
        for _ in range(300):  # 240 MB, were it kept
            tap.say(big)
    tap.close()


@pytest.mark.parametrize(
    ("endpoint", "taps", "says"),
    [
        ("tcp://0.0.0.0:0", ("bs0.echo.0",), "other computers"),
        ("tcp://127.0.0.1:0", ("bs1.echo.0",), "is none"),
        ("tcp://127.0.0.1:0", ("bs0.pilots.0",), "is none"),
        ("nonsense", ("bs0.echo.0",), "other computers"),
    ],
)
def test_a_wrong_tap_is_refused(endpoint: str, taps: tuple[str, ...], says: str) -> None:
    with pytest.raises(Misuse, match=says):
        Tap(endpoint, taps, "bs0")


def test_gnuradio_reads_it() -> None:
    """Debian's GNU Radio, where it is there, through its own ZeroMQ source."""
    there = (
        Path(GNURADIO).exists()
        and not subprocess.run([GNURADIO, "-c", "import gnuradio.zeromq"], capture_output=True, check=False).returncode
    )
    if not there:
        pytest.skip("no GNU Radio here")
    tap = Tap("tcp://127.0.0.1:0", ("bs0.echo.0", "bs0.echo.1"), "bs0")
    script = ROOT / "tools" / "examples" / "gnuradio_tap.py"
    with subprocess.Popen(
        [GNURADIO, script, tap.endpoint, "bs0.echo.1.", "30"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as graph:
        until = time.monotonic() + 60
        while graph.poll() is None and time.monotonic() < until:
            tap.say(observation(1))
            time.sleep(0.02)
        graph.kill()
        said, complained = (stream.read().decode() if stream else "" for stream in (graph.stdout, graph.stderr))
    tap.close()
    wanted = observation(1).echo.samples[:, 1].ravel()
    power_dbm = 10 * np.log10(np.mean(np.abs(wanted) ** 2) / 1e-3)
    assert f"30 samples, mean power {power_dbm:.2f} dBm, first 105+52.5j" in said, complained


def given(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    record_iq.arguments(parser)
    return parser.parse_args(words)


def test_a_recording_as_sigmf(heard: Run, tmp_path: Path) -> None:
    sigmf = pytest.importorskip("sigmf")
    assert record_iq.run(given(str(heard.path), str(tmp_path / "e"), "--subframes", "3")) == 0
    meta = sigmf.fromfile(tmp_path / "e.sigmf-meta")
    meta.validate()
    assert meta.sample_rate == 64e6
    echoes = [data for _, _, data in read(heard.path / "recording.mcap", "bs0.echo.")][:3]
    wanted = np.concatenate([echo["samples"][:, 0].ravel() for echo in echoes]).astype(np.complex64)
    assert np.array_equal(meta.read_samples(), wanted)
    times = np.concatenate([echo["t_ns"] for echo in echoes])
    indices = [capture["core:global_index"] for capture in meta.get_captures()]
    assert np.array_equal(indices, np.round(times * 64e6 * 1e-9))


def test_what_cannot_be_written_says_why(heard: Run, tmp_path: Path) -> None:
    about = {"scenario": (heard.path / "scenario.yaml").read_text()}
    with pytest.raises(Misuse, match="no echoes"):
        record_iq.write(tmp_path / "a", about, [])
    with pytest.raises(Misuse, match="receiver has"):
        record_iq.run(given(str(heard.path), str(tmp_path / "b"), "--chain", "64"))
    (tmp_path / "c.sigmf-meta").write_text("mine")
    with pytest.raises(Misuse, match="not written over"):
        record_iq.run(given(str(heard.path), str(tmp_path / "c")))
    assert (tmp_path / "c.sigmf-meta").read_text() == "mine"
    assert not list(tmp_path.glob("*.sigmf-data"))


def test_a_running_twin_as_sigmf(tmp_path: Path) -> None:
    from threading import Thread

    state = f"ipc://{tmp_path}/state"
    sets = {"bus.state": state, "clock.mode": "paced", "clock.factor": 0.25, "duration_s": 0.25}
    played = Thread(target=run, args=(SMOKE, sets), kwargs={"write": False})
    played.start()
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "state.control").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        assert record_iq.run(given(state, str(tmp_path / "live"), "--subframes", "4")) == 0
    finally:
        played.join(60)
    told = json.loads((tmp_path / "live.sigmf-meta").read_text())
    assert len(told["captures"]) == 4 * 8
