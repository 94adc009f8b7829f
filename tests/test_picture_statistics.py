"""Statistics of pictures against what white noise, shifted colours and flat pictures have by definition."""

from __future__ import annotations

import pytest
import torch

from undiffuse.picture_statistics import blank_share, colour_drift, fine_power
from undiffuse.random import normal


def noise(n: int, *shape: int) -> torch.Tensor:
    return normal(0, 0, 0, 0, n, shape, torch.float64)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 13, 10)])
def test_white_noise_has_its_variance_as_fine_power_and_adds_to_any_picture(shape: tuple[int, ...]) -> None:
    """The cosine transform is orthonormal: each coefficient of noise of variance v has power v, ± √(2/count)."""
    n, v = 400, 9.0
    eps = v**0.5 * noise(n, *shape)
    count = n * torch.Size(shape).numel() * 3 // 4
    assert fine_power(eps) == pytest.approx(v, rel=5 * (2 / count) ** 0.5)
    smooth = torch.cos(torch.pi * (torch.arange(shape[2]).double() + 0.5) / shape[2]).expand(n, *shape)
    assert fine_power(smooth) < 1e-20
    assert fine_power(smooth + eps) == pytest.approx(fine_power(eps), rel=1e-12)


def test_a_shift_of_one_channel_is_the_drift() -> None:
    x = noise(50, 3, 6, 6)
    moved = x.clone()
    moved[:, 1] += 0.7
    assert colour_drift(moved, x) == pytest.approx(0.7, rel=1e-12)
    assert colour_drift(x.flip(0), x) == 0


def test_flat_pictures_among_others_are_counted() -> None:
    real = noise(300, 3, 6, 6)
    x = real.clone()
    x[:30] = x[:30] * 0.2 + 5  # less than half of any contrast, whatever the brightness
    assert blank_share(x, real) == pytest.approx(0.1)
    assert blank_share(real, real) == 0
