"""What a subframe costs over decades of size, with fitted slopes: ``python -m tools.bench.scaling [quick|full] [--plot FILE] [--json]``.

Users, targets, antennas and subcarriers of the street that ``tools.bench.crowd`` writes, each about 5 users, 3 targets, 256 antennas and 32 subcarriers:
median CPU time of a subframe and of its stages. Users of fidelity ``system``, whose real-time factor is printed. And what does not grow linearly by
its nature, alone: the SINR's cross terms and the Fisher information in the square of users and targets, the search over delay lines in
lines times dictionary. A slope is the power of the size that the cost of the upper half of the sizes grows with; 1 is linear.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tools.bench.crowd import lines
from twin.build import run

STREET = {
    "users": (1, 3, 10, 30, 100),
    "targets": (1, 3, 10, 30, 100),
    "antennas": (64, 256, 1024),
    "subcarriers": (4, 16, 64, 256),
}
QUICK = {"users": (1, 10, 100), "targets": (1, 10, 100), "antennas": (64, 256, 1024), "subcarriers": (16, 64, 256)}
COMMON = {"users": 5, "targets": 3, "antennas": 256, "subcarriers": 32}
MANY = (1, 10, 100, 1000, 10_000)  # users at fidelity system
WHOLE = "subframe"
SYSTEM = """
fidelity: system
seed: 1
duration_s: {seconds}
sites: {{ bs0: {{ downtilt_deg: 8 }} }}
users: [{{ name: crowd, rcs_m2: 1, mobility: {{ kind: crowd, count: {users} }} }}]
"""

Costs = dict[str, dict[str, dict[int, float]]]  # axis, what, size: microseconds of CPU time


def played(text: str, seconds: float) -> dict[str, Any]:
    """The clock's report on a scenario, played as a run is but for its summary."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "scene.yaml"
        file.write_text(text, encoding="utf-8")
        clock: dict[str, Any] = run(file, {"duration_s": seconds}, keep=False, out=f"{folder}/run").summary["clock"]
    return clock


def street(seconds: float, **size: int) -> dict[str, float]:
    """Median CPU time of every stage in a scene of this size."""
    made = {**COMMON, **size}
    side = round(made.pop("antennas") ** 0.5)
    clock = played("".join(lines(side=side, **made)), seconds)
    return {name: stage["cpu_p50_us"] for name, stage in {**clock["stages"], WHOLE: clock["subframe"]}.items()}


def system(seconds: float, users: int) -> dict[str, float]:
    """Mean CPU time of a subframe of 5 ms at fidelity ``system``, by stage; a report is 200 of them."""
    clock = played(SYSTEM.format(users=users, seconds=seconds), seconds)
    return {name: stage["cpu_p50_us"] / 200 for name, stage in {**clock["stages"], WHOLE: clock["subframe"]}.items()}


def timed(work: Callable[[], Any], rounds: int) -> float:
    """Median CPU time of a call, in microseconds."""
    work()
    found = []
    for _ in range(rounds):
        start, calls = time.process_time_ns(), 0
        while time.process_time_ns() - start < 2_000_000:
            work()
            calls += 1
        found.append((time.process_time_ns() - start) / calls / 1e3)
    return float(np.median(found))


def algorithms(rounds: int) -> Iterator[tuple[str, int, float]]:
    """(name, size, microseconds) of what is not linear in the size that it is named after."""
    from tools.bench.precoders import draw, row_of
    from twin.physics.fisher import echo_gram, illumination, information
    from twin.physics.sinr import sinr
    from twin.precoding._scene import delay_grid
    from twin.precoding._search import Search

    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    row = row_of(draw(0))
    level_s = delay_grid(row.network)
    start_s = level_s[rng.integers(len(level_s), size=row.lines)]
    drive = normal(len(row.frequency_hz), len(row.array.position_m))
    for count in (4, 16, 64, 256):
        root = normal(count, 8, 8)
        spread = root @ root.conj().swapaxes(1, 2)
        ones = np.ones(count)
        yield (
            "SINR cross terms, users^2",
            count,
            timed(lambda s=spread, o=ones: sinr(s, o, s, o, 1.0, np.ones((len(o), 31))), rounds),
        )
    for count in (3, 10, 30, 100):
        direction = np.column_stack([np.ones(count), rng.uniform(-0.4, 0.4, (count, 2))])
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        gain = normal(count, len(row.frequency_hz))

        def fisher(u: np.ndarray = direction, g: np.ndarray = gain) -> Any:
            gram = echo_gram(row.array, u, g, row.frequency_hz, 1.0)
            return information(gram, illumination(row.array, u, row.frequency_hz, drive))

        yield "Fisher information, targets^2", count, timed(fisher, rounds)
    for count in (4, 16, 64):
        search = Search(row, (64, 64))
        yield (
            "delay search, lines Q_t",
            count,
            timed(lambda n=count, s=search: s.run(start_s, level_s, 1, 0, n), rounds),
        )
    for side in (16, 32, 64, 128):
        search = Search(row, (side, side))
        yield (
            "delay search, dictionary N_D",
            side * side,
            timed(lambda s=search: s.run(start_s, level_s, 1, 0, 16), rounds),
        )


def slope(of: dict[int, float]) -> float:
    """The power of the size that the costs of the upper half of the sizes follow."""
    sizes, costs = np.array(sorted(of)), np.array([of[size] for size in sorted(of)])
    upper = slice((len(sizes) - 1) // 2, None)
    return float(np.polyfit(np.log(sizes[upper]), np.log(np.maximum(costs[upper], 1e-3)), 1)[0])


def plot(costs: Costs, file: Path) -> None:
    """A panel an axis; the stages that matter, each with its slope."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 3, figsize=(15, 8.5), layout="constrained")
    for panel, (axis, whats) in zip(panels.flat, costs.items(), strict=True):
        top = max(max(of.values()) for of in whats.values())
        for what, of in sorted(whats.items(), key=lambda item: -item[1][max(item[1])]):
            if max(of.values()) < 0.02 * top and axis != "algorithms alone":
                continue
            wide = {"lw": 2.5, "color": "black"} if what == WHOLE else {"lw": 1.2}
            panel.loglog(list(of), list(of.values()), "o-", ms=3, label=f"{what}: {slope(of):.2f}", **wide)
        panel.set(
            title=axis, ylabel="CPU time (us)", xlabel="size" if axis == "algorithms alone" else axis.partition(",")[0]
        )
        sizes = sorted({size for of in whats.values() for size in of})
        if axis != "algorithms alone":
            panel.set_xticks(sizes, [f"{size:g}" for size in sizes], minor=False)
            panel.minorticks_off()
        panel.grid(alpha=0.3)
        low, high = panel.get_ylim()
        panel.set_ylim(low, high * (high / low) ** 0.45)  # room for the legend
        panel.legend(
            fontsize=7,
            ncol=1 if axis == "algorithms alone" else 2,
            loc="upper left",
            title="slope of the upper half",
            title_fontsize=7,
        )
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def measured(quick: bool) -> Costs:
    """Everything, one thing after the other."""
    costs: Costs = {}
    street(0.02)  # compiles
    for axis, sizes in (QUICK if quick else STREET).items():
        found: dict[str, dict[int, float]] = {}
        for size in sizes:
            print(f"{axis} {size}", file=sys.stderr)
            for what, us in street(0.1 if quick else 0.25, **{axis: size}).items():
                found.setdefault(what, {})[size] = us
        costs[axis] = found
    found = {}
    system(1, 1)
    for size in MANY:
        print(f"users at fidelity system {size}", file=sys.stderr)
        for what, us in system(20 if quick else 60, size).items():
            found.setdefault(what, {})[size] = us
    costs["users, fidelity system"] = found
    alone: dict[str, dict[int, float]] = {}
    for what, size, us in algorithms(5 if quick else 15):
        print(f"{what} {size}", file=sys.stderr)
        alone.setdefault(what, {})[size] = us
    costs["algorithms alone"] = alone
    return costs


def main() -> int:
    """Measure, print the table, draw."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench.scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "pace", nargs="?", choices=("quick", "full"), default="full", help="quick: fewer sizes, shorter runs"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it")
    parser.add_argument("--json", action="store_true", help="all costs in microseconds, for programs")
    given = parser.parse_args()
    costs = measured(given.pace == "quick")
    if given.plot:
        plot(costs, given.plot)
    if given.json:
        slopes = {axis: {what: slope(of) for what, of in whats.items()} for axis, whats in costs.items()}
        print(json.dumps({"us": costs, "slope": slopes}))
        return 0
    for axis, whats in costs.items():
        print(axis)
        for what, of in whats.items():
            if axis != "algorithms alone" and max(of.values()) < 0.02 * max(whats[WHOLE].values()):
                continue
            cells = "  ".join(f"{size}: {us:.1f}" for size, us in of.items())
            print(f"  {what:30} slope {slope(of):5.2f}   {cells} us")
    factors = {size: 5000 / us for size, us in costs["users, fidelity system"][WHOLE].items()}
    print(
        "real-time factor at fidelity system: "
        + ", ".join(f"{users} users {factor:.0f}" for users, factor in factors.items())
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
