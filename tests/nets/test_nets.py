"""The networks: any event shape, every input and condition used, no row sees another, filled by seed and name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from undiffuse import nets
from undiffuse.errors import InputError
from undiffuse.nets import MLP, UNet, build, initialize
from undiffuse.nets.unet import fold, unfold
from undiffuse.random import normal

CASES = {
    "points": ("mlp", (2,), 0, {"width": 32, "depth": 2}),
    "table": ("mlp", (7,), 3, {"width": 32, "depth": 2}),
    "flat image": ("mlp", (1, 8, 8), 10, {"width": 32, "depth": 2}),
    "digits": ("unet", (1, 8, 8), 10, {"widths": [8, 16], "attention": [1]}),
    "odd": ("unet", (1, 7, 5), 0, {"widths": [8, 12, 16]}),
    "odd stem": ("unet", (2, 9, 11), 2, {"widths": [8, 16], "stem": 2, "blocks": 2, "attention": [0, 1]}),
    "large stem": ("unet", (3, 10, 6), 0, {"widths": [8], "stem": 4}),
    "one pixel": ("unet", (1, 1, 1), 0, {"widths": [8, 8]}),
    "series": ("unet", (3, 11), 2, {"widths": [8, 12], "stem": 2, "attention": [1]}),
    "volume": ("unet", (2, 5, 4, 3), 0, {"widths": [8, 8], "attention": [0]}),
    "volume stem": ("unet", (1, 5, 4, 3), 0, {"widths": [8, 8], "stem": 2}),
    "patches of a series": ("dit", (3, 11), 2, {"patch": 4, "width": 8, "depth": 1, "heads": 1, "condition": 8}),
    "patches of a volume": ("dit", (2, 5, 4, 3), 0, {"width": 16, "depth": 1, "heads": 2, "condition": 8}),
    "patches": ("dit", (1, 8, 8), 10, {"width": 16, "depth": 2, "heads": 2, "condition": 8}),
    "odd patches": ("dit", (2, 7, 5), 0, {"patch": 3, "width": 8, "depth": 1, "heads": 1, "condition": 8}),
    "one patch": ("dit", (1, 1, 1), 2, {"patch": 1, "width": 8, "depth": 1, "condition": 8}),
}


def live(case: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The network of a case with every parameter random, the silent ones too."""
    name, shape, classes, args = CASES[case]
    net = initialize(build(name, shape, classes, **args), 1).to(dtype)
    for i, p in enumerate(net.parameters()):
        p.data += 0.2 * normal(7, 0, i, 0, 1, tuple(p.shape), dtype)[0]
    return net


def batch(case: str, n: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor | None]:
    """Inputs for a case: x, levels and labels."""
    _, shape, classes, _ = CASES[case]
    label = torch.arange(n) % (classes + 1) if classes else None
    return normal(3, 0, 0, 0, n, shape, dtype), torch.linspace(-1.5, 1.2, n, dtype=dtype), label


@pytest.mark.parametrize("case", CASES)
def test_starts_at_zero_so_that_the_first_denoiser_is_linear(case: str) -> None:
    """The last layer is silent at first: D = c_skip x exactly, the best denoiser of Gaussian data."""
    name, shape, classes, args = CASES[case]
    y = initialize(build(name, shape, classes, **args), 0)(*batch(case, dtype=torch.float32))
    assert torch.equal(y, torch.zeros(5, *shape))


@pytest.mark.parametrize("case", CASES)
def test_no_row_sees_another(case: str) -> None:
    """A row gives the same alone as in a batch, to rounding in float64."""
    net, (x, c, label) = live(case), batch(case)
    together = net(x, c, label)
    for i in range(len(x)):
        alone = net(x[i : i + 1], c[i : i + 1], None if label is None else label[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1], atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("case", CASES)
def test_every_input_matters(case: str) -> None:
    """Each pixel or column, the noise level (defect D27), the label and every parameter have a gradient."""
    net, (x, c, label) = live(case), batch(case)
    x, c = x.requires_grad_(), c.requires_grad_()
    loss = (net(x, c, label) * normal(5, 0, 0, 0, *x.shape[:1], tuple(x.shape[1:]), x.dtype)).sum()
    grads = torch.autograd.grad(loss, [x, c, *net.parameters()])
    assert (grads[0] != 0).all() and (grads[1] != 0).all()
    if label is None or label.max() < len(x):
        used = [g for (name, _), g in zip(net.named_parameters(), grads[2:], strict=True) if "label" not in name]
        assert all(g.any() for g in used)
    if label is not None:
        assert not torch.allclose(net(x, c, label), net(x, c, None))


@pytest.mark.parametrize("shape", [(1, 7, 5), (2, 9, 4), (1, 1, 6)])
def test_sizes_of_any_parity_are_treated_alike_in_height_and_width(shape: tuple[int, ...]) -> None:
    """With all kernels transposed, the transposed image gives the transposed output, also where halving rounds."""
    net = initialize(UNet(shape, widths=[8, 12, 16], attention=[2]), 1).double()
    for p in net.parameters():
        p.data += 0.1
    x, c = normal(3, 0, 0, 0, 2, shape, torch.float64), torch.tensor([-0.5, 0.5], dtype=torch.float64)
    y = net(x, c)
    for p in net.parameters():
        if p.ndim == 4:
            p.data = p.data.mT.contiguous()
    torch.testing.assert_close(net(x.mT, c).mT, y, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", ["unet", "dit"])
@pytest.mark.parametrize("space", [(11,), (6, 5)], ids=["series", "image"])
def test_an_axis_of_length_one_changes_nothing(name: str, space: tuple[int, ...]) -> None:
    """A series is an image of one row, an image a volume of one slice: the middle of each kernel is all that counts."""
    args = {"unet": {"widths": [8, 16], "attention": [1]}, "dit": {"patch": 1, "width": 24, "heads": 2}}[name]
    low, high = (initialize(build(name, (2, *size), 3, **args), 1).double() for size in (space, (1, *space)))
    for (_, a), (_, b) in zip(low.named_parameters(), high.named_parameters(), strict=True):
        a.data += 0.1
        b.data = a.data.clone() if a.ndim == b.ndim else torch.stack([
            7 + 0 * a.data, a.data, 3 - a.data] if b.shape[2] == 3 else [a.data], 2)
    if name == "dit":
        high.positions = low.positions
    x, c, label = normal(3, 0, 0, 0, 4, (2, *space), torch.float64), torch.linspace(-1, 1, 4).double(), torch.arange(4)
    torch.testing.assert_close(high(x[:, :, None], c, label)[:, :, 0], low(x, c, label), atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 5), (13,), (3, 6, 5)])
@pytest.mark.parametrize("stem", [1, 2, 4])
def test_folding_loses_no_pixel(size: tuple[int, ...], stem: int) -> None:
    """Unfolding and cropping what was padded and folded is the identity; of an image it is torch's pixel shuffle."""
    x = normal(0, 0, 0, 0, 3, (2, *size))
    folded = fold(x, stem)
    assert torch.equal(unfold(folded, stem, x.shape), x)
    if size == (8, 8):
        assert torch.equal(folded, fn.pixel_unshuffle(x, stem))


def test_filled_by_seed_and_name() -> None:
    """The same bits for the same seed, others for another; a layer's start does not depend on what is beside it."""
    small, large = initialize(MLP((2,), depth=1), 4), initialize(MLP((2,), depth=3), 4)
    again, other = initialize(MLP((2,), depth=1), 4), initialize(MLP((2,), depth=1), 5)
    for name, p in small.named_parameters():
        assert torch.equal(p, again.get_parameter(name)) and torch.equal(p, large.get_parameter(name))
    assert not torch.equal(small.first.weight, other.first.weight)


def test_start_does_not_touch_the_callers_random_state() -> None:
    """`initialize` draws from nothing global."""
    net, state = MLP((2,)), torch.get_rng_state()
    initialize(net, 0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("layer", [nn.Linear(64, 4096), nn.Conv2d(7, 64, 3), nn.Embedding(64, 512)])
def test_layers_keep_the_variance(layer: nn.Module) -> None:
    """Weights have variance 1/fan-in, rows of embeddings 1; the estimate's standard error is √(2/n)."""
    weight = initialize(layer, 9).weight
    fan_in = 1 if isinstance(layer, nn.Embedding) else weight[0].numel()
    assert abs(weight.var() * fan_in - 1) < 4 * (2 / weight.numel()) ** 0.5
    assert getattr(layer, "bias", None) is None or not layer.bias.any()


def test_errors_say_what_to_do() -> None:
    """An unknown name, argument or shape is a sentence."""
    with pytest.raises(InputError, match="expected one of mlp, unet, dit"):
        build("transformer", (2,))
    with pytest.raises(InputError, match="depht"):
        build("mlp", (2,), depht=3)
    with pytest.raises(InputError, match="channels, \\*space"):
        build("unet", (2,))
    for wrong in ({"shape": (2,)}, {"shape": (1, 8, 8), "width": 10}, {"shape": (1, 8, 8), "width": 16, "heads": 3}):
        with pytest.raises(InputError, match="a width divided by 4 and heads"):
            build("dit", **wrong)


def test_names_are_json() -> None:
    """Every network is built from JSON values; its class is in the table."""
    assert set(nets.NETS) == {"mlp", "unet", "dit"}
    assert all(CASES[case][0] in nets.NETS for case in CASES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("size", "width"), [(1, 30), (3, 18), (5, 30), (7, 32), (9, 50), (13, 27)])
def test_a_row_is_the_same_bytes_wherever_it_stands(size: int, width: int, dtype: torch.dtype) -> None:
    """At odd sizes a matrix product may take another kernel for some rows of a batch; every layer is at one here."""
    net = initialize(build("mlp", (size,), 3, width=width, depth=2, condition=10), 1).to(dtype)
    for i, p in enumerate(net.parameters()):
        p.data += 0.2 * normal(7, 0, i, 0, 1, tuple(p.shape), dtype)[0]
    x = normal(8, 0, 0, 0, 1, (size,), dtype).expand(64, size).contiguous()
    y = net(x, torch.full((64,), 0.3, dtype=dtype), torch.ones(64, dtype=torch.int64))
    assert y.abs().max() > 0 and torch.equal(y, y[:1].expand_as(y))
