"""Random probes and the truncation correction against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import absolute_error, random_mixture
from scipy import stats

from undiffuse.likelihood import log_likelihood
from undiffuse.likelihood.divergence import lanczos
from undiffuse.mixture import Mixture
from undiffuse.processes import VP

PLANE = random_mixture(3, 2)


@pytest.mark.slow
@pytest.mark.parametrize("probes", [8, 16])
def test_the_error_bar_of_probes_follows_students_t(probes: int) -> None:
    law = random_mixture(4, 16, spread=1.0)
    x = law.sample(1000, seed=4)
    ll = log_likelihood(law.denoiser(VP()), x, "hutchinson", probes, 1e-3, 1e-3, seed=1)
    t = (ll.log_prob - law.log_prob(x)) / ll.stderr
    assert stats.kstest(t.numpy(), stats.t(probes - 1).cdf).pvalue > 0.01


def test_one_probe_has_no_error_bar_and_the_whole_trace_needs_none() -> None:
    model, x = PLANE.denoiser(VP()), PLANE.sample(3, seed=1)
    assert bool(log_likelihood(model, x, "hutchinson", 1).stderr.isnan().all())
    assert bool((log_likelihood(model, x, "exact").stderr == 0).all())


@pytest.mark.slow
@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_narrow_data_are_corrected_below_the_smallest_level(divergence: str) -> None:
    law = Mixture([1, 2, 1], [[-1.0, 0.3], [0.2, -0.6], [0.9, 0.8]], 0.02**2)
    model, x = law.denoiser(VP()), law.sample(200, seed=6)
    truth = law.log_prob(x)
    bits = 2 * math.log(2)
    ll = log_likelihood(model, x, divergence, t_end=1e-3)
    bare = log_likelihood(model, x, divergence, t_end=1e-3, truncation=False)
    chance = 3 * float(ll.stderr.square().mean().sqrt()) / math.sqrt(200)
    assert abs(float((ll.log_prob - truth).mean())) / bits < 0.005 + chance
    wrong = absolute_error(bare, truth)
    assert float(wrong.max()) / bits > 0.2 and float(wrong.mean()) / bits > 0.01
    if divergence == "exact":
        assert float(absolute_error(ll, truth).mean()) / bits < 0.001


@pytest.mark.parametrize("sigma", [0.002, 0.004])
def test_the_doubt_about_the_correction_is_where_the_data_are_not_locally_gaussian(sigma: float) -> None:
    law = Mixture([1, 1], [[-0.02], [0.02]], 0.01**2)
    x = law.sample(300, seed=1)
    ll = log_likelihood(law.denoiser(VP()), x, t_end=float(VP().time_of(-math.log(sigma))))
    wrong = absolute_error(ll, law.log_prob(x))
    assert 0.2 < float(wrong.mean() / ll.truncation_error.mean()) < 4
    between = x[:, 0].abs() < 0.008
    assert float(ll.truncation_error[between].mean()) > 10 * float(ll.truncation_error[~between].mean())


def test_lanczos_integrates_polynomials_of_its_degree_exactly() -> None:
    values = torch.linspace(0.2, 0.9, 7, dtype=torch.float64)
    v = torch.linspace(-1, 1.5, 14, dtype=torch.float64).reshape(1, 2, 7)
    rule = lanczos(lambda u: u * values, v, steps=3)
    for power in range(6):
        assert torch.allclose((rule.weights * rule.nodes**power).sum(-1), (v**2 * values**power).sum(-1))
