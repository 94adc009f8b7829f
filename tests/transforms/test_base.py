"""Transforms are exact inverses, and their log-determinants are those of autograd and of closed forms."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from undiffuse.data import Dataset, Transform, from_arrays, open_data
from undiffuse.data.dataset import fit_transform
from undiffuse.errors import InputError
from undiffuse.random import Purpose, normal
from undiffuse.transforms import base
from undiffuse.transforms.base import GreyLevels, Identity, Standardise

SETTINGS = settings(derandomize=True, deadline=None, max_examples=50)


def table(seed: int, n: int, scales: list[float], offsets: list[float]) -> Dataset:
    """A table of normals; a scale of 0 makes a constant column."""
    z = normal(seed, Purpose.DATA, 9, 0, n, (len(scales),), torch.float64).numpy()
    return from_arrays(z * np.array(scales) + np.array(offsets))


@pytest.mark.parametrize("levels", [2, 3, 16, 17, 255, 256])
def test_every_level_survives_the_way_there_and_back(levels: int) -> None:
    x = torch.arange(levels, dtype=torch.uint8).reshape(-1, 1, 1, 1)
    z = GreyLevels(levels).forward(x)
    assert z[0].item() == -1 and z[-1].item() == pytest.approx(1, abs=1e-7)
    assert torch.equal(GreyLevels(levels).inverse(z).round().to(torch.uint8), x)
    # Equal steps of 2/(levels−1): the closed form, at every level.
    assert torch.allclose(z.flatten().diff(), torch.tensor(2 / (levels - 1)), rtol=0, atol=2.4e-7)


def test_the_image_log_determinant_is_the_closed_form() -> None:
    x = torch.zeros(5, 3, 4, 6, dtype=torch.uint8)
    expected = 3 * 4 * 6 * math.log(2 / 255)
    assert torch.equal(GreyLevels(256).log_det(x), torch.full((5,), expected, dtype=torch.float64))


def autograd_log_det(transform: Transform, x: Tensor, columns: list[int]) -> float:
    jacobian = torch.autograd.functional.jacobian(lambda v: transform.forward(v[None])[0].flatten(), x)
    square = jacobian.reshape(jacobian.shape[0], -1)[:, columns]
    return float(torch.linalg.slogdet(square).logabsdet)


def test_log_determinants_are_those_of_autograd() -> None:
    x = torch.tensor([[0.3, -2.0, 7.0]], dtype=torch.float64)
    cases = [(Identity(), [0, 1, 2]), (GreyLevels(17), [0, 1, 2]),
             (Standardise((1.0, 2.0, 3.0), (0.1, 5.0, 2.0)), [0, 1, 2]),
             (Standardise((0.3, 2.0, 3.0), (0.0, 5.0, 2.0)), [1, 2])]
    for transform, columns in cases:
        expected = autograd_log_det(transform, x[0], columns)
        assert transform.log_det(x).item() == pytest.approx(expected, abs=1e-12)


def test_a_density_changes_by_the_log_determinant() -> None:
    # If z = (x − m)/s and z ~ N(0, I), then log p(x) = log N(z) + log|dz/dx| must be log N(x; m, s²).
    mean, std = (4.0, -1e3), (0.01, 200.0)
    x = torch.tensor([[4.02, -900.0], [3.99, -1500.0]], dtype=torch.float64)
    transform = Standardise(mean, std)
    z = transform.forward(x)
    ours = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1) + transform.log_det(x)
    law = torch.distributions.Normal(torch.tensor(mean, dtype=torch.float64), torch.tensor(std).double())
    assert torch.allclose(ours, law.log_prob(x).sum(1), atol=1e-6)


@SETTINGS
@given(seed=st.integers(0, 10**6), n=st.integers(2, 40), data=st.data())
def test_tables_come_back_and_constants_exactly(seed: int, n: int, data: st.DataObject) -> None:
    d = data.draw(st.integers(2, 6))
    scales = data.draw(st.lists(st.sampled_from([0.0, 1e-3, 1.0, 37.0, 1e6]), min_size=d, max_size=d)
                       .filter(any))
    offsets = data.draw(st.lists(st.sampled_from([0.0, 0.1, -5.0]), min_size=d, max_size=d))
    rows = table(seed, n, scales, offsets)
    transform = fit_transform(rows)
    z = transform.forward(rows.x)
    back = transform.inverse(z)
    constant = torch.tensor(scales) == 0
    tolerance = 4e-7 * (rows.x.abs().amax(0) + rows.x.std(0))
    assert ((back - rows.x).abs() <= tolerance).all()
    if rows.kind == "table":
        assert torch.equal(back[:, constant], rows.x[:, constant])
        assert z.shape[1] == sum(s > 0 for s in scales)
        assert torch.allclose(z.double().mean(0), torch.zeros(z.shape[1]).double(), atol=1e-5)
        assert torch.allclose(z.double().square().mean(0), torch.ones(z.shape[1]).double(), rtol=1e-4)


def test_a_large_offset_costs_no_precision() -> None:
    # Shifted by 10⁶, which float32 holds exactly, whole numbers have the same z and come back exactly.
    near = np.stack([np.arange(100.0), np.arange(100.0) % 7, np.ones(100), np.arange(100.0) ** 2 % 61], 1)
    rows, far = from_arrays(near), from_arrays(near + 1e6)
    transform = fit_transform(far)
    assert torch.allclose(transform.forward(far.x), fit_transform(rows).forward(rows.x), atol=1e-6)
    assert torch.equal(transform.inverse(transform.forward(far.x)), far.x)


def test_points_keep_their_shape() -> None:
    data = open_data("moons", n=200)
    z = fit_transform(data).forward(data.x)
    ratio = torch.pdist(z.double()) / torch.pdist(data.x.double())
    assert (ratio / ratio.mean() - 1).abs().max() < 1e-4
    assert z.double().var(0, unbiased=False).mean().item() == pytest.approx(1, rel=1e-5)


def test_a_row_off_a_constant_column_has_density_zero() -> None:
    transform = Standardise((0.1, 2.0), (0.0, 5.0))
    x = torch.tensor([[0.1, 3.0], [0.2, 3.0]])
    assert transform.log_det(x).tolist() == [-math.log(5), -math.inf]


@pytest.mark.parametrize("transform", [Identity(), GreyLevels(17), Standardise((0.1, 1 / 3), (math.pi, 0.0))])
def test_the_configuration_is_json_and_gives_the_same_transform(transform: Transform) -> None:
    again = base.from_config(json.loads(json.dumps(transform.config())))
    assert again == transform
    x = normal(0, Purpose.DATA, 9, 0, 8, (2,))
    assert torch.equal(again.forward(x), transform.forward(x))


@pytest.mark.parametrize("config", [
    {}, {"name": "other"}, {"name": ["levels"]}, {"name": "identity", "more": 1}, {"name": "levels"},
    {"name": "levels", "levels": 1}, {"name": "levels", "levels": True}, {"name": "levels", "levels": 17.0},
    {"name": "levels", "levels": "17"}, {"name": "levels", "levels": 17, "os.system": "x"},
    {"name": "standardise", "mean": [0.0], "std": [1.0, 2.0]}, {"name": "standardise", "mean": [], "std": []},
    {"name": "standardise", "mean": [0.0], "std": [-1.0]}, {"name": "standardise", "mean": [0.0], "std": [0.0]},
    {"name": "standardise", "mean": [math.nan], "std": [1.0]}, {"name": "standardise", "mean": 0, "std": 1},
    {"name": "standardise", "mean": [10**400], "std": [1.0]}, {"name": "standardise", "mean": "ab", "std": "cd"}])
def test_any_other_configuration_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"^[^\n]+$"):
        base.from_config(config)
