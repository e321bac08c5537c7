"""Pilots before any channel is made of them: who is heard, from where, and what a receive row makes of a direction."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hal.array import LIGHT_MPS, cis, half_power_beamwidth
from hal.check import finite, positive, shaped
from hal.errors import Misuse
from hal.hermitian import roots
from hal.network import response
from hal.planar import nodes_of, patterns_at
from hal.record import Array, Bool, Complex, Float, Int, record
from twin.estimation._kernels import locate
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
        frequency_hz = pilots.numerology.subcarrier_hz
        nodes, (real, imaginary) = nodes_of(array, frequency_hz, ears.held.shape[1] == 1, 1e-7), _apart(ears)
        cosines[who], covariance[who], located[who] = locate(
            real,
            imaginary,
            nodes.wave,
            nodes.spread,
            2 * np.pi / LIGHT_MPS * frequency_hz,
            nodes.column_m,
            nodes.row_m,
            nodes.columns,
            nodes.rows,
            ears.pilot,
            who,
            use,
            row[who],
            middle[row[who]],
            width,
            pilots.noise_w,
            fit,
        )
    coarse = np.flatnonzero(heard.any(axis=0) & ~fine)
    if len(coarse):
        cosines[coarse], located[coarse] = _sweep(pilots, ears, coarse, width, fit)
        covariance[coarse] = np.diag(np.minimum(width / 3, np.sqrt(1 / 3)) ** 2)
    return Heard(heard=heard, located=located, astray=fine & ~located, cosines=cosines, covariance=covariance)


def _above_noise(pilots: PilotObservation, ears: Ears, false_alarm: float) -> Bool[Array, "update user"]:
    from scipy.fft import fft

    updates, _, chains, subcarriers = pilots.pilot.shape
    share = false_alarm / (3 * updates)
    cells = 2 * subcarriers
    level = (ears.pilot / np.sqrt(positive("noise_w", pilots.noise_w))).astype(np.complex64)
    field = fft(level, cells, axis=3)
    delay = (field.real**2 + field.imag**2) / np.float32(subcarriers)
    # Parseval: twice as many cells as subcarriers hold twice the energy
    energy = delay.sum(axis=(2, 3)) * np.float32(subcarriers / cells) > _quantile(chains * subcarriers, share)
    at_one = delay.max(axis=(2, 3)) > np.log(cells * chains / share)
    at_all = delay.sum(axis=2).max(axis=2) > _quantile(chains, share / cells)
    return np.asarray(energy | at_one | at_all)


@lru_cache(maxsize=64)
def _quantile(samples: int, share: float) -> float:
    """What the energy of ``samples`` unit noises exceeds with probability ``share``."""
    from scipy.special import gammainccinv

    return float(gammainccinv(samples, share))


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
    return roots(covariance, 1e-3, inverse=True)


def patterns(
    pilots: PilotObservation,
    ears: Ears,
    ear: Int[Array, " one"],
    cosines: Float[Array, "one 2"],
    slopes: bool = False,
) -> Complex[Array, "kind one subcarrier chain"]:
    """``b = response^T a(u, f_m)`` and, if asked for, its derivatives by uy and uz; 0 where ``ear`` is -1."""
    _, frequencies, _, chains = ears.held.shape
    out = np.zeros((3 if slopes else 1, len(ear), len(pilots.numerology.subcarrier_hz), chains), dtype=np.complex128)
    nodes = nodes_of(pilots.spec.receive.array, pilots.numerology.subcarrier_hz, frequencies == 1, 1e-9)
    real, imaginary = _apart(ears)
    grid = nodes.wave, nodes.spread, nodes.column_m, nodes.row_m, nodes.columns, nodes.rows
    patterns_at(real, imaginary, *grid, ear, np.ascontiguousarray(cosines), out)
    return out


def _apart(ears: Ears) -> tuple[Array, Array]:
    """The rows as ``[ear frequency (element chain)]``, real and imaginary parts apart, as vector lanes want them."""
    count, frequencies, elements, chains = ears.held.shape
    flat = ears.held.reshape(count, frequencies, elements * chains)
    return np.ascontiguousarray(flat.real), np.ascontiguousarray(flat.imag)


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
