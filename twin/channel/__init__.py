"""Channel: from the truth to paths. Every other module of this folder plays the role."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from hal.array import AntennaArray
from hal.medium import Paths
from hal.record import Array, Float, Int
from twin.physics.draws import Draws
from twin.records import Truth

__all__ = ["Channel", "LinkBudget", "doppler_block_product"]


class Channel(Protocol):
    """A propagation model: a frozen dataclass of its parameters. Large scale from ``truth``, small scale on the axis of ``t_ns``."""

    def down(
        self, truth: Truth, array: AntennaArray, t_ns: Int[Array, " block"], carrier_hz: float, draws: Draws
    ) -> Paths:
        """Base station's ``array`` to every user of ``truth``; ``sink`` holds entity numbers, ``source`` is SITE."""

    def up(
        self, truth: Truth, array: AntennaArray, t_ns: Int[Array, " block"], carrier_hz: float, draws: Draws
    ) -> Paths:
        """Every user to ``array``; reciprocal to ``down`` when both halves share one phase centre."""

    def echo(
        self,
        truth: Truth,
        transmit: AntennaArray,
        receive: AntennaArray,
        t_ns: Int[Array, " block"],
        carrier_hz: float,
        draws: Draws,
    ) -> Paths:
        """``transmit`` to every entity (users reflect too) and back to ``receive``; ``source`` is SITE, ``sink`` the reflecting entity."""

    def restless(
        self, truth: Truth, array: AntennaArray, carrier_hz: float, block_ns: int
    ) -> tuple[Int[Array, " user"], Float[Array, " user"]]:
        """Users whose small scale changes within a block, so that one gain a block does not describe it, and Doppler spread x block of each."""


class LinkBudget(Protocol):
    """What the fidelity ``system`` asks of a propagation model instead of paths: elementwise, any shape."""

    def sight_amplitude(self, range_m: Float[Array, ...], carrier_hz: float) -> Float[Array, ...]:
        """Field ratio of the line of sight between unit-gain antennas."""

    def diffuse_share(self) -> float:
        """Mean power of everything else over that of the line of sight."""

    def echo_amplitude(
        self, out_m: Float[Array, ...], back_m: Float[Array, ...], rcs_m2: Float[Array, ...], carrier_hz: float
    ) -> Float[Array, ...]:
        """Field ratio of an echo with these ranges out and back."""


def doppler_block_product(paths: Paths, block_ns: int) -> float:
    """How far the gain of any path turns within a block beyond its ``doppler_hz``, in turns: Doppler spread x block duration.

    Read off the rows of ``gain``, which know a turn only up to whole ones: for rows a block apart the result never exceeds 0.5, and a
    value near it says half a turn or more. Above 0.3 one gain a block does not describe the channel. 0 with fewer than two rows or no paths.
    """
    if len(paths.t_ns) < 2 or not paths.gain.size:
        return 0.0
    turn = np.abs(np.angle(paths.gain[1:] * np.conj(paths.gain[:-1]))) / (2 * np.pi)
    return float(np.max(turn * (block_ns / np.diff(paths.t_ns))[:, None]))
