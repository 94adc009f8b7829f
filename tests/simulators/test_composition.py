"""Posteriors of several observations against products in closed form."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import undiffuse as ud
from undiffuse.errors import InputError
from undiffuse.moments import GaussianParams
from undiffuse.random import Purpose, normal
from undiffuse.simulators.composition import ComposedPosterior

SDE = ud.EDM(sigma_max=20.0)
EYE = torch.eye(2, dtype=torch.float64)


@pytest.mark.parametrize("count", [1, 4, 16])
def test_gaussian_posteriors_compose_exactly(count: int) -> None:
    xs = 0.3 + normal(count, Purpose.DATA, 0, 0, count, (2,), torch.float64)
    laws = [GaussianParams(x / 1.5, EYE / 3) for x in xs]  # noise of variance 1/2
    models = [ud.Gaussian(law.mean, law.cov).denoiser(SDE) for law in laws]
    model = ComposedPosterior(models, GaussianParams(torch.zeros(2, dtype=torch.float64), EYE), laws)
    exact = ud.Gaussian(2 * xs.sum(0) / (1 + 2 * count), EYE / (1 + 2 * count)).denoiser(SDE)
    rows = normal(1, Purpose.DATA, 0, 0, 9, (2,), torch.float64)
    for t in (0.02, 0.4, 6.0):
        torch.testing.assert_close(model.denoise(rows, t), exact.denoise(rows, t), rtol=0, atol=1e-8)


def test_several_observations_of_a_simulator(tmp_path: Path) -> None:
    rng, quick = np.random.default_rng(0), {"net_args": {"width": 8, "depth": 1, "condition": 8}}
    theta = rng.normal(size=(3000, 2))
    fields: dict[str, Any] = {"steps": 1, "patience": 0, "save_every": 1, **quick}
    post = ud.infer(theta, theta + rng.normal(size=theta.shape), out=tmp_path / "run", progress=False, **fields)
    xs = np.array([[1.0, 0.0], [0.5, 0.5], [1.5, -1.0], [0.2, 0.9]])
    draws = post.sample(2000, observations=xs)
    # Posterior N(Σx/5, I/5); 500 draws measure each covariance to 6 %, and the regression has errors of 1/√3000.
    assert np.abs(draws.mean(0) - xs.sum(0) / 5).max() < 4 * math.sqrt(0.2 / 2000) + 0.06
    assert np.abs(draws.var(0) / 0.2 - 1).max() < 4 * math.sqrt(2 / 2000) + 0.1
    with pytest.raises(InputError, match="x or observations"):
        post.sample(2)
    with pytest.raises(InputError, match="x or observations"):
        post.sample(2, x=xs[0], observations=xs)
