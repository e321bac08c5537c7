"""The combiner that holds the steering vector and its derivatives: at the digital bound, if tapers cost nothing."""

from __future__ import annotations

from dataclasses import dataclass

from hal.frontend import HalfSpec
from hal.record import Array, Float
from twin.combining._rows import AHEAD, grid_and_chains, listening
from twin.physics.combiners import closed_form
from twin.precoding.delay_phase import Settings

__all__ = ["ClosedForm"]


@dataclass(frozen=True)
class ClosedForm:
    """Columns ``a, y a, z a`` and, for a fourth chain, ``y z a`` (``twin.physics.combiners.closed_form``), through attenuators.

    In papers/001 noise goes through ``W`` as the signal does, and no combiner is better. In a passive network what a taper takes from the
    signal it does not take from the noise: `twin check` tells what that costs. Three or four chains of a planar array; exactly ambiguous outside the main lobe.
    """

    def settings(
        self, half: HalfSpec, asked: Float[Array, "row chain 3"], centre: Float[Array, "row 3"], carrier_hz: float
    ) -> Settings:
        """Rows for echoes. Raises Misuse for a line array and for other than three or four chains."""
        chains = grid_and_chains(half, 3, 4)
        return listening(half, asked, centre, carrier_hz, closed_form(half.array, AHEAD, carrier_hz, chains))
