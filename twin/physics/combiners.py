"""Sensing combiners: W so that the chains hear ``W^H x`` (papers/001 sections IV-C, V-B to V-D). The machine's response is its conjugate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hal.array import AntennaArray, direction_from, steering
from hal.errors import Misuse
from hal.record import Array, Complex, Float, record
from twin.physics.hybrid_bound import angle_bound, angle_slopes, combiner_gram, precoder_gram

__all__ = [
    "Generations",
    "closed_form",
    "genetic",
    "random_phases",
    "random_steering",
    "shifted",
    "squinted",
    "unambiguous",
]


@record
class Generations:
    """The genetic search: its best combiner and how it got there."""

    combiner: Complex[Array, "element chain"]
    fitness: Float[
        Array, " generation"
    ]  # best CRLB_azimuth + CRLB_elevation so far (rad^2), the initial population first


def closed_form(
    array: AntennaArray, direction: Float[Array, " 3"], frequency_hz: float, chains: int = 3
) -> Complex[Array, "element chain"]:
    """Columns ``a``, ``y a``, ``z a`` and, for a fourth chain, ``y z a``: they hold span{a, da/dtheta, da/dphi}, so the bound is the digital one.

    Every derivative of the signal lies in that span on the receive side and ``J(W) <= J(I)``: no combiner of any size knows more about a target at
    ``direction``. Two-way product form: exactly ambiguous outside the main lobe (``unambiguous``). Not of unit modulus: through a passive network
    the tapers lose signal against the noise of their terminations; ``squinted`` is the form for phase shifters.
    Raises Misuse for fewer than three chains, which leave an angle unseen, or more than four.
    """
    if not 3 <= chains <= 4:
        raise Misuse(f"chains = {chains}: must be 3 or 4; with fewer the information is singular, more add nothing")
    a = steering(array, np.asarray(direction, dtype=np.float64), np.float64(frequency_hz))
    y, z = array.position_m[:, 1], array.position_m[:, 2]
    tapers = np.column_stack([np.ones_like(y), y, z, y * z])[:, :chains]
    return _unit(a[:, None] * tapers)


def squinted(
    array: AntennaArray, direction: Float[Array, " 3"], frequency_hz: float, offset: float = 0.1
) -> Complex[Array, "element 4"]:
    """Four steered beams ``offset`` null distances to either side on both axes: unit modulus, 1.0001 times the closed form at 0.1, 1.005 at 0.25.

    Source: differences of beams close together are the derivatives. Raises Misuse where a beam would look behind the array's plane.
    """
    null = np.array([2.0 / array.columns, 2.0 / array.rows])
    corner = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    return _steered(array, np.asarray(direction)[1:] + offset * null * corner, frequency_hz)


def unambiguous(
    array: AntennaArray, direction: Float[Array, " 3"], frequency_hz: float, rng: np.random.Generator
) -> Complex[Array, "element 4"]:
    """Columns ``a``, ``y a``, ``z a`` and random phases: at the digital bound, and no direction of the half space looks like another.

    The random column hears a target anywhere at about one element's gain; the price is a threshold some 20 dB higher outside the main lobe.
    """
    noise = np.exp(2j * np.pi * rng.random(len(array.position_m)))
    return _unit(np.column_stack([closed_form(array, direction, frequency_hz), noise]))


def random_phases(array: AntennaArray, chains: int, rng: np.random.Generator) -> Complex[Array, "element chain"]:
    """Independent uniform phases: the combiner "that does not steer any beam" of section V-B."""
    return _unit(np.exp(2j * np.pi * rng.random((len(array.position_m), chains))))


def random_steering(
    array: AntennaArray, frequency_hz: float, chains: int, rng: np.random.Generator
) -> Complex[Array, "element chain"]:
    """Steering vectors at uniform azimuths and elevations of the front half space: the "random" combiner of section V-C."""
    angle = rng.uniform(-np.pi / 2, np.pi / 2, (2, chains))
    return _unit(steering(array, direction_from(*angle), np.float64(frequency_hz)).T)


def shifted(
    array: AntennaArray,
    combiner: Complex[Array, "element chain"],
    designed: Float[Array, " 3"],
    centre: Float[Array, " 3"],
    frequency_hz: float,
) -> Complex[Array, "element chain"]:
    """A combiner regenerated for another direction of a beam sweep: ``diag(a(centre) a*(designed)) W``, a shift in direction cosines (section IV-C)."""
    frequency = np.float64(frequency_hz)
    turn = steering(array, np.asarray(centre, float), frequency) * np.conj(
        steering(array, np.asarray(designed, float), frequency)
    )
    return np.asarray(turn[:, None] * combiner)


def genetic(
    array: AntennaArray,
    direction: Float[Array, " 3"],
    frequency_hz: float,
    rng: np.random.Generator,
    *,
    chains: int = 4,
    population: int = 200,
    elite_rate: float = 0.4,
    generations: int = 50,
    spread_rad: float = np.deg2rad(8.0),
    mutation: float = 0.0,
) -> Generations:
    """The paper's search for eq (78): columns are genes, the fittest share ``elite_rate`` survives, children take each column from one of two elites.

    Genes are steering vectors at random angles within ``spread_rad`` of the assumed direction (our reading: the text says "inspired by ... the
    steering vector"). The fitness is CRLB_azimuth + CRLB_elevation of ``angle_bound`` for the precoder of eq (79), unit amplitude, noise and sample.
    Without ``mutation`` (the chance of a gene drawn anew; the paper names none) nothing can appear that the first population had not.
    Raises Misuse for an elite of fewer than two.
    """
    elite = round(elite_rate * population)
    if not 2 <= elite <= population:
        raise Misuse(f"elite_rate = {elite_rate:g} of population = {population}: must leave at least two parents")
    slopes = angle_slopes(array, direction, frequency_hz)
    light = precoder_gram(slopes, np.conj(slopes[:, :1]) / np.sqrt(len(slopes)))
    azimuth, elevation = np.arctan2(direction[1], direction[0]), np.arcsin(direction[2])

    def genes(*shape: int) -> Array:
        away = rng.uniform(-spread_rad, spread_rad, (2, *shape))
        beams = steering(array, direction_from(azimuth + away[0], elevation + away[1]), np.float64(frequency_hz))
        return np.asarray(np.moveaxis(beams, -1, -2) / np.sqrt(len(slopes)))

    def fitness(members: Array) -> Array:
        bound = angle_bound(combiner_gram(slopes, members), light, 1.0, 1.0, 1)
        return np.asarray(np.trace(bound, axis1=-2, axis2=-1))

    people = genes(population, chains)
    score = fitness(people)
    best = [float(score.min())]
    for _ in range(generations):
        order = np.argsort(score, kind="stable")[:elite]
        people, score = people[order], score[order]
        parent = people[rng.integers(elite, size=(population - elite, 2))]
        from_first = rng.random((population - elite, chains)) < 0.5
        children = np.where(from_first[:, None, :], parent[:, 0], parent[:, 1])
        if mutation > 0:
            fresh = rng.random((population - elite, chains)) < mutation
            children = np.where(fresh[:, None, :], genes(population - elite, chains), children)
        # a child with one column twice is singular: its score stays out of the way
        people = np.concatenate([people, children])
        score = np.concatenate([score, _scored(children, fitness)])
        best.append(float(score.min()))
    return Generations(combiner=people[int(np.argmin(score))], fitness=np.array(best))


def _scored(members: Array, fitness: Callable[[Array], Array]) -> Array:
    column = members[:, :, :, None] * members.conj()[:, :, None, :]
    alike = np.abs(column.sum(axis=1)) > 1 - 1e-9
    sound = alike.sum(axis=(1, 2)) == members.shape[2]
    out = np.full(len(members), np.inf)
    if sound.any():
        out[sound] = fitness(members[sound])
    return out


def _steered(
    array: AntennaArray, cosine: Float[Array, "chain 2"], frequency_hz: float
) -> Complex[Array, "element chain"]:
    ahead = 1 - np.sum(cosine**2, axis=-1)
    if not np.all(ahead > 0):
        raise Misuse(
            "direction: a beam beside it would leave the half space in front of the array; point nearer to boresight"
        )
    direction = np.column_stack([np.sqrt(ahead), cosine])
    return _unit(steering(array, direction, np.float64(frequency_hz)).T)


def _unit(columns: Complex[Array, "element chain"]) -> Complex[Array, "element chain"]:
    return np.asarray(columns / np.linalg.norm(columns, axis=0))
