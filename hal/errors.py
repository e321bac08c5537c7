"""Four kinds of error, because they are mended by four different people."""

__all__ = ["InvariantError", "LateArrival", "Misuse", "RemoteFault"]


class Misuse(ValueError):
    """The caller's own mistake: names the field, the value, the rule and the fix."""


class RemoteFault(RuntimeError):
    """The other side failed, refused, or spoke nonsense: names the peer and what it said."""


class LateArrival(TimeoutError):
    """The other side may be well, but did not answer in time: names the peer, the wait and the limit."""


class InvariantError(RuntimeError):
    """What cannot be has happened, a mistake in the twin: names the invariant, the values, the instant, and the file that holds the state."""
