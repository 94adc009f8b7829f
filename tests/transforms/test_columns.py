"""The maps of single columns: exact on the way back, slopes of autograd, normal laws where there should be."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from undiffuse.errors import InputError
from undiffuse.random import Purpose, normal, uniform
from undiffuse.transforms.column_fitting import fit_column
from undiffuse.transforms.column_kinds import column
from undiffuse.transforms.columns import Categories, Power, Quantiles, Steps
from undiffuse.transforms.yeo_johnson import yeo_johnson, yeo_johnson_inverse

SETTINGS = settings(derandomize=True, deadline=None, max_examples=40)


def gaussian(n: int, stream: int = 0) -> np.ndarray:
    return normal(0, Purpose.DATA, 40 + stream, 0, n, (), torch.float64).numpy()


SHAPES = {"normal": lambda z: 3 * z + 5, "lognormal": np.exp,
          "cauchy": lambda z: np.tan(np.pi * (special.ndtr(z) - 0.5)),
          "two peaks": lambda z: np.sign(z) * 4 + 0.3 * z, "half zeros": lambda z: np.where(z < 0, 0.0, np.exp(z)),
          "counts": lambda z: np.floor(np.exp(z)), "years": lambda z: np.rint(2000 + 10 * z), "flag": lambda z: z > 0}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [7, 60, 800])
def test_what_was_seen_comes_back_to_the_last_digit(shape: str, n: int) -> None:
    x = SHAPES[shape](gaussian(n)).astype(np.float32)
    fitted = fit_column(x.astype(np.float64))
    wide = torch.from_numpy(x).double()
    assert torch.equal(fitted.inverse(fitted.forward(wide)).float(), torch.from_numpy(x))
    assert column(json.loads(json.dumps(fitted.config()))) == fitted
    z = fitted.forward(wide)
    assert torch.allclose(z.mean(0), torch.zeros(1).double(), atol=1e-9) and float(z.std(unbiased=False)) == (
        pytest.approx(1, abs=1e-9))


@pytest.mark.parametrize("shape", ["lognormal", "cauchy", "two peaks"])
def test_heavy_tails_and_peaks_become_normal(shape: str) -> None:
    """4,000 new rows pass Kolmogorov's test against N(0, 1), the map fitted to 4,000 others: √n D below 1.95 (p = .001)
    times √2, for the map has as much error as the sample."""
    fitted = fit_column(SHAPES[shape](gaussian(4000)))
    z = fitted.forward(torch.from_numpy(SHAPES[shape](gaussian(4000, 1))))[:, 0].numpy()
    assert math.sqrt(4000) * stats.kstest(z, "norm").statistic < 1.95 * math.sqrt(2)


@SETTINGS
@given(st.floats(0, 2), st.lists(st.floats(-50, 50), min_size=1, max_size=20))
def test_the_power_is_that_of_scipy_and_its_inverse_is_exact(power: float, values: list[float]) -> None:
    u = torch.tensor(values, dtype=torch.float64)
    w = yeo_johnson(u, power)
    assert np.allclose(w.numpy(), stats.yeojohnson(u.numpy(), power), rtol=1e-7, atol=1e-9)
    assert torch.allclose(yeo_johnson_inverse(w, power), u, rtol=1e-9, atol=1e-12)


def test_the_power_is_the_most_likely_one() -> None:
    """Within a grid step, .05, of what scipy's own maximisation finds."""
    x = np.exp(0.6 * gaussian(500))
    fitted = fit_column(x)
    assert isinstance(fitted, Power)
    assert fitted.power == pytest.approx(stats.yeojohnson((x - x.mean()) / x.std())[1], abs=0.05)


@pytest.mark.parametrize("fitted", [Power(3.0, 2.0, 0.3, 0.1, 0.7), Power(3.0, 2.0, 1.6, 0.1, 0.7),
                                    Power(0.0, 2.0, 0.0),
                                    Quantiles((0.0, 0.5, 2.0, 7.0), (-1.0, 0.0, 0.4, 2.0), 0.3, 1.2)])
def test_log_derivatives_are_those_of_autograd(fitted: Power | Quantiles) -> None:
    x = torch.tensor([-4.0, 0.3, 1.7, 6.9, 30.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(fitted.forward(x).sum(), x)
    assert torch.allclose(fitted.log_derivative(x.detach()), slope.log(), atol=1e-12)


def test_few_numbers_come_back_as_often_as_they_were_there() -> None:
    """A standard normal score, cut: shares .6, .3, .1 within four standard errors of 20,000 draws."""
    x = np.repeat([1.0, 2.0, 5.0], [600, 300, 100])
    steps = fit_column(x)
    assert isinstance(steps, Steps)
    scale = float(np.diff(steps.cuts)[0] / np.diff(special.ndtri([0.6, 0.9]))[0])  # undoes the standardising
    z = normal(0, Purpose.DATA, 50, 0, 20_000, (), torch.float64) * scale
    shift = steps.cuts[0] - scale * float(special.ndtri(0.6))
    back = steps.inverse((z + shift)[:, None])
    for level, share in ((1, 0.6), (2, 0.3), (5, 0.1)):
        assert float((back == level).double().mean()) == pytest.approx(share, abs=4 * math.sqrt(share / 20_000))


def test_a_value_that_many_cells_have_is_drawn_as_often() -> None:
    """Half of the column is 0: so are half of the draws, and none is below."""
    fitted = fit_column(SHAPES["half zeros"](gaussian(2000)))
    z = normal(0, Purpose.DATA, 51, 0, 20_000, (1,), torch.float64)
    back = fitted.inverse((z - fitted.mean) / fitted.std)  # type: ignore[attr-defined]
    zero = float((back == 0).double().mean())
    assert zero == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 2000) + 1 / 64) and float(back.min()) == 0


def test_words_are_told_by_the_nearest_vertex() -> None:
    words = Categories((0.5, 0.3, 0.2))
    codes = torch.tensor([0.0, 1.0, 2.0, math.nan], dtype=torch.float64)
    z = words.forward(codes)
    assert torch.equal(words.inverse(z)[:3], codes[:3]) and bool(words.inverse(z)[3].isnan())
    near = z[:3] + 0.3 * (2 * uniform(0, Purpose.DATA, 52, 0, 3, (3,)) - 1)
    vertices = words.forward(torch.arange(3.0, dtype=torch.float64))
    assert torch.equal(words.inverse(near), torch.cdist(near, vertices).argmin(1).double())
    shares = torch.tensor(words.frequencies, dtype=torch.float64)
    total = (shares[:, None] * vertices**2).sum()  # the variance of the column, 1 by the choice of units
    assert float(total) == pytest.approx(1) and torch.allclose(shares @ vertices, torch.zeros(3).double())


def test_missing_stays_missing() -> None:
    for shape in SHAPES.values():
        x = np.asarray(shape(gaussian(50)), np.float64)
        x[::3] = math.nan
        fitted = fit_column(x)
        assert torch.equal(fitted.forward(torch.from_numpy(x))[:, 0].isnan(), torch.from_numpy(np.isnan(x)))


@pytest.mark.parametrize("config", [
    3, {}, {"kind": "power"}, {"kind": "steps", "levels": [1], "scores": [1], "cuts": []},
    {"kind": "categories", "frequencies": [0.5, 0.6]}, {"kind": "categories", "frequencies": [1.0]},
    {"kind": "constant", "value": "x"},
    {"kind": "quantiles", "values": [1, 1], "scores": [0, 1], "mean": 0, "std": 1, "integer": False},
    {"kind": "power", "centre": 0, "scale": 0, "power": 1, "mean": 0, "std": 1, "integer": False},
    {"kind": "power", "centre": 0, "scale": 1, "power": 3, "mean": 0, "std": 1, "integer": False}])
def test_any_other_configuration_is_refused(config: object) -> None:
    with pytest.raises(InputError, match=r"^[^\n]+$"):
        column(config)  # type: ignore[arg-type]
