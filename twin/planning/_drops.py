"""The set-up of papers/004, section IV, with users dropped at random: what comparisons and reproductions start from."""

from __future__ import annotations

import numpy as np

from hal.array import LIGHT_MPS, Ula
from hal.errors import Misuse
from twin.physics.aging import ageing
from twin.physics.dual_scale import crb_constant_rad2
from twin.planning._ergodic import Scene, case_of
from twin.planning._search import Case

__all__ = ["paper_drop"]

SYMBOL_S = 1e-6
BLOCK_SYMBOLS = 70
ECHO_SNR = 10**0.626  # of a symbol, our reading: 1.7 blocks then bring the worst user, at 60 degrees, to half a degree


def paper_drop(
    seed: int,
    *,
    crb_max_rad2: float = np.deg2rad(0.5) ** 2,
    users: int = 5,
    elements: int = 8,
    blocks: int = 35,
    azimuth_spread_rad: float = np.deg2rad(1.0),
    echo_snr: float = ECHO_SNR,
    pilot_snr: float = 10.0,
    snr: float = 100.0,
    pilot_symbols: int = 9,
    law: str = "geometric",
    rho_1: float = 0.98,
    speed_mps: float | None = None,
    carrier_hz: float = 5.9e9,
    sector_rad: float = np.pi / 3,
    reference: str = "element",
    own_term: bool = True,
    guard: str = "clip",
    offset: int = 0,
    demodulation_symbols: int = 0,
) -> tuple[Scene, Case]:
    """A scene and a case of the paper's section IV; what it prints is the default, what it leaves open is a reading.

    Args:
        seed: of the users' angles, uniform within ``sector_rad`` of broadside.
        crb_max_rad2: the requirement, a variance.
        users: K.
        elements: L_t = L_r, half a wavelength apart.
        blocks: N, of 70 symbols of 1 us.
        azimuth_spread_rad: one-sided.
        echo_snr: of one symbol over the whole array: ``G L_r L_t |alpha|^2 / sigma_r^2``; a ratio. Not printed.
        pilot_snr: beta gamma_e; a ratio. Not printed.
        snr: p beta / sigma_c^2 of a user's downlink; a ratio. Not printed: above 20 dB interference is all that counts.
        pilot_symbols: M_m.
        law: of ageing.
        rho_1: of "geometric", where no speed is given.
        speed_mps: of all users; None: the speed whose Doppler gives 0.98 for "jakes" and "one_ring".
        carrier_hz: turns speed into Doppler. Not printed.
        sector_rad: half angle of the sector.
        reference: of the phase in f'.
        own_term: the i = k term of eq 22.
        guard: of R-hat.
        offset: lag of the block that holds the update.
        demodulation_symbols: the users' own pilot in each block; the paper has none.

    Raises:
        Misuse: a field out of range.
    """
    if not users >= 1:
        raise Misuse(f"users = {users!r}: must be at least 1")
    azimuth = np.random.default_rng(seed).uniform(-sector_rad, sector_rad, users)
    scene = Scene(
        position_m=Ula(elements).build(carrier_hz, np.zeros(3), np.eye(3)).position_m,
        frequency_hz=carrier_hz,
        azimuth_rad=azimuth,
        azimuth_spread_rad=azimuth_spread_rad,
    )
    doppler = np.full(users, 645.0 if speed_mps is None else speed_mps * carrier_hz / LIGHT_MPS)
    first = np.full(users, rho_1) if law == "geometric" and speed_mps is None else None
    block_s = BLOCK_SYMBOLS * SYMBOL_S
    case = case_of(
        scene,
        reference=reference,
        gain=np.ones(users),
        power_w=np.ones(users),
        noise_w=1 / snr,
        pilot_snr=np.full(users, pilot_snr),
        crb_s_rad2=crb_constant_rad2(echo_snr, elements, azimuth) * SYMBOL_S,
        crb_max_rad2=crb_max_rad2,
        rho=ageing(law, blocks, block_s, doppler, rho_1=first, offset=offset),
        blocks=blocks,
        block_s=block_s,
        pilot_s=pilot_symbols * SYMBOL_S,
        own_term=own_term,
        guard=guard,
        demodulation_s=demodulation_symbols * SYMBOL_S,
    )
    return scene, case
