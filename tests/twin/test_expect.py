"""What a scenario promises: each kind of line kept and broken, told with line, time and value, once."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from hal.frontend import Beam, BeamReport
from twin import build
from twin.build import run
from twin.expect import Expectations
from twin.kpi import Kpi
from twin.scenario import ScenarioError, dump, frontend_spec, load, loads

SMOKE = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"
PERIOD = 5_000_000


def scenario(*expect: dict[str, Any], **more: Any) -> Any:
    return load(SMOKE, {"expect": list(expect), **more})


def kpi(k: int, **values: Any) -> Any:
    blank = {f.name: 0 for f in fields(Kpi)}
    users = {"user": np.array([1, 2]), "rate_bps": np.array([2e9, 3e9])}
    movers = {"entity": np.array([1, 2, 3]), "tracked": np.array([0, 1, 2]), "echo_snr_db": np.full(3, 20.0)}
    return Kpi(**{**blank, **users, **movers, "k": k, "t_ns": k * PERIOD, **values})


def subframe(k: int, reports: Any = (), here: Any = (1, 2, 3), **values: Any) -> Any:
    return SimpleNamespace(kpi=kpi(k, **values), reports=list(reports), truth=SimpleNamespace(entity=np.array(here)))


def watched(made: Any, frames: Any, **given: Any) -> list[Any]:
    watcher = Expectations(made, ("near", "far"), frontend_spec(made, "bs0"), **given)
    for one in frames:
        watcher.add(one)
    watcher.finish()
    return watcher.violations


def rates(far_gbps: Any) -> list[Any]:
    return [subframe(k, rate_bps=np.array([5e9, g * 1e9])) for k, g in enumerate(far_gbps)]


def test_a_rate_may_be_low_so_long_and_no_longer() -> None:
    made = scenario({"kind": "rate", "user": "far", "at_least_gbps": 1, "longer_than_ms": 10})
    assert not watched(made, rates([2, 0.5, 0.5, 2, 0.5, 0.5, 2]))
    (broken,) = watched(made, rates([2, 0.5, 0.5, 2, 0.5, 0.4, 0.3, 0.2]))
    assert (broken.t_ns, broken.value, broken.kind) == (6 * PERIOD, 0.3e9, "rate")
    assert "far has 0.3 Gbps, since 0.0200 s below 1" in str(broken)
    assert not watched(scenario({"kind": "rate", "user": "near", "at_least_gbps": 1}), rates([0, 0]))
    assert watched(scenario({"kind": "rate", "at_least_gbps": 1}), rates([0]))
    assert not watched(scenario({"kind": "rate", "at_least_gbps": 1, "after_ms": 5}), rates([0, 2]))
    assert not watched(
        scenario({"kind": "rate", "at_least_gbps": 1}), rates([np.nan, np.nan])
    )  # who is not there is not slow


def report(made: Any, off_rad: float = 0.0, silent: bool = False) -> Any:
    half = frontend_spec(made, "bs0").transmit
    shape = (1, *half.network.wired.shape)
    want = Beam(
        half="transmit",
        slot=np.zeros(1, int),
        delay_s=np.zeros((1, 1, half.network.lines)),
        phase_rad=np.ones(shape),
        amplitude=np.ones(shape),
    )
    got = Beam(
        half="transmit",
        slot=want.slot,
        delay_s=want.delay_s,
        phase_rad=want.phase_rad + 2 * np.pi + off_rad,
        amplitude=want.amplitude,
    )
    return BeamReport(
        setpoint=want,
        readback=None if silent else got,
        accepted_ns=0,
        effective_ns=0,
        clipped=0,
        uncertainty_ns=0,
        fault="hm",
    )


def test_readback_within_half_a_step() -> None:
    made = scenario({"kind": "readback"})
    step = 2 * np.pi / 64
    assert not watched(made, [subframe(0, [("transmit", report(made, 0.499 * step))])])
    (broken,) = watched(
        made,
        [subframe(3, [("transmit", report(made, 0.6 * step))]), subframe(4, [("transmit", report(made, 9 * step))])],
    )
    assert broken.value == pytest.approx(0.6)
    assert broken.t_ns == 3 * PERIOD
    (broken,) = watched(made, [subframe(0, [("transmit", report(made, silent=True))])])
    assert "nothing is read back: hm" in broken.said
    assert not watched(
        scenario({"kind": "readback", "half": "receive"}), [subframe(0, [("transmit", report(made, 1.0))])]
    )


def test_recovery_within_so_many_subframes() -> None:
    fault = [{"kind": "chain_off", "at_ms": 10, "until_ms": 20}]
    made = scenario({"kind": "recovery", "subframes": 3, "share": 0.9}, faults=fault)
    assert not watched(made, rates([5, 5, 0, 0, 1, 1, 5]))
    (broken,) = watched(made, rates([5, 5, -5, -5, 0, 0, 0, 5]))
    assert broken.t_ns == 6 * PERIOD
    assert "3 subframes after the mending the sum rate is 5 Gbps; it was 10 before" in broken.said
    (broken,) = watched(made, rates([5, 5, -5]))
    assert "ended before" in broken.said
    with pytest.raises(ValueError, match="there must be such a fault"):
        watched(scenario({"kind": "recovery", "fault": 1}, faults=fault), [])


def test_movers_followed_on_average() -> None:
    made = scenario({"kind": "alive", "share": 0.7, "after_ms": 5})
    gone, lost = np.array([0, 1, -1]), np.array([-1, -1, -1])
    assert not watched(made, [subframe(0, tracked=lost), subframe(1), subframe(2, tracked=gone)])
    (broken,) = watched(made, [subframe(0), subframe(1), subframe(2, tracked=lost)])
    assert broken.value == 0.5
    assert not watched(made, [subframe(1, tracked=gone, here=(1, 2))])  # who is not there cannot be followed


def test_any_key_figure_within_bounds() -> None:
    made = scenario({"kind": "figure", "name": "beam_delay_us", "at_most": 100})
    (broken,) = watched(made, [subframe(0, beam_delay_us=99.0), subframe(1, beam_delay_us=101.0)])
    assert "beam_delay_us is 101, must be -inf .. 100" in str(broken)
    each = scenario({"kind": "figure", "name": "echo_snr_db", "at_least": 10})
    assert watched(each, [subframe(0, echo_snr_db=np.array([20, 9, np.nan]))])
    assert not watched(each, [subframe(0, echo_snr_db=np.array([20, 11, np.nan]))])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{ kind: rat }", "rate"),
        ("{ kind: rate }", "at_least_gbps: must be given"),
        ("{ kind: figure, name: speed, at_most: 1 }", "is no key figure"),
        ("{ kind: figure, name: lit }", "one of them must be given"),
        ("{ kind: alive, share: 1.5 }", "must be <= 1"),
    ],
)
def test_a_line_that_means_nothing_is_refused_where_it_stands(line: str, said: str) -> None:
    text = SMOKE.read_text(encoding="utf-8") + f"expect:\n  - {line}\n"
    with pytest.raises(ScenarioError, match=said) as caught:
        loads(text, "x.yaml")
    assert caught.value.problems[0].line == text.count("\n")


def test_lines_survive_being_written() -> None:
    made = scenario(
        {"kind": "rate", "user": "near", "at_least_gbps": 1},
        {"kind": "readback"},
        {"kind": "figure", "name": "lit", "at_least": 0},
    )
    assert loads(dump(made)) == made


def test_a_violation_names_its_line_and_junit_is_what_ci_reads(tmp_path: Path) -> None:
    lines = ["expect:", "  - { kind: rate, at_least_gbps: 1 }", "  - { kind: alive, after_ms: 0 }"]
    path = tmp_path / "s.yaml"
    path.write_text(SMOKE.read_text(encoding="utf-8") + "\n".join(lines), encoding="utf-8")
    made = load(path)
    watcher = Expectations(made, ("near", "far"), file=path)
    for one in rates([0, 0, 0]):
        watcher.add(one)
    watcher.finish()
    (broken,) = watcher.violations
    where = path.read_text(encoding="utf-8").splitlines().index(lines[1]) + 1
    assert broken.line == where
    assert str(broken).startswith(f"line {where}: expect[0] rate: at 0.0000 s far has 0 Gbps")
    watcher.junit(tmp_path / "r.xml")
    suite = ElementTree.parse(tmp_path / "r.xml").getroot().find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert [case.find("failure") is not None for case in suite] == [True, False]
    assert watcher.summary()["watched"] == 2
    assert watcher.summary()["violated"][0]["line"] == where


def test_a_real_run_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = [
        {"kind": "lost_command", "at_ms": 60.5, "until_ms": 90.5},
        {"kind": "late_command", "at_ms": 20, "until_ms": 30, "late_ms": 1},
    ]
    made = scenario(
        {"kind": "readback"},
        {"kind": "figure", "name": "beam_delay_us", "at_most": 500},
        {"kind": "recovery", "fault": 0, "subframes": 3},
        {"kind": "alive", "share": 0.5, "after_ms": 50},
        faults=faults,
    )
    watcher = Expectations(made, ("near", "far"), frontend_spec(made, "bs0"))
    watch = build.Twin.watch
    monkeypatch.setattr(build.Twin, "watch", lambda twin, one, site: (watch(twin, one, site), watcher.add(one)))
    run(made, write=False)
    watcher.finish()
    assert [(v.kind, v.t_ns) for v in watcher.violations] == [("figure", 20_000_000), ("readback", 65_000_000)]
