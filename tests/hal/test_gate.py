"""Who may ask what, how large, how often."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.gate import Gate, Rule

RULES = {
    "look": Rule(frozenset(("monitor", "admin")), limit_bytes=10, per_s=2.0, burst=3),
    "steer": Rule(frozenset(("controller",))),
}
OTHER = Rule(frozenset(("admin",)), per_s=1.0, burst=1)


class Clock:
    now = 0

    def __call__(self) -> int:
        return self.now


def gate(clock: Clock) -> Gate:
    return Gate(RULES, OTHER, clock)


@pytest.mark.parametrize(
    ("role", "kind", "size", "says"),
    [
        ("monitor", "look", 10, ""),
        ("monitor", "look", 11, "limit is 10"),
        ("controller", "look", 0, "for admin and monitor, this key is a controller's"),
        ("device", "steer", 0, "this key is a device's"),
        ("monitor", "unheard of", 0, "for admin"),
        ("admin", "unheard of", 0, ""),
        ("none", "look", 0, "none"),
        ("", "steer", 0, ""),
    ],
)
def test_a_role_a_size_and_a_sentence(role: str, kind: str, size: int, says: str) -> None:
    why = gate(Clock()).flaw(b"a", role, kind, size)
    assert says in why
    assert bool(why) == bool(says)


def test_a_burst_then_the_rate_and_each_peer_for_itself() -> None:
    clock = Clock()
    door = gate(clock)
    came = [door.flaw(b"a", "", "look", 0) == "" for _ in range(5)]
    assert came == [True, True, True, False, False]
    assert door.flaw(b"b", "", "look", 0) == ""
    clock.now += 500_000_000
    assert door.flaw(b"a", "", "look", 0) == ""
    assert "2 times a second" in door.flaw(b"a", "", "look", 0)


def test_made_up_questions_share_one_allowance() -> None:
    door = gate(Clock())
    assert [bool(door.flaw(b"a", "", f"q{n}", 0)) for n in range(3)] == [False, True, True]


@given(st.lists(st.integers(0, 400_000_000), max_size=60))
def test_never_more_than_burst_and_rate(pauses: list[int]) -> None:
    clock = Clock()
    door, let_in = gate(clock), 0
    for pause in pauses:
        clock.now += pause
        let_in += door.flaw(b"a", "", "look", 0) == ""
    assert let_in <= 3 + 2.0 * clock.now * 1e-9 + 1e-6


def test_who_is_remembered_is_bounded() -> None:
    door = Gate(RULES, OTHER, Clock(), peers=4)
    for n in range(1000):
        door.flaw(str(n).encode(), "", "look", 0)
    assert len(door._left) <= 4 * 8


def test_bytes_of_all_questions_of_a_peer_come_out_of_one_purse() -> None:
    clock = Clock()
    door = Gate(
        {"a": Rule(limit_bytes=100), "b": Rule(limit_bytes=100)}, OTHER, clock, bytes_per_s=50.0, burst_bytes=120
    )
    assert door.flaw(b"1", "", "a", 100) == ""
    assert "send less" in door.flaw(b"1", "", "b", 21)
    assert door.flaw(b"1", "", "b", 20) == ""
    assert door.flaw(b"2", "", "a", 100) == ""
    clock.now += 1_000_000_000
    assert "send less" in door.flaw(b"1", "", "a", 51)
    assert door.flaw(b"1", "", "a", 50) == ""


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 10**9)), max_size=60))
def test_no_peer_ever_brings_more_than_burst_and_rate(asked: list[tuple[int, int]]) -> None:
    clock = Clock()
    door = Gate({"a": Rule()}, OTHER, clock, bytes_per_s=100.0, burst_bytes=300)
    taken = 0
    for size, wait_ns in asked:
        clock.now += wait_ns
        taken += size if door.flaw(b"1", "", "a", size) == "" else 0
        assert taken <= 300 + 100 * clock.now * 1e-9 + 1e-6
