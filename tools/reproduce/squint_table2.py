"""papers/000, table 2: the published network, its real-valued form, and it without attention, at the reduced size a CPU trains (8 x 8, 16 subcarriers)."""

import csv
from pathlib import Path

from tools.reproduce.squint import claim, main
from tools.reproduce.squint_fig3 import learned, sets
from twin.train import job

VARIANTS = {
    "CSP-Net": {},
    "real-valued": {"network.complex_valued": "false"},
    "w/o CBAM": {"network.attention": "false"},
}


def make(path: Path, quick: bool) -> None:
    """A row for each variant and look; the best look is what counts."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = None
        for name, changed in VARIANTS.items():
            curve = path.with_suffix(".part")
            learned(curve, job("published_small", {**sets(quick), **changed}))
            with curve.open(encoding="utf-8") as rows:
                for row in csv.DictReader(rows):
                    if table is None:
                        table = csv.DictWriter(stream, ["scheme", *row])
                        table.writeheader()
                    table.writerow({"scheme": name, **row})
            curve.unlink()


def verdict(path: Path) -> list[dict]:
    best: dict[str, dict[str, float]] = {}
    with path.open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            name, now = row.pop("scheme"), {key: float(value) for key, value in row.items()}
            if name not in best or now["gain"] > best[name]["gain"]:
                best[name] = now
    whole = best["CSP-Net"]
    out = []
    for name in ("real-valued", "w/o CBAM"):
        other = best[name]
        for text, holds in (
            ("loss", whole["gain"] > other["gain"]),
            ("correlation", whole["correlation_share"] > other["correlation_share"]),
            ("rate", whole["rate_bits"] > other["rate_bits"]),
            ("CRB", whole["crb_db"] < other["crb_db"]),
        ):
            key = {"loss": "gain", "correlation": "correlation_share", "rate": "rate_bits", "CRB": "crb_db"}[text]
            sign = -1 if text == "loss" else 1
            out.append(
                claim(
                    f"{name}: its {text} is worse than CSP-Net's",
                    holds,
                    csp_net=sign * whole[key],
                    other=sign * other[key],
                )
            )
    return out


if __name__ == "__main__":
    raise SystemExit(main(__doc__, make, verdict))
