"""Random instances of the dual-scale problem, and the naive search that the compiled one replaces."""

import numpy as np

from hal.array import Ula
from twin.physics.aging import ageing
from twin.planning.dual_scale import Case, Scene, case_of

CARRIER, BLOCK_S, PILOT_S = 5.9e9, 70e-6, 9e-6


def instance(
    rng,
    users=5,
    elements=8,
    blocks=35,
    spread_deg=1.0,
    std_deg=0.5,
    shortest_blocks=2.3,
    pilot_snr_db=10.0,
    law="geometric",
    noise_w=1e-2,
    offset=0,
    reference="element",
    drift_radps=0.0,
    **rest,
) -> tuple[Scene, Case]:
    """Five users within 60 degrees; the worst one's angle needs ``shortest_blocks`` of sensing to be as good as ``std_deg``."""
    azimuth = rng.uniform(-np.pi / 3, np.pi / 3, users)
    scene = Scene(
        position_m=Ula(elements).build(CARRIER, np.zeros(3), np.eye(3)).position_m,
        frequency_hz=CARRIER,
        azimuth_rad=azimuth,
        azimuth_spread_rad=np.deg2rad(spread_deg),
        drift_radps=drift_radps,
    )
    limit = np.deg2rad(std_deg) ** 2
    constant = 1 / np.cos(azimuth) ** 2
    case = case_of(
        scene,
        reference=reference,
        gain=np.ones(users),
        power_w=np.ones(users),
        noise_w=noise_w,
        pilot_snr=np.full(users, 10 ** (pilot_snr_db / 10)),
        crb_s_rad2=constant / constant.max() * limit * shortest_blocks * BLOCK_S,
        crb_max_rad2=limit,
        rho=ageing(law, blocks, BLOCK_S, np.full(users, 645.0), rho_1=np.full(users, 0.98), offset=offset),
        blocks=blocks,
        block_s=BLOCK_S,
        pilot_s=PILOT_S,
        **rest,
    )
    return scene, case
