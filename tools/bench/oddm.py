"""Time ODDM frames from grid to grid, three ways, interleaved in one process: ``python -m tools.bench.oddm [quick] [--json]``.

64 x 16 frames of 4 streams through 3 targets to 4 chains, process CPU time. Matrix: modulator, each target's operator and demodulator as 1024 x 1024
matrices, vectors times matrices; "formed": each target's operator is formed for the frame (eqs (11), (12), (15)), as it must be when targets move;
"kept": they are there. Plain: ``Oddm.modulate``, ``doubly_selective.hybrid``, ``Oddm.demodulate``. Zak: ``zak.through_grid``; "laid": with the channel's own
lines and layout, ``passage`` and ``grid_passage``, made anew for every dwell of 16 frames, which is what stands against "formed".
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from twin.physics.delay_doppler import echo_operator, raised_cosine
from twin.physics.doubly_selective import hybrid, passage
from twin.physics.zak import grid_passage, through_grid
from twin.waveforms.oddm import Oddm

M, N, STREAMS, TARGETS, FRAMES, ROLL_OFF = 64, 16, 4, 3, 16, 0.1


def cpu_s(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(quick: bool) -> dict[str, float]:
    """Median microseconds a frame (4 streams each) of each way, their ratios, and relative errors against the matrices in double precision."""
    rng = np.random.default_rng(1)

    def normal(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)

    numerology: Any = SimpleNamespace(delay_bins=M, doppler_bins=N)
    delay, doppler = np.array([10.2471, 15.3, 20.77]), np.array([5.5594, -3.3, 0.7]) / (M * N)
    amplitude, departure, arrival = normal(TARGETS), normal(TARGETS, STREAMS), normal(TARGETS, STREAMS)

    def laid_out(kind: Any) -> tuple[Any, Any]:
        channel = passage(delay, doppler, amplitude, ROLL_OFF, M * N, prefix=32.0, doppler_limit=0.5 / M)
        return channel, grid_passage(channel, departure, arrival, M, N, kind)

    grid = normal(FRAMES, STREAMS, M, N)
    modulator = np.stack([Oddm().modulate(one.reshape(M, N), numerology) for one in np.eye(M * N)], axis=-1)
    paths = np.stack(
        [
            a * echo_operator(np.eye(M * N), late, turns, ROLL_OFF, "exact").T
            for a, late, turns in zip(amplitude, delay, doppler, strict=True)
        ]
    )

    def matrices(frames: np.ndarray, kind: Any) -> np.ndarray:
        sent = frames.reshape(-1, STREAMS, M * N) @ dense[kind][0].T
        heard = sum(
            np.einsum("c,fq->fcq", arrival[p].astype(kind), (departure[p].astype(kind) @ sent) @ dense[kind][1][p].T)
            for p in range(TARGETS)
        )
        return (heard @ dense[kind][0].conj()).reshape(-1, STREAMS, M, N)

    dense = {kind: (modulator.astype(kind), paths.astype(kind)) for kind in (np.complex64, np.complex128)}
    exact = matrices(grid, np.complex128)
    single = grid.astype(np.complex64)
    laid = {kind: laid_out(kind)[1] for kind in dense}
    channel = laid_out(np.complex64)[0]

    def plain() -> np.ndarray:
        return Oddm().demodulate(hybrid(channel, Oddm().modulate(single, numerology), departure, arrival), numerology)

    place = np.arange(M * N)
    lag = (place[:, None] - place + M * N // 2) % (M * N) - M * N // 2

    def kept() -> None:
        matrices(single[:1], np.complex64)

    def formed() -> None:
        for late, turns in zip(delay, doppler, strict=True):
            ramp = np.exp(2j * np.pi * turns * (place - late)).astype(np.complex64)
            pulse = raised_cosine(lag[0] - late, ROLL_OFF)
            ramp[:, None] * pulse[(-lag) % (M * N)]
        kept()

    def miss(got: np.ndarray) -> float:
        return float(np.linalg.norm(got - exact) / np.linalg.norm(exact))

    errors = {
        "error_complex64": miss(through_grid(laid[np.complex64], single)),
        "error_complex128": miss(through_grid(laid[np.complex128], grid)),
        "error_plain_complex64": miss(plain()),
    }
    rounds = 20 if quick else 200
    times: dict[str, list[float]] = {"zak": [], "laid": [], "plain": [], "kept": [], "formed": []}
    for r in range(rounds):
        times["zak"].append(cpu_s(lambda: through_grid(laid[np.complex64], single)) / FRAMES)
        times["laid"].append(cpu_s(lambda: through_grid(laid_out(np.complex64)[1], single)) / FRAMES)
        times["plain"].append(cpu_s(plain) / FRAMES)
        if r % 10 == 0:
            times["kept"].append(cpu_s(kept))
            times["formed"].append(cpu_s(formed))
    median = {name: float(np.median(values)) for name, values in times.items()}
    return {
        **{f"{name}_us": value * 1e6 for name, value in median.items()},
        "frames_per_s": 1 / median["zak"],
        "best_frames_per_s": 1 / min(times["zak"]),
        "over_formed": median["formed"] / median["laid"],
        "over_kept": median["kept"] / median["zak"],
        "over_plain": median["plain"] / median["zak"],
        **errors,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.oddm", description=__doc__)
    parser.add_argument("pace", nargs="?", choices=("quick", "full"), default="full")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = measure(given.pace == "quick")
    if given.json:
        about = {"machine": platform.processor() or platform.machine(), "python": platform.python_version()}
        json.dump({**about, **found}, sys.stdout, indent=1)
        print()
        return 0
    print(
        f"a frame of {STREAMS} streams, {TARGETS} targets: matrices {found['formed_us']:.0f} us (kept {found['kept_us']:.0f} us), "
        f"plain FFTs {found['plain_us']:.1f} us, Zak {found['zak_us']:.1f} us (laid for each dwell {found['laid_us']:.1f} us)\n"
        f"{found['frames_per_s']:.0f} frames/s (best {found['best_frames_per_s']:.0f}), "
        f"{found['over_formed']:.0f} x the matrices (kept: {found['over_kept']:.0f} x), {found['over_plain']:.1f} x plain FFTs\n"
        f"error against matrices in double precision: complex64 {found['error_complex64']:.1e}, complex128 {found['error_complex128']:.1e}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
