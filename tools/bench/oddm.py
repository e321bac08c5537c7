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
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from tools.bench.row import Row, Side, Work, apart
from twin.physics.delay_doppler import echo_operator, raised_cosine
from twin.physics.doubly_selective import hybrid, passage
from twin.physics.zak import grid_passage, through_grid
from twin.waveforms.oddm import Oddm

M, N, STREAMS, TARGETS, FRAMES, ROLL_OFF = 64, 16, 4, 3, 16, 0.1


def cpu_s(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@dataclass(frozen=True)
class Ways:
    """The same frames through the same targets, each way a call, and what comes out in double precision."""

    exact: np.ndarray
    grid: np.ndarray
    formed: Callable[[], np.ndarray]  # one frame; so is kept
    kept: Callable[[], np.ndarray]
    plain: Callable[[], np.ndarray]
    zak: Callable[[], np.ndarray]
    laid: Callable[[], np.ndarray]
    double: Callable[[], np.ndarray]
    transforms: Callable[[], Any]  # the transforms along delay alone, there and back: no way does without


def ways() -> Ways:
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

    def kept() -> np.ndarray:
        return matrices(single[:1], np.complex64)

    def formed() -> np.ndarray:
        for late, turns in zip(delay, doppler, strict=True):
            ramp = np.exp(2j * np.pi * turns * (place - late)).astype(np.complex64)
            pulse = raised_cosine(lag[0] - late, ROLL_OFF)
            ramp[:, None] * pulse[(-lag) % (M * N)]
        return kept()

    lines = np.ascontiguousarray(np.swapaxes(single, 2, 3))

    def transforms() -> None:
        from scipy.fft import fft, ifft

        ifft(fft(lines, axis=-1), axis=-1, overwrite_x=True)

    return Ways(
        exact=exact,
        grid=grid,
        formed=formed,
        kept=kept,
        plain=plain,
        zak=lambda: through_grid(laid[np.complex64], single),
        laid=lambda: through_grid(laid_out(np.complex64)[1], single),
        double=lambda: through_grid(laid[np.complex128], grid),
        transforms=transforms,
    )


def measure(quick: bool) -> dict[str, float]:
    """Median microseconds a frame (4 streams each) of each way, their ratios, and relative errors against the matrices in double precision."""
    made = ways()

    def miss(got: np.ndarray) -> float:
        return float(np.linalg.norm(got - made.exact) / np.linalg.norm(made.exact))

    errors = {
        "error_complex64": miss(made.zak()),
        "error_complex128": miss(made.double()),
        "error_plain_complex64": miss(made.plain()),
    }
    rounds = 20 if quick else 200
    times: dict[str, list[float]] = {"zak": [], "laid": [], "plain": [], "kept": [], "formed": []}
    for r in range(rounds):
        for name in ("zak", "laid", "plain"):
            times[name].append(cpu_s(getattr(made, name)) / FRAMES)
        if r % 10 == 0:
            times["kept"].append(cpu_s(made.kept))
            times["formed"].append(cpu_s(made.formed))
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


def ready(naive: str, ours: str) -> Work:
    made = ways()
    single = naive in ("formed", "kept")
    return Work(
        naive=Side(getattr(made, naive), 1 if single else FRAMES),
        ours=Side(getattr(made, ours), FRAMES),
        apart=lambda got, other: apart(got[: len(other)], other),
        within=1e-5,
        floor=Side(made.transforms, FRAMES),
    )


_FRAME = "a frame of 64 x 16, 4 streams through 3 targets to 4 chains, grid to grid"
_FFT = "its 64-point transforms alone, there and back"
ROWS = (
    Row(
        "oddm.matrix",
        _FRAME,
        "1024 x 1024 matrices, formed for the frame",
        partial(ready, "formed", "laid"),
        target=1000,
        floor=_FFT,
        note="targets move: ours lays its channel out anew for a dwell of 16 frames",
    ),
    Row(
        "oddm.fft",
        _FRAME,
        "plain transforms of 1024 samples",
        partial(ready, "plain", "zak"),
        target=2,
        floor=_FFT,
        note="16 frames at once, channel laid out before, on both sides",
    ),
)


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
