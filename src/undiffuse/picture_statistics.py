"""What the eye sees at once in generated pictures: grain, a drift of the colours, and blank pictures.

All functions take pictures (n, channels, height, width) in equal units.
"""

from __future__ import annotations

import torch
from torch import Tensor

from undiffuse.cosines import separable
from undiffuse.metrics import w1_1d

_BLANK, _FLATTEST = 0.5, 0.01  # share of the contrast of the flattest real pictures, and which those are


def fine_power(x: Tensor) -> float:
    """The mean power of the finest details: of the cosine coefficients from half of the highest frequency on.

    White noise of variance v has fine power v.

    Args:
        x: Pictures (n, C, H, W).
    """
    height, width = x.shape[-2:]
    rows, columns = (2 * torch.arange(side) >= side for side in (height, width))
    fine = rows[:, None] | columns
    shape = tuple(x.shape[1:])
    power = torch.stack([separable(part.double().flatten(1), shape, inverse=False).square().sum(0)
                         for part in torch.split(x, 256)]).sum(0) / len(x)
    return float(power.reshape(shape)[:, fine].mean())


def colour_drift(x: Tensor, real: Tensor) -> float:
    """The largest W₁ distance, over the channels, between the mean values of single pictures.

    Args:
        x: Pictures (n, C, H, W).
        real: Real pictures (m, C, H, W).
    """
    a, b = (pictures.double().mean((2, 3)) for pictures in (x, real))
    return max(w1_1d(a[:, c:c + 1], b[:, c:c + 1]) for c in range(a.shape[1]))


def blank_share(x: Tensor, real: Tensor) -> float:
    """The share of the pictures with less than half the contrast of the flattest hundredth of the real ones.

    The contrast of a picture is the standard deviation of its pixels, the root mean square over the channels.

    Args:
        x: Pictures (n, C, H, W).
        real: Real pictures (m, C, H, W).
    """
    threshold = _BLANK * torch.quantile(_contrast(real), _FLATTEST)
    return float((_contrast(x) < threshold).double().mean())


def _contrast(x: Tensor) -> Tensor:
    """The contrast (n,) of pictures (n, C, H, W)."""
    return x.double().var((2, 3), correction=0).mean(1).sqrt()
