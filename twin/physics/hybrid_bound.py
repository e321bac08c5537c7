"""What a combiner and a precoder let one know of a target's angles, in closed form: papers/001 eqs (52)-(77), batched over combiners."""

from __future__ import annotations

import numpy as np

from hal.array import AntennaArray, angle_jacobian, steering, steering_gradient
from hal.check import positive, shaped
from hal.errors import Misuse
from hal.record import Array, Complex, Float

__all__ = ["angle_bound", "angle_slopes", "combiner_gram", "precoder_gram"]

_PARTS = (((1, 0), (0, 1)), ((2, 0), (0, 2)), ((0, 0),))  # of dA/dtheta, dA/dphi and A: (receive, transmit) factors
_SINGULAR = 1e-10  # reciprocal condition of W^H W, columns scaled to one, below which a combiner is short of columns
_UNSEEN = 1e-12  # information over that of the amplitude (1/rad^2) below which an angle is not seen


def angle_slopes(
    array: AntennaArray, direction: Float[Array, " 3"], frequency_hz: float
) -> Complex[Array, "element 3"]:
    """``a``, ``da/d azimuth``, ``da/d elevation`` (1/rad) at a direction (array frame): eqs (63)-(68) about the array's centre."""
    direction, frequency = np.asarray(direction, dtype=np.float64), np.float64(frequency_hz)
    cosines = np.stack(steering_gradient(array, direction, frequency), axis=-1)
    return np.column_stack([steering(array, direction, frequency), cosines @ angle_jacobian(direction)])


def combiner_gram(
    slopes: Complex[Array, "element 3"], combiner: Complex[Array, "*batch element chain"] | None
) -> Complex[Array, "*batch 3 3"]:
    """``D^H Pi_W D``: what the projection onto a combiner's columns keeps of the receive array's three slopes; None keeps all (digital).

    Raises Misuse for a combiner whose columns are not independent (eq (44) cannot be inverted) or whose size is another.
    """
    if combiner is None:
        return np.asarray(slopes.conj().T @ slopes)
    combiner = np.asarray(combiner)
    shaped("combiner", combiner[(0,) * (combiner.ndim - 2)], (len(slopes), None))
    size = np.linalg.norm(combiner, axis=-2, keepdims=True)
    column = combiner / np.where(size > 0, size, 1.0)
    gram = np.swapaxes(column, -1, -2).conj() @ column
    value, vector = np.linalg.eigh(gram)
    if not (np.all(size > 0) and np.all(value[..., 0] > _SINGULAR * value[..., -1])):
        raise Misuse(
            f"combiner: is singular (reciprocal condition {np.min(value[..., 0] / value[..., -1]):.1e}, must be > {_SINGULAR:g}); its columns "
            "must be linearly independent: drop a chain or point it elsewhere"
        )
    onto = np.swapaxes(column, -1, -2).conj() @ slopes  # [... chain 3]
    onto = np.swapaxes(vector, -1, -2).conj() @ onto / np.sqrt(value)[..., None]
    return np.asarray(np.swapaxes(onto, -1, -2).conj() @ onto)


def precoder_gram(
    slopes: Complex[Array, "element 3"], precoder: Complex[Array, "element stream"]
) -> Complex[Array, "3 3"]:
    """``D^T F F^H D*``: power that a precoder sends to the target, and its slopes (R_x = F F^H, eq (50))."""
    through = np.asarray(slopes).T @ precoder
    return np.asarray(through @ through.conj().T)


def angle_bound(
    receive: Complex[Array, "*batch 3 3"],
    transmit: Complex[Array, "3 3"],
    amplitude: float | complex,
    noise_w: float,
    samples: int,
) -> Float[Array, "*batch 2 2"]:
    """Cramer-Rao bound of (azimuth, elevation) in rad^2, the complex amplitude unknown: eqs (52)-(77).

    ``J = (2 samples / noise) |amplitude|^2 Re T``, ``T_xy = tr(Pi_W dA_x R_x dA_y^H)`` with ``A = a_r a_t^T``; the amplitude is eliminated by its
    Schur complement. Delay and Doppler do not couple to angles but through the symbols' chance (samples^-1/2).

    Args:
        receive: ``combiner_gram``.
        transmit: ``precoder_gram``.
        amplitude: field of one path between unit-gain elements; only its modulus counts.
        noise_w: of one element and sample, W.
        samples: M N of the frame, times frames.

    Returns:
        The covariance ``[... 2 2]``; infinite where fewer than three columns see the slopes.

    Raises:
        Misuse: noise is not positive, or there is no sample.

    Source: papers/001; its theta is our azimuth, its phi is pi/2 less our elevation (docs/conventions.md), which changes no variance.
    """
    positive("noise_w", noise_w)
    if not samples >= 1:
        raise Misuse(f"samples = {samples!r}: must be at least 1; a bound needs a frame")
    whole = np.zeros((*receive.shape[:-2], 3, 3), dtype=np.complex128)
    for x, left in enumerate(_PARTS):
        for y, right in enumerate(_PARTS):
            for r, t in left:
                for s, u in right:
                    whole[..., x, y] += receive[..., s, r] * transmit[t, u]
    level = whole[..., 2, 2].real
    cross = whole[..., :2, 2]
    met = np.divide(1.0, level, out=np.zeros_like(level), where=level > 0)
    information = (whole[..., :2, :2] - cross[..., :, None] * cross.conj()[..., None, :] * met[..., None, None]).real
    information = information * (2 * samples / noise_w * np.abs(amplitude) ** 2)
    a, b, d = information[..., 0, 0], information[..., 0, 1], information[..., 1, 1]
    det = a * d - b * b
    # a slope of a billionth of a wavelength's turn a radian is rounding
    least = _UNSEEN * level * (2 * samples / noise_w * np.abs(amplitude) ** 2)
    seen = (a > least) & (d > least) & (det > 1e-12 * a * d)
    out = np.full((*det.shape, 2, 2), np.inf)
    for (i, j), value in (((0, 0), d), ((1, 1), a), ((0, 1), -b), ((1, 0), -b)):
        out[..., i, j] = np.divide(value, det, out=np.full(det.shape, np.inf if i == j else 0.0), where=seen)
    return out
