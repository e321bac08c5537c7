"""Combiners as settings of the receive network: what the machine hears, what tapers cost, and what each is worth in the loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.array import Ula, Upa, steering
from hal.errors import Misuse
from hal.frontend import HalfSpec
from hal.network import Network, quantise, response
from twin.build import run
from twin.facts import facts
from twin.planning._rows import squinted, unit
from twin.precoding.delay_phase import steer
from twin.registry import make, names
from twin.scenario import load, loads
from twin.sensing.joint import Joint

CARRIER = 100e9
SCENARIOS = Path(__file__).parents[3] / "scenarios"


def half(network: Network | None = None, array: Upa | Ula | None = None) -> HalfSpec:
    built = (array or Upa(8, 8)).build(CARRIER, np.zeros(3), np.eye(3))
    wiring = network or Network(chains=4, delay_lines=None, phase_bits=0)
    return HalfSpec(array=built, network=wiring.build(built.columns, built.rows), memory_slots=8)


def heard(made: HalfSpec, kind: str, centre: np.ndarray, **parameters) -> np.ndarray:
    """The machine's response to rows about ``centre``, [row element chain]."""
    asked = squinted(made, CARRIER, centre, 0.3)
    found = replace(make("twin.combining", kind), **parameters).settings(made, asked, centre, CARRIER)
    taken = quantise(made.network, found.delay_s, found.phase_rad, found.amplitude)
    assert taken[3] == 0, "nothing is out of range"
    return response(made.network, *taken[:3], np.array([CARRIER]))[:, 0]


@pytest.mark.parametrize("kind", [k for k in names("twin.combining") if not k.startswith(("random", "squinted"))])
@settings(deadline=None, max_examples=8)
@given(uy=st.floats(-0.6, 0.6), uz=st.floats(-0.6, 0.6))
def test_a_sweep_regenerates_the_combiner(kind, uy, uz):
    """papers/001 section IV-C: what a regenerated row hears from its centre and about it is what the design heard straight ahead."""
    made = half()
    few = {"population": 20, "generations": 3} if kind == "genetic" else {}
    centre, ahead = unit(np.array([[uy, uz]])), np.array([[1.0, 0.0, 0.0]])
    away = np.array([[0.0, 0.0], [0.07, -0.03], [-0.11, 0.02]])
    there = (
        heard(made, kind, centre, **few)[0].T @ steering(made.array, unit(away + centre[:, 1:]), np.float64(CARRIER)).T
    )
    here = heard(made, kind, ahead, **few)[0].T @ steering(made.array, unit(away), np.float64(CARRIER)).T
    np.testing.assert_allclose(there, here, atol=1e-9)


@pytest.mark.parametrize("kind", names("twin.combining"))
@pytest.mark.parametrize(
    "network",
    [Network(chains=4, delay_lines=(4, 4)), Network(chains=4, connection="partial", phase_bits=5, amplitude_bits=5)],
)
def test_rows_for_pilots_are_left_as_asked(kind, network):
    made = half(network)
    asked = squinted(made, CARRIER, unit(np.array([[0.2, 0.1], [-0.3, 0.0]])), 0.3)
    centre = np.array([[np.nan] * 3, unit(np.array([-0.3, 0.0]))])
    few = {"population": 20, "generations": 3} if kind == "genetic" else {}
    found = replace(make("twin.combining", kind), **few).settings(made, asked, centre, CARRIER)
    plain = steer(made, asked, CARRIER)
    for name in ("delay_s", "phase_rad", "amplitude"):
        np.testing.assert_array_equal(getattr(found, name)[0], getattr(plain, name)[0])
    assert np.all((found.amplitude >= 0) & (found.amplitude <= 1))
    same = all(np.array_equal(getattr(found, n)[1], getattr(plain, n)[1]) for n in ("phase_rad", "amplitude"))
    assert same == (kind == "squinted")


def test_what_tapers_cost_is_told():
    """A taper y keeps mean(y^2) / max(y^2) = (n + 1) / (3 (n - 1)) of a derivative's signal; its termination gives all of the noise back."""

    def told(kind: str):
        scenario = load(SCENARIOS / "paper001.yaml", {"sites.bs0.control.combining": kind})
        return next(fact for fact in facts(scenario) if fact.name == "combiner")

    assert told("closed_form").value == pytest.approx(-10 * np.log10(33 / (3 * 31)), abs=0.01)
    assert "attenuators take 9.0 dB" in told("closed_form").note
    assert 0 <= told("squinted").value < 0.1
    assert "take 0.0 dB" in told("squinted").note
    assert told("random_steering").value > 40  # papers/001 section V-C: two orders of magnitude


@pytest.mark.parametrize(
    ("kind", "made", "said"),
    [
        ("closed_form", half(array=Ula(16)), "needs a planar receive array"),
        ("closed_form", half(Network(chains=2, delay_lines=None)), "has 2 chains, this kind takes 3 .. 4"),
        ("unambiguous", half(Network(chains=3, delay_lines=None)), "has 3 chains, this kind takes 4 .. 4"),
        ("genetic", half(Network(chains=2, delay_lines=None)), "has 2 chains, this kind takes 3"),
    ],
)
def test_halves_that_do_not_suit(kind, made, said):
    with pytest.raises(Misuse, match=said):
        heard(made, kind, np.array([[1.0, 0.0, 0.0]]))


def angle_errors(kind: str) -> np.ndarray:
    """Errors in direction cosines of all that the loop's detector finds of papers/001's target, which comes straight towards the array."""
    found, detect = [], Joint.detect
    with pytest.MonkeyPatch.context() as patch:

        def listen(self, echo, tracks):
            found.append(detect(self, echo, tracks))
            return found[-1]

        patch.setattr(Joint, "detect", listen)
        run(
            SCENARIOS / "paper001.yaml",
            {
                "duration_s": 0.022,
                "sites.bs0.control.combining": kind,
                "sensing.detector.lobe_width": 100,
                "sensing.detector.starts": 8,
            },
            write=False,
        )
    return np.concatenate([one.value[:, :2] for one in found]) - [np.sin(np.deg2rad(15)), 0.0]


def test_random_beams_are_wrong_in_the_loop_and_an_ambiguity_free_set_is_right():
    """papers/001 figure 6, all ahead: nothing but the receive network differs between the runs, so the knob is not a label."""
    ours, random = angle_errors("unambiguous"), angle_errors("random_steering")
    assert len(ours) > 3
    assert len(random) > 1
    assert np.sqrt(np.mean(random**2)) > 100 * np.sqrt(np.mean(ours**2))
    assert np.sqrt(np.mean(ours**2)) < 1e-3


def smoke(kind: str, appear_s: float):
    text = (SCENARIOS / "smoke.yaml").read_text(encoding="utf-8").partition("targets:")[0]
    late = f"{{ kind: waypoints, points_m: [[60, 20, 1.5], [60, -20, 1.5]], speed_mps: 8, appear_s: {appear_s} }}"
    made = loads(
        f"{text}targets: [{{ name: late, rcs_m2: 20, mobility: {late} }}]",
        overrides={"duration_s": 0.18, "sites.bs0.control.combining": kind},
    )
    return run(made, write=False).summary["movers"]["late"]


def test_a_new_target_is_found_by_the_regenerated_sweep():
    """The raster of smoke is some 30 cells at a dwell a subframe of 5 ms; every other subframe may go to looks."""
    for kind in ("squinted", "unambiguous"):
        late = smoke(kind, 0.06)
        assert 0 < late["found_s"] <= 0.12, kind
        assert late["found_s"] == pytest.approx(5e-3 * round(late["found_s"] / 5e-3))
    blind = smoke("random_steering", 0.06)
    assert blind["found_s"] is None


def test_bounds_of_a_run_know_the_terminations():
    """The best bound of a look: tapers make it 1 / sqrt(0.355) times that of whole beams, as their own noise comes on top."""

    def best(kind: str) -> float:
        played = run(
            SCENARIOS / "paper001.yaml",
            {"duration_s": 0.02, "sites.bs0.control.combining": kind, "sensing.fidelity": "bound"},
            write=False,
        )
        return float(np.nanmin(played.kpi.bound[:, 0, 0]))

    assert best("closed_form") / best("squinted") == pytest.approx(np.sqrt(3 * 31 / 33), rel=0.03)
