"""Precoding: believed directions and gains to machine settings. Every other module plays the role."""

from __future__ import annotations

from typing import Protocol

from hal.array import AntennaArray
from hal.frontend import HalfSpec
from hal.record import Array, Complex, Float, record

__all__ = ["Design", "Precoder", "Problem"]


@record
class Problem:
    """What a precoder is asked: rows of beam memory to fill, each for one user and the targets it should also light.

    A row without a user (a search beam) has a zero ``user_gain`` and its direction in ``user_direction`` all the same.
    """

    half: HalfSpec
    frequency_hz: Float[Array, " subcarrier"]
    user_direction: Float[Array, "row 3"]  # array frame
    user_gain: Complex[Array, "row subcarrier"]  # along the steering vector of the direction
    target_direction: Float[Array, "row target 3"]
    target_gain: Complex[
        Array, "row target subcarrier"
    ]  # two-way, between unit-gain antennas; 0 pads rows with fewer targets
    power_w: float
    noise_w: float  # of one subcarrier, at the user
    previous: Design | None = None  # for warm starts: the same rows, as last designed; a row of no power is a new one
    receive: AntennaArray | None = None  # who hears the echoes; None: an array like the transmitting one
    echo_noise_w: float | None = None  # of one subcarrier at one receive element; None: as at the user


@record
class Design:
    """Settings a row, before the machine quantises them, and power over subcarriers."""

    delay_s: Float[Array, "row chain line"]
    phase_rad: Float[Array, "row chain element"]
    amplitude: Float[Array, "row chain element"]
    power_w: Float[Array, "row subcarrier"]  # sums to ``Problem.power_w``
    steps: int = 0  # of search, over all warm starts so far: where the next one goes on
    short_db: Float[Array, " row"] | None = None  # utility below ``direct``'s, decibels of bound; NaN: not compared


class Precoder(Protocol):
    """A precoder: a frozen dataclass of its parameters. It designs from belief, never from truth."""

    def design(self, problem: Problem) -> Design:
        """Settings for every row of the problem."""
