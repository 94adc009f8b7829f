"""The benchmark's own figures: exact draws score as exact, wrong ones do not, and its truths are truths."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from oracles import f64

from undiffuse.bench.posteriors import Case, four, images, lattice, score
from undiffuse.inverse.operators import as_operator
from undiffuse.metrics import c2st
from undiffuse.noise import normal
from undiffuse.sampling import Samples


def test_exact_draws_score_as_exact_and_others_do_not() -> None:
    case = four()
    right = score(case, "right", Samples(case.truth.sample(1024, 50), 0, f64(1.0), ""))
    assert 0.45 < right.c2st < 0.55 and right.weights < 4 * 0.5 / 32 and right.deviations < 4 / math.sqrt(2048)
    assert right.sliced < 3 * right.floor
    wrong = score(case, "wrong", Samples(case.law.sample(1024, 50), 0, f64(1.0), ""))
    assert wrong.c2st > 0.7 and wrong.sliced > 3 * right.sliced and wrong.weights > 0.1


def test_the_truth_is_what_importance_weights_say() -> None:
    """Means under the posterior and the evidence, from a million draws of the prior."""
    case = replace(four(), y=f64(0.6), noise=0.3)
    x = case.law.sample(1_000_000)
    w = torch.distributions.Normal(0.6, 0.3).log_prob(x[:, 0])
    found = (w.softmax(0)[:, None] * x).sum(0)
    error = 5 / math.sqrt(1 / float(w.softmax(0).square().sum()))
    assert ((found - case.truth.mean).abs() < error).all()
    assert abs(float(w.logsumexp(0)) - math.log(1_000_000) - case.log_evidence) < error


@pytest.mark.slow
def test_every_matrix_is_its_operator() -> None:
    for case in (lattice(4), *images()):
        x = case.law.sample(1, 3)
        seen = as_operator(case.operator).seen(as_operator(case.operator)(x)[0]).flatten()
        assert torch.allclose(case.matrix @ x.flatten(), seen[~seen.isnan()], atol=1e-9)
        assert isinstance(case, Case) and case.truth.dim == x.numel()


def test_the_classifier_finds_a_shift_and_nothing_where_there_is_nothing() -> None:
    a, b = normal(1, 0, 0, 0, 1000, (4,)).split(500)
    assert abs(c2st(a, b) - 0.5) < 0.06
    shifted = torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(0.75))  # the best accuracy for a shift of 1.5
    assert abs(c2st(a, b + torch.tensor([1.5, 0, 0, 0])) - float(shifted)) < 0.06
