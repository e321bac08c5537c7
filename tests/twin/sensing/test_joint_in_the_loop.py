"""The joint detector on what the simulated machine hears: the same movers as the single-stream detector, and plain words for bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hal.errors import Misuse
from twin.build import run
from twin.sensing.glrt import Glrt
from twin.sensing.joint import Joint
from twin.sensing.three_step import ThreeStep

SCENARIO = Path(__file__).parents[3] / "scenarios" / "paper001.yaml"


@pytest.fixture(scope="module")
def observed():
    """Observations of paper001's first subframes, as the controller gets them, and the run they are of."""
    seen, detect = [], Joint.detect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Joint,
            "detect",
            lambda self, echo, tracks: (seen.append((self, echo, tracks)), detect(self, echo, tracks))[1],
        )
        played = run(SCENARIO, {"duration_s": 0.03}, write=False)
    return seen, played


def test_the_run_is_honest(observed):
    kpi = observed[1].kpi
    assert np.nansum(kpi.detections) > 5
    assert np.sum(kpi.false_alarms) == 0
    assert np.sum(kpi.missed) == 0
    own = kpi.nees[np.isfinite(kpi.nees)]
    assert len(own) > 2
    assert np.mean(own) < 4 + 5 * np.sqrt(8 / len(own))


def test_both_detectors_say_the_same(observed):
    compared = 0
    for ours, echo, tracks in observed[0]:
        found = ours.detect(echo, tracks)
        other = Glrt(max_speed_mps=100.0, max_range_m=100.0, max_targets=2).detect(echo, tracks)
        if len(found.value) == len(other.value) == 1:
            compared += 1
            sigma = np.sqrt(np.diag(other.covariance[0]))
            assert np.all(np.abs(found.value[0] - other.value[0]) < 0.5 * sigma)
    assert compared > 5


def test_three_steps_play_the_same_role(observed):
    ours, echo, tracks = next(one for one in observed[0] if len(one[0].detect(one[1], one[2]).value) == 1)
    value = ours.detect(echo, tracks).value[0]
    paper = ThreeStep(max_speed_mps=100.0, max_range_m=100.0, order="exact").detect(echo, tracks)
    assert np.all(np.abs(paper.value[0] - value) < np.sqrt(np.diag(paper.covariance[0])))
    many = replace(echo, numerology=replace(echo.numerology, frames_per_dwell=2))
    with pytest.raises(Misuse, match="echo: has 1 events, must be whole dwells of 2 frames"):
        ours.detect(many, tracks)


def test_bad_samples_are_named(observed):
    ours, echo, tracks = observed[0][0]
    samples = np.array(echo.echo.samples)
    samples[0, 1, 7] = np.nan
    with pytest.raises(Misuse, match=r"echo.samples\[0, 1, 7\] = .*nan.*: must be finite"):
        ours.detect(replace(echo, echo=replace(echo.echo, samples=samples)), tracks)
    silent = replace(echo, drive=replace(echo.drive, samples=np.zeros_like(echo.drive.samples)))
    with pytest.raises(Misuse, match=r"drive.samples: a stream of dwell 0 is zero"):
        ours.detect(silent, tracks)
    with pytest.raises(Misuse, match="frames_per_dwell = 0: must be at least 1"):
        ours.detect(replace(echo, numerology=replace(echo.numerology, frames_per_dwell=0)), tracks)
    short = replace(echo, numerology=replace(echo.numerology, prefix_ns=10))
    with pytest.raises(
        Misuse, match=r"min_range_m = 5: must be below 1\.49896 m, max_range_m or what the prefix of 10 ns covers"
    ):
        ours.detect(short, tracks)
    assert len(ours.detect(replace(echo, drive=None, detections=None), tracks).value) == 0
