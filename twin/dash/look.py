"""What the dashboard shows of waves and beliefs, computed in its own process from what is published: lobes, squint, ellipsoids, C-S correlation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hal.array import angles_from, direction_from, direction_to, element_amplitude, steering, steering_factors
from hal.frontend import Beam, FrontendSpec
from hal.network import response
from hal.record import Array, Complex, Float
from twin.control import one_stream
from twin.patterns import gain_db
from twin.physics.beamspace import beamspace, correlation, delay_ramp, distribution, echo_beamspace
from twin.records import Numerology

__all__ = ["Lobe", "Lobes", "Memory", "axes_of", "cs_correlation", "plan_line", "squint"]

GRID = (37, 29)  # of a lobe, over direction cosines uy and uz, fine about its peak
COARSE = 49  # to find the peak
DEPTH_DB = 30.0  # a lobe is drawn down to so far below its peak
WINDOW_RAD = np.deg2rad(24.0)  # of the gain over angle, to both sides
ANGLES = 97
SAMPLED = 8  # subcarriers that the C-S correlation is taken over


@dataclass(frozen=True)
class Lobe:
    """One beam as a surface: gain over a grid of direction cosines about its peak. Decibels over one element."""

    slot: int
    gain_db: Float[Array, "uy uz"]
    uy: Float[Array, " uy"]
    uz: Float[Array, " uz"]
    peak: Float[Array, " 3"]  # direction of the grid's highest gain, array frame
    commanded: bool  # the machine cannot read back: this is what it was told


class Memory:
    """The transmit beam memory as far as it was published: the last word on each slot, read back where the machine can."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[Beam, bool]] = {}  # slot -> a beam of one row, and whether it is the command only
        self.version: dict[int, int] = {}  # slot -> how often it was set
        self.fault = ""

    def take(self, report: dict[str, Any]) -> None:
        """Take in a beam report as it came over the wire."""
        commanded = report["readback"] is None
        beam = report["setpoint"] if commanded else report["readback"]
        self.fault = str(report["fault"])
        for row, slot in enumerate(beam["slot"].tolist()):
            one = {name: beam[name][row : row + 1] for name in ("slot", "delay_s", "phase_rad", "amplitude")}
            self.rows[slot] = Beam(half="transmit", **one), commanded
            self.version[slot] = self.version.get(slot, 0) + 1


def feed(
    spec: FrontendSpec, beam: Beam, frequency_hz: Float[Array, " subcarrier"]
) -> Complex[Array, "subcarrier element"]:
    """Element signals of a row's one stream at each frequency."""
    made = response(spec.transmit.network, beam.delay_s, beam.phase_rad, beam.amplitude, frequency_hz)[0]
    return np.asarray((made @ one_stream(spec))[..., 0])


class Lobes:
    """The surfaces of a front end's transmit rows at the carrier: a coarse look for the peak, then a grid that is fine about it.

    ``gain = |e(u) a(u)^T x|^2`` as ``twin.patterns.gain_db`` has it. Points beyond the unit circle are no directions and have gain zero.
    """

    def __init__(self, spec: FrontendSpec) -> None:
        self.spec = spec
        self._axis = np.linspace(-0.98, 0.98, COARSE)
        self._coarse = _Cosines(spec, self._axis, self._axis)
        self._warp = [np.sign(x) * np.abs(x) ** 2.2 * 0.9 for x in (np.linspace(-1, 1, n) for n in GRID)]

    def lobe(self, slot: int, beam: Beam, commanded: bool) -> Lobe:
        """One row's surface."""
        field = feed(self.spec, beam, np.array([self.spec.carrier_hz]))[0]
        peak = np.unravel_index(int(np.argmax(self._coarse.gain(field))), (COARSE, COARSE))
        uy, uz = (np.clip(self._axis[p] + step, -1.0, 1.0) for p, step in zip(peak, self._warp, strict=True))
        gain = _Cosines(self.spec, uy, uz).gain(field)
        y, z = np.unravel_index(int(np.argmax(gain)), gain.shape)
        towards = np.array([np.sqrt(max(0.0, 1 - uy[y] ** 2 - uz[z] ** 2)), uy[y], uz[z]])
        return Lobe(slot, 10 * np.log10(np.maximum(gain, 1e-9)), uy, uz, towards, commanded)


class _Cosines:
    """Steering vectors over a grid of direction cosines; a planar array's factor, so that the grid costs little more than its axes."""

    def __init__(self, spec: FrontendSpec, uy: Float[Array, " uy"], uz: Float[Array, " uz"]) -> None:
        array = spec.transmit.array
        beyond = 1 - uy[:, None] ** 2 - uz[None, :] ** 2
        direction = np.empty((len(uy), len(uz), 3))
        direction[..., 0], direction[..., 1], direction[..., 2] = np.sqrt(np.maximum(beyond, 0.0)), uy[:, None], uz
        self.pattern = np.where(beyond > 0, element_amplitude(array, direction), 0.0)
        self.shape = (array.columns, array.rows)
        if array.columns:
            along = np.zeros((max(len(uy), len(uz)), 3))
            along[: len(uy), 1], along[: len(uz), 2] = uy, uz
            a_y, a_z = steering_factors(array, along, spec.carrier_hz)
            self.factors = a_y[: len(uy)], np.ascontiguousarray(a_z[: len(uz)].T)
        else:
            self.whole = steering(array, direction, spec.carrier_hz)

    def gain(self, field: Complex[Array, " element"]) -> Float[Array, "uy uz"]:
        """Power gain of element signals."""
        heard = self.factors[0] @ field.reshape(self.shape) @ self.factors[1] if self.shape[0] else self.whole @ field
        heard = heard * self.pattern
        return np.asarray(heard.real**2 + heard.imag**2)


def squint(spec: FrontendSpec, frame: Numerology, beam: Beam, direction: Float[Array, " 3"]) -> dict[str, Any]:
    """Gain over azimuth and subcarrier, cut at the elevation of ``direction`` (array frame): ``gain_db[angle subcarrier]``, ``angle_deg``."""
    azimuth, elevation = (float(a) for a in angles_from(direction))
    angle = np.linspace(max(azimuth - WINDOW_RAD, -1.5), min(azimuth + WINDOW_RAD, 1.5), ANGLES)
    gain = gain_db(spec, beam, direction_from(angle, np.full(ANGLES, elevation)), frame.subcarrier_hz)
    return {
        "gain_db": gain,
        "angle_deg": np.rad2deg(angle),
        "azimuth_deg": float(np.rad2deg(azimuth)),
        "elevation_deg": float(np.rad2deg(elevation)),
        "towards_db": gain_db(spec, beam, direction[None], frame.subcarrier_hz)[0],
    }


def axes_of(covariance: Float[Array, "track 3 3"], sigmas: float = 3.0) -> Float[Array, "track 3 3"]:
    """What turns a unit sphere into each covariance's ellipsoid of so many sigmas: columns are its half axes."""
    value, vector = np.linalg.eigh(covariance)
    return np.asarray(vector * (sigmas * np.sqrt(np.maximum(value, 0.0)))[:, None, :])


def cs_correlation(
    spec: FrontendSpec,
    frame: Numerology,
    beam: Beam,
    user: tuple[Float[Array, " 3"], Complex[Array, " subcarrier"]],
    targets_m: Float[Array, "target 3"],
) -> float | None:
    """papers/000's C-S correlation (eq 16) of a user's row: how alike the user's and the tracked targets' beamspace patterns are behind its delay lines.

    ``user``: believed direction and gain; ``targets_m``: world positions of tracks that are not the user's, equally strong at every subcarrier
    but for range, which counts squared; a quarter of the subcarriers are looked at. None without a target ahead, for an array that is no grid,
    and for several chains.
    """
    array, network = spec.transmit.array, spec.transmit.network
    if (
        not array.columns
        or not spec.receive.array.columns
        or len(network.wired) != 1
        or not len(targets_m)
        or not np.any(user[1])
    ):
        return None
    away, range_m = direction_to(array, targets_m)
    ahead = away[:, 0] > 0
    if not ahead.any():
        return None
    few = slice(None, None, max(1, len(frame.subcarrier_hz) // SAMPLED))
    frequency_hz = frame.subcarrier_hz[few]
    grid = (2 * array.columns, 2 * array.rows)
    ramp = delay_ramp(network.line, beam.delay_s[0, 0], frequency_hz)
    row = user[1][few, None] * steering(array, user[0][None], frequency_hz)
    size = np.repeat((range_m[ahead].min() / range_m[ahead, None]) ** 2, len(frequency_hz), axis=1)
    echo = echo_beamspace(array, spec.receive.array, away[ahead], size, frequency_hz, ramp, grid)
    return float(correlation(distribution(beamspace(array, row * ramp, grid)), distribution(echo)))


def plan_line(plan: dict[str, Any], user: list[int]) -> list[int]:
    """What each block is for: -2 silent, -1 sensing, else the column of its first user in ``user``."""
    out = []
    for block, (slot, served) in enumerate(zip(plan["slot"].tolist(), plan["served"], strict=True)):
        names = plan["user"][served].tolist()
        column = user.index(names[0]) if slot >= 0 and names and names[0] in user else -2
        out.append(-1 if block < plan["sensing_blocks"] else column)
    return out
