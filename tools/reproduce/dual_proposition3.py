"""papers/004, proposition 3: is the rate concave in sensing time between block edges? Second differences of equation (24) with (22)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.reproduce.dual import claim, main, read, written
from tools.reproduce.figure import figure
from twin.drawing import GREY, GRID, look
from twin.planning.dual_scale import even_split, paper_drop, rate

FLAT = 1e-11  # of the rate: rounding in a second difference


def make(path: Path, quick: bool) -> None:
    def lines() -> Iterator[tuple[Any, ...]]:
        for std in (0.1, 0.5, 1.5):
            for guard in ("clip", "raw"):
                for reference in ("element", "centre"):
                    for own in (True, False):
                        for seed in range(4 if quick else 30):
                            rng = np.random.default_rng(seed)
                            h, m = int(rng.integers(3, 25)), int(rng.integers(1, 9))
                            _, case = paper_drop(
                                seed,
                                guard=guard,
                                reference=reference,
                                own_term=own,
                                pilot_snr=10 ** rng.uniform(0, 3),
                                blocks=35,
                                echo_snr=1.0,
                            )
                            # the worst user has this deviation at the piece's left edge
                            scale = np.deg2rad(std) ** 2 * h * case.block_s / case.crb_s_rad2.max()
                            _, case = paper_drop(
                                seed,
                                guard=guard,
                                reference=reference,
                                own_term=own,
                                pilot_snr=float(case.pilot_snr[0]),
                                blocks=35,
                                echo_snr=1 / scale,
                            )
                            t = np.linspace(h, h + 1 - case.pilot_s / case.block_s - 1e-9, 21) + 1e-10
                            value = np.array([rate(case, at * case.block_s, even_split(35 - h, m)) for at in t])
                            second = np.diff(value, 2) / np.abs(value[1:-1])
                            yield (
                                std,
                                guard,
                                reference,
                                int(own),
                                seed,
                                h,
                                m,
                                float(np.max(second)) if np.all(np.isfinite(second)) else float("inf"),
                            )

    written(path, ("std_deg", "guard", "reference", "own_term", "seed", "block", "updates", "largest_second"), lines())


def verdict(path: Path) -> list[dict[str, Any]]:
    found = read(path)

    def part(**given: Any) -> np.ndarray:
        return np.array([r["largest_second"] for r in found if all(r[k] == v for k, v in given.items())])

    inside = np.concatenate([part(std_deg=s, own_term=1.0) for s in (0.1, 0.5)])
    dropped = np.concatenate([part(std_deg=s, own_term=0.0) for s in (0.1, 0.5)])
    raw, clip = part(std_deg=1.5, guard="raw"), part(std_deg=1.5, guard="clip")
    parts = {
        "piecewise concave where R-hat is PSD (22)": inside,
        "the same with i = k dropped": dropped,
        "far outside, R-hat raw (1.5 deg)": raw,
        "far outside, eigenvalues clipped (1.5 deg)": clip,
    }
    return [
        claim(
            text, bool(np.max(v) <= FLAT), violations=float(np.sum(v > FLAT)), pieces=len(v), largest=float(np.max(v))
        )
        for text, v in parts.items()
    ]


def draw(path: Path) -> Any:
    found, (drawing, (axis,)) = read(path), figure()
    for i, key in enumerate(sorted({(r["guard"], r["own_term"]) for r in found})):
        values = np.sort([r["largest_second"] for r in found if (r["guard"], r["own_term"]) == key])
        label = f"guard {key[0]}, i = k {'on' if key[1] else 'off'}"
        axis.plot(values, np.linspace(0, 1, len(values)), label=label, **{**look(i), "marker": ""})
    axis.set(
        xscale="symlog",
        xlabel="largest second difference of the rate (concave: none above 0)",
        ylabel="share of instances",
    )
    axis.axvline(0, linewidth=0.8, color=GREY)
    axis.set_xscale("symlog", linthresh=1e-9)
    axis.grid(**GRID)
    axis.legend()
    return drawing


if __name__ == "__main__":
    raise SystemExit(main(__doc__, make, verdict))
