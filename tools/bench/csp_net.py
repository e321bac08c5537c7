"""What CSP-Net costs and what it is worth, beside SA-Opt, CBS and direct on the same held-out draws: ``python -m tools.bench.csp_net [quick] [--json]``.

Times are medians of process CPU time, all schemes in turn in one process. Utility is ``lambda R - ln CRB``, lambda in nats a bit; its decibels are of bound
(10 / ln 10 a nat). SA-Opt: phases by amplitudes, exact power, converged, N_D = 1024; CBS: exact power.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tools.bench.row import Row, Side, Work
from tools.reproduce.squint import told
from twin.compare_precoders import SCHEMES, Setup, draw, interval_db, row_of, scored
from twin.learning.cards import load
from twin.learning.factored import Aperture, Factored
from twin.learning.scenes import Recipe
from twin.precoding import Precoder
from twin.precoding.csp_net import CspNet, infer, inputs
from twin.precoding.direct import Direct

HELD_OUT = 1_000_000  # seeds from here on; training draws from another stream altogether
LAMBDAS = (0.1, 0.2, 0.4)
STEPS = (2, 4, 8, 16, 32, 64)
NAMED = {"SA-Opt": SCHEMES["SA amp (20)"], "CBS": SCHEMES["CBS (20)"]}
DB = 10 / np.log(10)


def weight_at(problem: Any, bit: float) -> float:
    """The ``rate_weight`` that makes a bit worth ``bit`` nats on this draw."""
    return bit / Direct(rate_weight=1.0).utility(row_of(problem)).weight


def timed(work: Callable[[], Any], rounds: int) -> float:
    work()
    spent = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return float(np.median(spent))


def times(rounds: int) -> dict[str, float]:
    """Median milliseconds of each scheme on one draw, interleaved; and of the network's parts."""
    problem = draw(HELD_OUT)
    row = row_of(problem)
    card, weights = load("paper")
    network = Factored(**card.shape)
    scenes = inputs([row], network.most_targets, 2.0)
    aperture = Aperture.of(row.array, row.network, row.frequency_hz)
    work: dict[str, Callable[[], Any]] = {
        "settings": lambda: network.settings(weights, aperture, scenes),
        "inference": lambda: infer(network, weights, [row], 2.0),
        "design": lambda: CspNet().design(problem),
        "design, 8 steps": lambda: CspNet(polish_steps=8).design(problem),
    }
    found: dict[str, list[float]] = {name: [] for name in (*work, "SA-Opt", "CBS", "direct")}
    for _ in range(3):
        for name, one in work.items():
            found[name].append(timed(one, rounds))
        for name, scheme in (*NAMED.items(), ("direct", SCHEMES["direct 4"])):
            found[name].append(timed(lambda scheme=scheme: scheme.design(problem), 2))
    return {name: 1e3 * float(np.median(value)) for name, value in found.items()}


def quality(setup: Setup, draws: int, lambdas: tuple[float, ...] = LAMBDAS) -> list[dict[str, Any]]:
    """A row for each draw and scheme: rate, CRB, and the time of the design."""
    rows = []
    for i in range(draws):
        problem = draw(HELD_OUT + i, setup)
        schemes: dict[str, Precoder] = dict(NAMED)
        for bit in lambdas:
            weight = weight_at(problem, bit)
            schemes[f"network {bit:g}"] = CspNet(rate_weight=weight)
            schemes[f"direct {bit:g}"] = Direct(rate_weight=weight)
        for name, scheme in schemes.items():
            began = time.process_time()
            design = scheme.design(problem)
            spent = time.process_time() - began
            score = scored(problem, design)
            rows.append(
                {
                    "msia": setup.msia_rad,
                    "seed": i,
                    "scheme": name,
                    "rate": score.rate,
                    "crb": score.crb,
                    "time_s": spent,
                    "clipped": score.clipped,
                }
            )
        told(f"MSIA {setup.msia_rad:g}: {i + 1}/{draws} draws")
    return rows


def judged(rows: list[dict[str, Any]], lambdas: tuple[float, ...] = LAMBDAS) -> list[dict[str, float]]:
    """For each spread and lambda: how many decibels the network's utility is above SA-Opt's, CBS's and direct's, and rate and bound against CBS's."""

    def column(msia: float, scheme: str, what: str) -> np.ndarray:
        return np.array([r[what] for r in rows if r["msia"] == msia and r["scheme"] == scheme])

    out = []
    for msia in sorted({r["msia"] for r in rows}):
        for bit in lambdas:
            rate, crb = (column(msia, f"network {bit:g}", what) for what in ("rate", "crb"))
            worth = bit * rate - np.log(crb)
            line = {
                "msia": msia,
                "lambda": bit,
                "draws": float(len(rate)),
                "rate": rate.mean(),
                "crb": float(np.exp(np.log(crb).mean())),
            }
            for name in ("SA-Opt", "CBS", f"direct {bit:g}"):
                other_rate, other_crb = (column(msia, name, what) for what in ("rate", "crb"))
                ahead, half = interval_db(np.exp(worth - bit * other_rate + np.log(other_crb)))
                key = name.split()[0]
                line |= {f"above {key} db": ahead, f"above {key} ci95": half}
                if name == "CBS":
                    line |= {
                        "rate over CBS": float(rate.mean() / other_rate.mean()),
                        "crb below CBS db": interval_db(other_crb / crb)[0],
                    }
            out.append(line)
    return out


def curve(draws: int, bit: float = 0.2) -> list[dict[str, Any]]:
    """Utility against time: network, network and n steps, direct held to n iterations, direct, SA-Opt, CBS."""
    found: dict[str, list[tuple[float, float]]] = {}
    for i in range(-1, draws):  # the first compiles
        problem = draw(HELD_OUT + max(i, 0))
        weight = weight_at(problem, bit)
        schemes: dict[str, Precoder] = {"network": CspNet(rate_weight=weight)}
        schemes |= {f"network + {n}": CspNet(rate_weight=weight, polish_steps=n) for n in STEPS}
        schemes |= {f"direct, {n}": Direct(rate_weight=weight, starts=1, iterations=n, rounds=0) for n in (1, *STEPS)}
        schemes |= {"direct": Direct(rate_weight=weight), **NAMED}
        for name, scheme in schemes.items():
            began = time.process_time()
            design = scheme.design(problem)
            spent = time.process_time() - began
            score = scored(problem, design)
            if i >= 0:
                found.setdefault(name, []).append((1e3 * spent, bit * score.rate - np.log(score.crb)))
        told(f"quality against time: {i + 1}/{draws} draws")
    return [
        {"scheme": name, "time_ms": float(np.median([t for t, _ in v])), "utility": float(np.mean([u for _, u in v]))}
        for name, v in found.items()
    ]


def feasible(count: int) -> int:
    """How many of ``count`` random inputs, far outside the training's too, give settings out of range, off their steps, or no number at all."""
    card, weights = load("paper")
    network, wrong, block = Factored(**card.shape), 0, 500
    wild = Recipe(snr_db=(-40, 80), msia_rad=(0.005, 0.7), rate_weight=(1e-4, 1e4), strength_db=30.0, sigma_beta=10.0)
    for number in range(0, count, block):
        batch = wild.draw(7, number, block)
        theta, delay_s, z = network.settings(weights, wild.aperture, batch.scenes(wild.aperture))
        step_s = wild.delay_range_s / 2**wild.delay_bits
        level = delay_s / step_s
        good = np.all(np.isfinite(theta), axis=1) & np.all(np.isfinite(z), axis=1)
        good &= np.all(
            (delay_s >= 0) & (delay_s <= wild.aperture.longest_s) & (np.abs(level - np.round(level)) < 1e-9), axis=1
        )
        wrong += int(np.sum(~good))
        told(f"feasible: {number + block}/{count}")
    return wrong


def ready(steps: int) -> Work:
    """The network's beam, or with ``steps`` of polishing, beside the converged search's, for one draw it was not trained on."""
    problem, bit = draw(HELD_OUT), 0.2
    weight = weight_at(problem, bit)
    row = row_of(problem)
    card, weights = load("paper")
    network, scheme = Factored(**card.shape), CspNet(rate_weight=weight, polish_steps=steps)

    def behind(_: Any, theirs: Any) -> float:
        """Decibels of bound that the network's own design is worth less."""
        mine, other = scored(problem, scheme.design(problem)), scored(problem, theirs)
        return float(max(DB * (bit * (other.rate - mine.rate) - np.log(other.crb / mine.crb)), 0.0))

    return Work(
        naive=Side(lambda: NAMED["SA-Opt"].design(problem)),
        ours=Side((lambda: scheme.design(problem)) if steps else lambda: infer(network, weights, [row], weight)),
        apart=behind,
        within=0.5,
    )


_BEAM = "a beam for one user and 3 targets: 256 elements, 64 delay lines, 32 subcarriers"
_SA_OPT = "SA-Opt converged, dictionary of 1024 beams, exact power"
ROWS = (
    Row(
        "csp_net.inference",
        _BEAM,
        _SA_OPT,
        partial(ready, 0),
        target=100,
        same="0.2 R - ln CRB, decibels of bound behind",
    ),
    Row(
        "csp_net.polished",
        f"{_BEAM}, with 8 steps of descent",
        _SA_OPT,
        partial(ready, 8),
        same="0.2 R - ln CRB, decibels of bound behind",
    ),
)


def plot(points: list[dict[str, Any]], image: Path) -> None:
    """Utility over time, the families as lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    families = {
        "network, then n steps": [p for p in points if p["scheme"].startswith("network")],
        "direct, n iterations of one start": [p for p in points if p["scheme"].startswith("direct,")],
    }
    for name, line in families.items():
        line = sorted(line, key=lambda p: p["time_ms"])
        axes.plot([p["time_ms"] for p in line], [p["utility"] for p in line], "o-", ms=4, label=name)
    for p in points:
        if p["scheme"] in ("SA-Opt", "CBS", "direct"):
            axes.plot(p["time_ms"], p["utility"], "s", color="0.3")
            axes.annotate(
                p["scheme"], (p["time_ms"], p["utility"]), xytext=(-6, 6), textcoords="offset points", ha="right"
            )
    for p in families["network, then n steps"]:
        n = p["scheme"].partition("+ ")[2] or "0"
        axes.annotate(
            n, (p["time_ms"], p["utility"]), xytext=(0, 6), textcoords="offset points", fontsize=8, ha="center"
        )
    axes.set_xscale("log")
    axes.set_xlabel("CPU time of a design, ms")
    axes.set_ylabel("utility 0.2 R - ln CRB, nats")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(image, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench.csp_net", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "pace", nargs="?", choices=("quick", "full"), default="full", help="quick: 12 draws, 10^4 random inputs"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench/csp_net"), help="folder of quality.csv, curve.csv and curve.png"
    )
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    quick = given.pace == "quick"
    given.out.mkdir(parents=True, exist_ok=True)
    rows = [r for msia in (0.1, 0.3) for r in quality(Setup(msia_rad=msia), 12 if quick else 200)]
    written(given.out / "quality.csv", rows)
    points = curve(6 if quick else 48)
    written(given.out / "curve.csv", points)
    plot(points, given.out / "curve.png")
    spent = times(30 if quick else 200)
    report = {
        "times_ms": spent,
        "times faster than SA-Opt": spent["SA-Opt"] / spent["inference"],
        "times faster than SA-Opt, whole designs": spent["SA-Opt"] / spent["design"],
        "infeasible of random inputs": feasible(10_000 if quick else 100_000),
        "quality": judged(rows),
        "curve": points,
    }
    told("")
    if given.json:
        json.dump(report, sys.stdout, indent=1)
        print()
        return 0
    print("  ".join(f"{name} {value:.3g} ms" for name, value in spent.items()))
    faster, whole = report["times faster than SA-Opt"], report["times faster than SA-Opt, whole designs"]
    print(f"{faster:.0f} x faster than SA-Opt ({whole:.0f} x by whole designs)")
    print(f"infeasible of random inputs: {report['infeasible of random inputs']}")
    for line in report["quality"]:
        print("  ".join(f"{key} {value:.3g}" for key, value in line.items()))
    for point in points:
        print(f"{point['scheme']:16s} {point['time_ms']:8.2f} ms  {point['utility']:.3f} nats")
    return 0


def written(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    raise SystemExit(main())
