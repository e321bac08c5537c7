"""Same scenario, same seed, same figures: what a change of code moved, it must own up to.

``python tests/golden/test_golden.py`` writes the figures anew; say in the commit why they moved.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from twin.build import run

HERE = Path(__file__).parent
SMOKE = HERE.parents[1] / "scenarios" / "smoke.yaml"


def figures() -> dict[str, Any]:
    told = run(SMOKE, {"duration_s": 0.3}, write=False).summary
    flat = {f"rate_gbps.{name}": user["rate_gbps"] for name, user in told["users"].items()}
    flat |= {f"snr_db.{name}": user["snr_db"] for name, user in told["users"].items()}
    flat |= {f"tracked_share.{name}": mover["tracked_share"] for name, mover in told["movers"].items()}
    flat |= {name: told["sensing"][name] for name in ("detections", "side_lobe_echoes", "false_alarms")}
    return flat | {"beams_set": told["beams"]["set"], "beam_delay_us": told["beams"]["delay_us"]}


def test_smoke_is_what_it_was() -> None:
    assert figures() == pytest.approx(json.loads((HERE / "smoke.json").read_text()), rel=0.02, abs=0.05)


if __name__ == "__main__":
    (HERE / "smoke.json").write_text(json.dumps(figures(), indent=1) + "\n")
