"""Pilots before any channel is made of them: who is heard, from where, and what a receive row makes of a direction."""

from __future__ import annotations

import numpy as np

from hal.array import LIGHT_MPS, cis, half_power_beamwidth, steering_factors
from hal.check import finite, positive, shaped
from hal.errors import Misuse
from hal.network import response
from hal.record import Array, Bool, Complex, Float, Int, record
from twin.records import PilotObservation

__all__ = ["Ears", "Heard", "ears_of", "hear", "hear_with", "patterns", "unit"]


@record
class Heard:
    """What one subframe's pilots say by themselves, users in the order of ``PilotObservation.user``."""

    heard: Bool[Array, "update user"]  # above the noise
    located: Bool[Array, " user"]  # heard, and one direction explains what was heard
    astray: Bool[Array, " user"]  # heard through beams that stand together, but from outside their main lobe
    cosines: Float[Array, "user 2"]  # uy, uz in the receive array's frame
    covariance: Float[Array, "user 2 2"]


def hear(pilots: PilotObservation, false_alarm: float = 1e-3, fit: float = 0.6) -> Heard:
    """Which users are above the noise, and from where.

    Heard: the energy of an update, or its strongest delay cell (a transform over subcarriers) at one chain or at all, exceeds what noise does
    with probability ``false_alarm`` a user and subframe (union bound); noise as in ``Ears``.
    Direction, where a user's receive beams stand together: the maximum of ``sum |b^H y|^2 / |b|^2`` over subcarriers and updates (complex
    gains free at each), on a grid over the main lobe and then by scoring; covariance from the Fisher information, each sample's
    weight ``snr / (1 + snr)`` because its gain is not known. Where they sweep: within the main lobe of the loudest beam, the direction of a
    grid that maximises ``(sum |b^H y|)^2 / sum |b|^2`` (one level at all updates) over the middle subcarriers; covariance of
    a third of a beamwidth. ``fit`` is the share of signal energy the maximum must explain, which refuses most of what comes through side lobes.
    A user parked in a side lobe by beams that stand together is recognised only by a sweep that hears it twice as loud: the loudest row
    of the subframe decides which of the two is done.
    Raises Misuse for a free-form array, which has no beamwidth, and for pilots that are not finite.
    """
    return hear_with(pilots, ears_of(pilots), false_alarm, fit)


@record
class Ears:
    """The receive rows that pilots were heard through, turned so that their noise is white.

    Noise enters at the elements: chains that share elements share noise, of covariance ``response^T response*`` with a unit diagonal (what loss
    takes away a termination brings back). Pilots and responses are multiplied by its inverse symmetric root, eigenvalues below 1e-3
    raised to that.
    """

    index: Int[Array, "update user"]  # which of the rows below; -1: none (a newcomer, or an empty slot)
    held: Complex[Array, "ear frequency element chain"]  # responses, white; one frequency for all without delay lines
    pilot: Complex[Array, "update user chain subcarrier"]  # white
    pointing: Float[Array, "ear chain 2"]  # direction cosines each chain points at


def hear_with(pilots: PilotObservation, ears: Ears, false_alarm: float, fit: float) -> Heard:
    updates, users = pilots.pilot.shape[:2]
    finite("pilot", pilots.pilot)
    shaped("update_ns", pilots.update_ns, (updates,))
    array = pilots.spec.receive.array
    width = np.array(half_power_beamwidth(array, pilots.spec.carrier_hz))
    cosines, covariance = np.zeros((users, 2)), np.broadcast_to(np.eye(2) / 3, (users, 2, 2)).copy()
    located = np.zeros(users, dtype=bool)
    rows = ears.index
    heard = np.asarray(_above_noise(pilots, ears, false_alarm) & (rows >= 0))
    if not np.any(heard):
        return Heard(heard=heard, located=located, astray=located.copy(), cosines=cosines, covariance=covariance)
    energy = np.sum(np.abs(ears.pilot) ** 2, axis=(2, 3))
    middle = ears.pointing.mean(axis=1)
    together = np.all(np.abs(ears.pointing - middle[:, None]) <= 0.75 * width, axis=(1, 2))
    # a sweeping row that happens to point at the user must not replace the finer answer: it has to be twice as loud
    best = np.where(heard, energy * np.where(together[rows], 1.0, 0.5), -1.0).argmax(axis=0)
    row = rows[best, np.arange(users)]
    fine = heard.any(axis=0) & together[row]
    if np.any(fine):
        who = np.flatnonzero(fine)
        use = heard[:, who] & (rows[:, who] == row[who])
        cosines[who], covariance[who], good = _main_lobe(pilots, ears, who, use, row[who], middle[row[who]], width, fit)
        located[who] = good
    coarse = np.flatnonzero(heard.any(axis=0) & ~fine)
    if len(coarse):
        cosines[coarse], located[coarse] = _sweep(pilots, ears, coarse, width, fit)
        covariance[coarse] = np.diag(np.minimum(width / 3, np.sqrt(1 / 3)) ** 2)
    return Heard(heard=heard, located=located, astray=fine & ~located, cosines=cosines, covariance=covariance)


def _above_noise(pilots: PilotObservation, ears: Ears, false_alarm: float) -> Bool[Array, "update user"]:
    from scipy.special import gammainccinv

    updates, _, chains, subcarriers = pilots.pilot.shape
    level = ears.pilot / np.sqrt(positive("noise_w", pilots.noise_w))
    share = false_alarm / (3 * updates)
    cells = 2 * subcarriers
    energy = np.sum(np.abs(level) ** 2, axis=(2, 3)) > gammainccinv(chains * subcarriers, share)
    delay = np.abs(np.fft.fft(level, cells, axis=3)) ** 2 / subcarriers
    at_one = delay.max(axis=(2, 3)) > np.log(cells * chains / share)
    at_all = delay.sum(axis=2).max(axis=2) > gammainccinv(chains, share / cells)
    return np.asarray(energy | at_one | at_all)


def ears_of(pilots: PilotObservation) -> Ears:
    array, network, plan = pilots.spec.receive.array, pilots.spec.receive.network, pilots.plan
    if not array.columns > 0:
        raise Misuse("spec.receive.array.columns = 0: pilot angles need a planar grid (Upa or Ula)")
    report = pilots.receive_beam
    beam = report.setpoint if report.readback is None else report.readback
    row = np.full((len(pilots.update_ns), len(pilots.user)), -1, dtype=np.int64)
    same = np.asarray(pilots.user)[:, None] == np.asarray(plan.user)[None, :]
    known = np.flatnonzero(same.any(axis=1))
    if len(known) and len(beam.slot):
        match = plan.pilot_receive_slot[: len(row), same[known].argmax(axis=1)][..., None] == beam.slot
        row[:, known] = np.where(match.any(axis=-1), match.argmax(axis=-1), -1)
    used = np.unique(row[row >= 0])
    setting = beam.delay_s[used], beam.phase_rad[used], beam.amplitude[used]
    carrier_hz = np.array([pilots.spec.carrier_hz])
    at_carrier = response(network, *setting, carrier_hz)
    held = response(network, *setting, pilots.numerology.subcarrier_hz) if network.lines else at_carrier
    # where a chain points: the mean phase step from column to column and from row to row
    grid = at_carrier[:, 0].reshape(len(used), array.columns, array.rows, len(network.wired))
    along = np.sum(grid[:, 1:] * grid[:, :-1].conj(), axis=(1, 2))
    up = np.sum(grid[:, :, 1:] * grid[:, :, :-1].conj(), axis=(1, 2))
    turn = 2 * np.pi * carrier_hz * array.spacing_m / LIGHT_MPS
    pointing = np.stack([-np.angle(along), -np.angle(up)], axis=-1) / turn
    white = _whitening(held)
    index = np.where(row >= 0, np.searchsorted(used, row), -1)
    pilot = np.array(pilots.pilot)
    update, user = np.nonzero(index >= 0)
    if len(update):
        turned, y = white[index[update, user]], pilot[update, user]
        pilot[update, user] = turned[:, 0] @ y if turned.shape[1] == 1 else np.einsum("emcd,edm->ecm", turned, y)
    return Ears(index=index, held=held @ np.swapaxes(white, -1, -2), pilot=pilot, pointing=pointing)


def _whitening(held: Complex[Array, "ear frequency element chain"]) -> Complex[Array, "ear frequency chain chain"]:
    covariance = np.swapaxes(held, -1, -2) @ held.conj()
    each = np.arange(held.shape[-1])
    covariance[..., each, each] = 1.0
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors / np.sqrt(np.maximum(values, 1e-3))[..., None, :]) @ np.swapaxes(vectors.conj(), -1, -2))


def patterns(
    pilots: PilotObservation,
    ears: Ears,
    ear: Int[Array, " one"],
    cosines: Float[Array, "one 2"],
    slopes: bool = False,
) -> tuple[Array, ...]:
    """``b = response^T a(u, f_m)`` ``[one subcarrier chain]`` and, if asked for, its derivatives by uy and uz; 0 where ``ear`` is -1."""
    array, frequency_hz = pilots.spec.receive.array, pilots.numerology.subcarrier_hz
    subcarriers, chains = len(frequency_hz), ears.held.shape[-1]
    out = [np.zeros((len(ear), subcarriers, chains), dtype=np.complex128) for _ in range(3 if slopes else 1)]
    on = np.flatnonzero(ear >= 0)
    if not len(on):
        return tuple(out)
    a_y, a_z = steering_factors(array, unit(cosines[on])[:, None, :], frequency_hz[None, :])
    wave = 2j * np.pi * frequency_hz[:, None] / LIGHT_MPS
    y_m, z_m = array.position_m[:: array.rows, 1], array.position_m[: array.rows, 2]
    columns = np.stack([a_y, wave * y_m * a_y], axis=-2) if slopes else a_y[..., None, :]
    half = _along_columns(columns, ears.held[ear[on]], array.rows)
    out[0][on] = (a_z[..., None, :] @ half[:, :, 0])[..., 0, :]
    if slopes:
        out[1][on] = (a_z[..., None, :] @ half[:, :, 1])[..., 0, :]
        out[2][on] = ((wave * z_m * a_z)[..., None, :] @ half[:, :, 0])[..., 0, :]
    return tuple(out)


def _along_columns(
    columns: Complex[Array, "one subcarrier point column"],
    held: Complex[Array, "one frequency element chain"],
    rows: int,
) -> Complex[Array, "one subcarrier point row chain"]:
    """Responses summed along y; where one frequency stands for all, a few large products in place of many small ones."""
    one, subcarriers, points, count = columns.shape
    held = held.reshape(one, held.shape[1], count, -1)
    if held.shape[1] == 1:
        half = columns.reshape(one, subcarriers * points, count) @ held[:, 0]
    else:
        half = columns @ held
    return np.asarray(half.reshape(one, subcarriers, points, rows, -1))


def _main_lobe(
    pilots: PilotObservation,
    ears: Ears,
    who: Int[Array, " one"],
    use: Bool[Array, "update one"],
    row: Int[Array, " one"],
    middle: Float[Array, "one 2"],
    width: Float[Array, " axis"],
    fit: float,
) -> tuple[Float[Array, "one 2"], Float[Array, "one 2 2"], Bool[Array, " one"]]:
    y = ears.pilot[:, who] * use[:, :, None, None]
    moment = np.einsum("iucm,iudm->umcd", y, y.conj())
    looks = use.sum(axis=0)
    offset = np.linspace(-0.8, 0.8, 9)[:, None] * np.where(width < 2, width, 0.0)
    a, b = np.divmod(_grid_score(pilots, ears, row, middle[:, None] + offset, moment).argmax(axis=1), len(offset))
    cosines = middle + np.column_stack([offset[a, 0], offset[b, 1]])
    energy, noise = np.trace(moment, axis1=2, axis2=3).real.sum(axis=1), pilots.noise_w
    subcarriers, chains = moment.shape[1], moment.shape[2]
    for last in (False, False, True):
        b, *slope = patterns(pilots, ears, row, cosines, slopes=True)
        size = np.maximum(np.sum(np.abs(b) ** 2, axis=-1), 1e-30)
        seen = np.einsum("umc,umcd->umd", b.conj(), moment)  # b^H R
        power = np.einsum("umd,umd->um", seen, b).real
        across = [d - b * (np.einsum("umc,umc->um", b.conj(), d) / size)[..., None] for d in slope]
        # mean |gain|^2 summed over the looks, freed of noise
        level = np.sum(power - looks[:, None] * noise * size, axis=1) / np.sum(size**2, axis=1)
        level = np.maximum(level, 1e-6 * energy / np.maximum(size.sum(axis=1), 1e-30))
        overlap = np.stack([np.stack([np.sum(p.conj() * q, axis=-1).real for q in across], -1) for p in across], -2)
        prior = np.diag((0.5 * width) ** -2.0)
        if last:
            snr = level[:, None] * size / (looks[:, None] * noise)
            weight = level[:, None] * snr / (1 + snr)
            information = 2 / noise * np.einsum("um,umij->uij", weight, overlap) + prior
            break
        gradient = 2 * np.stack([np.einsum("umd,umd->um", seen, d).real for d in across], -1)
        gradient = np.sum(gradient / size[..., None], axis=1)
        curvature = 2 * level[:, None, None] * overlap.sum(axis=1) + noise * prior
        cosines = cosines + np.clip(np.linalg.solve(curvature, gradient[..., None])[..., 0], -0.2 * width, 0.2 * width)
    explained = np.sum(power / size, axis=1) - looks * subcarriers * noise
    samples = looks * subcarriers * chains
    signal = energy - noise * (samples + 2 * np.sqrt(samples))  # it may well be that little
    good = (
        (explained > fit * signal)
        & np.all(np.abs(cosines - middle) <= 0.9 * width, axis=1)
        & (np.sum(cosines**2, axis=1) < 1)
    )
    return cosines, np.linalg.inv(information), good


def _grid_score(
    pilots: PilotObservation,
    ears: Ears,
    row: Int[Array, " one"],
    cosines: Float[Array, "one point 2"],
    moment: Complex[Array, "one subcarrier chain chain"],
) -> Float[Array, "one place"]:
    """``sum |b^H y|^2 / |b|^2`` at every pair of a uy and a uz of ``cosines``, uz fastest; every fourth subcarrier is enough to start from."""
    array, some = pilots.spec.receive.array, slice(None, None, 4)
    frequency_hz, moment = pilots.numerology.subcarrier_hz[some], moment[:, some]
    held = ears.held[row] if ears.held.shape[1] == 1 else ears.held[row][:, some]
    direction = np.concatenate(
        [np.zeros((*cosines.shape[:2], 1)), cosines], axis=-1
    )  # ux is nothing to a grid in the y-z plane
    a_y, a_z = steering_factors(array, direction[:, None], frequency_hz[None, :, None])
    half = _along_columns(a_y, held, array.rows)
    points, chains = half.shape[2], half.shape[-1]
    b = a_z @ half.swapaxes(2, 3).reshape(*half.shape[:2], array.rows, -1)  # [one subcarrier uz (uy chain)]
    b = b.reshape(*b.shape[:2], points, points, chains).swapaxes(2, 3).reshape(*b.shape[:2], -1, chains)
    power = np.sum((b.conj() @ moment) * b, axis=-1).real
    return np.asarray(np.sum(power / np.maximum(np.sum(np.abs(b) ** 2, axis=-1), 1e-30), axis=1))


def _sweep(
    pilots: PilotObservation,
    ears: Ears,
    who: Int[Array, " one"],
    width: Float[Array, " axis"],
    fit: float,
) -> tuple[Float[Array, "one 2"], Bool[Array, " one"]]:
    """The direction that explains the levels at all beams of a sweep, and whether it explains enough."""
    array, frequency_hz = pilots.spec.receive.array, pilots.numerology.subcarrier_hz
    central = np.argsort(np.abs(frequency_hz - pilots.spec.carrier_hz), kind="stable")
    central = central[: (len(central) + 1) // 2]  # where squint is a small part of a beamwidth
    wave = 2 * np.pi * pilots.spec.carrier_hz / LIGHT_MPS
    at_carrier = ears.held[:, np.abs(frequency_hz - pilots.spec.carrier_hz).argmin() if ears.held.shape[1] > 1 else 0]
    offset = np.linspace(-0.6, 0.6, 9)[:, None] * np.where(width < 2, width, 0.0)
    cosines, good = np.zeros((len(who), 2)), np.zeros(len(who), dtype=bool)
    for one, user in enumerate(who):
        use = np.flatnonzero(ears.index[:, user] >= 0)
        row = ears.index[use, user]
        y = ears.pilot[use, user][:, :, central]  # [update chain subcarrier]
        loudness = np.sum(np.abs(pilots.pilot[use, user]) ** 2, axis=2)
        update, chain = np.unravel_index(loudness.argmax(), loudness.shape)
        axes = ears.pointing[row[update], chain] + offset
        a_y = cis(wave * axes[:, :1] * array.position_m[:: array.rows, 1])
        a_z = cis(wave * axes[:, 1:] * array.position_m[: array.rows, 2])
        half = (a_y @ at_carrier[row].reshape(len(row), array.columns, -1)).reshape(len(row), len(axes), array.rows, -1)
        b = (a_z @ half).reshape(len(row), len(axes) ** 2, -1)  # [update place chain]
        match = np.sum(np.abs(b.conj() @ y), axis=(0, 2))
        score = match**2 / np.maximum(np.sum(np.abs(b) ** 2, axis=(0, 2)) * len(central), 1e-30)
        best = score.argmax()
        noise = pilots.noise_w * y.size
        cosines[one] = axes[best // len(axes), 0], axes[best % len(axes), 1]
        explains = score[best] - noise / y.shape[1] > fit * (
            np.sum(np.abs(y) ** 2) - noise - 2 * noise / np.sqrt(y.size)
        )
        good[one] = explains and np.sum(cosines[one] ** 2) < 1
    return cosines, good


def unit(cosines: Float[Array, "user 2"]) -> Float[Array, "user 3"]:
    return np.column_stack([np.sqrt(np.maximum(1 - np.sum(cosines**2, axis=1), 0.0)), cosines])
