"""Operators against the definitions of their names, and invalid arguments."""

from __future__ import annotations

import pytest
import torch
from oracles import f64

from undiffuse.errors import InputError
from undiffuse.inverse import (
    Convolve,
    Downsample,
    Fourier,
    Grey,
    box,
    gaussian_blur,
    motion_blur,
    random_mask,
)
from undiffuse.random import normal

SHAPE = (1, 6, 6)
HALF = torch.ones(6, 4, dtype=torch.bool)


def test_operators_do_what_they_are_called() -> None:
    x = normal(3, 0, 0, 0, 1, SHAPE, torch.float64)
    one = torch.zeros(1, 1, 7, 7, dtype=torch.float64)
    one[..., 3, 3] = 1
    line = motion_blur(3)(one)[0, 0]
    assert torch.allclose(line[3, 2:5], f64(1, 1, 1) / 3, atol=0.05) and line.sum() == pytest.approx(1)
    assert motion_blur(5, 90.0)(one)[0, 0, 1:6, 3].sum() == pytest.approx(1)
    turned = motion_blur(7, 45.0)(torch.nn.functional.pad(one, (2, 2, 2, 2)))[0, 0]
    assert turned[4, 6] > 0.1 and turned[4, 4] == 0  # up means right
    assert torch.allclose(gaussian_blur(1.0)(torch.ones(1, 1, 9, 9)), torch.ones(1, 1, 9, 9))
    spread = gaussian_blur(0.8)(torch.nn.functional.pad(one, (4, 4, 4, 4)))[0, 0].sum(0)
    assert (spread * (torch.arange(15) - 7) ** 2).sum() == pytest.approx(0.64, rel=0.02)
    assert torch.equal(Convolve(torch.tensor([[0.0, 0, 1]]))(x)[..., 1:], x[..., :-1])
    assert torch.allclose(Downsample(3)(x)[0, 0, 0, 1], x[0, 0, :3, 3:].mean())
    whole = torch.fft.fft2(x, norm="ortho")
    weights = f64(1, 2, 2, 1)  # columns of the half-plane stand for two
    power = Fourier(HALF)(x).square().sum(-1).reshape(6, 4) * weights
    assert power.sum() == pytest.approx(float(whole.abs().square().sum())) == pytest.approx(float(x.square().sum()))
    assert Grey()(torch.ones(1, 3, 2, 2)).flatten() == pytest.approx(torch.ones(4))
    assert random_mask((3, 50, 50), 0.3).mask.double().mean() == pytest.approx(0.7, abs=0.03)
    assert (~box(SHAPE, 1, 2, 3, 4).mask).sum() == 12


@pytest.mark.parametrize("wrong", [
    lambda: gaussian_blur(0.0), lambda: motion_blur(0), lambda: Downsample(4)(torch.zeros(1, *SHAPE)),
    lambda: gaussian_blur(3.0)(torch.zeros(1, *SHAPE)), lambda: Grey()(torch.zeros(1, *SHAPE)),
    lambda: random_mask(SHAPE, 1.0),
])
def test_nonsense_gets_a_sentence(wrong: object) -> None:
    with pytest.raises(InputError, match=r"got .*; expected"):
        wrong()  # type: ignore[operator]
