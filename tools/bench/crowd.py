"""Write a street scene of any size: ``python -m tools.bench.crowd 100 50 > scenarios/crowd.yaml``.

Users drive along four lanes before the mast, targets walk on the pavements between and fly above; places follow from their number alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

GOLDEN = 0.6180339887498949  # its multiples modulo 1 spread evenly, however many there are

HEAD = """\
# As many as the front end can tell apart: {users} cars are users, {targets} others are there to be found. TDMA: one user a block, by turns.
# Made by:  python -m tools.bench.crowd {users} {targets} > scenarios/crowd.yaml       Street's front end and numerology, a larger beam memory.
title: crowd
seed: 1
duration_s: 1
clock: {{ mode: free }}
carrier_ghz: 100
subframe: {{ period_ms: 5, blocks: 35, block_us: 140 }}
communication: {{ bandwidth_ghz: 8, subcarriers: {subcarriers}, noise_figure_db: 10 }}
sensing:
  fidelity: {fidelity}
  waveform: oddm
  detector: {{ kind: glrt, max_range_m: 140 }}
  delay_bins: 64
  doppler_bins: 16
  spacing_khz: 1000
  roll_off: 0.1
  prefix_us: 1.0
  suffix_us: 0.5
  frames_per_dwell: 16
  dwells: 2
  range_m: 140
pilots: {{ duration_us: 9, power_dbm: 23 }}
channel: {{ kind: rician, k_db: 10, spread_deg: 1, rays: 8 }}
sites:
  bs0:
    position_m: [0, 0, 10]
    downtilt_deg: 8
    power_dbm: 30
    noise_figure_db: 10
    isolation_db: 70
    transmit:
      array: {{ kind: upa, columns: {side}, rows: {side} }}
      network: {{ chains: 1, delay_lines: [8, 8], delay_bits: 4, delay_range_ps: 100, phase_bits: 6 }}
      memory_slots: {slots}
    receive:
      array: {{ kind: upa, columns: {side}, rows: {side} }}
      network: {{ chains: 4, phase_bits: 6 }}
      memory_slots: {slots}
    timing: {{ command_latency_us: 50, bus_ns_per_element: {bus_ns}, settling_us: 1, select_ns: 100 }}
    device: sim
    control:
      tracking: ekf
      estimation: mmse
      planning: {{ kind: fixed, user_slots: {user_slots} }}
      precoding: delay_phase
"""


def lines(users: int, targets: int, side: int = 16, subcarriers: int = 32, fidelity: str = "echo") -> Iterator[str]:
    """The scenario's text; ``side`` is a multiple of 8."""
    yield HEAD.format(
        users=users,
        targets=targets,
        side=side,
        subcarriers=subcarriers,
        fidelity=fidelity,
        user_slots=users,
        slots=users + 448,
        bus_ns=1,
    )
    yield "users:\n"
    for i in range(users):
        lane, along = i % 4, (i * GOLDEN) % 1
        x, y = 30 + 14 * lane, -0.8 * (30 + 14 * lane) + 1.6 * (30 + 14 * lane) * along
        yield (
            f"  - {{ name: car{i:03d}, rcs_m2: 10, mobility: {{ kind: linear, position_m: [{x}, {y:.2f}, 1.5], "
            f"velocity_mps: [0, {(-1) ** lane * (8 + i % 5)}, 0] }} }}\n"
        )
    yield "targets:\n" if targets else "targets: []\n"
    for i in range(targets):
        x, along, above = 37 + 14 * (i % 4), (i * GOLDEN + 0.31) % 1, 12 if i % 10 == 9 else 1
        yield (
            f"  - {{ name: walker{i:03d}, rcs_m2: 0.5, mobility: {{ kind: linear, position_m: [{x}, {-0.8 * x + 1.6 * x * along:.2f}, {above}], "
            f"velocity_mps: [0, {(-1) ** i * 1.3}, 0] }} }}\n"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.crowd", description=__doc__)
    parser.add_argument("users", type=int)
    parser.add_argument("targets", type=int)
    given = parser.parse_args()
    print("".join(lines(given.users, given.targets)), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
