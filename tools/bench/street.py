"""Rows and stages: a whole subframe of a scenario beside its period, and where its time goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tools.bench.row import Row, Side, Timed, Work
from twin.build import run

PERIOD_S = 5e-3
ROUNDS = 3  # by turns, of each revision
CHILD = """
import json, sys
from twin.build import run
given = json.loads(sys.argv[1])
run(given["scenario"], {"duration_s": 0.05}, keep=False, write=False)
print(json.dumps(run(given["scenario"], {"duration_s": given["seconds"]}, keep=False, write=False).summary["clock"]))
"""


def timed(scenario: str, seconds: float) -> dict[str, Any]:
    """The clock's figures of one run in this process, compiled before."""
    run(scenario, {"duration_s": 0.05}, keep=False, write=False)
    return run(scenario, {"duration_s": seconds}, keep=False, write=False).summary["clock"]  # type: ignore[no-any-return]


def compared(revision: str, scenario: str, seconds: float) -> list[dict[str, Any]]:
    """CPU medians (us) of each stage before and after, each the best of ``ROUNDS`` runs that took turns."""
    figures: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", revision], check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        say = json.dumps({"scenario": str(Path(scenario).resolve()), "seconds": round(seconds / ROUNDS, 2)})
        for turn in range(2 * ROUNDS):
            where = (folder, os.getcwd())[turn % 2]
            print(f"run {turn + 1} of {2 * ROUNDS}", file=sys.stderr)
            told = subprocess.run(
                [sys.executable, "-c", CHILD, say],
                cwd=where,
                env={**os.environ, "PYTHONPATH": where, "OMP_NUM_THREADS": "1"},
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            clock = json.loads(told)
            stages = {**clock["stages"], "subframe": clock["subframe"]}
            figures[turn % 2].append({name: stage["cpu_p50_us"] for name, stage in stages.items()})
    names = [name for name in figures[1][0] if name in figures[0][0]]
    best = [{name: float(np.min([one[name] for one in side])) for name in names} for side in figures]
    return [
        {"stage": n, "before_us": best[0][n], "after_us": best[1][n], "ratio": best[0][n] / max(best[1][n], 1e-3)}
        for n in names
    ]


def ready(scenario: str | Callable[[], str], seconds: float) -> Work:
    """A turn is a run of so many seconds of a file, or of a text; its figure is the median CPU time of 5 ms."""
    folder = tempfile.TemporaryDirectory()
    file = Path(scenario) if isinstance(scenario, str) else Path(folder.name) / "scene.yaml"
    if not isinstance(scenario, str):
        file.write_text(scenario(), encoding="utf-8")

    def ours() -> Timed:
        summary = run(file, {"duration_s": seconds}, keep=False, write=False).summary
        clock = summary["clock"]
        share = clock["subframe"]["cpu_p50_us"] / clock["budget_us"]
        return Timed(share * PERIOD_S, summary["run"]["hash"])

    def again(run_hash: Any, _: Any) -> float:
        return float(ours().result != run_hash)

    return Work(Side(lambda: Timed(PERIOD_S, None)), Side(ours), again, 0, close=folder.cleanup)


def system(users: int, seconds: float) -> Callable[[], str]:
    """The scene that ``tools.bench.scaling`` plays at fidelity system."""

    def text() -> str:
        from tools.bench.scaling import SYSTEM

        return SYSTEM.format(users=users, seconds=seconds)

    return text


def _row(
    name: str,
    unit: str,
    scenario: str | Callable[[], str],
    seconds: float,
    target: float,
    note: str = "",
    only: Any = "",
) -> Row:
    return Row(
        f"subframe.{name}",
        unit,
        "its period of 5 ms: the ratio is the real-time factor",
        partial(ready, scenario, seconds),
        target=target,
        same="the run's hash, played again",
        note=note,
        only=only,
    )


ROWS = (
    _row(
        "street",
        "a subframe of scenarios/street.yaml: 5 users, 3 targets",
        "scenarios/street.yaml",
        0.25,
        1.5,
        "the study's floor is 0.6 ms, an estimate",
    ),
    _row(
        "crowd",
        "a subframe of scenarios/crowd.yaml: 100 users, 50 targets",
        "scenarios/crowd.yaml",
        0.1,
        0.7,
        "the study's floor is 4 ms, an estimate",
        only="full",
    ),
    _row("system_100", "a subframe of 100 users at fidelity system: no samples", system(100, 10), 10, 500),
    _row("system_10000", "a subframe of 10000 users at fidelity system", system(10_000, 5), 5, 20, only="full"),
)
