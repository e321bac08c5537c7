"""Flawed chains in a whole run: data blocks come up against the ceiling that theory gives each flaw, and the rate falls with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hal.chain import image_rejection_db
from hal.distortion import bussgang, leakage
from hal.impairments import Impairments
from twin.build import Run, run

SMOKE = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"
LOUD_DBM, SUBCARRIERS, SPACING_HZ = 80.0, 8, 1e9  # so loud that noise is nowhere


def play(impairments: dict[str, Any] | None, power_dbm: float = LOUD_DBM) -> Run:
    device = {"kind": "sim"} if impairments is None else {"kind": "sim", "impairments": impairments}
    set_to = {"duration_s": 0.02, "sites.bs0.device": device, "sites.bs0.power_dbm": power_dbm}
    return run(SMOKE, set_to, write=False)


@pytest.fixture(scope="module")
def whole() -> Run:
    return play(None)


def oscillator_ceiling() -> float:
    offset = SPACING_HZ * np.subtract.outer(np.arange(SUBCARRIERS), np.arange(SUBCARRIERS))
    power = leakage(Impairments(linewidth_hz=1e7), offset.ravel(), 1 / SPACING_HZ).reshape(offset.shape)
    kept = power[0, 0]
    return float(10 * np.log10(np.mean(kept / (power.sum(axis=1) - kept))))


def converter_ceiling() -> float:
    gain, clip, steps = bussgang(np.array([1.0]), 5, 10 ** (9 / 20))
    return float(10 * np.log10(gain[0] ** 2 / (clip + steps)[0]))


CEILING = {  # the ratio of data to what is no data at the antenna, which is the user's as well, since both take the same beam
    "oscillator": ({"linewidth_hz": 1e7}, oscillator_ceiling),
    "converter": ({"dac_bits": 5, "dac_full_scale_dbm": LOUD_DBM + 9}, converter_ceiling),
    "mixer": (
        {"transmit_iq_gain_db": 1.0, "transmit_iq_phase_deg": 5.0},
        lambda: image_rejection_db(1.0, np.deg2rad(5.0)),
    ),
}


@pytest.mark.parametrize("flaw", CEILING)
def test_a_flaw_is_a_ceiling_on_what_blocks_carry(whole: Run, flaw: str) -> None:
    flaws, ceiling = CEILING[flaw]
    flawed = play(flaws)
    served = np.isfinite(flawed.kpi.snr_db)
    assert served.any()
    assert flawed.kpi.snr_db[served] == pytest.approx(ceiling(), abs=0.1)
    assert whole.kpi.snr_db[served].min() > ceiling() + 10
    assert np.nansum(flawed.kpi.rate_bps) < 0.8 * np.nansum(whole.kpi.rate_bps)


def test_far_below_its_ceiling_a_block_does_not_feel_it() -> None:
    """30 dB below the ceiling the flaw is a thousandth of the noise: the same beams carry the same rate to a per cent."""
    flaws = {"dac_bits": 12, "dac_full_scale_dbm": 47.0}
    rates = [np.nanmean(play(f, 37.0).kpi.rate_bps[1:]) for f in (None, flaws)]
    assert rates[1] == pytest.approx(rates[0], rel=0.02)


def test_flaws_of_nothing_change_not_a_bit(whole: Run) -> None:
    off = play({"oscillator": "chain", "smoothness": 3.0})
    assert np.array_equal(off.kpi.rate_bps, whole.kpi.rate_bps, equal_nan=True)
    assert np.array_equal(off.kpi.predicted_bps, whole.kpi.predicted_bps, equal_nan=True)
