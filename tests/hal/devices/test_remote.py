"""A machine in a process of its own: the same bits as in this one, and every way of losing it ends in words and in bounded time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import machine
import msgpack
import numpy as np
import pytest
import zmq
from machine import SPEC, beam, noise
from test_sim import GRID_HZ, frame, listen, paths, pilots, wide

from hal.devices.remote import Remote, RemoteFrontend
from hal.devices.sim import Sim
from hal.errors import LateArrival, Misuse, RemoteFault
from hal.frontend import Beam, BeamReport, Frontend, FrontendSpec, Reception
from hal.serve import serve
from hal.session import PROTOCOL
from hal.wire import VERSION, encode


@contextmanager
def process(endpoint: str = "tcp://127.0.0.1:0") -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``machine.py`` as a program; yields where it listens."""
    program = subprocess.Popen(
        [sys.executable, str(Path(machine.__file__)), endpoint], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        assert program.stdout is not None
        yield program.stdout.readline().strip(), program
    finally:
        program.kill()
        program.wait()
        assert program.stdout is not None
        program.stdout.close()


@contextmanager
def thread(frontend: Any, endpoint: str = "tcp://127.0.0.1:0") -> Iterator[str]:
    """``serve`` in a thread; yields where it listens."""
    done, bound, where = threading.Event(), threading.Event(), []

    def announce(endpoint: str) -> None:
        where.append(endpoint)
        bound.set()

    worker = threading.Thread(target=serve, args=(frontend, endpoint, done.is_set, announce))
    worker.start()
    assert bound.wait(10)
    try:
        yield where[0]
    finally:
        done.set()
        worker.join()


@contextmanager
def remote(endpoint: str, spec: FrontendSpec | None = SPEC, **fields: Any) -> Iterator[RemoteFrontend]:
    frontend = Remote(endpoint, **({"timeout_s": 10.0, "warn_s": 5.0} | fields)).open(spec, noise)
    try:
        yield frontend
    finally:
        frontend.close()


def script(frontend: Frontend) -> list[bytes]:
    """Everything a run does, and the bytes of every answer."""
    said = [encode(frontend.spec)]
    for k, half in enumerate(("transmit", "receive", "transmit")):
        said.append(encode(frontend.set_beam(beam(half, [0, 1, 2], seed=k), 60_000 * k)))
    t_ns = [30_000, 50_000, 100_000, 150_000, 320_000]
    data = frontend.emit(wide(t_ns, [0, 1, 2, 1, 0]))
    sounding = frontend.emit(frame(t_ns, [0, 1, 2, 1, 0]))
    echo = frontend.receive([(sounding, paths(5))], listen(t_ns, [0, 1, 0, 2, 1]))
    heard = frontend.receive(
        [(pilots(t_ns, [1, 2, 1, 2, 3]), paths(6, source=[1, 2, 3, 1, 2, 3]))], listen(t_ns, [0] * 5, 1e6)
    )
    assert echo.samples.any()
    assert heard.samples.any()
    return [*said, *(encode(one) for one in (data, sounding, echo, heard))]


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_another_process_gives_the_same_bits(transport: str, tmp_path: Path) -> None:
    with process("tcp://127.0.0.1:0" if transport == "tcp" else f"ipc://{tmp_path}/m") as (endpoint, _):
        with remote(endpoint) as there:
            far = script(there)
    here = script(Sim().open(SPEC, noise))
    assert [len(one) for one in far] == [len(one) for one in here]
    assert far == here


def test_the_nameplate_comes_from_the_machine_and_must_be_the_one_expected() -> None:
    with thread(Sim().open(SPEC, noise)) as endpoint:
        with remote(endpoint, None) as there:
            assert encode(there.spec) == encode(SPEC)
        other = replace(SPEC, settling_ns=1, receive=replace(SPEC.receive, memory_slots=99))
        with pytest.raises(
            Misuse, match=r"nameplate differs .* in spec\.receive\.memory_slots, spec\.settling_ns; .* trust"
        ):
            Remote(endpoint).open(other, noise)
        with remote(endpoint, other, trust=True) as there:
            assert there.spec.settling_ns == SPEC.settling_ns


def test_what_the_machine_finds_wrong_is_misuse_here() -> None:
    with thread(Sim().open(SPEC, noise)) as endpoint, remote(endpoint) as there:
        bad = beam("transmit", [0])
        phase = bad.phase_rad.copy()
        phase[0, 0, 9] = np.nan
        for wrong, says in [
            (replace(bad, phase_rad=phase), r"transmit beam\.phase_rad\[0, 0, 9\] = .*nan.*: must be finite"),
            (replace(bad, slot=np.array([8])), r"transmit beam\.slot\[0\] = 8"),
            (
                replace(bad, phase_rad=bad.phase_rad[:, :, :8], amplitude=bad.amplitude[:, :, :8]),
                r"has shape \(1, 1, 8\)",
            ),
        ]:
            with pytest.raises(Misuse, match=says):
                there.set_beam(wrong, 0)
        assert not there.emit(wide([10**9], [0])).response.any()  # none of it was taken
        assert there.set_beam(bad, 0).clipped == 0


def test_a_killed_machine_is_a_fault_that_names_the_safe_state() -> None:
    with process() as (endpoint, program), remote(endpoint, timeout_s=3.0) as there:
        report = there.set_beam(beam("transmit", [0]), 0)
        program.kill()
        program.wait()
        says = rf"small at tcp.*; safe state: the machine keeps its beams \(transmit in force since {report.effective_ns} ns\)"
        with pytest.raises(RemoteFault, match=says):
            there.emit(wide([0], [0]))
        there.close()
        with pytest.raises(Misuse, match="this session is closed"):
            there.emit(wide([0], [0]))


def test_a_machine_that_stops_in_its_tracks_is_late_and_then_goes_on() -> None:
    with process() as (endpoint, program), remote(endpoint, timeout_s=0.3, warn_s=0.1) as there:
        there.set_beam(beam("transmit", [0]), 0)
        program.send_signal(signal.SIGSTOP)
        says = r"no answer to 'set_beam' seq 4 after 0\.3.* s; its last answer was to seq 3; the limit is 0\.3 s; safe state: .* unless"
        with pytest.raises(LateArrival, match=says):
            there.set_beam(beam("transmit", [0], seed=1), 100)
        program.send_signal(signal.SIGCONT)
        there._client.patience = replace(there._client.patience, give_up_s=10.0)
        emission = there.emit(wide([10**9], [0]))  # the late answer is dropped, this one is the right one
        assert emission.response.shape == (1, len(GRID_HZ), 64, 1)


def test_a_machine_started_anew_is_dark_and_said_to_be() -> None:
    with process() as (endpoint, first):
        there = Remote(endpoint, timeout_s=10.0, warn_s=5.0).open(SPEC, noise)
        try:
            there.set_beam(beam("transmit", [0]), 0)
            first.kill()
            first.wait()
            with process(endpoint):
                with pytest.raises(RemoteFault) as told:
                    there.emit(wide([10**9], [0]))
                if "was closed" in str(told.value):  # the loss is told first where the new connection is not there yet
                    with pytest.raises(RemoteFault) as told:
                        there.emit(wide([10**9], [0]))
                assert "was started anew" in str(told.value)
                assert "safe state: none, its slots are dark; load the beams again" in str(told.value)
                assert there.held == {}
                assert not there.emit(wide([10**9], [0])).response.any()
        finally:
            there.close()


def test_nobody_there_is_late() -> None:
    with pytest.raises(LateArrival, match=r"the server at tcp://127.0.0.1:1: no answer to 'hello'"):
        Remote("tcp://127.0.0.1:1", timeout_s=0.2).open(SPEC, noise)


def test_garbage_between_two_questions_is_survived() -> None:
    with thread(Sim().open(SPEC, noise)) as endpoint, remote(endpoint) as there:
        before = encode(there.set_beam(beam("transmit", [0]), 0))
        with stranger(endpoint) as say:
            assert say([b"\x00garbage"])[0] == "fault"
            ok = [PROTOCOL, list(VERSION)]
            assert say([msgpack.packb([*ok, "set_beam", 1]), b"\xff" * 100])[0] == "fault"
            assert say([msgpack.packb([*ok, "fly", 2]), b""]) == (
                "misuse",
                "question 'fly': a front end answers spec, set_beam, emit, receive, inject, clear",
            )
            kind, text = say([msgpack.packb([PROTOCOL, [VERSION[0] + 1, 0], "spec", 3]), b""])
            assert (kind, text[:30]) == ("fault", "refused: the client speaks ver")
            kind, nameplate = say([msgpack.packb([*ok, "spec", 4]), b""], raw=True)
            assert (kind, nameplate) == ("answer", encode(SPEC))
        again = there.set_beam(beam("transmit", [0]), 0)
        assert len(encode(again)) == len(before)


@contextmanager
def stranger(endpoint: str) -> Iterator[Callable[..., Any]]:
    """A peer that speaks for itself, with another MessagePack library."""
    context = zmq.Context()
    bare = context.socket(zmq.DEALER)
    bare.linger, bare.rcvtimeo = 0, 5000
    bare.connect(endpoint)

    def say(frames: list[bytes], raw: bool = False) -> tuple[str, Any]:
        bare.send_multipart(frames)
        head, payload = bare.recv_multipart()
        return msgpack.unpackb(head)[2], payload if raw else payload.decode()

    try:
        yield say
    finally:
        bare.close(0)
        context.term()


class Real:
    """A machine that is not simulated: it must not be told what arrives."""

    def __init__(self, answer: Any = None) -> None:
        self.spec = replace(SPEC, simulated=False)
        self.told: list[Any] = []
        self.answer = answer

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        raise RemoteFault("the gate driver is hot")

    def emit(self, drive: Any) -> Any:
        return self.answer

    def receive(self, incident: Any, listen: Any) -> Reception:
        self.told.append(incident)
        return Reception(t_ns=listen.t_ns, slot=listen.slot, samples=np.ones((1, 2, 3), complex), noise_w=1e-12)

    def close(self) -> None:
        pass


def test_real_hardware_is_not_told_what_arrives_and_its_faults_come_through() -> None:
    real = Real()
    with thread(real) as endpoint, remote(endpoint, None) as there:
        sent = Sim().open(SPEC, noise).emit(frame([0], [0]))
        assert there.receive([(sent, paths())], listen([0], [0])).samples.shape == (1, 2, 3)
        assert real.told == [[]]
        with pytest.raises(RemoteFault, match="the gate driver is hot; safe state: the machine keeps its beams"):
            there.set_beam(beam("transmit", [0]), 0)
        with pytest.raises(RemoteFault, match="emit failed"):
            there.emit(frame([0], [0]))
