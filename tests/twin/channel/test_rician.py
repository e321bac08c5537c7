from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import cos, inf, pi, radians, sqrt

import numpy as np
import pytest
from scipy.special import j0

from hal.array import AntennaArray, Upa, rotation_from
from hal.errors import Misuse
from hal.frontend import SITE
from hal.medium import Paths
from twin.channel import doppler_block_product
from twin.channel.rician import Rician
from twin.physics.draws import Draws
from twin.records import Truth

C = 299_792_458
CARRIER = 100e9
BLOCK_NS = 140_000
BLOCKS = 5_000_000_000 + BLOCK_NS * np.arange(35)
# Specific attenuation at 100 GHz, 1013.25 hPa dry air, 15 C, 7.5 g/m3: itur 0.4.0,
# itu676.gammaw_exact(100, 1013.25, 7.5, 288.15) + itu676.gamma0_exact(100, 1013.25, 7.5, 288.15), its P.676-12.
GAS_DB_PER_KM = 0.45805896


def site(yaw_deg: float = 0.0, origin: tuple[float, float, float] = (0.0, 0.0, 10.0)) -> AntennaArray:
    return Upa(columns=4, rows=4).build(CARRIER, np.array(origin), rotation_from(radians(yaw_deg), radians(5.0)))


def truth(
    position: object, velocity: object, entity: object = None, is_user: object = None, rcs_m2: object = None
) -> Truth:
    p, v = np.atleast_2d(np.array(position, float)), np.atleast_2d(np.array(velocity, float))
    n = len(p)
    return Truth(
        t_ns=int(BLOCKS[0]),
        entity=np.arange(7, 7 + n) if entity is None else np.array(entity),
        is_user=np.ones(n, bool) if is_user is None else np.array(is_user),
        position_m=p,
        velocity_mps=v,
        rcs_m2=np.full(n, 10.0) if rcs_m2 is None else np.array(rcs_m2, float),
    )


def street(n: int = 6, seed: int = 1) -> Truth:
    rng = np.random.default_rng(seed)
    p = np.stack([rng.uniform(15, 100, n), rng.uniform(-50, 50, n), np.full(n, 1.5)], axis=1)
    v = np.stack([rng.uniform(-14, 14, n), rng.uniform(-14, 14, n), np.zeros(n)], axis=1)
    return truth(p, v, is_user=rng.uniform(size=n) < 0.7, rcs_m2=rng.uniform(0.5, 20, n))


def bits(paths: Paths, columns: object = slice(None)) -> list[bytes]:
    names = ("source", "sink", "delay_s", "doppler_hz", "departure_m", "arrival_m")
    return [paths.gain[:, columns].tobytes(), *(getattr(paths, name)[columns].tobytes() for name in names)]  # type: ignore[index]


def exact_phase(length_m: int) -> complex:
    """exp(-j 2 pi f L / c) with the turns counted in whole numbers."""
    part = float(Fraction(int(CARRIER) * length_m, C) % 1)
    return complex(np.exp(-2j * pi * part))


def test_line_of_sight_is_friis_gas_and_path_length() -> None:
    # 3-4-5: 30, 40 and level, so 50 m
    paths = Rician(rays=0).down(truth((30, 40, 10), (0, 0, 0)), site(), BLOCKS, CARRIER, Draws(0))
    loss_db = 20 * np.log10(4 * pi * 50 * CARRIER / C) + GAS_DB_PER_KM * 0.050
    np.testing.assert_allclose(-20 * np.log10(np.abs(paths.gain)), loss_db, rtol=0, atol=1e-7)
    np.testing.assert_allclose(paths.gain / np.abs(paths.gain), exact_phase(50), rtol=0, atol=1e-7)
    np.testing.assert_allclose(paths.delay_s, 50 / C, rtol=1e-15)
    assert paths.source.tolist() == [SITE]
    assert paths.sink.tolist() == [7]
    assert paths.gain.shape == (35, 1)


def test_gas_follows_the_weather() -> None:
    far = truth((3000, 0, 10), (0, 0, 0))

    def loss_db(**fields: float) -> float:
        gain = Rician(rays=0, **fields).down(far, site(), BLOCKS[:1], CARRIER, Draws(0)).gain  # type: ignore[arg-type]
        return float(-20 * np.log10(np.abs(gain[0, 0])))

    free_db = 20 * np.log10(4 * pi * 3000 * CARRIER / C)
    assert abs(loss_db() - free_db - 3 * GAS_DB_PER_KM) < 1e-5
    assert 0.005 < loss_db(vapour_density_g_m3=0.0) - free_db < 0.25 < loss_db(vapour_density_g_m3=15.0) - loss_db()
    assert loss_db(pressure_pa=80000.0) < loss_db()
    assert loss_db(temperature_k=303.15) != loss_db()


def test_echo_is_the_radar_equation() -> None:
    # transmit phase centre 50 m away, receive phase centre 40 m away
    transmit, receive = site(), site(origin=(30.0, 0.0, 10.0))
    where = truth([(30, 40, 10)], (0, 0, 0), rcs_m2=[4.0], is_user=[False])
    paths = Rician().echo(where, transmit, receive, BLOCKS[:2], CARRIER, Draws(0))
    wavelength = C / CARRIER
    power = wavelength**2 * 4.0 / ((4 * pi) ** 3 * 50**2 * 40**2) * 10 ** (-GAS_DB_PER_KM * 0.090 / 10)
    np.testing.assert_allclose(np.abs(paths.gain) ** 2, power, rtol=1e-8)
    np.testing.assert_allclose(paths.gain / np.abs(paths.gain), exact_phase(90), rtol=0, atol=1e-7)
    np.testing.assert_allclose(paths.delay_s, 90 / C, rtol=1e-15)
    np.testing.assert_allclose(np.linalg.norm(paths.departure_m[0]), 50, rtol=1e-15)
    np.testing.assert_allclose(np.linalg.norm(paths.arrival_m[0]), 40, rtol=1e-15)
    assert (paths.source.tolist(), paths.sink.tolist()) == ([SITE], [7])


def test_every_entity_reflects_and_only_users_are_served() -> None:
    where = street(9)
    channel, array = Rician(rays=3), site()
    assert channel.echo(where, array, array, BLOCKS[:1], CARRIER, Draws(0)).sink.tolist() == where.entity.tolist()
    down = channel.down(where, array, BLOCKS, CARRIER, Draws(0))
    assert 0 < where.is_user.sum() < 9
    assert down.sink.tolist() == np.repeat(where.entity[where.is_user], 4).tolist()


@pytest.mark.parametrize("velocity", [(14.0, -3.0, 0.5), (-9.0, 12.0, 0.0), (0.0, 0.0, 0.0)])
def test_doppler_is_the_rate_of_change_of_path_length(velocity: tuple[float, float, float]) -> None:
    transmit, receive = site(), site(20.0, (0.0, 0.4, 9.5))
    position, h = np.array([40.0, -25.0, 1.5]), 1e-3
    channel = Rician()

    def length_m(t_s: float, *origins: np.ndarray) -> float:
        return sum(float(np.linalg.norm(position + t_s * np.array(velocity) - origin)) for origin in origins)

    for paths, origins in (
        (channel.down(truth(position, velocity), transmit, BLOCKS, CARRIER, Draws(0)), (transmit.origin_m,)),
        (channel.up(truth(position, velocity), receive, BLOCKS, CARRIER, Draws(0)), (receive.origin_m,)),
        (
            channel.echo(truth(position, velocity), transmit, receive, BLOCKS, CARRIER, Draws(0)),
            (transmit.origin_m, receive.origin_m),
        ),
    ):
        want = -(length_m(h, *origins) - length_m(-h, *origins)) / (2 * h) * CARRIER / C
        np.testing.assert_allclose(paths.doppler_hz, want, rtol=1e-6, atol=1e-3)


def test_doppler_is_positive_on_approach() -> None:
    paths = Rician().echo(truth((50, 0, 10), (-10, 0, 0)), site(), site(), BLOCKS[:1], CARRIER, Draws(0))
    np.testing.assert_allclose(paths.doppler_hz, 2 * 10 * CARRIER / C, rtol=1e-12)


def test_the_phase_of_an_echo_runs_on_from_row_to_row() -> None:
    where, array = truth((40, 10, 1.5), (-13, 5, 0)), site()
    # rows before and after the truth's own instant, a microsecond apart
    rows = where.t_ns + 1000 * np.arange(-500, 500)
    paths = Rician().echo(where, array, array, rows, CARRIER, Draws(0))
    turned = np.unwrap(np.angle(paths.gain[:, 0])) / (2 * pi)
    elapsed = (rows - where.t_ns) * 1e-9
    # Over a millisecond Doppler itself drifts by v^2 / r f / c; a quadratic takes it up, its slope at 0 is the Doppler.
    slope = np.polynomial.Polynomial.fit(elapsed, turned, 2).convert().coef[1]
    assert abs(slope - paths.doppler_hz[0]) < 1e-3
    # Each row stands for itself: the same mover asked for at that row's own instant.
    for row in (0, 999):
        then = replace(
            where,
            t_ns=int(rows[row]),
            position_m=where.position_m + elapsed[row] * where.velocity_mps,
        )
        alone = Rician().echo(then, array, array, rows[row : row + 1], CARRIER, Draws(0))
        np.testing.assert_allclose(alone.gain[0], paths.gain[row], rtol=1e-7)


@pytest.mark.parametrize("k_db", [-3.0, 0.0, 10.0, 20.0])
@pytest.mark.parametrize("rays", [1, 8])
def test_the_diffuse_part_has_its_share_of_the_power_in_every_block(k_db: float, rays: int) -> None:
    where = street()
    paths = Rician(k_db=k_db, rays=rays).down(where, site(), BLOCKS, CARRIER, Draws(2))
    power = (np.abs(paths.gain) ** 2).reshape(35, -1, 1 + rays)
    np.testing.assert_allclose(10 * np.log10(power[..., 0] / power[..., 1:].sum(-1)), k_db, atol=1e-10)


def test_the_line_of_sight_does_not_fade() -> None:
    paths = Rician(rays=4).down(street(), site(), BLOCKS, CARRIER, Draws(2))
    sight = paths.gain.reshape(35, -1, 5)[:, :, 0]
    assert np.all(sight == sight[0])
    fade = paths.gain.reshape(35, -1, 5)[:, :, 1:]
    assert np.all(np.abs(np.diff(np.angle(fade), axis=0)).max(axis=0) > 1e-3)


def test_the_diffuse_part_ages_as_jakes_about_the_mean() -> None:
    users = 6000
    position, velocity = (40.0, 20.0, 1.5), np.array((0.8, -1.7, 0.0))
    where = truth(np.tile(position, (users, 1)), np.tile(velocity, (users, 1)), entity=np.arange(100, 100 + users))
    paths = Rician(k_db=0.0, rays=5).down(where, site(), BLOCKS, CARRIER, Draws(4))
    gain = paths.gain.reshape(35, users, 6)
    fade = gain[:, :, 1:].sum(-1) / np.abs(gain[0, 0, 0])
    lag_s = (BLOCKS - BLOCKS[0]) * 1e-9
    measured = np.mean(fade * np.conj(fade[0]), axis=1)
    largest_hz = np.linalg.norm(velocity) * CARRIER / C
    mean_hz = paths.doppler_hz[0]
    want = j0(2 * pi * largest_hz * lag_s) * np.exp(-2j * pi * mean_hz * lag_s)
    assert largest_hz * lag_s[-1] > 2.5  # well past the first zero, so a constant or an exponential would not do
    assert np.max(np.abs(measured - want)) < 5 / sqrt(users)
    # Five equal rays of independent phases: E|h|^4 = (2 - 1/5) (E|h|^2)^2; the mean vanishes.
    assert abs(np.mean(np.abs(fade[0]) ** 4) - 1.8) < 0.1
    assert abs(np.mean(fade[0])) < 5 / sqrt(users)


def test_rays_run_on_from_one_truth_to_the_next() -> None:
    array, channel = site(), Rician(rays=6)
    now = truth((50, -20, 1.5), (9, 11, 0))
    later_ns = 5_000_000
    later = replace(now, t_ns=now.t_ns + later_ns, position_m=now.position_m + 5e-3 * now.velocity_mps)
    rows = np.array([now.t_ns, later.t_ns])
    before = channel.down(now, array, rows, CARRIER, Draws(0))
    after = channel.down(later, array, rows[1:], CARRIER, Draws(0))
    # What the receiver took off as mean Doppler since the truth before is put back.
    carried = before.gain[1, 1:] * np.exp(2j * pi * before.doppler_hz[1:] * 5e-3)
    turn = np.angle(after.gain[0, 1:] * np.conj(carried))
    assert np.max(np.abs(turn)) < 1e-6
    assert np.max(np.abs(np.angle(after.gain[0, 1:] * np.conj(before.gain[0, 1:])))) > 0.1


def test_vectors_point_along_the_paths_in_the_frame_of_each_end() -> None:
    array, where = site(yaw_deg=35.0), street()
    channel = Rician(rays=12, spread_rad=radians(3.0))
    paths = channel.down(where, array, BLOCKS[:1], CARRIER, Draws(1))
    user = where.position_m[where.is_user]
    near = (paths.departure_m @ array.rotation.T).reshape(-1, 13, 3) + array.origin_m
    far = paths.arrival_m.reshape(-1, 13, 3) + user[:, None]
    np.testing.assert_allclose(near[:, 0], user, atol=1e-9)
    np.testing.assert_allclose(far[:, 0], np.tile(array.origin_m, (len(user), 1)), atol=1e-9)
    # A ray's first and last point of interaction are the same scatterer.
    np.testing.assert_allclose(near[:, 1:], far[:, 1:], atol=1e-9)
    offset = user - array.origin_m
    away = near - array.origin_m
    azimuth = np.arctan2(away[..., 1], away[..., 0]) - np.arctan2(offset[:, 1], offset[:, 0])[:, None]
    assert np.all(np.abs(azimuth) <= radians(3.0) + 1e-12)
    assert np.degrees(np.abs(azimuth)).max() > 2.0
    level = np.hypot(offset[:, 0], offset[:, 1])
    np.testing.assert_allclose(
        np.linalg.norm(far[:, 1:] - user[:, None], axis=-1), np.tile(np.sin(radians(3.0)) * level[:, None], 12)
    )
    length = np.linalg.norm(away, axis=-1) + np.concatenate(
        [np.zeros((len(user), 1)), np.linalg.norm(near[:, 1:] - user[:, None], axis=-1)], axis=1
    )
    np.testing.assert_allclose(paths.delay_s.reshape(-1, 13), length / C, rtol=1e-12)
    assert np.all(paths.delay_s.reshape(-1, 13)[:, 1:] >= paths.delay_s.reshape(-1, 13)[:, :1])


def test_reciprocity() -> None:
    where, array, channel = street(), site(12.0), Rician()
    down = channel.down(where, array, BLOCKS, CARRIER, Draws(3))
    up = channel.up(where, array, BLOCKS, CARRIER, Draws(3))
    assert down.gain.tobytes() == up.gain.tobytes()
    for ours, theirs in (("source", "sink"), ("departure_m", "arrival_m")):
        np.testing.assert_array_equal(getattr(down, ours), getattr(up, theirs))
        np.testing.assert_array_equal(getattr(down, theirs), getattr(up, ours))
    np.testing.assert_array_equal(down.delay_s, up.delay_s)
    np.testing.assert_array_equal(down.doppler_hz, up.doppler_hz)


def test_what_is_kept_for_the_way_back_is_of_this_truth_this_place_and_these_instants() -> None:
    channel, draws = Rician(), Draws(3)
    asked = [(street(), site(), BLOCKS), (street(), site(12.0), BLOCKS), (street(), site(), BLOCKS[:5])]
    asked += [(asked[0][0], site(origin=(0.0, 0.5, 10.0)), BLOCKS), (asked[0][0], site(), BLOCKS + 7)]
    for where, array, t_ns in [*asked, *asked[::-1]]:
        kept = bits(channel.down(where, array, t_ns, CARRIER, draws))
        again = replace(where)  # the same truth, another record: nothing is kept of it
        assert bits(channel.down(again, array, t_ns, CARRIER, draws)) == kept
        assert bits(replace(channel, rays=3).down(where, array, t_ns, CARRIER, draws)) != kept


def test_splitting_the_block_axis_changes_no_bit() -> None:
    where, array, channel = street(), site(), Rician()
    for ask in (
        lambda t: channel.down(where, array, t, CARRIER, Draws(3)),
        lambda t: channel.up(where, array, t, CARRIER, Draws(3)),
        lambda t: channel.echo(where, array, site(origin=(0.0, 0.5, 10.0)), t, CARRIER, Draws(3)),
    ):
        whole = ask(BLOCKS)
        for cuts in ([1], [17, 18], list(range(1, 35))):
            parts = [ask(t) for t in np.split(BLOCKS, cuts)]
            assert np.concatenate([part.gain for part in parts]).tobytes() == whole.gain.tobytes()
            assert all(bits(part)[1:] == bits(whole)[1:] for part in parts)


def test_another_user_leaves_the_others_untouched() -> None:
    array, channel, one = site(), Rician(), street(3, seed=5)
    one = replace(one, is_user=np.ones(3, bool))
    more = street(8, seed=6)
    order = np.argsort(entity := np.concatenate([one.entity, [1, 2, 3, 40, 41, 42, 43, 44]]))
    many = replace(
        one,
        entity=entity[order],
        is_user=np.concatenate([one.is_user, more.is_user])[order],
        position_m=np.concatenate([one.position_m, more.position_m])[order],
        velocity_mps=np.concatenate([one.velocity_mps, more.velocity_mps])[order],
        rcs_m2=np.concatenate([one.rcs_m2, more.rcs_m2])[order],
    )
    for alone, among in (
        (channel.down(one, array, BLOCKS, CARRIER, Draws(3)), channel.down(many, array, BLOCKS, CARRIER, Draws(3))),
        (
            channel.echo(one, array, array, BLOCKS, CARRIER, Draws(3)),
            channel.echo(many, array, array, BLOCKS, CARRIER, Draws(3)),
        ),
    ):
        assert bits(alone) == bits(among, np.isin(among.sink, one.entity))
    alone, among = (channel.up(w, array, BLOCKS, CARRIER, Draws(3)) for w in (one, many))
    assert bits(alone) == bits(among, np.isin(among.source, one.entity))
    other = channel.down(one, array, BLOCKS, CARRIER, Draws(4))
    assert bits(other)[0] != bits(channel.down(one, array, BLOCKS, CARRIER, Draws(3)))[0]


def test_nobody_there() -> None:
    where, array = street(4), site()
    for empty in (
        replace(where, is_user=np.zeros(4, bool)),
        truth(np.empty((0, 3)), np.empty((0, 3)), rcs_m2=np.empty(0)),
    ):
        paths = Rician().down(empty, array, BLOCKS, CARRIER, Draws(0))
        assert paths.gain.shape == (35, 0)
        assert paths.departure_m.shape == (0, 3)
        assert Rician().restless(empty, array, CARRIER, BLOCK_NS)[0].size == 0
        assert doppler_block_product(paths, BLOCK_NS) == 0.0
    assert Rician().echo(empty, array, array, BLOCKS, CARRIER, Draws(0)).gain.shape == (35, 0)
    bare = Rician(k_db=inf).down(where, array, BLOCKS, CARRIER, Draws(0))
    assert not np.any(bare.gain.reshape(35, -1, 9)[:, :, 1:])


def test_who_fades_within_a_block_is_told() -> None:
    # 14 m/s across the line of sight at 100 GHz: 14 / 3 mm * 140 us = 0.65 turns; 3 m/s: 0.14
    array = site(origin=(0.0, 0.0, 1.5))
    where = truth([(50, 0, 1.5), (60, 0, 1.5), (70, 0, 1.5)], [(0, 14, 0), (0, 3, 0), (14, 0, 0)])
    user, product = Rician().restless(where, array, CARRIER, BLOCK_NS)
    assert user.tolist() == [7, 9]
    turns = 14 * CARRIER / C * 140e-6
    np.testing.assert_allclose(product, [turns, 2 * turns], rtol=1e-12)
    assert Rician(rays=0).restless(where, array, CARRIER, BLOCK_NS)[0].size == 0
    assert Rician(doppler_warning=0.1).restless(where, array, CARRIER, BLOCK_NS)[0].tolist() == [7, 8, 9]


def test_the_product_read_off_the_paths_stays_below_that_of_the_fastest_ray() -> None:
    array, channel = site(), Rician(rays=64)
    for speed in (0.5, 1.5, 3.0):
        where = truth((40, 20, 1.5), (speed * cos(0.3), -speed * sqrt(1 - cos(0.3) ** 2), 0))
        read = doppler_block_product(channel.down(where, array, BLOCKS, CARRIER, Draws(0)), BLOCK_NS)
        (_, most) = replace(channel, doppler_warning=1e-9).restless(where, array, CARRIER, BLOCK_NS)
        assert 0.95 * most[0] < read <= most[0]
    fast = truth((40, 20, 1.5), (14, 0, 0))
    assert 0.3 < doppler_block_product(channel.down(fast, array, BLOCKS, CARRIER, Draws(0)), BLOCK_NS) <= 0.5
    assert doppler_block_product(channel.down(fast, array, BLOCKS[:1], CARRIER, Draws(0)), BLOCK_NS) == 0.0


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"k_db": np.nan}, "k_db = nan"),
        ({"spread_rad": 2.0}, "spread_rad = 2.0"),
        ({"spread_rad": np.nan}, "spread_rad = nan"),
        ({"rays": -1}, "rays = -1"),
        ({"doppler_warning": 0.0}, "doppler_warning = 0.0"),
    ],
)
def test_refuses(fields: dict[str, float], says: str) -> None:
    with pytest.raises(Misuse, match=says):
        Rician(**fields)  # type: ignore[arg-type]


def test_refuses_a_mover_at_the_phase_centre() -> None:
    where = truth([(20, 0, 1.5), (0, 0, 10)], (0, 0, 0), is_user=[True, False])
    with pytest.raises(Misuse, match="entity 8 stands at the array's phase centre"):
        Rician().echo(where, site(), site(), BLOCKS, CARRIER, Draws(0))
