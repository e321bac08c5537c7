"""TTD + phase shifter + RF chain response at a frequency, quantisation, partial and full connection (pure)."""

from __future__ import annotations

from hal.record import Array, Bool, Int, record

__all__ = ["NetworkSpec"]


@record
class NetworkSpec:
    """How chains reach elements: wiring, steps and ranges."""

    wired: Bool[Array, "chain element"]  # which elements each chain feeds
    line: Int[Array, " element"]  # which of a chain's delay lines an element hangs on; all -1 without delay lines
    lines: int  # delay lines a chain; 0: none
    delay_bits: int  # 0: continuous
    delay_range_s: float  # settings are b / 2^bits * range, b = 0 .. 2^bits - 1 (papers/000, eq 2)
    phase_bits: int  # 0: continuous
    amplitude_bits: int  # 0: continuous; settings 0 .. 1
    loss_db: float  # insertion loss of the whole network
