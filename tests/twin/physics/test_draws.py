import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hal.errors import Misuse
from twin.physics import draws as module
from twin.physics.draws import Draws

# Known answers of philox4x32-10 from Random123 1.14, tests/kat_vectors: counter, key, result.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def philox(counter, key):
    """Plain integers, written from the paper's description."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k0, b % 2**32, (a >> 32) ^ c[3] ^ k1, a % 2**32]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c


def dense_words(seed, stream, entity, t_ns, n):
    digest = hashlib.blake2b(f"{seed}\0{stream}".encode(), digest_size=8).digest()
    key = int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")
    t = t_ns % 2**64
    out = []
    for block in range(-(-n // 4)):
        out += philox([block, entity % 2**32, t % 2**32, t >> 32], key)
    return out[:n]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN_ANSWERS)
def test_published_known_answers(counter, key, result):
    def ints(text):
        return [int(word, 16) for word in text.split()]

    assert philox(ints(counter), ints(key)) == ints(result)
    ours = module._philox(*(np.uint64(v) for v in ints(counter) + ints(key)))
    assert [int(v) for v in ours] == ints(result)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(-(2**70), 2**70),
    st.text(max_size=8),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 41),
)
def test_words_are_the_plain_integer_version(seed, stream, entity, t_ns, n):
    got = Draws(seed).words(stream, entity, t_ns, n)
    assert got.dtype == np.uint32
    assert got.tolist() == dense_words(seed, stream, entity, t_ns, n)


def test_frozen_so_that_no_machine_or_hash_seed_changes_a_run():
    # This module's own output when written; the words agree with the plain version above.
    d = Draws(7)
    assert d.words("noise", 3, 5_000_000, 4).tolist() == dense_words(7, "noise", 3, 5_000_000, 4) == FROZEN_WORDS
    assert [v.hex() for v in d.normal("noise", 3, 5_000_000, 4).tolist()] == FROZEN_NORMALS
    assert [v.hex() for v in d.uniform("noise", 3, 5_000_000, 2).tolist()] == FROZEN_UNIFORMS


FROZEN_WORDS = [4286629843, 3508947768, 2153298821, 2208965051]
FROZEN_NORMALS = ["-0x1.6c15a5fc86537p-6", "-0x1.dd22efd8d3f29p-5", "-0x1.cdedd6819b84bp-1", "0x1.8180bef29e714p-1"]
FROZEN_UNIFORMS = ["0x1.ff018fa7a24c9p-1", "0x1.00b1770b07545p-1"]

METHODS = ["words", "uniform", "normal", "complex_normal"]


@pytest.mark.parametrize("method", METHODS)
def test_another_entity_leaves_others_untouched_and_splits_change_nothing(method):
    draw = getattr(Draws(3), method)
    few, many = np.array([2, 5, -1]), np.array([2, 77, 5, 6, -1, 0])
    t = np.arange(5) * 140_000 + 2**40
    before, after = draw("fading", few[:, None], t, 13), draw("fading", many[:, None], t, 13)
    assert before.shape == (3, 5, 13)
    assert np.array_equal(before, after[[0, 2, 4]])
    parts = [draw("fading", many[:, None], part, 13) for part in (t[:1], t[1:4], t[4:])]
    assert np.array_equal(after, np.concatenate(parts, axis=1))
    assert np.array_equal(after[:, ::-1], draw("fading", many[:, None], t[::-1], 13))
    # alone, and as part of a longer row: the vectorised middle and the scalar tail must give the same bits
    for n in (0, 1, 2, 3, 7, 12):
        assert np.array_equal(draw("fading", 5, int(t[3]), n), after[2, 3, :n])
    assert draw("fading", 5, 0, 1).shape == (1,)
    assert draw("fading", np.array([], dtype=int), 0, 4).shape == (0, 4)


def test_every_coordinate_of_the_counter_and_the_key_matters():
    base = ("a", 1, 1, 64)
    rows = [Draws(1).words(*base)]
    rows += [Draws(seed).words(*base) for seed in (0, 2, -1, 1 + 2**32, 1 + 2**64)]
    rows += [
        Draws(1).words(*change)
        for change in (("b", 1, 1, 64), ("a\0", 1, 1, 64), ("a", 2, 1, 64), ("a", -1, 1, 64), ("a", 1, 2, 64))
    ]
    rows += [Draws(1).words("a", 1, 1 + 2**32, 64), Draws(1).words("a", 1, -1, 64), Draws(1).words("", 1, 1, 64)]
    pool = np.concatenate(rows)
    # 14 * 64 words without a repeat (chance 1e-4 for truly random ones)
    assert np.unique(pool).size == pool.size


def test_two_normals_of_two_words_to_the_last_digits():
    rng = np.random.default_rng(0)
    edge = np.array([0, 1, 2, 2**29, 2**30 - 1, 2**30, 2**31 - 1, 2**31, 3 * 2**30, 2**32 - 2, 2**32 - 1], np.uint64)
    first = np.concatenate([np.repeat(edge, edge.size), rng.integers(0, 2**32, 4000, dtype=np.uint64)])
    second = np.concatenate([np.tile(edge, edge.size), rng.integers(0, 2**32, 4000, dtype=np.uint64)])
    got = np.array([module._pair(a, b, 2.0) for a, b in zip(first, second, strict=True)])
    radius = np.sqrt(-2 * np.log((first.astype(float) + 0.5) / 2**32))
    quadrant = (second >> np.uint64(30)).astype(int)
    angle = ((second & np.uint64(2**30 - 1)).astype(float) + 0.5) / 2**30 * np.pi / 2 - np.pi / 4
    turned = radius * np.exp(1j * angle) * np.array([1, 1j, -1, -1j])[quadrant]
    np.testing.assert_allclose(np.hypot(*got.T), radius, rtol=4e-15, atol=0)
    np.testing.assert_allclose(got @ [1, 1j], turned, rtol=1e-14, atol=0)


def test_uniform_is_open_and_flat():
    high = module._to_uniform
    ends = np.empty((1, 2))
    high(np.array([[0, 0, 2**32 - 1, 2**32 - 1]], np.uint32), ends)
    assert 0 < ends[0, 0] == 2.0**-53
    assert 1 > ends[0, 1] == 1 - 2.0**-53
    x = Draws(11).uniform("u", np.arange(400), 9, 1001).ravel()
    assert stats.kstest(x, "uniform").pvalue > 1e-3
    assert np.unique(x).size == x.size  # 32-bit uniforms would repeat about 19 times here
    pairs = np.histogram2d(x[:-1], x[1:], bins=32, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-3


def test_normal_distribution_and_independence():
    d = Draws(5)
    x = d.normal("n", np.arange(1000), 9, 1001)
    assert stats.kstest(x.ravel(), "norm").pvalue > 1e-3
    size = x.size
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((x**power).mean() - moment) < 4 * np.sqrt(variance / size)
    assert abs(x).max() < np.sqrt(2 * np.log(2**33)) + 1e-9
    # beyond four sigma: 6.334e-5 of a million
    assert 20 < (abs(x) > 4).sum() < 120
    rows = np.concatenate(
        [
            d.normal("n", np.arange(6), 9, 20000),
            d.normal("m", np.arange(6), 9, 20000),
            Draws(6).normal("n", np.arange(6), 9, 20000),
            d.normal("n", 0, np.arange(10, 16), 20000),
            d.normal("n", 0, 9 + 2**32 * np.arange(1, 7), 20000),
        ]
    )
    c = rows @ rows.T / 20000 - np.eye(len(rows))
    assert abs(c).max() < 5 * np.sqrt(2 / 20000)
    # one number of each of many neighbours in time, as fading or noise keyed by the block would use it
    chain = d.normal("n", 4, np.arange(100_000), 2)
    assert stats.kstest(chain[:, 1], "norm").pvalue > 1e-3
    for lag in (1, 2, 7):
        assert abs((chain[lag:, 0] * chain[:-lag, 0]).mean()) < 4 / np.sqrt(100_000)
    square = chain**2 - 1
    assert abs((square[:, 0] * square[:, 1]).mean()) < 4 * 2 / np.sqrt(100_000)


def test_complex_normal_is_circular_with_unit_power():
    z = Draws(5).complex_normal("z", np.arange(500), 2, 1000).ravel()
    assert z.dtype == np.complex128
    assert abs(np.mean(abs(z) ** 2) - 1) < 4 / np.sqrt(z.size)
    assert abs(np.mean(z**2)) < 4 / np.sqrt(z.size)
    assert stats.kstest(abs(z) ** 2, "expon").pvalue > 1e-3
    assert stats.kstest(np.angle(z) / (2 * np.pi) % 1, "uniform").pvalue > 1e-3
    x = Draws(5).normal("z", 3, 2, 8)
    np.testing.assert_allclose(Draws(5).complex_normal("z", 3, 2, 4), (x[::2] + 1j * x[1::2]) / np.sqrt(2), rtol=1e-15)


@pytest.mark.parametrize(
    ("entity", "t_ns", "n", "says"),
    [
        (1.0, 0, 1, "entity: has dtype float64"),
        (0, np.array([0.5]), 1, "t_ns: has dtype float64"),
        (2**31, 0, 1, "entity = 2147483648"),
        (0, np.array([2**63], np.uint64), 1, "t_ns = 9223372036854775808"),
        (0, 0, -1, "n = -1"),
    ],
)
def test_misuse_is_named(entity, t_ns, n, says):
    with pytest.raises(Misuse, match=says):
        Draws(0).words("a", entity, t_ns, n)
