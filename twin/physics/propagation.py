"""What a path does to a wave: spreading, reflection, gas, Doppler, thermal noise, and what a waveform can tell apart.

Every function here is elementwise on numbers or arrays of any library; arguments broadcast. Ranges, frequencies, durations
and bandwidths are above zero, which the edges (scenario, ``twin check``) see to.
"""

from __future__ import annotations

from math import pi
from typing import Any

from hal.array import LIGHT_MPS
from hal.chain import thermal_noise_w

__all__ = [
    "doppler_hz",
    "echo_doppler_hz",
    "free_space_amplitude",
    "gas_amplitude",
    "longest_echo_range_m",
    "radar_amplitude",
    "range_cell_m",
    "thermal_noise_w",
    "unambiguous_range_m",
    "unambiguous_velocity_mps",
    "velocity_cell_mps",
]

Numbers = Any  # float, or an array of any library


def free_space_amplitude(range_m: Numbers, frequency_hz: Numbers) -> Numbers:
    """Field ratio between two unit-gain antennas in free space, ``lambda / (4 pi r)``; its square is a ratio of powers.

    Holds in the far field of both antennas; the phase is left to the caller.

    Source: Friis, Proc. IRE 34 (1946) 254, with gains of one.
    """
    return LIGHT_MPS / (4 * pi * frequency_hz * range_m)


def radar_amplitude(range_m: Numbers, frequency_hz: Numbers, rcs_m2: Numbers) -> Numbers:
    """Field ratio from a unit-gain antenna to a reflector and back, ``sqrt(lambda^2 sigma / ((4 pi)^3 r^4))``.

    Holds for a point reflector of radar cross-section sigma (m2) in the far field, both antennas at one range r (m).

    Source: the radar equation, Skolnik, Introduction to Radar Systems, 3rd ed., (1.7), with gains of one.
    """
    wavelength_m = LIGHT_MPS / frequency_hz
    return wavelength_m * rcs_m2**0.5 / ((4 * pi) ** 1.5 * range_m**2)


def gas_amplitude(attenuation_db_per_km: Numbers, length_m: Numbers) -> Numbers:
    """Field ratio left after ``length_m`` of gas, ``10^(-gamma L / 20)`` with gamma the power loss in dB/km.

    An echo travels twice its range.
    """
    return 10.0 ** (attenuation_db_per_km * length_m * (-1e-3 / 20.0))


def doppler_hz(velocity_mps: Numbers, frequency_hz: Numbers) -> Numbers:
    """Doppler shift of a one-way path, ``v f / c``, v the closing speed: positive when the path shortens (v << c)."""
    return velocity_mps * frequency_hz / LIGHT_MPS


def echo_doppler_hz(velocity_mps: Numbers, frequency_hz: Numbers) -> Numbers:
    """Doppler shift of an echo, ``2 v f / c``, v the reflector's closing speed: positive when the range shrinks."""
    return 2.0 * velocity_mps * frequency_hz / LIGHT_MPS


def range_cell_m(bandwidth_hz: Numbers) -> Numbers:
    """Least difference of range that gives two peaks, ``c / (2 B)``."""
    return LIGHT_MPS / (2.0 * bandwidth_hz)


def velocity_cell_mps(dwell_s: Numbers, frequency_hz: Numbers) -> Numbers:
    """Least difference of closing speed that gives two peaks, ``lambda / (2 T)``, T from first to last frame of a dwell."""
    return LIGHT_MPS / (2.0 * frequency_hz * dwell_s)


def unambiguous_velocity_mps(frame_s: Numbers, frequency_hz: Numbers) -> Numbers:
    """Closing speeds in ``[-v, v)`` are told apart by the phase from frame to frame alone, ``v = lambda / (4 T_frame)``."""
    return LIGHT_MPS / (4.0 * frequency_hz * frame_s)


def unambiguous_range_m(period_s: Numbers) -> Numbers:
    """Range at which the echo of a cyclic waveform of this period falls on its start again, ``c T / 2``."""
    return LIGHT_MPS * period_s / 2.0


def longest_echo_range_m(prefix_s: Numbers, pulse_s: Numbers = 0.0) -> Numbers:
    """Farthest range whose echo the cyclic prefix still covers, ``c (T_prefix - T_pulse) / 2``.

    ``pulse_s`` is the length of the prefix that the pulse's own tails use up (both ends' filters together); a negative
    result says that the prefix does not even cover those. Echoes from beyond it disturb the next symbols; they are not gone.
    """
    return LIGHT_MPS * (prefix_s - pulse_s) / 2.0
