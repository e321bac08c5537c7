"""Rician: a line of sight that follows geometry and a ring of scatterers about each user that fades; echoes by the radar equation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import inf, isnan, pi
from typing import Annotated

import numpy as np

from hal.array import LIGHT_MPS, AntennaArray, cis, to_array_frame
from hal.check import Ge, Gt, In, Lt
from hal.errors import Misuse
from hal.frontend import SITE
from hal.medium import Paths
from hal.record import Array, Complex, Float, Int
from twin.physics.absorption import specific_attenuation_db_per_km
from twin.physics.correlation import one_ring_rays, ray_gain
from twin.physics.draws import Draws
from twin.physics.propagation import doppler_hz, free_space_amplitude, gas_amplitude, radar_amplitude
from twin.records import Truth

__all__ = ["Rician"]

STREAM = "channel.rician"


@dataclass(frozen=True)
class Rician:
    """One line of sight and ``rays`` diffuse paths a user; one path an entity for echoes.

    With range r, gas loss gamma (dB/km) and ``g(r) = lambda / (4 pi r) 10^(-gamma r / 20)``:

    - line of sight: ``g(r) exp(-j 2 pi f_c r / c)``, the same in every block: the receiver has removed the mean Doppler
      ``nu = v f_c / c`` since ``truth.t_ns``, and ``doppler_hz`` tells it;
    - ray i over a scatterer on the ring: ``g(r) sqrt(1 / (K R)) exp(j (phi_i + 2 pi (nu_i - nu) (t - truth.t_ns)))``, phi_i and
      nu_i from ``one_ring_rays``. The diffuse part has 1/K of the line of sight's power, comes later by up to twice the
      ring's radius over c, leaves within ``spread`` of the line of sight, and is correlated in time as
      ``exp(-j 2 pi nu t) J0(2 pi f_D t)``, ``f_D = |v| f_c / c``, for a user that moves horizontally;
    - echo: ``lambda sqrt(sigma) / ((4 pi)^1.5 r_t r_r) 10^(-gamma (r_t + r_r) / 20) exp(-j 2 pi f_c (r_t + r_r) / c)`` with both
      ranges at the row's time, so its phase runs physically from row to row; Doppler is the rate of ``-(r_t + r_r) f_c / c``.

    Large scale (ranges, directions, delays, Doppler) is that of ``truth.t_ns``; an echo's range follows its rows at constant
    velocity. Left out: clutter, blockage, ground reflection, echoes by way of scatterers, fluctuation of the cross-section,
    rain, polarisation, and bending of the gas loss over the band (it is that at the carrier). A point is in the far field of
    one element; whether the whole array sees spherical waves is the array's affair.

    Raises:
        Misuse: a parameter is out of range, or a mover stands at an array's phase centre.

    Source: papers/004, eqs 3 to 5, read with a line of sight added and the ring's rays in place of their mean; ITU-R P.676-12.
    """

    k_db: float = 10.0  # power of the line of sight over that of the diffuse part
    spread_rad: Annotated[float, In("deg"), Ge(0), Lt(90)] = pi / 180  # half angle under which the site sees the ring
    rays: Annotated[int, Ge(0)] = 8  # of the diffuse part, a user; 0: line of sight alone
    pressure_pa: Annotated[float, In("hpa"), Gt(0)] = 101325.0  # of dry air
    temperature_k: Annotated[float, In("c")] = 288.15  # of the air
    vapour_density_g_m3: Annotated[float, Ge(0)] = 7.5  # grams of water a cubic metre
    doppler_warning: Annotated[float, Gt(0)] = (
        0.3  # Doppler spread x block duration beyond which a block is not constant
    )

    def __post_init__(self) -> None:
        if isnan(self.k_db) or self.k_db == -inf:
            raise Misuse(f"k_db = {self.k_db!r}: must be a number of decibels")
        if not 0 <= self.spread_rad < pi / 2:
            raise Misuse(f"spread_rad = {self.spread_rad!r}: must lie in [0, pi/2): it is a half angle")
        if not (self.rays >= 0 and int(self.rays) == self.rays):
            raise Misuse(f"rays = {self.rays!r}: must be a whole number >= 0; 0 is line of sight alone")
        if not self.doppler_warning > 0:
            raise Misuse(f"doppler_warning = {self.doppler_warning!r}: must be > 0")

    def down(
        self, truth: Truth, array: AntennaArray, t_ns: Int[Array, " block"], carrier_hz: float, draws: Draws
    ) -> Paths:
        """``array`` to every user: paths user after user, line of sight first, then its rays; ``sink`` is the user."""
        user, gain, delay_s, nu_hz, near_m, far_m = self._links(
            truth, _axes(array), np.asarray(t_ns, np.int64).tobytes(), carrier_hz, draws
        )
        return Paths(
            carrier_hz=carrier_hz,
            t_ns=t_ns,
            source=np.full(len(user), SITE),
            sink=user,
            gain=gain,
            delay_s=delay_s,
            doppler_hz=nu_hz,
            departure_m=near_m,
            arrival_m=far_m,
        )

    def up(
        self, truth: Truth, array: AntennaArray, t_ns: Int[Array, " block"], carrier_hz: float, draws: Draws
    ) -> Paths:
        """Every user to ``array``: the same paths with their ends exchanged; ``source`` is the user."""
        user, gain, delay_s, nu_hz, near_m, far_m = self._links(
            truth, _axes(array), np.asarray(t_ns, np.int64).tobytes(), carrier_hz, draws
        )
        return Paths(
            carrier_hz=carrier_hz,
            t_ns=t_ns,
            source=user,
            sink=np.full(len(user), SITE),
            gain=gain,
            delay_s=delay_s,
            doppler_hz=nu_hz,
            departure_m=far_m,
            arrival_m=near_m,
        )

    def echo(
        self,
        truth: Truth,
        transmit: AntennaArray,
        receive: AntennaArray,
        t_ns: Int[Array, " block"],
        carrier_hz: float,
        draws: Draws,
    ) -> Paths:
        """``transmit`` to every entity and back to ``receive``; ``sink`` is the entity. No chance is involved."""
        t_ns = np.asarray(t_ns)
        elapsed_s = np.append((t_ns - truth.t_ns) * 1e-9, 0.0)[:, None]
        (out_m, out_mps), (back_m, back_mps) = (_range_and_rate(truth, a, elapsed_s) for a in (transmit, receive))
        late_s = (out_m + back_m) / LIGHT_MPS  # at each instant, and the truth's own
        amplitude = self.echo_amplitude(out_m[:-1], back_m[:-1], truth.rcs_m2, carrier_hz)
        return Paths(
            carrier_hz=carrier_hz,
            t_ns=t_ns,
            source=np.full(len(truth.entity), SITE),
            sink=truth.entity,
            gain=amplitude * _carrier_phase(late_s[:-1], carrier_hz),
            delay_s=late_s[-1],
            doppler_hz=doppler_hz(-(out_mps + back_mps), carrier_hz),
            departure_m=to_array_frame(transmit, truth.position_m - transmit.origin_m),
            arrival_m=to_array_frame(receive, truth.position_m - receive.origin_m),
        )

    def restless(
        self, truth: Truth, array: AntennaArray, carrier_hz: float, block_ns: int
    ) -> tuple[Int[Array, " user"], Float[Array, " user"]]:
        """Users whose diffuse part ages within a block, and their Doppler spread x block duration, for the event log.

        The product is that of the fastest ray there can be on the ring against the line of sight, ``(|v_h| + |v|) f_c T / c``
        with v_h the horizontal and v the closing speed: turns within a block. Beyond ``doppler_warning`` one gain a block
        does not describe the diffuse part, 1/(K+1) of the power. Nobody is restless without rays.
        """
        user, velocity_mps = truth.entity[truth.is_user], truth.velocity_mps[truth.is_user]
        _, rate_mps = _range_and_rate(truth, array, np.zeros((1, 1)))
        fastest_mps = np.hypot(velocity_mps[:, 0], velocity_mps[:, 1]) + np.abs(rate_mps[truth.is_user])
        product = doppler_hz(fastest_mps, carrier_hz) * (block_ns * 1e-9)
        over = (product > self.doppler_warning) & (self.rays > 0)
        return user[over], product[over]

    @lru_cache(maxsize=2)  # noqa: B019 - frozen; the way back asks for what the way there was given
    def _links(
        self, truth: Truth, array: AntennaArray, instants: bytes, carrier_hz: float, draws: Draws
    ) -> tuple[Array, Complex[Array, "block path"], Array, Array, Array, Array]:
        """Entity, gain, delay, Doppler, vector at the array (its frame) and at the user (world frame) of every path."""
        t_ns = np.frombuffer(instants, np.int64)
        user, velocity_mps = truth.entity[truth.is_user], truth.velocity_mps[truth.is_user]
        offset_m = truth.position_m[truth.is_user] - array.origin_m
        ranges_m, rate_mps = _range_and_rate(truth, array, np.zeros((1, 1)))
        range_m = ranges_m[0, truth.is_user]
        mean_hz = doppler_hz(-rate_mps[truth.is_user], carrier_hz)
        users, blocks, paths = len(user), len(t_ns), 1 + self.rays
        amplitude = self.sight_amplitude(range_m, carrier_hz)
        gain = np.empty((blocks, users, paths), np.complex128)
        delay_s = np.empty((users, paths))
        near_m, far_m = np.empty((users, paths, 3)), np.empty((users, paths, 3))
        delay_s[:, 0] = range_m / LIGHT_MPS
        gain[:, :, 0] = amplitude * _carrier_phase(delay_s[:, 0], carrier_hz)
        near_m[:, 0], far_m[:, 0] = to_array_frame(array, offset_m), -offset_m
        if self.rays:
            ring = one_ring_rays(
                draws, user, offset_m, velocity_mps, self.spread_rad, self.rays, carrier_hz, stream=STREAM
            )
            fading = ray_gain(ring.doppler_hz - mean_hz[:, None], ring.phase_rad, t_ns - truth.t_ns)
            gain[:, :, 1:] = (amplitude * 10 ** (-self.k_db / 20))[:, None] * fading
            delay_s[:, 1:] = ring.delay_s
            near_m[:, 1:], far_m[:, 1:] = to_array_frame(array, ring.departure_m), ring.arrival_m
        return (
            np.repeat(user, paths),
            gain.reshape(blocks, users * paths),
            delay_s.reshape(-1),
            np.repeat(mean_hz, paths),
            near_m.reshape(-1, 3),
            far_m.reshape(-1, 3),
        )

    def sight_amplitude(self, range_m: Float[Array, ...], carrier_hz: float) -> Float[Array, ...]:
        """Field ratio of the line of sight, ``g(r)``, between unit-gain antennas."""
        gas = gas_amplitude(self._attenuation_db_per_km(carrier_hz), range_m)
        return np.asarray(free_space_amplitude(range_m, carrier_hz) * gas)

    def diffuse_share(self) -> float:
        """Mean power of all rays over that of the line of sight."""
        return float(10 ** (-self.k_db / 10)) if self.rays else 0.0

    def echo_amplitude(
        self, out_m: Float[Array, ...], back_m: Float[Array, ...], rcs_m2: Float[Array, ...], carrier_hz: float
    ) -> Float[Array, ...]:
        """Field ratio of an echo with these ranges out and back (m), between unit-gain antennas."""
        gas = gas_amplitude(self._attenuation_db_per_km(carrier_hz), out_m + back_m)
        return np.asarray(radar_amplitude(np.sqrt(out_m * back_m), carrier_hz, rcs_m2) * gas)

    def _attenuation_db_per_km(self, carrier_hz: float) -> float:
        return _attenuation_db_per_km(carrier_hz, self.pressure_pa, self.temperature_k, self.vapour_density_g_m3)


@lru_cache(maxsize=64)
def _attenuation_db_per_km(
    carrier_hz: float, pressure_pa: float, temperature_k: float, vapour_density_g_m3: float
) -> float:
    return float(specific_attenuation_db_per_km(carrier_hz, pressure_pa, temperature_k, vapour_density_g_m3))


def _axes(array: AntennaArray) -> AntennaArray:
    """One array for all that stand in the same place and look the same way."""
    return _standing(np.asarray(array.origin_m, float).tobytes(), np.asarray(array.rotation, float).tobytes())


@lru_cache(maxsize=64)
def _standing(origin_m: bytes, rotation: bytes) -> AntennaArray:
    axes = np.frombuffer(rotation).reshape(3, 3)
    return AntennaArray(position_m=np.zeros((1, 3)), origin_m=np.frombuffer(origin_m), rotation=axes)


def _range_and_rate(
    truth: Truth, array: AntennaArray, elapsed_s: Float[Array, "block 1"]
) -> tuple[Float[Array, "block entity"], Float[Array, " entity"]]:
    """Ranges of all entities from an array's phase centre at each time, and their rates of change at the truth's own time."""
    offset_m, v = truth.position_m - array.origin_m, truth.velocity_mps
    # Sums of three in a fixed order: the same bits whoever else is in the table.
    x, y, z = (offset_m[:, i] + elapsed_s * v[:, i] for i in range(3))
    now_m = np.sqrt(offset_m[:, 0] ** 2 + offset_m[:, 1] ** 2 + offset_m[:, 2] ** 2)
    if not np.all(now_m > 0):
        entity = int(truth.entity[int(np.argmin(now_m > 0))])
        raise Misuse(f"truth.position_m: entity {entity} stands at the array's phase centre; move it or the site")
    along = offset_m[:, 0] * v[:, 0] + offset_m[:, 1] * v[:, 1] + offset_m[:, 2] * v[:, 2]
    return np.sqrt(x * x + y * y + z * z), along / now_m


def _carrier_phase(delay_s: Float[Array, ...], carrier_hz: float) -> Complex[Array, ...]:
    """``exp(-j 2 pi f_c tau)``, whole turns removed first: they are many and would cost digits."""
    turns = carrier_hz * delay_s
    return np.asarray(cis(-2 * pi * (turns - np.floor(turns))))
