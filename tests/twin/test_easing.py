from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from twin.build import Twin
from twin.easing import eased
from twin.engine import Engine
from twin.precoding.direct import Direct
from twin.record import read
from twin.scenario import load, loads
from twin.verify import verify

SMOKE = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"


def test_only_searches_are_cut_short():
    full = load(SMOKE, {"precoder.kind": "direct"})
    less = eased(full)
    assert (less.sensing.detector.cycles, full.sensing.detector.cycles) == (1, 4)
    assert less.sites["bs0"].control.precoding == replace(Direct(), starts=1, iterations=25, rounds=1)
    assert replace(less, sites=full.sites, sensing=full.sensing) == full
    assert less.sensing == replace(full.sensing, detector=less.sensing.detector)
    assert eased(less) == less


@pytest.fixture
def late_from_5_to_9(monkeypatch):
    """An engine whose subframes 5 .. 9 are late, by no clock at all."""

    def pace(self, t_ns):
        self.ledger.turn(5_000_000)
        self.eased = 5 <= t_ns // 5_000_000 - 1 < 10
        return 0

    monkeypatch.setattr(Engine, "pace", pace)


def test_what_is_eased_is_recorded_and_the_run_can_be_had_again(tmp_path, late_from_5_to_9):
    scenario = load(SMOKE, {"clock.overrun": "ease"})
    folder = tmp_path / "run"
    folder.mkdir()
    cycles = []
    with Twin(scenario, "t", folder, keep=True) as twin:
        watch = twin.watch
        twin.watch = lambda subframe, site: (cycles.append(twin.chain.parts.detector.cycles), watch(subframe, site))
        assert not twin.play(split=False, progress=False)
        twin.finish(False)
    assert cycles == [4] * 7 + [1] * 5 + [4] * 8
    changes = [(t_ns, loads(data["scenario"])) for _, t_ns, data in read(folder / "recording.mcap", "bs0.change.")]
    assert [t_ns for t_ns, _ in changes] == [35_000_000, 60_000_000]
    assert [told.sensing.detector.cycles for _, told in changes] == [1, 4]
    assert verify(folder)["equal"]


def test_who_changed_something_meanwhile_is_not_overruled(late_from_5_to_9):
    with Twin(load(SMOKE, {"clock.overrun": "ease"})) as twin:
        mine = load(SMOKE, {"sensing.detector.cycles": 2})
        watch = twin.watch

        def changed(subframe, site):
            watch(subframe, site)
            if subframe.k == 8:
                twin.change(mine)

        twin.watch = changed
        twin.play(split=False, progress=False)
        assert twin.scenario is mine
        assert twin.chain.parts.detector.cycles == 2
        assert np.isfinite(twin.engine.now)
