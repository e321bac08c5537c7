"""The layers of CSP-Net as published, in torch: complex convolutions, batch norm and attention on stacked parts, heads in sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from hal.array import steering
from twin.learning.factored import Aperture
from twin.learning.published import Published
from twin.learning.scenes import Batch

__all__ = ["CspNetModule", "maps"]

_TINY = 1e-12


class Linear(nn.Module):
    """A complex layer as one real one: parts are stacked along the features, ``[re, im]``."""

    def __init__(self, taken: int, given: int, complex_valued: bool, kernel: int = 0) -> None:
        super().__init__()
        parts = 2 if complex_valued else 1
        tail = (kernel, kernel) if kernel else ()
        spread = (parts * taken * max(kernel, 1) ** 2) ** -0.5
        self.weight = nn.ParameterList([nn.Parameter(torch.randn(given, taken, *tail) * spread) for _ in range(parts)])
        self.bias = nn.Parameter(torch.zeros(parts * given))
        self.padding = kernel // 2 if kernel else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``W x + b``."""
        weight = self.weight[0]
        if len(self.weight) == 2:
            re, im = self.weight
            weight = torch.cat([torch.cat([re, -im], dim=1), torch.cat([im, re], dim=1)], dim=0)
        if self.padding is None:
            return nn.functional.linear(x, weight, self.bias)
        return nn.functional.conv2d(x, weight, self.bias, padding=self.padding)


class Whitening(nn.Module):
    """Complex batch normalisation: both parts whitened together, then a learned 2 x 2 (arXiv:1705.09792 section 3.5)."""

    def __init__(self, channels: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.scale = nn.Parameter(torch.tensor([0.5**0.5, 0.0, 0.5**0.5])[:, None].repeat(1, channels))
        self.shift = nn.Parameter(torch.zeros(2, channels))
        self.register_buffer("mean", torch.zeros(2, channels))
        self.register_buffer("covariance", torch.tensor([0.5, 0.0, 0.5])[:, None].repeat(1, channels))
        self.mean: torch.Tensor
        self.covariance: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """By the batch's moments in training, by the running ones after."""
        re, im = x.chunk(2, dim=1)
        if self.training:
            mean = torch.stack([re.mean(dim=(0, 2, 3)), im.mean(dim=(0, 2, 3))])
            a, b = re - mean[0, :, None, None], im - mean[1, :, None, None]
            covariance = torch.stack(
                [(a * a).mean(dim=(0, 2, 3)), (a * b).mean(dim=(0, 2, 3)), (b * b).mean(dim=(0, 2, 3))]
            )
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.covariance.lerp_(covariance, self.momentum)
        else:
            mean, covariance = self.mean, self.covariance
            a, b = re - mean[0, :, None, None], im - mean[1, :, None, None]
        rr, ri, ii = covariance[0] + 1e-5, covariance[1], covariance[2] + 1e-5
        # root of the determinant, held above zero where parts are one another's multiples; the inverse square root is in closed form
        root = torch.sqrt((rr * ii - ri**2).clamp_min(1e-10))
        norm = 1.0 / (root * torch.sqrt(rr + ii + 2 * root))
        wrr, wri, wii = (ii + root) * norm, -ri * norm, (rr + root) * norm
        gr, gi, gg = self.scale
        frr, fri = gr * wrr + gi * wri, gr * wri + gi * wii
        fir, fii = gi * wrr + gg * wri, gi * wri + gg * wii

        def per(value: torch.Tensor) -> torch.Tensor:
            return value[:, None, None]

        return torch.cat(
            [per(frr) * a + per(fri) * b + per(self.shift[0]), per(fir) * a + per(fii) * b + per(self.shift[1])], dim=1
        )


class Attention(nn.Module):
    """CBAM on complex maps: gates of each channel, then of each place, from means and largest sizes; gates are sizes of complex sigmoids."""

    def __init__(self, channels: int, shape: Published) -> None:
        super().__init__()
        self.whole = shape.complex_valued
        inner = max(channels // shape.reduction, 1)
        self.down, self.up = Linear(channels, inner, self.whole), Linear(inner, channels, self.whole)
        self.place = Linear(2, 1, self.whole, shape.attention_kernel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` gated."""
        mean, peak = x.mean(dim=(2, 3)), self._peak(x.flatten(2), 2)
        gate = self._gate(self.up(torch.relu(self.down(mean))) + self.up(torch.relu(self.down(peak))), 1)
        x = x * gate[..., None, None]
        parts = x.chunk(2, dim=1) if self.whole else (x,)
        pooled = [part.mean(dim=1, keepdim=True) for part in parts]
        largest = self._peak(x, 1).chunk(2, dim=1) if self.whole else (self._peak(x, 1),)
        mixed = torch.cat([one for pair in zip(pooled, largest, strict=True) for one in pair], dim=1)
        return x * self._gate(self.place(mixed), 1)

    def _peak(self, x: torch.Tensor, dim: int) -> torch.Tensor:
        """The entry of largest size along ``dim``."""
        if not self.whole:
            return x.amax(dim=dim, keepdim=dim == 1)
        re, im = x.chunk(2, dim=1)
        at = (re**2 + im**2).argmax(dim=dim, keepdim=True)
        found = torch.cat([re.gather(dim, at), im.gather(dim, at)], dim=1)
        return found.squeeze(dim) if dim != 1 else found

    def _gate(self, x: torch.Tensor, dim: int) -> torch.Tensor:
        """A real gate, 0 .. 1, for both parts alike."""
        opened = torch.sigmoid(x)
        if not self.whole:
            return opened
        re, im = opened.chunk(2, dim=dim)
        size = torch.sqrt((re**2 + im**2) / 2)
        return torch.cat([size, size], dim=dim) if size.shape[dim] > 1 else size


class CspNetModule(nn.Module):
    """CFE-Net and SFE-Net, feature fusion, and PD-Net, for one array and its delay lines."""

    def __init__(self, shape: Published, aperture: Aperture) -> None:
        super().__init__()
        self.shape, self.aperture = shape, aperture
        whole, parts = shape.complex_valued, 2 if shape.complex_valued else 1
        elements, subcarriers = len(aperture.line), len(aperture.frequency_hz)
        taken = subcarriers if whole else 2 * subcarriers
        width = shape.channels if whole else round(shape.channels * 2**0.5)  # as many parameters in a layer within

        def block(first: int) -> nn.Sequential:
            norm = Whitening(width, shape.momentum) if whole else nn.BatchNorm2d(width, momentum=shape.momentum)
            return nn.Sequential(Linear(first, width, whole, shape.kernel), nn.ReLU(), norm, nn.AvgPool2d(shape.pool))

        self.user = nn.Sequential(block(taken), block(width))
        self.echo = nn.Sequential(block(taken), block(width))
        self.fusion = Attention(2 * width, shape) if shape.attention else None
        side = elements // shape.pool // shape.pool
        self.features = 2 * width * side * side + 2  # two levels divided out
        hidden = shape.hidden if whole else round(shape.hidden * 2**0.5)
        self.delay1 = Linear(self.features, hidden, whole)
        self.delay2 = Linear(hidden, max(aperture.lines, 1), whole)
        seen = self.features + aperture.lines
        phases = elements if whole else 2 * elements
        self.phase = Linear(seen, phases, whole)
        self.power = Linear(seen + phases, subcarriers, whole)
        self.parts = parts

    def forward(
        self, user: torch.Tensor, echo: torch.Tensor, level: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``(theta[scene element], delay_s[scene line], share[scene subcarrier])`` from maps as ``maps`` makes them; delays with straight-through steps."""
        whole, aperture = self.shape.complex_valued, self.aperture
        seen_user, seen_echo = self.user(user), self.echo(echo)
        if whole:
            ur, ui = seen_user.chunk(2, dim=1)
            er, ei = seen_echo.chunk(2, dim=1)
            fused = torch.cat([ur, er, ui, ei], dim=1)
        else:
            fused = torch.cat([seen_user, seen_echo], dim=1)
        if self.fusion is not None:
            fused = self.fusion(fused)
        if whole:
            re, im = fused.chunk(2, dim=1)
            v = [torch.cat([re.flatten(1), level], dim=1), torch.cat([im.flatten(1), torch.zeros_like(level)], dim=1)]
        else:
            v = [torch.cat([fused.flatten(1), level], dim=1)]
        opened = torch.sigmoid(self.delay2(torch.relu(self.delay1(torch.cat(v, dim=1)))))
        delay_s = self._steps(_size(opened, whole))
        told = opened.chunk(2, dim=1) if whole else (opened,)
        if aperture.lines:
            v = [torch.cat([a, b], dim=1) for a, b in zip(v, told, strict=True)]
        turned = self.phase(torch.cat(v, dim=1))
        if self.shape.phase == "printed":
            turned = torch.sigmoid(turned)
            raw = 2 * np.pi * _size(turned, True)
        else:
            re, im = turned.chunk(2, dim=1)
            raw = torch.atan2(im, re)
        if self.shape.phases_at == "element" and aperture.lines:
            line = torch.as_tensor(aperture.line, device=raw.device)
            raw = raw - 2 * np.pi * aperture.carrier_hz * 1e-12 * (delay_s * 1e12)[:, line]
        told = turned.chunk(2, dim=1) if whole else (turned,)
        v = [torch.cat([a, b], dim=1) for a, b in zip(v, told, strict=True)]
        size = _square(self.power(torch.cat(v, dim=1)), whole) + _TINY
        return raw, delay_s, size / size.sum(dim=1, keepdim=True)

    def _steps(self, opened: torch.Tensor) -> torch.Tensor:
        """Delays of openings 0 .. 1: ``t_max`` times them, on the nearest step."""
        aperture = self.aperture
        if not aperture.lines:
            return opened[:, :0]
        delay_s: torch.Tensor = aperture.delay_range_s * opened
        if not aperture.delay_bits:
            return delay_s
        step_s = aperture.delay_range_s / 2**aperture.delay_bits
        level = torch.round(delay_s / step_s).clamp(0, 2**aperture.delay_bits - 1)
        stepped: torch.Tensor = delay_s + (level * step_s - delay_s).detach()
        return stepped


def maps(
    batch: Batch, aperture: Aperture, shape: Published, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``H_m = h h^H`` and ``G_m`` of every scene as real maps ``[scene 2M element element]``, and what was divided out of each, ``[scene 2]``.

    In our signs the papers' ``h`` is ``conj(g a)`` and ``G = A_r S A_t^T`` (docs/conventions.md); powers over noise, all power on one subcarrier.
    """
    own, wide = aperture.array, torch.as_tensor(np.array(aperture.frequency_hz), dtype=torch.float32, device=device)

    def there(value: Any) -> torch.Tensor:
        return torch.as_tensor(np.array(value), dtype=torch.float32, device=device)

    a_user = steering(own, there(batch.user)[:, None, :], wide)  # [scene m n]
    a_target = steering(own, there(batch.target)[:, :, None, :], wide)  # [scene k m n]
    user = there(batch.user_power)[..., None, None] * (a_user.conj()[..., :, None] * a_user[..., None, :])
    gain = torch.complex(there(batch.gain.real), there(batch.gain.imag))
    echo = torch.einsum("bkm,bkmr,bkmt->bmrt", gain, a_target, a_target)
    level = []
    out = []
    for one, order in ((user, 1.0), (echo, 2.0)):
        power = one.real**2 + one.imag**2
        mean = power.mean(dim=(1, 2, 3)) + _TINY
        root = torch.sqrt(mean) if shape.normalisation == "scene" else torch.full_like(mean, 1.0 / len(aperture.line))
        scaled = one / root[:, None, None, None]
        out.append(torch.cat([scaled.real, scaled.imag], dim=1))
        level.append(
            (torch.log(mean) / order + 2 * np.log(len(aperture.line)) / order + torch.log(there(batch.power_w))) / 4
        )
    return out[0], out[1], torch.stack(level, dim=1)


def _size(x: torch.Tensor, whole: bool) -> torch.Tensor:
    """``|x| / sqrt 2`` of complex sigmoids, 0 .. 1."""
    return torch.sqrt(_square(x, whole) / 2) if whole else x


def _square(x: torch.Tensor, whole: bool) -> torch.Tensor:
    if not whole:
        return x**2
    re, im = x.chunk(2, dim=1)
    return re**2 + im**2
