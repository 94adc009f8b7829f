"""Embeddings of the noise level and of conditions.

The noise level arrives as c = ¼ log(½ σ̂/σ_data), which stays within about [−2, 2]; the frequencies are chosen for that
range, so that every feature varies over it. (Frequencies made for step numbers 0 ... 1000 but applied to a time in
[0, 1] leave most features constant.)
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
"""With other numbers of inputs a matrix product may round a row differently at different positions in the batch."""


class PaddedLinear(nn.Linear):
    """W h + b with the inputs padded by zeros to a multiple of `EVEN`: a row has the same bits anywhere in a batch."""

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


class ClassEmbedding(nn.Embedding):
    """One vector per class and, last, one for the null label "any class" (also NaN); (B,) or (B, 1) -> (B, width)."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__(count + 1, width)
        self.count = count

    def forward(self, code: Tensor) -> Tensor:
        """The vectors of class numbers."""
        code = code[:, 0] if code.ndim == 2 else code
        return super().forward(code.nan_to_num(float(self.count)).long() if code.is_floating_point() else code)


class NumberEmbedding(nn.Module):
    """A two-layer network of numbers and their waves, a learned vector if one is NaN; (B, size) -> (B, width)."""

    def __init__(self, size: int, width: int, waves: int = 8) -> None:
        super().__init__()
        self.waves = Sinusoidal(waves, longest=16.0, shortest=2.0)
        self.inner = PaddedLinear(size * (1 + waves), width)
        self.outer = PaddedLinear(width, width)
        self.null = nn.Parameter(torch.zeros(width))

    def forward(self, z: Tensor) -> Tensor:
        """W₂ SiLU(W₁ (z, waves(z))), or the null vector."""
        hidden, z = z.isnan().any(1, keepdim=True), z.nan_to_num(0.0)
        features = torch.cat([z, self.waves(z.flatten()).reshape(len(z), -1)], 1)
        return torch.where(hidden, self.null, self.outer(nn.functional.silu(self.inner(features))))


class TextEmbedding(nn.Module):
    """The mean of one vector per token, a learned vector for an empty text; (B, length) -> (B, width).

    Texts are padded with NaN.
    Reference: Iyyer et al. (2015), "Deep unordered composition rivals syntactic methods", section 2.1.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.rows = nn.Embedding(count, width)
        self.outer = PaddedLinear(width, width)
        self.null = nn.Parameter(torch.zeros(width))

    def forward(self, code: Tensor) -> Tensor:
        """W mean(rows), or the null vector."""
        present = (~code.isnan()).to(self.null)[..., None]
        total = (self.rows(code.nan_to_num(0.0).long()) * present).sum(1)
        count = present.sum(1)
        return torch.where(count > 0, self.outer(total / count.clamp_min(1)), self.null)


def embedding(kind: str, count: int, size: int, width: int) -> nn.Module:
    """The embedding of a condition of a kind: class, number, vector or words.

    Args:
        kind: class, number, vector or words.
        count: number of classes or tokens.
        size: count of the condition's numbers.
        width: size of the embedding vector.
    """
    if kind == "class":
        return ClassEmbedding(count, width)
    return TextEmbedding(count, width) if kind == "words" else NumberEmbedding(size, width)


Form = tuple[str, int, int]
"""The form of a condition: its kind, the number of its classes or tokens, and the count of its numbers."""


class ConditionEmbedding(nn.Module):
    """One vector for noise level and conditions, (B, width): a network of the features plus one vector per condition.

    Args:
        width: Size of the vector.
        classes: Number of classes; the label `classes` is the null label, "any class".
        features: Number of features of the noise level.
        conditions: Forms of further conditions, whose numbers (B, sum of their sizes) are NaN where unknown.
    """

    def __init__(self, width: int, classes: int = 0, features: int = 32,
                 conditions: Sequence[Form] = ()) -> None:
        super().__init__()
        self.classes, self.sizes = classes, [size for _, _, size in conditions]
        self.features = Sinusoidal(features)
        self.inner = PaddedLinear(features, width)
        self.outer = PaddedLinear(width, width)
        self.label = ClassEmbedding(classes, width) if classes else None
        self.given = nn.ModuleList(embedding(*form, width) for form in conditions)  # the name seeds the weights

    def forward(self, c: Tensor, label: Tensor | None, conditions: Tensor | None = None) -> Tensor:
        """SiLU(W₂ SiLU(W₁ features(c)) + vector(label) + Σ vector(condition)), in the precision of c.

        Args:
            c: noise level as the network's input, (B,).
            label: class of each sample (B,); None: any class.
            conditions: numbers of further conditions (B, k), NaN where unknown; None: the network has none.
        """
        kind = c.device.type
        lowered = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        with torch.autocast(kind, enabled=False) if lowered else nullcontext():
            return self._vector(c, label, conditions)

    def _vector(self, c: Tensor, label: Tensor | None, conditions: Tensor | None) -> Tensor:
        h = self.outer(nn.functional.silu(self.inner(self.features(c))))
        if self.label is not None:
            h = h + self.label(torch.full_like(c, self.classes, dtype=torch.long) if label is None else label)
        if self.sizes:
            numbers = c.new_full((len(c), sum(self.sizes)), math.nan) if conditions is None else conditions
            for part, piece in zip(self.given, numbers.split(self.sizes, 1), strict=True):
                h = h + part(piece)
        return nn.functional.silu(h)


class FiLM(nn.Module):
    """Feature-wise linear modulation: h (1 + a) + b, with (a, b) linear in the condition e and 0 at the start.

    h is (B, size, ...), e is (B, width). Reference: Perez et al. (2018), arXiv:1709.07871
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.map = zero(PaddedLinear(width, 2 * size))

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """The modulated h."""
        a, b = self.map(e).reshape(len(h), -1, *[1] * (h.ndim - 2)).chunk(2, 1)
        return torch.addcmul(b, h, 1 + a)


def zero(module: M) -> M:
    """Marks a module to start at zero, so that the branch it ends contributes nothing at first."""
    module.zero_init = True  # type: ignore[assignment]
    return module


def _check_size(size: int) -> None:
    if size < 2 or size % 2:
        raise InputError(f"got {size} features; expected an even number of at least 2")
