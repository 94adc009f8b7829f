"""The transformer: its attention is the formula, its positions are waves, and without them patches are all alike."""

from __future__ import annotations

import math

import torch

from undiffuse.nets import DiT, initialize
from undiffuse.nets.dit import TransformerBlock, sinusoidal_positions
from undiffuse.random import normal


def live(net: torch.nn.Module) -> torch.nn.Module:
    """Every parameter random, the silent ones too."""
    initialize(net, 1).double()
    for i, p in enumerate(net.parameters()):
        p.data += 0.2 * normal(7, 0, i, 0, 1, tuple(p.shape), torch.float64)[0]
    return net


def test_positions_tell_displacements() -> None:
    """⟨p(i, j), p(i', j')⟩ = Σ_k cos ω_k(i − i') + cos ω_k(j − j'), ω_k = 10000^{−k/4} for a width of 16."""
    p = sinusoidal_positions([3, 5], 16)
    i, j = (x.flatten().double() for x in torch.meshgrid(torch.arange(3), torch.arange(5), indexing="ij"))
    omega = 10_000.0 ** (-torch.arange(4).double() / 4)
    expected = sum(((x[:, None] - x) [..., None] * omega).cos().sum(-1) for x in (i, j))
    torch.testing.assert_close(p @ p.T, expected, rtol=1e-12, atol=1e-12)
    assert p.unique(dim=0).shape == (15, 16)


def test_attention_is_softmax_of_scalar_products() -> None:
    """One head after another, softmax(QKᵀ/√d) V, mixed by the last matrix."""
    block, h = live(TransformerBlock(12, 3, 4)), normal(2, 0, 0, 0, 2, (5, 12), torch.float64)
    q, k, v = (h @ w.T + b for w, b in zip(block.qkv.weight.chunk(3), block.qkv.bias.chunk(3), strict=True))
    heads = []
    for part in (slice(0, 4), slice(4, 8), slice(8, 12)):
        shares = (q[..., part] @ k[..., part].mT / math.sqrt(4)).softmax(-1)
        heads.append(shares @ v[..., part])
    torch.testing.assert_close(block._attention(h), block.mix(torch.cat(heads, -1)), rtol=1e-10, atol=1e-10)


def test_without_positions_patches_may_change_places() -> None:
    """Exchanged patches of the input give exchanged patches of the output; with positions they do not."""
    net = live(DiT((1, 4, 6), patch=2, width=8, depth=2, heads=2, condition=8))
    x, c = normal(3, 0, 0, 0, 2, (1, 4, 6), torch.float64), torch.tensor([-0.5, 0.5], dtype=torch.float64)
    turned = torch.cat([x[..., 2:, :], x[..., :2, :]], -2)
    with_them = net(x, c), net(turned, c)
    net.positions.zero_()
    without = net(x, c), net(turned, c)
    torch.testing.assert_close(without[1][..., [2, 3, 0, 1], :], without[0], rtol=1e-10, atol=1e-10)
    assert not torch.allclose(with_them[1][..., [2, 3, 0, 1], :], with_them[0], atol=1e-3)


def test_blocks_are_silent_at_first() -> None:
    """adaLN-zero: gates are 0, so that a block is the identity, whatever the noise level."""
    block = initialize(TransformerBlock(8, 2, 4), 0)
    h, e = normal(0, 0, 0, 0, 2, (3, 8)), normal(1, 0, 0, 0, 2, (4,))
    assert torch.equal(block(h, e), h)
