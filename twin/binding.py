"""Which track is which user: echoes are anonymous, pilots are not, and both have an angle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numba import njit

from hal.array import AntennaArray
from hal.check import shaped
from hal.record import Array, Bool, Float, Int, record
from twin.physics.motion import expect
from twin.records import Tracks

__all__ = ["Bindings", "bind", "start", "track_cosines"]


@record
class Bindings:
    """What ``bind`` remembers from subframe to subframe."""

    user: Int[Array, " user"]
    track: Int[Array, " user"]  # identity of the bound track, or -1
    challenger: Int[
        Array, " user"
    ]  # identity of the track that would be better (-1: none would be), for ``streak`` subframes now
    streak: Int[Array, " user"]
    lost: Bool[Array, " user"]  # was bound once and is not now
    swaps: int  # bindings that went from one track straight to another, so far
    rebindings: int  # users bound again after a loss, so far


def start() -> Bindings:
    """Nobody bound yet."""
    none = np.zeros(0, dtype=np.int64)
    nobody = np.zeros(0, dtype=bool)
    return Bindings(user=none, track=none, challenger=none, streak=none, lost=nobody, swaps=0, rebindings=0)


def bind(
    tracks: Tracks,
    user: Int[Array, " user"],
    cosines: Float[Array, "user 2"],
    covariance: Float[Array, "user 2 2"],
    array: AntennaArray,
    previous: Bindings,
    *,
    gate_probability: float = 0.999,
    margin: float = 6.0,
    patience: int = 4,
    angle_limit: float = 0.03,
) -> tuple[Tracks, Bindings]:
    """The tracks with their ``user`` column filled in, and what to remember.

    ``cosines`` are the users' direction cosines ``(uy, uz)`` in ``array``'s frame as their *pilots alone* say, with ``covariance`` (the
    comparison is meaningless with angles that come from tracks); ``tracks`` are predicted to the pilots' time. The score of a pair is
    ``d^T S^-1 d + ln det S``, d the difference of the cosines and S the sum of both covariances; pairs outside the chi-square gate of
    ``gate_probability`` do not count, and scores are summed to a minimum over all users at once.

    A binding changes only after ``patience`` calls in a row with the same better answer: to another track whose score is lower by
    ``margin``, or to none when the track has left the gate or is another user's. It ends at once when its track dies. A user without a
    binding gets one to a confirmed track after ``patience`` calls in which forbidding the pair would have cost the sum at least ``margin`` and
    the user's own angle error (root mean of the variances the array can tell) was below ``angle_limit``; two tracks in one direction
    stay unbound until they part.
    Users who are not in ``user`` are forgotten. Left out: range, which pilots do not give here.
    """
    users = len(user)
    shaped("cosines", cosines, (users, 2))
    shaped("covariance", covariance, (users, 2, 2))
    score, inside = _scores(tracks, cosines, covariance, array, gate_probability)
    bound, challenger, streak, lost = _remembered(user, previous)
    current = _index(bound, tracks.track)  # -1: unbound, or the track has died
    lost |= (bound >= 0) & (current < 0)

    favoured = score.copy()
    held = np.flatnonzero(current >= 0)
    favoured[held, current[held]] -= margin
    proposal = _assigned(favoured, inside)[0]
    new = (current < 0) & (proposal >= 0)
    told = np.array([array.columns != 1, array.rows != 1])  # a line array tells one cosine
    certain = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2) @ told / max(told.sum(), 1)) <= angle_limit
    for one in np.flatnonzero(new):
        if not (certain[one] and _regret(favoured, inside, int(one), int(proposal[one])) >= margin):
            proposal[one] = -1

    wants = np.where(proposal >= 0, tracks.track[proposal] if len(tracks.track) else -1, -1)
    content = proposal == current
    streak = np.where(content, 0, np.where((wants == challenger) & (streak > 0), streak + 1, 1))
    moves = ~content & (streak >= patience)
    while True:  # nobody takes a track from a holder who stays
        stays = np.where(moves, -1, current)
        blocked = moves & (proposal >= 0) & (proposal[:, None] == stays).any(axis=1)
        if not blocked.any():
            break
        moves &= ~blocked

    now = np.where(moves, proposal, current)
    swapped = moves & (current >= 0) & (now >= 0)
    rebound = moves & (current < 0) & (now >= 0) & lost
    lost = (lost | (moves & (current >= 0))) & (now < 0)
    column = np.full(len(tracks.track), -1, dtype=np.int64)
    column[now[now >= 0]] = user[now >= 0]
    memory = Bindings(
        user=np.asarray(user),
        track=np.where(now >= 0, tracks.track[now] if len(tracks.track) else -1, -1),
        challenger=np.where(moves | content, -1, wants),
        streak=np.where(moves, 0, streak),
        lost=lost,
        swaps=previous.swaps + int(swapped.sum()),
        rebindings=previous.rebindings + int(rebound.sum()),
    )
    return replace(tracks, user=column), memory


def track_cosines(
    tracks: Tracks, array: AntennaArray
) -> tuple[Float[Array, "track 2"], Float[Array, "track 2 2"], Bool[Array, " track"]]:
    """The tracks' direction cosines ``(uy, uz)`` in ``array``'s frame, their covariance to first order, and whether they are in front."""
    state, covariance = np.array(tracks.state), np.array(tracks.covariance)
    expected, _, ux, spread = expect(state, covariance, array.rotation, array.origin_m, array.origin_m)
    return expected[:, :2], spread[:, :2, :2], ux > 0


def _scores(
    tracks: Tracks,
    cosines: Float[Array, "user 2"],
    covariance: Float[Array, "user 2 2"],
    array: AntennaArray,
    gate_probability: float,
) -> tuple[Float[Array, "user track"], Bool[Array, "user track"]]:
    seen, spread, ahead = track_cosines(tracks, array)
    distance, size = _compared(np.array(cosines), np.array(covariance), np.array(seen), np.array(spread))
    gate = -2 * np.log1p(-gate_probability)  # chi-square with two degrees of freedom
    return distance + size, (distance <= gate) & (tracks.confirmed & ahead)


@njit(cache=True, error_model="numpy")
def _compared(cosines: Any, covariance: Any, seen: Any, spread: Any) -> Any:  # pragma: no cover - compiled
    # of every pair (user, track) ``d^T S^-1 d`` and ``ln det S``, S the sum of both covariances
    shape = len(cosines), len(seen)
    distance, size = np.empty(shape), np.empty(shape)
    for u in range(len(cosines)):
        for t in range(len(seen)):
            total, y, z = covariance[u] + spread[t], cosines[u, 0] - seen[t, 0], cosines[u, 1] - seen[t, 1]
            det = total[0, 0] * total[1, 1] - total[0, 1] * total[1, 0]
            across = y * z * (total[0, 1] + total[1, 0])
            distance[u, t] = (y * y * total[1, 1] - across + z * z * total[0, 0]) / det
            size[u, t] = np.log(det)
    return distance, size


def _assigned(
    score: Float[Array, "user track"], inside: Bool[Array, "user track"], reluctance: float = 1.0
) -> tuple[Int[Array, " user"], float]:
    """The track of each user (-1: none) that makes the sum least, and that sum; a user may stay alone, for more than any pair costs."""
    users, tracks = score.shape
    if not np.any(inside):
        return np.full(users, -1, dtype=np.int64), 0.0
    from scipy.optimize import linear_sum_assignment

    alone = score[inside].max() + reluctance
    table = np.full((users, tracks + users), alone + 1e6)
    table[:, :tracks][inside] = score[inside]
    table[np.arange(users), tracks + np.arange(users)] = alone
    row, column = linear_sum_assignment(table)
    return np.where(column < tracks, column, -1), float(table[row, column].sum())


def _regret(score: Float[Array, "user track"], inside: Bool[Array, "user track"], user: int, track: int) -> float:
    """What it would cost the sum to forbid one pair and yet bind as many."""
    without = inside.copy()
    without[user, track] = False
    if not np.any(without[user]):
        return np.inf
    # one reluctance for both, above any sum of scores: staying alone is the last resort
    beyond = 1e3 + np.abs(score[inside]).sum()
    worst = score[inside].max()
    return _assigned(score, without, worst + beyond - score[without].max())[1] - _assigned(score, inside, beyond)[1]


def _remembered(user: Int[Array, " user"], previous: Bindings) -> tuple[Array, Array, Array, Array]:
    row = _index(np.asarray(user), previous.user)
    known = row >= 0

    def carried(column: Array, otherwise: int | bool) -> Array:
        out = np.full(len(row), otherwise, dtype=column.dtype)
        out[known] = column[row[known]]
        return out

    return (
        carried(previous.track, -1),
        carried(previous.challenger, -1),
        carried(previous.streak, 0),
        carried(previous.lost, False),
    )


def _index(wanted: Int[Array, " item"], among: Int[Array, " place"]) -> Int[Array, " item"]:
    """Where each wanted identity stands among others, -1 for those that are not there or are negative themselves."""
    match = (wanted[:, None] == among[None, :]) & (wanted[:, None] >= 0)
    return np.where(match.any(axis=1), match.argmax(axis=1) if len(among) else -1, -1)
