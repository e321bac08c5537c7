"""One case of a sweep played, here or on a worker: a scenario in, a row out."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from twin.sweep.cases import Case

__all__ = ["Player", "code_digest", "figures", "identity"]

NOT_FIGURES = ("run", "clock", "expect", "warnings")  # of a summary: how it ran, not what came of it


@dataclass(frozen=True)
class Player:
    """Plays cases of one sweep."""

    scenario: Path
    folder: Path | None  # where the runs' directories go; nothing: none are left

    def __call__(self, case: Case) -> dict[str, Any]:
        """The row of a case: the key figures of its run, its hash, and how long it took."""
        from twin.build import run

        began = time.perf_counter()
        scenario = _loaded(str(self.scenario), json.dumps(dict(case.sets)))
        out = None if self.folder is None else self.folder / f"{case.index:06d}"
        if out is not None and out.exists():
            shutil.rmtree(out)  # of a case that was interrupted, or failed, before
        done = run(replace(scenario, seed=case.seed), out=out, write=out is not None, keep=False)
        if done.interrupted:
            raise KeyboardInterrupt
        told = {"hash": done.summary["run"]["hash"], "violated": len(done.summary["expect"]["violated"])}
        return {**told, **figures(done.summary), "seconds": time.perf_counter() - began}


def figures(summary: Mapping[str, Any], above: str = "") -> dict[str, float | None]:
    """Every number of a run's summary under its dotted name, but for wall-clock times."""
    found: dict[str, float | None] = {}
    for key, value in summary.items():
        if not above and key in NOT_FIGURES:
            continue
        if isinstance(value, Mapping):
            found |= figures(value, f"{above}{key}.")
        elif value is None or isinstance(value, int | float):
            found[f"{above}{key}"] = None if value is None else float(value)
    return found


def identity() -> dict[str, str]:
    """What must be the same on every worker for a sweep to be the same anywhere."""
    import numba
    import numpy

    from twin import __version__

    return {
        "isac-twin": f"{__version__} ({code_digest()[:8]})",
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "numba": numba.__version__,
    }


@cache
def code_digest() -> str:
    """Of the source of ``hal`` and ``twin`` as installed here."""
    import hal
    import twin

    made = hashlib.blake2b(digest_size=8)
    for package in (hal, twin):
        root = Path(str(package.__file__)).parent
        for source in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
            made.update(source.read_bytes())
    return made.hexdigest()


@lru_cache(maxsize=8)
def _loaded(file: str, sets: str) -> Any:
    """The scenario of a point; its cases follow each other and differ in the seed only."""
    from twin.scenario import load

    return load(file, json.loads(sets))
