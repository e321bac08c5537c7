"""The gate of an answering socket: who may ask what, how large, how often. What it turns away is said in a sentence and never looked at.

A role belongs to a key (``hal.session.Keys.allowed``). Where there are no keys everybody has every role: on loopback, or insecure by word.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["EVERYTHING", "ROLES", "Gate", "Rule"]

ROLES = ("monitor", "controller", "device", "admin")
EVERYTHING = ""  # the role of a peer where roles are not told apart
PEERS = 256  # whose rates are remembered


@dataclass(frozen=True)
class Rule:
    """What one question may be: asked by these roles, so large, ``burst`` at once and ``per_s`` in the long run."""

    roles: frozenset[str] = frozenset(ROLES)
    limit_bytes: int = 65536
    per_s: float = math.inf
    burst: int = 64


class Gate:
    """The rules of one socket, and how much each peer has used up. A question without a rule of its own goes by ``other``."""

    def __init__(
        self, rules: Mapping[str, Rule], other: Rule, clock: Callable[[], int] = time.monotonic_ns, peers: int = PEERS
    ) -> None:
        self.rules, self.other = dict(rules), other
        self._clock, self._peers = clock, peers
        self._left: OrderedDict[tuple[bytes, str], tuple[float, int]] = (
            OrderedDict()
        )  # questions left, and when that was

    def flaw(self, peer: bytes, role: str, kind: str, size: int) -> str:
        """Why ``peer`` may not ask this now; "" if it may. ``size`` is the payload's, in bytes."""
        rule = self.rules.get(kind, self.other)
        if role != EVERYTHING and role not in rule.roles:
            return f"{kind[:32]!r} is for {' and '.join(sorted(rule.roles))}, this key is a {role}'s"
        if not size <= rule.limit_bytes:
            return f"{kind[:32]!r} of {size} bytes: the limit is {rule.limit_bytes}"
        if rule.per_s < math.inf and not self._spend(peer, kind if kind in self.rules else "", rule):
            return f"{kind[:32]!r} more often than {rule.per_s:g} times a second: ask less"
        return ""

    def _spend(self, peer: bytes, kind: str, rule: Rule) -> bool:
        """Take one of the peer's questions, which come back at ``per_s``; False if none is left."""
        now, key = self._clock(), (peer, kind)
        left, then = self._left.pop(key, (float(rule.burst), now))
        left = min(left + (now - then) * 1e-9 * rule.per_s, float(rule.burst))
        self._left[key] = (max(left - 1.0, 0.0) if left >= 1.0 else left, now)
        if len(self._left) > self._peers * 8:
            self._left.popitem(last=False)
        return left >= 1.0
