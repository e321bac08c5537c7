"""The simulated machine against dense formulas written here, and against its own promise to treat each event by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import CARRIER_HZ, SPEC, beam, noise

from hal.chain import thermal_noise_w
from hal.devices.sim import Sim, SimFrontend
from hal.errors import Misuse
from hal.frontend import SITE, Beam, Drive, Emission, Listen
from hal.medium import Paths
from hal.memory import KEPT_NS, BeamMemory, Fault
from hal.wire import encode

C = 299_792_458.0
RATE_HZ = 64e6
GRID_HZ = CARRIER_HZ + 250e6 * (np.arange(8) - 3.5)
LONG_AGO = -1_000_000_000


def silent(label: str, t_ns: Any, shape: tuple[int, ...]) -> Any:
    return np.zeros((len(t_ns), *shape), complex)


def opened(hears: Any = silent, loaded: bool = True, spec: Any = SPEC, **fields: Any) -> SimFrontend:
    frontend = Sim(**fields).open(spec, hears)
    if loaded:
        frontend.set_beam(beam("transmit", [0, 1, 2, 3]), LONG_AGO)
        frontend.set_beam(beam("receive", [0, 1, 2]), LONG_AGO)
    return frontend


def frame(t_ns: Sequence[int], slot: Sequence[int], seed: int = 0, power_w: float = 1.0, samples: int = 64) -> Drive:
    rng = np.random.default_rng(seed)
    qpsk = np.exp(0.5j * np.pi * (rng.integers(0, 4, (len(t_ns), 1, samples)) + 0.5))
    return Drive(
        t_ns=np.array(t_ns, dtype=np.int64),
        slot=np.array(slot, dtype=np.int64),
        frequency_hz=np.array([CARRIER_HZ]),
        power_w=np.full((len(t_ns), 1), power_w),
        digital=np.ones((len(t_ns), 1, 1), complex),
        samples=qpsk,
        sample_rate_hz=RATE_HZ,
        roll_off=0.2,
    )


def wide(t_ns: Sequence[int], slot: Sequence[int]) -> Drive:
    rng = np.random.default_rng(5)
    return Drive(
        t_ns=np.array(t_ns, dtype=np.int64),
        slot=np.array(slot, dtype=np.int64),
        frequency_hz=GRID_HZ,
        power_w=rng.uniform(0.01, 0.1, (len(t_ns), len(GRID_HZ))),
        digital=np.ones((len(t_ns), 1, 1), complex),
    )


def pilots(t_ns: Sequence[int], user: Sequence[int]) -> Emission:
    drive = wide(t_ns, [0] * len(t_ns))
    rng = np.random.default_rng(6)
    alone = rng.normal(size=(1, len(GRID_HZ), 1, 1)) + 1j * rng.normal(size=(1, len(GRID_HZ), 1, 1))
    return Emission(source=np.array(user), drive=drive, row=np.zeros(len(t_ns), np.int64), response=alone)


def listen(t_ns: Sequence[int], slot: Sequence[int], bandwidth_hz: float = RATE_HZ) -> Listen:
    return Listen(t_ns=np.array(t_ns, dtype=np.int64), slot=np.array(slot, dtype=np.int64), bandwidth_hz=bandwidth_hz)


def paths(count: int = 4, source: int | Sequence[int] = SITE, seed: int = 1, gain: float = 1e-6, **more: Any) -> Paths:
    rng = np.random.default_rng(seed)
    point = np.stack([rng.uniform(20, 80, count), rng.uniform(-30, 30, count), rng.uniform(-10, 10, count)], axis=1)
    made = {
        "carrier_hz": CARRIER_HZ,
        "t_ns": np.array([0, 300_000]),
        "source": np.broadcast_to(np.asarray(source), count).copy(),
        "sink": np.arange(count),
        "gain": gain * (rng.normal(size=(2, count)) + 1j * rng.normal(size=(2, count))),
        "delay_s": rng.uniform(1e-7, 6e-7, count),
        "doppler_hz": rng.uniform(-1e4, 1e4, count),
        "departure_m": point,
        "arrival_m": point,
    }
    return Paths(**(made | more))


def dense_response(half: str, one: Beam, k: int, frequency_hz: float) -> Any:
    """Quantised and evaluated element by element, from the conventions' own formula."""
    network = getattr(SPEC, half).network
    chains, elements = network.wired.shape
    out = np.zeros((elements, chains), complex)
    for c in range(chains):
        for n in range(elements):
            delay = 0.0
            if network.lines:
                step = network.delay_range_s / 2**network.delay_bits
                b = min(max(round(one.delay_s[k, c, network.line[n]] / step), 0), 2**network.delay_bits - 1)
                delay = b * step
            turn = 2 * np.pi / 2**network.phase_bits
            phase = round(one.phase_rad[k, c, n] / turn) * turn
            out[n, c] = (
                one.amplitude[k, c, n] * np.exp(1j * phase - 2j * np.pi * frequency_hz * delay) / np.sqrt(elements)
            )
    return out


def dense_steering(half: str, point_m: Any, frequency_hz: float) -> Any:
    array = getattr(SPEC, half).array
    u = point_m / np.linalg.norm(point_m)
    pattern = np.sqrt(10 ** (array.element_gain_dbi / 10) * max(u[0], 0.0) ** array.element_exponent)
    return pattern * np.exp(2j * np.pi * frequency_hz / C * (array.position_m @ u))


# ------------------------------------------------------------------------------------------------- beams and their times


def test_effective_time_is_latency_bus_and_settling() -> None:
    """From the nameplate: 20 us + 10 ns x settings + 0.5 us; transmit 64 a row, receive 2 x 64 a row."""
    frontend = opened(loaded=False)
    assert frontend.set_beam(beam("transmit", [0, 5]), 1000).effective_ns == 1000 + 20_000 + 2 * 64 * 10 + 500
    assert frontend.set_beam(beam("receive", [0]), 1000).effective_ns == 1000 + 20_000 + 128 * 10 + 500
    # the bus of the half is busy until 1000 + 20_000 + 1280
    assert frontend.set_beam(beam("transmit", [1]), 1100).effective_ns == 1000 + 20_000 + 1280 + 640 + 500


def test_old_rows_hold_until_all_new_rows_latch_together() -> None:
    frontend = opened()
    old, new = beam("transmit", [0, 1, 2, 3]), beam("transmit", [0, 2], seed=9)
    at = frontend.set_beam(new, 0).effective_ns
    for slot in range(4):
        before, after = frontend.emit(wide([at - 1, at], [slot, slot])).response[[0, -1]]
        for m, f in enumerate(GRID_HZ):
            assert np.allclose(before[m], dense_response("transmit", old, slot, f), rtol=0, atol=1e-12)
            want = dense_response("transmit", new, slot // 2, f) if slot in (0, 2) else before[m]
            assert np.allclose(after[m], want, rtol=0, atol=1e-12)


def test_response_rows_are_distinct_and_events_point_at_them() -> None:
    frontend = opened()
    at = frontend.set_beam(beam("transmit", [1], seed=3), 0).effective_ns
    emission = frontend.emit(wide([at - 1, at - 1, at, at, at + 7], [0, 1, 1, 0, 1]))
    assert len(emission.response) == 3
    assert emission.row[2] == emission.row[4] != emission.row[1]
    assert emission.row[0] == emission.row[3]
    assert (emission.source == SITE).all()


def test_a_slot_never_loaded_is_dark() -> None:
    frontend = opened()
    assert not frontend.emit(wide([0], [7])).response.any()
    heard = frontend.receive([(frontend.emit(frame([0], [7])), paths())], listen([0], [0]))
    leak = 10 ** (-SPEC.isolation_db / 20)
    assert np.allclose(np.abs(heard.samples), leak, rtol=1e-5)  # the port is fed, the array is not
    deaf = frontend.receive([(frontend.emit(frame([0], [0])), paths())], listen([0], [3]))
    assert np.allclose(np.abs(deaf.samples), leak, rtol=1e-5)
    fresh = opened(loaded=False)
    fresh.set_beam(beam("transmit", [0]), 0)
    assert not fresh.emit(wide([0], [0])).response.any()  # asked for before its first row


def test_readback_is_what_is_in_force_and_setting_it_again_changes_nothing() -> None:
    frontend = opened()
    first = frontend.set_beam(beam("transmit", [0]), 0)
    assert first.readback is not None
    again = frontend.set_beam(replace(first.readback), first.effective_ns)
    assert again.clipped == 0
    assert encode(again.readback) == encode(first.readback)
    before, after = (frontend.emit(wide([r.effective_ns], [0])).response for r in (first, again))
    assert np.array_equal(before, after)


def test_out_of_range_is_clipped_and_counted_or_refused() -> None:
    wrong = beam("transmit", [0])
    delay = wrong.delay_s.copy()
    delay[0, 0, :3] = (
        150e-12,
        -20e-12,
        99e-12,
    )  # the last is beyond the longest setting, 93.75 ps, by more than half a step
    wrong = replace(wrong, delay_s=delay)
    report = opened().set_beam(wrong, 0)
    assert report.clipped == 3
    assert report.readback is not None
    assert np.allclose(report.readback.delay_s[0, 0, :3], [93.75e-12, 0, 93.75e-12], rtol=1e-12)
    with pytest.raises(Misuse, match="transmit beam: 3 settings are out of range"):
        opened(out_of_range="refuse").set_beam(wrong, 0)


def test_a_refused_load_changes_nothing() -> None:
    frontend = opened(out_of_range="refuse")
    before = frontend.emit(wide([0], [0])).response
    bad = beam("transmit", [0], seed=4)
    phase = bad.phase_rad.copy()
    phase[0, 0, 5] = np.nan
    with pytest.raises(Misuse, match=r"transmit beam\.phase_rad\[0, 0, 5\] = .*nan.*: must be finite"):
        frontend.set_beam(replace(bad, phase_rad=phase), -SPEC.command_latency_ns * 10)
    assert np.array_equal(before, frontend.emit(wide([10**9], [0])).response)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"half": "both"}, "half = 'both': must be 'transmit' or 'receive'"),
        ({"slot": np.array([0, 8])}, r"transmit beam\.slot\[1\] = 8: must be 0 \.\. 7"),
        ({"slot": np.array([-1, 2])}, r"transmit beam\.slot\[0\] = -1"),
        ({"slot": np.array([2, 2])}, "a slot is named twice"),
        (
            {"phase_rad": np.zeros((2, 1, 63))},
            r"transmit beam\.phase_rad: has shape \(2, 1, 63\), must be \(2, 1, 64\)",
        ),
        ({"delay_s": np.zeros((2, 1, 0))}, r"transmit beam\.delay_s: has shape"),
        ({"amplitude": np.full((2, 1, 64), np.inf)}, r"transmit beam\.amplitude\[0, 0, 0\] = .*inf"),
    ],
)
def test_a_beam_that_cannot_be_is_misuse(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(Misuse, match=says):
        opened().set_beam(replace(beam("transmit", [0, 1]), **changes), 0)


def test_memory_stays_bounded_and_forgets_in_words() -> None:
    frontend = opened()
    for k in range(400):
        frontend.set_beam(beam("transmit", [0], seed=k), k * 5_000_000)
    memory = frontend._memory["transmit"]
    assert len(memory._settings) < 4 + 2 + KEPT_NS // 5_000_000 + 2
    now = 399 * 5_000_000
    assert frontend.emit(wide([now - KEPT_NS + 10_000_000], [0])).response.any()
    with pytest.raises(Misuse, match=r"what transmit slot 0 held before .* is forgotten"):
        frontend.emit(wide([0], [0]))
    assert frontend.emit(wide([0], [1])).response.any()  # never superseded, never forgotten


# ---------------------------------------------------------------------------------------------------- what is received


def test_frames_against_the_dense_sum_over_elements() -> None:
    """Zero delay, so that the pulse is transparent; Doppler is a turn of each sample, t counted from the paths' instant."""
    frontend = opened(leakage=False, drop_db=np.inf)
    tx, rx = beam("transmit", [0, 1, 2, 3]), beam("receive", [0, 1, 2])
    field = paths(3, delay_s=np.zeros(3), doppler_hz=np.array([4e3, -2e3, 0.0]))
    t_ns, send, hear = [-5000, 20_000, 310_000], [0, 2, 1], [1, 0, 2]
    drive = frame(t_ns, send, power_w=0.25)
    heard = frontend.receive([(frontend.emit(drive), field)], listen(t_ns, hear)).samples
    assert drive.samples is not None
    for e in range(3):
        block = 1 if t_ns[e] >= 300_000 else 0
        want = np.zeros((2, 64), complex)
        for p in range(3):
            a_t = dense_steering("transmit", field.departure_m[p], CARRIER_HZ)
            a_r = dense_steering("receive", field.arrival_m[p], CARRIER_HZ)
            out = a_t @ dense_response("transmit", tx, send[e], CARRIER_HZ) * np.sqrt(0.25)
            into = a_r @ dense_response("receive", rx, hear[e], CARRIER_HZ)
            t = (t_ns[e] - field.t_ns[block]) * 1e-9 + np.arange(64) / RATE_HZ
            turn = np.exp(2j * np.pi * field.doppler_hz[p] * t)
            want += field.gain[block, p] * into[:, None] * out * drive.samples[e, 0] * turn
        assert np.allclose(heard[e], want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_a_delay_moves_the_frame_round() -> None:
    frontend = opened(leakage=False, drop_db=np.inf)
    drive = frame([0], [0])
    still, moved = (
        frontend.receive(
            [(frontend.emit(drive), paths(1, delay_s=np.array([d / RATE_HZ]), doppler_hz=np.zeros(1)))],
            listen([0], [0]),
        ).samples
        for d in (0, 9)
    )
    assert np.allclose(np.roll(still, 9, axis=-1), moved, rtol=0, atol=1e-5 * np.abs(still).max())


def test_pilots_against_the_dense_sum_and_only_from_their_own_user() -> None:
    frontend = opened()
    rx = beam("receive", [0, 1, 2])
    field = paths(6, source=[11, 22, 11, 22, 33, 11])
    t_ns, user, slot = [0, 0, 300_000, 310_000], [11, 22, 22, 44], [0, 1, 2, 0]
    sent = pilots(t_ns, user)
    heard = frontend.receive([(sent, field)], listen(t_ns, slot, 1e6))
    assert heard.samples.shape == (4, 2, len(GRID_HZ))
    for e in range(4):
        block = 1 if t_ns[e] >= 300_000 else 0
        for m, f in enumerate(GRID_HZ):
            want = np.zeros(2, complex)
            for p in np.flatnonzero(field.source == user[e]):
                into = dense_steering("receive", field.arrival_m[p], f) @ dense_response("receive", rx, slot[e], f)
                delayed = np.exp(-2j * np.pi * (f - CARRIER_HZ) * field.delay_s[p])
                want += field.gain[block, p] * delayed * into
            want *= sent.response[0, m, 0, 0] * np.sqrt(sent.drive.power_w[e, m])
            assert np.allclose(heard.samples[e, :, m], want, rtol=1e-9, atol=1e-18)
    assert not heard.samples[3].any()  # user 44 has no path


def test_blocks_come_back_as_the_dense_sum_over_elements_says() -> None:
    """Two ways, at every subcarrier: squint of both halves, delays of the beam, Doppler over the integration, and the leakage."""
    frontend = opened()
    tx, rx = beam("transmit", [0, 1, 2, 3]), beam("receive", [0, 1, 2])
    field = paths(5)
    t_ns, send, hear, length_s = [0, 120_000, 310_000], [0, 2, 3], [0, 1, 2], 20e-6
    sent = wide(t_ns, send)
    turned = np.exp(1j * np.array([0.3, 1.1, 2.0]))[:, None, None]
    sent = replace(sent, digital=sent.digital * turned)
    heard = frontend.receive([(frontend.emit(sent), field)], listen(t_ns, hear, 1 / length_s))
    assert heard.samples.shape == (3, 2, len(GRID_HZ))
    assert heard.noise_w == pytest.approx(thermal_noise_w(1 / length_s, SPEC.noise_figure_db))
    leak = 10 ** (-SPEC.isolation_db / 20)
    for e in range(3):
        block = 1 if t_ns[e] >= 300_000 else 0
        start_s = (t_ns[e] - field.t_ns[block]) * 1e-9
        for m, f in enumerate(GRID_HZ):
            want = np.full(2, leak, complex)
            for p in range(5):
                there = dense_steering("transmit", field.departure_m[p], f) @ dense_response("transmit", tx, send[e], f)
                back = dense_steering("receive", field.arrival_m[p], f) @ dense_response("receive", rx, hear[e], f)
                # the mean of the turning phasor over the integration, summed up
                nu = field.doppler_hz[p] * (start_s + length_s * (np.arange(2000) + 0.5) / 2000)
                kept = np.exp(2j * np.pi * nu).mean() * np.exp(-2j * np.pi * (f - CARRIER_HZ) * field.delay_s[p])
                want += field.gain[block, p] * kept * there[0] * back
            want *= np.sqrt(sent.power_w[e, m]) * sent.digital[e, 0, 0]
            assert np.allclose(heard.samples[e, :, m], want, rtol=1e-5, atol=1e-16)


def test_blocks_hear_only_what_leaves_from_the_site_and_no_leak_where_there_is_none() -> None:
    frontend = opened(leakage=False)
    block = frontend.emit(wide([0], [0]))
    assert not frontend.receive([(block, paths(4, source=11))], listen([0], [0], 1e5)).samples.any()
    assert frontend.receive([(block, paths(4))], listen([0], [0], 1e5)).samples.any()


def test_emissions_superpose() -> None:
    frontend = opened(leakage=False, drop_db=np.inf)
    own = frontend.emit(frame([0, 17_500], [0, 1]))
    other = replace(own, source=np.array([5, 5]), drive=frame([0, 17_500], [0, 0], seed=8), row=np.zeros(2, np.int64))
    other = replace(other, response=np.ones((1, 1, 1, 1), complex))
    pairs = [(own, paths(3)), (other, paths(2, source=5, seed=3, gain=1e-8))]
    both = frontend.receive(pairs, listen([0, 17_500], [0, 1])).samples
    each = [frontend.receive([pair], listen([0, 17_500], [0, 1])).samples for pair in pairs]
    assert np.allclose(both, each[0] + each[1], rtol=1e-5, atol=0)
    assert min(np.abs(one).max() for one in each) > 0


def test_leakage_is_isolation_down_undelayed_and_can_be_off() -> None:
    drive = frame([0], [0], power_w=0.49)
    assert drive.samples is not None
    nothing = paths(0)
    for fields, spec, amplitude in [
        ({}, SPEC, 0.7 * 10 ** (-70 / 20)),
        ({"leakage": False}, SPEC, 0.0),
        ({}, replace(SPEC, isolation_db=np.inf), 0.0),
    ]:
        frontend = opened(spec=spec, **fields)
        heard = frontend.receive([(frontend.emit(drive), nothing)], listen([0], [0])).samples
        assert np.allclose(heard, amplitude * drive.samples, rtol=1e-6, atol=0)


def test_a_user_s_frame_does_not_leak() -> None:
    frontend = opened()
    own = frontend.emit(frame([0], [0]))
    user = replace(own, source=np.array([5]), response=np.ones((1, 1, 1, 1), complex))
    assert not frontend.receive([(user, paths(3))], listen([0], [0])).samples.any()  # nor hear the site's paths


def test_noise_has_the_nameplate_s_power_and_the_elements_covariance() -> None:
    """Two beams half a lobe apart share much noise; what their attenuators take away, each chain's termination brings."""
    frontend = opened(hears=noise)
    near = beam("receive", [1])
    phase = np.repeat(near.phase_rad[:, :1], 2, axis=1)
    phase[:, 1] += np.linspace(-1, 1, 64)
    near = replace(near, phase_rad=phase)
    start = frontend.set_beam(near, 0).effective_ns
    t_ns = start + np.arange(200) * 17_500
    dark = frontend.emit(frame(t_ns.tolist(), [7] * 200, power_w=0.0, samples=256))
    heard = frontend.receive([(dark, paths(0))], listen(t_ns.tolist(), [1] * 200))
    assert heard.noise_w == pytest.approx(1.380649e-23 * 290 * 10 * RATE_HZ, rel=1e-12)
    flat = heard.samples.transpose(1, 0, 2).reshape(2, -1)
    got = flat @ flat.conj().T / flat.shape[1] / heard.noise_w
    w = dense_response("receive", near, 0, CARRIER_HZ)
    want = w.T @ w.conj()
    assert np.all(np.diag(want).real < 0.7)
    assert abs(want[0, 1]) > 0.4
    np.fill_diagonal(want, 1.0)
    assert np.allclose(got, want, rtol=0, atol=4 / np.sqrt(flat.shape[1]))


def test_two_chains_with_one_beam_hear_one_noise() -> None:
    frontend = opened(hears=noise)
    same = beam("receive", [0])
    same = replace(same, phase_rad=np.repeat(same.phase_rad[:, :1], 2, axis=1), amplitude=np.ones((1, 2, 64)))
    t = [frontend.set_beam(same, 0).effective_ns]
    heard = frontend.receive([(frontend.emit(frame(t, [7], power_w=0.0)), paths(0))], listen(t, [0]))
    assert np.allclose(heard.samples[:, 0], heard.samples[:, 1], rtol=0, atol=1e-6 * np.sqrt(heard.noise_w))
    assert np.mean(np.abs(heard.samples) ** 2) == pytest.approx(heard.noise_w, rel=0.5)


def test_users_at_one_instant_do_not_share_noise() -> None:
    frontend = opened(hears=noise)
    heard = frontend.receive([(pilots([0, 0], [11, 22]), paths(0))], listen([0, 0], [0, 0], 1e6)).samples
    assert not np.isclose(heard[0], heard[1]).any()
    alone = frontend.receive([(pilots([0], [22]), paths(0))], listen([0], [0], 1e6)).samples
    assert np.array_equal(alone[0], heard[1])


def test_dropped_power_bounds_what_is_missing() -> None:
    field = paths(40, gain=1.0)
    levels = np.logspace(-6, -11, 40)
    field = replace(field, gain=field.gain * levels)
    t_ns = [0, 17_500, 305_000]
    got = {}
    for drop_db in (30.0, 0.0, np.inf):
        frontend = opened(drop_db=drop_db)
        got[drop_db] = frontend.receive([(frontend.emit(frame(t_ns, [0, 1, 2])), field)], listen(t_ns, [0, 1, 2]))
    assert got[np.inf].dropped_w == 0.0
    noise_w = thermal_noise_w(RATE_HZ, 10.0)
    for drop_db in (30.0, 0.0):
        missing = np.mean(np.abs(got[drop_db].samples - got[np.inf].samples) ** 2, axis=-1)
        assert 0 < missing.max() <= got[drop_db].dropped_w * 1.01 + 1e-12 * noise_w
        assert got[drop_db].dropped_w <= 40**2 * noise_w * 10 ** (-drop_db / 10) / 64
    assert got[30.0].dropped_w < got[0.0].dropped_w


# ---------------------------------------------------------------------------------------------------- converters, amplifiers


def test_a_converter_steps_and_says_when_it_is_full() -> None:
    drive = frame([0, 17_500], [0, 0])
    power = np.array([[1.0], [0.01]])
    leak_w = 10 ** (-SPEC.isolation_db / 10)
    frontend = opened(converter_bits=6, converter_full_scale_w=leak_w / 4)
    heard = frontend.receive([(frontend.emit(replace(drive, power_w=power)), paths(0))], listen([0, 17_500], [0, 0]))
    assert heard.overload is not None
    assert heard.overload.tolist() == [[True, True], [False, False]]
    step = 2 * np.sqrt(leak_w / 4) / 64
    assert np.allclose(np.mod(heard.samples.real / step, 1), 0.5, atol=1e-3)
    assert opened().receive([(frontend.emit(drive), paths(0))], listen([0, 17_500], [0, 0])).overload is None


def test_a_saturated_amplifier_takes_power_away() -> None:
    frontend = opened(saturation_w=0.5)
    frames_sent, plain = frontend.emit(frame([0], [0], power_w=1.0)).drive, frame([0], [0], power_w=1.0)
    assert frames_sent.samples is not None
    assert plain.samples is not None
    # Rapp by hand for |x| = 1, limit sqrt(1/2), smoothness 2: (1 + 2^2)^(-1/4)
    assert np.allclose(frames_sent.samples, plain.samples * 5 ** (-1 / 4), rtol=1e-12)
    flat = replace(wide([0], [0]), power_w=np.full((1, 8), 1 / 8))
    sent = frontend.emit(flat).drive
    # many subcarriers are a normal signal: Bussgang's gain, by scipy.integrate.quad of t (1 + (2 t)^2)^(-1/4) exp(-t)
    assert np.allclose(sent.digital, 0.5636709957752147, rtol=1e-7)
    assert np.array_equal(opened().emit(flat).drive.digital, flat.digital)


# ------------------------------------------------------------------------------------------------------------- faults


def test_a_fault_splits_the_block_axis_and_mends() -> None:
    frontend = opened()
    block_ns = np.arange(6) * 140_000
    healthy = frontend.emit(wide(block_ns, [0] * 6)).response[0]
    dead = Fault("dead_element", "transmit", element=13)
    frontend.inject(dead, 200_000)
    frontend.clear(dead, 560_000)
    emission = frontend.emit(wide(block_ns, [0] * 6))
    assert emission.row.tolist() == [0, 0, 1, 1, 0, 0] or emission.row.tolist() == [0, 0, 1, 1, 2, 2]
    for e in range(6):
        want = healthy.copy()
        if e in (2, 3):
            want[:, 13] = 0
        assert np.array_equal(emission.response[emission.row[e]], want)


@pytest.mark.parametrize(
    ("fault", "touched"),
    [
        (Fault("stuck_phase", "receive", element=3, chain=1, value=1.0), (slice(None), 3, 1)),
        (Fault("chain_off", "receive", chain=0), (slice(None), slice(None), 0)),
        (Fault("stuck_delay", "transmit", line=5, value=3.3e-11), None),
    ],
)
def test_a_fault_touches_what_it_names_and_nothing_else(fault: Fault, touched: Any) -> None:
    frontend = opened()
    memory = frontend._memory[fault.half]
    slot, t = np.array([0]), np.array([10])
    before = memory.responses(memory.rows(slot, t)[1], GRID_HZ)[0]
    frontend.inject(fault, 0)
    after = memory.responses(memory.rows(slot, t)[1], GRID_HZ)[0]
    if touched is None:
        mine = SPEC.transmit.network.line == 5
        changed = np.any(before != after, axis=(0, 2))
        assert np.array_equal(changed, mine)
        assert np.allclose(np.abs(before), np.abs(after))
    else:
        expect = before.copy()
        expect[touched] = 0 if fault.kind == "chain_off" else np.abs(before[touched]) * np.exp(1j)
        assert np.allclose(after, expect, rtol=1e-12, atol=1e-15)


def test_a_lost_command_leaves_the_old_rows_and_readback_shows_it() -> None:
    for readback in (True, False):
        frontend = opened(readback=readback)
        before = frontend.emit(wide([0], [0])).response
        lost = Fault("lost_command", "transmit")
        frontend.inject(lost, 0)
        report = frontend.set_beam(beam("transmit", [0], seed=7), 10)
        assert report.fault == "transmit lost command"
        assert np.array_equal(frontend.emit(wide([10**8], [0])).response, before)
        if readback:
            assert report.readback is not None
            assert not np.allclose(
                report.readback.phase_rad % (2 * np.pi), report.setpoint.phase_rad % (2 * np.pi), atol=0.1
            )
        else:
            assert report.readback is None
        frontend.clear(lost, 20)
        report = frontend.set_beam(beam("transmit", [0], seed=7), 30)
        assert report.fault == ""
        assert not np.array_equal(frontend.emit(wide([10**8], [0])).response, before)


def test_without_self_test_reports_do_not_tell() -> None:
    frontend = opened(self_test=False)
    frontend.inject(Fault("dead_element", "transmit", element=1), 0)
    assert frontend.set_beam(beam("transmit", [0]), 10).fault == ""


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault("dead_element", "transmit", element=64), r"fault\.element = 64: must be 0 \.\. 63"),
        (Fault("chain_off", "receive", chain=2), r"fault\.chain = 2: must be 0 \.\. 1"),
        (Fault("stuck_delay", "receive"), "has no delay lines"),
        (Fault("stuck_phase", "receive", value=float("nan")), r"fault\.value = .*nan"),
        (Fault("dead_element", "left"), "half = 'left'"),
    ],
)
def test_a_fault_that_cannot_be_is_misuse(fault: Fault, says: str) -> None:
    with pytest.raises(Misuse, match=says):
        opened().inject(fault, 0)


def test_a_fault_injected_live_leaves_what_is_scripted_for_later() -> None:
    frontend = opened()
    script, live = (Fault("dead_element", "transmit", element=n) for n in (1, 2))
    frontend.inject(script, 100)
    frontend.clear(script, 200)
    frontend.inject(live, 50)
    frontend.clear(live, 150)
    health = frontend._memory["transmit"].faults
    told = [health.at(t) for t in (49, 50, 99, 100, 149, 150, 199, 200)]
    assert told == [(), (live,), (live,), (script, live), (script, live), (script,), (script,), ()]
    states = health.state(np.array([49, 50, 100, 150, 200]))
    assert len(set(states.tolist())) == 5
    with pytest.raises(Misuse, match="is not there to be cleared"):
        frontend.clear(live, 200)


# ----------------------------------------------------------------------------------------------------- batches and misuse


@settings(max_examples=15, deadline=None)
@given(cut=st.lists(st.integers(1, 11), max_size=4, unique=True), seed=st.integers(0, 1000))
def test_no_bit_depends_on_how_events_are_batched(cut: list[int], seed: int) -> None:
    """Twelve events across two latches and a fault, whole and in pieces."""
    rng = np.random.default_rng(seed)
    bounds = [0, *sorted(cut), 12]
    # echoes and pilots are played side by side: selects are late only where times go on, so none is here
    t_ns = SPEC.select_ns * np.sort(rng.integers(0, 400_000 // SPEC.select_ns, 12))
    send, hear, user = rng.integers(0, 4, 12), rng.integers(0, 3, 12), rng.integers(0, 3, 12)

    def play(pieces: list[int]) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
        frontend = opened(hears=noise, converter_bits=12, converter_full_scale_w=1e-6)
        frontend.set_beam(beam("transmit", [0, 1], seed=1), 100_000)
        frontend.set_beam(beam("receive", [1], seed=2), 150_000)
        frontend.inject(Fault("dead_element", "receive", element=7), 250_000)
        echo, up = paths(7, seed=seed, gain=1e-7), paths(9, source=rng.permutation(np.arange(9)) % 3, seed=seed + 1)
        responses, echoes, heard, blocks = [], [], [], []
        whole, sounding = pilots(t_ns.tolist(), user.tolist()), frame(t_ns.tolist(), send.tolist(), seed)
        data = wide(t_ns.tolist(), send.tolist())
        assert sounding.samples is not None
        for i, j in pairwise(pieces):
            part = slice(i, j)
            drive = replace(
                sounding,
                **{n: getattr(sounding, n)[part] for n in ("t_ns", "slot", "power_w", "digital", "samples")},
            )
            emission = frontend.emit(drive)
            responses.append(emission.response[emission.row])
            echoes.append(frontend.receive([(emission, echo)], listen(t_ns[part], hear[part])).samples)
            own = replace(
                whole,
                source=whole.source[part],
                row=whole.row[part],
                drive=replace(
                    whole.drive, **{n: getattr(whole.drive, n)[part] for n in ("t_ns", "slot", "power_w", "digital")}
                ),
            )
            heard.append(frontend.receive([(own, up)], listen(t_ns[part], hear[part], 1e6)).samples)
            some = replace(data, **{n: getattr(data, n)[part] for n in ("t_ns", "slot", "power_w", "digital")})
            back = frontend.receive([(frontend.emit(some), echo)], listen(t_ns[part], hear[part], 1e5))
            blocks.append(back.samples)
        return responses, echoes, heard, blocks

    state = rng.bit_generator.state
    once = play([0, 12])
    rng.bit_generator.state = state
    pieces = play(bounds)
    for a, b in zip(once, pieces, strict=True):
        assert np.concatenate(a).tobytes() == np.concatenate(b).tobytes()


def test_no_events_are_no_error() -> None:
    frontend = opened(hears=noise)
    emission = frontend.emit(frame([], []))
    heard = frontend.receive([(emission, paths())], listen([], []))
    assert heard.samples.shape == (0, 2, 64)
    assert frontend.set_beam(beam("transmit", []), 0).readback is not None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"slot": np.array([8])}, r"drive\.slot\[0\] = 8: must be 0 \.\. 7"),
        ({"slot": np.array([0, 1])}, r"drive\.slot: has shape \(2,\), must be \(1,\)"),
        ({"power_w": np.full((1, 1), np.nan)}, r"drive\.power_w\[0, 0\] = .*nan"),
        ({"power_w": np.full((1, 1), -1.0)}, r"drive\.power_w: reaches .*-1"),
        ({"power_w": np.full((1, 1), 1.01)}, r"drive event 0 asks for 1\.01 W, the front end has 1 W"),
        ({"digital": np.full((1, 1, 1), 1.1 + 0j)}, "asks for 1.21 W"),
        ({"digital": np.ones((1, 2, 1), complex)}, r"drive\.digital: has shape \(1, 2, 1\), must be \(1, 1, 'any'\)"),
        ({"samples": np.ones((1, 2, 64), complex)}, r"drive\.samples: has shape \(1, 2, 64\), must be \(1, 1, 'any'\)"),
        ({"samples": np.full((1, 1, 4), np.inf + 0j)}, r"drive\.samples\[0, 0, 0\] = .*inf"),
        ({"frequency_hz": np.array([-1.0])}, r"drive\.frequency_hz = .*must be > 0"),
        (
            {"frequency_hz": np.ones(2), "power_w": np.zeros((1, 2))},
            r"drive\.frequency_hz: has 2 entries; a frame has one",
        ),
    ],
)
def test_a_drive_that_cannot_be_is_misuse(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(Misuse, match=says):
        opened().emit(replace(frame([0], [0]), **changes))


def test_what_cannot_be_heard_is_misuse() -> None:
    frontend = opened()
    emission = frontend.emit(frame([0], [0]))
    with pytest.raises(Misuse, match="incident: is empty"):
        frontend.receive([], listen([0], [0]))
    with pytest.raises(Misuse, match=r"incident\[0\]: its events are not at listen\.t_ns"):
        frontend.receive([(emission, paths())], listen([1], [0]))
    with pytest.raises(Misuse, match=r"listen\.slot\[0\] = 4: must be 0 \.\. 3"):
        frontend.receive([(emission, paths())], listen([0], [4]))
    with pytest.raises(Misuse, match="heard together are all frames or all wide-band"):
        frontend.receive([(emission, paths()), (pilots([0], [1]), paths())], listen([0], [0]))
    block = frontend.emit(wide([0], [0]))
    elsewhere = replace(block, source=np.array([3]))
    with pytest.raises(Misuse, match="wide-band events of others are heard from single antennas only"):
        frontend.receive([(elsewhere, paths())], listen([0], [0]))
    both = frontend.emit(wide([0, 1000], [0, 0]))
    with pytest.raises(Misuse, match="events from the site and from others must come as separate emissions"):
        frontend.receive([(replace(both, source=np.array([SITE, 3])), paths())], listen([0, 1000], [0, 0]))
    frontend.close()
    frontend.close()
    for verb in (
        lambda: frontend.emit(frame([0], [0])),
        lambda: frontend.set_beam(beam("transmit", [0]), 0),
        lambda: frontend.receive([(emission, paths())], listen([0], [0])),
    ):
        with pytest.raises(Misuse, match="small: this front end is closed"):
            verb()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"out_of_range": "wrap"}, "out_of_range = 'wrap'"),
        ({"converter_bits": 8}, "converter_full_scale_w = inf"),
        ({"saturation_w": float("nan")}, "saturation_w = nan"),
        ({"drop_db": -1.0}, r"drop_db = -1\.0"),
    ],
)
def test_a_machine_that_cannot_be_is_misuse(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(Misuse, match=says):
        Sim(**fields)


def selected_one_by_one(select_ns: int, slot: Sequence[int], t_ns: Sequence[int]) -> list[int]:
    """What each event goes through, written out for one event an instant."""
    out, used, used_ns = [], None, -(10**18)
    for s, t in zip(slot, t_ns, strict=True):
        if s != used and 0 < t - used_ns < select_ns:
            out.append(used)
        else:
            out.append(s)
            used, used_ns = s, t
    return out


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 120)), min_size=1, max_size=12), st.data())
def test_a_select_takes_its_time_however_events_are_batched(steps: list[tuple[int, int]], data: st.DataObject) -> None:
    slot = np.array([s for s, _ in steps])
    t_ns = np.cumsum([gap for _, gap in steps])
    cut = data.draw(st.integers(0, len(steps)))
    memory = BeamMemory("transmit", SPEC.transmit, select_ns=50)
    got = np.concatenate([memory.selected(slot[part], t_ns[part]) for part in (slice(0, cut), slice(cut, None))])
    assert got.tolist() == selected_one_by_one(50, slot, t_ns)


def test_an_event_too_soon_after_another_slot_radiates_the_old_beam() -> None:
    frontend, at_ns = opened(), 10**6
    wait = SPEC.select_ns
    alone = [frontend.emit(wide([at_ns + 10**6 * s], [s])) for s in (0, 1)]
    at_ns += 10**7
    got = frontend.emit(wide([at_ns, at_ns + wait - 1, at_ns + wait, at_ns + 2 * wait], [0, 1, 1, 0]))
    for event, s in enumerate((0, 0, 1, 0)):
        assert np.array_equal(got.response[got.row[event]], alone[s].response[alone[s].row[0]])
    side = frontend.emit(wide([at_ns + 10**6] * 2, [0, 1]))  # users of one instant take turns
    assert [np.array_equal(side.response[side.row[s]], alone[s].response[0]) for s in (0, 1)] == [True, True]
