"""Echoes through a hybrid precoder and a hybrid combiner: direction, delay and Doppler of several targets, fitted and bounded jointly.

The chains' whitened outputs are ``y_r = sum_k a_k b_r(u_k) sum_i c_i(u_k) T_i(l_k, nu_k) + noise`` (papers/001 eqs (28)-(32)): ``b = projection a_r(u)`` the
combiner, ``c = feed a_t(u)`` the precoder, ``T_i`` stream i's echo (``delay_doppler.templates``). All work as long as a frame sits in inner products of
waves, ``T`` and its two slopes; directions, amplitudes, information and steps are then small matrices. Delays in samples, Doppler in
cycles a sample, directions as cosines (uy, uz) in the frame both arrays share.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hal.array import LIGHT_MPS, AntennaArray
from hal.check import finite, positive, shaped
from hal.errors import Misuse
from hal.record import Array, Complex, Float, record
from twin.physics import _hybrid_kernels as kernels
from twin.physics.delay_doppler import folded_spectrum
from twin.physics.directions import Lobe
from twin.physics.short_fft import delayed

__all__ = ["Aperture", "Estimate", "JointFit", "aperture", "bound", "pattern"]


@record
class Aperture:
    """What the settings of both halves make of a direction: ``b`` over whitened rows and ``c`` over streams."""

    lobe: Lobe  # of the receive half
    receive: Complex[Array, "row column rank"]  # projection on the grid of a planar array
    transmit: Complex[
        Array, "stream column rank"
    ]  # feed on the grid; one stream: a single one, whatever its beam, because the amplitude is free
    receive_lever: tuple[Float[Array, " column"], Float[Array, " rank"]]  # 2 pi f / c times positions
    transmit_lever: tuple[Float[Array, " column"], Float[Array, " rank"]]
    streams: Complex[Array, "stream point"]  # c at the points of the lobe's grid
    null: Float[Array, " axis"]  # distance from the receive array's peak to its first null


@record
class Estimate:
    """What was found: one row a target, and the information of all of it together."""

    cosine: Float[Array, "target 2"]
    delay: Float[Array, " target"]
    doppler: Float[Array, " target"]
    amplitude: Complex[Array, " target"]
    power: Float[Array, " target"]  # energy of each target's echo alone
    explained: float  # energy of the data that all of them, and the known waves, explain
    information: Float[Array, "parameter parameter"]  # uy, uz, l, nu a target, times the noise power; amplitudes free
    steps: int


def aperture(lobe: Lobe, sender: AntennaArray, feed: Complex[Array, "stream element"]) -> Aperture:
    """The aperture of a receive slot and of streams that drive the transmit elements with ``feed`` (sqrt(W)).

    Raises Misuse for arrays that are no planar grid, a feed of another size and one that is not finite.
    """
    for name, array in (("receive array", lobe.array), ("transmit array", sender)):
        if not array.columns:
            raise Misuse(f"{name}: has no grid; the joint estimators need planar arrays (Upa, Ula), glrt does not")
    shaped("feed", feed, (None, len(sender.position_m)))
    finite("feed", feed)
    own, alone = lobe.array, len(feed) == 1
    to = _levers(sender, lobe.frequency_hz)
    transmit = np.asarray(feed, dtype=np.complex128).reshape(len(feed), sender.columns, sender.rows)
    if alone:
        transmit, to = np.ones((1, 1, 1), dtype=np.complex128), (np.zeros(1), np.zeros(1))
    spread_m = np.sqrt(12 * np.var(own.position_m[:, 1:], axis=0))
    return Aperture(
        lobe=lobe,
        receive=np.ascontiguousarray(lobe.projection, dtype=np.complex128).reshape(-1, own.columns, own.rows),
        transmit=np.ascontiguousarray(transmit),
        receive_lever=_levers(own, lobe.frequency_hz),
        transmit_lever=to,
        streams=kernels.patterns(transmit, *to, np.ascontiguousarray(lobe.cosine))[:, 0].T,
        null=np.minimum(LIGHT_MPS / (lobe.frequency_hz * np.maximum(spread_m, 1e-12)), 1.0),
    )


def pattern(
    aperture: Aperture, cosine: Float[Array, "target 2"]
) -> tuple[Complex[Array, "target 3 row"], Complex[Array, "target 3 stream"]]:
    """``b`` and ``c`` at directions, each with its derivatives after uy and uz."""
    cosine = np.ascontiguousarray(cosine, dtype=np.float64)
    return (
        kernels.patterns(aperture.receive, *aperture.receive_lever, cosine),
        kernels.patterns(aperture.transmit, *aperture.transmit_lever, cosine),
    )


class JointFit:
    """Targets explained together by Levenberg-Marquardt; the leakage, any amplitude of any stream in any row undelayed, is fitted beside them.

    Waves are kept in the precision of ``sent``.

    For rank-one precoders directions do not couple to delay and Doppler, and the same steps move both at once.
    """

    def __init__(
        self,
        data: Complex[Array, "row frame sample"],
        sent: Complex[Array, "stream frame sample"],
        start: Float[Array, " frame"],
        roll_off: float,
        aperture: Aperture,
        room: int,
    ) -> None:
        from scipy.fft import fft

        rows, streams = len(data), len(sent)
        shaped("data", data, (len(aperture.receive), *sent.shape[1:]))
        shaped("sent", sent, (len(aperture.transmit), None, None))
        self.start, self.roll_off, self.aperture, self.room = start, roll_off, aperture, room
        self.spectrum = fft(sent, axis=-1)
        self.rows, self.streams, self.first = rows, streams, rows + streams
        frames, size = sent.shape[1:]
        waves = self.first + 3 * streams * room
        self.wave = np.empty((waves, frames, 2, size), dtype=sent.real.dtype)
        self.wave[:rows, :, 0], self.wave[:rows, :, 1] = data.real, data.imag
        self.wave[rows : self.first, :, 0], self.wave[rows : self.first, :, 1] = sent.real, sent.imag
        self.gram = np.zeros((waves, waves), dtype=np.complex128)
        kernels.inner(self.wave, 0, self.first, self.first, self.gram)
        self.cell = 1 / (np.ptp(start) + size)
        self.cosine, self.delay, self.doppler = np.zeros((0, 2)), np.zeros(0), np.zeros(0)
        self.energy = float(kernels.unleaked(self.gram, rows, streams))  # of the data without the leakage

    def add(self, cosine: Float[Array, " 2"], delay: float, doppler: float) -> None:
        """One more target, to start within half a cell of where it is. Raises Misuse where there is no room."""
        if len(self.delay) >= self.room:
            raise Misuse(f"room = {self.room}: is full; make the fit with more")
        self.cosine = np.vstack([self.cosine, cosine])
        self.delay, self.doppler = np.append(self.delay, delay), np.append(self.doppler, doppler)
        self._evaluate(range(len(self.delay) - 1, len(self.delay)))

    def put(
        self, cosine: Float[Array, "target 2"], delay: Float[Array, " target"], doppler: Float[Array, " target"]
    ) -> None:
        """These targets instead of those there are."""
        self.cosine, self.delay, self.doppler = np.reshape(cosine, (-1, 2)), np.asarray(delay), np.asarray(doppler)
        if len(self.delay):
            self._evaluate(range(len(self.delay)))

    def fit(self, noise_w: float, steps: int = 12, tolerance: float = 0.02) -> Estimate:
        """The most likely parameters near those there are.

        Steps go on until one promises less than ``tolerance`` of the noise power in explained energy; that one is taken unseen.
        They are capped at 0.3 cells; one that explains less is taken back and damped. The lobe's bounds hold.
        """
        lobe = self.aperture.lobe
        low, high = np.maximum(lobe.centre - lobe.width, -0.999), np.minimum(lobe.centre + lobe.width, 0.999)
        cap = np.array([*(0.3 * self.aperture.null), 0.3, 0.3 * self.cell])
        damping, count = 0.0, 0
        now = self._normal(noise_w)
        while True:
            here = self.cosine, self.delay, self.doppler
            cosine, delay, doppler, promise = kernels.step(now[2], now[3], damping, *here, cap, low, high)
            settled = not promise >= tolerance * noise_w
            if settled:
                self.cosine, self.delay, self.doppler = cosine, delay, doppler
            if settled or count == steps:
                break
            count += 1
            self.cosine, self.delay, self.doppler = cosine, delay, doppler
            self._evaluate(range(len(delay)))
            new = self._normal(noise_w)
            if new[0] < now[0] - 1e-6 * noise_w - 1e-7 * self.energy:
                self.put(*here)
                damping = max(10 * damping, 1e-2)
            else:
                now, damping = new, damping / 10 if damping > 1e-4 else 0.0
        return Estimate(
            cosine=self.cosine,
            delay=self.delay,
            doppler=self.doppler,
            amplitude=now[1],
            power=now[4],
            explained=now[0],
            information=2 * now[2],
            steps=count,
        )

    def residual(self, estimate: Estimate | None = None) -> Complex[Array, "row frame sample"]:
        """What the targets (None: no target) and the leakage leave of the data."""
        own, targets = slice(self.rows, self.first), 0 if estimate is None else len(self.delay)
        weight = np.zeros((self.streams * (1 + 3 * targets), self.rows), dtype=np.complex128)
        cross = self.gram[own, : self.rows]
        if estimate is not None:
            b, c = pattern(self.aperture, self.cosine)
            said = estimate.amplitude[:, None, None] * c[:, 0, :, None] * b[:, :1]  # [target stream row]
            weight[self.streams :: 3] = said.reshape(-1, self.rows)
            cross = cross - self.gram[own, self.first : self.rows + len(weight)] @ weight[self.streams :]
        weight[: self.streams] = np.linalg.solve(self.gram[own, own], cross)
        return np.asarray(kernels.rest(self.wave, weight.astype(np.complex64), self.rows))

    def presence(self) -> Float[Array, " target"]:
        """Energy that each target takes out of the data if every row and stream may answer for itself: gamma with rows x streams degrees from noise alone."""
        return np.asarray(kernels.presence(self.gram, self.rows, self.streams, len(self.delay)))

    def _evaluate(self, which: range) -> None:
        size, first = self.spectrum.shape[2], self.first + 3 * self.streams * which.start
        for k in which:
            pair = delayed(self.spectrum, *folded_spectrum(size, self.delay[k], self.doppler[k], self.roll_off))
            kernels.turn(pair, self.start, self.doppler[k], self.wave, self.first + 3 * self.streams * k)
        used = self.first + 3 * self.streams * len(self.delay)
        kernels.inner(self.wave, first, first + 3 * self.streams * len(which), used, self.gram)

    def _normal(self, noise_w: float) -> Any:
        lobe = self.aperture.lobe
        b, c = pattern(self.aperture, self.cosine)
        used = self.first + 3 * self.streams * len(self.delay)
        return kernels.normal(self.gram[:used, :used], b, c, 0.5 * noise_w * lobe.prior, self.cosine - lobe.centre)


def bound(
    aperture: Aperture,
    sent: Complex[Array, "stream frame sample"],
    start: Float[Array, " frame"],
    roll_off: float,
    cosine: Float[Array, "target 2"],
    delay: Float[Array, " target"],
    doppler: Float[Array, " target"],
    amplitude: Complex[Array, " target"],
    noise_w: float,
    amplitude_known: bool = False,
) -> Float[Array, "parameter parameter"]:
    """Cramer-Rao bound of (uy, uz, l, nu) of all targets together, for these very frames and any precoder: papers/001 eq (45).

    ``amplitude_known`` gives the paper's four-parameter matrix, which no estimator that must find the amplitude reaches; it depends on where phase is
    counted from (the arrays' centres, the instant of ``start``). Raises Misuse for targets that cannot be told apart, or not be seen.
    """
    positive("noise_w", noise_w)
    sent = np.asarray(sent, dtype=np.complex128)
    at = JointFit(np.zeros((len(aperture.receive), *sent.shape[1:])), sent, start, roll_off, aperture, len(delay))
    at.put(cosine, delay, doppler)
    b, c = pattern(aperture, at.cosine)
    whole = kernels.tangents(at.gram, b, c, len(aperture.receive))[0]
    targets = len(delay)
    scale = np.ones((targets, 5), dtype=np.complex128)
    scale[:, :4] = np.asarray(amplitude)[:, None]
    whole = np.conj(scale.reshape(-1))[:, None] * whole * scale.reshape(-1)
    own = (np.arange(targets)[:, None] * 5 + np.arange(4)).reshape(-1)
    level = np.arange(targets) * 5 + 4
    information = whole[np.ix_(own, own)]
    if not amplitude_known:
        information = information - whole[np.ix_(own, level)] @ np.linalg.solve(
            whole[np.ix_(level, level)], whole[np.ix_(level, own)]
        )
    information = 2 / noise_w * information.real
    scaling = np.sqrt(np.diag(information))
    if not np.all(scaling > 0) or not np.linalg.cond(information / np.outer(scaling, scaling)) < 1e12:
        raise Misuse(
            "cosine, delay, doppler: the information is singular; the combiner has too few independent columns (three are needed), or two "
            "targets are one"
        )
    return np.asarray(np.linalg.inv(information / np.outer(scaling, scaling)) / np.outer(scaling, scaling))


def _levers(array: AntennaArray, frequency_hz: float) -> tuple[Array, Array]:
    k = 2 * np.pi * frequency_hz / LIGHT_MPS
    return k * array.position_m[:: array.rows, 1], k * array.position_m[: array.rows, 2]
