"""Embeddings: what a network is told of the noise level and of the class.

The noise level arrives as c = ¼ log(½ σ̂/σ_data), which stays within about [−2, 2]; the frequencies below are chosen
for that range, so that every feature turns noticeably over it. (Frequencies made for step numbers 0 ... 1000 but fed
with a time in [0, 1] leave most features constant.)
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from undiffuse.errors import InputError
from undiffuse.noise import Purpose, normal

M = TypeVar("M", bound=nn.Module)


class Sinusoidal(nn.Module):
    """cos and sin of 2πc/P with periods P spaced geometrically between `longest` and `shortest`; (B,) -> (B, size).

    Reference: Vaswani et al. (2017), section 3.5. arXiv:1706.03762
    """

    frequencies: Tensor

    def __init__(self, size: int, longest: float = 8.0, shortest: float = 0.5) -> None:
        super().__init__()
        _check_size(size)
        periods = torch.logspace(math.log10(longest), math.log10(shortest), size // 2, dtype=torch.float64)
        self.register_buffer("frequencies", (2 * math.pi / periods).float(), persistent=False)

    def forward(self, c: Tensor) -> Tensor:
        """The features, cosines first."""
        angle = c[:, None] * self.frequencies.to(c.dtype)
        return torch.cat([angle.cos(), angle.sin()], 1)


class GaussianFourier(Sinusoidal):
    """cos and sin of 2πfc with frequencies f ~ N(0, scale²) that are drawn once from the seed; (B,) -> (B, size).

    Reference: Tancik et al. (2020), arXiv:2006.10739; Song et al. (2021), appendix C, where the scale is 16.
    """

    def __init__(self, size: int, scale: float = 0.5, seed: int = 0) -> None:
        super().__init__(size)
        self.frequencies = 2 * math.pi * scale * normal(seed, Purpose.WEIGHTS, 0, 0, size // 2)


class Condition(nn.Module):
    """One vector for noise level and class, (B, width): a two-layer network of the features plus a row per class.

    Labels run from 0 to `classes`; the last one is the null label, "any class".
    """

    def __init__(self, width: int, classes: int = 0, features: int = 32) -> None:
        super().__init__()
        self.classes = classes
        self.features = Sinusoidal(features)
        self.inner = nn.Linear(features, width)
        self.outer = nn.Linear(width, width)
        self.label = nn.Embedding(classes + 1, width) if classes else None

    def forward(self, c: Tensor, label: Tensor | None) -> Tensor:
        """SiLU(W₂ SiLU(W₁ features(c)) + row(label))."""
        h = self.outer(nn.functional.silu(self.inner(self.features(c))))
        if self.label is not None:
            h = h + self.label(torch.full_like(c, self.classes, dtype=torch.long) if label is None else label)
        return nn.functional.silu(h)


class Film(nn.Module):
    """A feature-wise affine map steered by the condition: h (1 + a) + b, with (a, b) linear in e and 0 at the start.

    h is (B, size, ...), e is (B, width). Reference: Perez et al. (2018), arXiv:1709.07871
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.map = zero(nn.Linear(width, 2 * size))

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """The modulated h."""
        a, b = self.map(e).reshape(len(h), -1, *[1] * (h.ndim - 2)).chunk(2, 1)
        return torch.addcmul(b, h, 1 + a)


def zero(module: M) -> M:
    """The module, marked to start at zero, so that the branch it ends is silent at first."""
    module.zero_init = True  # type: ignore[assignment]
    return module


def _check_size(size: int) -> None:
    if size < 2 or size % 2:
        raise InputError(f"got {size} features for the noise level; expected an even number")
