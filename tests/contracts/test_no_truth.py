"""Algorithms never see the truth: nothing an observation or a belief can reach carries it."""

from __future__ import annotations

import dataclasses
import types
import typing

import pytest

from hal.frontend import Emission
from hal.medium import Paths
from twin.records import Belief, EchoObservation, PilotObservation, Truth


def reachable(kind: type) -> set[type]:
    """Every record type that a field of ``kind`` can hold, however deep."""
    found: set[type] = set()
    waiting = [kind]
    while waiting:
        now = waiting.pop()
        if now in found:
            continue
        if isinstance(now, types.UnionType) or typing.get_origin(now) is not None:
            waiting += [
                arm for arm in typing.get_args(now) if isinstance(arm, type | types.UnionType) or typing.get_origin(arm)
            ]
        elif dataclasses.is_dataclass(now):
            found.add(now)
            waiting += typing.get_type_hints(now).values()
    return found


@pytest.mark.parametrize("seen", [EchoObservation, PilotObservation, Belief])
def test_no_field_reaches_the_truth(seen: type) -> None:
    known = reachable(seen)
    assert seen in known
    assert len(known) > 3  # it did walk
    assert not known & {Truth, Paths, Emission}


def test_the_walk_would_find_it() -> None:
    @dataclasses.dataclass
    class Leaky:
        inner: EchoObservation
        secret: Truth | None

    Leaky.__annotations__ = {"inner": EchoObservation, "secret": Truth | None}
    assert Truth in reachable(Leaky)
