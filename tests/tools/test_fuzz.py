"""A short run of the fuzzer; ``python -m tools.fuzz`` is the long one."""

from tools import fuzz


def test_mutated_frames_change_nothing() -> None:
    counts = fuzz.frames(10_000, seed=3)
    assert counts["garbage"] > 1000  # no header
    assert counts["failed"] > 1000  # a question, and a wrong one
    assert counts["asked"] > counts["failed"]  # some that are right, and harmless


def test_mutated_answers_never_stop_the_loop() -> None:
    counts = fuzz.answers(120, seed=5)
    assert counts["refused"] > 5
    assert counts["answered"] > 20
