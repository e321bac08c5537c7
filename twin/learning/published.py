"""CSP-Net as published: papers/000 section 4, with what it leaves open as fields, its loss, and its beam for a scene. Needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from hal.check import Ge, Gt
from hal.errors import Misuse
from hal.record import Array, Float
from twin.learning.factored import Aperture
from twin.learning.scenes import Batch, Lit, Recipe
from twin.learning.training import Training
from twin.physics.beamspace import beamspace, delay_ramp, distribution, divergence, echo_beamspace

if TYPE_CHECKING:
    import torch

    from twin.learning._modules import CspNetModule

__all__ = ["Published", "PublishedTask", "References", "module"]


@dataclass(frozen=True)
class Published:
    """What the paper leaves open, and its two ablations."""

    channels: Annotated[int, Ge(1)] = 16  # complex feature maps of each branch
    kernel: Annotated[int, Ge(1)] = 3  # of a convolution, odd
    pool: Annotated[int, Ge(1)] = 4  # means over pool x pool after each block
    reduction: Annotated[int, Ge(1)] = 4  # of the channel attention's inner layer
    attention_kernel: Annotated[int, Ge(1)] = 7  # of the spatial attention, odd
    hidden: Annotated[int, Ge(1)] = 128  # of the delay head's first layer
    normalisation: Literal["fixed", "scene"] = (
        "scene"  # maps to unit mean power a scene, the logarithm divided out joins the features; fixed: by the array alone
    )
    phase: Literal["angle", "printed"] = (
        "angle"  # of the head's complex output; printed: 2 pi / sqrt 2 times the size of a complex sigmoid, which cannot wrap
    )
    phases_at: Literal["carrier", "element"] = (
        "carrier"  # a delay only tilts the beam over frequency; element: as printed, it spins it too
    )
    complex_valued: bool = True  # False: the ablation, real layers on real and imaginary parts, as many parameters
    attention: bool = True  # False: the ablation without CBAM
    momentum: Annotated[float, Gt(0)] = 0.1  # of the batch norm's running moments


@dataclass(frozen=True)
class References:
    """What loss (22) divides by, a scene each; ``twin train`` finds them with the schemes of ``twin.precoding``."""

    divergence: Float[Array, " scene"]  # the least that a search over delays reaches: 1 / Cor*
    rate: Float[Array, " scene"]  # R_max, of matched beams and water-filling
    crb: Float[Array, " scene"]  # CRB_min, of a beam for the bound alone

    def of(self, at: Any) -> References:
        """Those of some scenes."""
        return References(self.divergence[at], self.rate[at], self.crb[at])


def module(
    shape: Published, aperture: Aperture, weights: Mapping[str, Float[Array, ...]] | None = None, seed: int = 0
) -> CspNetModule:
    """The network, with weights or with random ones. Raises Misuse without torch."""
    try:
        import torch
    except ImportError:
        raise Misuse(
            "network = published: needs torch; pip install 'isac-twin[learn]', or use factored weights"
        ) from None
    from twin.learning._modules import CspNetModule

    torch.manual_seed(seed)
    made = CspNetModule(shape, aperture)
    if weights is not None:
        made.load_state_dict(
            {name: torch.tensor(np.array(value), dtype=torch.float32) for name, value in weights.items()}
        )
        made.eval()
    return made


class PublishedTask:
    """The published network on a set of scenes gone through epoch by epoch, loss (22)."""

    better = "gain"  # minus the loss on scenes it was not trained on

    def __init__(
        self,
        shape: Published,
        recipe: Recipe,
        training: Training,
        sets: tuple[tuple[Batch, References], tuple[Batch, References]],
        device: str = "cpu",
        start: Mapping[str, Float[Array, ...]] | None = None,
    ) -> None:
        self.shape, self.recipe, self.training, self.device, self.sets = shape, recipe, training, device, sets
        self.network = module(shape, recipe.aperture, start, training.seed).to(device).train()
        self.trained: dict[str, torch.Tensor] = dict(self.network.named_parameters())

    def state(self) -> dict[str, torch.Tensor]:
        """Parameters, and the batch norm's running moments."""
        return dict(self.network.state_dict())

    def loss(self, number: int) -> torch.Tensor:
        """(22) of the batch that step ``number`` comes to in its epoch's order."""
        scenes, references = self.sets[0]
        count = len(scenes.power_w) // self.training.batch
        epoch, place = divmod(number, count)
        order = np.random.Generator(np.random.Philox(key=[self.training.seed, epoch])).permutation(len(scenes.power_w))
        at = order[place * self.training.batch : (place + 1) * self.training.batch]
        self.network.train()
        return -self._gain(scenes.of(at), references.of(at))[0].mean()

    def score(self) -> dict[str, float]:
        """Minus the loss, correlation (against its reference, and as it is), rate and bound on the scenes held out."""
        import torch

        self.network.eval()
        scenes, references = self.sets[1]
        with torch.no_grad():
            gain, cor, divergence, rate, crb = self._gain(scenes, references)
        return {
            "gain": float(gain.mean()),
            "correlation_share": float(cor.mean()),
            "correlation": float((1 / divergence).mean()),
            "rate_bits": float(rate.mean()),
            "crb_db": 10 * float(torch.log10(crb).mean()),
        }

    def _gain(self, scenes: Batch, references: References) -> tuple[torch.Tensor, ...]:
        import torch

        from twin.learning._modules import maps

        aperture = self.recipe.aperture
        theta, delay_s, share = self.network(*maps(scenes, aperture, self.shape, self.device))
        lit = Lit(scenes, aperture, self.device)
        heard, unit = lit.light(theta, delay_s)
        worth = lit.worth(heard, unit, share.double())

        def there(value: Array) -> torch.Tensor:
            return torch.as_tensor(np.array(value), device=self.device)

        away = divergences(lit, scenes, delay_s).double()
        cor = there(references.divergence) / away
        gain = cor * (worth.rate / there(references.rate) + there(references.crb) / worth.crb)
        return gain, cor, away, worth.rate, worth.crb


def divergences(lit: Lit, scenes: Batch, delay_s: torch.Tensor) -> torch.Tensor:
    """``1 / Cor`` of eq (16) for each scene's delays, on a dictionary of twice the array's own size an axis."""
    import torch

    from hal.array import steering

    own = lit.aperture.array
    grid = (2 * own.columns, 2 * own.rows)

    def one(user: torch.Tensor, target: torch.Tensor, gain: torch.Tensor, delay_s: torch.Tensor) -> Any:
        # delays about the carrier: its phase is one number a line, kept apart for single precision
        ramp = delay_ramp(np.array(lit.aperture.line), delay_s, lit.frequency_hz)
        seen = beamspace(own, steering(own, user[None, :], lit.frequency_hz) * ramp, grid)
        echo = echo_beamspace(own, own, target, gain, lit.frequency_hz, ramp, grid)
        return divergence(distribution(seen), distribution(echo), 1e-9)

    gain = torch.complex(
        torch.as_tensor(scenes.gain.real.copy(), dtype=lit.kind),
        torch.as_tensor(scenes.gain.imag.copy(), dtype=lit.kind),
    ).to(lit.user.device)
    found = [one(*args) for args in zip(lit.user, lit.target, gain, delay_s, strict=True)]
    return torch.stack(found)
