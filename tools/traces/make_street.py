"""Recipe of ``scenarios/traces/street.fcd.xml.gz``: a crossing beside a mast, driven by SUMO, cropped to what the mast sees.

Needs the ``sumo`` and ``netconvert`` programs, which the wheel ``eclipse-sumo`` (1.28.0 made the file that is shipped) brings::

    python -m venv v && v/bin/pip install eclipse-sumo==1.28.0 && v/bin/python tools/traces/make_street.py

The mast stands at (0, 0) and looks along +x. The main street runs north-south at x = 48 m, the side street runs east-west at y = 14 m
past the mast's foot, and a traffic light works where they cross. Every street has one lane each way, so nobody jumps sideways.
All that is written is generated data: it carries the licence of this repository, not that of the simulator.
"""

from __future__ import annotations

import argparse
import gzip
import io
import itertools
import math
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

SEED = 20
WARM_UP_S = 60.0
SEARCH_S = 600.0  # of traffic, from which the window below is chosen
WINDOW_S = 75.0
STEP_S = 0.1
MAIN_X_M, SIDE_Y_M = 48.0, 14.0
SECTOR_DEG = 60.0
NEAR_M, FAR_M = 15.0, 120.0  # slant-free distance from the mast's foot within which a vehicle counts as seen
CROP_M = 150.0  # vehicles farther from the mast are left out
USERS = 5
LEAST_STAY_S = 16.0
MOVING_MPS = 2.0

NODES = f"""<nodes>
  <node id="crossing" x="{MAIN_X_M}" y="{SIDE_Y_M}" type="traffic_light"/>
  <node id="north" x="{MAIN_X_M}" y="320" type="priority"/>
  <node id="south" x="{MAIN_X_M}" y="-320" type="priority"/>
  <node id="east" x="400" y="{SIDE_Y_M}" type="priority"/>
  <node id="west" x="-300" y="{SIDE_Y_M}" type="priority"/>
</nodes>
"""
EDGES = (
    "<edges>\n"
    + "".join(
        f'  <edge id="{side}_{way}" from="{a}" to="{b}" numLanes="1" speed="{speed}" priority="{rank}"/>\n'
        for side, speed, rank in (("north", 13.89, 3), ("south", 13.89, 3), ("east", 11.11, 2), ("west", 11.11, 2))
        for way, a, b in (("in", side, "crossing"), ("out", "crossing", side))
    )
    + "</edges>\n"
)
# (from, to, vehicles an hour); a name ends up as in "north.7"
FLOWS = (("north", "south", 620), ("south", "north", 620), ("east", "west", 420), ("west", "east", 240))
ROUTES = (
    '<routes>\n  <vType id="car" length="4.6" accel="2.4" decel="4.0" sigma="0.4" speedFactor="normc(1,0.08,0.8,1.2)"/>\n'
    + "".join(
        f'  <flow id="{a}" type="car" begin="0" end="{WARM_UP_S + SEARCH_S:g}" from="{a}_in" to="{b}_out" '
        f'probability="{rate / 3600:.4f}" departSpeed="max"/>\n'
        for a, b, rate in FLOWS
    )
    + "</routes>\n"
)

Seen = dict[str, tuple[float, float, float, float]]  # x, y, angle, speed of every vehicle


def simulate(folder: Path) -> list[Seen]:
    """Drive the traffic and return who is where, a dictionary a step after the warm-up."""
    for name, text in (("street.nod.xml", NODES), ("street.edg.xml", EDGES), ("street.rou.xml", ROUTES)):
        (folder / name).write_text(text)
    programs = Path(sys.executable).parent
    netconvert = [
        programs / "netconvert", "--node-files=street.nod.xml", "--edge-files=street.edg.xml", "--output-file=street.net.xml",
        "--tls.cycle.time=36", "--no-turnarounds=true", "--offset.disable-normalization=true",
    ]  # fmt: skip
    # Ballistic steps: between two samples the speed is linear in time, which is what the reader's cubic reproduces exactly.
    sumo = [
        programs / "sumo", "--net-file=street.net.xml", "--route-files=street.rou.xml", f"--seed={SEED}", f"--step-length={STEP_S}",
        "--step-method.ballistic=true", f"--end={WARM_UP_S + SEARCH_S}", "--fcd-output=all.fcd.xml", "--precision=4",
        "--fcd-output.attributes=x,y,angle,speed", "--no-step-log=true", "--no-warnings=true",
    ]  # fmt: skip
    for command in (netconvert, sumo):
        subprocess.run([str(part) for part in command], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    steps: list[Seen] = []
    for _, node in ElementTree.iterparse(folder / "all.fcd.xml"):
        if node.tag == "timestep":
            if float(node.attrib["time"]) >= WARM_UP_S - STEP_S / 2:
                steps.append(
                    {v.attrib["id"]: tuple(float(v.attrib[a]) for a in ("x", "y", "angle", "speed")) for v in node}  # type: ignore[misc]
                )
            node.clear()
    return steps


def in_sector(x_m: float, y_m: float) -> bool:
    """Whether the mast has a vehicle in front of it, near enough and not too near."""
    return NEAR_M <= math.hypot(x_m, y_m) <= FAR_M and abs(math.degrees(math.atan2(y_m, x_m))) <= SECTOR_DEG


def best_window(steps: list[Seen]) -> tuple[int, list[str], float, float]:
    """First step, names, seconds in the sector and moving share of the window whose five users drive most and stand least.

    The five are those present at the window's start that move for the largest share of their common stay, which lasts at least
    ``LEAST_STAY_S``; they come from three streets or more. At every step of the window five vehicles or more are in the sector.
    """
    seen = [{name: in_sector(x, y) for name, (x, y, _, _) in step.items()} for step in steps]
    enough = [sum(step.values()) >= USERS for step in seen]
    length, least = round(WINDOW_S / STEP_S) + 1, round(LEAST_STAY_S / STEP_S)
    best: tuple[int, list[str], float, float] = (-1, [], 0.0, 0.0)
    for first in range(0, len(steps) - length, 5):
        if not all(enough[first : first + length]):
            continue
        movers = []
        for name in (n for n, inside in seen[first].items() if inside):
            stay = sum(1 for _ in itertools.takewhile(lambda step, name=name: step.get(name, False), seen[first:]))
            if stay >= least:
                moving = sum(steps[first + i][name][3] > MOVING_MPS for i in range(least)) / least
                movers.append((moving, stay, name))
        chosen = sorted(movers, reverse=True)[:USERS]
        if len(chosen) < USERS or len({name.partition(".")[0] for _, _, name in chosen}) < 3:
            continue
        share = sum(moving for moving, _, _ in chosen) / USERS
        if share > best[3]:
            best = (first, sorted(name for _, _, name in chosen), min(stay for _, stay, _ in chosen) * STEP_S, share)
    return best


def write(path: Path, steps: list[Seen]) -> int:
    """Write the steps as floating-car data, gzip'd without a time stamp so that the recipe gives the same bytes again."""
    text = io.StringIO()
    text.write('<?xml version="1.0" encoding="UTF-8"?>\n<fcd-export>\n')
    for i, step in enumerate(steps):
        text.write(f'<timestep time="{i * STEP_S:.1f}">\n')
        for name, (x, y, angle, speed) in step.items():
            if math.hypot(x, y) <= CROP_M and x > 0:
                text.write(f'<vehicle id="{name}" x="{x:.7g}" y="{y:.7g}" angle="{angle:.6g}" speed="{speed:.6g}"/>\n')
        text.write("</timestep>\n")
    text.write("</fcd-export>\n")
    packed = gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0)
    path.write_bytes(packed)
    return len(packed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).resolve().parents[2] / "scenarios" / "traces" / "street.fcd.xml.gz"
    )
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        steps = simulate(Path(folder))
    first, names, stay_s, share = best_window(steps)
    if first < 0:
        raise SystemExit("no window holds five vehicles all the time: change SEED or FLOWS")
    window = steps[first : first + round(WINDOW_S / STEP_S) + 1]
    size = write(out, window)
    fewest = min(sum(in_sector(x, y) for x, y, _, _ in step.values()) for step in window)
    print(f"{out.name}: {size} bytes, {WINDOW_S:g} s, never fewer than {fewest} vehicles in the sector")
    print(f"in the sector for the first {stay_s:.1f} s, moving {share:.0%} of it: {' '.join(names)}")


if __name__ == "__main__":
    main()
