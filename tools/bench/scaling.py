"""What a subframe costs over decades of users, targets, antennas and subcarriers: ``python -m tools.bench.scaling --out FOLDER [quick]``.

Writes ``scaling.csv`` (median CPU time of every stage) and ``scaling.png``, each line with its fitted slope: the power of the size that the cost of
the upper half grows with. Scenes are those of ``tools.bench.crowd``, about one that has 5 users, 3 targets, 256 antennas and 32 subcarriers.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tools.bench.crowd import lines
from twin.build import run

SIZES = {
    "users": (1, 3, 10, 30, 100),
    "targets": (1, 3, 10, 30, 100),
    "side": (8, 16, 24, 32),  # of the square arrays; the antennas are its square
    "subcarriers": (4, 16, 64, 256),
}
COMMON = {"users": 5, "targets": 3, "side": 16, "subcarriers": 32}


def cost(seconds: float, **size: int) -> dict[str, float]:
    """Median CPU time (us) of every stage in a scene of this size."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "scene.yaml"
        file.write_text("".join(lines(**{**COMMON, **size})), encoding="utf-8")
        clock = run(file, {"duration_s": seconds}, keep=False, write=False).summary["clock"]
    stages = {**clock["stages"], "subframe": clock["subframe"]}
    return {name: stage["cpu_p50_us"] for name, stage in stages.items()}


def slope(sizes: list[int], costs: list[float]) -> float:
    """The power of the size that the costs of the upper half of the sizes follow."""
    upper = slice(len(sizes) // 2, None)
    return float(np.polyfit(np.log(sizes[upper]), np.log(np.maximum(costs[upper], 1e-3)), 1)[0])


def plot(rows: list[dict[str, float | str]], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for panel, axis in zip(panels.flat, SIZES, strict=True):
        own = [row for row in rows if row["axis"] == axis]
        stages = dict.fromkeys(str(row["stage"]) for row in own)
        for stage in stages:
            sizes = [int(row["size"]) for row in own if row["stage"] == stage]
            costs = [float(row["cpu_us"]) for row in own if row["stage"] == stage]
            wide = 2.5 if stage == "subframe" else 1.0
            panel.loglog(sizes, costs, "o-", lw=wide, ms=3, label=f"{stage} ({slope(sizes, costs):.2f})")
        panel.set(xlabel="antennas" if axis == "side" else axis, ylabel="CPU time of a subframe (us)")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7, ncol=2, title="stage (slope)", title_fontsize=7)
    figure.savefig(out, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.scaling", description=__doc__)
    parser.add_argument("pace", nargs="?", choices=("quick", "full"), default="full", help="quick: a fifth of the time")
    parser.add_argument("--out", type=Path, required=True, help="folder for scaling.csv and scaling.png")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    seconds = 0.1 if given.pace == "quick" else 0.5
    cost(0.02)  # compiles
    rows: list[dict[str, float | str]] = []
    for axis, sizes in SIZES.items():
        for size in sizes:
            print(f"{axis} {size}", file=sys.stderr)
            shown = size * size if axis == "side" else size
            found = cost(seconds, **{axis: size})
            rows += [{"axis": axis, "size": shown, "stage": stage, "cpu_us": us} for stage, us in found.items()]
    with (given.out / "scaling.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, ["axis", "size", "stage", "cpu_us"])
        table.writeheader()
        table.writerows(rows)
    plot(rows, given.out / "scaling.png")
    for axis in SIZES:
        own = [row for row in rows if row["axis"] == axis and row["stage"] == "subframe"]
        found_slope = slope([int(row["size"]) for row in own], [float(row["cpu_us"]) for row in own])
        print(f"{'antennas' if axis == 'side' else axis}: slope {found_slope:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
