"""The benchmark's own figures: exact draws score as exact, wrong ones do not, and its truths are truths."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from oracles import f64

from benchmarks.measure.posteriors import Case, coverage, four, held, images, lattice, score, table
from undiffuse.errors import InputError
from undiffuse.inverse.operators import as_operator
from undiffuse.metrics import c2st
from undiffuse.random import normal
from undiffuse.samplers.samples import Samples


@pytest.mark.slow
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


def test_intervals_between_order_statistics_contain_their_fraction_of_the_truths_exactly() -> None:
    """Of a truth and k exact draws every rank is equally likely; a share of the quantiles would hold 57/65 for 90 %."""
    for draws in (19, 59, 99):
        every = torch.arange(draws + 1)[None].expand(2, -1)
        for level in (0.5, 0.9):
            assert held(every, draws, level).value == pytest.approx(level, abs=1e-12)
    with pytest.raises(InputError, match="expected 19, 39"):
        held(torch.zeros(2, 1), 64, 0.9)


@pytest.mark.slow
def test_coverage_of_exact_draws_is_right_and_of_draws_of_the_prior_is_not() -> None:
    right = coverage(four(), "exact", truths=64, draws=19, steps=20)
    assert all(abs(found.value - level) < 4 * found.stderr for level, found in right.items())
    narrow = coverage(four(), "replacement", truths=64, draws=19, steps=20)  # keeps y, throws its noise away
    assert narrow[0.9].value < 0.9 - 4 * narrow[0.9].stderr


def test_the_table_names_what_it_does_not_know() -> None:
    with pytest.raises(InputError, match="plane, lattice, digits"):
        next(table(["best"]))
    assert next(table(["plane", "exact"])).startswith("4 modes, 2-D")


@pytest.mark.slow
def test_every_matrix_is_its_operator() -> None:
    for case in (lattice(4), *images()):
        x = case.law.sample(1, 3)
        observed = as_operator(case.operator).mask_unobserved(as_operator(case.operator)(x)[0]).flatten()
        assert torch.allclose(case.matrix @ x.flatten(), observed[~observed.isnan()], atol=1e-9)
        assert isinstance(case, Case) and case.truth.dim == x.numel()


def test_the_classifier_finds_a_shift_and_nothing_where_there_is_nothing() -> None:
    a, b = normal(1, 0, 0, 0, 1000, (4,)).split(500)
    assert abs(c2st(a, b) - 0.5) < 0.06
    shifted = torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(0.75))  # the best accuracy for a shift of 1.5
    assert abs(c2st(a, b + torch.tensor([1.5, 0, 0, 0])) - float(shifted)) < 0.06
