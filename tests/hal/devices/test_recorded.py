"""A tape plays what was recorded, bit by bit, and refuses the rest in words."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import msgpack
import numpy as np
import pytest
from machine import SPEC, beam, noise
from test_remote import script
from test_sim import frame, listen, paths, wide

from hal.conformance import check
from hal.devices.recorded import Recorded, RecordedFrontend, Tape, TapeFrontend
from hal.devices.sim import Sim
from hal.errors import Misuse, RemoteFault
from hal.wire import VERSION, encode


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    """A session of ``script``, recorded."""
    path = tmp_path / "session.tape"
    frontend = Tape(path=path, real=Sim()).open(SPEC, noise)
    script(frontend)
    frontend.close()
    frontend.close()
    return path


def opened(path: Path, **fields: bool) -> RecordedFrontend:
    return Recorded(path, **fields).open(SPEC)


def test_a_session_played_again_is_the_same_bits(tape: Path) -> None:
    frontend = opened(tape)
    assert script(frontend) == script(Sim().open(SPEC, noise))
    assert script(frontend) == script(Sim().open(SPEC, noise))  # and once more: the last answer stays
    assert frontend.departed == 0
    frontend.close()
    with pytest.raises(Misuse, match="is closed"):
        frontend.emit(wide([30_000], [0]))


def test_what_was_not_recorded_is_refused_in_words(tape: Path) -> None:
    frontend = opened(tape)
    says = r"has no transmit beam set at 7 ns; it holds 3 of set_beam from 0 to 120000 ns: playback is open loop, only what was recorded"
    with pytest.raises(Misuse, match=says):
        frontend.set_beam(beam("transmit", [0]), 7)
    with pytest.raises(
        Misuse, match=r"has no emission of these 1 events from 5 to 5 ns through these slots; it holds 2 of emit"
    ):
        frontend.emit(wide([5], [0]))
    with pytest.raises(Misuse, match=r"has no reception of these 5 events from 30000 to 320000 ns"):
        frontend.receive([], listen([30_000, 50_000, 100_000, 150_000, 320_000], [3, 3, 3, 3, 3]))
    frontend.close()


def test_another_beam_is_answered_with_what_was_done_then_or_refused(
    tape: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frontend, other = opened(tape), beam("transmit", [0, 1, 2], seed=9)
    with caplog.at_level(logging.WARNING, "hal.devices.recorded"):
        report = frontend.set_beam(other, 0)
    assert encode(report.setpoint) == encode(beam("transmit", [0, 1, 2], seed=0))
    assert frontend.departed == 1
    assert "what was done then is played" in caplog.text
    frontend.close()
    strict = opened(tape, exact=True)
    with pytest.raises(Misuse, match="the transmit beam set at 0 ns was another"):
        strict.set_beam(other, 0)
    strict.close()


def test_equal_questions_get_their_answers_in_order(tmp_path: Path) -> None:
    path = tmp_path / "t"
    frontend = TapeFrontend(Sim().open(SPEC, noise), path)
    drive, answers = wide([10**9], [0]), []
    for seed in range(3):
        frontend.set_beam(beam("transmit", [0], seed), 0)
        answers.append(encode(frontend.emit(drive)))
    frontend.close()
    assert len(set(answers)) == 3
    played = opened(path)
    assert [encode(played.emit(drive)) for _ in range(4)] == [*answers, answers[-1]]
    played.close()


def test_a_tape_that_a_killed_session_left_is_played_up_to_there(
    tape: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = tape.read_bytes()
    cut = tmp_path / "cut"
    cut.write_bytes(whole[:-100])
    with caplog.at_level(logging.WARNING, "hal.devices.recorded"):
        frontend = opened(cut)
    assert "ends in the middle of an entry" in caplog.text
    said = [
        encode(frontend.set_beam(beam(half, [0, 1, 2], seed=k), 60_000 * k))
        for k, half in enumerate(("transmit", "receive", "transmit"))
    ]
    assert said == script(Sim().open(SPEC, noise))[1:4]
    with pytest.raises(Misuse, match="it holds 1 of receive"):
        frontend.receive([], listen([30_000, 50_000, 100_000, 150_000, 320_000], [0] * 5, 1e6))
    frontend.close()


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (b"", RemoteFault, "is not a tape"),
        (b"\xc1\xc1", RemoteFault, "is damaged at byte 0"),
        (b"PK\x03\x04 something else", RemoteFault, "is not a tape"),
        (msgpack.packb(["isac-twin tape", [VERSION[0] + 1, 0], b""]), RemoteFault, "is of version 2"),
        (
            msgpack.packb(["isac-twin tape", list(VERSION), encode(SPEC)]) + msgpack.packb(["fly", 1, b""]),
            RemoteFault,
            "entry at byte .* is damaged",
        ),
        (
            msgpack.packb(["isac-twin tape", list(VERSION), encode(replace(SPEC, settling_ns=9))]),
            Misuse,
            r"differs from the scenario's in spec\.settling_ns",
        ),
    ],
)
def test_what_is_no_tape_of_this_machine_is_refused(
    tmp_path: Path, content: bytes, error: type[Exception], says: str
) -> None:
    path = tmp_path / "t"
    path.write_bytes(content)
    with pytest.raises(error, match=says):
        opened(path)


def test_no_tape_and_a_tape_that_is_there_already(tmp_path: Path, tape: Path) -> None:
    with pytest.raises(Misuse, match="No such file"):
        opened(tmp_path / "none")
    with pytest.raises(Misuse, match="never written over"):
        Tape(path=tape).open(SPEC, noise)


@pytest.mark.parametrize("exact", [False, True])
def test_the_suite_s_own_session_on_tape_gives_the_same_verdicts(tmp_path: Path, exact: bool) -> None:
    path = tmp_path / "t"
    live = TapeFrontend(Sim().open(SPEC, noise), path)
    there = check(live, fresh=True)
    live.close()
    played = opened(path, exact=exact)
    again = check(played, fresh=True)
    played.close()
    assert {v.verdict for v in again} == {"pass"}
    assert [v.says for v in again if v.rule != "round_trip"] == [v.says for v in there if v.rule != "round_trip"]


def test_a_real_reception_is_played_without_incident(tape: Path) -> None:
    frontend = opened(tape)
    t_ns = [30_000, 50_000, 100_000, 150_000, 320_000]
    told = frontend.receive([(frontend.emit(frame(t_ns, [0, 1, 2, 1, 0])), paths(1))], listen(t_ns, [0, 1, 0, 2, 1]))
    frontend.close()
    second = opened(tape)
    assert np.array_equal(second.receive([], listen(t_ns, [0, 1, 0, 2, 1])).samples, told.samples)
    second.close()
