"""Toys have the laws they claim, and sample i depends on (seed, i) only."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from undiffuse.data import NAMES, distance_to_curve, open_data
from undiffuse.data.dataset import TOY_NORMAL, TOY_UNIFORM
from undiffuse.data.toys import SPIRALS, TOYS
from undiffuse.errors import InputError
from undiffuse.random import Purpose, normal, permutation

N = 20_000


@pytest.mark.parametrize("name", TOYS)
def test_sample_i_is_the_same_in_any_number(name: str) -> None:
    few, many = open_data(name, n=10, seed=3), open_data(name, n=1000, seed=3)
    assert torch.equal(few.x, many.x[:10])
    assert (few.y is None) == (many.y is None)
    assert few.y is None or torch.equal(few.y, many.y[:10])


@pytest.mark.parametrize("name", TOYS)
def test_held_out_points_and_other_seeds_share_no_point(name: str) -> None:
    train, test, other = (open_data(name, n=2000, part=part, seed=seed)
                          for part, seed in (("train", 0), ("test", 0), ("train", 1)))
    known = set(map(tuple, train.x.tolist()))
    assert len(known) == 2000
    assert known.isdisjoint(map(tuple, test.x.tolist())) and known.isdisjoint(map(tuple, other.x.tolist()))


def test_the_swiss_roll_lies_on_its_curve_and_the_spiral_around_it() -> None:
    assert distance_to_curve("swiss_roll", open_data("swiss_roll").x).max() < 1e-6
    # Across the curve the noise is N(0, 0.03²), so the mean distance is 0.03 √(2/π), up to curvature O(0.03²).
    far = distance_to_curve("spiral", open_data("spiral", n=N).x)
    assert far.mean().item() == pytest.approx(0.03 * math.sqrt(2 / math.pi), rel=0.03)


@pytest.mark.parametrize("name", SPIRALS)
def test_the_distance_is_the_least_over_a_dense_curve(name: str) -> None:
    spiral = SPIRALS[name]
    theta = torch.linspace(spiral.start, spiral.end, 100_001, dtype=torch.float64)
    dense = torch.cat([spiral.curve(theta) * sign for sign in (1, -1)[:spiral.arms]])
    scales = torch.tensor([[0.1], [1.0], [10.0], [1000.0]]).repeat(10, 1)
    x = torch.cat([normal(0, Purpose.DATA, 9, 0, 40, (2,)) * scales, torch.zeros(1, 2)])
    brute = torch.stack([(point - dense).norm(dim=1).min() for point in x.double()])
    ours = distance_to_curve(name, x)
    assert (ours <= brute + 1e-9).all()
    # The nearest of the dense nodes is at most half their spacing (7e-5) from the nearest point.
    assert (brute - ours < 7e-5).all()


@pytest.mark.parametrize("name", SPIRALS)
def test_a_step_across_the_curve_is_the_distance(name: str) -> None:
    spiral = SPIRALS[name]
    theta = torch.linspace(spiral.start + 0.3, spiral.end - 0.3, 200, dtype=torch.float64)
    slope, _ = spiral.derivatives(theta)
    across = torch.stack([-slope[:, 1], slope[:, 0]], 1) / slope.norm(dim=1, keepdim=True)
    for step in (-0.1, 0.02, 0.1):  # less than half the gap between neighbouring turns
        ours = distance_to_curve(name, spiral.curve(theta) + step * across)
        assert torch.allclose(ours, torch.full_like(ours, abs(step)), atol=1e-9)


def test_the_derivatives_of_the_curve_are_those_of_autograd() -> None:
    spiral = SPIRALS["swiss_roll"]
    for theta in (5.0, 9.3):
        slope = torch.autograd.functional.jacobian(spiral.curve, torch.tensor(theta, dtype=torch.float64))
        bend = torch.autograd.functional.jacobian(lambda t: spiral.derivatives(t)[0],
                                                  torch.tensor(theta, dtype=torch.float64))
        ours = spiral.derivatives(torch.tensor(theta, dtype=torch.float64))
        assert torch.allclose(ours[0], slope) and torch.allclose(ours[1], bend)


def test_the_distance_refuses_what_has_no_curve() -> None:
    for name, x in (("moons", torch.zeros(2, 2)), ("spiral", torch.zeros(2, 3)),
                    ("spiral", torch.tensor([[0.0, math.nan]]))):
        with pytest.raises(InputError):
            distance_to_curve(name, x)


def counts(values: Tensor, cells: int) -> None:
    """A chi-squared test of equal cells: the statistic is below mean + 5 standard deviations."""
    seen = torch.bincount(values, minlength=cells).double()
    expected = len(values) / cells
    assert ((seen - expected).square() / expected).sum() < (cells - 1) + 5 * math.sqrt(2 * (cells - 1))


def test_eight_gaussians_are_eight_gaussians() -> None:
    data = open_data("8gaussians", n=N)
    assert data.y is not None
    counts(data.y, 8)
    for k in range(8):
        x = data.x[data.y == k].double()
        centre = math.sqrt(2) * torch.tensor([math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)])
        assert ((x.mean(0) - centre).abs() < 5 * 0.15 / math.sqrt(len(x))).all()
        assert ((x.var(0) / 0.15**2 - 1).abs() < 5 * math.sqrt(2 / len(x))).all()


def test_the_checkerboard_is_uniform_on_its_dark_squares() -> None:
    x = open_data("checkerboard", n=N).x.double()
    assert (x.abs() <= 2).all()
    cell = (x + 2).floor().long().clamp(0, 3)
    assert ((cell.sum(1) % 2) == 0).all()
    counts(torch.unique(cell[:, 0] * 4 + cell[:, 1], return_inverse=True)[1], 8)
    inside = ((x + 2) % 1 * 4).floor().long().clamp(0, 3)
    counts(inside[:, 0] * 4 + inside[:, 1], 16)


def test_moons_are_half_circles_with_noise() -> None:
    data = open_data("moons", n=N)
    assert data.y is not None
    counts(data.y, 2)
    centre = torch.where(data.y[:, None] == 1, torch.tensor([1.0, 0.5]), torch.tensor([0.0, 0.0]))
    away = (data.x - centre).double()
    # |c + noise| = 1 + radial noise + (tangential noise)²/2, with both N(0, 0.05²)
    radius = away.norm(dim=1)
    assert radius.mean().item() == pytest.approx(1 + 0.05**2 / 2, abs=5 * 0.05 / math.sqrt(N))
    assert radius.std().item() == pytest.approx(0.05, rel=5 / math.sqrt(2 * N) + 0.05**2)
    outside = torch.where(data.y == 1, away[:, 1], -away[:, 1]).max()
    assert outside < 6.7 * 0.05


def test_splits_and_subsets_do_not_use_the_words_that_made_the_samples() -> None:
    data = open_data("checkerboard", n=500)
    parts = [data.split(100)[1], data.subset(100)]
    assert not torch.equal(parts[0].x, parts[1].x)
    for stream in (TOY_UNIFORM, TOY_NORMAL):
        mistaken = data.take(permutation(0, Purpose.DATA, stream, 500)[:100].sort().values)
        assert not any(torch.equal(part.x, mistaken.x) for part in parts)


@pytest.mark.parametrize("n", [-1, 0, 1, 10**12])
def test_a_count_without_sense_is_refused(n: int, refused: object) -> None:
    refused("moons", "expected 2 to", n=n)  # type: ignore[operator]


def test_unknown_names_are_met_with_the_known(refused: object) -> None:
    line = refused("swissroll", "did you mean 'swiss_roll'?")  # type: ignore[operator]
    assert all(name in line for name in NAMES)
