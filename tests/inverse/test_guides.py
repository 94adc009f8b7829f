"""Guided denoisers against closed forms: on Gaussian data the moment-matched ones are exact."""

from __future__ import annotations

import pytest
import torch
from oracles import PROCESSES, correlated_gaussian, f64, inner_times, random_mixture

from undiffuse.inverse import Columns, Identity, Linear, Mask, observe
from undiffuse.mixture import Gaussian
from undiffuse.processes import EDM, VP
from undiffuse.random import normal
from undiffuse.samplers.driver import sample

A, Y = f64(1.0, 0.5, 0.0, 0.0, -1.0, 2.0).reshape(2, 3), f64(0.3, -1.0)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("method", ["mmps", "wiener"])
def test_on_gaussian_data_the_guided_denoiser_is_the_closed_form(process: str, method: str) -> None:
    law, sde = correlated_gaussian(), PROCESSES[process]
    x = 2 * normal(3, 0, 0, 0, 6, (3,), torch.float64)
    for t in inner_times(sde, 5):
        truth = law.posterior(A, Y, f64(0.1, 0.4)).denoiser(sde).denoise(x, t)
        guided = observe(law.denoiser(sde), A, Y, f64(0.1, 0.4), method).denoise(x, t)
        assert torch.allclose(guided, truth, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["pigdm", "tmpd"])
def test_isotropic_gaussian_data_are_enough_for_the_diagonal_methods(method: str) -> None:
    law, sde, x = Gaussian(f64(1, 2, 3), 0.7), VP(), normal(3, 0, 0, 0, 6, (3,), torch.float64)
    truth = law.posterior(A, Y, 0.2).denoiser(sde).denoise(x, 0.4)
    assert torch.allclose(observe(law.denoiser(sde), A, Y, 0.2, method).denoise(x, 0.4), truth, atol=1e-9)


def test_noise_zero_reproduces_the_observed_entries() -> None:
    law = correlated_gaussian()
    out = sample(observe(law.denoiser(VP()), A, Y, 0.0), 500, steps=20).x
    truth = law.posterior(A, Y, 1e-6)
    assert (out @ A.mT - Y).abs().max() < 1e-3
    assert (out.mean(0) - truth.mean).abs().max() < 4 * float(truth.covariance.diagonal().max() / 500) ** 0.5


def test_missing_entries_are_nan_and_every_sample_may_have_its_own() -> None:
    model = random_mixture(3, 3).denoiser(EDM())
    rows = torch.stack([f64(0.2, torch.nan, 1.0), f64(torch.nan, 0.4, torch.nan)])
    table = observe(model, Identity(), None, 0.1)
    both = sample(table, 2, steps=8, y=rows).x
    for row, expected, columns in zip(rows, both, ([0, 2], [1]), strict=True):
        ways = (observe(model, Identity(), row, 0.1), observe(model, Mask(~row.isnan()), row.nan_to_num(7.0), 0.1),
                observe(model, Columns(columns), row[columns], 0.1),
                observe(model, Linear(torch.eye(3)[columns]), row[columns], 0.1),
                observe(model, ~row.isnan(), row, 0.1), observe(model, lambda x, c=columns: x[:, c], row[columns], 0.1))
        index = 0 if len(columns) == 2 else 1
        for way in ways:
            assert torch.allclose(sample(way, 1, steps=8, first_index=index).x[0], expected, atol=1e-9)


def test_conjugate_gradients_agree_with_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = random_mixture(3, 3).denoiser(VP()), normal(3, 0, 0, 0, 6, (3,), torch.float64)
    for method in ("mmps", "tmpd", "pigdm", "wiener"):
        guided = observe(model, A, Y, 0.2, method)
        dense = guided.denoise(x, 0.3)
        monkeypatch.setattr("undiffuse.inverse.guides.DENSE", 0)
        assert torch.allclose(guided.denoise(x, 0.3), dense, atol=1e-8)
        monkeypatch.undo()
