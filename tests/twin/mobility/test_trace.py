from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pytest

from hal.errors import Misuse
from twin.mobility import Motion
from twin.mobility.trace import Trace
from twin.physics.draws import Draws

STREET = Path(__file__).parents[3] / "scenarios" / "traces" / "street.fcd.xml.gz"
USERS = ("east.32", "north.31", "north.32", "south.32", "south.33")
# What `sumo --fcd-output` 1.28.0 writes: angles in degrees clockwise from north.
XML = """<?xml version="1.0" encoding="UTF-8"?>
<fcd-export>
    <timestep time="0.00">
        <vehicle id="a" x="10.00" y="20.00" angle="90.00" type="car" speed="4.00" slope="0.00"/>
    </timestep>
    <timestep time="1.00">
        <vehicle id="a" x="15.00" y="20.00" angle="90.00" type="car" speed="6.00" slope="0.00"/>
        <vehicle id="b" x="0.00" y="0.00" z="2.00" angle="180.00" type="car" speed="3.00" slope="0.00"/>
    </timestep>
    <timestep time="2.00">
        <vehicle id="b" x="0.00" y="-3.00" z="2.00" angle="180.00" type="car" speed="3.00" slope="0.00"/>
        <person id="p" x="1.00" y="1.00" angle="0.00" speed="1.00"/>
    </timestep>
</fcd-export>
"""
FCD_CSV = """timestep_time;vehicle_id;vehicle_x;vehicle_y;vehicle_z;vehicle_angle;vehicle_type;vehicle_speed
0.00;a;10.00;20.00;0.00;90.00;car;4.00
0.50;;;;;;;
1.00;a;15.00;20.00;0.00;90.00;car;6.00
1.00;b;0.00;0.00;2.00;180.00;car;3.00
2.00;b;0.00;-3.00;2.00;180.00;car;3.00
2.00;p;1.00;1.00;0.00;0.00;;1.00
"""
PLAIN_CSV = """time_s,name,x_m,y_m,z_m,vx_mps,vy_mps
0,a,10,20,0,4,0
1,a,15,20,0,6,0
1,b,0,0,2,0,-3
2,b,0,-3,2,0,-3
2,p,1,1,0,0,1
"""


def at(law: Trace, *times_s: float) -> list[Motion]:
    state = law.start(np.arange(len(law.movers())), Draws(0))
    return [law.at(state, round(t * 1e9))[1] for t in times_s]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [("t.xml", XML), ("t.fcd.xml.gz", XML), ("t.csv", FCD_CSV), ("t.csv.gz", FCD_CSV), ("own.csv", PLAIN_CSV)],
)
def test_every_format_tells_the_same(tmp_path: Path, name: str, text: str) -> None:
    law = Trace(path=write(tmp_path, name, text), origin_m=(100.0, -50.0), height_m=0.5)
    assert law.movers() == ("a", "b", "p")
    early, middle, one, late, gone = at(law, 0.0, 0.5, 1.0, 1.25, 2.1)
    assert early.present.tolist() == [True, False, False]
    np.testing.assert_allclose(early.position_m[0], [110.0, -30.0, 0.5], atol=1e-12)
    # Speed rises evenly from 4 to 6 m/s: 10 + 4 t + t^2.
    np.testing.assert_allclose(middle.position_m[0], [112.25, -30.0, 0.5], atol=1e-12)
    np.testing.assert_allclose(middle.velocity_mps[0], [5.0, 0.0, 0.0], atol=1e-12)
    assert one.present.tolist() == [True, True, False]
    np.testing.assert_allclose(one.velocity_mps[0], [6.0, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(late.position_m[1], [100.0, -50.75, 2.5], atol=1e-12)
    np.testing.assert_allclose(late.velocity_mps[1], [0.0, -3.0, 0.0], atol=1e-12)
    assert gone.present.tolist() == [False, False, False]


def test_velocities_that_are_not_recorded_come_from_the_positions(tmp_path: Path) -> None:
    rows = "".join(f"{t / 10},a,{3 * t / 10 + (t / 10) ** 2},{-t / 10},0\n" for t in (0, 1, 2, 5, 6, 10))
    law = Trace(path=write(tmp_path, "own.csv", "time_s,name,x_m,y_m,z_m\n" + rows), height_m=0.0)
    for t, motion in zip((0.0, 0.05, 0.4, 0.77, 1.0), at(law, 0.0, 0.05, 0.4, 0.77, 1.0), strict=True):
        np.testing.assert_allclose(motion.position_m[0], [3 * t + t * t, -t, 0.0], atol=1e-12)
        np.testing.assert_allclose(motion.velocity_mps[0], [3 + 2 * t, -1.0, 0.0], atol=1e-11)


def test_a_turn_by_speed_and_angle_is_followed_closely(tmp_path: Path) -> None:
    # A circle of 20 m driven at 8 m/s and sampled every 0.1 s: cubic Hermite errs by |p''''| h^4 / 384.
    rate, radius = 0.4, 20.0
    steps = "".join(
        f'<timestep time="{i / 10}"><vehicle id="a" x="{radius * math.cos(rate * i / 10):.12f}" '
        f'y="{radius * math.sin(rate * i / 10):.12f}" angle="{-math.degrees(rate * i / 10):.12f}" speed="8"/></timestep>\n'
        for i in range(40)
    )
    law = Trace(path=write(tmp_path, "turn.xml", f"<fcd-export>{steps}</fcd-export>"), height_m=0.0)
    times = np.arange(0.0, 3.9, 0.013)
    p = np.array([m.position_m[0] for m in at(law, *times)])
    want = radius * np.stack([np.cos(rate * times), np.sin(rate * times), 0 * times], axis=1)
    bound = radius * rate**4 * 0.1**4 / 384
    assert np.max(np.abs(p - want)) < 1.01 * bound + 1e-9


def test_choosing_movers(tmp_path: Path) -> None:
    path = write(tmp_path, "t.xml", XML)
    assert Trace(path=path, names=("p", "a")).movers() == ("p", "a")
    assert Trace(path=path, without=("a",)).movers() == ("b", "p")
    assert Trace(path=path, count=2).movers() == ("a", "b")
    # a has left by then
    assert Trace(path=path, count=2, start_s=1.5).movers() == ("b", "p")
    assert Trace(path=path, names=("p", "a", "b"), count=1).movers() == ("p",)


def test_start_and_end(tmp_path: Path) -> None:
    path = write(tmp_path, "t.xml", XML)
    shifted, plain = at(Trace(path=path, start_s=0.75), 0.5)[0], at(Trace(path=path), 1.25)[0]
    np.testing.assert_array_equal(shifted.position_m, plain.position_m)
    np.testing.assert_array_equal(shifted.present, plain.present)
    (held,) = at(Trace(path=path, end="hold"), 7.0)
    assert held.present.all()
    assert not held.velocity_mps.any()
    np.testing.assert_allclose(held.position_m[0], [15.0, 20.0, 1.5])


def test_a_mover_that_comes_back_is_away_in_between(tmp_path: Path) -> None:
    text = "time_s,name,x_m,y_m,z_m\n0,a,0,0,0\n1,a,10,0,0\n5,a,100,0,0\n6,a,103,0,0\n"
    law = Trace(path=write(tmp_path, "t.csv", text))
    motions = at(law, 0.5, 1.0, 1.1, 4.9, 5.0, 5.5)
    assert [bool(m.present[0]) for m in motions] == [True, True, False, False, True, True]
    # The slope at the edge of a stay knows nothing of the other stay.
    np.testing.assert_allclose([m.velocity_mps[0, 0] for m in (motions[0], motions[5])], [10.0, 3.0])
    assert bool(at(Trace(path=law.path, gap_s=4.0), 3.0)[0].present[0])


STEP = '<timestep time="{t}"><vehicle id="a" x="{x}" y="0" angle="0" speed="1"/></timestep>\n'
MALFORMED = [
    ("cut.xml", XML[: XML.index('speed="6.00"')], r"cut\.xml:7: is not whole XML .*copy the trace again"),
    ("not.xml", "time_s,name\n", r"not\.xml:1: is not whole XML"),
    ("empty.xml", "", r"empty\.xml:1: is not whole XML \(no element found\)"),
    ("none.xml", "<fcd-export/>", r"none\.xml: holds no samples"),
    ("nan.xml", "<f>\n" + STEP.format(t=0, x="nan") + "</f>", r"nan\.xml:2: 'a': x = 'nan': must be a finite number"),
    ("word.xml", "<f>\n" + STEP.format(t=0, x="left") + "</f>", r"word\.xml:2: 'a': x = 'left'"),
    ("inf.xml", "<f>\n" + STEP.format(t="inf", x=0) + "</f>", r"inf\.xml:2: 'time': time = 'inf'"),
    (
        "back.xml",
        "<f>\n" + STEP.format(t=1, x=0) + STEP.format(t=0.5, x=0) + "</f>",
        r"back\.xml:3: timestep time = 0.5: must be later than the one before, 1.0",
    ),
    ("minus.xml", "<f>" + STEP.format(t=-1, x=0) + "</f>", r"minus\.xml:1: time = '-1'"),
    (
        "twice.xml",
        '<f><timestep time="0"><vehicle id="a" x="0" y="0"/>\n<vehicle id="a" x="0" y="0"/></timestep></f>',
        r"twice\.xml:2: 'a'",
    ),
    ("bare.xml", '<f>\n<vehicle id="a" x="0" y="0"/></f>', r"bare\.xml:2: vehicle: must have an id and stand inside"),
    ("no_x.xml", '<f><timestep time="0">\n<vehicle id="a" y="0"/></timestep></f>', r"no_x\.xml:2: 'a': x is missing"),
    ("empty.csv", "", r"empty\.csv:1: is empty"),
    ("head.csv", "time_s,name,x_m,y_m,z_m\n", r"head\.csv: holds no samples"),
    ("column.csv", "time_s,name,x_m,z_m\n0,a,0,0\n", r"column\.csv:1: has no column 'y_m'"),
    ("column2.csv", "timestep_time;vehicle_id;vehicle_y\n", r"column2\.csv:1: has no column 'vehicle_x'"),
    ("cells.csv", PLAIN_CSV[:-6], r"cells\.csv:6: has 5 cells, the first line has 7 columns; is the file cut off"),
    ("nan.csv", PLAIN_CSV.replace("0,-3,2", "0,NaN,2"), r"nan\.csv:5: 'b': y_m = 'NaN'"),
    ("back.csv", PLAIN_CSV + "1.5,p,0,0,0,0,0\n", r"back\.csv:7: 'p': time = 1.5: must be later"),
    ("nameless.csv", "time_s,name,x_m,y_m,z_m\n0,,0,0,0\n", r"nameless\.csv:2: name is empty"),
    ("text.txt", "x", r"path = .*text\.txt.*must end in \.xml or \.csv"),
]


@pytest.mark.parametrize(("name", "text", "says"), MALFORMED, ids=[case[0] for case in MALFORMED])
def test_a_bad_file_is_refused_by_line(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(Misuse, match=says):
        Trace(path=write(tmp_path, name, text)).movers()


def test_a_bad_file_is_refused_as_a_whole(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="no such file"):
        Trace(path=tmp_path / "missing.xml").movers()
    (tmp_path / "folder.xml").mkdir()
    with pytest.raises(Misuse, match="cannot be read"):
        Trace(path=tmp_path / "folder.xml").movers()
    whole = gzip.compress(XML.encode() * 50)
    (tmp_path / "cut.xml.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Misuse, match=r"cut\.xml\.gz"):
        Trace(path=tmp_path / "cut.xml.gz").movers()
    (tmp_path / "short.csv.gz").write_bytes(gzip.compress(PLAIN_CSV.encode())[:-9])
    with pytest.raises(Misuse, match=r"short\.csv\.gz: is not a whole gzip file"):
        Trace(path=tmp_path / "short.csv.gz").movers()
    (tmp_path / "fake.csv.gz").write_text(PLAIN_CSV)
    with pytest.raises(Misuse, match=r"fake\.csv\.gz: is not a whole gzip file"):
        Trace(path=tmp_path / "fake.csv.gz").movers()
    (tmp_path / "binary.csv").write_bytes(b"time_s,name,x_m,y_m,z_m\n0,\xff\xfe,0,0,0\n")
    with pytest.raises(Misuse, match=r"binary\.csv: is not text in UTF-8"):
        Trace(path=tmp_path / "binary.csv").movers()


def test_a_request_the_trace_cannot_meet_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "t.xml", XML)
    for fields, says in (
        ({"names": ("a", "z")}, "names: 'z' is not in"),
        ({"count": 4}, "count = 4: .* has only 3 movers"),
        ({"start_s": 3.0}, "start_s = 3.0: must be <= 2.0"),
    ):
        with pytest.raises(Misuse, match=says):
            Trace(path=path, **fields).movers()  # type: ignore[arg-type]
    for fields, says in (
        ({"names": ("a",), "without": ("a",)}, "'a' is in both"),
        ({"names": ("a", "a")}, "must all differ"),
        ({"count": 0}, "count = 0"),
        ({"start_s": np.nan}, "start_s = nan"),
        ({"origin_m": (0.0, np.nan)}, "origin_m"),
        ({"gap_s": 0.0}, "gap_s = 0.0"),
    ):
        with pytest.raises(Misuse, match=says):
            Trace(path=path, **fields)  # type: ignore[arg-type]


def test_the_street_is_what_its_readme_says() -> None:
    law = Trace(path=STREET)
    assert STREET.stat().st_size < 300_000
    names = np.array(law.movers())
    state = law.start(np.arange(len(names)), Draws(0))
    for t_s in np.arange(0.0, 75.01, 0.25):
        _, motion = law.at(state, round(t_s * 1e9))
        x, y, _ = motion.position_m[motion.present].T
        away = np.hypot(x, y)
        seen = (away >= 15) & (away <= 120) & (np.abs(np.degrees(np.arctan2(y, x))) <= 60)
        assert seen.sum() >= 5
        if t_s <= 17.0:
            users = np.isin(names[motion.present], USERS)
            assert users.sum() == 5
            assert seen[users].all()


def test_the_recording_agrees_with_itself() -> None:
    # Ballistic steps: mean of the speeds at both ends times the step is the way; the file rounds to 0.1 mm.
    law = Trace(path=STREET)
    state = law.start(np.arange(len(law.movers())), Draws(0))
    inner = np.ones(len(state.t_ns) - 1, bool)
    inner[state.end[:-1] - 1] = False
    h = np.diff(state.t_ns)[:, None] * 1e-9
    off = np.diff(state.position_m, axis=0) - 0.5 * h * (state.velocity_mps[1:] + state.velocity_mps[:-1])
    assert np.percentile(np.abs(off[inner]), 99.9) < 5e-4


def test_a_leg_kept_from_call_to_call_is_the_leg_found_afresh(tmp_path: Path) -> None:
    """Every 70 ms and at every sample, before the first and after the last, over a stay away: the state's memory changes no bit."""
    text = PLAIN_CSV + "9,b,4,4,2,1,0\n10,b,5,4,2,1,0\n"
    for law in (Trace(path=write(tmp_path, "t.csv", text), end=end) for end in ("vanish", "hold")):
        state = law.start(np.arange(3), Draws(0))
        for t_ns in sorted({*range(0, 11_000_000_000, 70_000_000), *range(0, 11_000_000_000, 1_000_000_000)}):
            state, kept = law.at(state, t_ns)
            _, fresh = law.at(law.start(np.arange(3), Draws(0)), t_ns)
            assert np.array_equal(kept.position_m, fresh.position_m)
            assert np.array_equal(kept.velocity_mps, fresh.velocity_mps)
            assert np.array_equal(kept.present, fresh.present)
        _, back = law.at(state, 500_000_000)  # an earlier instant is no trap either
        assert np.array_equal(back.position_m, at(law, 0.5)[0].position_m)
