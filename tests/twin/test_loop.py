"""The subframe as a whole: what must hold of any run, and what a cheap imitation would get wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twin import build, loop
from twin.build import Run, run
from twin.physics.draws import Draws
from twin.scenario import load

SMOKE = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"


def smoke(**values: Any) -> Run:
    return run(SMOKE, {k.replace("__", "."): v for k, v in values.items()}, write=False)


@pytest.fixture(scope="module")
def plain() -> Run:
    return smoke()


def test_the_main_job_is_done(plain: Run) -> None:
    late = plain.kpi.k >= 10
    assert np.nanmin(plain.kpi.rate_bps[late]) > 1e9  # every user is served
    assert (plain.kpi.tracked[-1] >= 0).all()  # every mover is followed
    assert np.nanmedian(plain.kpi.position_error_m[late]) < 0.5


def test_same_seed_same_hash_and_another_seed_another(plain: Run) -> None:
    assert smoke().summary["run"]["hash"] == plain.summary["run"]["hash"]
    assert smoke(seed=2).summary["run"]["hash"] != plain.summary["run"]["hash"]


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_same_hash_in_other_processes(plain: Run, hash_seed: str) -> None:
    code = f"from twin.build import run; print(run({str(SMOKE)!r}, write=False).summary['run']['hash'])"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == plain.summary["run"]["hash"]


def test_block_by_block_reaches_the_same_hash(plain: Run) -> None:
    assert run(SMOKE, split=True, write=False).summary["run"]["hash"] == plain.summary["run"]["hash"]


def test_a_fault_in_mid_subframe_splits_the_block_axis_both_ways() -> None:
    # 1.234 ms into subframe 15, inside a block: later blocks of the subframe feel it, earlier ones do not
    half = list(range(32))
    faults = [{"kind": "dead_element", "at_ms": 76.234, "elements": half, "half": "transmit"}]
    whole = run(SMOKE, {"faults": faults}, write=False)
    blocks = run(SMOKE, {"faults": faults}, split=True, write=False)
    assert whole.summary["run"]["hash"] == blocks.summary["run"]["hash"]
    struck = 1_234_000 // load(SMOKE).subframe.block_ns
    for rate in whole.kpi.block_rate_bps[15].T:  # a user
        before, after = rate[: struck + 1], rate[struck + 1 :]
        assert before[before > 0].min() > 1.5 * after[after > 0].mean()


def test_dead_elements_cost_what_physics_says(plain: Run) -> None:
    # half of the elements dark at fixed power an element: amplitude of the sum halves, 6.02 dB
    faults = [{"kind": "dead_element", "at_ms": 0, "elements": list(range(0, 64, 2)), "half": "transmit"}]
    broken = run(SMOKE, {"faults": faults, "sensing.fidelity": "bound"}, write=False)
    whole = smoke(sensing__fidelity="bound")
    late = whole.kpi.k >= 15
    lost_db = np.nanmean(whole.kpi.snr_db[late]) - np.nanmean(broken.kpi.snr_db[late])
    assert lost_db == pytest.approx(6.02, abs=0.5)


def with_air(monkeypatch: pytest.MonkeyPatch, change: Callable[[loop.Air], loop.Air], **values: Any) -> Run:
    """A smoke run whose world or channel was tampered with after the scenario was read."""
    made = loop.Air
    monkeypatch.setattr(build, "Air", lambda **given: change(made(**given)))
    return smoke(**values)


class Muted:
    """A channel whose chosen links lose power from an instant on."""

    def __init__(self, inner: Any, from_ns: int, **factor: float) -> None:
        self.inner, self.from_ns, self.factor = inner, from_ns, factor

    def __getattr__(self, link: str) -> Any:
        whole = getattr(self.inner, link)
        if link not in self.factor:
            return whole

        def quieter(*given: Any) -> Any:
            paths = whole(*given)
            return replace(
                paths, gain=paths.gain * np.where(paths.t_ns[:, None] >= self.from_ns, self.factor[link], 1.0)
            )

        return quieter


def test_without_echoes_and_pilots_tracks_die_and_rates_fall(monkeypatch: pytest.MonkeyPatch, plain: Run) -> None:
    off_ns = 100_000_000
    blind = with_air(
        monkeypatch, lambda air: replace(air, channel=Muted(air.channel, off_ns, echo=0.0, up=0.0)), duration_s=1.2
    )
    before, end = blind.kpi.t_ns < off_ns, blind.kpi.t_ns >= 1_100_000_000
    assert blind.kpi.tracks_confirmed[before].max() >= 3
    assert blind.kpi.tracks_confirmed[end].max() == 0
    assert np.nanmax(blind.kpi.rate_bps[end]) < 0.2 * np.nanmax(blind.kpi.rate_bps[before])


def test_rates_come_from_the_drawn_channel_not_from_the_belief(monkeypatch: pytest.MonkeyPatch, plain: Run) -> None:
    weak = with_air(monkeypatch, lambda air: replace(air, channel=Muted(air.channel, 0, down=0.1)))
    late = plain.kpi.k >= 10
    assert np.allclose(weak.kpi.predicted_bps[late], plain.kpi.predicted_bps[late], equal_nan=True)
    assert np.nanmean(plain.kpi.snr_db[late] - weak.kpi.snr_db[late]) == pytest.approx(20.0, abs=1e-6)


def test_a_wrong_symbol_seed_destroys_detection(monkeypatch: pytest.MonkeyPatch, plain: Run) -> None:
    observe = loop.observed_echo

    def mistaken(air: loop.Air, site: loop.Site, *given: Any) -> Any:
        echo = observe(air, site, *given)
        other = loop.sounding(replace(air, draws=Draws(999)), site, echo.drive.t_ns, int(echo.drive.slot[0]))
        assert not np.allclose(other.samples, echo.drive.samples)
        return replace(echo, drive=replace(echo.drive, samples=other.samples))

    monkeypatch.setattr(loop, "observed_echo", mistaken)
    lost = smoke()
    assert plain.summary["tracks"]["alive_share"] > 0.3
    assert lost.summary["tracks"]["alive_share"] == 0.0
    found = np.abs(lost.kpi.error / lost.kpi.bound)
    assert not (np.nan_to_num(found, nan=99.0) < 5).all(axis=-1).any()  # nothing that is right by anything but chance


def test_another_beam_another_rate(monkeypatch: pytest.MonkeyPatch, plain: Run) -> None:
    latch = loop.latch

    def astray(site: Any, beams: Any, at_ns: int) -> Any:
        if beams is not None and len(beams.transmit_slot):
            ramp = np.linspace(0, np.pi * 8, beams.transmit_phase_rad.shape[-1])
            beams = replace(beams, transmit_phase_rad=beams.transmit_phase_rad + ramp)
        return latch(site, beams, at_ns)

    monkeypatch.setattr(loop, "latch", astray)
    off = smoke()
    late = plain.kpi.k >= 15
    assert np.nanmean(off.kpi.snr_db[late]) < np.nanmean(plain.kpi.snr_db[late]) - 6


def test_another_user_leaves_the_others_channel_untouched() -> None:
    def draws(users: slice) -> dict[int, bytes]:
        scenario = load(SMOKE)
        scenario = replace(scenario, users=scenario.users[users])
        with build.Twin(scenario, "t", None, False) as twin:
            _, _, down, up, _ = loop.surroundings(twin.air, twin.site, 0)
        return {
            int(who): (down.gain[:, down.sink == who].tobytes() + up.gain[:, up.source == who].tobytes())
            for who in np.unique(down.sink)
        }

    both, one = draws(slice(None)), draws(slice(1))
    assert set(one) < set(both)
    assert all(both[who] == bits for who, bits in one.items())


def test_errors_lie_at_their_bound() -> None:
    many = smoke(duration_s=0.8)
    ratio = many.summary["sensing"]["rmse_over_bound"]
    assert all(0.8 < ratio[p] < 1.35 for p in ("uy", "uz", "range_m", "velocity_mps")), ratio
    assert many.summary["sensing"]["nees"] == pytest.approx(4.0, rel=0.3)
