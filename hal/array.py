"""Geometry, element pattern and steering vectors (pure). The conventions of ``docs/conventions.md`` live here.

Functions of a direction take their namespace from it (NumPy, torch or any array-API library), so training differentiates through
the same definition that the loop runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import array_api_compat.numpy
import numpy as np
from array_api_compat import array_namespace, device, is_array_api_obj, is_numpy_namespace
from numba import njit

from hal.check import Ge, Gt, Le, positive
from hal.errors import Misuse
from hal.pattern import ElementPattern, pattern_amplitude
from hal.record import Array, Float, record

__all__ = [  # noqa: RUF022 - the component comes first
    "Upa",
    "Ula",
    "AntennaArray",
    "LIGHT_MPS",
    "angle_jacobian",
    "angles_from",
    "cis",
    "direction_from",
    "direction_to",
    "element_amplitude",
    "fraunhofer_distance_m",
    "half_power_beamwidth",
    "like",
    "near_field",
    "rotation_from",
    "steering",
    "steering_factors",
    "steering_gradient",
    "to_array_frame",
    "to_world_frame",
]

LIGHT_MPS = 299_792_458.0


@record
class AntennaArray:
    """Elements in their own frame (boresight +x) and where that frame stands in the world."""

    position_m: Float[Array, "element 3"]  # about the phase centre, array frame
    columns: int = 0  # planar grid: element n = column * rows + row; 0 for a free-form array
    rows: int = 0
    spacing_m: float = 0.0  # of the grid; 0 for a free-form array
    rotation: Float[Array, "3 3"] = field(default_factory=lambda: np.eye(3))  # array frame -> world frame
    origin_m: Float[Array, " 3"] = field(default_factory=lambda: np.zeros(3))  # phase centre in the world
    element_gain_dbi: float = 0.0  # peak of one element
    element_exponent: float = (
        0.0  # power pattern peak * max(0, ux)^exponent; 0 and 0 dBi: isotropic in the front half space and behind
    )
    pattern: ElementPattern | None = None  # measured; then the two fields above are not asked
    spherical: bool = False  # waves to and from this array are spherical, not plane (``hal.medium.beam_gains``)


@dataclass(frozen=True)
class Upa:
    """A uniform planar array of ``columns x rows`` elements in the array's y-z plane, centred on the phase centre."""

    columns: Annotated[int, Ge(1), Le(512)] = 16  # along +y
    rows: Annotated[int, Ge(1), Le(512)] = 16  # along +z
    spacing_wavelengths: Annotated[float, Gt(0)] = 0.5  # at the carrier, both axes
    element_gain_dbi: float = 0.0  # peak of one element
    element_exponent: Annotated[float, Ge(0)] = 0.0  # power pattern max(0, cos)^exponent off boresight; 0: isotropic
    element_pattern: Path | None = None  # file of a measured one instead (``hal.measured.load_pattern``)
    spherical: bool = False  # waves are spherical: needed nearer than the Fraunhofer distance, and slower

    def build(self, carrier_hz: float, origin_m: Float[Array, " 3"], rotation: Float[Array, "3 3"]) -> AntennaArray:
        """The array with its phase centre at ``origin_m`` (world, m) and axes ``rotation`` (array frame -> world frame).

        Raises Misuse for a spacing or carrier that is not positive, and for an element that would radiate more than it is fed:
        the pattern's mean over the sphere is ``gain / (2 (exponent + 1))`` (``gain`` itself for exponent 0) and must not exceed 1.
        """
        columns, rows = int(positive("columns", self.columns)), int(positive("rows", self.rows))
        spacing_m = (
            positive("spacing_wavelengths", self.spacing_wavelengths) * LIGHT_MPS / positive("carrier_hz", carrier_hz)
        )
        _check_element(self.element_gain_dbi, self.element_exponent)
        position_m = np.zeros((columns * rows, 3))
        position_m[:, 1] = np.repeat((np.arange(columns) - (columns - 1) / 2) * spacing_m, rows)
        position_m[:, 2] = np.tile((np.arange(rows) - (rows - 1) / 2) * spacing_m, columns)
        return AntennaArray(
            position_m=position_m,
            columns=columns,
            rows=rows,
            spacing_m=spacing_m,
            rotation=np.array(rotation, dtype=np.float64),
            origin_m=np.array(origin_m, dtype=np.float64),
            element_gain_dbi=self.element_gain_dbi,
            element_exponent=self.element_exponent,
            pattern=_measured(self.element_pattern),
            spherical=self.spherical,
        )


@dataclass(frozen=True)
class Ula:
    """A uniform linear array along the array's y axis: a planar array of one row."""

    elements: Annotated[int, Ge(1), Le(4096)] = 16
    spacing_wavelengths: Annotated[float, Gt(0)] = 0.5  # at the carrier
    element_gain_dbi: float = 0.0  # peak of one element
    element_exponent: Annotated[float, Ge(0)] = 0.0  # power pattern max(0, cos)^exponent off boresight; 0: isotropic
    element_pattern: Path | None = None  # file of a measured one instead (``hal.measured.load_pattern``)
    spherical: bool = False  # waves are spherical: needed nearer than the Fraunhofer distance, and slower

    def build(self, carrier_hz: float, origin_m: Float[Array, " 3"], rotation: Float[Array, "3 3"]) -> AntennaArray:
        """The array with its phase centre at ``origin_m`` (world, m); see ``Upa.build``."""
        line = Upa(self.elements, 1, self.spacing_wavelengths, self.element_gain_dbi, self.element_exponent)
        line = replace(line, element_pattern=self.element_pattern, spherical=self.spherical)
        return line.build(carrier_hz, origin_m, rotation)


def _measured(path: Path | None) -> ElementPattern | None:
    if path is None:
        return None
    from hal.measured import load_pattern  # which knows front ends, which know arrays

    return load_pattern(path)


def _check_element(gain_dbi: float, exponent: float) -> None:
    if not exponent >= 0:
        raise Misuse(f"element_exponent = {exponent!r}: must be >= 0")
    limit_dbi = 10 * np.log10(2 * (exponent + 1)) if exponent > 0 else 0.0
    if not gain_dbi <= limit_dbi + 0.01:
        least = 10 ** (gain_dbi / 10) / 2 - 1
        raise Misuse(
            f"element_gain_dbi = {gain_dbi!r}: an element with element_exponent = {exponent!r} has at most {limit_dbi:.2f} dBi; "
            f"lower the gain, or set element_exponent >= {max(least, 0.0):.2f}"
        )


def rotation_from(yaw_rad: float, downtilt_rad: float = 0.0) -> Float[Array, "3 3"]:
    """The array's axes in the world: boresight turned ``yaw_rad`` from east towards north, then tipped down by ``downtilt_rad``.

    Columns are the array's x (boresight), y (left, always level) and z axes; no roll.
    """
    cy, sy, cd, sd = np.cos(yaw_rad), np.sin(yaw_rad), np.cos(downtilt_rad), np.sin(downtilt_rad)
    return np.array([[cy * cd, -sy, cy * sd], [sy * cd, cy, sy * sd], [-sd, 0.0, cd]])


def direction_from(azimuth_rad: Any, elevation_rad: Any) -> Float[Array, "... 3"]:
    """Unit vectors ``(cos el cos az, cos el sin az, sin el)`` from angles (rad) of one broadcast shape, array frame."""
    azimuth_rad, elevation_rad = np.broadcast_arrays(azimuth_rad, elevation_rad)
    level = np.cos(elevation_rad)
    return np.stack([level * np.cos(azimuth_rad), level * np.sin(azimuth_rad), np.sin(elevation_rad)], axis=-1)


def angles_from(direction: Any) -> tuple[Array, Array]:
    """Azimuth ``atan2(uy, ux)`` and elevation ``asin(uz)`` (rad) of unit vectors ``direction[... 3]``."""
    direction = np.asarray(direction)
    azimuth_rad = np.arctan2(direction[..., 1], direction[..., 0])
    return azimuth_rad, np.arcsin(np.clip(direction[..., 2], -1.0, 1.0))


def angle_jacobian(direction: Any) -> Float[Array, "... 2 2"]:
    """``d(uy, uz) / d(azimuth, elevation)`` at unit vectors ``direction[... 3]``: rows uy, uz; columns azimuth, elevation.

    Carries a bound or a covariance of direction cosines to angles: ``inv(J) C inv(J)^T``. Singular where ``ux`` or ``cos el`` is 0.
    """
    direction = np.asarray(direction)
    ux, uy, uz = direction[..., 0], direction[..., 1], direction[..., 2]
    level = np.hypot(ux, uy)
    sin_az = np.divide(uy, level, out=np.zeros_like(level), where=level > 0)
    zero = np.zeros_like(ux)
    return np.stack([np.stack([ux, -uz * sin_az], axis=-1), np.stack([zero, level], axis=-1)], axis=-2)


def to_array_frame(array: AntennaArray, vector_m: Any) -> Float[Array, "... 3"]:
    """World-frame vectors ``[... 3]`` (differences, velocities; not points) turned into the array's frame."""
    return _turn(np.asarray(vector_m), array.rotation.T)


def to_world_frame(array: AntennaArray, vector: Any) -> Float[Array, "... 3"]:
    """Array-frame vectors or directions ``[... 3]`` turned into the world frame."""
    return _turn(np.asarray(vector), array.rotation)


def _turn(vector: Array, rotation: Array) -> Array:
    # not a matrix product: its rounding would depend on how many vectors are turned together
    return sum(vector[..., i, None] * rotation[:, i] for i in range(3))  # type: ignore[return-value]


def direction_to(array: AntennaArray, point_m: Any) -> tuple[Float[Array, "... 3"], Float[Array, " ..."]]:
    """Array-frame direction (unit vector) and range (m) of world points ``[... 3]`` as seen from the phase centre.

    Raises Misuse for a point at the phase centre or one that is not finite: it has no direction.
    """
    vector_m = to_array_frame(array, np.asarray(point_m) - array.origin_m)
    range_m = np.sqrt(np.sum(vector_m * vector_m, axis=-1))
    if not np.all((range_m > 0) & np.isfinite(range_m)):
        raise Misuse("point_m: must be finite and away from the array's phase centre, else it has no direction")
    return vector_m / range_m[..., None], range_m


def cis(phase_rad: Any) -> Any:
    """``exp(+j phase_rad)`` in the namespace and precision of ``phase_rad``; far faster than a complex ``exp`` in NumPy."""
    xp = _namespace(phase_rad)
    if is_numpy_namespace(xp):
        if phase_rad.dtype == np.float64:
            precise = np.empty(phase_rad.shape, np.complex128)
            if _cis(np.ascontiguousarray(phase_rad).reshape(-1), precise.reshape(-1).view(np.float64)):
                return precise
        out = np.empty(phase_rad.shape, np.result_type(phase_rad.dtype, np.complex64))
        out.real, out.imag = np.cos(phase_rad), np.sin(phase_rad)
        return out
    kind = xp.complex64 if phase_rad.dtype == xp.float32 else xp.complex128
    return xp.astype(xp.cos(phase_rad), kind) + 1j * xp.astype(xp.sin(phase_rad), kind)


_FAR = 1e6  # below it a multiple of the leading 33 bits of pi/2 is exact


@njit(cache=True)
def _cis(phase_rad: Any, out: Any) -> bool:  # pragma: no cover - compiled
    near = 0
    for i in range(phase_rad.size):
        near += abs(phase_rad[i]) < _FAR
    if near < phase_rad.size:
        return False
    # Branch-free, so that it runs in vector lanes: phase = quarter * pi/2 + x, then the Taylor series of sin x and cos x on
    # |x| <= pi/4, whose first term left out is below 1e-17. Real and imaginary parts alternate in ``out``.
    for i in range(phase_rad.size):
        quarter = np.rint(phase_rad[i] * 0.6366197723675814)
        x = (phase_rad[i] - quarter * 1.57079632673412561417e00) - quarter * 6.07710050650619224932e-11
        y = x * x
        s = 1 / 6227020800 - y * (1 / 1307674368000 - y * (1 / 355687428096000))
        s = 1 / 120 - y * (1 / 5040 - y * (1 / 362880 - y * (1 / 39916800 - y * s)))
        s = x - x * y * (1 / 6 - y * s)
        c = 1 / 479001600 - y * (1 / 87178291200 - y * (1 / 20922789888000 - y * (1 / 6402373705728000)))
        c = 1 / 24 - y * (1 / 720 - y * (1 / 40320 - y * (1 / 3628800 - y * c)))
        c = 1 - y * (0.5 - y * c)
        odd = quarter - 2 * np.floor(quarter * 0.5)
        turned = quarter * 0.5 - 2 * np.floor(quarter * 0.25)  # quadrant / 2 in 0, 1/2, 1, 3/2
        re = s if odd > 0.5 else c
        im = c if odd > 0.5 else s
        out[2 * i] = -re if (turned > 0.25) and (turned < 1.25) else re
        out[2 * i + 1] = -im if turned > 0.75 else im
    return True


def _namespace(value: Any) -> Any:
    """``array_namespace`` of one array, without its search for the commonest kind."""
    return array_api_compat.numpy if type(value) is np.ndarray else array_namespace(value)


def like(value: Any, reference: Any) -> Any:
    """``value`` in the namespace, and on the device, of ``reference``; an array that is there already passes unchanged."""
    if type(value) is np.ndarray and type(reference) is np.ndarray:
        return value
    xp = _namespace(reference)
    if is_array_api_obj(value) and _namespace(value) == xp:
        return value
    if is_numpy_namespace(xp):
        return np.asarray(value, dtype=reference.dtype)
    return xp.asarray(np.array(value, dtype=np.float64), dtype=reference.dtype, device=device(reference))


def _wavenumber(direction: Any, frequency_hz: Any) -> Any:
    return 2 * np.pi / LIGHT_MPS * like(frequency_hz, direction)


def steering(array: AntennaArray, direction: Any, frequency_hz: Any) -> Any:
    """Steering vectors ``a_n = exp(+j 2 pi f p_n . u / c)``: a plane wave, unit modulus, phase 0 at the phase centre.

    ``direction[... 3]`` are unit vectors in the array's frame, ``frequency_hz[...]`` (Hz) broadcasts against ``direction[...]``;
    the result is ``[... element]``. Far field only (``fraunhofer_distance_m``), element pattern excluded (``element_amplitude``).
    Differentiable in torch. papers/000 eqs (4)-(5) and papers/001 eq (23) up to the reference element and their norm.
    """
    xp = _namespace(direction)
    if array.columns:
        a_y, a_z = steering_factors(array, direction, frequency_hz)
        return xp.reshape(a_y[..., :, None] * a_z[..., None, :], (*a_y.shape[:-1], array.columns * array.rows))
    k = _wavenumber(direction, frequency_hz)
    position = like(array.position_m, direction)
    path_m = sum(direction[..., i, None] * position[:, i] for i in range(3))
    return cis(k[..., None] * path_m)


def steering_factors(array: AntennaArray, direction: Any, frequency_hz: Any) -> tuple[Any, Any]:
    """The two factors of a planar grid's steering vector, ``a = a_y (x) a_z``: ``[... column]`` and ``[... row]``.

    Arguments as for ``steering``. Raises Misuse for a free-form array, which does not factor.
    """
    _check_grid(array, "steering_factors")
    k = _wavenumber(direction, frequency_hz)
    y_m = like(array.position_m[:: array.rows, 1], direction)
    z_m = like(array.position_m[: array.rows, 2], direction)
    return cis((k * direction[..., 1])[..., None] * y_m), cis((k * direction[..., 2])[..., None] * z_m)


def steering_gradient(array: AntennaArray, direction: Any, frequency_hz: Any) -> tuple[Any, Any]:
    """Derivatives of the steering vector with respect to the direction cosines, ``(da/duy, da/duz)``, each ``[... element]``.

    ``da_n/duy = j 2 pi f / c (p_ny - p_nx uy / ux) a_n``, likewise uz: ``ux = sqrt(1 - uy^2 - uz^2)`` moves with both, which only
    elements off the y-z plane feel (and they make it singular at ``ux = 0``). Arguments as for ``steering``; ``angle_jacobian``
    turns the pair into derivatives with respect to azimuth and elevation.
    """
    xp = _namespace(direction)
    a = steering(array, direction, frequency_hz)
    k = _wavenumber(direction, frequency_hz)[..., None]
    position = like(array.position_m, direction)
    planar = not np.any(array.position_m[:, 0])
    gradient = []
    for i in (1, 2):
        lever_m = position[:, i]
        if not planar:
            lever_m = lever_m - position[:, 0] * (direction[..., i, None] / direction[..., 0, None])
        gradient.append(1j * xp.astype(k * lever_m, a.dtype) * a)
    return gradient[0], gradient[1]


def element_amplitude(array: AntennaArray, direction: Any) -> Any:
    """Amplitude pattern ``sqrt(10^(gain/10) max(0, ux)^exponent)`` of one element towards ``direction[... 3]``: ``[...]``.

    A measured ``array.pattern`` takes its place where there is one. All elements share it; coupling is the network's
    (``hal.network``), polarisation and frequency dependence are left out. Exponent 0 radiates behind as well.
    """
    if array.pattern is not None:
        return pattern_amplitude(array.pattern, direction)
    xp = _namespace(direction)
    ux = direction[..., 0]
    peak = 10 ** (array.element_gain_dbi / 20)
    if array.element_exponent == 0:
        return peak * xp.ones_like(ux)
    ahead = ux > 0
    inside = xp.where(ahead, ux, xp.ones_like(ux))  # keeps the gradient behind the array at 0 instead of nan
    return peak * xp.where(ahead, inside ** (array.element_exponent / 2), xp.zeros_like(ux))


def near_field(array: AntennaArray, point_m: Any, frequency_hz: Any) -> Any:
    """Spherical-wave counterpart of ``steering`` for points ``point_m[... 3]`` (m, array frame): ``[... element]``.

    ``b_n = (r / r_n) exp(-j 2 pi f (r_n - r) / c)``, ``r`` and ``r_n`` the distances from the phase centre and from element n, so that
    ``b -> a`` as r grows and ``|b|`` differs from 1 by the spread of distances. Valid outside the reactive near field of one element;
    the element pattern is excluded. ``frequency_hz[...]`` broadcasts against ``point_m[...]``.
    """
    xp = _namespace(point_m)
    k = _wavenumber(point_m, frequency_hz)[..., None]
    position = like(array.position_m, point_m)
    range_m = xp.sqrt(xp.sum(point_m * point_m, axis=-1))[..., None]
    away = point_m[..., None, :] - position
    from_element_m = xp.sqrt(xp.sum(away * away, axis=-1))
    # r_n - r without the cancellation of two nearly equal distances
    along = sum(point_m[..., i, None] * position[:, i] for i in range(3))
    longer_m = (xp.sum(position * position, axis=-1) - 2 * along) / (from_element_m + range_m)
    wave = cis(-k * longer_m)
    return xp.astype(range_m / from_element_m, wave.dtype) * wave


def fraunhofer_distance_m(array: AntennaArray, frequency_hz: float) -> float:
    """Distance ``2 D^2 f / c`` (m) beyond which a plane wave's phase error over the aperture stays below pi/8.

    D is the largest extent: of the cells for a grid (``columns * spacing`` by ``rows * spacing``), between the outermost elements for a
    free-form array.
    """
    if array.columns:
        wide, tall = (n * array.spacing_m if n > 1 else 0.0 for n in (array.columns, array.rows))
        extent_m = float(np.hypot(wide, tall))
    else:
        gap = array.position_m[:, None] - array.position_m
        extent_m = float(np.sqrt(np.max(np.sum(gap * gap, axis=-1))))
    return 2 * extent_m**2 * positive("frequency_hz", frequency_hz) / LIGHT_MPS


def half_power_beamwidth(array: AntennaArray, frequency_hz: float) -> tuple[float, float]:
    """Full width at half power of the uniformly fed beam in the direction cosines uy and uz, wherever it points.

    Solves ``sin^2(N x) / (N sin x)^2 = 1/2``, ``x = pi d u f / c``, for columns and rows: about ``0.886 c / (f N d)``. An axis whose
    beam never falls to half power gives 2, all of -1..1. Element pattern excluded. Raises Misuse for a free-form array.
    """
    _check_grid(array, "half_power_beamwidth")
    return _half_power(array, float(positive("frequency_hz", frequency_hz)))


@lru_cache(maxsize=16)
def _half_power(array: AntennaArray, frequency_hz: float) -> tuple[float, float]:
    step = np.pi * array.spacing_m * frequency_hz / LIGHT_MPS

    def width(n: int) -> float:
        low, high = 0.0, np.pi / n  # the first null
        if n == 1:
            return 2.0
        for _ in range(60):
            x = (low + high) / 2
            low, high = (x, high) if (np.sin(n * x) / (n * np.sin(x))) ** 2 > 0.5 else (low, x)
        return min(float(2 * low / step), 2.0)

    return width(array.columns), width(array.rows)


def _check_grid(array: AntennaArray, what: str) -> None:
    if not array.columns > 0:
        raise Misuse(
            f"{what}: array.columns = {array.columns}: needs a planar grid (Upa or Ula); use steering for a free-form array"
        )
