"""What echoes tell of the directions of K targets lit by one beam: Fisher information and Cramer-Rao bound over subcarriers.

The echo of subcarrier m is ``y_m = sqrt(p_m) sum_k g_k,m a_r(u_k) (a_t(u_k)^T r_m) + n`` (docs/conventions.md; papers/000 eq (9)). A beam enters
only through the 3K numbers ``(a_t^T r, d a_t^T r / duy, d a_t^T r / duz)`` of each subcarrier, the receiver only through a Gram matrix that no
beam changes, and both are separable on a planar grid: no matrix of the array's size is formed. NumPy, torch or any array-API library
run the same code, torch with gradients.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_namespace

from hal.array import LIGHT_MPS, AntennaArray, angle_jacobian, cis, like
from hal.check import finite, positive, shaped
from hal.errors import Misuse

__all__ = ["angle_weight", "crb", "echo_gram", "illumination", "information", "total_information"]

Reflection = Literal["known", "unknown"]
Convention = Literal["consistent", "printed"]
_SINGULAR = (
    1e-13  # reciprocal condition of an information matrix, its diagonal scaled to one, below which it has no inverse
)


def illumination(
    array: AntennaArray,
    direction: Any,
    frequency_hz: Any,
    response: Any,
    convention: Convention = "consistent",
) -> Any:
    """What a beam brings to each target, and its slopes: ``a^T r``, ``(da/duy)^T r``, ``(da/duz)^T r`` -> ``[... subcarrier target 3]``.

    ``direction[target 3]`` unit vectors, ``frequency_hz[subcarrier]`` (Hz), ``response[... subcarrier element]`` what drives the elements
    (``hal.network.response`` of one chain, or of all times their weights). Planar grids only: columns and rows are contracted in turn.
    ``printed`` takes ``conj(a)`` towards targets, as ``G = a_r a_t^T`` beside ``h^H F f`` says in papers/000 eqs (6), (8): user and targets then do
    not focus together.
    """
    xp = array_namespace(response)
    (a_y, s_y), (a_z, s_z) = _factors(array, direction, frequency_hz, convention)
    grid = xp.reshape(response, (*response.shape[:-1], array.columns, array.rows))
    rows = xp.matmul(grid, xp.matrix_transpose(xp.concat([a_z, s_z], axis=-2)))  # [... m column 2K]
    targets = a_z.shape[-2]
    flat, tilted = (
        xp.matrix_transpose(rows[..., :targets]),
        xp.matrix_transpose(rows[..., targets:]),
    )  # [... m K column]
    return xp.stack(
        [xp.sum(a_y * flat, axis=-1), xp.sum(s_y * flat, axis=-1), xp.sum(a_y * tilted, axis=-1)],
        axis=-1,
    )


def echo_gram(
    array: AntennaArray,
    direction: Any,
    gain: Any,
    frequency_hz: Any,
    noise_w: float,
    reflection: Reflection = "known",
    combiner: Any = None,
    convention: Convention = "consistent",
) -> Any:
    """The receiver's part of the information: ``(2 / noise) conj(g_k) g_l d_s a_k^H C^-1 d_t a_l`` -> ``[subcarrier target 3 target 3]``.

    ``s`` and ``t`` run over the steering vector and its two slopes, as in ``illumination``; ``gain[target subcarrier]`` are two-way field gains
    between unit-gain antennas, phases referred to the array's centre; ``noise_w`` is one element's noise in a subcarrier.

    Args:
        array: the receiving array, a planar grid.
        direction: ``[target 3]`` unit vectors in its frame.
        gain: ``g`` of each target and subcarrier; a target's own, independent over subcarriers unless the caller says otherwise.
        frequency_hz: ``[subcarrier]``.
        noise_w: W, one element, one subcarrier.
        reflection: ``known`` as in papers/000; ``unknown`` gives up what lies along each target's own response, subcarrier by subcarrier
            (Schur complement), so only the receive aperture tells directions apart.
        combiner: receive ``response[subcarrier or 1, element, chain]``: outputs ``response^T y`` are all there is, noise whitened. None: every
            element is heard, as in eq (9).
        convention: as in ``illumination``.

    Raises Misuse for gains or noise that are not finite or positive.

    Source: papers/000 eq (10), with R_x split into power and unit-power beam.
    """
    xp = array_namespace(direction)
    positive("noise_w", noise_w, "it is the thermal noise of one element in one subcarrier")
    shaped("gain", gain, (direction.shape[0], frequency_hz.shape[0]))
    targets = direction.shape[0]
    (a_y, s_y), (a_z, s_z) = _factors(array, direction, frequency_hz, convention)
    if combiner is None:
        y = xp.concat([a_y, s_y], axis=-2)
        z = xp.concat([a_z, s_z], axis=-2)
        across = xp.reshape(xp.matmul(xp.conj(y), xp.matrix_transpose(y)), (-1, 2, targets, 2, targets))
        up = xp.reshape(xp.matmul(xp.conj(z), xp.matrix_transpose(z)), (-1, 2, targets, 2, targets))
        # order of the slope along y and along z, of the steering vector and its two slopes
        along_y, along_z = (xp.asarray(np.array(order), device=device(across)) for order in ((0, 1, 0), (0, 0, 1)))
        across = xp.take(xp.take(across, along_y, axis=1), along_y, axis=3)
        up = xp.take(xp.take(up, along_z, axis=1), along_z, axis=3)
        gram = xp.permute_dims(across * up, (0, 2, 1, 4, 3))  # [m k s l t]
    else:
        vectors = xp.stack([_grid(a_y, a_z), _grid(s_y, a_z), _grid(a_y, s_z)], axis=-2)  # [m k s element]
        heard = xp.matmul(xp.reshape(vectors, (vectors.shape[0], 3 * targets, -1)), combiner)  # [m 3K chain]
        noise = xp.matmul(xp.matrix_transpose(combiner), xp.conj(combiner))
        white = xp.matmul(xp.linalg.pinv(xp.astype(noise, heard.dtype)), xp.matrix_transpose(heard))
        gram = xp.reshape(xp.matmul(xp.conj(heard), white), (-1, targets, 3, targets, 3))
    if reflection == "unknown":
        gram = _without_amplitudes(gram)
    elif reflection != "known":
        raise Misuse(f"reflection = {reflection!r}: must be 'known' or 'unknown'")
    amplitude = xp.matrix_transpose(xp.astype(like_complex(gain, gram), gram.dtype))  # [m k]
    scaled = (2.0 / noise_w) * gram
    return xp.conj(amplitude)[:, :, None, None, None] * scaled * amplitude[:, None, None, :, None]


def information(gram: Any, lit: Any) -> Any:
    """Fisher information of ``(uy_1, uz_1, uy_2, ...)`` at unit power, subcarrier by subcarrier -> ``[... subcarrier 2K 2K]``.

    ``gram`` from ``echo_gram``, ``lit`` from ``illumination``. With D the derivative of the mean, ``Re D^H C^-1 D`` is four products of Gram entries with
    what lights the two targets. papers/000 eq (10) with ``p_m`` left out; both its angles are cosines here (``angle_weight`` turns them).
    """
    xp = array_namespace(lit)
    here, slope = lit[..., 0], lit[..., 1:]
    left, left_slope = xp.conj(here)[..., :, None, None, None], xp.conj(slope)[..., :, :, None, None]
    right, right_slope = here[..., None, None, :, None], slope[..., None, None, :, :]
    product = left * gram[..., 1:, :, 1:] * right
    product = product + left * gram[..., 1:, :, :1] * right_slope
    product = product + left_slope * gram[..., :1, :, 1:] * right
    product = product + left_slope * gram[..., :1, :, :1] * right_slope
    whole = xp.real(product)
    parameters = 2 * gram.shape[-2]
    return xp.reshape(whole, (*whole.shape[:-4], parameters, parameters))


def total_information(unit: Any, power_w: Any) -> Any:
    """``sum_m p_m J_m`` -> ``[... 2K 2K]``: ``unit[... subcarrier 2K 2K]`` from ``information``, ``power_w[... subcarrier]`` in W. papers/000 eq (11)."""
    xp = array_namespace(unit)
    return xp.sum(unit * power_w[..., None, None], axis=-3)


def angle_weight(direction: Any) -> Any:
    """The weight that makes ``crb`` a bound on angles: ``tr(W J^-1)`` is the summed variance of azimuths and elevations (rad^2).

    ``W = blockdiag(A_k^-T A_k^-1)``, ``A = d(uy, uz) / d(azimuth, elevation)``; azimuth and pi/2 - elevation are papers/000's phi and theta.
    Raises Misuse for a direction along which an angle is undefined: ``ux = 0`` or straight up.
    """
    direction = np.asarray(direction)
    jacobian = angle_jacobian(direction)
    edge = np.abs(jacobian[:, 0, 0] * jacobian[:, 1, 1] - jacobian[:, 0, 1] * jacobian[:, 1, 0])
    if not np.all(edge > 1e-9):
        at = int(np.argmin(edge))
        raise Misuse(
            f"direction[{at}] = {direction[at]}: azimuth or elevation has no meaning along the array's plane or pole; bound cosines instead"
        )
    # A^-T A^-1, the inverse of A A^T, written out
    (a, b), (c, d) = np.moveaxis(jacobian, 0, -1)
    weight = np.zeros((2 * len(direction), 2 * len(direction)))
    first, second = 2 * np.arange(len(direction)), 2 * np.arange(len(direction)) + 1
    weight[first, first] = (c * c + d * d) / edge**2
    weight[second, second] = (a * a + b * b) / edge**2
    weight[first, second] = weight[second, first] = -(a * c + b * d) / edge**2
    return weight


def crb(total: Any, weight: Any = None, singular: Literal["raise", "inf"] = "raise") -> Any:
    """Cramer-Rao bound ``tr(W J^-1)`` -> ``[...]``: of cosines for no weight, of angles (rad^2) with ``angle_weight``. papers/000 eq (11).

    ``total[... 2K 2K]`` from ``total_information``. An information matrix without an inverse (a target not lit, two in one direction) raises Misuse, or
    gives infinity where ``singular`` is ``inf``; other libraries than NumPy go unchecked.
    """
    xp = array_namespace(total)
    if not is_numpy_namespace(xp):
        inverse = xp.linalg.inv(total)
        weighted = inverse if weight is None else xp.matmul(like(weight, total), inverse)
        return xp.linalg.trace(weighted)
    finite("total", total)
    if total.shape[-1] == 0:
        raise Misuse("total: has no parameter; a bound needs at least one target")
    scale = np.sqrt(np.maximum(np.diagonal(total, axis1=-2, axis2=-1), 0.0))
    dark = ~np.all(scale > 0, axis=-1)
    scale = np.where(scale > 0, scale, 1.0)
    scaled = total / (scale[..., :, None] * scale[..., None, :])
    value = np.linalg.eigvalsh(scaled)
    bad = dark | ~(value[..., 0] > _SINGULAR * value[..., -1])
    if np.any(bad) and singular == "raise":
        raise Misuse(
            f"Fisher information of {total.shape[-1]} parameters is singular: a target is not lit or two cannot be told apart; "
            "light every target, drop one, or use reflection = 'known'"
        )
    safe = np.where(bad[..., None, None], np.eye(total.shape[-1]), scaled)
    inverse = np.linalg.inv(safe) / (scale[..., :, None] * scale[..., None, :])
    bound = np.trace(inverse if weight is None else np.asarray(weight) @ inverse, axis1=-2, axis2=-1)
    return np.where(bad, np.inf, bound)[()]


def like_complex(value: Any, reference: Any) -> Any:
    """``value`` in the namespace of ``reference``, complex parts kept."""
    xp = array_namespace(reference)
    return value if not isinstance(value, np.ndarray) or is_numpy_namespace(xp) else xp.asarray(np.array(value))


def _factors(array: AntennaArray, direction: Any, frequency_hz: Any, convention: Convention) -> tuple[Any, Any]:
    """Steering factors and their slopes along both axes of the grid: ``((a_y, da_y/duy), (a_z, da_z/duz))``, each ``[subcarrier target n]``."""
    if not array.columns > 0:
        raise Misuse("array.columns = 0: the information of echoes is separable on planar grids only; use a Upa or Ula")
    if convention not in ("consistent", "printed"):
        raise Misuse(
            f"convention = {convention!r}: must be 'consistent' (a_r a_t^T, our signs) or 'printed' (papers/000 as it stands)"
        )
    xp = array_namespace(direction)
    sign = 1.0 if convention == "consistent" else -1.0
    k = like(frequency_hz, direction)[:, None, None] * (sign * 2 * np.pi / LIGHT_MPS)
    out = []
    for axis, place in ((1, array.position_m[:: array.rows, 1]), (2, array.position_m[: array.rows, 2])):
        lever = k * like(place, direction)
        a = cis(lever * direction[None, :, axis, None])
        out.append((a, 1j * xp.astype(lever, a.dtype) * a))
    return out[0], out[1]


def _grid(a_y: Any, a_z: Any) -> Any:
    xp = array_namespace(a_y)
    return xp.reshape(a_y[..., :, None] * a_z[..., None, :], (*a_y.shape[:-1], -1))


def _without_amplitudes(gram: Any) -> Any:
    """The Gram matrix after each target's own complex amplitude has been estimated too; nothing is left along the responses."""
    xp = array_namespace(gram)
    subcarriers, targets = gram.shape[:2]
    own = gram[:, :, 0, :, 0]
    across = xp.reshape(gram[:, :, 1:, :, 0], (subcarriers, 2 * targets, targets))
    slopes = xp.reshape(gram[:, :, 1:, :, 1:], (subcarriers, 2 * targets, 2 * targets))
    left = xp.matmul(xp.matmul(across, xp.linalg.pinv(own)), xp.conj(xp.matrix_transpose(across)))
    rest = xp.reshape(slopes - left, (subcarriers, targets, 2, targets, 2))
    none = xp.zeros_like(gram[:, :, :1, :, 1:])
    lower = xp.concat([none, rest], axis=2)
    return xp.concat([xp.zeros_like(gram[:, :, :, :, :1]), lower], axis=4)
