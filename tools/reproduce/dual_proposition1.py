"""papers/004, proposition 1: equation (22) against the SINR of drawn channels, in the paper's model and with pilots through the true channel."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.reproduce.dual import claim, main, read, written
from tools.reproduce.figure import figure
from twin.drawing import GREY, GRID, look
from twin.physics.correlation import one_ring_correlation
from twin.physics.dual_scale import angle_slope, believed_covariance, mmse_covariance, mmse_filter
from twin.physics.sinr import mrt, simulated_sinr, sinr
from twin.planning.dual_scale import paper_drop


def circular(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal((*shape, 2)) @ np.array([1, 1j])) / np.sqrt(2)


def drawn(rng: np.random.Generator, covariance: np.ndarray, draws: int) -> np.ndarray:
    """Channels [draw user element] of these covariances."""
    value, vector = np.linalg.eigh(covariance)
    root = vector * np.sqrt(np.maximum(value, 0))[:, None, :]
    return (circular(rng, len(covariance), draws, covariance.shape[1]) @ np.swapaxes(root, 1, 2)).transpose(1, 0, 2)


def make(path: Path, quick: bool) -> None:
    draws = 20_000 if quick else 150_000

    def lines() -> Iterator[tuple[Any, ...]]:
        for snr_db in (0, 10, 20):
            for std in (0.1, 0.5):
                for seed in range(1 if quick else 3):
                    rng = np.random.default_rng([seed, snr_db, int(10 * std)])
                    scene, case = paper_drop(seed)
                    where = (scene.position_m, scene.frequency_hz, scene.azimuth_rad, np.zeros(5))
                    R = one_ring_correlation(*where, scene.azimuth_spread_rad)
                    believed = believed_covariance(R, angle_slope(*where), case.gain, np.full(5, np.deg2rad(std) ** 2))
                    snr, rho = 10 ** (snr_db / 10), 0.98**8
                    C = mmse_covariance(believed, snr)
                    trace = np.trace(C, axis1=1, axis2=2).real
                    estimate = drawn(rng, C, draws)
                    h = rho * estimate + drawn(rng, R - rho**2 * C, draws)
                    first = drawn(rng, R, draws)
                    heard = np.einsum(
                        "kab,dkb->dka", mmse_filter(believed, snr), first + circular(rng, draws, 5, 8) / np.sqrt(snr)
                    )
                    later = rho * first + np.sqrt(1 - rho**2) * drawn(rng, R, draws)
                    for own in (True, False):
                        formula = sinr(R, case.gain, C, case.power_w, case.noise_w, np.full((5, 1), rho), own)[:, 0]
                        models = {
                            "paper": simulated_sinr(h, mrt(estimate, trace), case.power_w, case.noise_w, own),
                            "physical": simulated_sinr(later, mrt(heard, trace), case.power_w, case.noise_w, own),
                        }
                        for model, found in models.items():
                            for k in range(5):
                                yield model, int(own), snr_db, std, seed, k, float(formula[k]), float(found[k]), draws

    written(
        path, ("model", "own_term", "pilot_snr_db", "std_deg", "seed", "user", "formula", "drawn", "draws"), lines()
    )


def verdict(path: Path) -> list[dict[str, Any]]:
    found = read(path)
    scale = np.sqrt(150_000 / found[0]["draws"])  # fewer draws, wider noise

    def errors(model: str, own: bool) -> np.ndarray:
        return np.array([r["drawn"] / r["formula"] - 1 for r in found if r["model"] == model and r["own_term"] == own])

    out = []
    for model, text in (
        ("paper", "equation (22) is the SINR of drawn channels"),
        ("physical", "and with pilots through the true channel"),
    ):
        for own in (True, False):
            error = errors(model, own)
            # worst of many users: their own Monte-Carlo deviation at 150 000 draws is 0.3 % with the term and 0.7 % without
            limit = (0.015 if own else 0.03) * scale + (0.0 if model == "paper" else 0.015)
            bias = float(np.median(error))
            holds = np.max(np.abs(error)) <= limit and abs(bias) <= 0.005 * scale + (0.0 if model == "paper" else 0.01)
            which = "with i = k" if own else "i = k dropped on both sides"
            out.append(
                claim(f"{text} ({which})", bool(holds), worst=float(np.max(np.abs(error))), median=bias, limit=limit)
            )
    return out


def draw(path: Path) -> Any:
    found = read(path)
    drawing, axes = figure(2)
    for axis, model in zip(axes, ("paper", "physical"), strict=True):
        for i, own in enumerate((1.0, 0.0)):
            mine = [r for r in found if r["model"] == model and r["own_term"] == own]
            label = f"i = k term {'on' if own else 'off'}"
            at = [[r["formula"] for r in mine], [r["drawn"] / r["formula"] for r in mine]]
            axis.plot(*at, label=label, **{**look(i), "linestyle": "", "markersize": 3})
        axis.axhline(1, linewidth=0.8, color=GREY)
        axis.set(xscale="log", xlabel="SINR by equation (22)", ylabel="SINR of drawn channels over it")
        axis.set_title("the paper's model" if model == "paper" else "pilots through the true channel")
        axis.grid(**GRID)
        axis.legend()
    return drawing


if __name__ == "__main__":
    raise SystemExit(main(__doc__, make, verdict))
