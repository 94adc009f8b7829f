"""Embeddings: what a network is told of the noise level and of the class.

The noise level arrives as c = ¼ log(½ σ̂/σ_data), which stays within about [−2, 2]; the frequencies below are chosen
for that range, so that every feature turns noticeably over it. (Frequencies made for step numbers 0 ... 1000 but fed
with a time in [0, 1] leave most features constant.)

A linear layer of which a row is the same bytes wherever it stands in its batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

from undiffuse.errors import InputError
from undiffuse.random import Purpose, normal

EVEN = 4
"""At other numbers of inputs a matrix product may round a row by its place, even in a batch of 4, 8, 12 ... rows."""


class Linear(nn.Linear):
    """W h + b, the inputs gone on with zeros up to a multiple of `EVEN`."""

    def forward(self, h: Tensor) -> Tensor:
        """The layer applied to h (..., inputs)."""
        short = -self.in_features % EVEN
        if not short:
            return super().forward(h)
        padded = nn.functional.pad
        return nn.functional.linear(padded(h, (0, short)), padded(self.weight, (0, short)), self.bias)


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


class Classes(nn.Embedding):
    """A row for every class and one, the last, for the null label "any class"; (B,) or (B, 1) -> (B, width).

    NaN is the null label as well.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__(count + 1, width)
        self.count = count

    def forward(self, code: Tensor) -> Tensor:
        """The rows."""
        code = code[:, 0] if code.ndim == 2 else code
        return super().forward(code.nan_to_num(float(self.count)).long() if code.is_floating_point() else code)


class Numbers(nn.Module):
    """A two-layer network of numbers and their waves, a learned vector where one is NaN; (B, size) -> (B, width)."""

    def __init__(self, size: int, width: int, waves: int = 8) -> None:
        super().__init__()
        self.waves = Sinusoidal(waves, longest=16.0, shortest=2.0)
        self.inner = Linear(size * (1 + waves), width)
        self.outer = Linear(width, width)
        self.null = nn.Parameter(torch.zeros(width))

    def forward(self, z: Tensor) -> Tensor:
        """W₂ SiLU(W₁ (z, waves(z))), or the null vector."""
        hidden, z = z.isnan().any(1, keepdim=True), z.nan_to_num(0.0)
        seen = torch.cat([z, self.waves(z.flatten()).reshape(len(z), -1)], 1)
        return torch.where(hidden, self.null, self.outer(nn.functional.silu(self.inner(seen))))


class Words(nn.Module):
    """The mean of a row for each word of a text, a learned vector where there is none; (B, length) -> (B, width).

    Texts are filled up with NaN.
    Reference: Iyyer et al. (2015), "Deep unordered composition rivals syntactic methods", section 2.1.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.rows = nn.Embedding(count, width)
        self.outer = Linear(width, width)
        self.null = nn.Parameter(torch.zeros(width))

    def forward(self, code: Tensor) -> Tensor:
        """W mean(rows), or the null vector."""
        there = (~code.isnan()).to(self.null)[..., None]
        total = (self.rows(code.nan_to_num(0.0).long()) * there).sum(1)
        count = there.sum(1)
        return torch.where(count > 0, self.outer(total / count.clamp_min(1)), self.null)


def embedding(kind: str, count: int, size: int, width: int) -> nn.Module:
    """The network of a condition of that kind: class, number, vector or words."""
    if kind == "class":
        return Classes(count, width)
    return Words(count, width) if kind == "words" else Numbers(size, width)


Form = tuple[str, int, int]
"""A condition as a network sees it: its kind, the number of its classes or words, and how many numbers it takes."""


class Condition(nn.Module):
    """One vector for noise level and conditions, (B, width): a network of the features plus one vector a condition.

    Labels run from 0 to `classes`; the last one is the null label, "any class". Further conditions have the forms
    `given`, and come as numbers (B, sum of their sizes) side by side, NaN where one is not known.
    """

    def __init__(self, width: int, classes: int = 0, features: int = 32, given: Sequence[Form] = ()) -> None:
        super().__init__()
        self.classes, self.sizes = classes, [size for _, _, size in given]
        self.features = Sinusoidal(features)
        self.inner = Linear(features, width)
        self.outer = Linear(width, width)
        self.label = Classes(classes, width) if classes else None
        self.given = nn.ModuleList(embedding(*form, width) for form in given)

    def forward(self, c: Tensor, label: Tensor | None, given: Tensor | None = None) -> Tensor:
        """SiLU(W₂ SiLU(W₁ features(c)) + row(label) + Σ vector(given)), never in a lower precision than c."""
        kind = c.device.type
        lowered = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        with torch.autocast(kind, enabled=False) if lowered else nullcontext():
            return self._vector(c, label, given)

    def _vector(self, c: Tensor, label: Tensor | None, given: Tensor | None) -> Tensor:
        h = self.outer(nn.functional.silu(self.inner(self.features(c))))
        if self.label is not None:
            h = h + self.label(torch.full_like(c, self.classes, dtype=torch.long) if label is None else label)
        if self.sizes:
            told = c.new_full((len(c), sum(self.sizes)), math.nan) if given is None else given
            for part, piece in zip(self.given, told.split(self.sizes, 1), strict=True):
                h = h + part(piece)
        return nn.functional.silu(h)


class Film(nn.Module):
    """A feature-wise affine map steered by the condition: h (1 + a) + b, with (a, b) linear in e and 0 at the start.

    h is (B, size, ...), e is (B, width). Reference: Perez et al. (2018), arXiv:1709.07871
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.map = zero(Linear(width, 2 * size))

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
