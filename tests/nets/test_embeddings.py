"""Embeddings of the noise level really vary with it, and obey their closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.nets import ConditionEmbedding, FiLM, GaussianFourier, Sinusoidal, initialize
from undiffuse.nets.embeddings import zero

LEVELS = torch.linspace(-1.6, 1.3, 400, dtype=torch.float64)  # ¼ log σ̂ for σ̂ from .002 to 180


def spread(features: Tensor) -> Tensor:
    """How far each feature moves over the range."""
    return features.amax(0) - features.amin(0)


def directions(features: Tensor) -> int:
    """The number of singular values, after centring, above a hundredth of the largest."""
    s = torch.linalg.svdvals(features - features.mean(0))
    return int((s > 0.01 * s[0]).sum())


def ddpm_features(t: Tensor, size: int = 32) -> Tensor:
    """The features of step numbers: frequencies 10000^{−i/(half − 1)}."""
    angle = t[:, None] * torch.exp(-math.log(10000) * torch.arange(size // 2) / (size // 2 - 1))
    return torch.cat([angle.cos(), angle.sin()], 1)


@pytest.mark.parametrize("embedding", [Sinusoidal(32), GaussianFourier(32)])
def test_every_level_is_told_apart_where_step_frequencies_on_unit_time_are_blind(embedding: Sinusoidal) -> None:
    """Defect D5: fed with t in [0, 1], 25 of the 32 features stay within .05 (1 − cos ω for i ≥ 2, sin ω for i ≥ 5).

    Ours all turn, in more directions.
    """
    wrong = ddpm_features(torch.linspace(0, 1, 400, dtype=torch.float64))
    ours = embedding(LEVELS)
    assert (spread(wrong) < 0.05).double().mean() == 25 / 32
    assert directions(wrong) <= 3
    assert (spread(ours) < 0.05).sum() == 0 if isinstance(embedding, Sinusoidal) else (spread(ours) < 0.05).sum() <= 3
    assert directions(ours) >= 8


def test_sinusoidal_is_a_rotation_in_the_level() -> None:
    """(cos, sin)(ω(c + δ)) = R(ωδ)(cos, sin)(ωc), so the distance of two levels depends on their difference only."""
    embedding, delta = Sinusoidal(16), 0.37
    turn = embedding.frequencies.double() * delta
    cos, sin = embedding(LEVELS).chunk(2, 1)
    rotated = torch.cat([cos * turn.cos() - sin * turn.sin(), sin * turn.cos() + cos * turn.sin()], 1)
    torch.testing.assert_close(embedding(LEVELS + delta), rotated, atol=1e-12, rtol=0)


def test_sinusoidal_periods() -> None:
    """The slowest feature needs `longest` for a turn, the fastest `shortest`."""
    embedding = Sinusoidal(10, longest=4.0, shortest=0.25)
    torch.testing.assert_close(2 * math.pi / embedding.frequencies[[0, -1]], torch.tensor([4.0, 0.25]))


def test_gaussian_fourier_kernel() -> None:
    """Averaged over frequencies, φ(c)·φ(c') = E cos 2πf(c − c') = exp(−2π² scale² (c − c')²) (Rahimi and Recht)."""
    size, scale = 20_000, 0.5
    features = GaussianFourier(size, scale, seed=3)(torch.tensor([0.0, 0.1, 0.3, 0.6], dtype=torch.float64))
    kernel = features @ features[0] / (size / 2)
    expected = torch.exp(-2 * (math.pi * scale * torch.tensor([0.0, 0.1, 0.3, 0.6], dtype=torch.float64)) ** 2)
    assert (kernel - expected).abs().max() < 4 / math.sqrt(size)  # Var cos ≤ 1/2, over size/2 frequencies


def test_gaussian_fourier_depends_on_its_seed_alone() -> None:
    """Equal seeds give equal bits, others differ."""
    assert torch.equal(GaussianFourier(8, seed=1).frequencies, GaussianFourier(8, seed=1).frequencies)
    assert not torch.equal(GaussianFourier(8, seed=1).frequencies, GaussianFourier(8, seed=2).frequencies)


def test_the_null_label_is_a_row_of_its_own_and_what_none_means() -> None:
    """No label is the label `classes`; the classes and the null label give different vectors."""
    condition = initialize(ConditionEmbedding(24, classes=3), seed=0)
    c = torch.full((4,), 0.2)
    vectors = condition(c, torch.arange(4))
    torch.testing.assert_close(condition(c, None), vectors[3].expand(4, -1))
    assert torch.cdist(vectors, vectors).fill_diagonal_(1).min() > 0.1


def test_film_is_affine_in_the_features() -> None:
    """h (1 + a) + b: the identity at the start, then exactly affine for every row's own condition, in any layout."""
    film, h, e = initialize(FiLM(4, 3), 0), torch.linspace(-1, 1, 60).reshape(2, 3, 2, 5), torch.eye(4)[:2]
    assert torch.equal(film(h, e), h)
    torch.nn.init.constant_(film.map.bias, 0.5)
    film.map.weight.data[:] = torch.arange(24.0).reshape(6, 4)
    a, b = film.map(e).chunk(2, 1)
    torch.testing.assert_close(film(h, e), h * (1 + a)[..., None, None] + b[..., None, None])


def test_zero_marks_only() -> None:
    """The mark is read by `initialize`, which leaves nothing of the module."""
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), zero(torch.nn.Linear(3, 3)))
    initialize(net, 0)
    assert net[0].weight.abs().min() > 0 and not net[1].weight.any() and not net[1].bias.any()


def test_odd_numbers_of_features_are_refused() -> None:
    """Features come in pairs."""
    with pytest.raises(InputError, match="even"):
        Sinusoidal(7)
