"""What lies between two arrays at one instant, as data: one table of paths a link kind."""

from __future__ import annotations

from hal.record import Array, Complex, Float, Int, record

__all__ = ["Paths"]


@record
class Paths:
    """A table of propagation paths; superposition is a list of (Emission, Paths).

    At frequency f and time t after ``t_ns[block]`` a path's field ratio is
    ``gain[block] exp(-j 2 pi (f - carrier_hz) delay_s) exp(+j 2 pi doppler_hz (t - t_ns[block]))``.
    """

    carrier_hz: float
    t_ns: Int[Array, " block"]  # instants from which the rows of ``gain`` hold, ascending
    source: Int[Array, " path"]  # entity the path leaves (SITE for the base station itself)
    sink: Int[Array, " path"]  # entity it reaches
    gain: Complex[Array, "block path"]  # sqrt(power ratio) between unit-gain antennas, carrier phase included; fading is its block axis
    delay_s: Float[Array, " path"]
    doppler_hz: Float[Array, " path"]  # positive when the path shortens
    departure_m: Float[Array, "path 3"]  # source array's frame: from its phase centre to the first interaction point
    arrival_m: Float[Array, "path 3"]  # sink array's frame: from its phase centre to the last interaction point
