"""The estimator of papers/001 section III-B, step by step: MUSIC for the angles, on- and off-grid search for delay and Doppler, then all four together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np

from hal.array import direction_from
from hal.check import Ge, Gt
from hal.errors import Misuse
from hal.record import Array, Complex, Float
from twin.physics.delay_doppler import echo_operator
from twin.physics.hybrid_echo import Aperture, Estimate, bound, pattern
from twin.records import Detections, EchoObservation, Tracks
from twin.sensing._dwells import Dwell, detections, dwells, reach
from twin.sensing.joint import joined, none_found

__all__ = ["ThreeStep"]

_FINE, _SHRINK = 5, 0.5  # points an axis of a level of a shrinking grid, and by how much the next is smaller


@dataclass(frozen=True)
class ThreeStep:
    """papers/001's estimator of one target a dwell, in NumPy: the baseline that ``joint`` is measured against.

    1. MUSIC on the whitened outputs (eqs (36)-(38)): ``max ||b||^2 / ||U_n^H b||^2`` over a grid of angles, then a shrinking grid. ``music = "printed"``
       leaves the numerator out, which has false peaks wherever the combiner hears nothing.
    2. Delay and Doppler at those angles (eqs (39)-(40)): the integer grid, then a shrinking one.
    3. All four in a small box about that (eq (41)), again by shrinking grids.

    Several targets: ``targets`` of them, one after the other, each subtracted before the next, ``sweeps`` times over. It does not decide whether there
    is one; covariances are the bound at the estimate.
    """

    stop_after: Literal["on_grid", "off_grid", "joint"] = "joint"  # on_grid: the ablation without steps 2b and 3
    music: Literal["normalised", "printed"] = "normalised"
    order: Literal["exact", "DG", "GD"] = "DG"  # of the operator: ``delay_doppler.echo_operator``
    grid_rad: Annotated[float, Gt(0)] = np.deg2rad(1.0)  # of the angles
    levels: Annotated[int, Ge(1)] = 14  # of each shrinking grid
    targets: Annotated[int, Ge(1)] = 1
    sweeps: Annotated[int, Ge(1)] = 3  # of cyclic cancellation, with several targets
    min_range_m: Annotated[float, Ge(0)] = 5.0
    max_range_m: Annotated[float, Gt(0)] = 150.0  # cut to what the cyclic prefix covers
    max_speed_mps: Annotated[float, Gt(0)] = 24.0
    lobe_width: Annotated[float, Gt(0)] = 1.0  # half-width of the searched lobe, in null distances; 100: all ahead

    def detect(self, observation: EchoObservation, tracks: Tracks) -> Detections:
        """One estimate a target and dwell, whatever is there. Raises Misuse as ``joint`` does, and for dwells of several frames: the paper has one."""
        if observation.echo is None or observation.drive is None or observation.drive.samples is None:
            return none_found() if observation.detections is None else observation.detections
        found = [self.detect_dwell(dwell) for dwell in dwells(observation, self.lobe_width)]
        return joined(found) if found else none_found()

    def detect_dwell(self, dwell: Dwell) -> Detections:
        """The estimates of one dwell."""
        if dwell.sent.shape[1] != 1:
            raise Misuse(f"frames_per_dwell = {dwell.sent.shape[1]}: three_step takes one frame; use joint")
        estimate = self.estimate(dwell)
        whole = bound(
            dwell.aperture,
            dwell.sent,
            dwell.start,
            dwell.numerology.roll_off,
            estimate.cosine,
            estimate.delay,
            estimate.doppler,
            estimate.amplitude,
            dwell.noise_w,
        )
        own = 4 * np.arange(len(estimate.delay))[:, None] + np.arange(4)
        return detections(dwell, estimate, dwell.noise_w, whole[own[:, :, None], own[:, None, :]])

    def estimate(self, dwell: Dwell) -> Estimate:
        """The parameters; more targets than one by cyclic cancellation."""
        data = dwell.data[:, 0].astype(np.complex128)
        echo = np.zeros((self.targets, *data.shape), dtype=np.complex128)
        at, amplitude = np.zeros((self.targets, 4)), np.zeros(self.targets, dtype=np.complex128)
        for _ in range(self.sweeps if self.targets > 1 else 1):
            for k in range(self.targets):
                rest = data - echo.sum(axis=0) + echo[k]
                at[k] = self._one(dwell, rest)
                b, c = pattern(dwell.aperture, at[k : k + 1, :2])
                wave = np.outer(b[0, 0], c[0, 0] @ self._waves(dwell, at[k, 2], at[k, 3]))
                amplitude[k] = np.vdot(wave, rest) / np.vdot(wave, wave)
                echo[k] = amplitude[k] * wave
        power = np.sum(np.abs(echo) ** 2, axis=(1, 2))
        explained = float(np.sum(np.abs(data) ** 2) - np.sum(np.abs(data - echo.sum(axis=0)) ** 2))
        return Estimate(
            cosine=at[:, :2],
            delay=at[:, 2],
            doppler=at[:, 3],
            amplitude=amplitude,
            power=power,
            explained=explained,
            information=np.zeros((0, 0)),
            steps=self.levels,
        )

    def _one(self, dwell: Dwell, data: Complex[Array, "row sample"]) -> Float[Array, " 4"]:
        cosine = self._angles(dwell.aperture, data)
        delay, doppler = self._on_grid(dwell, data, cosine)
        if self.stop_after == "on_grid":
            return np.array([*cosine, delay, doppler])
        cell = 1 / data.shape[-1]
        steps = np.linspace(-1, 1, _FINE)
        reach_delay, reach_doppler = 1.0, cell
        for _ in range(self.levels):
            lags, shifts = delay + reach_delay * steps, doppler + reach_doppler * steps
            worth = [[self._worth(dwell, data, cosine[None], lag, nu)[0] for nu in shifts] for lag in lags]
            i, j = np.unravel_index(int(np.argmax(worth)), (_FINE, _FINE))
            delay, doppler = float(lags[i]), float(shifts[j])
            reach_delay, reach_doppler = _SHRINK * reach_delay, _SHRINK * reach_doppler
        if self.stop_after == "off_grid":
            return np.array([*cosine, delay, doppler])
        reach_all = np.array([*(0.02 * dwell.aperture.null), 0.02, 0.02 * cell])
        mesh = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
        for _ in range(self.levels):
            looks = cosine + reach_all[:2] * mesh
            lags, shifts = delay + reach_all[2] * steps, doppler + reach_all[3] * steps
            table = np.array([[self._worth(dwell, data, looks, lag, nu) for nu in shifts] for lag in lags])
            i, j, n = np.unravel_index(int(np.argmax(table)), table.shape)
            cosine, delay, doppler = looks[n], float(lags[i]), float(shifts[j])
            reach_all = reach_all * 0.6
        return np.array([*cosine, delay, doppler])

    def _angles(self, aperture: Aperture, data: Complex[Array, "row sample"]) -> Float[Array, " 2"]:
        rows = len(data)
        if not rows > self.targets:
            raise Misuse(f"targets = {self.targets}: MUSIC needs fewer than the {rows} independent receive chains")
        _, vectors = np.linalg.eigh(data @ data.conj().T / data.shape[1])
        noise = vectors[:, : rows - 1]
        cosine, manifold = _angle_grid(aperture, self.grid_rad)
        best = cosine[int(np.argmax(self._music(manifold, noise)))]
        width = np.full(2, self.grid_rad)
        steps = np.linspace(-1, 1, _FINE)
        mesh = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
        for _ in range(self.levels):
            looks = np.clip(best + width * mesh, -0.999, 0.999)
            best = looks[int(np.argmax(self._music(pattern(aperture, looks)[0][:, 0].T, noise)))]
            width = _SHRINK * width
        return np.asarray(best)

    def _music(
        self, manifold: Complex[Array, "row point"], noise: Complex[Array, "row rest"]
    ) -> Float[Array, " point"]:
        away = np.sum(np.abs(noise.conj().T @ manifold) ** 2, axis=0)
        if self.music == "printed":
            return np.asarray(1 / np.maximum(away, 1e-300))
        size = np.sum(np.abs(manifold) ** 2, axis=0)
        return np.asarray(size / np.maximum(away, 1e-12 * size.max()))

    def _on_grid(
        self, dwell: Dwell, data: Complex[Array, "row sample"], cosine: Float[Array, " 2"]
    ) -> tuple[float, float]:
        span, fastest = reach(dwell.numerology, self.min_range_m, self.max_range_m, self.max_speed_mps)
        b, c = pattern(dwell.aperture, cosine[None])
        heard = b[0, 0].conj() @ data
        sent = np.fft.fft(c[0, 0] @ dwell.sent[:, 0])
        size = len(sent)
        bins = int(np.floor(fastest * size + 1e-9))
        shift = np.arange(-bins, bins + 1)
        spectrum = np.fft.fft(heard)
        turned = spectrum[(np.arange(size) + shift[:, None]) % size]
        lags = np.arange(int(np.ceil(span[0])), int(np.floor(span[1])) + 1)
        score = np.abs(np.fft.ifft(turned * sent.conj(), axis=-1)[:, lags])
        k, n = np.unravel_index(int(np.argmax(score)), score.shape)
        return float(lags[n]), float(shift[k] / size)

    def _waves(self, dwell: Dwell, delay: float, doppler: float) -> Complex[Array, "stream sample"]:
        turn = np.exp(
            2j * np.pi * doppler * (dwell.start[0] + delay)
        )  # the operator's own phase, back to where ``start`` counts from
        return np.asarray(turn * echo_operator(dwell.sent[:, 0], delay, doppler, dwell.numerology.roll_off, self.order))

    def _worth(
        self,
        dwell: Dwell,
        data: Complex[Array, "row sample"],
        cosine: Float[Array, "look 2"],
        delay: float,
        doppler: float,
    ) -> Float[Array, " look"]:
        """Eq (35) at several directions of one delay and Doppler: ``|b^H Z c*|^2 / (|b|^2 c^H Gamma c)``."""
        wave = self._waves(dwell, delay, doppler)
        z, gamma = data @ wave.conj().T, wave.conj() @ wave.T
        b, c = (one[:, 0] for one in pattern(dwell.aperture, cosine))
        said = np.einsum("pr,ri,pi->p", b.conj(), z, c.conj())
        size = np.sum(np.abs(b) ** 2, axis=1) * np.einsum("pi,ij,pj->p", c.conj(), gamma, c).real
        return np.asarray(np.abs(said) ** 2 / np.maximum(size, 1e-300))


@lru_cache(maxsize=4)
def _angle_grid(aperture: Aperture, step_rad: float) -> tuple[Float[Array, "point 2"], Complex[Array, "row point"]]:
    """Cosines of angles ``step_rad`` apart within the lobe and ahead of the array, and the patterns there."""
    lobe = aperture.lobe
    axis = np.arange(-np.pi / 2 + step_rad / 2, np.pi / 2, step_rad)
    azimuth, elevation = (angle.reshape(-1) for angle in np.meshgrid(axis, axis, indexing="ij"))
    cosine = direction_from(azimuth, elevation)[:, 1:]
    near = np.all(np.abs(cosine - lobe.centre) <= lobe.width, axis=1)
    looks = cosine[near] if near.any() else lobe.centre[None]
    return looks, pattern(aperture, looks)[0][:, 0].T
