"""What every planner keeps, whatever its kind."""

from __future__ import annotations

import numpy as np
import pytest

from hal.array import Upa, rotation_from
from hal.frontend import FrontendSpec, HalfSpec
from hal.network import Network
from hal.wire import decode, encode
from twin.planning import Planner
from twin.records import Belief, ChannelEstimate, Detections, Numerology, Plan, Tracks
from twin.registry import names, resolve

CARRIER = 100e9
NONE = np.zeros(0, dtype=np.int64)
NUMEROLOGY = Numerology(
    carrier_hz=CARRIER,
    subframe_ns=5_000_000,
    blocks=35,
    block_ns=140_000,
    subcarrier_hz=CARRIER + 250e6 * (np.arange(4) - 1.5),
    subcarrier_spacing_hz=250e6,
    delay_bins=64,
    doppler_bins=16,
    sample_rate_hz=64e6,
    roll_off=0.2,
    pulse_span=8,
    prefix_ns=1000,
    frame_ns=17_500,
    frames_per_dwell=16,
    pilot_ns=10_000,
    pilot_power_w=0.1,
    user_noise_w=1e-11,
)


@pytest.fixture(params=names("twin.planning"))
def planner(request) -> Planner:
    return resolve("twin.planning", request.param)()  # every shipped kind has defaults for all its fields


def frontend() -> FrontendSpec:
    def half(chains: int) -> HalfSpec:
        array = Upa(16, 16).build(CARRIER, np.array([0.0, 0.0, 10.0]), rotation_from(0.0, 0.14))
        return HalfSpec(array=array, network=Network(chains=chains).build(16, 16), memory_slots=512)

    return FrontendSpec(
        name="contract",
        carrier_hz=CARRIER,
        transmit=half(1),
        receive=half(4),
        transmit_power_w=1.0,
        noise_figure_db=10.0,
        isolation_db=np.inf,
        command_latency_ns=0,
        bus_ns_per_element=0,
        settling_ns=0,
        select_ns=0,
        simulated=True,
    )


def believed(k: int, users: np.ndarray, rng: np.random.Generator) -> Belief:
    """Users with anything from no idea to a bound track, and anonymous tracks; different every subframe."""
    count, tracks = len(users), int(rng.integers(0, 6))
    cosines = rng.uniform(-0.4, 0.4, (count, 2))
    variance = 10 ** rng.uniform(-7, -0.5, count)
    bound = np.full(tracks, -1)
    pairs = min(count, tracks, int(rng.integers(0, 3)))
    bound[:pairs] = rng.permutation(users)[:pairs]
    position = np.column_stack([rng.uniform(20, 90, tracks), rng.uniform(-15, 15, tracks), np.full(tracks, 1.0)])
    return Belief(
        t_ns=k * 5_000_000,
        detections=Detections(
            t_ns=NONE, dwell=NONE, value=np.zeros((0, 4)), covariance=np.zeros((0, 4, 4)), snr_db=np.zeros(0)
        ),
        tracks=Tracks(
            t_ns=k * 5_000_000,
            track=np.arange(tracks) + k // 5,
            state=np.column_stack([position, rng.normal(0, 8, (tracks, 3))]),
            covariance=np.tile(np.eye(6), (tracks, 1, 1)),
            user=bound,
            confirmed=rng.random(tracks) < 0.7,
            hits=np.ones(tracks, dtype=np.int64),
            misses=np.zeros(tracks, dtype=np.int64),
            seen_ns=np.zeros(tracks, dtype=np.int64),
        ),
        channel=ChannelEstimate(
            t_ns=k * 5_000_000,
            user=users,
            direction=np.column_stack([np.sqrt(1 - (cosines**2).sum(axis=1)), cosines]),
            direction_covariance=variance[:, None, None] * np.eye(2),
            gain=1e-5 * (rng.normal(size=(count, 4)) + 1j * rng.normal(size=(count, 4))),
            gain_variance=np.full((count, 4), 1e-12),
            heard=variance < 1e-2,
        ),
        predicted_bps=np.zeros(count),
        swaps=0,
        rebindings=0,
    )


def story(planner: Planner, seed: int) -> list[Plan]:
    """Thirty subframes in which users come and go, one of them with nobody."""
    rng, spec, previous, plans = np.random.default_rng(seed), frontend(), None, []
    for k in range(30):
        users = np.flatnonzero(rng.random(7) < 0.6) if k != 10 else NONE
        previous = planner.plan(k, believed(k, users, rng), users, spec, NUMEROLOGY, previous)
        assert np.array_equal(previous.user, users)
        plans.append(previous)
    return plans


def test_plans_hold_together(planner):
    for k, plan in enumerate(story(planner, 0)):
        users, updates, dwells = len(plan.user), len(plan.update_block), len(plan.dwell_target)
        assert plan.k == k
        assert 0 <= plan.sensing_blocks < NUMEROLOGY.blocks
        assert dwells * 16 * 17_500 <= plan.sensing_ns <= plan.sensing_blocks * NUMEROLOGY.block_ns
        for slot in (plan.dwell_transmit_slot, plan.dwell_receive_slot):
            assert slot.shape == (dwells,)
            assert np.all((slot >= 0) & (slot < 512))
        assert np.all(np.diff(plan.update_block) > 0)
        assert np.all((plan.update_block >= plan.sensing_blocks) & (plan.update_block < NUMEROLOGY.blocks))
        assert plan.pilot_receive_slot.shape == (updates, users)
        assert np.all((plan.pilot_receive_slot >= 0) & (plan.pilot_receive_slot < 512))
        assert plan.slot.shape == (NUMEROLOGY.blocks,)
        assert plan.served.shape == (NUMEROLOGY.blocks, users)
        assert not plan.served[: plan.sensing_blocks].any()
        served = plan.served.any(axis=1)
        assert np.all((plan.slot[served] >= 0) & (plan.slot[served] < 512))


def test_what_is_looked_at_is_believed_in(planner):
    rng, spec, previous = np.random.default_rng(1), frontend(), None
    for k in range(20):
        users = np.arange(3)
        belief = believed(k, users, rng)
        previous = planner.plan(k, belief, users, spec, NUMEROLOGY, previous)
        assert set(previous.dwell_target[previous.dwell_target >= 0]) <= set(belief.tracks.track)


def test_the_same_story_has_the_same_plans_and_crosses_the_wire(planner):
    for one, two in zip(story(planner, 2), story(planner, 2), strict=True):
        assert encode(one) == encode(two)
        assert encode(decode(encode(one), Plan)) == encode(one)


def test_a_plan_that_came_over_the_wire_is_as_good_as_one_that_did_not(planner):
    rng, spec, previous = np.random.default_rng(3), frontend(), None
    for k in range(5):
        belief = believed(k, np.arange(3), rng)
        carried = None if previous is None else decode(encode(previous), Plan)
        direct = planner.plan(k, belief, np.arange(3), spec, NUMEROLOGY, previous)
        assert encode(planner.plan(k, belief, np.arange(3), spec, NUMEROLOGY, carried)) == encode(direct)
        previous = direct
