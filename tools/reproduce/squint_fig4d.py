"""papers/000, figure 4(d): CRB versus the spread of targets about the user, SNR 10 dB."""

from pathlib import Path
from typing import Any

import numpy as np

from tools.reproduce.figure import curves, figure
from tools.reproduce.squint import claim, curve, main, msia_setups, rows, sweep


def make(path: Path, quick: bool) -> None:
    sweep(path, msia_setups(quick), 6 if quick else 24)


def verdict(path: Path) -> list[dict]:
    found = rows(path)
    db = {
        name: 10 * np.log10(curve(found, name, "crb")[1])
        for name in ("SA-Opt", "CBS-ISAC", "SA-Opt, amp (20)", "direct", "CSP-Net")
    }
    sa, cbs, amp = db["SA-Opt"], db["CBS-ISAC"], db["SA-Opt, amp (20)"]
    return [
        claim("CBS's CRB deteriorates drastically as MSIA grows", cbs[-1] - cbs[0] > 10, rise_db=cbs[-1] - cbs[0]),
        claim(
            "SA-Opt's rises less than CBS's",
            sa[-1] - sa[0] < cbs[-1] - cbs[0],
            rise_db=sa[-1] - sa[0],
            cbs_rise_db=cbs[-1] - cbs[0],
        ),
        claim("SA-Opt's is below CBS's at the widest spread", sa[-1] < cbs[-1], below_db=cbs[-1] - sa[-1]),
        claim(
            "the same with phases by amplitudes and exact power",
            amp[-1] < cbs[-1],
            below_db=cbs[-1] - amp[-1],
            direct_below_db=cbs[-1] - db["direct"][-1],
        ),
        claim(
            "CSP-Net's is below CBS's at the widest spread",
            db["CSP-Net"][-1] < cbs[-1],
            below_db=cbs[-1] - db["CSP-Net"][-1],
        ),
    ]


def draw(path: Path) -> Any:
    drawing, (axis,) = figure()
    curves(
        axis,
        rows(path),
        "x",
        "crb",
        "scheme",
        xlabel="spread of the targets about the user (MSIA), rad",
        ylabel="sum of the angles' bounds, rad²",
        log_y=True,
    )
    return drawing


if __name__ == "__main__":
    raise SystemExit(main(__doc__, make, verdict))
