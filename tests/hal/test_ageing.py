"""Elements that are off, drift and break: their laws, what the machine tells of it, and that batching changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from small import echo_path, frames, half, machine, matched, nameplate, noise

from hal.ageing import Ageing, errors
from hal.errors import Misuse, RemoteFault
from hal.frontend import Listen
from hal.medium import beam_gains
from hal.memory import Fault

SPEC = nameplate(transmit=half(phase_bits=0))
SECOND = 1_000_000_000


def kept(front, t_ns, spec=SPEC):
    """Power gain on boresight at each time, of the whole array's 64."""
    drive = frames(np.atleast_1d(t_ns), np.ones(8))
    emission = front.emit(drive)
    gain = beam_gains(echo_path(), spec.transmit.array, emission.response, drive.frequency_hz)[emission.row, 0, 0, 0]
    return np.abs(gain) ** 2 / 64


def aimed(**ageing):
    front = machine(SPEC, noise, ageing=Ageing(**ageing))
    front.set_beam(matched(SPEC, "transmit"), 0)
    return front


def test_delivered_errors_cost_what_their_spread_says():
    spec = nameplate(transmit=half(48, 48, phase_bits=0))
    front = machine(spec, noise, ageing=Ageing(phase_error_rad=0.5))
    front.set_beam(matched(spec, "transmit"), 0)
    assert kept(front, SECOND, spec) / 36 == pytest.approx(np.exp(-(0.5**2)), rel=0.06)  # |E exp(j phi)|^2, phi normal


def test_errors_grow_as_stated():
    shape = (4, 500)
    for t_s in (1.0, 4.0, 100.0):
        phase, ratio = errors(Ageing(walk_rad=0.1, walk_db=0.2), noise, "transmit", round(t_s * SECOND), shape)
        assert phase.std() == pytest.approx(0.1 * np.sqrt(t_s), rel=0.06)
        assert np.std(20 * np.log10(ratio)) == pytest.approx(0.2 * np.sqrt(t_s), rel=0.06)
        warm, _ = errors(Ageing(warm_up_rad=0.3, thermal_s=2.0), noise, "transmit", round(t_s * SECOND), shape)
        assert warm.std() == pytest.approx(0.3 * (1 - np.exp(-t_s / 2)), rel=0.06)
    fixed = Ageing(phase_error_rad=0.2, gain_error_db=1.0)
    early, late = (errors(fixed, noise, "transmit", t, shape)[0] for t in (0, SECOND))
    assert np.array_equal(early, late)
    assert not np.array_equal(early, errors(fixed, noise, "receive", 0, shape)[0])


def test_drift_is_the_same_however_it_is_asked_for():
    times = 10_000_000 + np.arange(6) * 7_000_000
    whole = kept(aimed(walk_rad=5.0), times)
    front = aimed(walk_rad=5.0)
    assert np.array_equal(whole, np.concatenate([kept(front, t) for t in times[::-1]])[::-1])
    assert len(set(whole.tolist())) > 3


def test_a_machine_without_errors_is_the_machine_of_before():
    assert np.array_equal(kept(aimed(), [SECOND]), kept(machine_aimed(), [SECOND]))


def machine_aimed():
    front = machine(SPEC)
    front.set_beam(matched(SPEC, "transmit"), 0)
    return front


def test_the_fault_drift_starts_when_it_strikes_and_no_report_knows():
    front = aimed()
    fault = Fault("drift", "transmit", value=20.0)
    front.inject(fault, 100_000_000)
    front.clear(fault, 300_000_000)
    before, soon, late, after = kept(front, np.array([99_000_000, 101_000_000, 290_000_000, 310_000_000]))
    assert before == pytest.approx(1) and after == pytest.approx(1)  # noqa: PT018 - both ends of one thing
    assert soon > 0.9
    assert late < 0.1  # 20 rad sqrt(0.19) = 8.7 rad rms
    assert front.set_beam(matched(SPEC, "transmit"), 200_000_000).fault == ""


def test_a_stuck_bit_acts_on_the_word():
    spec = nameplate(transmit=half(phase_bits=3))
    front = machine(spec)
    beam = matched(spec, "transmit")
    beam = type(beam)(
        **{n: getattr(beam, n) for n in beam.__slots__}
        | {"phase_rad": beam.phase_rad * 0 + np.arange(64) % 8 * np.pi / 4}
    )
    front.set_beam(beam, 0)
    for value, expected in ((1.0, lambda word: word | 2), (0.0, lambda word: word & 5)):
        fault = Fault("stuck_bit", "transmit", element=3, value=value, bit=1)
        front.inject(fault, SECOND)
        response = front.emit(frames([SECOND], np.ones(8))).response[0, 0, :, 0]
        word = np.rint(np.mod(np.angle(response), 2 * np.pi) / (np.pi / 4)).astype(int) % 8
        assert word[3] == expected(3)
        assert np.array_equal(np.delete(word, 3), np.delete(np.arange(64) % 8, 3))
        front.clear(fault, SECOND)
    with pytest.raises(Misuse, match=r"fault.bit = 3"):
        front.inject(Fault("stuck_bit", "transmit", value=1.0, bit=3), SECOND)


def test_a_late_command_is_late_and_says_so():
    front = machine_aimed()
    usual = front.set_beam(matched(SPEC, "transmit"), SECOND)
    front.inject(Fault("late_command", "transmit", value=2e-3), 2 * SECOND)
    late = front.set_beam(matched(SPEC, "transmit"), 2 * SECOND)
    assert late.effective_ns - late.accepted_ns == usual.effective_ns - usual.accepted_ns + 2_000_000
    assert "late command by 0.002 s" in late.fault


def test_a_cut_connection_refuses_every_verb_until_it_is_mended():
    front = machine_aimed()
    cut = Fault("connection_cut", "transmit")
    front.inject(cut, SECOND)
    front.clear(cut, 2 * SECOND)
    drive = frames([3 * SECOND // 2], np.ones(8))
    for verb in (
        lambda: front.set_beam(matched(SPEC, "receive"), SECOND),
        lambda: front.emit(drive),
        lambda: (
            front.receive(
                [(front.emit(frames([2 * SECOND], np.ones(8))), echo_path())],
                Listen(t_ns=np.array([2 * SECOND]), slot=np.zeros(1, int), bandwidth_hz=1e6),
            )
            and front.emit(frames([SECOND, 3 * SECOND], np.ones(8)))
        ),
    ):
        with pytest.raises(RemoteFault, match=r"small: the connection is cut at 1[.0-9]*"):
            verb()
    assert kept(front, 2 * SECOND) == pytest.approx(1.0)  # the beam it had


def test_what_a_machine_cannot_suffer_is_refused():
    front = machine_aimed()
    with pytest.raises(Misuse, match="no calibration to lose"):
        front.inject(Fault("calibration_lost", "transmit"), 0)
    with pytest.raises(Misuse, match="must be >= 0"):
        front.inject(Fault("drift", "transmit", value=-1.0), 0)
