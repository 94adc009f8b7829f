"""Pictures and scores of arrays: a known spectrum is measured, equal samples have no distance, curves are visible."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from undiffuse.data import open_data
from undiffuse.data.dataset import fit_transform
from undiffuse.random import normal
from undiffuse.report.array_sections import FieldTiles, array_scores, autocorrelation, power_spectrum


@pytest.mark.parametrize("space", [(64,), (24, 32), (12, 12, 12)])
def test_white_noise_has_power_one_and_a_wave_has_its_wavenumber(space: tuple[int, ...]) -> None:
    noise = normal(0, 0, 0, 0, 400, (2, *space), torch.float64)
    wavenumber, power = power_spectrum(noise)
    assert np.abs(power - 1).max() < 0.2 and power.shape == (2, len(wavenumber))
    n = min(space)
    k = n // 4
    grid = torch.meshgrid(*map(torch.arange, space), indexing="ij")[space.index(n)]
    wave = torch.stack([torch.cos(2 * torch.pi * (k * grid / n + p)) for p in torch.rand(50, generator=torch.Generator()
                                                                                        .manual_seed(1))])[:, None]
    wavenumber, power = power_spectrum(wave.double())
    assert abs(wavenumber[int(power[0].argmax())] - k) <= 1


def test_equal_samples_have_no_distance_and_others_have_their_factor() -> None:
    data = open_data((normal(0, 0, 0, 0, 600, (16, 16)) * 5).numpy())
    assert data.array is not None
    a, b, c = data.x.split(200)
    same = array_scores(data.array, a, a, b)
    assert same["ks"] == {"c1": 0} and same["spectrum_factor"] == 1 and same["spectrum_factor_real"] < 1.3
    twice = array_scores(data.array, a, 2 * c, b)
    assert 3 < twice["spectrum_factor"] < 6 and twice["ks"]["c1"] > 0.1


def test_a_curve_is_light_where_it_runs() -> None:
    """A rising line lies on the diagonal of its picture; the middle slice of a volume is shown."""
    line = torch.linspace(-1, 1, 30).expand(20, 30) * torch.linspace(0.98, 1, 20)[:, None]
    data = open_data(line.numpy(), layout="NT")
    picture = FieldTiles(data, fit_transform(data), 4).bytes(data.x)[-1, :, :, 0].astype(float)
    height = picture.argmax(0)
    assert abs(np.polyfit(np.arange(len(height)), height, 1)[0] * len(height) / len(picture) + 1) < 0.1
    volume = normal(1, 0, 0, 0, 9, (8, 5, 6))
    data = open_data(volume.numpy() * 9, layout="NDHW")
    view = FieldTiles(data, fit_transform(data), 4)
    shown = view.bytes(data.x)[..., 0] / 255
    expected = ((9 * volume[:, 4] - view.low) / view.range).clamp(0, 1)
    assert np.abs(shown - expected.numpy()).max() < 0.5 / 255 + 1e-6


def test_the_autocorrelation_of_a_cosine_is_a_cosine() -> None:
    """cos(ωt + φ) with φ spread evenly has the correlation cos(ωk) at a lag of k steps, also with gaps."""
    t = torch.arange(32, dtype=torch.float64)
    x = torch.cos(2 * math.pi * (4 * t / 32 + torch.arange(64, dtype=torch.float64)[:, None] / 64))
    lags = torch.arange(17, dtype=torch.float64)
    np.testing.assert_allclose(autocorrelation(x), torch.cos(2 * math.pi * 4 * lags / 32).numpy(), atol=1e-9)
    x[3, 5] = math.nan
    np.testing.assert_allclose(autocorrelation(x), torch.cos(2 * math.pi * 4 * lags / 32).numpy(), atol=0.02)
