"""One step from a prediction: where the whole fit goes, with the covariance of the whole fit."""

from __future__ import annotations

import numpy as np
import pytest

from hal.array import Upa, direction_from
from hal.errors import Misuse
from twin.physics.combiners import squinted
from twin.physics.delay_doppler import templates
from twin.physics.directions import main_lobe
from twin.physics.hybrid_echo import JointFit, aperture, pattern
from twin.physics.hybrid_track import update

CARRIER, SIZE, ROLL_OFF = 0.3e12, 512, 0.1
ARRAY = Upa(16, 16).build(CARRIER, np.zeros(3), np.eye(3))
AHEAD = direction_from(0.26, 0.05)
W = squinted(ARRAY, AHEAD, CARRIER)
MET = aperture(main_lobe(ARRAY, W.conj(), W.conj().T @ W, CARRIER, 1.0), ARRAY, np.ones((1, 256)))
TRUTH = np.array([AHEAD[1] + 0.01, AHEAD[2] - 0.02, 40.3, 0.0021])
START = np.array([-700.0, 188.0])


def heard(snr_db: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    sent = np.exp(0.5j * np.pi * rng.integers(0, 4, (1, 2, SIZE))).astype(np.complex64)
    spectrum = np.fft.fft(sent).astype(np.complex64)
    wave = templates(spectrum[0], START, TRUTH[2], TRUTH[3], ROLL_OFF)[0]
    data = pattern(MET, TRUTH[None, :2])[0][0, 0][:, None, None] * wave
    data *= np.sqrt(10 ** (snr_db / 10) / np.sum(np.abs(data) ** 2))
    noise = (rng.standard_normal(data.shape) + 1j * rng.standard_normal(data.shape)) * np.sqrt(0.5)
    return sent, spectrum, (data + noise).astype(np.complex64)


def test_a_step_goes_where_the_fit_goes():
    sent, spectrum, data = heard(35.0)
    sigma = np.array([2e-4, 2e-4, 5e-3, 2e-6])
    got = update(data, spectrum, START, ROLL_OFF, MET, TRUTH + 5 * sigma, 1.0)
    work = JointFit(data, sent, START, ROLL_OFF, MET, 1)
    work.add(TRUTH[:2], TRUTH[2], TRUTH[3])
    found = work.fit(1.0)
    whole = np.array([*found.cosine[0], found.delay[0], found.doppler[0]])
    spread = np.sqrt(np.diag(got.covariance))
    assert np.all(np.abs(got.value - whole) < 0.3 * spread)
    expected = np.linalg.inv(found.information)
    np.testing.assert_allclose(spread, np.sqrt(np.diag(expected)), rtol=0.05)
    assert 10 * np.log10(got.snr) == pytest.approx(35, abs=0.5)


def test_errors_are_as_large_as_it_says():
    nees = []
    for seed in range(120):
        _, spectrum, data = heard(30.0, seed)
        got = update(data, spectrum, START, ROLL_OFF, MET, TRUTH, 1.0)
        miss = got.value - TRUTH
        nees.append(miss @ np.linalg.solve(got.covariance, miss))
    assert np.mean(nees) == pytest.approx(4, abs=4 * np.sqrt(8 / 120))


def test_nothing_there_says_so_and_misuse_says_what_to_do():
    _, spectrum, data = heard(-60.0)
    assert update(data, spectrum, START, ROLL_OFF, MET, TRUTH, 1.0).snr < 15
    with pytest.raises(Misuse, match="is of 2 streams, must be one"):
        update(data, np.concatenate([spectrum, spectrum]), START, ROLL_OFF, MET, TRUTH, 1.0)
    with pytest.raises(Misuse, match="data: has shape"):
        update(data[:2], spectrum, START, ROLL_OFF, MET, TRUTH, 1.0)
    with pytest.raises(Misuse, match="noise_w"):
        update(data, spectrum, START, ROLL_OFF, MET, TRUTH, 0.0)
