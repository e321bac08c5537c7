"""What a slot of beam memory holds, as the machine last reported it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hal.frontend import Beam, BeamReport, HalfSpec
from hal.network import response
from hal.record import Array, Complex

__all__ = ["held", "in_force"]


def in_force(report: BeamReport) -> Beam:
    """The settings of a report's rows: read back, or as commanded where the machine cannot say."""
    return report.setpoint if report.readback is None else report.readback


@lru_cache(maxsize=16)  # a report is told from another by identity, and never changes
def held(half: HalfSpec, report: BeamReport, slot: int, frequency_hz: float) -> Complex[Array, "element chain"] | None:
    """The response of the row that a slot holds, at one frequency (Hz); None where it holds none."""
    beam = in_force(report)
    row = np.flatnonzero(beam.slot == slot)[-1:]
    if not len(row):
        return None
    settings = beam.delay_s[row], beam.phase_rad[row], beam.amplitude[row]
    found: Array = response(half.network, *settings, np.array([frequency_hz]))[0, 0]
    found.flags.writeable = False  # whoever asks gets this one
    return found
