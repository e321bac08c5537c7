"""How well one target's direction, range and velocity can be known: the Cramer-Rao bound of a dwell."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from hal.array import LIGHT_MPS, angle_jacobian
from hal.errors import Misuse
from hal.hermitian import eigen
from hal.record import Array, Complex, Float, Int

__all__ = ["angle_covariance", "delay_information", "direction_information", "echo_bound", "informed_bound"]

Numbers = float | Float[Array, "..."]
_SINGULAR = 1e-9  # of the largest eigenvalue of the noise, below which a combination of chains has no signal either
_ALIGNED = 1e-12  # part of a derivative's power, off the signal itself, below which it tells nothing


def echo_bound(
    *,
    amplitude: Numbers | Complex[Array, ...],
    b: Complex[Array, "*batch chain"],
    b_gradient: Complex[Array, "*batch 2 chain"],
    noise_covariance: Complex[Array, "... chain chain"],
    carrier_hz: float,
    sample_rate_hz: float,
    roll_off: float,
    samples: int,
    frame_t_ns: Int[Array, " frame"],
    delay_s: Numbers | None = None,
) -> Float[Array, "*batch 4 4"]:
    """Cramer-Rao bound of ``(uy, uz, range_m, velocity_mps)`` of one target in one dwell, its complex amplitude unknown.

    The samples at the matched filter's output are
    ``y[c, t] = amplitude b_c(u) e^{j 2 pi nu t} sum_q s[q] g(t - tau - q / B) + n``, g the raised cosine, s white of unit
    power. With W the noise's covariance over chains, P the projection off b in the metric of its inverse,
    ``rho = 2 |amplitude|^2 M F`` over F frames of M samples::

        J_u  = rho E Re{ b_i^H W^-1 P b_j }                direction
        J_r  = rho (b^H W^-1 b) D (2 B / c)^2              range:    tau = 2 r / c, D and E from delay_information
        J_v  = rho (b^H W^-1 b) E (4 pi f_c / c)^2 V       velocity: nu = 2 v f_c / c, V the variance of the sample times

    The unknown amplitude takes away all that lies along the signal itself, which leaves the three blocks uncoupled and makes
    the result free of where phase, delay and time are counted from: range and velocity are those at the dwell's middle.

    Args:
        amplitude: field at one receive element for one unit-power sample: path gain, transmit beam and square root of
            power; ``[*batch]`` or a number. Only its modulus counts.
        b: combiner outputs ``response^T a_r(u)``.
        b_gradient: its derivatives after uy and uz.
        noise_covariance: W, in watts, of one sample: ``noise_w response^T conj(response)``, noise_w times one for orthonormal
            beams; ``[chain, chain]`` or with the batch in front.
        carrier_hz: f_c.
        sample_rate_hz: B, one sample a symbol.
        roll_off: of the raised cosine.
        samples: M, of one frame.
        frame_t_ns: when the frames begin; any even or uneven spacing.
        delay_s: of the echo, ``[*batch]``: its place between two samples matters (``delay_information``). None averages
            over it.

    Returns:
        Covariance ``[*batch, 4, 4]``; a parameter nothing is known of (a target not lit, a direction with too few chains) has
        infinite variance and no correlation.

    Holds above threshold (an integrated SNR that finds the target at all), for one target, narrow band across array and beam,
    no change of range cell or direction within the dwell, Doppler well below B, white symbols and M F in the hundreds or more:
    with few symbols the bound scatters by about ``1 / sqrt(M F)`` with the data.

    Raises:
        Misuse: a count, rate or roll-off is out of range, or there is no noise.

    Source: papers/001, eqs (43)-(45) and (52)-(77), the unknown amplitude as nuisance and in closed form.
    """
    return informed_bound(
        *direction_information(b, b_gradient, noise_covariance),
        amplitude=amplitude,
        carrier_hz=carrier_hz,
        sample_rate_hz=sample_rate_hz,
        roll_off=roll_off,
        samples=samples,
        frame_t_ns=frame_t_ns,
        delay_s=delay_s,
    )


def informed_bound(
    direction: Float[Array, "*batch 2 2"],
    power: Float[Array, "*batch"],
    *,
    amplitude: Numbers | Complex[Array, ...],
    carrier_hz: float,
    sample_rate_hz: float,
    roll_off: float,
    samples: int,
    frame_t_ns: Int[Array, " frame"],
    delay_s: Numbers | None = None,
) -> Float[Array, "*batch 4 4"]:
    """``echo_bound`` where ``direction_information`` is known already: the other arguments, result and errors are its."""
    times_s = (np.asarray(frame_t_ns) - np.min(frame_t_ns, initial=2**62)) * 1e-9
    if not (samples >= 1 and times_s.size >= 1):
        raise Misuse(f"samples = {samples!r}, frames = {times_s.size}: both must be at least 1")
    if not sample_rate_hz > 0:
        raise Misuse(f"sample_rate_hz = {sample_rate_hz!r}: must be > 0")
    if not carrier_hz > 0:
        raise Misuse(f"carrier_hz = {carrier_hz!r}: must be > 0")
    delay, energy = delay_information(
        roll_off, None if delay_s is None else np.asarray(delay_s, float) * sample_rate_hz
    )
    away_s = times_s - times_s.sum() / times_s.size
    spread_s2 = (samples**2 - 1) / (12 * sample_rate_hz**2) + away_s @ away_s / times_s.size
    rho = 2 * np.abs(np.asarray(amplitude)) ** 2 * (samples * times_s.size)
    range_scale, velocity_scale = (2 * sample_rate_hz / LIGHT_MPS) ** 2, (4 * np.pi * carrier_hz / LIGHT_MPS) ** 2
    far, seen = rho * power * delay * range_scale, rho * energy
    shape = np.broadcast_shapes(far.shape, seen.shape, power.shape)
    whole = np.broadcast_to(seen[..., None, None] * direction, (*shape, 2, 2)).reshape(-1, 2, 2)
    fast = np.broadcast_to(seen * power * (velocity_scale * spread_s2), shape).reshape(-1)
    found: Array = _variances(whole, np.broadcast_to(far, shape).reshape(-1), fast)
    return found.reshape(*shape, 4, 4)


def direction_information(
    b: Complex[Array, "*batch chain"],
    b_gradient: Complex[Array, "*batch 2 chain"],
    noise_covariance: Complex[Array, "... chain chain"],
) -> tuple[Float[Array, "*batch 2 2"], Float[Array, "*batch"]]:
    """``Re{ b_i^H W^-1 P b_j }`` and ``b^H W^-1 b``: what a combiner keeps of direction and of power.

    Arguments as ``echo_bound``. A direction cosine whose derivative lies along b but for 1e-12 of its power counts as not seen:
    one chain tells no direction.

    Raises:
        Misuse: there is no noise.
    """
    b, noise = np.asarray(b, np.complex128), np.asarray(noise_covariance, np.complex128)
    batch, chains = np.broadcast_shapes(b.shape[:-1], noise.shape[:-2]), b.shape[-1]
    noise = noise.reshape(1, chains, chains) if noise.ndim == 2 else np.broadcast_to(noise, (*batch, chains, chains))
    gram, power = _informed(
        np.ascontiguousarray(np.broadcast_to(b, (*batch, chains))).reshape(-1, chains),
        np.ascontiguousarray(np.broadcast_to(b_gradient, (*batch, 2, chains)), np.complex128).reshape(-1, 2, chains),
        np.ascontiguousarray(noise).reshape(-1, chains, chains),
    )
    if np.isnan(power).any():
        raise Misuse("noise_covariance: must be positive; every receiver has noise (hal.chain.thermal_noise_w)")
    return gram.reshape(*batch, 2, 2), power.reshape(batch)


@njit(cache=True, error_model="numpy")
def _informed(b: Any, gradient: Any, noise: Any) -> Any:  # pragma: no cover - compiled
    items, chains = b.shape
    gram, power = np.zeros((items, 2, 2)), np.zeros(items)
    value, vector = eigen(noise[0])
    both, along = np.empty((3, chains), np.complex128), np.empty(2, np.complex128)
    whole = np.empty(2)
    for n in range(items):
        if n > 0 and len(noise) > 1:
            value, vector = eigen(noise[n])
        if not value[-1] > 0:
            power[n] = np.nan
            continue
        # whitened by W's eigenvectors, so that two chains on one beam, whose W is singular, count as the one they are
        both[:] = 0
        for e in range(chains):
            if value[e] > _SINGULAR * value[-1]:
                for c in range(chains):
                    turn = vector[c, e].conjugate() / np.sqrt(value[e])
                    both[0, e] += turn * b[n, c]
                    both[1, e] += turn * gradient[n, 0, c]
                    both[2, e] += turn * gradient[n, 1, c]
            power[n] += both[0, e].real ** 2 + both[0, e].imag ** 2
        if not power[n] > 0:
            continue
        for i in range(2):
            along[i], whole[i] = 0, 0
            for e in range(chains):
                along[i] += both[0, e].conjugate() * both[1 + i, e]
                whole[i] += both[1 + i, e].real ** 2 + both[1 + i, e].imag ** 2
            for e in range(chains):
                both[1 + i, e] -= along[i] / power[n] * both[0, e]
        for i in range(2):
            for j in range(2):
                for e in range(chains):
                    gram[n, i, j] += (both[1 + i, e].conjugate() * both[1 + j, e]).real
        for i in range(2):
            if not gram[n, i, i] > _ALIGNED * whole[i]:
                gram[n, i, :], gram[n, :, i] = 0, 0
    return gram, power


def delay_information(roll_off: float, delay: Numbers | None = None) -> tuple[Array, Array]:
    """What one symbol tells of its delay, and its energy, at the matched filter's samples: ``(D, E)``, for unit symbols.

    With g the raised cosine and ``l`` the delay, both in samples::

        E(l) = sum_k g(k-l)^2 = 1 - b/4 + b/4 cos(2 pi l)
        D(l) = sum_k g'(k-l)^2 - (sum_k g(k-l) g'(k-l))^2 / E(l)

    D is the mean square angular bandwidth in (rad/sample)^2; without roll-off it is pi^2 / 3. Sampling at the symbol rate folds
    the roll-off band on itself, so D depends on where the echo falls between two samples: it is largest half way. (A receiver
    that keeps the whole band would have ``4 pi^2 (1/12 + b^2 (1/4 - 2/pi^2))`` everywhere.)

    Args:
        roll_off: b, in [0, 1].
        delay: l, in samples, any shape; None: E and the first sum of D averaged over the fraction, and the second left out,
            which is too much by less than ``pi^2 b^2 / 23``.

    Raises:
        Misuse: the roll-off is outside [0, 1].
    """
    b = roll_off
    if not 0 <= b <= 1:
        raise Misuse(f"roll_off = {roll_off!r}: must lie in [0, 1]")
    # integrals of f^2 times the squared spectrum, and of f (f - 1) times the spectrum and its neighbour where they overlap
    own = (1 - b) ** 3 / 12 + (b**3 * (1 / 8 + 1 / (4 * np.pi**2)) + 3 * b / 8 - 4 * b**2 / np.pi**2) / 2
    other = (b**3 * (1 / 12 - 1 / (2 * np.pi**2)) - b / 4) / 8
    if delay is None:
        return np.asarray(4 * np.pi**2 * own), np.asarray(1 - b / 4)
    angle = 2 * np.pi * np.asarray(delay, float)
    energy = 1 - b / 4 + b / 4 * np.cos(angle)
    along = np.pi * b / 4 * np.sin(angle)
    return np.asarray(4 * np.pi**2 * (own + 2 * other * np.cos(angle)) - along**2 / energy), np.asarray(energy)


def angle_covariance(
    covariance: Float[Array, "*batch 2 2"], direction: Float[Array, "*batch 3"]
) -> Float[Array, "*batch 2 2"]:
    """Covariance of (azimuth, elevation) in rad^2 out of that of the direction cosines (uy, uz), to first order.

    ``d az = d uy / ux + d uz uy uz / (ux (1 - uz^2))``, ``d el = d uz / sqrt(1 - uz^2)`` at ``direction`` (array frame, ux > 0).
    Not defined in the plane of the array, nor for an infinite covariance.

    Raises:
        Misuse: a direction does not point forward, or a covariance is not finite.
    """
    direction, covariance = np.asarray(direction, float), np.asarray(covariance, float)
    if not np.all(direction[..., 0] > 0):
        raise Misuse("direction: must have ux > 0; in the plane of the array angles have no bound")
    if not np.all(np.isfinite(covariance)):
        raise Misuse("covariance: must be finite; leave targets out whose direction is not known")
    inverse = np.linalg.inv(angle_jacobian(direction))
    return np.asarray(inverse @ covariance @ np.swapaxes(inverse, -1, -2))


@njit(cache=True, error_model="numpy")
def _variances(direction: Any, far: Any, fast: Any) -> Any:  # pragma: no cover - compiled
    # inverses of ``direction[item 2 2]`` and of two numbers; what cannot be told apart, or is not seen at all, has infinite variance
    out = np.zeros((len(far), 4, 4))
    for n in range(len(far)):
        a, b, d = direction[n, 0, 0], direction[n, 0, 1], direction[n, 1, 1]
        det = a * d - b * b
        out[n, 0, 0] = out[n, 1, 1] = np.inf
        if (a > 0) != (d > 0):
            out[n, 0, 0], out[n, 1, 1] = 1 / a if a > 0 else np.inf, 1 / d if d > 0 else np.inf
        elif det > _ALIGNED * a * d:
            out[n, 0, 0], out[n, 1, 1] = d / det, a / det
            out[n, 0, 1] = out[n, 1, 0] = -b / det
        out[n, 2, 2], out[n, 3, 3] = 1 / far[n] if far[n] > 0 else np.inf, 1 / fast[n] if fast[n] > 0 else np.inf
    return out
