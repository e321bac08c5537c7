"""Precoders of several streams, their split into analog and digital, and what they are worth to a user (papers/001 sections IV-A, IV-D)."""

from __future__ import annotations

import numpy as np

from hal.array import AntennaArray, steering
from hal.check import positive, shaped
from hal.errors import Misuse
from hal.record import Array, Complex, Float, record

__all__ = ["Split", "omp", "pe_altmin", "sensing_precoder", "spectral_efficiency", "svd_precoder"]


@record
class Split:
    """A precoder or combiner as ``analog @ digital``: phase shifters of equal modulus, and what the chains weigh."""

    analog: Complex[Array, "element chain"]  # of modulus 1 / sqrt(elements)
    digital: Complex[Array, "chain stream"]
    misfit: float  # ||target - analog digital||_F / ||target||_F


def sensing_precoder(
    array: AntennaArray, direction: Float[Array, " 3"], frequency_hz: float, power_w: float, streams: int
) -> Complex[Array, "element stream"]:
    """``sqrt(P / (N_t N_s)) a*(direction) 1^T``: every stream on one beam, eq (79); our signs conjugate it (``A = a_r a_t^T``)."""
    positive("power_w", power_w)
    a = steering(array, np.asarray(direction, dtype=np.float64), np.float64(frequency_hz))
    return np.asarray(np.sqrt(power_w / (len(a) * streams)) * np.conj(a)[:, None] * np.ones(streams))


def svd_precoder(
    channel: Complex[Array, "antenna element"], power_w: float, streams: int, noise_w: float | None = None
) -> tuple[Complex[Array, "element stream"], Complex[Array, "antenna stream"]]:
    """The precoder and combiner that maximise eq (47): leading right and left singular vectors of the user's channel.

    ``noise_w``: fill water over the streams; None gives each the same power, as the paper does. Raises Misuse for more streams than the channel's rank.
    """
    positive("power_w", power_w)
    left, size, right = np.linalg.svd(np.asarray(channel), full_matrices=False)
    rank = int(np.sum(size > 1e-9 * size[0]))
    if not 1 <= streams <= rank:
        raise Misuse(
            f"streams = {streams}: must be 1 .. {rank}, the rank of the channel; more antennas or paths carry more"
        )
    share = np.full(streams, power_w / streams)
    if noise_w is not None:
        cost = positive("noise_w", noise_w) / size[:streams] ** 2
        for used in range(streams, 0, -1):
            level = (power_w + cost[:used].sum()) / used
            if level > cost[used - 1]:
                break
        share = np.maximum(level - cost, 0.0)
    return right[:streams].conj().T * np.sqrt(share), left[:, :streams]


def spectral_efficiency(
    channel: Complex[Array, "antenna element"],
    precoder: Complex[Array, "element stream"],
    combiner: Complex[Array, "antenna stream"],
    noise_w: float,
) -> float:
    """``log2 det(I + R_c^-1 W_c^H H F F^H H^H W_c)`` with ``R_c = noise W_c^H W_c``, bit/s/Hz: eq (47).

    Raises Misuse for a combiner with dependent columns.
    """
    positive("noise_w", noise_w)
    basis, triangle = np.linalg.qr(combiner)
    diagonal = np.abs(np.diag(triangle))
    if not diagonal.min() > 1e-10 * diagonal.max():
        raise Misuse("combiner: is singular; its columns must be linearly independent")
    through = basis.conj().T @ channel @ precoder
    size = np.linalg.svd(through, compute_uv=False)
    return float(np.log2(1 + size**2 / noise_w).sum())


def pe_altmin(
    target: Complex[Array, "element stream"],
    chains: int,
    rng: np.random.Generator,
    *,
    steps: int = 100,
    tolerance: float = 1e-6,
) -> Split:
    """Alternating minimisation by phase extraction: ``digital`` by the orthogonal Procrustes solution, ``analog`` by the phases of ``target digital^H``.

    Scaled at the end to the target's Frobenius norm, which is its power. Source: Yu, Shen, Zhang, Letaief, IEEE J. Sel. Top. Signal Process. 10(3), 2016,
    algorithm 2 (reference [37] of papers/001). Raises Misuse for fewer chains than streams.
    """
    elements, _ = _split_size(target, chains)
    analog = np.exp(2j * np.pi * rng.random((elements, chains)))
    last = np.inf
    for _ in range(steps):
        left, _, right = np.linalg.svd(target.conj().T @ analog, full_matrices=False)
        digital = right.conj().T @ left.conj().T
        analog = np.exp(1j * np.angle(target @ digital.conj().T))
        miss = float(np.linalg.norm(target - analog @ digital * _scale(target, analog @ digital)))
        if not last - miss > tolerance * np.linalg.norm(target):
            break
        last = miss
    digital = np.linalg.lstsq(analog, target, rcond=None)[0]
    return _split(target, analog, digital)


def omp(target: Complex[Array, "element stream"], chains: int, dictionary: Complex[Array, "element atom"]) -> Split:
    """Orthogonal matching pursuit: ``analog`` from the columns of a dictionary of steering vectors, ``digital`` by least squares.

    Source: El Ayach, Rajagopal, Abu-Surra, Pi, Heath, IEEE Trans. Wireless Commun. 13(3), 2014, algorithm 1. Raises Misuse for fewer chains than streams,
    or a dictionary with fewer columns than chains.
    """
    elements, _ = _split_size(target, chains)
    shaped("dictionary", dictionary, (elements, None))
    if dictionary.shape[1] < chains:
        raise Misuse(f"dictionary: has {dictionary.shape[1]} columns, must have at least {chains}, one a chain")
    atoms = dictionary / np.linalg.norm(dictionary, axis=0)
    rest = target
    chosen: list[int] = []
    for _ in range(chains):
        score = np.sum(np.abs(atoms.conj().T @ rest) ** 2, axis=1)
        score[chosen] = -1.0
        chosen.append(int(np.argmax(score)))
        digital = np.linalg.lstsq(atoms[:, chosen], target, rcond=None)[0]
        rest = target - atoms[:, chosen] @ digital
    return _split(target, atoms[:, chosen], digital)


def _split_size(target: Array, chains: int) -> tuple[int, int]:
    elements, streams = np.shape(target)
    if not streams <= chains <= elements:
        raise Misuse(f"chains = {chains}: must be {streams} .. {elements}: at least one a stream")
    return elements, streams


def _scale(target: Array, made: Array) -> float:
    return float(np.linalg.norm(target)) / max(float(np.linalg.norm(made)), 1e-300)


def _split(target: Array, analog: Array, digital: Array) -> Split:
    analog_unit = analog / np.abs(analog) / np.sqrt(len(analog))
    digital = digital * np.sqrt(len(analog)) * np.abs(analog[0])[:, None]
    made = analog_unit @ digital
    digital = digital * _scale(target, made)
    miss = np.linalg.norm(target - analog_unit @ digital) / np.linalg.norm(target)
    return Split(analog=analog_unit, digital=digital, misfit=float(miss))
