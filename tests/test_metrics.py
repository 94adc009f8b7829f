"""Distances against closed forms, brute force, and what two samples of one law give."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import f64, random_mixture
from scipy import optimize, stats
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.metrics import (
    agreement,
    classifier,
    energy,
    frechet,
    ks_radius,
    mmd,
    nearest_distance,
    noise_floor,
    sliced_w2,
    w1_1d,
    with_error,
)
from undiffuse.mixture import Mixture
from undiffuse.random import Purpose, normal

DISTANCES = {"sliced_w2": sliced_w2, "mmd": mmd, "energy": energy}


def draws(n: int, d: int = 2, stream: int = 0) -> Tensor:
    return normal(5, Purpose.DATA, stream, 0, n, (d,), torch.float64)


# --- transport -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("n, m", [(1, 1), (7, 7), (5, 8), (12, 4), (1, 9), (10, 3)])
def test_transport_on_the_line_is_the_coupling_of_quantiles(n: int, m: int) -> None:
    x, y = draws(n, 1), 2 * draws(m, 1, 1) + 1
    assert w1_1d(x, y) == pytest.approx(stats.wasserstein_distance(x[:, 0], y[:, 0]), rel=1e-10)
    # repeating every point leaves an empirical law as it is, and makes the numbers equal: then it is pairing in order
    a, b = x[:, 0].sort().values.repeat_interleave(m), y[:, 0].sort().values.repeat_interleave(n)
    assert sliced_w2(x, y) == pytest.approx(float((a - b).square().mean().sqrt()), rel=1e-10)


@pytest.mark.parametrize("d", [2, 5])
def test_a_shift_moves_everything_by_itself(d: int) -> None:
    x, shift = draws(200, d), torch.arange(1.0, d + 1, dtype=torch.float64)
    # a random direction sees ‖shift‖ cos θ, whose mean square is ‖shift‖²/d
    seen = sliced_w2(x, x + shift, projections=4000) ** 2
    spread = float(shift.square().sum()) / d * math.sqrt(2 * (d - 1) / (d + 2)) / math.sqrt(4000)
    assert abs(seen - float(shift.square().sum()) / d) < 4 * spread


def test_the_distance_of_gaussians_is_the_closed_form() -> None:
    # W₂(N(0, 1), N(0, s²)) = |s − 1| in every direction; the error of an empirical quantile function is O(1/√n)
    n = 10_000
    assert sliced_w2(draws(n), 1.5 * draws(n, 2, 1)) == pytest.approx(0.5, abs=0.02)
    assert w1_1d(draws(n, 1), draws(n, 1, 1) + 0.3) == pytest.approx(0.3, abs=4 * math.sqrt(2 / n))


def test_slices_never_exceed_the_whole() -> None:
    """W₂ itself is the best pairing of n points with n others."""
    x, y = draws(100, 3), random_mixture(3, 3).sample(100)
    cost = torch.cdist(x, y).square().numpy()
    assert sliced_w2(x, y) ** 2 <= cost[optimize.linear_sum_assignment(cost)].mean()


# --- kernels ---------------------------------------------------------------------------------------------------------

def brute_force(kernel, x: Tensor, y: Tensor) -> float:  # type: ignore[no-untyped-def]
    def mean(a: Tensor, b: Tensor, same: bool) -> float:
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not same or i != j]
        return sum(kernel(float((a[i] - b[j]).norm())) for i, j in pairs) / len(pairs)

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


def test_discrepancies_are_their_definitions() -> None:
    x, y = draws(7), draws(9, 2, 1) + 0.5
    assert mmd(x, y, bandwidth=0.8) == pytest.approx(brute_force(lambda r: math.exp(-r * r / 1.28), x, y), abs=1e-7)
    assert energy(x, y) == pytest.approx(brute_force(lambda r: -r, x, y), abs=1e-7)
    middle = float(np.median([float((p - q).norm()) for p in x for q in y]))
    assert mmd(x, y) == pytest.approx(mmd(x, y, middle), rel=1e-6)


def test_the_mmd_of_gaussians_is_the_closed_form() -> None:
    # E exp(−(x−y)²/2b²) for x − y ~ N(m, v) is (1 + v/b²)^{−1/2} exp(−m²/2(b² + v))
    n, b, m = 3000, 1.0, 1.0
    kernel = lambda m, v: (1 + v / b**2) ** -0.5 * math.exp(-(m**2) / 2 / (b**2 + v))  # noqa: E731
    x, y = draws(n, 1), draws(n, 1, 1) + m
    got = with_error(lambda x, y: mmd(x, y, b), x, y)
    assert abs(got.value - (2 * kernel(0, 2) - 2 * kernel(m, 2))) < 4 * got.stderr


@pytest.mark.parametrize("metric", [mmd, energy])
def test_discrepancies_of_one_law_are_around_zero(metric) -> None:  # type: ignore[no-untyped-def]
    values = np.array([metric(draws(60, 2, 2 * i), draws(60, 2, 2 * i + 1)) for i in range(60)])
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(len(values)) and values.min() < 0 < values.max()


# --- what holds for all ----------------------------------------------------------------------------------------------

@settings(max_examples=30)
@given(n=st.integers(2, 12), seed=st.integers(0, 99))
def test_distances_do_not_depend_on_order_or_roles(n: int, seed: int) -> None:
    x, y = draws(n, 3, seed), draws(n, 3, seed + 1000) * 2
    for metric in DISTANCES.values():
        assert metric(x, y) == pytest.approx(metric(y, x), rel=1e-6, abs=1e-9)
        assert metric(x.flip(0), y) == pytest.approx(metric(x, y), rel=1e-6, abs=1e-9)
        assert metric(x.reshape(n, 3, 1).float(), y.reshape(n, 3, 1)) == pytest.approx(metric(x, y), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("metric", DISTANCES.values(), ids=DISTANCES.keys())
def test_the_floor_is_what_two_real_samples_give_and_a_wrong_law_exceeds_it(metric) -> None:  # type: ignore[no-untyped-def]
    angle, n = torch.arange(8, dtype=torch.float64) * math.pi / 4, 400
    law = Mixture(torch.ones(8), 2 * torch.stack([angle.cos(), angle.sin()], 1), 0.04)
    real_a, real_b = law.sample(n), law.sample(n, first_index=n)
    floor = noise_floor(metric, real_a, real_b)
    fresh = np.array([metric(law.sample(n, seed=i), law.sample(n, seed=i, first_index=n)) for i in range(1, 13)])
    assert abs(fresh.mean() - floor.value) < 4 * math.hypot(fresh.std() / math.sqrt(12), floor.stderr)
    assert 1 / 3 < fresh.std() / floor.stderr < 3
    assert metric(0.6 * law.sample(n, seed=1), real_b) > floor.value + 4 * max(floor.stderr, fresh.std())
    assert floor == noise_floor(metric, real_a, real_b)


def test_the_standard_error_is_the_spread_of_repetitions() -> None:
    claimed = [with_error(energy, draws(400, 2, 2 * i), draws(400, 2, 2 * i + 1) + 0.7) for i in range(20)]
    values = np.array([e.value for e in claimed])
    mean_claim = math.sqrt(np.mean([e.stderr**2 for e in claimed]))
    assert 0.6 < values.std(ddof=1) / mean_claim < 1.6  # 20 repetitions know a deviation to 16 %


# --- neighbours, radii, classes --------------------------------------------------------------------------------------

def test_the_nearest_training_sample_is_found_in_any_number_of_rows() -> None:
    train, x = draws(300, 3), draws(600, 3, 1)
    exact = torch.stack([(row - train).norm(dim=1).min() for row in x])
    assert torch.allclose(nearest_distance(x, train), exact, rtol=1e-6, atol=1e-6)
    copies = nearest_distance(train[:20].reshape(20, 3, 1), train.reshape(300, 3, 1))
    assert copies.max() < 1e-6


def test_radii_tell_a_right_mode_from_a_shrunken_one() -> None:
    law, n = random_mixture(4, 2, spread=30.0), 2000
    x, k = law.sample(n, labels=True)
    assert ks_radius(law.radii(x), 2) < 1.95 / math.sqrt(n)  # p = 0.001
    collapsed = law.means[k] + 0.7 * (x - law.means[k])
    # P(χ²₂ < r²) = 1 − e^{−r²/2}: the greatest gap between r and 0.7 r
    r = torch.linspace(0, 6, 2001, dtype=torch.float64)
    gap = float((torch.exp(-(r**2) / 2) - torch.exp(-((r / 0.7) ** 2) / 2)).max())
    assert ks_radius(law.radii(collapsed), 2) == pytest.approx(gap, abs=1.95 / math.sqrt(n))


def test_a_classifier_reaches_the_error_of_bayes() -> None:
    law = Mixture([1, 1], [[-1.0, 0.0], [1.0, 0.0]], 1.0, labels=[0, 1])
    x, y = law.sample(2000, labels=True)
    new, truth = law.sample(4000, first_index=2000, labels=True)
    predict = classifier(x.float(), y)
    got = agreement(predict(new), truth)
    assert got.stderr == pytest.approx(math.sqrt(got.value * (1 - got.value) / 4000))
    assert abs(got.value - stats.norm.cdf(1)) < 4 * got.stderr + 0.01
    assert torch.equal(predict(new[:5]), predict(new)[:5])


def test_agreement_counts() -> None:
    assert agreement(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2])).value == 0.75


@pytest.mark.parametrize("wrong", [
    lambda: sliced_w2(draws(3, 2), draws(3, 3)), lambda: sliced_w2(draws(0), draws(3)),
    lambda: w1_1d(draws(3), draws(3)),
    lambda: mmd(draws(1), draws(5)), lambda: agreement(f64(1.0), f64(1.0, 2.0)), lambda: agreement(f64(), f64()),
])
def test_mistakes_are_refused(wrong) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="expected"):
        wrong()


def test_the_frechet_distance_of_scaled_and_shifted_features() -> None:
    x = normal(0, 0, 0, 0, 500, (3,), torch.float64)
    scale, shift = torch.tensor([2.0, 0.5, 1.0]), torch.tensor([0.0, 3.0, -1.0])
    centred = x - x.mean(0)
    white = centred @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.mT))).mT  # covariance 1 exactly
    assert abs(frechet(white, scale * white + shift) - (1 + 0.25 + 9 + 1)) < 1e-9
