"""Two scales of channel knowledge: what sensing tells of a user's correlation matrix, and what pilots then tell of its channel.

Reading of papers/004 used throughout: correlation matrices have trace 1, ``h ~ CN(0, beta R)`` with beta the gain summed over elements,
``gamma_e = M_m P_m / sigma_m^2`` with M_m in symbols, sensing time as a duration with ``crb * T_l`` constant.
"""

from __future__ import annotations

import numpy as np

from hal.array import LIGHT_MPS, cis
from hal.errors import Misuse
from hal.record import Array, Complex, Float

__all__ = [
    "angle_slope",
    "believed_covariance",
    "crb_constant_rad2",
    "crb_max_rad2_of_std_deg",
    "guard_crb_rad2",
    "mmse_covariance",
    "mmse_error",
    "mmse_filter",
    "mmse_trace",
    "steering_column",
]

Numbers = float | Float[Array, "..."]
_TURN = 2 * np.pi


def crb_constant_rad2(
    echo_snr: Numbers, receive_elements: int, angle_rad: Numbers, spacing_wavelengths: float = 0.5
) -> Float[Array, ...]:
    """Cramer-Rao bound of a user's angle times the number of sensing symbols, rad^2; broadcasts.

    ``CRB T_l = 1 / (2 snr (2 pi d/lambda)^2 cos^2(theta) (L_r^2 - 1) / 12)``, snr = G L_r L_t |alpha|^2 / sigma_r^2 of one symbol with the transmit
    beam on the user (power and matched filter included): equation (9) with the second trace of its numerator over ``A W A-dot^H``. As printed, with
    ``A W A^H`` there, the bound is far too small and turns negative near end fire.

    Args:
        echo_snr: of one symbol, summed over the receive array; a ratio.
        receive_elements: L_r, of a line array.
        angle_rad: from broadside.
        spacing_wavelengths: of the elements.

    Left out: elevation, more than one target in a cell, loss from unknown delay and Doppler (uncoupled to first order).

    Raises:
        Misuse: one element, no echo, or end fire, where no angle can be measured.

    Source: papers/004, eq 9 (corrected reading).
    """
    snr, cosine = np.asarray(echo_snr, float), np.cos(np.asarray(angle_rad, float))
    if not receive_elements >= 2:
        raise Misuse(f"receive_elements = {receive_elements!r}: must be at least 2 to measure an angle")
    if not np.all(snr > 0):
        raise Misuse(f"echo_snr = {echo_snr!r}: must be > 0")
    if not np.all(cosine > 1e-9):
        raise Misuse(
            f"angle_rad = {angle_rad!r}: must lie inside (-pi/2, pi/2); at end fire a line array measures no angle"
        )
    aperture = (_TURN * spacing_wavelengths) ** 2 * (receive_elements**2 - 1) / 12
    return np.asarray(1 / (2 * snr * aperture * cosine**2))


def crb_max_rad2_of_std_deg(std_deg: float) -> float:
    """The requirement ``crb_max_rad2`` (a variance) from a standard deviation in degrees.

    Raises:
        Misuse: not a finite number above zero.
    """
    if not (np.isfinite(std_deg) and std_deg > 0):
        raise Misuse(f"std_deg = {std_deg!r}: must be a finite number > 0; it is a standard deviation in degrees")
    return float(np.deg2rad(std_deg) ** 2)


def steering_column(
    position_m: Float[Array, "element 3"], frequency_hz: float, azimuth_rad: Numbers, elevation_rad: Numbers = 0.0
) -> Complex[Array, "*batch element"]:
    """Unit-norm steering vector ``a(u) / sqrt(L)``, phase counted from the array's phase centre."""
    return np.asarray(_column(np.asarray(position_m, float), frequency_hz, azimuth_rad, elevation_rad)[0])


def angle_slope(
    position_m: Float[Array, "element 3"],
    frequency_hz: float,
    azimuth_rad: Numbers,
    elevation_rad: Numbers = 0.0,
    reference: str = "element",
) -> Complex[Array, "*batch element"]:
    """Derivative after azimuth (1/rad) of the unit-norm steering vector: the ``f'(theta)`` of papers/004, eq 11b, over sqrt(beta).

    Args:
        position_m: elements about the phase centre, array frame.
        frequency_hz: at which.
        azimuth_rad: direction, array frame; broadcasts with ``elevation_rad``.
        elevation_rad: likewise.
        reference: where the phase is counted from: "element" (element 0, as eq 7 prints it) or "centre". The first has a part along the steering
            vector itself, a common phase that no receiver can see, and so charges the channel for an error that does not exist
            (||f'||^2 is 172.7 instead of 51.8 at broadside for 8 elements). Whatever a longer look at a user buys is mostly that.

    Raises:
        Misuse: the reference is not known.
    """
    if reference not in ("element", "centre"):
        raise Misuse(f"reference = {reference!r}: must be 'element' (as printed) or 'centre'")
    position = np.asarray(position_m, float)
    column, turn = _column(position, frequency_hz, azimuth_rad, elevation_rad)
    if reference == "element":
        turn = turn - turn[..., :1]
    return np.asarray(1j * turn * column)


def _column(position: Array, frequency_hz: float, azimuth_rad: Numbers, elevation_rad: Numbers) -> tuple[Array, Array]:
    az, el = np.broadcast_arrays(np.asarray(azimuth_rad, float), np.asarray(elevation_rad, float))
    wave = _TURN * frequency_hz / LIGHT_MPS
    u = np.stack([np.cos(el) * np.cos(az), np.cos(el) * np.sin(az), np.sin(el)], axis=-1)
    du = np.stack([-np.cos(el) * np.sin(az), np.cos(el) * np.cos(az), np.zeros_like(az)], axis=-1)
    return cis(wave * (u @ position.T)) / np.sqrt(len(position)), wave * (du @ position.T)


def believed_covariance(
    correlation: Complex[Array, "*batch element element"],
    slope: Complex[Array, "*batch element"],
    gain: Numbers,
    crb_rad2: Numbers,
    guard: str = "clip",
) -> Complex[Array, "*batch element element"]:
    """What is believed of a channel whose angle was measured: ``R-hat = beta R - crb beta f' f'^H`` (papers/004, eqs 11b and 13).

    Args:
        correlation: R, trace 1.
        slope: f' over sqrt(beta), of ``angle_slope``.
        gain: beta, ``[*batch]``.
        crb_rad2: variance of the angle, ``[*batch]``.
        guard: "clip" sets negative eigenvalues to zero: always finite, and the same as "raw" while the standard deviation of the angle is below
            spread / sqrt(3). "raw" is the difference as printed; beyond that limit it is no covariance and the rate formula has a pole.
            "wide" adds the term instead of taking it away: the Bayesian covariance of a channel about an uncertain angle.

    First order in the angle's error. Raises Misuse for an unknown guard or a variance that is not >= 0.
    """
    if guard not in ("clip", "raw", "wide"):
        raise Misuse(f"guard = {guard!r}: must be 'clip', 'raw' or 'wide'")
    crb, beta = np.asarray(crb_rad2, float), np.asarray(gain, float)
    if not np.all(crb >= 0):
        raise Misuse(f"crb_rad2 = {crb_rad2!r}: must be >= 0; it is a variance")
    spread = slope[..., :, None] * np.conj(slope[..., None, :])
    raw = beta[..., None, None] * (correlation + np.where(guard == "wide", 1.0, -1.0) * crb[..., None, None] * spread)
    if guard != "clip":
        return np.asarray(raw)
    value, vector = np.linalg.eigh(raw)
    return np.asarray((vector * np.maximum(value, 0.0)[..., None, :]) @ np.conj(np.swapaxes(vector, -1, -2)))


def guard_crb_rad2(azimuth_spread_rad: float) -> float:
    """Largest variance of the angle for which ``R-hat`` of a uniform ring is a covariance but for parts below 1e-4: spread^2 / 3."""
    if not azimuth_spread_rad >= 0:
        raise Misuse(f"azimuth_spread_rad = {azimuth_spread_rad!r}: must be >= 0; it is a half angle in radians")
    return azimuth_spread_rad**2 / 3


def mmse_filter(
    covariance: Complex[Array, "*batch element element"],
    pilot_snr: Numbers,
    combiner: Complex[Array, "element chain"] | None = None,
) -> Complex[Array, "*batch element chain"]:
    """``G`` of the linear MMSE estimate ``h~ = G y`` from ``y = W^H h + n``, n of covariance ``W^H W / gamma_e``.

    ``G = R W (W^H R W + W^H W / gamma_e)^-1``. The pilots' amplitude and length are divided out of y (papers/004, eqs 14-15, is W = I).

    Args:
        covariance: R-hat, gain included.
        pilot_snr: gamma_e of a channel of unit gain, ``[*batch]``.
        combiner: W, of full column rank; None hears every element.

    Raises:
        Misuse: no pilot power.
    """
    snr = np.asarray(pilot_snr, float)
    if not np.all(snr > 0):
        raise Misuse(f"pilot_snr = {pilot_snr!r}: must be > 0")
    w = np.eye(covariance.shape[-1]) if combiner is None else np.asarray(combiner)
    heard = w.conj().T @ covariance @ w + (w.conj().T @ w) / snr[..., None, None]
    return np.asarray(np.conj(np.swapaxes(np.linalg.solve(heard, w.conj().T @ covariance), -1, -2)))


def mmse_covariance(
    covariance: Complex[Array, "*batch element element"],
    pilot_snr: Numbers,
    combiner: Complex[Array, "element chain"] | None = None,
) -> Complex[Array, "*batch element element"]:
    """Covariance of the MMSE estimate, ``C_h = R W (W^H R W + W^H W / gamma_e)^-1 W^H R`` (papers/004, eq 21: W = I).

    Arguments and errors as ``mmse_filter``.
    """
    w = np.eye(covariance.shape[-1]) if combiner is None else np.asarray(combiner)
    estimate = mmse_filter(covariance, pilot_snr, combiner) @ (w.conj().T @ covariance)
    return np.asarray((estimate + np.conj(np.swapaxes(estimate, -1, -2))) / 2)


def mmse_error(
    covariance: Complex[Array, "*batch element element"],
    pilot_snr: Numbers,
    combiner: Complex[Array, "element chain"] | None = None,
) -> Complex[Array, "*batch element element"]:
    """Covariance of the MMSE estimate's error, ``R-hat - C_h``; for W = I it is ``R-hat / gamma_e (R-hat + I / gamma_e)^-1`` (eq 15)."""
    return np.asarray(covariance - mmse_covariance(covariance, pilot_snr, combiner))


def mmse_trace(covariance: Complex[Array, "*batch element element"], pilot_snr: Numbers) -> Float[Array, "*batch"]:
    """``tr(C_h) = tr(R) + tr((R + I / gamma_e)^-1) / gamma_e^2 - L / gamma_e`` (papers/004, eq 29), from eigenvalues alone."""
    noise = 1 / np.asarray(pilot_snr, float)[..., None]
    value = np.linalg.eigvalsh(covariance)
    return np.asarray(np.sum(value - noise + noise**2 / (value + noise), axis=-1))
