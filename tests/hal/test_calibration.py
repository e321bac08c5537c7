"""Calibration over the air: its law in noise, its floor in quantisation, its file, and what it is refused for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small import CARRIER_HZ, LIGHT_MPS, echo_path, frames, half, machine, matched, nameplate, noise

from hal.ageing import Ageing, errors
from hal.array import direction_from, fraunhofer_distance_m
from hal.calibration import (
    Calibrated,
    Errors,
    Probe,
    calibrate,
    fingerprint,
    load,
    measure,
    residual,
    save,
    simulated_instrument,
)
from hal.errors import Misuse
from hal.medium import beam_gains
from hal.memory import Fault

OFF = Ageing(phase_error_rad=0.8, gain_error_db=1.0)


def bench(spec, power_w=0.1, distance_m=20.0, **sim):
    direction = direction_from(np.array(0.3), np.array(-0.1))
    x, y, z = (direction * distance_m).tolist()
    probe = Probe(point_m=(x, y, z), gain=LIGHT_MPS / CARRIER_HZ / (4 * np.pi * distance_m), power_w=power_w)
    return machine(spec, noise, **{"ageing": OFF, **sim}), probe, simulated_instrument(probe, spec, noise)


def truth(spec, which):
    phase, ratio = errors(OFF, noise, which, 0, getattr(spec, which).network.wired.shape)
    return ratio * np.exp(1j * phase)


def aligned(found, true):
    """The estimate brought to the truth's common factor."""
    return found * np.vdot(found, true) / np.vdot(found, found)


@pytest.mark.parametrize("which", ["transmit", "receive"])
@pytest.mark.parametrize("shape", [(8, 8), (6, 5)])
def test_both_halves_are_found_as_they_are(which, shape):
    network = {"chains": 2, "connection": "partial"} if which == "transmit" else {"chains": 2}
    spec = nameplate(**{which: half(*shape, slots=7, phase_bits=4, **network)})
    front, probe, instrument = bench(spec)
    found, _ = measure(front, which, probe, instrument, 0)
    wired = getattr(spec, which).network.wired
    true = truth(spec, which)
    off = np.abs(aligned(found.error[wired], true[wired]) - true[wired]) / np.sqrt(found.variance[wired])
    assert np.max(off) < 4.5
    assert np.max(found.variance[wired]) < 2e-3
    assert np.array_equal(np.isinf(found.variance), ~wired)


def test_the_error_falls_with_snr_as_the_covariance_says():
    spec = nameplate(receive=half(8, 8, chains=1, phase_bits=0))
    true, seen = truth(spec, "receive")[0], []
    for power_w in (1e-4, 1e-3, 1e-2, 1e-1):
        front, probe, instrument = bench(spec, power_w)
        found, _ = measure(front, "receive", probe, instrument, 0, repeats=4)
        miss = aligned(found.error[0], true) - true
        # found.variance is of the normalised estimate; scale it as the alignment does
        scale = np.abs(np.vdot(found.error[0], true) / np.vdot(found.error[0], found.error[0])) ** 2
        seen.append(float(np.mean(np.abs(miss) ** 2)))
        assert seen[-1] == pytest.approx(float(np.mean(found.variance)) * scale, rel=0.4)
    assert np.diff(np.log10(seen)) == pytest.approx(-1.0, abs=0.3)  # 1 / SNR


@pytest.mark.parametrize("bits", [3, 4, 6])
def test_what_is_left_after_correction_is_quantisation(bits):
    spec = nameplate(transmit=half(16, 16, phase_bits=bits))
    front, probe, instrument = bench(spec)
    found, t_ns = calibrate(front, probe, instrument)
    assert residual(found.transmit).phase_rms_rad == pytest.approx(0.8, rel=0.15)
    after, _ = calibrate(Calibrated(front, found), probe, instrument, t_ns)
    left = residual(after.transmit)
    assert left.phase_rms_rad == pytest.approx(2 * np.pi / 2**bits / np.sqrt(12), rel=0.15)
    assert left.noise_rad < 0.2 * left.phase_rms_rad
    assert left.dead == 0


def test_the_gain_comes_back_in_directions_that_were_not_measured():
    spec = nameplate(transmit=half(16, 16))
    front, probe, instrument = bench(spec)
    found, t_ns = calibrate(front, probe, instrument)
    elsewhere = direction_from(np.array(-0.6), np.array(0.2))

    def gain(machine_, t):
        machine_.set_beam(matched(spec, "transmit", elsewhere), t)
        drive = frames([t + 1_000_000], np.ones(8))
        sent = machine_.emit(drive)
        return (
            np.abs(
                beam_gains(echo_path(direction=elsewhere), spec.transmit.array, sent.response, drive.frequency_hz)[
                    0, 0, 0, 0
                ]
            )
            ** 2
        )

    before, after = gain(front, t_ns), gain(Calibrated(front, found), t_ns + 5_000_000)
    true = truth(spec, "transmit")
    best = np.abs(true).sum() ** 2 / 256
    assert before / best == pytest.approx(np.exp(-(0.8**2)), abs=0.12)
    assert after / best > 0.995


def test_the_report_is_told_in_terms_of_the_corrected_array():
    spec = nameplate()
    front, probe, instrument = bench(spec)
    found, t_ns = calibrate(front, probe, instrument)
    beam = matched(spec, "transmit", direction_from(np.array(0.4), np.array(0.1)))
    report = Calibrated(front, found).set_beam(beam, t_ns)
    assert report.setpoint is beam
    off = np.abs(np.mod(report.readback.phase_rad - beam.phase_rad + np.pi, 2 * np.pi) - np.pi)
    assert off.max() <= np.pi / 64 * (1 + 1e-9)  # half a step of six bits


def test_equalising_trades_gain_for_even_amplitudes():
    spec = nameplate(transmit=half(phase_bits=0))
    front, probe, instrument = bench(spec)
    found, t_ns = calibrate(front, probe, instrument)
    after, _ = calibrate(Calibrated(front, found, equalise=True), probe, instrument, t_ns)
    assert residual(found.transmit).gain_rms_db == pytest.approx(1.0, rel=0.3)
    assert residual(after.transmit).gain_rms_db < 0.1  # twice the noise of the measurement


def test_dead_elements_are_found_and_left_alone():
    spec = nameplate()
    front, probe, instrument = bench(spec)
    for element in (3, 40):
        front.inject(Fault("dead_element", "transmit", element), 0)
    found, _ = calibrate(front, probe, instrument)
    assert residual(found.transmit).dead == 2
    assert np.flatnonzero(np.abs(found.transmit.error[0]) < 0.1).tolist() == [3, 40]


def test_calibration_lost_and_restored():
    spec = nameplate(transmit=half(16, 16))
    front, probe, instrument = bench(spec)
    found, t_ns = calibrate(front, probe, instrument)
    wrapped = Calibrated(front, found)
    fault = Fault("calibration_lost", "transmit")
    wrapped.inject(fault, t_ns + 10_000_000)
    wrapped.clear(fault, t_ns + 20_000_000)
    told = [wrapped.set_beam(matched(spec, "transmit"), t_ns + k * 10_000_000) for k in range(3)]
    assert [report.fault for report in told] == ["", "transmit calibration lost", ""]
    levels = []
    for report in told:
        drive = frames([report.effective_ns + 1000], np.ones(8))
        sent = wrapped.emit(drive)
        levels.append(
            np.abs(beam_gains(echo_path(), spec.transmit.array, sent.response, drive.frequency_hz)[0, 0, 0, 0]) ** 2
        )
    assert levels[1] < 0.75 * levels[0]
    assert levels[2] == pytest.approx(levels[0])


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_file_holds_every_bit(tmp_path, suffix):
    spec = nameplate()
    front, probe, instrument = bench(spec)
    found, _ = calibrate(front, probe, instrument)
    save(found, tmp_path / f"c{suffix}")
    back = load(tmp_path / f"c{suffix}", spec)
    for which in ("transmit", "receive"):
        assert np.array_equal(getattr(back, which).error, getattr(found, which).error)
        assert np.array_equal(getattr(back, which).variance, getattr(found, which).variance)


def test_another_array_another_version_and_nonsense_are_refused(tmp_path):
    spec = nameplate()
    front, probe, instrument = bench(spec)
    found, _ = calibrate(front, probe, instrument)
    path = tmp_path / "c.json"
    save(found, path)
    for other in (
        nameplate(name="other"),
        nameplate(transmit=half(8, 8, phase_bits=5)),
        nameplate(transmit=half(4, 16)),
    ):
        with pytest.raises(Misuse, match="measure again"):
            load(path, other)
        with pytest.raises(Misuse, match="geometry, wiring, carrier and name"):
            Calibrated(machine(other), found)
    moved = replace(spec, transmit=replace(spec.transmit, array=replace(spec.transmit.array, origin_m=np.ones(3))))
    assert fingerprint(moved) == fingerprint(spec)
    path.write_text(path.read_text().replace('"version": 1', '"version": 9'))
    with pytest.raises(Misuse, match="version 9"):
        load(path, spec)
    for text in ("", "{}", "[1]", '{"version": "x"}'):
        path.write_text(text)
        with pytest.raises(Misuse, match="cannot be read as a calibration"):
            load(path, spec)
    with pytest.raises(Misuse, match="written as"):
        save(found, tmp_path / "c.txt")
    with pytest.raises(Misuse, match="cannot be read"):
        load(tmp_path / "none.npz", spec)


def test_a_probe_in_the_far_field_is_needed_for_the_bench_to_mean_anything():
    assert fraunhofer_distance_m(nameplate().transmit.array, CARRIER_HZ) < 20


def test_residual_of_a_perfect_array_is_nothing():
    r = residual(Errors(error=np.ones((2, 4), complex), variance=np.zeros((2, 4))))
    assert (r.phase_rms_rad, r.gain_rms_db, r.array_gain_db, r.dead) == (0.0, 0.0, 0.0, 0)
