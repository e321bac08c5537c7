"""Information and bounds of several targets, against the printed sums, a numerical Jacobian, and torch's gradients."""

from __future__ import annotations

import numpy as np
import pytest

from hal.array import Upa, angle_jacobian, direction_from, steering, steering_gradient
from hal.errors import Misuse
from twin.physics.fisher import angle_weight, crb, echo_gram, illumination, information, total_information

FC, M, K, NOISE = 100e9, 6, 3, 0.7
F = FC + 1e9 * (np.arange(M) - (M - 1) / 2)
SENT = Upa(6, 4).build(FC, np.zeros(3), np.eye(3))
HEARD = Upa(5, 4).build(FC, np.zeros(3), np.eye(3))


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def case(rng):
    azimuth, elevation = rng.uniform(-0.6, 0.6, K), rng.uniform(-0.4, 0.4, K)
    gain = rng.normal(size=(K, M)) + 1j * rng.normal(size=(K, M))
    response = rng.normal(size=(M, 24)) + 1j * rng.normal(size=(M, 24))
    return azimuth, elevation, gain, response, rng.uniform(0.5, 2, M)


def signs(convention):
    return (lambda a: a) if convention == "consistent" else np.conj


def echo(azimuth, elevation, gain, response, convention="consistent"):
    """The mean of eq (9) at unit power, [subcarrier element], as a function of angles: nothing but steering vectors."""
    turn, out = signs(convention), []
    for m in range(M):
        y = np.zeros(20, complex)
        for k in range(K):
            d = direction_from(azimuth[k], elevation[k])
            y += gain[k, m] * turn(steering(HEARD, d, F[m])) * (turn(steering(SENT, d, F[m])) @ response[m])
        out.append(y)
    return np.array(out)


def naive(direction, gain, response, power, noise):
    """Eq (10) term by term, in cosines: dense vectors, loops over subcarriers and pairs of targets."""
    total = np.zeros((2 * K, 2 * K))
    for m in range(M):
        covariance = np.outer(response[m], response[m].conj()) * power[m]
        for k in range(K):
            for n in range(K):
                ar = [steering(HEARD, direction[i], F[m]) for i in (k, n)]
                at = [steering(SENT, direction[i], F[m]) for i in (k, n)]
                dr = [steering_gradient(HEARD, direction[i], F[m]) for i in (k, n)]
                dt = [steering_gradient(SENT, direction[i], F[m]) for i in (k, n)]
                for i in range(2):
                    for j in range(2):

                        def lit(a, b, covariance=covariance):
                            return a.conj() @ covariance.conj() @ b

                        value = (dr[0][i].conj() @ dr[1][j]) * lit(at[0], at[1]) + (dr[0][i].conj() @ ar[1]) * lit(
                            at[0], dt[1][j]
                        )
                        value += (ar[0].conj() @ dr[1][j]) * lit(dt[0][i], at[1]) + (ar[0].conj() @ ar[1]) * lit(
                            dt[0][i], dt[1][j]
                        )
                        total[2 * k + i, 2 * n + j] += 2 / noise * (gain[k, m].conj() * gain[n, m] * value).real
    return total


def ours(azimuth, elevation, gain, response, power, **how):
    direction = direction_from(azimuth, elevation)
    gram = echo_gram(HEARD, direction, gain, F, NOISE, **how)
    lit = illumination(SENT, direction, F, response, how.get("convention", "consistent"))
    return total_information(information(gram, lit), power)


def test_the_printed_sums(case):
    azimuth, elevation, gain, response, power = case
    expected = naive(direction_from(azimuth, elevation), gain, response, power, NOISE)
    np.testing.assert_allclose(ours(*case), expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("convention", ["consistent", "printed"])
def test_a_numerical_jacobian(case, convention):
    azimuth, elevation, gain, response, power = case
    slopes, step = [], 1e-5
    for k in range(K):
        for which in range(2):
            moved = []
            for s in (step, -step, 2 * step, -2 * step):
                angles = [azimuth.copy(), elevation.copy()]
                angles[which][k] += s
                moved.append(echo(*angles, gain, response, convention))
            slopes.append((8 * (moved[0] - moved[1]) - (moved[2] - moved[3])) / (12 * step))
    slopes = np.array(slopes)
    expected = 2 / NOISE * np.einsum("amn,m,bmn->ab", slopes.conj(), power, slopes).real
    jacobian = np.zeros((2 * K, 2 * K))
    for k, block in enumerate(angle_jacobian(direction_from(azimuth, elevation))):
        jacobian[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = block
    found = jacobian.T @ ours(*case, convention=convention) @ jacobian
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7 * np.abs(expected).max())
    weight = angle_weight(direction_from(azimuth, elevation))
    np.testing.assert_allclose(
        crb(ours(*case, convention=convention), weight), np.trace(np.linalg.inv(expected)), rtol=1e-6
    )


def test_conventions_differ_and_printed_loses_the_common_focus(case):
    """A beam matched to a user lights a target beside it in our reading; in print it lights the mirrored direction."""
    user, target = direction_from(0.3, 0.1), direction_from([0.302], [0.1])
    response = steering(SENT, user, F[:, None][:, 0]).conj() / 24**0.5
    ours_, printed = (
        np.abs(illumination(SENT, target, F, response, c)[..., 0]) ** 2 / 24 for c in ("consistent", "printed")
    )
    assert ours_.min() > 0.95
    assert printed.max() < 0.3


def test_unknown_reflections_are_nuisance_parameters(case):
    """The same bound as inverting the information of angles and all 2 K M real amplitudes together."""
    azimuth, elevation, gain, response, power = case
    direction = direction_from(azimuth, elevation)
    columns = []
    for k in range(K):
        for i in range(2):
            y = np.zeros((M, 20), complex)
            for m in range(M):
                a, b = steering(HEARD, direction[k], F[m]), steering(SENT, direction[k], F[m])
                da, db = steering_gradient(HEARD, direction[k], F[m])[i], steering_gradient(SENT, direction[k], F[m])[i]
                y[m] = gain[k, m] * power[m] ** 0.5 * (da * (b @ response[m]) + a * (db @ response[m]))
            columns.append(y.ravel())
    for k in range(K):
        for m in range(M):
            y = np.zeros((M, 20), complex)
            y[m] = (
                power[m] ** 0.5
                * steering(HEARD, direction[k], F[m])
                * (steering(SENT, direction[k], F[m]) @ response[m])
            )
            columns += [y.ravel(), 1j * y.ravel()]
    d = np.array(columns)
    whole = np.linalg.inv(2 / NOISE * (d.conj() @ d.T).real)[: 2 * K, : 2 * K]
    found = crb(ours(*case, reflection="unknown"))
    np.testing.assert_allclose(found, np.trace(whole), rtol=1e-8)
    assert found > crb(ours(*case))


def test_a_combiner_that_is_square_loses_nothing_and_fewer_chains_lose(case, rng):
    square = rng.normal(size=(1, 20, 20)) + 1j * rng.normal(size=(1, 20, 20))
    everything = ours(*case)
    np.testing.assert_allclose(ours(*case, combiner=square), everything, rtol=1e-7)
    lost = everything - ours(*case, combiner=square[:, :, :7])
    assert np.linalg.eigvalsh(lost).min() > -1e-9 * np.abs(everything).max()
    assert np.trace(lost) > 0


def test_torch_runs_the_same_code_with_gradients(case):
    torch = pytest.importorskip("torch")
    azimuth, elevation, gain, response, power = case
    direction = torch.asarray(direction_from(azimuth, elevation))
    phase = torch.asarray(np.angle(response)).requires_grad_()
    f = torch.asarray(F)

    def bound(p):
        beam = torch.complex(torch.cos(p), torch.sin(p))
        gram = echo_gram(HEARD, direction, torch.asarray(gain), f, NOISE)
        return crb(total_information(information(gram, illumination(SENT, direction, f, beam)), torch.asarray(power)))

    value = bound(phase)
    np.testing.assert_allclose(
        value.item(), crb(ours(azimuth, elevation, gain, np.exp(1j * np.angle(response)), power)), rtol=1e-10
    )
    value.backward()
    at, step = (2, 7), 1e-6
    moved = [np.angle(response) + s * np.eye(24)[7] * (np.arange(M) == 2)[:, None] for s in (step, -step)]
    slope = np.subtract(*(crb(ours(azimuth, elevation, gain, np.exp(1j * m), power)) for m in moved)) / (2 * step)
    np.testing.assert_allclose(float(phase.grad[at]), slope, rtol=1e-5)


def test_what_cannot_be_bounded_says_so(case):
    azimuth, elevation, gain, response, power = case
    azimuth[1], elevation[1] = azimuth[0], elevation[0]
    gain[1] = gain[0]
    with pytest.raises(Misuse, match="singular"):
        crb(ours(azimuth, elevation, gain, response, power))
    with pytest.raises(Misuse, match="singular"):
        crb(ours(*case[:2], 0 * gain, response, power))
    assert crb(ours(*case[:2], 0 * gain, response, power), singular="inf") == np.inf
    with pytest.raises(Misuse, match="at least one target"):
        crb(np.zeros((0, 0)))
    with pytest.raises(Misuse, match="noise_w"):
        echo_gram(HEARD, direction_from([0.1], [0.1]), gain[:1], F, 0.0)
    with pytest.raises(Misuse, match="azimuth"):
        angle_weight(np.array([[0.0, 1.0, 0.0]]))
