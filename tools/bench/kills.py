"""Kill a recording run with SIGKILL at random moments and see what is left: ``python -m tools.bench.kills [--tries 20]``.

The same seed is first run to its end; a killed run's recovered records must be that run's, bit for bit, up to where they end. Lost is the wall
time between the last recovered record and the kill.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from twin.record import recover, rows

SCENARIO = "scenarios/smoke.yaml"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.kills", description=__doc__)
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.0, help="simulated length of the run that is killed")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    moments = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [
            sys.executable,
            "-m",
            "twin",
            "run",
            SCENARIO,
            "--no-report",
            "--duration",
            str(given.seconds),
            "--out",
        ]
        subprocess.run([*command, f"{folder}/whole"], check=True, capture_output=True)
        length_s = time.perf_counter() - began
        whole = [(row.topic, row.t_ns, row.data) for row in rows(f"{folder}/whole/recording.mcap")]
        table = [
            one_kill(command, Path(folder), k, moments.uniform(0.15, 0.95) * length_s, whole)
            for k in range(given.tries)
        ]
    worst = max(row["lost_s"] for row in table)
    wrong = sum(row["wrong"] for row in table)
    if given.json:
        json.dump({"tries": table, "worst_lost_s": worst, "wrong": wrong}, sys.stdout, indent=1)
        print()
    else:
        print("killed after s   records kept   lost s   wrong")
        for row in table:
            print(f"{row['after_s']:>14.2f}   {row['kept']:>12}   {row['lost_s']:>6.3f}   {row['wrong']:>5}")
        print(f"worst loss {worst:.3f} s, wrong records {wrong}, of {given.tries} kills")
    return 0 if worst <= 0.5 and wrong == 0 else 1


def one_kill(
    command: list[str], folder: Path, k: int, after_s: float, whole: list[tuple[str, int, bytes]]
) -> dict[str, float]:
    out = folder / f"killed-{k}"
    process = subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    killed_ns = time.time_ns()
    process.wait()
    source = out / "recording.mcap"
    if not source.exists():
        return {"after_s": after_s, "kept": 0, "lost_s": 0.0, "wrong": 0}
    recover(source, out / "mended.mcap")
    kept = list(rows(out / "mended.mcap"))
    wrong = sum((row.topic, row.t_ns, row.data) != expected for row, expected in zip(kept, whole, strict=False))
    running = process.returncode == -signal.SIGKILL and 0 < len(kept) < len(whole)
    lost_s = (killed_ns - kept[-1].wall_ns) * 1e-9 if running else 0.0
    return {"after_s": round(after_s, 3), "kept": len(kept), "lost_s": round(lost_s, 3), "wrong": wrong}


if __name__ == "__main__":
    raise SystemExit(main())
