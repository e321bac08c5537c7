"""Data frames: theory in white noise for all waveforms, the equaliser's own prediction in a fading channel, and the loop's key figures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hal.errors import Misuse
from twin.build import run
from twin.link import Link
from twin.physics.constellations import BITS, bit_error_rate, decided, mapped
from twin.physics.doubly_selective import through
from twin.registry import kinds

SMOKE = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"
WAVEFORMS = {name: cls() for name, cls in kinds("twin.waveforms").items()}


def link(name: str, **fields: Any) -> Link:
    return Link(waveform=WAVEFORMS[name], **{"delay_bins": 32, "doppler_bins": 8, "prefix_samples": 8, **fields})


def frame(given: Link) -> Any:
    return SimpleNamespace(
        delay_bins=given.delay_bins, doppler_bins=given.doppler_bins, roll_off=given.roll_off, pulse_span=10
    )


def played(
    given: Link, snr_db: float, delay: Any, doppler: Any, gain: Any, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Symbols sent and seen."""
    rng = np.random.default_rng(5)
    channel = given.passage(delay, doppler, gain)
    bits = rng.integers(0, 2, (count, given.frame_bits)).astype(bool)
    power, shape = 10 ** (-snr_db / 10), (count, given.delay_bins * given.doppler_bins)
    noise = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) * np.sqrt(power / 2)
    seen = given.receive(channel, through(channel, given.send(bits, frame(given))) + noise, power, frame(given))
    return mapped(bits, given.modulation), seen.reshape(count, -1)


def error_rate(sent: np.ndarray, seen: np.ndarray, modulation: str) -> float:
    return float((decided(sent, modulation) != decided(seen, modulation)).mean())


@pytest.mark.parametrize(("modulation", "snr_db"), [("qpsk", 7.0), ("16qam", 13.0), ("64qam", 19.0)])
@pytest.mark.parametrize("name", sorted(WAVEFORMS))
def test_white_noise_gives_theory_whatever_the_waveform(name: str, modulation: Any, snr_db: float) -> None:
    given = link(name, modulation=modulation)
    sent, seen = played(given, snr_db, [0.0], [0.0], [1.0], 100)
    theory = float(bit_error_rate(10 ** (snr_db / 10), modulation))
    deviation = np.sqrt(theory / (sent.size * BITS[modulation]))
    assert error_rate(sent, seen, modulation) == pytest.approx(theory, abs=6 * deviation)
    assert np.mean(np.abs(seen - sent) ** 2) == pytest.approx(10 ** (-snr_db / 10), rel=0.05)


@pytest.mark.parametrize("name", ["oddm", "otfs", "dft_s_oddm"])
def test_in_a_doubly_selective_channel_the_dense_estimate_predicts_the_rate(name: str) -> None:
    # the unbiased MMSE estimate is Gaussian about its symbol with SINR mu / (1 - mu), mu the mean of diag((H^H H + noise)^-1 H^H H)
    given, snr_db = link(name, modulation="16qam"), 17.0
    paths = ([0.0, 3.3, 6.1], [0.004, -0.009, 0.012], [0.8, 0.5, 0.33])
    H = through(given.passage(*paths), np.eye(256)).T
    gram, power = H.conj().T @ H, 10 ** (-snr_db / 10)
    mu = np.trace(np.linalg.solve(gram + power * np.eye(256), gram)).real / 256
    sent, seen = played(given, snr_db, *paths, 150)
    assert np.mean(np.abs(seen - sent) ** 2) == pytest.approx(1 / mu - 1, rel=0.06)
    slope = np.vdot(sent, seen).real / np.vdot(sent, sent).real
    assert slope == pytest.approx(1, abs=0.01)  # no bias is left
    theory = float(bit_error_rate(mu / (1 - mu), "16qam"))
    assert error_rate(sent, seen, "16qam") == pytest.approx(theory, rel=0.2)


def test_one_tap_fails_where_doppler_is_high_and_mmse_does_not() -> None:
    paths = ([0.0, 5.0], [0.3 / 32, -0.3 / 32], [0.9, 0.4])
    blind, aware = (
        np.mean(np.abs(np.subtract(*played(link("ofdm", equaliser=e), 25.0, *paths, 10))) ** 2)
        for e in ("one_tap", "mmse")
    )
    assert aware < 0.1 < blind


def test_delay_beyond_the_prefix_and_doppler_beyond_the_grid_are_refused() -> None:
    with pytest.raises(Misuse, match=r"delay\[1\] = 8.5: must lie in 0 .. 8 samples"):
        link("oddm").passage([0.0, 8.5], [0.0, 0.0], [1, 1])
    with pytest.raises(Misuse, match=r"doppler\[0\] = 0.016: must lie in -0.015625 .. 0.015625"):
        link("oddm").passage([0.0], [0.016], [1])


DATA = {"communication.fidelity": "waveform", "duration_s": 0.03, "sensing.fidelity": "bound"}


def test_loop_plays_frames_whose_error_is_the_snr_where_the_channel_is_flat() -> None:
    # line of sight alone, and little bandwidth: no ring, no squint
    flat = {**DATA, "channel.rays": 0, "communication.bandwidth_ghz": 0.1}
    done = run(SMOKE, {**flat, "communication.noise_figure_db": 20}, write=False)
    np.testing.assert_array_equal(done.kpi.data_bits, done.kpi.served_blocks * 2048)
    late = done.kpi.k >= 3
    np.testing.assert_allclose(done.kpi.evm_db[late], -done.kpi.snr_db[late], atol=0.3)
    assert all(user["evm_db"] is not None for user in done.summary["users"].values())


def test_loop_s_frames_change_nothing_else_and_do_not_depend_on_how_blocks_are_batched() -> None:
    plain = run(SMOKE, {**DATA, "communication.fidelity": "abstract"}, write=False)
    done, split = (run(SMOKE, DATA, write=False, split=s) for s in (False, True))
    np.testing.assert_array_equal(plain.kpi.rate_bps, done.kpi.rate_bps)
    assert done.summary["run"]["hash"] == split.summary["run"]["hash"]
    assert "ber" not in next(iter(plain.summary["users"].values()))
    assert plain.kpi.ber[0] is None
    assert np.isfinite(done.kpi.ber[-1]).all()


def test_loop_says_what_to_do_about_a_prefix_that_is_too_short() -> None:
    with pytest.raises(Misuse, match=r"communication\.link\.prefix_samples = 1: user \d+'s last path comes"):
        run(SMOKE, {**DATA, "communication.link.prefix_samples": 1}, write=False)
