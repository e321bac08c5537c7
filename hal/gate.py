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
BYTES = " bytes"  # under this name what a peer may send; no question is called so


@dataclass(frozen=True)
class Rule:
    """What one question may be: asked by these roles, so large, ``burst`` at once and ``per_s`` in the long run."""

    roles: frozenset[str] = frozenset(ROLES)
    limit_bytes: int = 65536
    per_s: float = math.inf
    burst: int = 64


class Gate:
    """The rules of one socket, and how much each peer has used up. A question without a rule of its own goes by ``other``.

    All questions of a peer together may bring ``bytes_per_s`` in the long run and ``burst_bytes`` at once.
    """

    def __init__(
        self,
        rules: Mapping[str, Rule],
        other: Rule,
        clock: Callable[[], int] = time.monotonic_ns,
        peers: int = PEERS,
        bytes_per_s: float = math.inf,
        burst_bytes: int = 1 << 29,
    ) -> None:
        self.rules, self.other = dict(rules), other
        self._bytes_per_s, self._burst_bytes = bytes_per_s, burst_bytes
        self._clock, self._peers = clock, peers
        self._left: OrderedDict[tuple[bytes, str], tuple[float, int]] = (
            OrderedDict()
        )  # questions or bytes left, and when that was

    def flaw(self, peer: bytes, role: str, kind: str, size: int) -> str:
        """Why ``peer`` may not ask this now; "" if it may. ``size`` is the payload's, in bytes."""
        rule = self.rules.get(kind, self.other)
        if role != EVERYTHING and role not in rule.roles:
            return f"{kind[:32]!r} is for {' and '.join(sorted(rule.roles))}, this key is a {role}'s"
        if not size <= rule.limit_bytes:
            return f"{kind[:32]!r} of {size} bytes: the limit is {rule.limit_bytes}"
        if not self._spend((peer, kind if kind in self.rules else ""), 1, rule.per_s, rule.burst):
            return f"{kind[:32]!r} more often than {rule.per_s:g} times a second: ask less"
        if not self._spend((peer, BYTES), size, self._bytes_per_s, self._burst_bytes):
            return f"{kind[:32]!r} of {size} bytes: more than {self._bytes_per_s * 1e-6:g} MB a second: send less"
        return ""

    def _spend(self, key: tuple[bytes, str], amount: int, per_s: float, burst: int) -> bool:
        """Take ``amount`` of what a peer has, which comes back at ``per_s``; False if so much is not left."""
        if per_s == math.inf:
            return True
        now = self._clock()
        left, then = self._left.pop(key, (float(burst), now))
        left = min(left + (now - then) * 1e-9 * per_s, float(burst))
        enough = left >= amount
        self._left[key] = (left - amount if enough else left, now)
        if len(self._left) > self._peers * 8:
            self._left.popitem(last=False)
        return enough
