"""The residual multilayer perceptron: for points, rows of tables and small images."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from undiffuse.nets.embeddings import Condition, Film, Form, Linear, zero


class ResidualBlock(nn.Module):
    """h + W₂ SiLU(W₁ Film(LayerNorm(h), e)), with W₂ = 0 at the start."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.film = Film(condition, width)
        self.inner = Linear(width, width)
        self.outer = zero(Linear(width, width))

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """The block applied to h (B, width) under the condition e."""
        out: Tensor = h + self.outer(nn.functional.silu(self.inner(self.film(self.norm(h), e))))
        return out


class MLP(nn.Module):
    """`depth` residual blocks of one `width` on the flattened event, steered by noise level and conditions.

    `shape` is the event's, any one. Reference: Peebles and Xie (2023), section 3.2 (adaLN-zero). arXiv:2212.09748
    """

    def __init__(self, shape: Sequence[int], classes: int = 0, width: int = 128, depth: int = 3,
                 condition: int = 64, given: Sequence[Form] = ()) -> None:
        super().__init__()
        size = math.prod(shape)
        self.condition = Condition(condition, classes, given=given)
        self.first = Linear(size, width)
        self.blocks = nn.ModuleList(ResidualBlock(width, condition) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.last = zero(Linear(width, size))

    def forward(self, x: Tensor, c: Tensor, label: Tensor | None = None, given: Tensor | None = None) -> Tensor:
        """F(x, c, label, given), shaped like x (B, *shape)."""
        e, h = self.condition(c, label, given), self.first(x.flatten(1))
        for block in self.blocks:
            h = block(h, e)
        y: Tensor = self.last(nn.functional.silu(self.norm(h)))
        return y.reshape(x.shape)
