"""CSP-Net: delays, phases and power in one pass of a trained network, and a few exact steps after it where there is time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from numba import njit

from hal.array import cis
from hal.check import Ge
from hal.errors import Misuse
from hal.record import Array, Float
from twin.learning.cards import Card, front_end, load
from twin.learning.factored import Aperture, Factored, Scenes, Weights
from twin.learning.scenes import Batch, Recipe
from twin.precoding import Design, Problem
from twin.precoding._joint import Utility, _beam, _forward, _middle
from twin.precoding._scene import Scene, Solution, _before, by_row, scene
from twin.precoding.direct import Direct, _climb, _solution, _theta

__all__ = ["CspNet", "described", "infer", "inputs", "network_of"]

STANDARD = "paper"
MOST = 4096  # of any size of a network


@dataclass(frozen=True)
class CspNet:
    """A trained network's beam for ``U = rate_weight R / R_comm - ln CRB``, the utility of ``direct``, in a hundredth of its time.

    papers/000 section 4, on factored channels (``twin.learning.factored``) or as published (``twin.learning.published``, needs torch, has a trade-off of its
    own). Weights that are named must be of this front end; ``auto`` takes the paper's on any: the factored network counts in beamwidths and carries
    over, at some loss. Rows with more targets than the network knows light the strongest. ``polish_steps`` of exact gradient (phases and power) may
    follow, from the better of the network's beam and the row's last one.
    """

    weights: str = "auto"  # a shipped name, a file NAME.safetensors with its card beside it, or auto
    rate_weight: Annotated[float, Ge(0)] = 2.0  # nats of bound that the whole rate is worth
    polish_steps: Annotated[int, Ge(0)] = 0  # evaluations of direct's gradient after the network; 0: none
    compare_every: Annotated[int, Ge(0)] = (
        0  # designs between two that are compared with direct's, outside any budget; 0: none
    )

    def design(self, problem: Problem) -> Design:
        """Settings for every row of the problem; rows without a user or a target with gain get a steered beam.

        Every ``compare_every``-th design says in ``short_db`` how far each row's utility is below that of a converged ``direct``, which takes 0.1 s a row.
        """
        steps = 0 if problem.previous is None else problem.previous.steps
        rows = [scene(problem, i) for i in range(len(problem.user_direction))]
        beams = iter(self._beams([row for row in rows if row is not None]))  # in the order that rows are solved in
        made = by_row(problem, lambda row, before: self._polished(row, next(beams), before), lambda _, i: rows[i])
        made = replace(made, steps=steps + 1)
        if self.compare_every and steps % self.compare_every == 0:
            made = replace(made, short_db=below_direct_db(problem, made, self.rate_weight))
        return made

    def _beams(self, rows: list[Scene]) -> list[Solution]:
        """The network's beam for each row."""
        if not rows:
            return []
        name = STANDARD if self.weights == "auto" else self.weights
        card, weights = load(name)
        if self.weights != "auto" and (own := described(rows[0])) != card.array:
            raise Misuse(
                f"weights = {name!r}: are for {card.array}, and this front end is {own}; name other weights, train some "
                "(`twin train`, or fine-tune with start:), or leave weights = auto"
            )
        if card.network == "published":
            return [deep(name, row) for row in rows]
        return infer(network_of(card, weights, name), weights, rows, self.rate_weight)

    def _polished(self, row: Scene, found: Solution, before: Solution | None) -> Solution:
        if not self.polish_steps:
            return found
        utility = Direct(rate_weight=self.rate_weight).utility(row)
        first = found
        if before is not None and value(utility, row, before) > value(utility, row, found):
            first = before
        theta, delay_s, z, _ = _climb(utility, row, first, self.polish_steps, False, self.polish_steps)
        return _solution(row, theta, delay_s, z)


def network_of(card: Card, weights: Weights, name: str) -> Factored:
    """The factored network that a card describes; Misuse where the card is of none, or the weights are not its own."""
    if not all(type(size) is int and 0 <= size <= MOST for size in card.shape.values()):
        raise Misuse(f"weights = {name!r}: shape = {dict(card.shape)}: must be whole numbers, 0 .. {MOST}")
    try:
        network = Factored(**card.shape)
    except TypeError as error:
        raise Misuse(f"weights = {name!r}: shape = {dict(card.shape)}: is not a factored network's ({error})") from None
    for key, shape in network.sizes.items():
        if key not in weights or weights[key].shape != shape or not np.all(np.isfinite(weights[key])):
            found = f"is {weights[key].shape} or not finite" if key in weights else "is missing"
            raise Misuse(f"weights = {name!r}: {key!r} {found}; the card's shape needs finite numbers of shape {shape}")
    return network


def value(utility: Utility, row: Scene, found: Solution) -> float:
    """The utility of a solution."""
    return float(utility.parts(_theta(row, found), found.delay_s, found.power_w)[0])


def below_direct_db(problem: Problem, design: Design, rate_weight: float) -> Float[Array, " row"]:
    """By how many decibels of bound each row's utility is below that of a converged ``direct`` (negative: above); NaN where nothing is weighed."""
    direct = Direct(rate_weight=rate_weight)
    best = direct.design(replace(problem, previous=None))
    wired = problem.half.network.wired
    owner = np.zeros(wired.shape[1], np.int64) if (wired.sum(axis=0) > 1).any() else np.argmax(wired, axis=0)
    short = np.full(len(problem.user_direction), np.nan)
    for i in range(len(short)):
        row = scene(problem, i)
        if row is not None:
            ours, theirs = (_before(one, i, owner, row.lines) for one in (design, best))
            if ours is not None and theirs is not None:
                utility = direct.utility(row)
                short[i] = value(utility, row, theirs) - value(utility, row, ours)
    return np.asarray(10 / np.log(10) * short)


def described(row: Scene) -> str:
    """A row's array and delay lines in a card's words."""
    columns, rows = row.array.columns, row.array.rows
    line = row.line.reshape(columns, rows)
    lines = (len(np.unique(line[:, 0])), len(np.unique(line[0]))) if row.lines else None
    step_hz = float(np.mean(np.diff(row.frequency_hz))) if len(row.frequency_hz) > 1 else 0.0
    return front_end(columns, rows, lines, row.carrier_hz, step_hz * len(row.frequency_hz))


def inputs(rows: list[Scene], most_targets: int, rate_weight: float) -> Scenes:
    """What the network reads of rows, in a batch: each one's strongest targets, padded to as many."""
    kept = []
    for row in rows:
        strength = np.sum(np.abs(row.target_gain) ** 2, axis=1)
        kept.append(np.sort(np.argsort(-strength, kind="stable")[:most_targets]))
    shape = (len(rows), max(map(len, kept)))
    subcarriers = len(rows[0].frequency_hz)
    target, present = np.zeros((*shape, 2)), np.zeros(shape)
    gain, metric = np.zeros((*shape, subcarriers)), np.zeros((*shape, 2, 2))
    snr = np.empty((len(rows), subcarriers))
    for i, (row, at) in enumerate(zip(rows, kept, strict=True)):
        count, all_targets = len(at), len(row.target_gain)
        target[i, :count], present[i, :count] = row.target_direction[at, 1:], 1.0
        target[i, count:] = row.user_direction[1:]
        gain[i, :count] = np.abs(row.target_gain[at]) ** 2
        metric[i, :count] = row.weight.reshape(all_targets, 2, all_targets, 2)[at, :, at]
        snr[i] = np.abs(row.user_gain) ** 2 * (len(row.line) * row.power_w / subcarriers / row.noise_w)
    user = np.stack([row.user_direction[1:] for row in rows])
    return Scenes(user, target, present, gain, metric, snr, np.full(len(rows), rate_weight))


def infer(network: Factored, weights: Weights, rows: list[Scene], rate_weight: float) -> list[Solution]:
    """The factored network's beams for rows of one front end: phases and delays from their fields, power from what they light."""
    row = rows[0]
    aperture = Aperture(
        row.array, row.frequency_hz, row.line, row.lines, row.network.delay_bits, row.network.delay_range_s
    )
    settings = network.settings(weights, aperture, inputs(rows, network.most_targets, rate_weight))
    shares: Any = _shares  # compiled: their arguments are not typed
    forward: Any = _forward
    out = []
    for row, theta, delay_s, z in zip(rows, *settings, strict=True):
        utility = Direct(rate_weight=rate_weight).utility(row)
        own = utility.prepared
        line_s = delay_s if row.lines else np.zeros(1)
        beam = _beam(cis(theta), cis(-line_s[:, None] * own.turn), own.line)
        lit = forward(beam[0], beam[1], *own.grid)
        exponent = weights["power.exponent"]
        share = shares(z, exponent, lit, row.power_w, own.snr, own.gram, row.weight, utility.weight)
        found = _solution(row, theta, delay_s, np.log(np.maximum(share, 1e-300)))
        out.append(replace(found, power_w=share * row.power_w))
    return out


def deep(name: str, row: Scene) -> Solution:
    """The published network's beam for a row: its own trade-off, no ``rate_weight``. Raises Misuse without torch."""
    network, aperture = _module(name)
    import torch

    from twin.learning._modules import maps

    count = len(row.target_direction)
    one = Batch(
        user=row.user_direction[None],
        target=row.target_direction[None],
        present=np.ones((1, count)),
        gain=row.target_gain[None] / row.echo_noise_w**0.5,
        metric=np.zeros((1, count, 2, 2)),
        user_power=np.abs(row.user_gain[None]) ** 2 / row.noise_w,
        power_w=np.array([row.power_w]),
        rate_weight=np.zeros(1),
    )
    with torch.no_grad():
        theta, delay_s, share = (x[0].double().numpy() for x in network(*maps(one, aperture, network.shape)))
    share = share / share.sum()
    found = _solution(row, theta, delay_s, np.log(np.maximum(share, 1e-300)))
    return Solution(delay_s=found.delay_s, phase_rad=found.phase_rad, power_w=share * row.power_w)


@lru_cache(maxsize=4)
def _module(name: str) -> tuple[Any, Aperture]:
    from twin.learning.published import Published, module

    card, weights = load(name)
    aperture = Recipe(**card.recipe).aperture
    return module(Published(**card.shape), aperture, weights), aperture


@njit(cache=True)
def _shares(z, exponent, lit, power_w, snr, gram, weight, rate_weight):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    # as Factored.shares, whose slopes are those of direct's utility
    z = z.copy()
    share = np.empty_like(z)
    for r in range(exponent.size + 1):
        share[:] = np.exp(z - z.max())
        share /= share.sum()
        if r == exponent.size:
            break
        value, _, _, _, slope = _middle(lit, share * power_w, snr, gram, weight, rate_weight)
        if not value > -np.inf:
            break
        for m in range(z.size):
            z[m] += exponent[r] * np.log(max(slope[m] * power_w, 1e-300))
    return share
