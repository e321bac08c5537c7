"""Random scenes to train and score on, and what beams are worth in them: the loop's own metrics, batched over torch."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from hal.array import Upa, cis, direction_from
from hal.check import Ge, Gt, In, Le
from hal.errors import Misuse
from hal.network import Network, NetworkSpec
from hal.record import Array, Float, record
from twin.learning.factored import Aperture, Scenes
from twin.physics.fisher import angle_weight, crb, echo_gram, illumination, information, total_information
from twin.physics.rate import rate_bps

if TYPE_CHECKING:
    import torch

__all__ = ["Batch", "Lit", "Recipe", "Worth", "worth"]

_DARK = 1e12  # a bound that stands for none, rad^2
_APART = 4e-3  # direction cosines between any two targets, at least: nearer ones are one to any array here


@dataclass(frozen=True)
class Recipe:
    """Where scenes come from: papers/000 section 6.1 with its spreads made ranges, so that one network covers them."""

    carrier_hz: Annotated[float, In("ghz"), Gt(0)] = 100e9
    bandwidth_hz: Annotated[float, In("ghz"), Gt(0)] = 8e9
    subcarriers: Annotated[int, Ge(1)] = 32
    columns: Annotated[int, Ge(1)] = 16
    rows: Annotated[int, Ge(1)] = 16
    delay_lines: tuple[int, int] | None = (8, 8)
    delay_bits: Annotated[int, Ge(0)] = 4
    delay_range_s: Annotated[float, In("ps"), Gt(0)] = 100e-12
    targets: tuple[int, int] = (1, 4)  # how many, inclusive
    snr_db: tuple[float, float] = (-5.0, 20.0)  # power over the noise of one subcarrier
    msia_rad: tuple[float, float] = (0.02, 0.35)  # spread of the targets about the user; uniform in its logarithm
    rate_weight: tuple[float, float] = (0.05, 20.0)  # uniform in its logarithm
    faded: Annotated[float, Ge(0), Le(1)] = (
        0.8  # share of scenes whose targets fade over subcarriers, as printed; the rest are flat
    )
    strength_db: Annotated[float, Ge(0)] = 3.0  # standard deviation of targets' mean gains
    upright: Annotated[float, Ge(0)] = 1.0  # the spread's elevations against its azimuths
    sigma_beta: Annotated[float, Gt(0)] = 1.0  # of the user's gain, one Rayleigh draw a scene
    sigma_alpha: Annotated[float, Gt(0)] = 0.6
    elevation_rad: Annotated[float, In("deg"), Gt(0)] = np.pi / 4  # edges of the sector, as from boresight
    azimuth_rad: Annotated[float, In("deg"), Gt(0)] = np.pi / 3

    @property
    def network(self) -> NetworkSpec:
        """Delay lines behind continuous phases."""
        return Network(
            delay_lines=self.delay_lines,
            delay_bits=self.delay_bits,
            delay_range_s=self.delay_range_s,
            phase_bits=0,
        ).build(self.columns, self.rows)

    @cached_property
    def aperture(self) -> Aperture:
        """The array and the lines of these scenes."""
        m = np.arange(self.subcarriers)
        frequency_hz = self.carrier_hz + self.bandwidth_hz / self.subcarriers * (m - (self.subcarriers - 1) / 2)
        array = Upa(self.columns, self.rows).build(self.carrier_hz, np.zeros(3), np.eye(3))
        return Aperture.of(array, self.network, frequency_hz)

    def draw(self, seed: int, number: int, count: int) -> Batch:
        """Batch ``number`` of the stream ``seed``: the same two numbers are the same scenes, on any machine and after any interruption."""
        if not 1 <= self.targets[0] <= self.targets[1]:
            raise Misuse(f"targets = {self.targets}: must be a range that starts at 1 or above")
        rng = np.random.Generator(np.random.Philox(key=[seed, number]))
        most, subcarriers = self.targets[1], self.subcarriers
        targets = rng.integers(self.targets[0], most + 1, count)
        present = np.arange(most) < targets[:, None]
        (fine, wide), (light, heavy) = self.msia_rad, self.rate_weight
        msia = np.exp(rng.uniform(np.log(fine), np.log(wide), count))
        snr_db = rng.uniform(*self.snr_db, count)
        weight = np.exp(rng.uniform(np.log(light), np.log(heavy), count))
        user, target = self._places(rng, present, msia)
        beta = self.sigma_beta * np.abs(rng.normal(size=(count, 2)) @ [1, 1j]) / np.sqrt(2)
        alpha = rng.normal(size=(count, most, subcarriers, 2)) @ [1, 1j] / np.sqrt(2)
        flat = rng.uniform(size=count) >= self.faded
        alpha[flat] = np.exp(2j * np.pi * rng.uniform(size=(flat.sum(), most, 1)))
        alpha *= self.sigma_alpha * 10 ** (self.strength_db / 20 * rng.normal(size=(count, most, 1)))
        elements = self.columns * self.rows
        power_w = 10 ** (snr_db / 10)
        metric = angle_weight(target.reshape(-1, 3)).reshape(count * most, 2, count * most, 2)
        at = np.arange(count * most)
        return Batch(
            user=user,
            target=target,
            present=present.astype(np.float64),
            gain=np.where(present[..., None], alpha / elements, 0.0),
            metric=metric[at, :, at].reshape(count, most, 2, 2),
            user_power=np.repeat((beta**2 / elements)[:, None], subcarriers, axis=1),
            power_w=power_w,
            rate_weight=weight,
        )

    def _places(self, rng: np.random.Generator, present: Array, msia: Array) -> tuple[Array, Array]:
        """Directions of users and targets: the root mean square of a scene's 2K angles to the user is its MSIA exactly, all inside the sector."""
        count, most = present.shape
        edge = np.array([self.azimuth_rad, self.elevation_rad])
        user, place = np.zeros((count, 2)), np.zeros((count, most, 2))
        left = np.arange(count)
        for _ in range(10_000):
            here = rng.uniform(-1, 1, (len(left), 2)) * edge
            away = rng.normal(size=(len(left), most, 2)) * (1.0, self.upright) * present[left, :, None]
            norm = np.sqrt(2 * present[left].sum(axis=1) / np.sum(away**2, axis=(1, 2)))
            there = here[:, None] + away * (msia[left] * norm)[:, None, None]
            user[left], place[left] = here, there
            cosines = direction_from(there[..., 0], there[..., 1])[..., 1:]
            gap = np.abs(cosines[:, :, None] - cosines[:, None]).max(axis=-1)
            one = np.eye(most, dtype=bool) | ~present[left, :, None] | ~present[left, None, :]
            good = np.all((np.abs(there) <= edge) | ~present[left, :, None], axis=(1, 2)) & np.all(
                (gap > _APART) | one, axis=(1, 2)
            )
            left = left[~good]
            if not left.size:
                return direction_from(user[:, 0], user[:, 1]), direction_from(place[..., 0], place[..., 1])
        raise Misuse(f"msia_rad = {self.msia_rad}: some spreads never fit the sector; lower them or widen the sector")


@record
class Batch:
    """Scenes as numbers; targets beyond a scene's own are padding with no gain, in the user's direction."""

    user: Float[Array, "scene 3"]
    target: Float[Array, "scene target 3"]
    present: Float[Array, "scene target"]
    gain: Array  # [scene target subcarrier], complex two-way field gains
    metric: Float[Array, "scene target 2 2"]
    user_power: Float[Array, "scene subcarrier"]  # |g|^2 along the steering vector; noise is 1 W a subcarrier
    power_w: Float[Array, " scene"]
    rate_weight: Float[Array, " scene"]

    def of(self, at: Any) -> Batch:
        """Some of the scenes."""
        return Batch(**{name: getattr(self, name)[at] for name in self.__dataclass_fields__})

    def scenes(self, aperture: Aperture) -> Scenes:
        """What the network reads of it."""
        matched = self.user_power * len(aperture.line) * self.power_w[:, None] / self.user_power.shape[1]
        return Scenes(
            user=self.user[:, 1:],
            target=self.target[..., 1:],
            present=self.present,
            gain=np.abs(self.gain) ** 2,
            metric=self.metric,
            snr=matched,
            rate_weight=self.rate_weight,
        )


@dataclass(frozen=True)
class Worth:
    """What one batch of beams is worth, ``[scene]`` each."""

    utility: Any  # rate_weight R / R_comm - ln CRB
    rate: Any  # bits a symbol over all subcarriers
    crb: Any  # rad^2


class Lit:
    """A batch on a torch device: Fisher's receive side once, then any number of beams."""

    def __init__(self, batch: Batch, aperture: Aperture, device: str = "cpu", dtype: torch.dtype | None = None) -> None:
        import torch

        self.aperture = aperture
        self.kind = dtype or torch.float32

        def there(value: Array) -> torch.Tensor:
            return torch.as_tensor(np.array(value), dtype=self.kind, device=device)

        self.frequency_hz = torch.as_tensor(np.array(aperture.frequency_hz), dtype=self.kind, device=device)
        # what is a ratio of frequencies is formed before it is rounded
        self.offset = there(2 * np.pi * (aperture.frequency_hz - aperture.carrier_hz) * 1e-12)
        self.line = torch.as_tensor(np.where(aperture.line < 0, 0, aperture.line), device=device)
        self.user, self.target, self.present = there(batch.user), there(batch.target), there(batch.present)
        scale = len(aperture.line)  # keeps single precision's information near 1
        gain = torch.complex(there(batch.gain.real * scale), there(batch.gain.imag * scale))
        self.log_scale = 2.0 * np.log(scale)
        own = aperture.array

        def gram(direction: torch.Tensor, gain: torch.Tensor) -> Any:
            return echo_gram(own, direction, gain, self.frequency_hz, 1.0)

        def lit(direction: torch.Tensor, response: torch.Tensor) -> Any:
            return illumination(own, direction, self.frequency_hz, response)

        with (
            warnings.catch_warnings()
        ):  # torch has no batching rule for conj and says so; what it does instead is right
            warnings.filterwarnings("ignore", message=".*batching rule.*")
            self.gram = torch.func.vmap(gram)(self.target, gain)
        self._lit = torch.func.vmap(lit)
        self.everyone = torch.cat([self.user[:, None], self.target], dim=1)
        self.heard = there(batch.user_power)
        self.power_w, self.rate_weight = there(batch.power_w), there(batch.rate_weight)
        seen = batch.scenes(aperture)
        self.scenes = Scenes(**{name: there(getattr(seen, name)) for name in Scenes.__dataclass_fields__})
        whole = torch.log2(1 + self.scenes.snr).sum(dim=-1)
        self.bit = self.rate_weight / whole
        count, most = batch.present.shape
        metric = np.zeros((count, most, 2, most, 2))
        metric[:, np.arange(most), :, np.arange(most)] = np.moveaxis(
            batch.metric * batch.present[..., None, None], 1, 0
        )
        self.metric = torch.as_tensor(metric.reshape(count, 2 * most, 2 * most), device=device)
        absent = np.repeat(1 - batch.present, 2, axis=1)[:, :, None] * np.eye(2 * most)
        self.absent = torch.as_tensor(absent, device=device)

    def light(self, theta: torch.Tensor, delay_s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(heard[scene subcarrier], unit[scene subcarrier P P])``: the user's signal to noise and the information, all power on one subcarrier.

        Absent targets have the identity, so that a bound exists and they add nothing to it.
        """
        import torch

        response = cis(theta)[:, None, :] / len(self.aperture.line) ** 0.5
        if self.aperture.lines:
            turned = self.offset[:, None] * (delay_s * 1e12)[:, None, :]
            response = response * torch.index_select(torch.complex(torch.cos(turned), -torch.sin(turned)), 2, self.line)
        else:
            response = response.expand(-1, len(self.offset), -1)
        fields = self._lit(self.everyone, response)
        own = fields[:, :, 0, 0]
        heard = self.heard * (own.real**2 + own.imag**2) * self.power_w[:, None]
        unit = information(self.gram, fields[:, :, 1:]).to(torch.float64) * self.power_w.double()[:, None, None, None]
        return heard.double(), unit + self.absent[:, None]

    def worth(self, heard: torch.Tensor, unit: torch.Tensor, share: torch.Tensor) -> Worth:
        """Utility, rate and bound of these shares of power."""
        import torch

        rate = rate_bps(torch.ones_like(heard), heard * share, 1.0, 1.0)  # a root would have no slope at zero
        bound = crb(total_information(unit, share), self.metric)
        # what rounding leaves of a singular matrix may be negative: no bound, and no slope
        log_bound = torch.log(torch.where(bound > 0, bound, torch.full_like(bound, _DARK))) + self.log_scale
        return Worth(self.bit.double() * rate - log_bound, rate, torch.exp(log_bound))


def worth(lit: Lit, network: Any, weights: Any) -> Worth:
    """What a factored network's beams are worth on a batch."""
    theta, delay_s, z = network.settings(weights, lit.aperture, lit.scenes)
    heard, unit = lit.light(theta, delay_s)
    share = network.shares(weights, z.double(), heard, unit, lit.metric, lit.bit.double())
    return lit.worth(heard, unit, share)
