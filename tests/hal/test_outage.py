"""Riding out a machine that does not answer: the dark, the silence, and the end of patience."""

from __future__ import annotations

import numpy as np
import pytest
from small import CARRIER_HZ, echo_path, frames, half, heard, machine, matched, nameplate

from hal.chain import thermal_noise_w
from hal.errors import LateArrival, RemoteFault
from hal.frontend import Drive
from hal.memory import Fault
from hal.outage import Patient

MS = 1_000_000
CUT = Fault("connection_cut", "transmit")


def cut(patience_ns=20 * MS, **sim):
    front = machine(nameplate(receive=half(chains=1)), **sim)
    for which in ("transmit", "receive"):
        front.set_beam(matched(front.spec, which), 0)
    front.inject(CUT, 10 * MS)
    front.clear(CUT, 20 * MS)
    return Patient(front, patience_ns), front


@pytest.mark.parametrize("saturation_w", [np.inf, 1.0])
def test_events_in_the_cut_are_dark_and_the_others_as_ever(saturation_w):
    patient, _ = cut(saturation_w=saturation_w)
    t_ns = np.array([5, 9, 11, 15, 19, 21]) * MS
    got = heard(patient, frames(t_ns, np.ones(16)), echo_path()).samples
    assert np.array_equal(np.abs(got[:, 0, 0]) > 0, [True, True, False, False, False, True])
    whole = heard(cut()[1], frames(t_ns[[0]], np.ones(16)), echo_path()).samples if np.isinf(saturation_w) else got[:1]
    assert np.array_equal(got[:1], whole)
    parts = [
        heard(cut(saturation_w=saturation_w)[0], frames(t, np.ones(16)), echo_path()).samples
        for t in (t_ns[:3], t_ns[3:])
    ]
    assert np.array_equal(got, np.concatenate(parts))


def test_silence_has_the_nameplates_noise():
    patient, _ = cut()
    drive = Drive(
        t_ns=np.array([15 * MS]),
        slot=np.zeros(1, int),
        frequency_hz=np.array([CARRIER_HZ]),
        power_w=np.ones((1, 1)),
        digital=np.ones((1, 1, 1), complex),
    )
    got = heard(patient, drive, echo_path(source=3), source=3)
    assert not got.samples.any()
    assert got.noise_w == thermal_noise_w(1e5, 10.0)


def test_a_load_nobody_confirmed_says_so():
    patient, front = cut()
    report = patient.set_beam(matched(front.spec, "transmit"), 15 * MS)
    assert report.readback is None
    assert "no answer" in report.fault
    assert patient.set_beam(matched(front.spec, "transmit"), 25 * MS).readback is not None


def test_patience_ends():
    patient, front = cut(patience_ns=3 * MS)
    patient.set_beam(matched(front.spec, "transmit"), 11 * MS)
    patient.set_beam(matched(front.spec, "transmit"), 14 * MS)
    with pytest.raises(RemoteFault, match="connection is cut"):
        patient.set_beam(matched(front.spec, "transmit"), 15 * MS)


def test_a_late_answer_loses_its_whole_batch_and_is_asked_for_once():
    patient, front = cut()
    calls = []

    def late(drive):
        calls.append(len(drive.t_ns))
        raise LateArrival("peer: nothing in 1 s")

    front.emit = late
    emission = patient.emit(frames(np.arange(4) * MS, np.ones(16)))
    assert calls == [4]
    assert not emission.response.any()
    assert len(emission.row) == 4


def test_everything_else_is_passed_on():
    patient, front = cut()
    assert patient.spec is front.spec
    patient.close()
    with pytest.raises(ValueError, match="closed"):
        front.emit(frames([0], np.ones(16)))
