"""Counter-based chance: the same seed, stream, entity and time give the same numbers, whoever else asks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from math import factorial

import numpy as np
from jaxtyping import UInt32
from numba import njit

from hal.errors import Misuse
from hal.record import Array, Complex, Float, Int

__all__ = ["Draws"]

Integers = int | Int[Array, "..."]  # one number, or an array of them

_MULTIPLY_0 = np.uint64(0xD2511F53)
_MULTIPLY_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint64(0x9E3779B9)
_WEYL_1 = np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF_WORD = np.uint64(32)
_ONE = np.uint64(1)

# Own series instead of libm's: they vectorise, and give the same bits on every machine.
_HALF_PI = np.pi / 2
_LN2 = np.log(2.0)
_S3, _S5, _S7, _S9, _S11, _S13, _S15 = ((-1.0) ** k / factorial(2 * k + 1) for k in range(1, 8))
_C2, _C4, _C6, _C8, _C10, _C12, _C14, _C16 = ((-1.0) ** k / factorial(2 * k) for k in range(1, 9))
_L3, _L5, _L7, _L9, _L11, _L13, _L15, _L17, _L19 = (2.0 / (2 * k + 1) for k in range(1, 10))
_SQRT2 = np.sqrt(2.0)
_MANTISSA = np.int64(0x000FFFFFFFFFFFFF)
_EXPONENT_OF_ONE = np.int64(0x3FF0000000000000)
_EXPONENT_OF_2_52 = np.int64(0x4330000000000000)
_2_52 = 2.0**52


@dataclass(frozen=True)
class Draws:
    """All randomness of a run: ``seed`` and nothing else, so there is no state to order, copy or lose.

    Philox4x32-10 is keyed by 64 bits of BLAKE2b(seed, stream) and counts over ``(block of four words, entity, t_ns)``.
    A number therefore depends on its own seed, stream, entity, time and place in the row only: other entities, other
    streams, the order of calls and how a batch is split change nothing, and a longer row starts with the shorter one.

    ``entity`` and ``t_ns`` are integers or integer arrays that broadcast to the leading shape; ``n`` is the length of
    the last axis.
    ``entity`` must lie in [-2^31, 2^31) and ``n`` in [0, 2^32]; ``t_ns`` may be any signed 64-bit integer.
    All four methods read the same words: give every purpose a stream name of its own.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox4x32 with ten rounds).
    """

    seed: int

    def words(self, stream: str, entity: Integers, t_ns: Integers, n: int) -> UInt32[Array, "*batch n"]:
        """Uniform 32-bit words.

        Raises:
            Misuse: an entity is outside 32 bits, a time is no integer, or ``n`` is out of range.
        """
        shape, rows, times = _counters(entity, t_ns, n)
        out = np.empty((rows.size, n), np.uint32)
        _fill_words(*_key(self.seed, stream), rows, times, out)
        return out.reshape(*shape, n)

    def uniform(self, stream: str, entity: Integers, t_ns: Integers, n: int) -> Float[Array, "*batch n"]:
        """Uniform on the open interval (0, 1), on a grid of 2^-52 offset by half a step: never 0, never 1.

        Raises:
            Misuse: as ``words``.
        """
        shape, rows, times = _counters(entity, t_ns, n)
        words = np.empty((rows.size, 2 * n), np.uint32)
        _fill_words(*_key(self.seed, stream), rows, times, words)
        out = np.empty((rows.size, n))
        _to_uniform(words, out)
        return out.reshape(*shape, n)

    def normal(self, stream: str, entity: Integers, t_ns: Integers, n: int) -> Float[Array, "*batch n"]:
        """Normal with zero mean and unit variance (Box-Muller on pairs of words; no value lies beyond 6.77).

        Raises:
            Misuse: as ``words``.
        """
        shape, rows, times = _counters(entity, t_ns, n)
        out = np.empty((rows.size, n))
        _fill_normals(*_key(self.seed, stream), rows, times, 2.0, out)
        return out.reshape(*shape, n)

    def complex_normal(self, stream: str, entity: Integers, t_ns: Integers, n: int) -> Complex[Array, "*batch n"]:
        """Circular complex normal CN(0, 1): variance one half in each part.

        Raises:
            Misuse: as ``words``.
        """
        shape, rows, times = _counters(entity, t_ns, n)
        out = np.empty((rows.size, n), np.complex128)
        _fill_normals(*_key(self.seed, stream), rows, times, 1.0, out.view(np.float64))
        return out.reshape(*shape, n)


def _counters(entity: int | Array, t_ns: int | Array, n: int) -> tuple[tuple[int, ...], Array, Array]:
    e, t = np.asarray(entity), np.asarray(t_ns)
    for field, value in (("entity", e), ("t_ns", t)):
        if not (value.dtype.kind in "iu" or value.size == 0):
            raise Misuse(f"{field}: has dtype {value.dtype}, must be an integer; round or index it before drawing")
    if e.size and not (-(2**31) <= int(e.min()) and int(e.max()) < 2**31):
        raise Misuse(f"entity = {int(e.min())} .. {int(e.max())}: must lie in [-2^31, 2^31); number entities compactly")
    if t.dtype == np.uint64 and t.size and int(t.max()) >= 2**63:
        raise Misuse(f"t_ns = {int(t.max())}: must be a signed 64-bit integer")
    if not 0 <= n <= 2**32:
        raise Misuse(f"n = {n!r}: must lie in [0, 2^32]")
    shape = np.broadcast(e, t).shape
    rows, times = np.empty(shape, np.int64), np.empty(shape, np.int64)
    rows[...], times[...] = e, t
    return shape, rows.reshape(-1), times.reshape(-1)


@lru_cache(maxsize=1024)
def _key(seed: int, stream: str) -> tuple[np.uint64, np.uint64]:
    digest = hashlib.blake2b(f"{int(seed)}\0{stream}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest[:4], "little")), np.uint64(int.from_bytes(digest[4:], "little"))


@njit(inline="always")
def _philox(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    for _ in range(10):
        p0 = _MULTIPLY_0 * c0
        p1 = _MULTIPLY_1 * c2
        c0, c1, c2, c3 = (p1 >> _HALF_WORD) ^ c1 ^ k0, p1 & _LOW, (p0 >> _HALF_WORD) ^ c3 ^ k1, p0 & _LOW
        k0 = (k0 + _WEYL_0) & _LOW
        k1 = (k1 + _WEYL_1) & _LOW
    return c0, c1, c2, c3


@njit(inline="always")
def _as_float(bits):  # type: ignore[no-untyped-def]
    # exact below 2^52, and unlike a conversion from 64 bits it vectorises
    return np.int64(np.int64(bits) | _EXPONENT_OF_2_52).view(np.float64) - _2_52


@njit(inline="always")
def _pair(w0, w1, scale):  # type: ignore[no-untyped-def]
    """Two normals of variance ``scale / 2`` out of two words."""
    # -log((w0 + 1/2) 2^-32): exponent and mantissa apart, then 2 atanh((m-1)/(m+1)) for m in [sqrt(1/2), sqrt(2))
    u = np.float64(_as_float(w0) + 0.5)
    bits = u.view(np.int64)
    m = np.int64((bits & _MANTISSA) | _EXPONENT_OF_ONE).view(np.float64)
    e = _as_float(bits >> np.int64(52)) - (1023.0 + 32.0)
    big = m > _SQRT2
    m = 0.5 * m if big else m
    e = e + 1.0 if big else e
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = _L11 + z * (_L13 + z * (_L15 + z * (_L17 + z * _L19)))
    log_m = s * (2.0 + z * (_L3 + z * (_L5 + z * (_L7 + z * (_L9 + z * p)))))
    radius = np.sqrt(-scale * (e * _LN2 + log_m))
    # the top two bits choose the quadrant, the other thirty the angle within it, in (-pi/4, pi/4)
    x = (_as_float(w1 & np.uint64(0x3FFFFFFF)) + 0.5) * (_HALF_PI / 2.0**30) - _HALF_PI / 2.0
    q = x * x
    ps = _S7 + q * (_S9 + q * (_S11 + q * (_S13 + q * _S15)))
    pc = _C8 + q * (_C10 + q * (_C12 + q * (_C14 + q * _C16)))
    sine = x * (1.0 + q * (_S3 + q * (_S5 + q * ps)))
    cosine = 1.0 + q * (_C2 + q * (_C4 + q * (_C6 + q * pc)))
    swap = (w1 & np.uint64(0x40000000)) != np.uint64(0)
    a = sine if swap else cosine
    b = cosine if swap else sine
    signed = -radius if (w1 & np.uint64(0x80000000)) != np.uint64(0) else radius
    return (-signed if swap else signed) * a, signed * b


@njit(cache=True, error_model="numpy")
def _fill_words(k0, k1, entity, t_ns, out):  # type: ignore[no-untyped-def]
    rows, n = out.shape
    whole = n // 4
    for row in range(rows):
        c1 = np.uint64(entity[row]) & _LOW
        c2 = np.uint64(t_ns[row]) & _LOW
        c3 = np.uint64(t_ns[row]) >> _HALF_WORD
        line = out[row]
        for j in range(whole):
            w0, w1, w2, w3 = _philox(np.uint64(j), c1, c2, c3, k0, k1)
            line[4 * j] = np.uint32(w0)
            line[4 * j + 1] = np.uint32(w1)
            line[4 * j + 2] = np.uint32(w2)
            line[4 * j + 3] = np.uint32(w3)
        if 4 * whole < n:
            last = _philox(np.uint64(whole), c1, c2, c3, k0, k1)
            for i in range(n - 4 * whole):
                line[4 * whole + i] = np.uint32(last[i])


@njit(cache=True, error_model="numpy")
def _to_uniform(words, out):  # type: ignore[no-untyped-def]
    rows, n = out.shape
    for row in range(rows):
        for i in range(n):
            high = np.uint64(words[row, 2 * i]) << np.uint64(20)
            low = np.uint64(words[row, 2 * i + 1]) >> np.uint64(12)
            out[row, i] = (_as_float(high | low) + 0.5) * 2.0**-52


@njit(cache=True, error_model="numpy")
def _fill_normals(k0, k1, entity, t_ns, scale, out):  # type: ignore[no-untyped-def]
    rows, n = out.shape
    whole = n // 4
    for row in range(rows):
        c1 = np.uint64(entity[row]) & _LOW
        c2 = np.uint64(t_ns[row]) & _LOW
        c3 = np.uint64(t_ns[row]) >> _HALF_WORD
        line = out[row]
        for j in range(whole):
            w0, w1, w2, w3 = _philox(np.uint64(j), c1, c2, c3, k0, k1)
            a, b = _pair(w0, w1, scale)
            c, d = _pair(w2, w3, scale)
            line[4 * j] = a
            line[4 * j + 1] = b
            line[4 * j + 2] = c
            line[4 * j + 3] = d
        if 4 * whole < n:
            w0, w1, w2, w3 = _philox(np.uint64(whole), c1, c2, c3, k0, k1)
            a, b = _pair(w0, w1, scale)
            c, d = _pair(w2, w3, scale)
            last = (a, b, c, d)
            for i in range(n - 4 * whole):
                line[4 * whole + i] = last[i]
