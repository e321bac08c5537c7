"""papers/000, figure 6: running time of the schemes over the size of the array."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tools.reproduce.figure import curves, figure
from tools.reproduce.squint import PAPER, claim, curve, main, rows, sweep
from twin.compare_precoders import Setup

TIMED = ("SA-Opt", "CBS-ISAC", "Opt w/o TTD", "Comm-dedicated", "direct", "CSP-Net")


def make(path: Path, quick: bool) -> None:
    sizes = (4, 8) if quick else (4, 8, 16, 32)
    setups = {float(n * n): replace(Setup(), columns=n, rows=n, delay_lines=(n // 2, n // 2)) for n in sizes}
    sweep(path, setups, 2 if quick else 6, {name: PAPER[name] for name in TIMED})


def verdict(path: Path) -> list[dict]:
    found = rows(path)
    last = {name: curve(found, name, "time_s")[1][-1] for name in TIMED}
    sa = last["SA-Opt"]
    return [
        claim(
            "SA-Opt requires the most design time",
            sa == max(last.values()),
            **{f"{name} ms": 1e3 * s for name, s in last.items()},
        ),
        claim(
            "CSP-Net takes the least time of all that weigh rate and bound, a hundredth of SA-Opt's or less",
            last["CSP-Net"] <= min(last[name] for name in ("CBS-ISAC", "Opt w/o TTD", "direct"))
            and sa >= 100 * last["CSP-Net"],
            ratio=sa / last["CSP-Net"],
        ),
        claim(
            "its complexity rules it out where channels vary (slower than a 5 ms subframe)", sa > 5e-3, sa_ms=1e3 * sa
        ),
    ]


def draw(path: Path) -> Any:
    drawing, (axis,) = figure()
    curves(
        axis,
        rows(path),
        "x",
        "time_s",
        "scheme",
        xlabel="elements",
        ylabel="time of a design, ms",
        log_x=True,
        log_y=True,
        scale=1e3,
    )
    return drawing


if __name__ == "__main__":
    raise SystemExit(main(__doc__, make, verdict))
