"""A diffusion transformer: attention among the patches of an image, series or volume of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from undiffuse.errors import InputError
from undiffuse.nets.embeddings import ConditionEmbedding, Form, PaddedLinear, zero
from undiffuse.nets.unet import fold, unfold

_LONGEST = 10_000.0  # longest wavelength of the positions over 2π, in patches


class TransformerBlock(nn.Module):
    """h + g₁ attention(h₁) and then h + g₂ W₂ GELU(W₁ h₂), where h_i = LayerNorm(h) (1 + a_i) + b_i.

    a_i, b_i and the gates g_i are linear in the condition and 0 at the start, where the block is the identity.
    """

    def __init__(self, width: int, heads: int, condition: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.map = zero(PaddedLinear(condition, 6 * width))
        self.qkv, self.mix = PaddedLinear(width, 3 * width), PaddedLinear(width, width)
        self.inner, self.outer = PaddedLinear(width, 4 * width), PaddedLinear(4 * width, width)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """The block applied to h (B, patches, width) under the condition e (B, condition)."""
        a1, b1, g1, a2, b2, g2 = self.map(e)[:, None].chunk(6, -1)
        h = h + g1 * self._attention(torch.addcmul(b1, self.norm(h), 1 + a1))
        inner = fn.gelu(self.inner(torch.addcmul(b2, self.norm(h), 1 + a2)), approximate="tanh")
        out: Tensor = h + g2 * self.outer(inner)
        return out

    def _attention(self, h: Tensor) -> Tensor:
        """W softmax(QKᵀ/√d) V among the patches."""
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed: Tensor = self.mix(fn.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed


class DiT(nn.Module):
    """Transformer blocks on patches, with fixed sinusoidal positions.

    Args:
        shape: (channels, *space) with one to three axes of space of any size: the last pixels are repeated up to
            complete patches.
        classes: Number of classes; 0 without labels.
        patch: Side of a patch in pixels.
        width: Width of the blocks, a multiple of 4 and of `heads`.
        depth: Number of blocks.
        heads: Number of attention heads.
        condition: Width of the embedding of noise level and conditions.
        conditions: Forms of further conditions.

    Reference: Peebles and Xie (2023), adaLN-zero. arXiv:2212.09748
    """

    positions: Tensor

    def __init__(self, shape: Sequence[int], classes: int = 0, patch: int = 2, width: int = 96, depth: int = 4,
                 heads: int = 4, condition: int = 128, conditions: Sequence[Form] = ()) -> None:
        super().__init__()
        if not 2 <= len(shape) <= 4 or patch < 1 or heads < 1 or width < 4 or width % 4 or width % heads:
            raise InputError(f"got shape {tuple(shape)}, patch {patch}, width {width}, heads {heads}; expected "
                             "(channels, *space) with one to three axes of space, a patch of 1 or more and a width "
                             "divided by 4 and heads")
        self.patch, size = patch, shape[0] * patch ** (len(shape) - 1)
        grid = [-(-side // patch) for side in shape[1:]]
        self.condition = ConditionEmbedding(condition, classes, conditions=conditions)
        self.first = PaddedLinear(size, width)
        self.register_buffer("positions", sinusoidal_positions(grid, width).float(), persistent=False)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, condition) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.map = zero(PaddedLinear(condition, 2 * width))
        self.last = zero(PaddedLinear(width, size))

    def forward(self, x: Tensor, c: Tensor, label: Tensor | None = None, conditions: Tensor | None = None) -> Tensor:
        """F(x, c, label, conditions), shaped like x (B, channels, *space).

        Args:
            x: scaled states (B, channels, *space).
            c: noise level as the network's input, (B,).
            label: class of each sample (B,); None: any class.
            conditions: numbers of further conditions (B, k), NaN where unknown; None: the network has none.
        """
        e, folded = self.condition(c, label, conditions), fold(x, self.patch)
        h = self.first(folded.flatten(2).mT) + self.positions
        for block in self.blocks:
            h = block(h, e)
        a, b = self.map(e)[:, None].chunk(2, -1)
        y = self.last(torch.addcmul(b, self.norm(h), 1 + a)).mT.reshape(folded.shape)
        return unfold(y, self.patch, x.shape)


def sinusoidal_positions(grid: Sequence[int], width: int) -> Tensor:
    """Positions on a grid of n axes, (number of places, width) float64: cos and sin of ω_k times each coordinate.

    ω_k = 10000^{−2nk/width}; where width is no multiple of 2n the last features are 0. The scalar product of two
    positions depends only on their displacement.

    Args:
        grid: numbers of places along the axes.
        width: number of features.
    """
    k = torch.arange(width // (2 * len(grid)), dtype=torch.float64)
    omega = torch.exp(-math.log(_LONGEST) * k / len(k))
    places = torch.meshgrid(*map(torch.arange, grid), indexing="ij")
    angles = torch.cat([place.reshape(-1, 1) * omega for place in places], 1)
    return fn.pad(torch.cat([angles.cos(), angles.sin()], 1), (0, width - 2 * len(k) * len(grid)))
