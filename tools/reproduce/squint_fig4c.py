"""papers/000, figure 4(c): rate versus the spread of targets about the user, SNR 10 dB."""

from pathlib import Path
from typing import Any

from tools.reproduce.figure import curves, figure
from tools.reproduce.squint import claim, curve, main, msia_setups, paired_db, rows, sweep


def make(path: Path, quick: bool) -> None:
    sweep(path, msia_setups(quick), 6 if quick else 24)


def verdict(path: Path) -> list[dict]:
    found = rows(path)
    share = {
        name: curve(found, name, "rate")[1] / curve(found, "Comm-dedicated", "rate")[1]
        for name in ("SA-Opt", "CBS-ISAC", "Opt w/o TTD", "direct", "CSP-Net")
    }
    cbs, sa = share["CBS-ISAC"], share["SA-Opt"]
    ttd_db, half_db = paired_db(found, "SA-Opt", "Opt w/o TTD", "rate", max(r["x"] for r in found))
    return [
        claim("CBS's rate deteriorates drastically as MSIA grows", cbs[-1] < 0.3 * cbs[0], first=cbs[0], last=cbs[-1]),
        claim("SA-Opt maintains its rate", sa[-1] >= 0.5 * sa[0], first=sa[0], last=sa[-1]),
        claim(
            "and it is the TTDs that do it",
            ttd_db - half_db > 0,
            rate_ratio_db=ttd_db,
            ci95_db=half_db,
            share_of_direct=share["direct"][-1],
        ),
        claim(
            "CSP-Net maintains its rate",
            share["CSP-Net"][-1] >= 0.5 * share["CSP-Net"][0],
            first=share["CSP-Net"][0],
            last=share["CSP-Net"][-1],
        ),
    ]


def draw(path: Path) -> Any:
    drawing, (axis,) = figure()
    curves(
        axis,
        rows(path),
        "x",
        "rate",
        "scheme",
        xlabel="spread of the targets about the user (MSIA), rad",
        ylabel="rate, bit/s/Hz",
    )
    return drawing


if __name__ == "__main__":
    raise SystemExit(main(__doc__, make, verdict))
