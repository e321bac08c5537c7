"""Ours beside papers/000: direct optimisation against CBS on the same draws, and how far it is from any transmitter at all."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hal.network import Network
from tools.reproduce.figure import figure
from tools.reproduce.squint import claim, main, rows, told
from twin.compare_precoders import SCHEMES, Setup, digital, interval_db, scored
from twin.compare_precoders import draw as drawn
from twin.drawing import GRID, look
from twin.precoding.direct import Direct

WEIGHTS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0)
BOUNDED = (1.07, 4.28)
SETUPS = {
    100.0: Setup(),
    300.0: Setup(
        carrier_hz=300e9, bandwidth_hz=20e9, columns=32, rows=32, delay_lines=(16, 16)
    ),  # x: the carrier in GHz
}


def make(path: Path, quick: bool, setups: dict[float, Setup] = SETUPS) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(("x", "seed", "scheme", "rate", "crb", "divergence", "time_s"))
        for x, setup in setups.items():
            draws = 3 if quick else 24
            for seed in range(draws):
                problem = drawn(seed, setup)
                schemes = {name: SCHEMES[name] for name in ("CBS (21)", "CBS (20)", "no TTD amp (20)", "comm")}
                schemes |= {
                    f"direct {w:g}": Direct(rate_weight=w, starts=2 if x > 200 else 3)
                    for w in (WEIGHTS[1::2] if x > 200 or quick else WEIGHTS)
                }
                for name, precoder in schemes.items():
                    s = scored(problem, precoder.design(problem))
                    table.writerow((x, seed, name, s.rate, s.crb, s.divergence, 0))
                for w in BOUNDED if x < 200 else BOUNDED[:1]:
                    bound, bit = digital(problem, w)
                    s = scored(problem, Direct(rate_weight=w).design(problem))
                    table.writerow((x, seed, f"digital {w:g}", bound.rate, bound.crb, bound.gap, bound.utility))
                    table.writerow(
                        (x, seed, f"bounded {w:g}", s.rate, s.crb, s.divergence, bit * s.rate - np.log(s.crb))
                    )
                    bare = replace(
                        problem,
                        half=replace(problem.half, network=Network(phase_bits=0).build(setup.columns, setup.rows)),
                    )
                    s = scored(bare, Direct(rate_weight=w).design(bare))
                    table.writerow(
                        (x, seed, f"no lines {w:g}", s.rate, s.crb, s.divergence, bit * s.rate - np.log(s.crb))
                    )
                told(f"{x:g} GHz: {seed + 1}/{draws} draws")


def verdict(path: Path) -> list[dict]:
    found, out = rows(path), []
    for x in sorted({r["x"] for r in found}):
        own = [r for r in found if r["x"] == x]
        seeds = sorted({r["seed"] for r in own})
        at = {(r["seed"], r["scheme"]): r for r in own}
        direct = {s: [r for r in own if r["seed"] == s and r["scheme"].startswith("direct ")] for s in seeds}
        for name, goal in (("CBS (21)", 5.0), ("CBS (20)", 0.0), ("no TTD amp (20)", 0.0)):
            lower, faster = [], []
            for s in seeds:
                other = at[s, name]
                able = [r["crb"] for r in direct[s] if r["rate"] >= other["rate"]]
                fine = [r["rate"] for r in direct[s] if r["crb"] <= other["crb"]]
                lower.append(other["crb"] / min(able) if able else np.nan)
                faster.append(max(fine) / other["rate"] if fine else np.nan)
            db, half = interval_db(np.array(lower))
            ratio = np.array(faster)[np.isfinite(faster)]
            text = f"{x:g} GHz: direct's CRB at the rate of {name} is at least {goal:g} dB lower"
            numbers = {"rate_ratio_at_its_crb": np.mean(ratio), "rate_ratio_geometric": np.exp(np.log(ratio).mean())}
            out.append(claim(text, db >= goal, db=db, ci95_db=half, draws=np.isfinite(lower).sum(), **numbers))
        for w in BOUNDED:
            pairs = [(at[s, f"digital {w:g}"], at[s, f"bounded {w:g}"]) for s in seeds if (s, f"digital {w:g}") in at]
            if pairs:
                short = np.array([d["time_s"] - b["time_s"] for d, b in pairs])  # utilities, nats
                db, half = interval_db(np.exp(short))
                gap = 10 / np.log(10) * max(d["divergence"] for d, _ in pairs)
                text = f"{x:g} GHz: utility at weight {w:g} within 2 dB of the fully digital bound"
                out.append(claim(text, db <= 2.0, db=db, ci95_db=half, duality_gap_db=gap))
            lines = [(at[s, f"bounded {w:g}"], at[s, f"no lines {w:g}"]) for s in seeds if (s, f"no lines {w:g}") in at]
            if lines:
                db, half = interval_db(np.exp([b["time_s"] - n["time_s"] for b, n in lines]))
                out.append(
                    claim(
                        f"{x:g} GHz: delay lines raise direct's utility at weight {w:g}",
                        db - half > 0,
                        db=db,
                        ci95_db=half,
                    )
                )
    return out


def draw(path: Path) -> Any:
    found = rows(path)
    xs = sorted({r["x"] for r in found})
    drawing, axes = figure(len(xs))
    for axis, x in zip(axes, xs, strict=True):
        for i, family in enumerate(("direct", "CBS (21)", "CBS (20)", "no TTD amp (20)", "comm", "digital")):
            names = dict.fromkeys(r["scheme"] for r in found if r["x"] == x and r["scheme"].startswith(family))
            at = [[r for r in found if r["x"] == x and r["scheme"] == name] for name in names]
            means = sorted(
                (np.mean([r["rate"] for r in a]), np.exp(np.mean(np.log([r["crb"] for r in a])))) for a in at
            )
            if means:
                axis.plot(*np.array(means).T, label=family, **look(i))
        axis.set(yscale="log", xlabel="rate, bit/s/Hz", ylabel="sum of the angles' bounds, rad²")
        axis.set_title(f"{x:g} GHz; mean over draws")
        axis.grid(**GRID)
        axis.legend()
    return drawing


if __name__ == "__main__":
    raise SystemExit(main(__doc__, make, verdict))
