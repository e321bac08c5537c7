from dataclasses import replace

import numpy as np
import pytest

from hal.array import Ula, Upa, rotation_from
from hal.errors import Misuse
from hal.frontend import Beam, BeamReport, FrontendSpec, HalfSpec
from hal.network import Network
from twin.estimation.mmse import Mmse, hear
from twin.records import Numerology, PilotObservation, Plan, Tracks

LIGHT = 299_792_458.0
CARRIER = 100e9
WIDTH = 0.1108  # half-power width of 16 half-wave elements in direction cosines
FREQUENCY = CARRIER + 250e6 * (np.arange(32) - 15.5)
PILOT_W = 0.1
EMPTY = Tracks(
    t_ns=0,
    track=np.zeros(0, dtype=int),
    state=np.zeros((0, 6)),
    covariance=np.zeros((0, 6, 6)),
    user=np.zeros(0, dtype=int),
    confirmed=np.zeros(0, dtype=bool),
    hits=np.zeros(0, dtype=int),
    misses=np.zeros(0, dtype=int),
    seen_ns=np.zeros(0, dtype=int),
)


def frontend(array=None, chains=4, exponent=0.0, gain_dbi=0.0, phase_bits=6):
    array = Upa(16, 16, element_exponent=exponent, element_gain_dbi=gain_dbi) if array is None else array
    origin, rotation = np.array([0.0, 0.0, 10.0]), rotation_from(0.3, 0.2)

    def half(chains, array):
        built = array.build(CARRIER, origin, rotation)
        return HalfSpec(
            array=built,
            network=Network(chains=chains, phase_bits=phase_bits).build(built.columns, built.rows),
            memory_slots=64,
        )

    return FrontendSpec(
        name="test",
        carrier_hz=CARRIER,
        transmit=half(1, Upa(8, 4)),
        receive=half(chains, array),
        transmit_power_w=1.0,
        noise_figure_db=10.0,
        isolation_db=np.inf,
        command_latency_ns=0,
        bus_ns_per_element=0,
        settling_ns=0,
        select_ns=0,
        simulated=True,
    )


def memory(spec, pointing):
    """Rows of receive memory, ``pointing[slot chain 2]``, phases rounded to 6 bits."""
    pointing = np.asarray(pointing, dtype=float)
    k = 2 * np.pi * CARRIER / LIGHT
    phase = -k * (
        pointing[..., :1] * spec.receive.array.position_m[:, 1]
        + pointing[..., 1:] * spec.receive.array.position_m[:, 2]
    )
    phase = np.round(phase / (2 * np.pi / 64)) * (2 * np.pi / 64)
    beam = Beam(
        half="receive",
        slot=np.arange(len(pointing)),
        delay_s=np.zeros((*phase.shape[:2], 0)),
        phase_rad=phase,
        amplitude=np.ones(phase.shape),
    )
    return BeamReport(setpoint=beam, readback=beam, accepted_ns=0, effective_ns=0, clipped=0, uncertainty_ns=0)


def squinted(uy, uz, delta=0.033):
    return [[uy + a * delta, uz + b * delta] for a in (-1, 1) for b in (-1, 1)]


def dense(spec, report, slot, cosines):
    """b[subcarrier chain]: every element's phase written out."""
    u = np.array([np.sqrt(1 - np.sum(np.square(cosines))), *cosines])
    w = np.exp(1j * report.readback.phase_rad[slot]) / np.sqrt(len(spec.receive.array.position_m))
    a = np.exp(2j * np.pi * FREQUENCY[:, None] / LIGHT * (spec.receive.array.position_m @ u))
    return a @ w.T


def covariance(spec, report, slot):
    """Of the chains' noise, that of one element being 1: every element's noise passes through all chains."""
    w = np.exp(1j * report.readback.phase_rad[slot]) / np.sqrt(len(spec.receive.array.position_m))
    return w @ w.conj().T


def strength(spec, report, slot, cosines):
    """``b^H C^-1 b`` a subcarrier: what the best combination of chains makes of a gain of 1 in noise of 1."""
    b = dense(spec, report, slot, cosines)
    return np.einsum("mc,cd,md->m", b.conj(), np.linalg.inv(covariance(spec, report, slot)), b).real


def sent(spec, report, slots, cosines, gain, noise_w, rng, k=0, users=None, plan_users=None, updates=None):
    """Pilots of users at ``cosines[user 2]`` with ``gain[update user subcarrier]`` through ``slots[update user]``."""
    slots = np.asarray(slots)
    updates, count = slots.shape
    users = np.arange(count) if users is None else np.asarray(users)
    plan_users = users if plan_users is None else np.asarray(plan_users)
    chains = report.readback.phase_rad.shape[1]
    y = rng.normal(size=(updates, count, chains, 32)) + 1j * rng.normal(size=(updates, count, chains, 32))
    roots = [np.linalg.cholesky(covariance(spec, report, slot)) for slot in range(len(report.readback.slot))]
    for i in range(updates):
        for u in range(count):
            y[i, u] = np.sqrt(noise_w / 2) * (roots[slots[i, u]] @ y[i, u])
            if slots[i, u] >= 0:
                b = dense(spec, report, slots[i, u], cosines[u])
                y[i, u] += np.sqrt(PILOT_W / 32) * (b * gain[i, u][:, None]).T
    numerology = Numerology(
        carrier_hz=CARRIER,
        subframe_ns=5_000_000,
        blocks=35,
        block_ns=140_000,
        subcarrier_hz=FREQUENCY,
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
        pilot_power_w=PILOT_W,
        user_noise_w=1e-12,
    )
    block = 4 + 7 * np.arange(updates)
    order = np.searchsorted(users, plan_users)
    plan = Plan(
        k=k,
        sensing_blocks=4,
        sensing_ns=560_000,
        dwell_transmit_slot=np.zeros(0, dtype=int),
        dwell_receive_slot=np.zeros(0, dtype=int),
        dwell_target=np.zeros(0, dtype=int),
        update_block=block,
        pilot_receive_slot=slots[:, order],
        slot=np.full(35, -1),
        served=np.zeros((35, len(plan_users)), dtype=bool),
        user=plan_users,
    )
    start = k * 5_000_000
    return PilotObservation(
        k=k,
        t_ns=start,
        spec=spec,
        numerology=numerology,
        plan=plan,
        update_ns=start + 140_000 * block,
        user=users,
        pilot=y,
        noise_w=noise_w,
        transmit_beam=report,
        receive_beam=report,
    )


def line_of_sight(rng, amplitude, updates, users, delay_s=None):
    """One path a user: level the same, delay and phase unknown."""
    delay = rng.uniform(0, 4e-7, users) if delay_s is None else delay_s
    phase = rng.uniform(0, 2 * np.pi, (updates, users))
    ramp = np.exp(-2j * np.pi * (FREQUENCY - CARRIER) * delay[:, None])
    return amplitude * np.exp(1j * phase)[..., None] * ramp


def noise_for(snr_db, amplitude):
    """Noise of one sample that makes a perfectly pointed chain's sample ``snr_db``."""
    return PILOT_W / 32 * amplitude**2 * 256 / 10 ** (snr_db / 10)


def test_silence_is_heard_as_rarely_as_stated():
    spec, rng, heard = frontend(), np.random.default_rng(0), 0
    report = memory(spec, [squinted(0, 0)])
    for _ in range(20):
        pilots = sent(spec, report, np.zeros((4, 50), dtype=int), np.zeros((50, 2)), np.zeros((4, 50, 32)), 1e-13, rng)
        heard += hear(pilots, false_alarm=1e-2).heard.any(axis=0).sum()
    assert 0 < heard < 20  # a bound of 10 among 1000: neither deaf nor trigger-happy


def test_a_pilot_no_stronger_than_the_noise_of_each_sample_is_heard():
    spec, rng = frontend(), np.random.default_rng(1)
    report = memory(spec, [squinted(0.1, -0.1)])
    gain = line_of_sight(rng, 1e-5, 4, 40)
    pilots = sent(
        spec, report, np.zeros((4, 40), dtype=int), np.tile([0.1, -0.1], (40, 1)), gain, noise_for(0.0, 1e-5), rng
    )
    assert hear(pilots).heard.any(axis=0).mean() > 0.95


@pytest.mark.parametrize("snr_db", [5.0, 25.0])
def test_angles_err_as_their_covariance_says(snr_db):
    # normalised error squared, two degrees of freedom each: mean 2; users anywhere in the main lobe, wide band, squint and all
    from scipy.stats import chi2

    spec, rng, users = frontend(), np.random.default_rng(2), 60
    centre = rng.uniform(-0.5, 0.5, (users, 2))
    report = memory(spec, [squinted(*c) for c in centre])
    cosines = centre + rng.uniform(-0.03, 0.03, (users, 2))
    gain = line_of_sight(rng, 1e-5, 4, users)
    pilots = sent(spec, report, np.tile(np.arange(users), (4, 1)), cosines, gain, noise_for(snr_db, 1e-5), rng)
    said = hear(pilots)
    assert said.located.all()
    error = said.cosines - cosines
    squared = np.einsum("ui,uij,uj->u", error, np.linalg.inv(said.covariance), error)
    low, high = chi2.ppf([0.001, 0.999], 2 * users)
    assert low < squared.sum() < high
    # worth having: far below a beamwidth, and better with more signal
    assert np.sqrt(said.covariance[:, 0, 0]).max() < (0.01 if snr_db < 10 else 0.001)


def test_covariance_is_the_fisher_information_of_a_difference_quotient():
    spec, rng = frontend(), np.random.default_rng(3)
    report, at = memory(spec, [squinted(0.2, 0.1)]), np.array([[0.21, 0.09]])
    noise = noise_for(30.0, 1e-5)
    pilots = sent(spec, report, np.zeros((4, 1), dtype=int), at, line_of_sight(rng, 1e-5, 4, 1), noise, rng)
    information = np.zeros((2, 2))
    white = np.linalg.inv(np.linalg.cholesky(covariance(spec, report, 0))).T
    b = dense(spec, report, 0, at[0]) @ white
    d = []
    for step in 1e-5 * np.eye(2):
        ends = dense(spec, report, 0, at[0] + step) - dense(spec, report, 0, at[0] - step)
        d.append(ends @ white / 2e-5)
    for m in range(32):
        free = np.eye(4) - np.outer(b[m], b[m].conj()) / np.vdot(b[m], b[m]).real
        for i in range(2):
            for j in range(2):
                information[i, j] += 4 * 2 / noise * (PILOT_W / 32 * 1e-10) * (d[i][m].conj() @ free @ d[j][m]).real
    np.testing.assert_allclose(hear(pilots).covariance[0], np.linalg.inv(information), rtol=0.05)


def test_squint_is_taken_into_account():
    # far off boresight the band's edges see the beam 4 % elsewhere; a narrow-band reading would be off by that
    spec, rng = frontend(), np.random.default_rng(4)
    report, at = memory(spec, [squinted(0.8, 0.0)]), np.array([[0.79, 0.01]])
    ramp = np.linspace(0.2, 2.0, 32)  # and more signal at one edge, so that the mean frequency is no excuse
    pilots = sent(
        spec, report, np.zeros((4, 1), dtype=int), at, line_of_sight(rng, 1e-5, 4, 1) * ramp, noise_for(30.0, 1e-5), rng
    )
    np.testing.assert_allclose(hear(pilots).cosines, at, atol=1e-3)


def sweep(spec, first=0, count=4):
    """Rows of four raster directions each, one beamwidth apart, through a block of the sector."""
    cells = [[-0.3 + 0.11 * c, -0.3 + 0.11 * r] for r in range(4) for c in range(4)]
    return memory(spec, np.array(cells).reshape(4, 4, 2))


def test_a_sweep_finds_users_to_a_third_of_a_beamwidth_even_strong_ones():
    spec, rng, users = frontend(), np.random.default_rng(5), 40
    report = sweep(spec)
    cosines = rng.uniform(-0.33, 0.06, (users, 2))
    for snr_db in (12.0, 40.0):  # strong ones are above the noise in every side lobe
        gain = line_of_sight(rng, 1e-5, 4, users)
        pilots = sent(
            spec, report, np.tile(np.arange(4)[:, None], (1, users)), cosines, gain, noise_for(snr_db, 1e-5), rng
        )
        said = hear(pilots)
        assert said.located.mean() > 0.9
        error = np.abs(said.cosines - cosines)[said.located]
        assert error.max() < 0.6 * WIDTH
        assert np.sqrt(np.mean(error**2)) < WIDTH / 3
        np.testing.assert_allclose(said.covariance[0], np.eye(2) * (WIDTH / 3) ** 2, rtol=0.02)


def test_fused_angle_follows_a_moving_user_and_is_consistent():
    spec, rng, mmse = frontend(), np.random.default_rng(6), Mmse(angle_floor=0.0)
    belief, errors = mmse.start(), []
    for k in range(40):
        at = np.array([[-0.2 + 0.3 * k * 5e-3, -0.1]])
        report = memory(spec, [squinted(*np.round(at[0], 2))])
        pilots = sent(
            spec,
            report,
            np.zeros((4, 1), dtype=int),
            at,
            line_of_sight(rng, 1e-5, 4, 1),
            noise_for(8.0, 1e-5),
            rng,
            k=k,
        )
        belief = mmse.estimate(pilots, EMPTY, belief)
        error = belief.direction[0, 1:] - at[0]
        errors.append(error @ np.linalg.solve(belief.direction_covariance[0], error))
    assert np.mean(errors[10:]) < 4
    single = hear(pilots).covariance[0, 0, 0]
    assert belief.direction_covariance[0, 0, 0] < 0.5 * single
    np.testing.assert_allclose(belief.pilot_state[0, 2], 0.3, atol=0.15)


def test_a_user_followed_in_a_side_lobe_is_found_again_by_a_sweep():
    spec, rng, mmse = frontend(), np.random.default_rng(16), Mmse()
    at = np.array([[0.1, -0.1]])
    side = [0.1 + 2.86 / 16, -0.1]  # peak of the first side lobe
    report = memory(spec, [squinted(*side), [[0.3, 0.3], [0.1, -0.11], [-0.3, 0.3], [-0.5, 0.1]]])
    belief = mmse.start()
    for k in range(5):
        pilots = sent(
            spec,
            report,
            np.zeros((4, 1), dtype=int),
            at,
            line_of_sight(rng, 1e-5, 4, 1),
            noise_for(30.0, 1e-5),
            rng,
            k=k,
        )
        belief = mmse.estimate(pilots, EMPTY, belief)
    slots = np.array([[0], [0], [0], [1]])
    pilots = sent(spec, report, slots, at, line_of_sight(rng, 1e-5, 4, 1), noise_for(30.0, 1e-5), rng, k=5)
    belief = mmse.estimate(pilots, EMPTY, belief)
    np.testing.assert_allclose(belief.direction[0, 1:], at[0], atol=WIDTH / 3)


def test_a_user_heard_from_outside_its_beams_is_given_up_within_a_few_subframes():
    spec, rng, mmse = frontend(), np.random.default_rng(17), Mmse()
    at, stands = (
        np.array([[0.1, -0.1], [0.1, -0.1]]),
        [0.1, -0.1 + 1.05 * WIDTH],
    )  # a coarse answer one row of cells off
    report = memory(spec, [squinted(*stands), squinted(0.1, -0.1)])
    belief = mmse.start()
    belief = replace(
        belief,
        user=np.arange(2),
        direction=np.zeros((2, 3)),
        gain=np.zeros((2, 32), dtype=complex),
        gain_variance=np.zeros((2, 32)),
        pilot_state=np.array([[*stands, 0, 0], [0.1, -0.1, 0, 0]]),
        pilot_covariance=np.tile(np.diag([0.02**2, 0.02**2, 0.1**2, 0.1**2]), (2, 1, 1)),
        power=np.zeros(2),
    )
    for k in range(6):
        slots = np.tile([0, 1], (4, 1))
        pilots = sent(spec, report, slots, at, line_of_sight(rng, 1e-5, 4, 2), noise_for(15.0, 1e-5), rng, k=k)
        assert list(hear(pilots).astray) == [True, False]
        belief = mmse.estimate(pilots, EMPTY, belief)
    assert belief.direction_covariance[0, 1, 1] > (WIDTH / 2) ** 2
    assert belief.direction_covariance[1, 1, 1] < 0.01**2


def track_of(spec, cosines, user, t_ns, velocity=(0.0, 0.0, 0.0)):
    u = np.array([np.sqrt(1 - np.sum(np.square(cosines))), *cosines])
    position = spec.receive.array.origin_m + 50 * spec.receive.array.rotation @ u
    return replace(
        EMPTY,
        t_ns=t_ns,
        track=np.array([3]),
        state=np.array([[*position, *velocity]]),
        covariance=np.diag([0.04, 0.04, 0.04, 1, 1, 1])[None],
        user=np.array([user]),
        confirmed=np.array([True]),
        hits=np.array([5]),
        misses=np.array([0]),
        seen_ns=np.array([t_ns]),
    )


def test_a_bound_track_gives_the_direction_and_leaves_the_pilots_angle_alone():
    spec, rng, mmse = frontend(), np.random.default_rng(7), Mmse()
    report, at = memory(spec, [squinted(0.1, -0.1)]), np.array([[0.1, -0.1], [0.1, -0.1]])
    pilots = sent(
        spec,
        report,
        np.zeros((4, 2), dtype=int),
        at,
        line_of_sight(rng, 1e-5, 4, 2),
        noise_for(25.0, 1e-5),
        rng,
        users=[4, 9],
    )
    tracks = track_of(spec, [0.12, -0.1], 9, 0, velocity=spec.receive.array.rotation @ [0, 100.0, 0])
    belief = mmse.estimate(pilots, tracks, mmse.start())
    travelled = 100 * pilots.update_ns[-1] * 1e-9 / 50
    np.testing.assert_allclose(belief.direction[0, 1:], [0.1, -0.1], atol=2e-3)
    np.testing.assert_allclose(belief.direction[1, 1:], [0.12 + travelled, -0.1], atol=2e-4)
    np.testing.assert_allclose(belief.direction_covariance[1, 1, 1], 0.04 / 2500, rtol=0.05)
    np.testing.assert_allclose(belief.pilot_state[:, :2], at, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(belief.direction, axis=1), 1)


def test_gain_is_as_good_as_linear_mmse_allows():
    # one known direction, one update, known power: error variance is sigma^2 r / (sigma^2 + r) with r = N / (p |b|^2)
    spec, rng, users = frontend(), np.random.default_rng(8), 300
    report = memory(spec, [squinted(0.1, -0.1)])
    at = np.tile([0.105, -0.095], (users, 1))
    mmse = Mmse(power_memory=0.999)
    noise = noise_for(-3.0, 1e-5)
    g = 1e-5 / np.sqrt(2) * (rng.normal(size=(1, users, 32)) + 1j * rng.normal(size=(1, users, 32)))
    pilots = sent(spec, report, np.zeros((1, users), dtype=int), at, g, noise, rng)
    start = mmse.start()
    known = replace(
        start,
        user=np.arange(users),
        direction=np.zeros((users, 3)),
        gain=np.zeros((users, 32), dtype=complex),
        gain_variance=np.full((users, 32), 1e-10),
        heard=np.ones(users, dtype=bool),
        pilot_state=np.column_stack([at, np.zeros((users, 2))]),
        pilot_covariance=np.broadcast_to(np.eye(4) * 1e-12, (users, 4, 4)),
        power=np.full(users, 1e-10),
    )
    gain, variance = mmse.gains(pilots, EMPTY, known)
    b = dense(spec, report, 0, at[0])
    r = noise / (PILOT_W / 32 * strength(spec, report, 0, at[0]))
    expected = 1e-10 * r / (1e-10 + r)
    np.testing.assert_allclose(variance[0, 0], expected, rtol=0.02)
    error = np.mean(np.abs(gain[0] - g[0]) ** 2, axis=0)
    np.testing.assert_allclose(error.mean(), expected.mean(), rtol=0.05)
    naive = np.mean(
        np.abs(
            np.einsum("mc,ucm->um", b.conj(), pilots.pilot[0]) / np.sum(np.abs(b) ** 2, 1) / np.sqrt(PILOT_W / 32)
            - g[0]
        )
        ** 2
    )
    assert error.mean() < 0.8 * naive


def test_updates_are_combined_across_an_unknown_phase_and_delay():
    spec, rng, users = frontend(), np.random.default_rng(9), 100
    report, at = memory(spec, [squinted(0.1, -0.1)]), np.tile([0.1, -0.1], (users, 1))
    g = line_of_sight(rng, 1e-5, 4, users)  # the phase jumps from update to update
    noise = noise_for(5.0, 1e-5)
    pilots = sent(spec, report, np.zeros((4, users), dtype=int), at, g, noise, rng)
    mmse = Mmse(coherence_s=1.0)
    belief = mmse.estimate(pilots, EMPTY, mmse.start())
    r = noise / (PILOT_W / 32 * strength(spec, report, 0, at[0])).mean()
    error = np.mean(np.abs(belief.gain - g[-1]) ** 2)
    assert error < 0.45 * r  # a quarter is the limit of four looks; phase, delay and direction are paid from it
    np.testing.assert_allclose(belief.power, 1e-10, rtol=0.25)


def test_pilot_m_changes_no_earlier_row():
    spec, rng, mmse = frontend(), np.random.default_rng(10), Mmse()
    report, at = memory(spec, [squinted(0.1, -0.1)]), np.array([[0.1, -0.1]])
    first = sent(
        spec, report, np.zeros((4, 1), dtype=int), at, line_of_sight(rng, 1e-5, 4, 1), noise_for(20.0, 1e-5), rng
    )
    belief = mmse.estimate(first, EMPTY, mmse.start())
    second = sent(
        spec, report, np.zeros((4, 1), dtype=int), at, line_of_sight(rng, 1e-5, 4, 1), noise_for(20.0, 1e-5), rng, k=1
    )
    full, _ = mmse.gains(second, EMPTY, belief)
    for i in range(4):
        spoiled = second.pilot.copy()
        spoiled[i:] = 7.0
        np.testing.assert_array_equal(mmse.gains(replace(second, pilot=spoiled), EMPTY, belief)[0][:i], full[:i])
        short = replace(second, pilot=second.pilot[: i + 1], update_ns=second.update_ns[: i + 1])
        np.testing.assert_array_equal(mmse.gains(short, EMPTY, belief)[0], full[: i + 1])


def test_channel_is_the_reciprocal_one_with_the_transmit_elements():
    spec, rng, mmse = frontend(exponent=2.0, gain_dbi=6.0), np.random.default_rng(11), Mmse()
    report, at = memory(spec, [squinted(0.4, -0.2)]), np.array([[0.4, -0.2]])
    amplitude = 10 ** (6 / 20) * np.sqrt(
        1 - 0.2
    )  # of the receive element: |ux|^(2/2); the transmit element is isotropic
    g = line_of_sight(rng, 1e-5, 1, 1)
    pilots = sent(spec, report, np.zeros((1, 1), dtype=int), at, amplitude * g, noise_for(50.0, 1e-5), rng)
    h = mmse.channel(mmse.estimate(pilots, EMPTY, mmse.start()), pilots)
    u = np.array([np.sqrt(0.8), 0.4, -0.2])
    a = np.exp(2j * np.pi * FREQUENCY[:, None] / LIGHT * (spec.transmit.array.position_m @ u))
    np.testing.assert_allclose(h[0], g[0, 0][:, None] * a, atol=0.02 * 1e-5)


def test_through_a_beam_is_the_channel_times_its_response():
    spec, rng, mmse = frontend(exponent=2.0, gain_dbi=6.0), np.random.default_rng(12), Mmse()
    report, at = memory(spec, [squinted(0.4, -0.2)]), np.array([[0.4, -0.2], [0.41, -0.2]])
    g = line_of_sight(rng, 1e-5, 1, 2)
    pilots = sent(spec, report, np.zeros((1, 2), dtype=int), at, g, noise_for(50.0, 1e-5), rng)
    found, who = mmse.estimate(pilots, EMPTY, mmse.start()), np.array([1, 0])
    shape = 2, len(FREQUENCY), len(spec.transmit.array.position_m), 3
    response = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    whole = np.einsum("kme,kmec->kmc", mmse.channel(found, pilots)[who], response)
    np.testing.assert_allclose(mmse.through(found, pilots, who, response), whole, rtol=1e-9, atol=1e-16)


def test_users_come_and_go_by_identity():
    spec, rng, mmse = frontend(), np.random.default_rng(12), Mmse()
    report = memory(spec, [squinted(0.1, -0.1), squinted(-0.3, 0.2)])
    at = np.array([[0.1, -0.1], [-0.3, 0.2]])
    g = line_of_sight(rng, 1e-5, 4, 2)
    both = sent(spec, report, np.tile([0, 1], (4, 1)), at, g, noise_for(25.0, 1e-5), rng, users=[3, 8])
    belief = mmse.estimate(both, EMPTY, mmse.start())
    one = sent(spec, report, np.ones((4, 1), dtype=int), at[1:], g[:, 1:], noise_for(25.0, 1e-5), rng, k=1, users=[8])
    later = mmse.estimate(one, EMPTY, belief)
    assert list(later.user) == [8]
    np.testing.assert_allclose(later.direction[0, 1:], [-0.3, 0.2], atol=2e-3)
    # a newcomer whom the plan does not know yet has no receive slot: nothing is believed of it
    two = sent(
        spec, report, np.tile([-1, 1], (4, 1)), at, g, noise_for(25.0, 1e-5), rng, k=2, users=[5, 8], plan_users=[8]
    )
    latest = mmse.estimate(two, EMPTY, later)
    assert list(latest.heard) == [False, True]
    np.testing.assert_array_equal(latest.gain[0], 0)
    np.testing.assert_allclose(latest.direction_covariance[0], np.eye(2) / 3)
    np.testing.assert_allclose(latest.direction[1, 1:], [-0.3, 0.2], atol=2e-3)
    none = sent(
        spec, report, np.zeros((4, 0), dtype=int), at[:0], g[:, :0], 1e-13, rng, k=3, users=np.zeros(0, dtype=int)
    )
    assert len(mmse.estimate(none, EMPTY, latest).user) == 0


def test_a_user_who_falls_silent_is_believed_less_and_less():
    spec, rng, mmse = frontend(), np.random.default_rng(13), Mmse()
    report, at = memory(spec, [squinted(0.1, -0.1)]), np.array([[0.1, -0.1]])
    noise, belief = noise_for(20.0, 1e-5), mmse.start()
    size = []
    for k in range(10):
        g = line_of_sight(rng, 1e-5 if k < 3 else 0.0, 4, 1)
        belief = mmse.estimate(sent(spec, report, np.zeros((4, 1), dtype=int), at, g, noise, rng, k=k), EMPTY, belief)
        size.append((belief.heard[0], belief.power[0], belief.direction_covariance[0, 0, 0]))
    assert [s[0] for s in size[:3]] == [True] * 3
    assert not any(s[0] for s in size[3:])
    assert size[-1][1] < 0.1 * size[2][1]
    assert size[-1][2] > size[2][2]


def test_a_line_array_knows_one_cosine():
    spec, rng = frontend(array=Ula(32), chains=4, phase_bits=6), np.random.default_rng(14)
    report = memory(spec, [[[0.2 + d, 0.0] for d in (-0.02, -0.007, 0.007, 0.02)]])
    at = np.array([[0.205, 0.0]])
    pilots = sent(
        spec, report, np.zeros((4, 1), dtype=int), at, line_of_sight(rng, 1e-5, 4, 1), noise_for(25.0, 1e-5), rng
    )
    said = hear(pilots)
    np.testing.assert_allclose(said.cosines, at, atol=2e-3)
    assert said.covariance[0, 1, 1] > 0.1 > 1e-4 > said.covariance[0, 0, 0]


def test_misuse_is_named():
    spec, rng = frontend(), np.random.default_rng(15)
    report = memory(spec, [squinted(0, 0)])
    pilots = sent(spec, report, np.zeros((1, 1), dtype=int), np.zeros((1, 2)), np.zeros((1, 1, 32)), 1e-13, rng)
    with pytest.raises(Misuse, match="pilot"):
        hear(replace(pilots, pilot=np.full(pilots.pilot.shape, np.nan, dtype=complex)))
    with pytest.raises(Misuse, match="noise_w"):
        hear(replace(pilots, noise_w=0.0))
