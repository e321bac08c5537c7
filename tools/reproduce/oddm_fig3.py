"""papers/001, figure 3: peak-to-average power of the waveforms, QPSK, whole frames of 64 x 16 at 8 values a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tools.reproduce.figure import figure
from tools.reproduce.waveforms import claim, frame, main, ratio_interval, rows, series, told, write
from twin.physics.constellations import mapped
from twin.physics.papr import exceedance, papr, papr_at
from twin.registry import make as component

PLAIN = ("ofdm", "dft_s_ofdm", "otfs", "dft_s_otfs")
SHAPED = ("oddm", "dft_s_oddm")
ROLL_OFFS = (0.1, 0.2, 0.3, 0.5)
BATCH = 100


def make(path: Path, quick: bool) -> None:
    write(path, ("waveform", "roll_off", "papr_db"), frames(1000 if quick else 6000))


def frames(count: int) -> Any:
    """A row a frame; all waveforms carry the same symbols."""
    cases = [(name, 0.0) for name in PLAIN] + [(name, b) for name in SHAPED for b in ROLL_OFFS]
    for done, (name, roll_off) in enumerate(cases):
        told(f"{name} at roll-off {roll_off:g}: {done}/{len(cases)}")
        waveform, numerology = component("twin.waveforms", name), frame(roll_off)
        rng = np.random.default_rng(3)
        for _ in range(count // BATCH):
            bits = rng.integers(0, 2, (BATCH, 2 * 1024)).astype(bool)
            grid = mapped(bits, "qpsk").reshape(BATCH, numerology.delay_bins, numerology.doppler_bins)
            ratio = papr(waveform.emitted(waveform.modulate(grid.astype(np.complex64), numerology), numerology, 8))
            yield from ((name, roll_off, f"{10 * np.log10(r):.4f}") for r in ratio)


def at(values: np.ndarray) -> float:
    """Level that one frame in a hundred exceeds, dB."""
    return papr_at(values, 1e-2)


def verdict(path: Path) -> list[dict[str, Any]]:
    found = rows(path)
    cases = dict.fromkeys((r["waveform"], r["roll_off"]) for r in found)
    by = {(name, b): series(found, "papr_db", waveform=name, roll_off=b) for name, b in cases}
    level = {key: at(values) for key, values in by.items()}
    low, high = ratio_interval(by["ofdm", 0.0], by["otfs", 0.0], at)
    oddm, spread = ([level[name, b] for b in ROLL_OFFS] for name in SHAPED)
    saved = {b: level["oddm", b] - level["dft_s_oddm", b] for b in ROLL_OFFS}
    least = min(
        level["ofdm", 0.0] - level["dft_s_ofdm", 0.0], level["otfs", 0.0] - level["dft_s_otfs", 0.0], *saved.values()
    )
    return [
        claim(
            "OFDM's PAPR is slightly higher than OTFS's",
            0 < low and high < 1,
            ofdm_db=level["ofdm", 0.0],
            otfs_db=level["otfs", 0.0],
            low_db=low,
            high_db=high,
        ),
        claim(
            "ODDM's is nearly that of OTFS at a small roll-off (within 0.3 dB at 0.1)",
            abs(oddm[0] - level["otfs", 0.0]) < 0.3,
            oddm_db=oddm[0],
        ),
        claim(
            "ODDM's rises with the roll-off",
            bool(np.all(np.diff(oddm) > 0)),
            **{f"at_{b:g}_db": v for b, v in zip(ROLL_OFFS, oddm, strict=True)},
        ),
        claim(
            "DFT spreading lowers it by approximately 3 dB or more for every waveform",
            least >= 3.0,
            least_db=least,
        ),
        claim(
            "DFT-spread ODDM's is below those of DFT-spread OFDM and OTFS",
            max(spread) < min(level["dft_s_ofdm", 0.0], level["dft_s_otfs", 0.0]),
            dft_s_ofdm_db=level["dft_s_ofdm", 0.0],
            dft_s_otfs_db=level["dft_s_otfs", 0.0],
            dft_s_oddm_db=max(spread),
        ),
        claim(
            "DFT spreading takes about 5 dB from ODDM (roll-off not legible; at 0.2)",
            abs(saved[0.2] - 5) < 0.5,
            **{f"at_{b:g}_db": v for b, v in saved.items()},
        ),
        claim(
            "DFT-spread ODDM's falls with the roll-off",
            bool(np.all(np.diff(spread) < 0)),
            **{f"at_{b:g}_db": v for b, v in zip(ROLL_OFFS, spread, strict=True)},
        ),
    ]


def draw(path: Path) -> Any:
    drawing, panel = figure(2)
    found = rows(path)
    grid = np.arange(2.5, 12.5, 0.05)
    for which, names in (
        (0, [(n, 0.0) for n in PLAIN] + [(n, 0.1) for n in SHAPED]),
        (1, [(n, b) for n in SHAPED for b in ROLL_OFFS]),
    ):
        for name, b in names:
            share = exceedance(series(found, "papr_db", waveform=name, roll_off=b), grid)
            label = (
                name.replace("dft_s_", "DFT-s-").replace("ofdm", "OFDM").replace("otfs", "OTFS").replace("oddm", "ODDM")
            )
            label += f", {b:g}" if b else ""
            panel[which].semilogy(
                grid, np.where(share > 0, share, np.nan), "--" if name.startswith("dft") else "-", label=label
            )
        panel[which].set(xlabel="PAPR (dB)", ylabel="share of frames above it", ylim=(1e-3, 1), xlim=(2.5, 12.5))
        panel[which].grid(alpha=0.3)
        place = {"loc": "lower left", "bbox_to_anchor": (0.0 if which == 0 else 0.45, 0.0)}
        panel[which].legend(fontsize=6.5, title="waveform, roll-off", title_fontsize=6.5, **place)
    return drawing


if __name__ == "__main__":
    raise SystemExit(main(__doc__, make, verdict))
