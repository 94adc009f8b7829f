"""A residual multilayer perceptron, for points, rows of tables and small images."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from undiffuse.nets.embeddings import ConditionEmbedding, FiLM, Form, PaddedLinear, zero


class ResidualBlock(nn.Module):
    """h + W₂ SiLU(W₁ FiLM(LayerNorm(h), e)), with W₂ = 0 at the start."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.film = FiLM(condition, width)
        self.inner = PaddedLinear(width, width)
        self.outer = zero(PaddedLinear(width, width))

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """The block applied to h (B, width) under the condition e."""
        out: Tensor = h + self.outer(nn.functional.silu(self.inner(self.film(self.norm(h), e))))
        return out


class MLP(nn.Module):
    """Residual blocks on the flattened event, modulated by noise level and conditions.

    Args:
        shape: Shape of the event.
        classes: Number of classes; 0 without labels.
        width: Width of the blocks.
        depth: Number of blocks.
        condition: Width of the embedding of noise level and conditions.
        conditions: Forms of further conditions.

    Reference: Peebles and Xie (2023), section 3.2 (adaLN-zero). arXiv:2212.09748
    """

    def __init__(self, shape: Sequence[int], classes: int = 0, width: int = 128, depth: int = 3,
                 condition: int = 64, conditions: Sequence[Form] = ()) -> None:
        super().__init__()
        size = math.prod(shape)
        self.condition = ConditionEmbedding(condition, classes, conditions=conditions)
        self.first = PaddedLinear(size, width)
        self.blocks = nn.ModuleList(ResidualBlock(width, condition) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.last = zero(PaddedLinear(width, size))

    def forward(self, x: Tensor, c: Tensor, label: Tensor | None = None, conditions: Tensor | None = None) -> Tensor:
        """F(x, c, label, conditions), shaped like x (B, *shape).

        Args:
            x: scaled states (B, *shape).
            c: noise level as the network's input, (B,).
            label: class of each sample (B,); None: any class.
            conditions: numbers of further conditions (B, k), NaN where unknown; None: the network has none.
        """
        e, h = self.condition(c, label, conditions), self.first(x.flatten(1))
        for block in self.blocks:
            h = block(h, e)
        y: Tensor = self.last(nn.functional.silu(self.norm(h)))
        return y.reshape(x.shape)
