"""Beam gains, the wide-band channel and the narrow-band generator against references written out the slow way."""

from itertools import pairwise

import numpy as np
import pytest

from hal.array import AntennaArray, Ula, Upa, direction_from, element_amplitude, near_field, steering
from hal.errors import Misuse
from hal.medium import Paths, beam_gains, block_at, narrowband, wideband

CARRIER_HZ = 100e9
RATE_HZ = 64e6


def complex_normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def some_paths(rng: np.random.Generator, paths: int = 7, blocks: int = 4, **fields: np.ndarray) -> Paths:
    values = {
        "carrier_hz": CARRIER_HZ,
        "t_ns": np.arange(blocks) * 140_000,
        "source": np.full(paths, -1),
        "sink": rng.integers(0, 3, paths),
        "gain": complex_normal(rng, blocks, paths),
        "delay_s": rng.uniform(0, 1e-6, paths),
        "doppler_hz": rng.uniform(-2e4, 2e4, paths),
        "departure_m": 40 * direction_from(rng.uniform(-1, 1, paths), rng.uniform(-0.8, 0.8, paths)),
        "arrival_m": 30 * direction_from(rng.uniform(-1, 1, paths), rng.uniform(-0.8, 0.8, paths)),
    }
    return Paths(**values | fields)


def grid_array() -> AntennaArray:
    return Upa(5, 6, element_gain_dbi=5.0, element_exponent=1.5).build(CARRIER_HZ, np.zeros(3), np.eye(3))


def free_form() -> AntennaArray:
    fields = {name: getattr(grid_array(), name) for name in AntennaArray.__slots__}
    position_m = np.random.default_rng(3).normal(scale=2e-3, size=(9, 3))
    return AntennaArray(**fields | {"position_m": position_m, "columns": 0, "rows": 0, "spacing_m": 0.0})


# ---------------------------------------------------------------- block_at


def test_block_at_finds_the_row_in_force_and_its_age():
    paths = some_paths(np.random.default_rng(0))
    block, offset_s = block_at(paths, np.array([0, 139_999, 140_000, 10**9]))
    np.testing.assert_array_equal(block, [0, 0, 1, 3])
    np.testing.assert_allclose(offset_s, [0, 139_999e-9, 0, (10**9 - 420_000) * 1e-9])
    with pytest.raises(Misuse, match="t_ns = -1: lies before"):
        block_at(paths, np.array([5, -1]))


# ---------------------------------------------------------------- beam_gains


@pytest.mark.parametrize("end", ["departure", "arrival"])
@pytest.mark.parametrize(
    "array",
    [grid_array(), free_form(), Ula(7).build(CARRIER_HZ, np.zeros(3), np.eye(3))],
    ids=["grid", "free form", "line"],
)
@pytest.mark.parametrize("spherical", [False, True])
def test_beam_gains_are_pattern_times_wave_times_response(array, end, spherical):
    rng = np.random.default_rng(1)
    paths, f = some_paths(rng), CARRIER_HZ + np.array([-4e9, 0, 1e9])
    point = (paths.departure_m if end == "departure" else paths.arrival_m) / (100 if spherical else 1)
    paths = some_paths(np.random.default_rng(1), **{f"{end}_m": point})
    w = complex_normal(rng, 3, 3, len(array.position_m), 2)
    direction = point / np.linalg.norm(point, axis=-1, keepdims=True)
    wave = near_field(array, point[:, None], f) if spherical else steering(array, direction[:, None], f)
    want = np.einsum("p,pmn,rmnc->rpmc", element_amplitude(array, direction), wave, w)
    got = beam_gains(paths, array, w, f, end, spherical)
    np.testing.assert_allclose(got, want, atol=1e-11)


def test_pairs_that_are_not_wanted_are_left_out_and_change_no_bit_of_the_others():
    rng = np.random.default_rng(2)
    paths, array, f = some_paths(rng), grid_array(), CARRIER_HZ + np.arange(5) * 1e8
    w = complex_normal(rng, 4, 5, 30, 2)
    wanted = rng.random((4, 7)) < 0.4
    wanted[1] = False
    whole, some = beam_gains(paths, array, w, f), beam_gains(paths, array, w, f, wanted=wanted)
    np.testing.assert_array_equal(some[wanted], whole[wanted])
    assert not some[~wanted].any()
    np.testing.assert_array_equal(beam_gains(paths, array, w[2:3], f), whole[2:3])


def test_a_response_without_frequency_gives_the_same_bits_as_its_copies():
    rng, array = np.random.default_rng(31), grid_array()
    paths, frequency_hz = some_paths(rng), 100e9 + np.linspace(-4e9, 4e9, 5)
    one = complex_normal(rng, 3, 1, len(array.position_m), 2)
    every = np.broadcast_to(one, (3, 5, *one.shape[2:]))
    wanted = rng.random((3, len(paths.delay_s))) < 0.6
    for choice in (None, wanted):
        got = beam_gains(paths, array, every, frequency_hz, "arrival", wanted=choice)
        assert np.array_equal(got, beam_gains(paths, array, every.copy(), frequency_hz, "arrival", wanted=choice))


def test_beam_gains_refuse_what_has_no_direction():
    rng = np.random.default_rng(3)
    w = np.ones((1, 1, 30, 1), complex)
    point = some_paths(rng).arrival_m.copy()
    point[4] = 0
    with pytest.raises(Misuse, match=r"paths.arrival_m\[4\]"):
        beam_gains(some_paths(rng, arrival_m=point), grid_array(), w, CARRIER_HZ, "arrival")
    with pytest.raises(Misuse, match="'departure' or 'arrival'"):
        beam_gains(some_paths(rng), grid_array(), w, CARRIER_HZ, "both")
    with pytest.raises(Misuse, match="response"):
        beam_gains(some_paths(rng), grid_array(), w, CARRIER_HZ + np.arange(2))


# ---------------------------------------------------------------- wideband


def wideband_case(end: str) -> tuple:
    rng = np.random.default_rng(4)
    far = rng.integers(0, 4, 11)
    near = np.full(11, -1)
    paths = some_paths(rng, 11, sink=far if end == "departure" else near, source=near if end == "departure" else far)
    f = CARRIER_HZ + 0.25e9 * (np.arange(6) - 2.5)
    gains = complex_normal(rng, 3, 11, 6, 2)
    events = 40
    row, block, entity = rng.integers(0, 3, events), rng.integers(0, 4, events), rng.integers(0, 5, events)
    return paths, gains, f, row, block, entity, rng.uniform(0, 1e-4, events)


@pytest.mark.parametrize("end", ["departure", "arrival"])
def test_wideband_is_the_sum_over_an_entitys_paths(end):
    paths, gains, f, row, block, entity, offset_s = wideband_case(end)
    got = wideband(paths, gains, f, row, block, entity, end, offset_s)
    want = np.zeros((40, 6, 2), complex)
    for e in range(40):
        for p in range(11):
            if (paths.sink if end == "departure" else paths.source)[p] == entity[e]:
                for m in range(6):
                    field = paths.gain[block[e], p]
                    field *= np.exp(-2j * np.pi * (f[m] - CARRIER_HZ) * paths.delay_s[p])
                    field *= np.exp(2j * np.pi * paths.doppler_hz[p] * offset_s[e])
                    want[e, m] += field * gains[row[e], p, m]
    np.testing.assert_allclose(got, want, atol=1e-10)
    assert not got[entity == 4].any()  # entity 4 has no paths


def test_wideband_does_not_depend_in_any_bit_on_how_events_are_batched():
    paths, gains, f, *index, offset_s = wideband_case("departure")
    whole = wideband(paths, gains, f, *index, offset_s=offset_s)
    for cut in ([0, 1, 40], [0, 13, 14, 33, 40], list(range(41))):
        parts = [wideband(paths, gains, f, *(i[a:b] for i in index), offset_s=offset_s[a:b]) for a, b in pairwise(cut)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    order = np.random.default_rng(0).permutation(40)
    np.testing.assert_array_equal(
        wideband(paths, gains, f, *(i[order] for i in index), offset_s=offset_s[order]), whole[order]
    )


def test_wideband_checks_its_indices():
    paths, gains, f, row, block, entity, _ = wideband_case("departure")
    with pytest.raises(Misuse, match=r"block: holds .* must be 0 \.\. 3"):
        wideband(paths, gains, f, row, block + 1, entity)
    with pytest.raises(Misuse, match="row"):
        wideband(paths, gains, f, row - 1, block, entity)
    assert wideband(paths, gains, f, row[:0], block[:0], entity[:0]).shape == (0, 6, 2)


# ---------------------------------------------------------------- narrowband, against the pulses themselves


def root_cosine_pulse(t: np.ndarray, roll_off: float) -> np.ndarray:
    """Unit-energy square-root raised cosine of symbol time 1 at times ``t`` (any textbook's closed form)."""
    b = roll_off
    t = np.where(np.abs(t) < 1e-9, 1e-9, t)
    t = np.where(np.abs(np.abs(4 * b * t) - 1) < 1e-7, t * (1 + 1e-6), t)
    return (np.sin(np.pi * t * (1 - b)) + 4 * b * t * np.cos(np.pi * t * (1 + b))) / (
        np.pi * t * (1 - (4 * b * t) ** 2)
    )


def pulse_by_pulse(samples, roll_off, delay, doppler, start, span=192, extension=320, over=4):
    """One stream through one path, in units of the sample time: every pulse at its own delay, then Doppler, then correlation with every
    pulse, on a grid finer than the bandwidth needs. ``doppler`` in cycles a sample, referred to ``start`` samples before sample 0."""
    count = len(samples)
    t = np.arange(-span * over, (count + span) * over) / over
    q = np.arange(-extension, count + extension)
    received = root_cosine_pulse(t[:, None] - delay - q, roll_off) @ samples[q % count]
    received = received * np.exp(2j * np.pi * doppler * (t + start))
    out = np.empty(count, complex)
    for i in range(count):
        inside = np.abs(t - i) <= span
        out[i] = np.sum(received[inside] * root_cosine_pulse(t[inside] - i, roll_off)) / over
    return out


def one_path(delay_s: float, doppler_hz: float, gain: complex = 1.0) -> Paths:
    return some_paths(
        np.random.default_rng(0),
        1,
        1,
        gain=np.array([[gain]]),
        delay_s=np.array([delay_s]),
        doppler_hz=np.array([doppler_hz]),
    )


def through(paths: Paths, samples: np.ndarray, roll_off: float, start_s: float = 0.0) -> np.ndarray:
    n = len(paths.delay_s)
    one = np.ones((1, n, 1))
    return narrowband(paths, samples[None, None], RATE_HZ, roll_off, one, one, np.array([0]), np.array([start_s]))[0, 0]


def error_db(got: np.ndarray, want: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(np.abs(got - want) ** 2) / np.sum(np.abs(want) ** 2)))


@pytest.mark.parametrize(
    ("delay", "doppler", "roll_off"),
    [
        (0.0, 0.0, 0.25),
        (10.247, 0.0, 0.25),
        (3.5, 2e-4, 0.25),
        (30.5, -3e-3, 0.25),
        (17.77, 2e-2, 0.25),
        (21.3, 5e-3, 0.6),
    ],
)
def test_narrowband_is_the_physics_of_the_pulses(delay, doppler, roll_off):
    x = complex_normal(np.random.default_rng(8), 64)
    start = 37.0
    got = through(one_path(delay / RATE_HZ, doppler * RATE_HZ), x, roll_off, start / RATE_HZ)
    want = pulse_by_pulse(x, roll_off, delay, doppler, start)
    assert error_db(got, want) < -95

    # what a cheap imitation does: Doppler applied to the Nyquist-filtered samples after (DG) or before (GD) the delay
    f = np.fft.fftfreq(64)
    image = f - np.where(f < 0, -1, 1)

    def weight(f):
        return np.cos(np.clip((np.abs(f) - (1 - roll_off) / 2) * np.pi / (2 * roll_off), 0, np.pi / 2)) ** 2

    def delayed(x):
        h = weight(f) * np.exp(-2j * np.pi * f * delay) + weight(image) * np.exp(-2j * np.pi * image * delay)
        return np.fft.ifft(np.fft.fft(x) * h)

    q = np.arange(64) + start
    dg = delayed(x) * np.exp(2j * np.pi * doppler * q)
    gd = delayed(x * np.exp(2j * np.pi * doppler * q)) * np.exp(2j * np.pi * doppler * delay)
    if abs(doppler) > 1e-3:
        assert error_db(dg, want) > -50
    if doppler and delay:
        assert error_db(gd, want) > -40


def test_a_path_without_delay_or_doppler_changes_nothing():
    for roll_off in (0.0, 0.1, 1.0):
        for count in (63, 64):
            x = complex_normal(np.random.default_rng(1), count)
            np.testing.assert_allclose(through(one_path(0.0, 0.0), x, roll_off), x, atol=3e-6)


def test_a_whole_sample_of_delay_is_a_cyclic_shift_and_doppler_is_a_turning_phase():
    x = complex_normal(np.random.default_rng(2), 64)
    np.testing.assert_allclose(through(one_path(5 / RATE_HZ, 0.0), x, 0.2), np.roll(x, 5), atol=1e-5)
    # approaching: the phase grows; a tone inside the flat band comes out higher by the Doppler shift
    tone = np.exp(2j * np.pi * 3 * np.arange(64) / 64)
    y = through(one_path(0.0, RATE_HZ * 1e-3), tone, 0.2)
    np.testing.assert_allclose(y, tone * np.exp(2j * np.pi * 1e-3 * np.arange(64)), atol=1e-5)
    # and a delay turns it back by exp(-j 2 pi f delay)
    y = through(one_path(2.3 / RATE_HZ, 0.0), tone, 0.2)
    np.testing.assert_allclose(y, tone * np.exp(-2j * np.pi * 3 / 64 * 2.3), atol=1e-5)


def many() -> tuple:
    rng = np.random.default_rng(9)
    paths = some_paths(rng, 13, 3, delay_s=rng.uniform(0, 40, 13) / RATE_HZ)
    samples = complex_normal(rng, 6, 2, 64)
    departure, arrival = complex_normal(rng, 6, 13, 2), complex_normal(rng, 6, 13, 4)
    departure[2, :5] = 0
    arrival[3] = 0
    block, start_s = rng.integers(0, 3, 6), rng.uniform(0, 1e-4, 6)
    return paths, samples, departure, arrival, block, start_s


def test_paths_streams_and_chains_superpose():
    paths, samples, departure, arrival, block, start_s = many()
    got = narrowband(paths, samples, RATE_HZ, 0.1, departure, arrival, block, start_s)
    assert got.shape == (6, 4, 64)
    want = np.zeros((6, 4, 64), complex)
    for e in range(6):
        for p in range(13):
            alone = one_path(paths.delay_s[p], paths.doppler_hz[p], paths.gain[block[e], p])
            wave = through(alone, departure[e, p] @ samples[e], 0.1, start_s[e])
            want[e] += np.outer(arrival[e, p], wave)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())
    assert not got[3].any()


def test_narrowband_does_not_depend_in_any_bit_on_how_events_are_batched():
    paths, *events = many()
    samples, departure, arrival, block, start_s = events
    whole = narrowband(paths, samples, RATE_HZ, 0.1, departure, arrival, block, start_s)
    for e in range(6):
        samples, departure, arrival, block, start_s = (x[e : e + 1] for x in events)
        np.testing.assert_array_equal(
            narrowband(paths, samples, RATE_HZ, 0.1, departure, arrival, block, start_s)[0], whole[e]
        )


def test_doppler_is_coherent_from_frame_to_frame():
    x = complex_normal(np.random.default_rng(3), 64)
    nu, frame_s = 13e3, 17.5e-6
    paths = one_path(7.3 / RATE_HZ, nu)
    one = np.ones((16, 1, 1))
    frames = narrowband(
        paths, np.tile(x, (16, 1, 1)), RATE_HZ, 0.1, one, one, np.zeros(16, int), 1e-6 + np.arange(16) * frame_s
    )[:, 0]
    # what each frame has against the first is the phase the path has turned meanwhile
    phase = np.angle(np.sum(frames * np.conj(frames[0]), axis=1) * np.exp(-2j * np.pi * nu * frame_s * np.arange(16)))
    np.testing.assert_allclose(phase, 0, atol=1e-5)


def test_narrowband_states_its_limits():
    x, one, at = np.ones((1, 1, 16)), np.ones((1, 1, 1)), (np.array([0]), np.array([0.0]))
    with pytest.raises(Misuse, match=r"paths.delay_s\[0\] = 1.5e-06: must not exceed the cyclic prefix, 1e-06 s"):
        narrowband(one_path(1.5e-6, 0.0), x, RATE_HZ, 0.1, one, one, *at, prefix_s=1e-6)
    narrowband(one_path(0.9e-6, 0.0), x, RATE_HZ, 0.1, one, one, *at, prefix_s=1e-6)
    with pytest.raises(Misuse, match="doppler_hz"):
        narrowband(one_path(0.0, 7e6), x, RATE_HZ, 0.1, one, one, *at)
    with pytest.raises(Misuse, match="roll_off = nan"):
        narrowband(one_path(0.0, 0.0), x, RATE_HZ, float("nan"), one, one, *at)
    with pytest.raises(Misuse, match="departure"):
        narrowband(one_path(0.0, 0.0), x, RATE_HZ, 0.1, np.ones((1, 2, 1)), one, *at)
    none = some_paths(np.random.default_rng(0), 0)
    got = narrowband(none, x, RATE_HZ, 0.1, np.ones((1, 0, 1)), np.ones((1, 0, 3)), *at)
    assert got.shape == (1, 3, 16)
    assert not got.any()
