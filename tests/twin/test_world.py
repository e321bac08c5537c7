from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import twin.world
from hal.errors import Misuse
from twin.mobility.gauss_markov import GaussMarkov
from twin.mobility.linear import Linear
from twin.mobility.static import Static
from twin.mobility.trace import Trace
from twin.physics.draws import Draws
from twin.records import Truth
from twin.world import Mover, World, entity_of

STREET = Path(__file__).parents[2] / "scenarios" / "traces" / "street.fcd.xml.gz"
MS = 1_000_000


def mover(name: str, is_user: bool = True, rcs_m2: float = 1.0, **fields: object) -> Mover:
    return Mover(name=name, is_user=is_user, rcs_m2=rcs_m2, mobility=GaussMarkov(**fields))  # type: ignore[arg-type]


def rows(truth: Truth, world: World) -> dict[str, tuple[object, ...]]:
    return {
        world.names[int(e)]: (bool(u), p.tobytes(), v.tobytes(), float(r))
        for e, u, p, v, r in zip(
            truth.entity, truth.is_user, truth.position_m, truth.velocity_mps, truth.rcs_m2, strict=True
        )
    }


def test_numbers_are_frozen() -> None:
    # `printf car | b2sum -l 32` (GNU coreutils) prints f6d13551; little-endian, top bit cleared.
    assert entity_of("car") == int.from_bytes(bytes.fromhex("f6d13551"), "little") & 0x7FFFFFFF == 1362481654
    assert all(0 <= entity_of(f"m{i}") < 2**31 for i in range(1000))


def test_rows_are_in_order_and_belong_together() -> None:
    movers = [
        Mover(name=f"m{i}", is_user=i % 2 == 0, rcs_m2=float(i), mobility=Static(position_m=(float(i), 0.0, 0.0)))
        for i in range(12)
    ]
    world = World(movers, Draws(0))
    truth = world.at(0)
    assert np.all(np.diff(truth.entity) > 0)
    for e, user, p, rcs in zip(truth.entity, truth.is_user, truth.position_m, truth.rcs_m2, strict=True):
        i = int(world.names[int(e)][1:])
        assert (user, p[0], rcs) == (i % 2 == 0, i, i)
    assert list(world.names.values()) == [f"m{i}" for i in range(12)]


def test_another_mover_leaves_the_others_untouched() -> None:
    few = [mover("a"), mover("b", is_user=False, rcs_m2=4.0)]
    many = [mover("new"), few[1], mover("newer", sigma_mps=(9.0, 9.0, 9.0)), few[0]]
    one, two = World(few, Draws(3)), World(many, Draws(3))
    for t_ns in (0, 5 * MS, 1_000 * MS, 1_005 * MS):
        before, after = rows(one.at(t_ns), one), rows(two.at(t_ns), two)
        assert before.keys() == {"a", "b"}
        assert {name: after[name] for name in before} == before
    assert rows(one.at(2_000 * MS), one)["a"] != rows(two.at(2_000 * MS), two)["newer"]


def test_only_those_present_are_told() -> None:
    world = World(
        [
            Mover(name="stays", is_user=True, rcs_m2=1.0, mobility=Linear()),
            Mover(name="visits", is_user=True, rcs_m2=1.0, mobility=Linear(appear_s=0.1, leave_s=0.2)),
        ],
        Draws(0),
    )
    seen = [set(rows(world.at(t * MS), world)) for t in (0, 100, 199, 200)]
    assert seen == [{"stays"}, {"stays", "visits"}, {"stays", "visits"}, {"stays"}]
    nobody = World([Mover(name="late", is_user=True, rcs_m2=1.0, mobility=Static(appear_s=1.0))], Draws(0)).at(0)
    assert nobody.entity.shape == (0,)
    assert nobody.position_m.shape == (0, 3)


def test_a_trace_and_a_lone_mover_share_a_world() -> None:
    users = ("east.32", "north.31")
    world = World(
        [
            Mover(name="cars", is_user=True, rcs_m2=10.0, mobility=Trace(path=STREET, names=users)),
            Mover(name="others", is_user=False, rcs_m2=5.0, mobility=Trace(path=STREET, without=users)),
            Mover(name="sign", is_user=False, rcs_m2=2.0, mobility=Static()),
        ],
        Draws(0),
    )
    truth = world.at(5 * MS)
    names = [world.names[int(e)] for e in truth.entity]
    assert {n for n, user in zip(names, truth.is_user, strict=True) if user} == {"cars/east.32", "cars/north.31"}
    assert "sign" in names
    assert {
        world.names[int(e)].partition("/")[0]: float(r) for e, r in zip(truth.entity, truth.rcs_m2, strict=True)
    } == {
        "cars": 10.0,
        "others": 5.0,
        "sign": 2.0,
    }


def test_time_runs_forward() -> None:
    world = World([mover("a")], Draws(0))
    world.at(10)
    world.at(10)
    with pytest.raises(Misuse, match="t_ns = 9: must be >= 10"):
        world.at(9)


def test_refuses_what_makes_no_world(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Misuse, match="movers: is empty"):
        World([], Draws(0))
    with pytest.raises(Misuse, match=r"movers\[0\].name is empty"):
        World([mover("")], Draws(0))
    with pytest.raises(Misuse, match="'a' is there twice"):
        World([mover("a"), mover("a")], Draws(0))
    with pytest.raises(Misuse, match=r"movers\[1\] 'b': rcs_m2 = nan"):
        World([mover("a"), mover("b", rcs_m2=np.nan)], Draws(0))
    monkeypatch.setattr(twin.world, "entity_of", lambda name: 7)
    with pytest.raises(Misuse, match="'b' and 'a' share the number 7"):
        World([mover("a"), mover("b")], Draws(0))


def test_the_table_of_names_cannot_be_changed() -> None:
    world = World([mover("a")], Draws(0))
    with pytest.raises(TypeError):
        world.names[1] = "x"  # type: ignore[index]
