"""Beyond papers/004: what memory, pilot length and sensing-only beams bring over its plan, re-optimised in the same metric."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.reproduce.dual import claim, main, mean_ci, read, written
from tools.reproduce.figure import curves, figure
from twin.planning.dual_scale import adapt, ergodic_plan, ergodic_rate_of, kalman, longest_paying, paper_drop, solve


def make(path: Path, quick: bool) -> None:
    import numpy as np

    def lines() -> Iterator[tuple[Any, ...]]:
        for snr_db in (-5, 0, 5, 10, 20):
            for seed in range(3 if quick else 8):
                _, case = paper_drop(seed, pilot_snr=10 ** (snr_db / 10))
                paper = solve(case).rate
                yield "memory", snr_db, seed, kalman(case).rate / paper - 1
                longer, _ = longest_paying(case, range(9, 25), 1e-6)
                yield "pilot length", snr_db, seed, longer.rate / paper - 1
                both, _ = longest_paying(case, range(9, 25), 1e-6, search=kalman)
                yield "memory and length", snr_db, seed, both.rate / paper - 1
        for spread in (1, 5, 15):
            for seed in range(4 if quick else 12):
                scene, case = paper_drop(
                    seed, pilot_snr=100.0, azimuth_spread_rad=np.deg2rad(spread), demodulation_symbols=1
                )
                found, paper = adapt(scene, case, draws=200), ergodic_plan(scene, case, draws=200)
                ours = ergodic_rate_of(
                    scene, case, found.choice, found.pilots, memory=found.memory, draws=500 if quick else 2000
                )
                theirs = ergodic_rate_of(scene, case, paper, None, draws=500 if quick else 2000)
                yield "adaptive, ergodic", spread, seed, ours / theirs - 1

    written(path, ("lever", "at", "seed", "gain"), lines())


def verdict(path: Path) -> list[dict[str, Any]]:
    found = read(path)

    def gain(lever: str, at: float) -> tuple[float, float]:
        return mean_ci([r["gain"] for r in found if r["lever"] == lever and r["at"] == at])

    out = [
        claim(
            f"{lever} brings {least:.0%} and more at beta gamma_e = {at} dB",
            gain(lever, at)[0] >= least,
            gain=gain(lever, at)[0],
            ci95=gain(lever, at)[1],
        )
        for lever, at, least in (
            ("memory", -5, 0.5),
            ("memory", 5, 0.10),
            ("pilot length", 0, 0.2),
            ("memory and length", 5, 0.10),
        )
    ]
    out.append(
        claim(
            "at 20 dB none of them matters (under 1 %)",
            max(gain(name, 20)[0] for name in ("memory", "pilot length", "memory and length")) < 0.01,
        )
    )
    for spread in (1, 5, 15):
        mean, half = gain("adaptive, ergodic", spread)
        out.append(
            claim(
                f"adaptive brings 50 % and more, ergodic rate, spread {spread} deg, 20 dB",
                mean >= 0.5,
                gain=mean,
                ci95=half,
            )
        )
    worst = min(r["gain"] for r in found if r["lever"] == "adaptive, ergodic")
    out.append(claim("adaptive is never worse than the paper's plan", worst >= -0.02, worst=worst))
    return out


def draw(path: Path) -> Any:
    found = [{**r, "percent": 100 * r["gain"]} for r in read(path)]
    drawing, axes = figure(2)
    levers = [r for r in found if r["lever"] != "adaptive, ergodic"]
    curves(
        axes[0],
        levers,
        "at",
        "percent",
        "lever",
        title="bound metric, eq (22)",
        xlabel="pilot SNR, dB",
        ylabel="gain over the paper's plan, %",
    )
    others = [r for r in found if r["lever"] == "adaptive, ergodic"]
    curves(
        axes[1],
        others,
        "at",
        "percent",
        "lever",
        title="ergodic metric",
        xlabel="half angle of the ring, deg",
        ylabel="gain over the paper's plan, %",
    )
    return drawing


if __name__ == "__main__":
    raise SystemExit(main(__doc__, make, verdict))
