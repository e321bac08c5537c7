"""Beside papers/001: bit error rates of its waveforms, in white noise against theory and in a doubly selective channel through equalisers.

The channel has four Rayleigh paths, delays up to 15 samples, Doppler up to 0.35 subcarriers (what 300 km/h gives Table I's echo); it is known.
``doppler`` rows: QPSK at 20 dB, one strong and one 10 dB weaker path, the error vector against the largest Doppler in subcarriers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tools.reproduce.figure import figure
from tools.reproduce.waveforms import (
    DELAY_BINS,
    DOPPLER_BINS,
    claim,
    frame,
    main,
    rows,
    series,
    told,
    write,
)
from twin.link import Link
from twin.physics.constellations import BITS, bit_error_rate, decided, mapped
from twin.physics.doubly_selective import through
from twin.registry import make as component

WAVEFORMS = ("ofdm", "dft_s_ofdm", "otfs", "dft_s_otfs", "oddm", "dft_s_oddm")
AWGN_DB = {"qpsk": (0, 3, 6, 9), "16qam": (6, 9, 12, 15), "64qam": (12, 15, 18, 21)}
FADING_DB = (0, 5, 10, 15, 20, 25)
DOPPLERS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.49)
RECEIVERS = [(name, "mmse") for name in WAVEFORMS] + [("ofdm", "one_tap"), ("dft_s_ofdm", "one_tap")]
HEAD = ("what", "waveform", "equaliser", "modulation", "x", "bits", "wrong", "error")


def make(path: Path, quick: bool) -> None:
    write(path, HEAD, frames(10 if quick else 100))


def frames(count: int) -> Any:
    """A row a case: bits sent and wrong, mean square error."""
    for modulation, levels in AWGN_DB.items():
        for snr_db in levels:
            told(f"white noise: {modulation} at {snr_db} dB")
            for name in WAVEFORMS:
                link = linked(name, "mmse", modulation)
                yield (
                    "awgn",
                    name,
                    "none",
                    modulation,
                    snr_db,
                    *total([white(link, snr_db, s) for s in range(count // 10)]),
                )
    for name, equaliser in RECEIVERS:
        link = linked(name, equaliser, "qpsk")
        for snr_db in FADING_DB:
            told(f"fading: {name}, {equaliser}, {snr_db} dB")
            cases = [faded(link, snr_db, 0.35, s, rayleigh=True) for s in range(count)]
            yield ("fading", name, equaliser, "qpsk", snr_db, *total(cases))
        for doppler in DOPPLERS:
            cases = [faded(link, 20.0, doppler, s, rayleigh=False) for s in range(max(count // 4, 4))]
            yield ("doppler", name, equaliser, "qpsk", doppler, *total(cases))


def linked(name: str, equaliser: Any, modulation: Any) -> Link:
    return Link(
        waveform=component("twin.waveforms", name),
        modulation=modulation,
        equaliser=equaliser,
        delay_bins=DELAY_BINS,
        doppler_bins=DOPPLER_BINS,
        prefix_samples=16,
    )


def total(cases: list[tuple[int, int, float]]) -> tuple[int, int, str]:
    bits, wrong, error = zip(*cases, strict=True)
    return sum(bits), sum(wrong), f"{np.mean(error):.6g}"


def scored(link: Link, sent: np.ndarray, seen: np.ndarray) -> tuple[int, int, float]:
    seen = seen.reshape(len(sent), -1)
    error = float(np.mean(np.abs(seen - mapped(sent, link.modulation)) ** 2))
    return sent.size, int((decided(seen, link.modulation) != sent).sum()), error


def drawn(link: Link, snr_db: float, rng: np.random.Generator, rows_: int) -> tuple[np.ndarray, np.ndarray]:
    """Bits and noise of some frames."""
    size = DELAY_BINS * DOPPLER_BINS
    noise = (rng.standard_normal((rows_, size)) + 1j * rng.standard_normal((rows_, size))) * np.sqrt(0.5)
    return rng.integers(0, 2, (rows_, size * BITS[link.modulation])).astype(bool), noise * 10 ** (-snr_db / 20)


def white(link: Link, snr_db: float, seed: int) -> tuple[int, int, float]:
    rng = np.random.default_rng((1, seed, int(snr_db)))
    sent, noise = drawn(link, snr_db, rng, 8)
    seen = link.waveform.demodulate(link.send(sent, frame()) + noise, frame())
    return scored(link, sent, seen)


def faded(link: Link, snr_db: float, doppler: float, seed: int, rayleigh: bool) -> tuple[int, int, float]:
    """One frame through a channel drawn from ``seed``, the same for every waveform; ``doppler`` the largest, in subcarriers."""
    rng = np.random.default_rng((2, seed))
    paths = 4 if rayleigh else 2
    delay = np.concatenate([[0.0], rng.uniform(0, 15, paths - 1)])
    angle = np.concatenate([[0.0], rng.uniform(0, 2 * np.pi, paths - 1)])
    gain = (rng.standard_normal(paths) + 1j * rng.standard_normal(paths)) / np.sqrt(2 * paths)
    if not rayleigh:
        gain = np.sqrt([1 / 1.1, 0.1 / 1.1]) * gain / np.abs(gain)
    channel = link.passage(delay, doppler / DELAY_BINS * np.cos(angle), gain)
    sent, noise = drawn(link, snr_db, rng, 1)
    heard = through(channel, link.send(sent, frame())) + noise
    return scored(link, sent, link.receive(channel, heard, 10 ** (-snr_db / 10), frame()))


def tolerance(found: list[dict[str, Any]], waveform: str, equaliser: str) -> float:
    """Doppler (subcarriers) at which the error vector's power is twice what it is without any; the last one tried where it never is."""
    x = series(found, "x", what="doppler", waveform=waveform, equaliser=equaliser)
    error = series(found, "error", what="doppler", waveform=waveform, equaliser=equaliser)
    grown = error / error[0]
    over = np.flatnonzero(grown > 2)
    if not over.size:
        return float(x[-1])
    i = int(over[0])
    return float(np.interp(2, grown[i - 1 : i + 1], x[i - 1 : i + 1]))


def ber(found: list[dict[str, Any]], waveform: str, equaliser: str, snr_db: float) -> float:
    where = {"what": "fading", "waveform": waveform, "equaliser": equaliser, "x": float(snr_db)}
    return float(series(found, "wrong", **where).sum() / series(found, "bits", **where).sum())


def verdict(path: Path) -> list[dict[str, Any]]:
    found = rows(path)
    spread = []  # deviations from theory in standard deviations
    for row in found:
        if row["what"] == "awgn":
            theory = float(bit_error_rate(10 ** (row["x"] / 10), row["modulation"]))
            spread.append((row["wrong"] - row["bits"] * theory) / np.sqrt(row["bits"] * theory * (1 - theory)))
    limit = {name: tolerance(found, *name) for name in RECEIVERS}
    mmse = {name: ber(found, name, "mmse", 20) for name in WAVEFORMS}
    said = {f"{a}_{b}": v for (a, b), v in limit.items()}
    return [
        claim(
            "in white noise every waveform's bit error rate is theory's (largest of all deviations below 4.5 standard deviations)",
            bool(np.max(np.abs(spread)) < 4.5),
            largest=np.max(np.abs(spread)),
            rms=np.sqrt(np.mean(np.square(spread))),
        ),
        claim(
            "severe Doppler breaks OFDM's orthogonality (introduction): with one tap a subcarrier its error doubles below 0.1 subcarriers",
            limit["ofdm", "one_tap"] < 0.1,
            **said,
        ),
        claim(
            "delay-Doppler waveforms are robust: with an equaliser that knows the channel their error never doubles up to 0.49 subcarriers",
            min(limit["otfs", "mmse"], limit["oddm", "mmse"]) >= 0.49,
            **said,
        ),
        claim(
            "delay-Doppler waveforms collect the channel's diversity: at 20 dB ODDM and OTFS err less than OFDM, all with the same equaliser",
            max(mmse["oddm"], mmse["otfs"]) < 0.5 * mmse["ofdm"],
            **mmse,
        ),
    ]


def draw(path: Path) -> Any:
    drawing, panel = figure(3)
    found = rows(path)
    fine = np.linspace(0, 22, 200)
    for i, modulation in enumerate(AWGN_DB):
        panel[0].semilogy(
            fine, bit_error_rate(10 ** (fine / 10), modulation), f"C{i}-", lw=1, label=f"{modulation.upper()}, theory"
        )
        for marker, name in zip("osv^D*", WAVEFORMS, strict=True):
            x, bits, wrong = (
                series(found, k, what="awgn", waveform=name, modulation=modulation) for k in ("x", "bits", "wrong")
            )
            panel[0].plot(x, np.where(wrong > 0, wrong / bits, np.nan), f"C{i}{marker}", mfc="none", ms=5)
    panel[0].set(
        xlabel="symbol energy over noise (dB)",
        ylabel="bit error rate",
        ylim=(1e-5, 0.5),
        title="white noise, six waveforms",
    )
    for i, (name, equaliser) in enumerate(RECEIVERS):
        label = name.replace("dft_s_", "DFT-s-").replace("ofdm", "OFDM").replace("otfs", "OTFS").replace("oddm", "ODDM")
        style = ("-" if "dft" not in name else "--") if equaliser == "mmse" else ":"
        label += "" if equaliser == "mmse" else ", one tap"
        panel[1].semilogy(
            FADING_DB,
            [ber(found, name, equaliser, s) or np.nan for s in FADING_DB],
            style,
            marker="osv^D*xP"[i],
            ms=4,
            label=label,
        )
        x, error = (series(found, k, what="doppler", waveform=name, equaliser=equaliser) for k in ("x", "error"))
        panel[2].plot(x, 10 * np.log10(error), style, marker="osv^D*xP"[i], ms=4, label=label)
    panel[1].set(
        xlabel="SNR (dB)", ylabel="bit error rate", title="four fading paths, Doppler to 0.35 subcarriers, QPSK"
    )
    panel[2].set(
        xlabel="largest Doppler (subcarriers)", ylabel="error vector (dB)", title="two steady paths, SNR 20 dB"
    )
    for axis in panel:
        axis.title.set_fontsize(9)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    return drawing


if __name__ == "__main__":
    raise SystemExit(main(__doc__, make, verdict))
