"""Unmodified clients against the face: libiio's own tools, pylibiio, pyadi-iio, and a laboratory's sweep."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hal.array import direction_from, steering
from hal.conformance import check
from hal.devices.iio import Iio
from hal.errors import LateArrival, Misuse, RemoteFault
from hal.frontend import Beam, Listen
from twin.build import open_frontend, run
from twin.iio.face import Face, Scene
from twin.iio.server import Server
from twin.scenario import frontend_spec, load

ROOT = Path(__file__).resolve().parents[3]
PHASER = ROOT / "scenarios" / "phaser.yaml"
BOARDS = ROOT / "tools" / "examples" / "boards.yaml"


@dataclass
class Served:
    scene: Scene
    face: Face
    server: Server

    @property
    def uri(self) -> str:
        return f"ip:127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def served() -> Iterator[Served]:
    scene = Scene(load(PHASER), hold_ns=11_000_000_000)  # the walker is at atan2(-2.4, 12): -11.3 degrees
    face = Face(scene)
    server = Server(face.context(), "tcp://127.0.0.1:0")
    server.start()
    yield Served(scene, face, server)
    server.stop()
    scene.close()


@pytest.fixture
def iio() -> Any:
    try:
        import iio as found
    except Exception as error:  # without the C library the import fails in more ways than one
        pytest.skip(f"pylibiio<1 with libiio 0.2x: {error}")
    return found


@pytest.mark.skipif(shutil.which("iio_info") is None, reason="libiio-utils is not installed")
def test_iio_info_and_iio_attr(served: Served) -> None:
    def said(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    listing = said("iio_info", "-u", served.uri)
    assert "iio:device1: adar1000 (label: csb1_chip2)" in listing
    assert "twin-receiver (buffer capable)" in listing
    assert "voltage0:  (input, index: 0, format: le:S16/16>>0)" in listing
    attr = ("iio_attr", "-u", served.uri, "-i", "-c", "csb1_chip2", "voltage3", "phase")
    assert "61.875000" in said(*attr, "61.6")
    assert said(*attr).strip() == "61.875000"
    refused = subprocess.run([*attr, "north"], capture_output=True, text=True, timeout=60, check=False)
    assert "Invalid argument" in refused.stdout


def test_pylibiio_reads_what_the_face_holds(served: Served, iio: Any) -> None:
    context = iio.Context(served.uri)
    device = context.find_device("csb1_chip1")
    channel = device.find_channel("voltage2", True)
    channel.attrs["hardwaregain"].value = "99"
    assert channel.attrs["hardwaregain"].value == "99"
    with pytest.raises(OSError, match="Invalid argument"):
        channel.attrs["hardwaregain"].value = "1000"
    with pytest.raises(OSError, match="Permission denied"):
        _ = channel.attrs["beam_pos_save"].value
    receiver = context.find_device("twin-receiver")
    for one in receiver.channels[2:]:
        one.enabled = True
    buffer = iio.Buffer(receiver, 512)
    buffer.refill()
    words = np.frombuffer(buffer.read(), np.int16)
    assert words.shape == (1024,)
    assert words.std() > 1  # a dark array still has noise


def test_a_laboratory_finds_the_walker(
    served: Served, iio: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("adi")
    from tools.examples import phaser_sweep

    laboratory = phaser_sweep.Laboratory(served.uri)
    request.addfinalizer(laboratory.close)
    elements = laboratory.array.elements
    laboratory.array.steer_rx(20, 0)
    want = 180 * np.arange(8) * np.sin(np.deg2rad(20)) * 299792458 / 3e8  # pyadi-iio's speed of light
    off = (np.array([elements[k + 1].rx_phase for k in range(8)]) - want + 180) % 360 - 180
    assert np.max(np.abs(off)) <= 2.8125 / 2 + 1e-6
    angles = np.arange(-60, 61, 4.0)
    found = laboratory.sweep(angles, "walker")
    assert found.truth_deg == pytest.approx(np.rad2deg(np.arctan2(-2.4, 12)), abs=1e-3)  # by hand
    assert abs(found.found_deg - found.truth_deg) <= laboratory.beamwidth_deg / 2
    elements[3].save_rx_beam(17, False, 101, 90.0)
    elements[3].rx_enable = False
    laboratory.array.latch_rx_settings()
    amplitude, _ = served.face.chips["receive"][0].settings("receive")
    assert amplitude.tolist() == [1, 1, 0, 1]
    phaser_sweep.draw([found, found], laboratory.beamwidth_deg, str(tmp_path / "sweep.png"))
    assert (tmp_path / "sweep.png").stat().st_size > 10_000


def _boards(served: Served, **more: str) -> Any:
    device = {"sites.bench.device.uri": served.uri, **{f"sites.bench.{k}": v for k, v in more.items()}}
    return load(BOARDS, device)


def test_boards_pass_the_conformance_suite(served: Served, iio: Any) -> None:
    frontend = open_frontend(_boards(served))
    assert not frontend.spec.simulated
    assert frontend.spec.bus_ns_per_element > 1000  # measured, not the scenario's 10 ns
    verdicts = {v.rule: v for v in check(frontend, fresh=True, closing=True, latency_limit_s=2.0)}
    assert {rule for rule, v in verdicts.items() if v.verdict == "fail"} == set(), verdicts
    assert {rule for rule, v in verdicts.items() if v.verdict == "skip"} == {"delay_steps", "reception"}


def test_what_boards_hear_is_the_scene_through_the_beam_that_was_set(served: Served, iio: Any) -> None:
    scenario = _boards(served)
    frontend = open_frontend(scenario)
    network, array = frontend.spec.receive.network, frontend.spec.receive.array
    angles = np.deg2rad([-11.31, 35.0])
    phases = -np.angle(steering(array, direction_from(angles, np.zeros(2)), frontend.spec.carrier_hz))
    beam = Beam(
        half="receive",
        slot=np.array([4, 9]),
        delay_s=np.zeros((2, 2, 0)),
        phase_rad=phases.reshape(2, 1, 8) * network.wired,
        amplitude=np.ones((2, 2, 8)) * network.wired,
    )
    report = frontend.set_beam(beam, 0)
    assert report.readback is not None
    assert np.max(np.abs(np.angle(np.exp(1j * (report.readback.phase_rad - beam.phase_rad))))) <= np.pi / 128 + 1e-9
    heard = frontend.receive([], Listen(t_ns=np.array([0, 1, 2]), slot=np.array([4, 9, 5]), bandwidth_hz=1e6))
    power = np.mean(np.abs(heard.samples.sum(axis=1)) ** 2, axis=1)
    assert power[0] > 20 * power[1]  # 13 dB and more between the user's beam and one that looks away
    assert power[2] < power[0] / 20  # slot 5 was never loaded: the chips are off, the receiver's own noise is left
    assert not heard.overload.any()
    frontend.close()


def test_the_loop_plays_on_boards(served: Served, iio: Any) -> None:
    done = run(replace(_boards(served), duration_ns=25_000_000), write=False)
    assert done.kpi.k.tolist() == [0, 1, 2, 3, 4]


def test_what_is_no_such_board_is_refused_in_words(served: Served, iio: Any) -> None:
    spec = frontend_spec(_boards(served), "bench")
    with pytest.raises(Misuse, match="no chip 'csb9_chip1'"):
        Iio(uri=served.uri, transmit_chips=("csb9_chip1",)).open(spec)
    with pytest.raises(Misuse, match="1 chips have 4 channels, the scenario's array 8 elements"):
        Iio(uri=served.uri, receive_chips=("csb1_chip1",)).open(spec)
    with pytest.raises(Misuse, match="phase_bits: is 6; an ADAR1000 has 7"):
        open_frontend(_boards(served, **{"receive.network.phase_bits": "6"}))
    with pytest.raises(Misuse, match="no such device"):
        Iio(uri=served.uri, receiver="radio").open(spec)
    frontend = Iio(uri=served.uri).open(spec)
    served.server.stop()
    with pytest.raises((RemoteFault, LateArrival), match="the boards keep their beams"):
        frontend.receive([], Listen(t_ns=np.array([0]), slot=np.array([0]), bandwidth_hz=1e6))
    with pytest.raises((RemoteFault, LateArrival)):
        Iio(uri=served.uri).open(spec)


def test_the_command_serves_and_ends_politely() -> None:
    start = (
        "import argparse; from twin import serve_iio; parser = argparse.ArgumentParser(); serve_iio.arguments(parser); "
        "raise SystemExit(serve_iio.run(parser.parse_args()))"
    )
    command = [sys.executable, "-c", start, str(PHASER), "--endpoint", "tcp://127.0.0.1:0", "--hold", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert "serving bench on tcp://127.0.0.1:" in process.stdout.readline()
        process.terminate()
        assert process.wait(60) == 0
