"""How well one target's direction, range and velocity can be known: the Cramer-Rao bound of a dwell."""

from __future__ import annotations

import numpy as np

from hal.array import LIGHT_MPS, angle_jacobian
from hal.errors import Misuse
from hal.hermitian import eigens
from hal.record import Array, Complex, Float, Int

__all__ = ["angle_covariance", "delay_information", "direction_information", "echo_bound"]

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
    times_s = (np.asarray(frame_t_ns) - np.min(frame_t_ns, initial=2**62)) * 1e-9
    if not (samples >= 1 and times_s.size >= 1):
        raise Misuse(f"samples = {samples!r}, frames = {times_s.size}: both must be at least 1")
    if not sample_rate_hz > 0:
        raise Misuse(f"sample_rate_hz = {sample_rate_hz!r}: must be > 0")
    if not carrier_hz > 0:
        raise Misuse(f"carrier_hz = {carrier_hz!r}: must be > 0")
    direction, power = direction_information(b, b_gradient, noise_covariance)
    delay, energy = delay_information(
        roll_off, None if delay_s is None else np.asarray(delay_s, float) * sample_rate_hz
    )
    spread_s2 = (samples**2 - 1) / (12 * sample_rate_hz**2) + np.var(times_s)
    rho = 2 * np.abs(np.asarray(amplitude)) ** 2 * (samples * times_s.size)
    shape = np.broadcast_shapes(power.shape, np.shape(rho), np.shape(energy))
    out = np.zeros((*shape, 4, 4))
    out[..., :2, :2] = _inverse(np.broadcast_to(rho * energy, shape)[..., None, None] * direction)
    range_scale, velocity_scale = (2 * sample_rate_hz / LIGHT_MPS) ** 2, (4 * np.pi * carrier_hz / LIGHT_MPS) ** 2
    out[..., 2, 2] = _reciprocal(np.broadcast_to(rho * power * delay * range_scale, shape))
    out[..., 3, 3] = _reciprocal(np.broadcast_to(rho * power * energy * velocity_scale * spread_s2, shape))
    return out


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
    # whitened by W's eigenvectors, so that two chains on one beam, whose W is singular, count as the one they are
    value, vector = eigens(np.asarray(noise_covariance))
    if not np.all(value[..., -1] > 0):
        raise Misuse("noise_covariance: must be positive; every receiver has noise (hal.chain.thermal_noise_w)")
    kept = value > _SINGULAR * value[..., -1:]
    white = (
        np.swapaxes(np.conj(vector), -1, -2) * np.where(kept, 1 / np.sqrt(np.where(kept, value, 1.0)), 0.0)[..., None]
    )
    both = np.concatenate([np.asarray(b)[..., None, :], np.asarray(b_gradient)], axis=-2)
    both = np.swapaxes(white @ np.swapaxes(both, -1, -2), -1, -2)
    signal, slope = both[..., :1, :], both[..., 1:, :]
    power = (signal.real**2 + signal.imag**2).sum(-1)
    along = (np.conj(signal) * slope).sum(-1) / np.where(power > 0, power, 1.0)
    off = slope - along[..., None] * signal
    gram = (np.conj(off[..., :, None, :]) * off[..., None, :, :]).sum(-1).real
    whole = (slope.real**2 + slope.imag**2).sum(-1)
    told = (np.diagonal(gram, axis1=-2, axis2=-1) > _ALIGNED * whole) & (power > 0)
    return np.where(told[..., :, None] & told[..., None, :], gram, 0.0), np.asarray(power[..., 0])


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


def _reciprocal(information: Array) -> Array:
    return np.asarray(np.divide(1.0, information, out=np.full(information.shape, np.inf), where=information > 0))


def _inverse(information: Array) -> Array:
    """Inverse of ``[..., 2, 2]``; what cannot be told apart, or is not seen at all, has infinite variance."""
    a, b, d = information[..., 0, 0], information[..., 0, 1], information[..., 1, 1]
    det = a * d - b * b
    joint = det > _ALIGNED * a * d
    alone = (a > 0) ^ (d > 0)
    out = np.zeros(information.shape)
    out[..., 0, 0] = np.where(alone, _reciprocal(a), np.divide(d, det, out=np.full(a.shape, np.inf), where=joint))
    out[..., 1, 1] = np.where(alone, _reciprocal(d), np.divide(a, det, out=np.full(a.shape, np.inf), where=joint))
    out[..., 0, 1] = out[..., 1, 0] = np.divide(-b, det, out=np.zeros(a.shape), where=joint)
    return out
