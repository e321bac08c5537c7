from __future__ import annotations

import io

from numba import njit

from twin.compiling import told_compiling


def fresh():
    """Two functions nobody compiled yet, one of which calls the other."""

    @njit
    def inner(x):
        return x + 1

    @njit
    def outer(x):
        return inner(x) * 2

    return outer


def test_functions_are_told_as_they_are_compiled_and_only_then():
    said, second = io.StringIO(), iter(range(100))
    with told_compiling(out=said, clock=lambda: 3.0 * next(second)):
        outer = fresh()
        assert outer(1) == 4
        before = said.getvalue()
        assert outer(2) == 6
        assert said.getvalue() == before
    lines = said.getvalue().splitlines()
    assert "function 1, " in lines[0]
    assert "outer" in lines[0]
    assert any("inner" in line for line in lines)
    assert lines[-1].startswith("compiled ")


def test_not_more_than_a_line_every_two_seconds():
    said = io.StringIO()
    with told_compiling(out=said, clock=lambda: 0.0):
        fresh()(1)
    assert len(said.getvalue().splitlines()) == 2


def test_a_terminal_gets_one_line_that_moves():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    said = Terminal()
    with told_compiling(out=said):
        fresh()(1)
    assert said.getvalue().count("\n") == 1
    assert said.getvalue().startswith("\r")


def test_where_nothing_is_compiled_nothing_is_said():
    outer = fresh()
    outer(1)
    for shown in (True, False):
        said = io.StringIO()
        with told_compiling(shown, out=said):
            (outer if shown else fresh())(1)
        assert said.getvalue() == ""
