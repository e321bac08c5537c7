"""The fidelity ``system``: whole stretches of time as arrays, rates from a link budget and tracks from the bound; no samples, no beams commanded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from hal.array import LIGHT_MPS, element_amplitude
from hal.chain import thermal_noise_w
from hal.check import Gt, In
from hal.frontend import SITE, FrontendSpec
from hal.network import response
from hal.record import Array, Float, Int, record
from twin.channel import LinkBudget
from twin.combining import Combiner
from twin.kpi import Kpi, decibels, leaning, spot
from twin.physics.bounds import direction_information, echo_bound
from twin.physics.draws import Draws
from twin.planning._rows import squinted
from twin.records import Numerology

__all__ = ["Budget", "Movers", "Stretch", "System", "at_boresight", "nobody", "scored"]

DETECT_DB = 13.0  # integrated SNR at which a look follows its mover, as at ``sensing.fidelity: bound``
STREAM = "system"


@dataclass(frozen=True)
class System:
    """What ``fidelity: system`` is told: how often it says key figures, asks where everybody is, and what its beams rest on.

    Data blocks serve the users present by turns, one a block, each turn with pilots; dwells look at all movers by turns. A user's beam points where
    its last two turns, each measured with the bound's error, say that it now is. Its signal to noise, at the carrier (no squint), is

        ``SNR = P g(r)^2 (1 + 1/K) N e(u)^2 |D_c(du_y)|^2 |D_r(du_z)|^2 / (loss M n_0)``,   ``D_n(x) = sin(n pi s x) / (n sin(pi s x))``

    with g the channel's, e an element's amplitude, s the spacing in wavelengths and ``du`` believed minus true direction; the rate is
    ``B log2(1 + SNR)`` while data is sent. A look at a mover is a dwell with its beam on it: error and signal to noise of ``echo_bound``.
    Left out with the samples: fading about the mean, squint, quantised settings, missed pilots, and what several antennas bring a user.
    """

    report_ns: Annotated[int, In("ms"), Gt(0)] = (
        1_000_000_000  # key figures are means over so long; who comes meanwhile is served from the next on
    )
    sample_ns: Annotated[int, In("ms"), Gt(0)] = (
        200_000_000  # places are asked for so often, and linear in time in between
    )
    tracks: Literal["bound", "none"] = (
        "bound"  # beams rest on pilots with the bound's error; or, with none, on the true place
    )


@record
class Budget:
    """What of machine, frame structure and propagation goes into the formulas."""

    spec: FrontendSpec
    numerology: Numerology
    channel: LinkBudget
    draws: Draws
    true_tracks: bool
    sensing_blocks: int
    dwells: int
    # what a receive beam tells, per unit amplitude at an element; in direction cosines the same wherever it is steered
    pilot_root: Float[Array, "2 2"]  # of the covariance of (uy, uz) by pilots of unit power in unit noise
    look_root: Float[Array, "4 4"]  # of that of (uy, uz, range, velocity) by a dwell
    look_deviation: Float[Array, " 4"]  # its standard deviations; infinite: nothing is known
    look_snr: float  # integrated


@record
class Movers:
    """What goes from one stretch to the next: whose turn it is, and each user's last two looks by pilots."""

    user_turn: int
    look_turn: int
    look: Float[Array, "two 2 user"]  # (uy, uz) as measured; NaN before the first
    look_ns: Int[Array, "two user"]


@record
class Stretch:
    """A stretch of subframes: where everybody was, at instants evenly apart, first and last included. Coordinates lead: rows are contiguous."""

    k: int
    subframes: int
    user: Int[Array, " user"]  # of the run, and of the columns they have among ``entity``
    user_column: Int[Array, " user"]
    entity: Int[Array, " entity"]
    rcs_m2: Float[Array, " entity"]
    t_ns: Int[Array, " sample"]
    away_m: Float[Array, "3 sample entity"]  # from the array, in its frame; NaN: not there


def at_boresight(spec: FrontendSpec, n: Numerology, combiner: Combiner, squint: float) -> dict[str, Any]:
    """What the receive beam tells of a wave from straight ahead: the last four fields of ``Budget``."""
    ahead = np.array([[1.0, 0.0, 0.0]])
    asked = squinted(spec.receive, spec.carrier_hz, ahead, squint)
    held = combiner.settings(spec.receive, asked, ahead, spec.carrier_hz)
    weights = response(spec.receive.network, held.delay_s, held.phase_rad, held.amplitude, np.array([spec.carrier_hz]))[
        0, 0
    ]
    b, gradient = weights.sum(axis=0), leaning(spec.receive, ahead, spec.carrier_hz, weights)[0]
    noise = weights.T @ weights.conj()
    noise += np.diag(np.maximum(1 - np.diagonal(noise).real, 0))
    noise_w = thermal_noise_w(n.sample_rate_hz, spec.noise_figure_db)
    covariance = echo_bound(
        amplitude=1.0,
        b=b,
        b_gradient=gradient,
        noise_covariance=noise_w * noise,
        carrier_hz=n.carrier_hz,
        sample_rate_hz=n.sample_rate_hz,
        roll_off=n.roll_off,
        samples=n.delay_bins * n.doppler_bins,
        frame_t_ns=np.arange(n.frames_per_dwell) * n.frame_ns,
    )
    information, power = direction_information(b[None], gradient[None], noise)
    told = np.diagonal(information[0]) > 0
    root = np.zeros((2, 2))
    root[np.ix_(told, told)] = np.linalg.cholesky(np.linalg.inv(2 * information[0][np.ix_(told, told)]))
    known = np.isfinite(covariance)
    return {
        "pilot_root": root,
        "look_root": np.linalg.cholesky(np.where(known, covariance, np.eye(4))) * known.diagonal()[:, None],
        "look_deviation": np.sqrt(covariance.diagonal()),
        "look_snr": float(power[0] / noise_w * n.delay_bins * n.doppler_bins * n.frames_per_dwell),
    }


def scored(budget: Budget, movers: Movers, stretch: Stretch) -> tuple[Kpi, Movers]:
    """The key figures of a stretch and what the next one starts from. The cost is that of its blocks, looks and samples: users only lengthen the columns."""
    service, movers = served(budget, movers, stretch)
    looks, movers = looked(budget, movers, stretch)
    n = budget.numerology
    return Kpi(
        k=stretch.k,
        t_ns=int(stretch.t_ns[0]),
        user=stretch.user,
        block_rate_bps=np.zeros((0, len(stretch.user))),  # not told block by block
        entity=stretch.entity,
        sensing_share=budget.sensing_blocks * n.block_ns / n.subframe_ns,
        **service,
        **looks,
        tracks_tentative=0,
        tracks_false=0,
        side_lobe_echoes=0,
        false_alarms=0,
        users_bound=int(np.isfinite(movers.look[1, 0]).sum()),
        users_bound_right=int(np.isfinite(movers.look[1, 0]).sum()),
        swaps=0,
        rebindings=0,
        beams_set=0,
        beams_clipped=0,
        beam_delay_us=np.nan,
        doppler_block=np.nan,
        dropped_w=0.0,
        nees=np.nan,
        track_nees=np.nan,
    ), movers


def served(budget: Budget, movers: Movers, stretch: Stretch) -> tuple[dict[str, Any], Movers]:
    """Rates of the users: every data block of the stretch with the user whose turn it is."""
    n, array = budget.numerology, budget.spec.transmit.array
    figures: dict[str, Any] = {
        name: np.full(len(stretch.user), np.nan) for name in ("rate_bps", "predicted_bps", "snr_db", "beam_loss_db")
    }
    figures |= {name: np.zeros(len(stretch.user), np.int64) for name in ("served_blocks", "outage_blocks")}
    here = np.flatnonzero(np.isfinite(stretch.away_m[0, 0, stretch.user_column]))
    if not here.size:
        return figures, movers
    start_ns = stretch.k * n.subframe_ns
    order = here[(movers.user_turn + np.arange(here.size)) % here.size]
    block = np.arange(budget.sensing_blocks, n.blocks)
    subframe_ns = start_ns + n.subframe_ns * np.arange(stretch.subframes)
    t_ns = (subframe_ns[:, None] + block * n.block_ns).ravel()
    who = np.resize(order, t_ns.size)
    away_m = between(stretch, t_ns, stretch.user_column[who])
    gone = np.isnan(away_m[0])
    away_m[:, gone] = 1.0  # anywhere: it gets nothing
    direction, range_m = towards(away_m)
    true = direction[1:]

    sight = budget.channel.sight_amplitude(range_m, n.carrier_hz)
    power = sight * sight
    heard = element_amplitude(budget.spec.receive.array, direction.T)
    pilot_noise_w = thermal_noise_w(1e9 / n.pilot_ns, budget.spec.noise_figure_db)
    drawn = budget.draws.normal(f"{STREAM}.pilots", SITE, subframe_ns, 2 * block.size)
    error = budget.pilot_root @ drawn.reshape(-1, 2).T
    measured = true + error / (sight * heard * np.sqrt(n.pilot_power_w / pilot_noise_w))
    measured[:, gone] = np.nan
    known = np.isfinite(movers.look[1, 0, order])
    # who is new was found by initial access, just where it stood
    found, _ = towards(stretch.away_m[:, 0, stretch.user_column[order]])
    first = np.where(known, movers.look[:, :, order], found[1:])
    first_ns = np.where(known, movers.look_ns[:, order], start_ns)
    look = np.concatenate([first[0], first[1], measured], axis=1)
    look_ns = np.concatenate([first_ns[0], first_ns[1], t_ns])
    users, turns = here.size, t_ns.size
    older, newer = look[:, :turns], look[:, users : users + turns]
    apart_ns = look_ns[users : users + turns] - look_ns[:turns]
    step = (t_ns - look_ns[users : users + turns]) / np.where(apart_ns > 0, apart_ns, np.inf)
    believed = true if budget.true_tracks else newer + (newer - older) * step

    off = believed - true
    spacing = np.pi * array.spacing_m * n.carrier_hz / LIGHT_MPS
    aim = dirichlet(array.columns, spacing * off[0]) * dirichlet(array.rows, spacing * off[1])
    element = element_amplitude(array, direction.T)
    loss = 10 ** (-budget.spec.transmit.network.loss_db / 10)
    full = power * (1 + budget.channel.diffuse_share()) * element * element * len(array.position_m)
    full *= budget.spec.transmit_power_w / (len(n.subcarrier_hz) * n.user_noise_w)
    full[gone] = 0.0
    snr = np.nan_to_num(full * loss * aim * aim)  # nothing for who came back meanwhile: it has to be found first
    share_s = (n.block_ns - n.pilot_ns) * 1e-9 * n.subcarrier_spacing_hz * len(n.subcarrier_hz)
    whole_s = stretch.subframes * n.subframe_ns * 1e-9

    def summed(value: Array) -> Array:
        return np.bincount(who, value, len(stretch.user))[here]

    count, mean = summed(~gone), summed(snr)
    with np.errstate(invalid="ignore", divide="ignore"):
        figures["rate_bps"][here] = summed(np.log2(1 + snr)) * (share_s / whole_s)
        figures["predicted_bps"][here] = summed(np.log2(1 + full * loss)) * (share_s / whole_s)
        figures["snr_db"][here] = decibels(mean / count)
        figures["beam_loss_db"][here] = decibels(summed(full) / mean)
    figures["served_blocks"][here] = count
    figures["outage_blocks"][here] = summed((snr < 1) & ~gone)
    last, last_ns = np.full_like(movers.look, np.nan), np.zeros_like(movers.look_ns)
    # the last two looks of each user stand at the end of the list, in the order of the turns
    turn = (turns + np.arange(users)) % users
    last[:, :, order[turn]] = look[:, -2 * users :].reshape(2, 2, users).swapaxes(0, 1)
    last_ns[:, order[turn]] = look_ns[-2 * users :].reshape(2, users)
    return figures, Movers(
        user_turn=(movers.user_turn + turns) % users, look_turn=movers.look_turn, look=last, look_ns=last_ns
    )


def looked(budget: Budget, movers: Movers, stretch: Stretch) -> tuple[dict[str, Any], Movers]:
    """Each mover's last look of the stretch beside its bound; a mover that is seen is followed."""
    n, spec, entities = budget.numerology, budget.spec, len(stretch.entity)
    error, bound = (np.full((entities, 4), np.nan) for _ in range(2))
    snr_db, miss_m, sigma_m = (np.full(entities, np.nan) for _ in range(3))
    tracked = np.full(entities, -1)
    here = np.flatnonzero(np.isfinite(stretch.away_m[0, [0, -1]]).all(axis=0))
    turns = stretch.subframes * budget.dwells
    count = min(turns, here.size)
    lit = seen = 0
    if count:
        last = np.arange(turns - count, turns)
        who = here[(movers.look_turn + last) % here.size]
        subframe_ns = (stretch.k + np.arange(stretch.subframes)) * n.subframe_ns
        draws = budget.draws.normal(f"{STREAM}.looks", SITE, subframe_ns, 4 * budget.dwells)
        t_ns = subframe_ns[last // budget.dwells] + last % budget.dwells * n.frames_per_dwell * n.frame_ns
        direction, range_m = towards(between(stretch, t_ns, who))
        element = element_amplitude(spec.transmit.array, direction.T)
        sent = np.sqrt(len(spec.transmit.array.position_m)) * element * 10 ** (-spec.transmit.network.loss_db / 20)
        amplitude = budget.channel.echo_amplitude(range_m, range_m, stretch.rcs_m2[who], n.carrier_hz)
        amplitude = (
            amplitude * sent * np.sqrt(spec.transmit_power_w) * element_amplitude(spec.receive.array, direction.T)
        )
        snr_db[who] = decibels(amplitude * amplitude * budget.look_snr)
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = draws.reshape(-1, 4)[last] @ budget.look_root.T / amplitude[:, None]
            deviation = budget.look_deviation / amplitude[:, None]
        follows = snr_db[who] > DETECT_DB
        lit, seen = int((snr_db[who] > 20).sum()), int(follows.sum())
        bound[who] = deviation
        error[who[follows]] = np.where(np.isfinite(deviation), drawn, np.nan)[follows]
        true = np.column_stack([*direction[1:], range_m, np.zeros(count)])[follows]
        apart_m = spot(true + drawn[follows]) - spot(true)
        miss_m[who[follows]] = np.sqrt((apart_m * apart_m).sum(axis=1))
        spread_m = deviation[follows, :3] * np.column_stack([true[:, 2], true[:, 2], np.ones(seen)])
        sigma_m[who[follows]] = np.sqrt((np.where(np.isfinite(spread_m), spread_m, 0.0) ** 2).sum(axis=1))
        tracked[who[follows]] = who[follows]
    return {
        "error": error,
        "bound": bound,
        "echo_snr_db": snr_db,
        "position_error_m": miss_m,
        "track_sigma_m": sigma_m,
        "tracked": tracked,
        "tracks_confirmed": seen,
        "detections": seen,
        "lit": lit,
        "missed": max(lit - seen, 0),
    }, Movers(
        user_turn=movers.user_turn,
        look_turn=(movers.look_turn + turns) % max(here.size, 1),
        look=movers.look,
        look_ns=movers.look_ns,
    )


def nobody(users: int) -> Movers:
    """Before the first stretch of a run with so many users."""
    return Movers(user_turn=0, look_turn=0, look=np.full((2, 2, users), np.nan), look_ns=np.zeros((2, users), np.int64))


def towards(away_m: Float[Array, "3 event"]) -> tuple[Float[Array, "3 event"], Float[Array, " event"]]:
    """Unit vectors and ranges."""
    range_m = np.sqrt(away_m[0] ** 2 + away_m[1] ** 2 + away_m[2] ** 2)
    return away_m / range_m, range_m


def between(stretch: Stretch, t_ns: Int[Array, " event"], column: Int[Array, " event"]) -> Float[Array, "3 event"]:
    """Places at instants within the stretch, linear between its samples, which are evenly apart; NaN where one of the two is missing."""
    last = len(stretch.t_ns) - 1
    sample = (t_ns - stretch.t_ns[0]) * (last / (stretch.t_ns[-1] - stretch.t_ns[0]))
    at = np.minimum(sample.astype(np.int64), last - 1)
    part = sample - at
    entities = stretch.away_m.shape[2]
    flat, row = stretch.away_m.reshape(3, -1), at * entities + column
    before, after = flat.take(row, axis=1), flat.take(row + entities, axis=1)
    return np.asarray(before + (after - before) * part)


def dirichlet(count: int, half_turn: Float[Array, " event"]) -> Float[Array, " event"]:
    """``sin(n x) / (n sin x)``: what is left of n equal amplitudes that turn by 2 x from one to the next, to a millionth."""
    x = half_turn.astype(np.float32)  # whose sines take a tenth of the time
    below = count * np.sin(x)
    aligned = np.abs(below) < 1e-6
    return np.asarray(np.where(aligned, 1.0, np.sin(count * x) / np.where(aligned, 1.0, below)), np.float64)
