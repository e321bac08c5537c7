from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.array import Upa, rotation_from
from hal.errors import Misuse
from hal.frontend import FrontendSpec, HalfSpec
from hal.network import Network
from twin.planning._rows import places
from twin.planning.fixed import Fixed, raster, squinted
from twin.records import Belief, ChannelEstimate, Detections, Numerology, Tracks

CARRIER = 100e9
WIDTH = 0.886 * 2 / 16  # half-power width of 16 half-wave elements in direction cosines
NONE = np.zeros(0, dtype=int)


def frontend(slots=64, chains=4, turned=0.0, tilt=0.14):
    def half(chains, yaw):
        array = Upa(16, 16).build(CARRIER, np.array([0.0, 0.0, 10.0]), rotation_from(yaw, tilt))
        return HalfSpec(array=array, network=Network(chains=chains).build(16, 16), memory_slots=slots)

    return FrontendSpec(
        name="test",
        carrier_hz=CARRIER,
        transmit=half(1, 0.3 + turned),
        receive=half(chains, 0.3),
        transmit_power_w=1.0,
        noise_figure_db=10.0,
        isolation_db=np.inf,
        command_latency_ns=0,
        bus_ns_per_element=0,
        settling_ns=0,
        select_ns=0,
        simulated=True,
    )


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


def belief(spec, tracks=(), users=(), sharp=True, bound=None, gain=None, t_ns=0):
    """Tracks at (uy, uz) or (uy, uz, vy) 50 m away; users at (uy, uz) as their pilots say."""
    tracks, n = list(tracks), len(tracks)
    state = np.zeros((n, 6))
    for i, (uy, uz, *speed) in enumerate(tracks):
        u = np.array([np.sqrt(1 - uy**2 - uz**2), uy, uz])
        state[i, :3] = spec.receive.array.origin_m + 50 * spec.receive.array.rotation @ u
        state[i, 3:] = spec.receive.array.rotation @ np.array([0, speed[0] if speed else 0, 0])
    count = len(users)
    user = np.array([u for u, _ in users], dtype=int)
    cosines = np.array([c for _, c in users], dtype=float).reshape(-1, 2)
    size = np.ones(count) * 1e-5 if gain is None else np.asarray(gain)
    return Belief(
        t_ns=t_ns,
        detections=Detections(
            t_ns=NONE, dwell=NONE, value=np.zeros((0, 4)), covariance=np.zeros((0, 4, 4)), snr_db=np.zeros(0)
        ),
        tracks=Tracks(
            t_ns=t_ns,
            track=np.arange(n),
            state=state,
            covariance=np.tile(np.eye(6), (n, 1, 1)),
            user=np.full(n, -1) if bound is None else np.asarray(bound),
            confirmed=np.ones(n, dtype=bool),
            hits=np.ones(n, dtype=int),
            misses=np.zeros(n, dtype=int),
            seen_ns=np.zeros(n, dtype=int),
        ),
        channel=ChannelEstimate(
            t_ns=t_ns,
            user=user,
            direction=np.column_stack([np.sqrt(1 - (cosines**2).sum(axis=1)), cosines]),
            direction_covariance=np.tile(np.eye(2) * (1e-6 if sharp else 1 / 3), (count, 1, 1)),
            gain=np.tile(size[:, None].astype(complex), (1, 4)),
            gain_variance=np.zeros((count, 4)),
            heard=np.ones(count, dtype=bool),
        ),
        predicted_bps=np.zeros(count),
        swaps=0,
        rebindings=0,
    )


def run(planner, spec, believed, users, subframes, previous=None, first=0):
    plans = []
    for k in range(first, first + subframes):
        now = believed(k) if callable(believed) else believed
        previous = planner.plan(k, now, np.asarray(users, dtype=int), spec, NUMEROLOGY, previous)
        plans.append(previous)
    return plans


@pytest.mark.parametrize("tilt", [0.0, 0.14, 0.4])
def test_raster_leaves_no_direction_of_the_sector_uncovered(tilt):
    spec, rng = frontend(tilt=tilt), np.random.default_rng(0)
    cells = raster(spec, np.deg2rad(60), np.deg2rad(-32), np.deg2rad(4), 1.0)
    np.testing.assert_allclose(np.linalg.norm(cells, axis=1), 1)
    azimuth, elevation = 0.3 + np.deg2rad(rng.uniform(-60, 60, 4000)), np.deg2rad(rng.uniform(-32, 4, 4000))
    world = np.column_stack(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    )
    u = world @ spec.receive.array.rotation
    gap = np.abs(u[:, None, 1:] - cells[None, :, 1:]).max(axis=2).min(axis=1)
    assert np.quantile(gap, 0.995) <= WIDTH / 2  # but for the rounding of corners and the edge of the visible disc
    assert gap.max() < 0.75 * WIDTH
    area = 2 * np.sin(np.deg2rad(60)) * (np.sin(np.deg2rad(32)) + np.sin(np.deg2rad(4)))
    assert len(cells) < 2 * area / WIDTH**2  # and nothing much beyond it


def test_looks_go_round_and_newcomers_come_first():
    spec, planner = frontend(), Fixed()
    now = belief(spec, tracks=[(0.1 * i, 0.0) for i in range(5)])
    plans = run(planner, spec, now, [], 12)
    seen = np.concatenate([p.dwell_target[p.dwell_target >= 0] for p in plans])
    np.testing.assert_array_equal(seen[:10], [0, 1, 2, 3, 4] * 2)
    # five that were never looked at take both dwells of the second subframe, after a search; then one look a subframe is enough
    assert [int(np.sum(p.dwell_target < 0)) for p in plans[:4]] == [1, 0, 1, 1]
    assert all(np.sum(p.dwell_target < 0) == 1 for p in plans[4:])
    more = belief(spec, tracks=[(0.1 * i, 0.0) for i in range(6)])
    after = run(planner, spec, more, [], 2, previous=plans[-1], first=12)
    oldest = seen[-5]
    assert [int(p.dwell_target[0]) for p in after] == [5, oldest]


def test_every_track_is_seen_in_time_and_search_never_stops():
    spec, planner = frontend(), Fixed(revisit_subframes=8)
    now = belief(spec, tracks=[(0.05 * i, 0.0) for i in range(11)])
    plans = run(planner, spec, now, [], 200)
    last = np.zeros(11)
    for p in plans:
        last[p.dwell_target[p.dwell_target >= 0]] = p.k
        assert p.k < 20 or np.all(p.k - last <= 8)
    searched = [p.k for p in plans if np.any(p.dwell_target < 0)]
    assert np.diff(searched).max() <= 2
    quiet = run(planner, spec, belief(spec), [], 3)
    assert all(np.all(p.dwell_target == -1) and len(p.dwell_target) == 2 for p in quiet)


def searched_cells(planner, spec, plans, believed):
    cells, hit = planner.raster(spec), set()
    for p in plans:
        for slot, target in zip(p.dwell_transmit_slot, p.dwell_target, strict=True):
            if target < 0:
                resident = planner.raster_requests(spec)
                rows = resident if len(resident.transmit_slot) else planner.dwell_requests(p, believed, spec)
                direction = rows.transmit_direction[rows.transmit_slot == slot][0]
                hit.add(int(np.argmin(np.linalg.norm(cells - direction, axis=1))))
    return hit


@pytest.mark.parametrize("slots", [64, 512])
def test_the_search_comes_to_every_cell_whatever_the_memory(slots):
    spec, planner = frontend(slots), Fixed()
    now = belief(spec, tracks=[(0.1, 0.0), (0.2, 0.0)])
    cells = len(planner.raster(spec))
    assert planner.layout(spec).resident == (slots == 512)
    assert len(searched_cells(planner, spec, run(planner, spec, now, [], cells), now)) == cells


@pytest.mark.parametrize("slots", [64, 512])
def test_sweeps_come_to_every_cell_for_the_lost_and_for_the_located(slots):
    spec, planner = frontend(slots), Fixed()
    for sharp, subframes in ((False, 12), (True, 40)):
        now = belief(spec, users=[(3, (0.1, -0.1))], sharp=sharp)
        fixed, hit = planner.raster_requests(spec), []
        for p in run(planner, spec, now, [3], subframes):
            rows = fixed if len(fixed.receive_slot) else planner.dwell_requests(p, now, spec)
            for slot in p.pilot_receive_slot[:, 0]:
                if slot >= planner.layout(spec).sweep:
                    hit.append(rows.receive_direction[np.flatnonzero(rows.receive_slot == slot)[-1]])
        hit = np.concatenate(hit)
        gap = np.linalg.norm(planner.raster(spec)[:, None] - hit[None], axis=2).min(axis=1)
        assert gap.max() < 1e-12
        assert len(hit) == 4 * (4 * 12 if not sharp else 40)


def test_on_demand_sweep_rows_are_not_changed_while_they_may_be_in_use():
    spec, planner = frontend(64), Fixed()
    now = belief(spec, users=[(3, (0.1, -0.1))], sharp=False)
    plans = run(planner, spec, now, [3], 4)
    for current, following in pairwise(plans):
        loaded = planner.beam_requests(following, now, spec).receive_slot
        assert not np.isin(current.pilot_receive_slot, loaded).any()


def test_located_users_have_their_own_row_but_for_the_last_update():
    spec, planner = frontend(512), Fixed()
    now = belief(spec, users=[(3, (0.1, -0.1)), (8, (0.2, -0.1))])
    vague = replace(now.channel, direction_covariance=np.stack([np.eye(2) * 1e-6, np.eye(2)]))
    p = run(planner, spec, replace(now, channel=vague), [3, 8], 1)[0]
    sweep = planner.layout(spec).sweep
    np.testing.assert_array_equal(p.pilot_receive_slot[:, 0] < sweep, [True, True, True, False])
    assert np.all(p.pilot_receive_slot[:, 1] >= sweep)
    np.testing.assert_array_equal(p.update_block, [4, 11, 19, 27])
    assert not p.served[:, 1].any()


def test_turns_are_equal_and_continue_from_subframe_to_subframe():
    spec, planner = frontend(), Fixed()
    now = belief(spec, users=[(3, (0.1, 0)), (5, (0.2, 0)), (9, (0.3, 0))])
    plans = run(planner, spec, now, [3, 5, 9], 6)
    order = np.concatenate([p.user[p.served[4:].argmax(axis=1)] for p in plans])
    np.testing.assert_array_equal(order, np.tile([3, 5, 9], 62))
    for p in plans:
        np.testing.assert_array_equal(p.served.sum(axis=1), [0] * 4 + [1] * 31)
        np.testing.assert_array_equal(p.slot[4:], p.user_slot[p.served[4:].argmax(axis=1)])
        assert np.all(p.slot[:4] == -1)


def test_proportional_fairness_is_fair_in_time_and_rides_the_peaks():
    spec, rng = frontend(), np.random.default_rng(1)
    users = [(3, (0.1, 0)), (5, (0.2, 0))]
    uneven = belief(spec, users=users, gain=[1e-5, 1e-6])
    share = np.mean(
        [p.served[4:].mean(axis=0) for p in run(Fixed(service="proportional_fair"), spec, uneven, [3, 5], 60)[20:]],
        axis=0,
    )
    np.testing.assert_allclose(share, 0.5, atol=0.05)  # the known law for constant rates: equal time, not equal rate
    gains = 3e-6 * np.exp(rng.normal(0, 1.0, (200, 2)))

    def total(service):
        fading = lambda k: belief(spec, users=users, gain=gains[k])  # noqa: E731
        carried = 0.0
        for k, p in enumerate(run(Fixed(service=service), spec, fading, [3, 5], 200)):
            rate = np.log2(1 + gains[k] ** 2 * 256 / 4 / 1e-11)
            carried += (p.served[4:] * rate).sum()
        return carried

    assert total("proportional_fair") > 1.1 * total("round_robin")


def test_slots_of_users_stay_when_others_come_and_go():
    spec, planner = frontend(), Fixed(user_slots=3)
    plans = run(planner, spec, belief(spec), [3, 5, 9], 1)
    assert list(plans[-1].user_slot) == [0, 1, 2]
    plans = run(planner, spec, belief(spec), [3, 9], 1, previous=plans[-1])
    assert list(plans[-1].user_slot) == [0, 2]
    plans = run(planner, spec, belief(spec), [1, 3, 9], 1, previous=plans[-1])
    assert list(plans[-1].user_slot) == [1, 0, 2]
    plans = run(planner, spec, belief(spec), [1, 2, 3, 9], 1, previous=plans[-1])
    assert list(plans[-1].user_slot) == [1, -1, 0, 2]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sets(st.integers(0, 12), max_size=8), min_size=1, max_size=8))
def test_slots_are_never_shared_and_survivors_keep_theirs(attached):
    spec, planner, previous = frontend(), Fixed(user_slots=6), None
    for k, users in enumerate(attached):
        users = np.array(sorted(users), dtype=int)
        p = planner.plan(k, belief(spec, users=[(u, (0.0, 0.0)) for u in users]), users, spec, NUMEROLOGY, previous)
        used = p.user_slot[p.user_slot >= 0]
        assert len(np.unique(used)) == len(used) == min(len(users), 6) or previous is not None
        assert len(np.unique(used)) == len(used)
        if previous is not None:
            for u, s in zip(previous.user, previous.user_slot, strict=True):
                if s >= 0 and u in users:
                    assert p.user_slot[list(users).index(u)] == s
        previous = p


def test_requests_point_where_things_will_be_in_each_halfs_own_frame():
    spec, planner = frontend(turned=0.05), Fixed()
    now = belief(
        spec, tracks=[(0.1, -0.1, 10.0), (-0.2, 0.0)], users=[(3, (0.1, -0.1)), (5, (0.3, -0.2))], bound=[3, -1]
    )
    p = run(planner, spec, now, [3, 5], 1)[0]
    assert list(p.dwell_target) == [0, -1]
    rows = planner.beam_requests(p, now, spec, data_ns=0, dwell_ns=500_000_000)
    at = {int(s): i for i, s in enumerate(rows.transmit_slot)}
    layout = planner.layout(spec)

    def receive_frame(direction):
        return spec.receive.array.rotation.T @ spec.transmit.array.rotation @ direction

    np.testing.assert_allclose(receive_frame(rows.transmit_direction[at[p.user_slot[0]]])[1:], [0.1, -0.1], atol=1e-9)
    np.testing.assert_allclose(receive_frame(rows.transmit_direction[at[p.user_slot[1]]])[1:], [0.3, -0.2], atol=1e-9)
    moved = np.array([np.sqrt(1 - 0.02) * 50, 5 + 5, -5])  # half a second at 10 m/s to the left
    np.testing.assert_allclose(
        receive_frame(rows.transmit_direction[at[layout.dwell]]), moved / np.linalg.norm(moved), atol=1e-9
    )
    assert rows.transmit_track[at[layout.dwell]] == 0
    assert rows.transmit_user[at[p.user_slot[1]]] == 5
    four = rows.receive_direction[np.flatnonzero(rows.receive_slot == p.user_slot[1])[0]]
    corners = {(round((a - 0.3) / WIDTH / 0.3), round((b + 0.2) / WIDTH / 0.3)) for a, b in four[:, 1:]}
    assert corners == {(1, 1), (1, -1), (-1, 1), (-1, -1)}


def test_an_unbound_located_user_is_looked_at_too():
    spec, planner = frontend(), Fixed()
    now = belief(spec, users=[(3, (0.1, -0.1))])
    p = run(planner, spec, now, [3], 1)[0]
    assert list(p.dwell_target) == [-1, -1]
    rows = planner.dwell_requests(p, now, spec)
    np.testing.assert_allclose(
        squinted(spec.receive, CARRIER, now.channel.direction, 0.3)[0], rows.receive_direction[0], atol=1e-12
    )
    assert list(rows.transmit_user[:2]) == [3, -1]


def test_rows_asked_for_are_rows_that_plans_use():
    for slots in (64, 512):
        spec, planner = frontend(slots), Fixed()
        now = belief(spec, tracks=[(0.1, 0.0)], users=[(3, (0.1, -0.1)), (5, (0.3, -0.2))])
        held = {
            "t": set(planner.raster_requests(spec).transmit_slot),
            "r": set(planner.raster_requests(spec).receive_slot),
        }
        for p in run(planner, spec, now, [3, 5], 30):
            rows = planner.beam_requests(p, now, spec)
            assert len(np.unique(rows.transmit_slot)) == len(rows.transmit_slot)
            assert len(np.unique(rows.receive_slot)) == len(rows.receive_slot)
            held["t"] |= set(rows.transmit_slot)
            held["r"] |= set(rows.receive_slot)
            assert set(p.dwell_transmit_slot) | set(p.slot[p.slot >= 0]) <= held["t"]
            assert set(p.dwell_receive_slot) | set(p.pilot_receive_slot.ravel()) <= held["r"]
        assert max(held["t"]) < slots
        assert max(held["r"]) < slots


@given(st.lists(st.integers(-1, 9), max_size=8), st.lists(st.integers(-1, 9), max_size=8))
def test_a_place_is_the_first_row_that_holds_the_number(wanted, held):
    found = places(np.array(wanted, np.int64), np.array(held, np.int64))
    assert found.tolist() == [held.index(w) if w >= 0 and w in held else -1 for w in wanted]


def test_misuse_is_named():
    spec = frontend()
    with pytest.raises(Misuse, match="memory_slots = 20"):
        Fixed().layout(frontend(20))
    with pytest.raises(Misuse, match="sensing_blocks"):
        Fixed(sensing_blocks=33).plan(0, belief(spec), NONE, spec, NUMEROLOGY, None)
    with pytest.raises(Misuse, match="sector"):
        raster(spec, 1.0, 0.2, 0.1, 1.0)
    with pytest.raises(Misuse, match="service"):
        Fixed(service="loudest").plan(0, belief(spec, users=[(3, (0.1, 0))]), np.array([3]), spec, NUMEROLOGY, None)
