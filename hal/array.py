"""Geometry, element pattern and steering vectors (pure). The conventions of ``docs/conventions.md`` live here."""

from __future__ import annotations

from hal.record import Array, Float, record

__all__ = ["AntennaArray"]


@record
class AntennaArray:
    """Elements in their own frame (boresight +x) and where that frame stands in the world."""

    position_m: Float[Array, "element 3"]  # about the phase centre, array frame
    columns: int  # planar grid: element n = column * rows + row; 0 for a free-form array
    rows: int
    spacing_m: float  # of the grid; 0 for a free-form array
    rotation: Float[Array, "3 3"]  # array frame -> world frame
    origin_m: Float[Array, "3"]  # phase centre in the world
    element_gain_dbi: float  # peak of one element
    element_exponent: float  # power pattern peak * max(0, ux)^exponent; 0 and 0 dBi: isotropic in the front half space and behind
