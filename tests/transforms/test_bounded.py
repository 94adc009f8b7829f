"""Columns with bounds: inverse, derivative, and the laws that become normal."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from undiffuse.errors import InputError
from undiffuse.transforms.bounded import Bounded
from undiffuse.transforms.column_kinds import column

CASES = [(-3.0, 3.0), (0.0, math.inf), (-math.inf, 2.0), (0.0, 1e-3)]


def values(low: float, high: float, n: int = 400) -> np.ndarray:
    rng = np.random.default_rng(0)
    if math.isinf(high):
        return low + np.exp(rng.normal(0.3, 0.5, n))
    return high - np.exp(rng.normal(size=n)) if math.isinf(low) else rng.uniform(low, high, n)


@pytest.mark.parametrize(("low", "high"), CASES)
def test_it_is_invertible_normal_and_has_the_derivative_of_its_map(low: float, high: float) -> None:
    x = values(low, high)
    fitted = column(Bounded.fit(x, low, high).config())
    rows = torch.tensor(x, requires_grad=True)
    z = fitted.forward(rows)[:, 0]
    slope = torch.autograd.grad(z.sum(), rows)[0]
    torch.testing.assert_close(fitted.inverse(z.detach()[:, None]), rows.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(fitted.log_derivative(rows.detach()), slope.log(), rtol=1e-7, atol=1e-7)
    z = z.detach()
    assert abs(float(z.mean())) < 1e-9 and abs(float(z.std(unbiased=False)) - 1) < 1e-9
    assert stats.kstest(z.numpy(), "norm").pvalue > 0.01  # uniform and log-normal laws become normal


@pytest.mark.parametrize(("low", "high"), CASES)
def test_no_number_of_the_model_leaves_the_bounds(low: float, high: float) -> None:
    fitted = Bounded.fit(values(low, high), low, high)
    x = fitted.inverse(torch.linspace(-60, 60, 101, dtype=torch.float64)[:, None])
    assert bool(((x >= low) & (x <= high)).all())
    ends = torch.tensor([v for v in (low, high) if math.isfinite(v)], dtype=torch.float64)
    assert bool(fitted.forward(ends).isfinite().all()) and bool(fitted.log_derivative(ends).isfinite().all())
    outside = torch.tensor([v for v in (low - 1, high + 1) if math.isfinite(v)], dtype=torch.float64)
    assert bool((fitted.log_derivative(outside) == -math.inf).all())
    assert bool(fitted.forward(torch.tensor([math.nan])).isnan().all())


def test_values_outside_and_bounds_without_an_interval_are_refused() -> None:
    with pytest.raises(InputError, match="between the bounds 0 and 1"):
        Bounded.fit(np.array([0.5, 1.5]), 0.0, 1.0)
    for config in ({"low": 1.0, "high": 0.0}, {"low": -1e37, "high": 1e37}):
        with pytest.raises(InputError, match="bounds low < high"):
            column({"kind": "bounded", "mean": 0.0, "std": 1.0, **config})
