"""A small U-Net, for images, series and volumes of any size and number of channels; fast on a CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, channels_last, channels_last_3d, nn
from torch.nn import functional as fn

from undiffuse.errors import InputError
from undiffuse.nets.embeddings import ConditionEmbedding, FiLM, Form, zero

_CONVOLUTIONS: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def _norm(channels: int, affine: bool = True) -> nn.GroupNorm:
    groups = math.gcd(8, channels // 2) if channels % 2 == 0 else 1  # two or more channels per group, for one pixel
    return nn.GroupNorm(groups, channels, affine=affine)


class ConvBlock(nn.Module):
    """h + K₂ SiLU(FiLM(GroupNorm(K₁ SiLU(GroupNorm(h))), e)), with convolutions of width 3 and K₂ = 0 at the start."""

    def __init__(self, channels: int, condition: int, axes: int = 2) -> None:
        super().__init__()
        conv = _CONVOLUTIONS[axes]
        self.norm1, self.norm2 = _norm(channels), _norm(channels, affine=False)
        self.inner = conv(channels, channels, 3, padding=1)
        self.film = FiLM(condition, channels)
        self.outer = zero(conv(channels, channels, 3, padding=1))

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """The block applied to h (B, channels, *space) under the condition e."""
        inner = self.norm2(self.inner(fn.silu(self.norm1(h))))
        out: Tensor = h + self.outer(fn.silu(self.film(inner, e)))
        return out


class Attention(nn.Module):
    """Self-attention among all pixels, added to h; 0 at the start. Heads of at most 32 channels."""

    def __init__(self, channels: int, axes: int = 2) -> None:
        super().__init__()
        conv = _CONVOLUTIONS[axes]
        self.heads = math.gcd(channels, max(1, channels // 32))
        self.norm = _norm(channels)
        self.inner = conv(channels, 3 * channels, 1)
        self.outer = zero(conv(channels, channels, 1))

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """h + W softmax(QᵀK/√d) V; the condition is not used."""
        batch, channels = h.shape[:2]
        qkv = self.inner(self.norm(h)).reshape(batch, 3, self.heads, channels // self.heads, -1).transpose(-1, -2)
        mixed = fn.scaled_dot_product_attention(qkv[:, 0], qkv[:, 1], qkv[:, 2])
        out: Tensor = h + self.outer(mixed.transpose(-1, -2).reshape(h.shape))
        return out


class ResolutionStage(nn.Module):
    """Convolutional blocks at one resolution, each followed by attention if `attention`."""

    def __init__(self, channels: int, condition: int, blocks: int, attention: bool, axes: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for _ in range(blocks):
            self.layers.append(ConvBlock(channels, condition, axes))
            if attention:
                self.layers.append(Attention(channels, axes))

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """Applies the blocks in turn."""
        for layer in self.layers:
            h = layer(h, e)
        return h


class UNet(nn.Module):
    """Stages of convolutional blocks on coarser and coarser images and back, with additive skips between equal sizes.

    Args:
        shape: (channels, *space) with one to three axes of space of any size: halving rounds up, and upsampling
            restores the size.
        classes: Number of classes; 0 without labels.
        widths: Channels of each resolution, the finest first.
        blocks: Blocks per resolution and direction.
        attention: Resolutions with attention; 0 is the finest.
        stem: Side of the blocks of pixels that are folded into channels first; s saves time s²-fold.
        condition: Width of the embedding of noise level and conditions.
        conditions: Forms of further conditions.

    Reference: Ronneberger et al. (2015), arXiv:1505.04597; Ho et al. (2020), appendix B. arXiv:2006.11239
    """

    def __init__(self, shape: Sequence[int], classes: int = 0, widths: Sequence[int] = (48, 96), blocks: int = 1,
                 attention: Sequence[int] = (), stem: int = 1, condition: int = 128,
                 conditions: Sequence[Form] = ()) -> None:
        super().__init__()
        if not 2 <= len(shape) <= 4 or not widths or stem < 1:
            raise InputError(f"got shape {tuple(shape)}, widths {tuple(widths)}, stem {stem}; expected (channels, "
                             "*space) with one to three axes of space, at least one width and a stem of 1 or more")
        axes = len(shape) - 1
        conv, self.stem, folded = _CONVOLUTIONS[axes], stem, shape[0] * stem**axes
        self.condition = ConditionEmbedding(condition, classes, conditions=conditions)
        self.first = conv(folded, widths[0], 3, padding=1)
        levels, pairs = range(len(widths)), list(pairwise(widths))
        self.down = nn.ModuleList(ResolutionStage(widths[i], condition, blocks, i in attention, axes) for i in levels)
        self.up = nn.ModuleList(ResolutionStage(widths[i], condition, blocks, i in attention, axes) for i in levels)
        self.shrink = nn.ModuleList(conv(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.grow = nn.ModuleList(conv(b, a, 1) for a, b in pairs)
        self.norm = _norm(widths[0])
        self.last = zero(conv(widths[0], folded, 3, padding=1))

    def forward(self, x: Tensor, c: Tensor, label: Tensor | None = None, conditions: Tensor | None = None) -> Tensor:
        """F(x, c, label, conditions), shaped like x (B, channels, *space).

        Args:
            x: scaled states (B, channels, *space).
            c: noise level as the network's input, (B,).
            label: class of each sample (B,); None: any class.
            conditions: numbers of further conditions (B, k), NaN where unknown; None: the network has none.
        """
        e = self.condition(c, label, conditions)
        order = {4: channels_last, 5: channels_last_3d}.get(x.ndim)
        folded = fold(x, self.stem)
        h = self.first(folded if order is None else folded.contiguous(memory_format=order))
        skips: list[Tensor] = []
        for i, stage in enumerate(self.down):
            h = stage(self.shrink[i - 1](h) if i else h, e)
            skips.append(h)
        h = self.up[-1](h, e)
        for i in reversed(range(len(skips) - 1)):
            h = self.up[i](skips[i] + fn.interpolate(self.grow[i](h), size=skips[i].shape[2:]), e)
        y = self.last(fn.silu(self.norm(h)))
        return unfold(y, self.stem, x.shape)


def fold(x: Tensor, size: int) -> Tensor:
    """x (B, C, *space) with blocks of `size` pixels per axis as channels; the last are repeated to complete blocks."""
    missing = [part for length in reversed(x.shape[2:]) for part in (0, -length % size)]
    if any(missing):
        x = fn.pad(x, missing, mode="replicate")
    sizes = [part for length in x.shape[2:] for part in (length // size, size)]
    axes = range(2, 2 + len(sizes))
    blocks = x.reshape(*x.shape[:2], *sizes).permute(0, 1, *axes[1::2], *axes[::2])
    return blocks.reshape(len(x), -1, *sizes[::2])


def unfold(y: Tensor, size: int, shape: Sequence[int]) -> Tensor:
    """The inverse of `fold` for x of a shape."""
    n, space = y.ndim - 2, y.shape[2:]
    order = [part for k in range(n) for part in (2 + n + k, 2 + k)]
    blocks = y.reshape(len(y), -1, *[size] * n, *space).permute(0, 1, *order)
    x = blocks.reshape(len(y), -1, *(size * length for length in space))
    for axis, length in enumerate(shape[2:], 2):
        x = x.narrow(axis, 0, length)
    return x.contiguous()
