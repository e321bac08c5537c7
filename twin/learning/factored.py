"""CSP-Net on factors: a small network on directions and gains that says how much of each steering vector a beam is made of.

papers/000's network reads ``N_t x N_t`` maps of every subcarrier; the channels behind them are the user's direction and gain and K targets' directions and
gains, so this one reads those. It writes no phases either: it writes two complex numbers for the user and each target, how much of the conjugate
steering vector goes into the wanted aperture field and how that changes over the band. Phases are the field's angle, delays its slope over
frequency, power follows from what the beam then lights: feasible by construction, in any order of the targets, on any planar grid. The same
code runs on NumPy (in the loop) and torch (in training).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from array_api_compat import array_namespace

from hal.array import LIGHT_MPS, AntennaArray, cis, like
from hal.check import Ge
from hal.network import NetworkSpec
from hal.record import Array, Float, Int

__all__ = ["Aperture", "Factored", "Scenes"]

Weights = Mapping[str, Any]
_TONES = (0.25, 0.5, 1.0)  # cycles of the geometry's sines a beamwidth
_FLOOR = 1e-6  # of a relative gain, so that a logarithm has a value


@dataclass(frozen=True)
class Aperture:
    """What a network's output is turned into settings of: a planar array and its delay lines."""

    array: AntennaArray
    frequency_hz: Float[Array, " subcarrier"]
    line: Int[Array, " element"]  # -1 without delay lines
    lines: int
    delay_bits: int
    delay_range_s: float

    @classmethod
    def of(cls, array: AntennaArray, network: NetworkSpec, frequency_hz: Float[Array, " subcarrier"]) -> Aperture:
        """The first chain's view of a network."""
        return cls(array, frequency_hz, network.line, network.lines, network.delay_bits, network.delay_range_s)

    @cached_property
    def carrier_hz(self) -> float:
        """The mean of the subcarriers."""
        return float(np.mean(self.frequency_hz))

    @cached_property
    def spread_hz(self) -> float:
        """The standard deviation of the subcarriers: the unit in which frequency is counted."""
        return max(float(np.std(self.frequency_hz)), 1.0)

    @cached_property
    def span(self) -> Float[Array, " 2"]:
        """Beamwidths that a unit of direction cosine is, along both axes: the aperture in wavelengths."""
        place, (columns, rows) = self.array.position_m[:, 1:], (self.array.columns, self.array.rows)
        count = np.array([columns, rows])
        return np.asarray(np.ptp(place, axis=0) * count / np.maximum(count - 1, 1) * self.carrier_hz / LIGHT_MPS)

    @cached_property
    def averages(self) -> Float[Array, "element line"]:
        """One for each element on each line."""
        return np.asarray(self.line[:, None] == np.arange(self.lines), dtype=np.float64)

    @property
    def longest_s(self) -> float:
        """The longest delay a line can be set to."""
        return self.delay_range_s * (1 - 2.0**-self.delay_bits if self.delay_bits else 1.0)


@dataclass(frozen=True)
class Scenes:
    """What the network reads; leading axes are a batch, NumPy or torch."""

    user: Any  # [... 2] direction cosines (uy, uz)
    target: Any  # [... target 2]
    present: Any  # [... target], 1 or 0: padding has 0
    gain: Any  # [... target subcarrier], squared two-way gains; only their ratios count
    metric: Any  # [... target 2 2], the bound's weight (``angle_weight``)
    snr: Any  # [... subcarrier], of a matched beam at equal power
    rate_weight: Any  # [...], nats of bound that the whole rate is worth


@dataclass(frozen=True)
class Factored:
    """The network's shape: tokens for the user and each target, rounds of messages between them, heads."""

    width: Annotated[int, Ge(1)] = 64  # of a token
    rounds: Annotated[int, Ge(0)] = 3  # of messages
    harmonics: Annotated[int, Ge(1)] = 8  # cosines over the band that tell a target's fading to its token
    profile: Annotated[int, Ge(1)] = 16  # width of the power head
    power_rounds: Annotated[int, Ge(0)] = 6  # multiplicative steps of power, each with an exponent of its own
    most_targets: Annotated[int, Ge(1)] = 4  # trained for; the strongest are kept

    @cached_property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Every weight's shape, by name."""
        w, place = self.width, 4 * len(_TONES) + 4
        token = place + self.harmonics + 2 + 3 + 1 + 5
        sizes: dict[str, tuple[int, ...]] = {
            "token.w": (token, w),
            "token.b": (w,),
            "token2.w": (w, w),
            "token2.b": (w,),
        }
        for r in range(self.rounds):
            sizes |= {f"{r}.from.w": (w, w), f"{r}.to.w": (w, w), f"{r}.place.w": (place, w), f"{r}.b": (w,)}
            sizes |= {f"{r}.out.w": (w, w), f"{r}.own.w": (w, w), f"{r}.own.b": (w,), f"{r}.back.w": (w, w)}
        sizes |= {
            "beam.w": (w, 4),
            "beam.b": (4,),
            "power.token.w": (w, self.profile),
            "power.gain.w": (3, self.profile),
        }
        sizes |= {"power.out.w": (self.profile, 1), "power.exponent": (self.power_rounds,)}
        return sizes

    def start(self, seed: int) -> dict[str, Float[Array, ...]]:
        """Weights to train from: variance-keeping normals, heads small."""
        rng = np.random.Generator(np.random.Philox(key=seed))
        made: dict[str, Float[Array, ...]] = {}
        for name, shape in self.sizes.items():
            scale = 0.0 if name.endswith(".b") else (1.5 / shape[0]) ** 0.5
            scale *= 0.2 if name in ("beam.w", "power.out.w") or name.endswith(("out.w", "back.w")) else 1.0
            made[name] = (rng.normal(size=shape) * scale).astype(np.float32)
        made["power.exponent"] = np.ones(self.power_rounds, np.float32)
        return made

    def settings(self, weights: Weights, aperture: Aperture, scenes: Scenes) -> tuple[Any, Any, Any]:
        """``(theta[... element], delay_s[... line], z[... subcarrier])``: phases at the carrier (delays included), delays on their steps, logs of power.

        The gradient goes through the steps as if they were not there (straight-through).
        """
        xp = array_namespace(scenes.user)
        token = self._tokens(weights, aperture, scenes)
        beam = token @ weights["beam.w"] + weights["beam.b"]
        here = xp.concat([xp.ones_like(scenes.present[..., :1]), scenes.present], axis=-1)[..., None]
        level, tilt = beam[..., :2], beam[..., 2:]
        lead = xp.concat([0.5 + xp.ones_like(level[..., :1]), xp.zeros_like(level[..., :1])], axis=-1) * 0.5
        theta, delay_s = self._aperture(aperture, _all(scenes), (level + lead) * here, tilt * here)
        return theta, delay_s, self._power(weights, aperture, scenes, token)

    def shares(self, weights: Weights, z: Any, heard: Any, unit: Any, metric: Any, bit: Any) -> Any:
        """Power over subcarriers, summing to 1 -> ``[... subcarrier]``: ``z + sum gamma_r ln slope_r``, each slope that of U at the powers so far.

        ``heard[... subcarrier]`` the ratio of signal to noise with all power on one subcarrier, ``unit[... subcarrier P P]`` its information likewise,
        ``metric[... P P]`` the bound's weight, ``bit[...]`` nats a bit. The A-optimal multiplicative algorithm (Torsney, 1983) has gamma = 1/2.
        """
        xp = array_namespace(z)
        for r in range(self.power_rounds):
            share = _softmax(z)
            total = xp.sum(unit * share[..., None, None], axis=-3)
            inverse = xp.linalg.inv(total)
            omega = inverse @ metric @ inverse / xp.linalg.trace(metric @ inverse)[..., None, None]
            slope = xp.sum(unit * omega[..., None, :, :], axis=(-2, -1))
            slope = slope + bit[..., None] / np.log(2.0) * heard / (1.0 + heard * share)
            z = z + weights["power.exponent"][r] * xp.log(slope)
        return _softmax(z)

    def _tokens(self, weights: Weights, aperture: Aperture, scenes: Scenes) -> Any:
        xp = array_namespace(scenes.user)
        everyone = _all(scenes)
        place = self._place(aperture, everyone[..., None, :, :] - everyone[..., :, None, :])  # [... to from feature]
        present = xp.concat([xp.ones_like(scenes.present[..., :1]), scenes.present], axis=-1)
        mean = xp.mean(scenes.gain, axis=-1)
        log_mean = xp.log(xp.where(scenes.present > 0, mean, xp.ones_like(mean)))
        count = xp.sum(scenes.present, axis=-1, keepdims=True)
        about = xp.sum(log_mean * scenes.present, axis=-1, keepdims=True) / count
        strength = (log_mean - about) / 3.0
        m = np.arange(scenes.gain.shape[-1])
        cosine = np.cos(np.pi / len(m) * (m + 0.5)[:, None] * np.arange(1, self.harmonics + 1)) * (2 / len(m)) ** 0.5
        faded = scenes.gain / xp.where(mean > 0, mean, xp.ones_like(mean))[..., None]
        fading = xp.sqrt(faded + _FLOOR) @ like(cosine, faded)
        spread = xp.mean(xp.abs(faded - 1.0), axis=-1)
        metric = scenes.metric
        shape = xp.stack(
            [xp.log(metric[..., 0, 0] + _FLOOR), xp.log(metric[..., 1, 1] + _FLOOR), metric[..., 0, 1]], axis=-1
        )
        one = xp.concat([strength[..., None], spread[..., None], fading, shape], axis=-1) * scenes.present[..., None]
        own = xp.concat([xp.zeros_like(one[..., :1, :]), one], axis=-2)
        kind = xp.concat([xp.ones_like(mean[..., :1]), xp.zeros_like(mean)], axis=-1)[..., None]
        snr, worth = xp.mean(scenes.snr, axis=-1), scenes.rate_weight
        common = xp.stack(
            [
                xp.log(snr + 1e-3) / 3,
                xp.log(worth + 1e-2) / 2,
                scenes.user[..., 0],
                scenes.user[..., 1],
                count[..., 0] / 4,
            ],
            axis=-1,
        )
        common = xp.broadcast_to(common[..., None, :], (*kind.shape[:-1], common.shape[-1]))
        feature = xp.concat([place[..., :, 0, :], own, kind, common], axis=-1)
        token = _silu(feature @ weights["token.w"] + weights["token.b"])
        token = _silu(token @ weights["token2.w"] + weights["token2.b"])
        heard = (present / xp.sum(present, axis=-1, keepdims=True))[..., None, :, None]
        for r in range(self.rounds):
            edge = (token @ weights[f"{r}.to.w"])[..., :, None, :] + (token @ weights[f"{r}.from.w"])[..., None, :, :]
            edge = _silu(edge + place @ weights[f"{r}.place.w"] + weights[f"{r}.b"])
            token = token + xp.sum(edge * heard, axis=-2) @ weights[f"{r}.out.w"]
            token = token + _silu(token @ weights[f"{r}.own.w"] + weights[f"{r}.own.b"]) @ weights[f"{r}.back.w"]
        return token

    @staticmethod
    def _place(aperture: Aperture, away: Any) -> Any:
        """Differences of direction ``[... 2]`` as sines of beamwidths, what the whole grid makes of them, and their size."""
        xp = array_namespace(away)
        width = away * like(aperture.span, away)
        angle = xp.concat([2 * np.pi * tone * width for tone in _TONES], axis=-1)
        size = xp.sum(width**2, axis=-1, keepdims=True)
        count = np.array([aperture.array.columns, aperture.array.rows], float)
        half = np.pi * width / like(count, away)
        small = xp.abs(half) < 1e-6
        kernel = xp.where(
            small,
            xp.ones_like(half),
            xp.sin(np.pi * width) / xp.where(small, xp.ones_like(half), like(count, away) * xp.sin(half)),
        )
        overlap = kernel[..., :1] * kernel[..., 1:]
        return xp.concat([xp.sin(angle), xp.cos(angle), xp.tanh(width / 2), overlap, xp.log1p(size) / 2], axis=-1)

    def _power(self, weights: Weights, aperture: Aperture, scenes: Scenes, token: Any) -> Any:
        xp = array_namespace(token)
        mean = xp.mean(scenes.gain, axis=-1)
        faded = scenes.gain / xp.where(mean > 0, mean, xp.ones_like(mean))[..., None]
        at = like((aperture.frequency_hz - aperture.carrier_hz) / aperture.spread_hz, token)
        feature = xp.stack(
            [xp.log(faded + 1e-2), xp.broadcast_to(at, faded.shape), xp.broadcast_to(at**2, faded.shape)], axis=-1
        )
        hidden = _silu(
            (token[..., 1:, :] @ weights["power.token.w"])[..., :, None, :] + feature @ weights["power.gain.w"]
        )
        return xp.sum((hidden @ weights["power.out.w"])[..., 0] * scenes.present[..., None], axis=-2)

    @staticmethod
    def _aperture(aperture: Aperture, everyone: Any, level: Any, tilt: Any) -> tuple[Any, Any]:
        """The wanted field ``sum_v (c_v + e_v s) conj(a_v(f))``, ``s = (f - f_c) / spread``: its angle at the carrier, and its slope as delays."""
        xp = array_namespace(everyone)
        path_m = everyone @ like(aperture.array.position_m[:, 1:].T, everyone)  # [... who element]
        turn = 2 * np.pi / LIGHT_MPS
        back = cis(-turn * aperture.carrier_hz * path_m)
        re, im = xp.real(back), xp.imag(back)
        c_re, c_im = level[..., :1], level[..., 1:]
        e_re, e_im = tilt[..., :1], tilt[..., 1:]
        part_re, part_im = c_re * re - c_im * im, c_re * im + c_im * re
        field_re, field_im = xp.sum(part_re, axis=-2), xp.sum(part_im, axis=-2)
        theta = xp.atan2(field_im, field_re)
        if not aperture.lines:
            return theta, theta[..., :0]
        swing = -turn * aperture.spread_hz * path_m
        slope_re = xp.sum(e_re * re - e_im * im - swing * part_im, axis=-2)
        slope_im = xp.sum(e_re * im + e_im * re + swing * part_re, axis=-2)
        averages = like(aperture.averages, theta)
        size = (field_re**2 + field_im**2) @ averages
        turned = (field_re * slope_im - field_im * slope_re) @ averages
        delay_s = -turned / (size + 1e-9) / (2 * np.pi * aperture.spread_hz)
        middle = (xp.max(delay_s, axis=-1, keepdims=True) + xp.min(delay_s, axis=-1, keepdims=True)) / 2
        delay_s = xp.clip(delay_s - middle + aperture.longest_s / 2, 0.0, aperture.longest_s)
        if aperture.delay_bits:
            step_s = aperture.delay_range_s / 2**aperture.delay_bits
            rest = xp.round(delay_s / step_s) * step_s - delay_s
            delay_s = delay_s + (rest.detach() if hasattr(rest, "detach") else rest)
        return theta, delay_s


def _all(scenes: Scenes) -> Any:
    xp = array_namespace(scenes.user)
    return xp.concat([scenes.user[..., None, :], scenes.target], axis=-2)


def _silu(x: Any) -> Any:
    return x / (1.0 + array_namespace(x).exp(-x))


def _softmax(z: Any) -> Any:
    xp = array_namespace(z)
    grown = xp.exp(z - xp.max(z, axis=-1, keepdims=True))
    return grown / xp.sum(grown, axis=-1, keepdims=True)
