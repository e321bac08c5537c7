"""papers/000, figure 3: the published network's loss, correlation, rate and CRB over training, at the reduced size a CPU trains (8 x 8, 16 subcarriers)."""

import csv
import tempfile
from pathlib import Path

from tools.reproduce.squint import claim, main, told
from twin.learning.training import train
from twin.train import Job, job, task


def learned(path: Path, work: Job) -> None:
    """Train, and keep the curve."""
    with tempfile.TemporaryDirectory() as folder:
        train(
            task(work, "cpu", lambda done, total: told(f"references {done}/{total}")),
            work.training,
            Path(folder),
            tell=lambda step, loss, scores: told(f"step {step}/{work.training.steps}"),
        )
        path.write_text((Path(folder) / "curve.csv").read_text(encoding="utf-8"), encoding="utf-8")


def sets(quick: bool) -> dict[str, str]:
    """Quick: a tenth of the epochs, scenes and looks."""
    return (
        {"training.steps": "32", "training.scenes": "128", "training.validation": "32", "training.look": "8"}
        if quick
        else {}
    )


def make(path: Path, quick: bool) -> None:
    learned(path, job("published_small", sets(quick)))


def verdict(path: Path) -> list[dict]:
    with path.open(encoding="utf-8") as stream:
        found = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]
    first, last = found[0], found[-1]
    tail = [row for row in found if row["step"] >= 0.8 * last["step"]]
    share = first["correlation_share"], last["correlation_share"]
    moved = abs(tail[-1]["gain"] - tail[0]["gain"]) / max(abs(last["gain"] - first["gain"]), 1e-12)
    return [
        claim(
            "the loss decreases significantly during training",
            last["gain"] > 1.2 * first["gain"],
            first=-first["gain"],
            last=-last["gain"],
        ),
        claim(
            "it converges after about 10 epochs (the last fifth moves it by a tenth or less)",
            moved <= 0.1,
            share_moved=moved,
        ),
        claim("the correlation increases", share[1] > 1.05 * share[0], first=share[0], last=share[1]),
        claim(
            "the rate improves",
            last["rate_bits"] > first["rate_bits"],
            first=first["rate_bits"],
            last=last["rate_bits"],
        ),
        claim("the CRB improves", last["crb_db"] < first["crb_db"], first_db=first["crb_db"], last_db=last["crb_db"]),
    ]


if __name__ == "__main__":
    raise SystemExit(main(__doc__, make, verdict))
