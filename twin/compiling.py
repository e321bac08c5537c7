"""What a first run waits for: functions that Numba compiles, told one by one as it gets to them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from numba.core import event

__all__ = ["told_compiling"]

UPDATE_S = 2.0  # between two lines where a line cannot move


@contextmanager
def told_compiling(
    shown: bool = True, out: IO[str] | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[None]:
    """Say on ``out`` (standard error) what is being compiled, while it is; a function that comes out of the cache is not.

    On a terminal one line that moves, elsewhere a line every two seconds. Nothing is said where nothing is compiled, or unless ``shown``.
    """
    listener = _Listener(sys.stderr if out is None else out, clock)
    if not shown:
        yield
        return
    with event.install_listener("numba:compile", listener):
        yield
    listener.close()


class _Listener(event.Listener):
    def __init__(self, out: IO[str], clock: Callable[[], float]) -> None:
        self.out, self.clock = out, clock
        self.moves = out.isatty()
        self.count, self.began_s, self.told_s = 0, 0.0, -UPDATE_S

    def on_start(self, event: Any) -> None:
        now_s = self.clock()
        if not self.count:
            self.began_s = now_s
        self.count += 1
        function = event.data["dispatcher"].py_func
        text = f"compiling, on the first run only: function {self.count}, {function.__module__}.{function.__name__}"
        if self.moves:
            print(f"\r{text[:99]:99}", end="", file=self.out, flush=True)
        elif now_s - self.told_s >= UPDATE_S:
            self.told_s = now_s
            print(text, file=self.out, flush=True)

    def on_end(self, event: Any) -> None:
        """Told when the next one starts."""

    def close(self) -> None:
        if self.count:
            clear = "\r" if self.moves else ""
            took = f"compiled {self.count} functions in {self.clock() - self.began_s:.0f} s"
            print(f"{clear}{took:99}" if self.moves else took, file=self.out, flush=True)
