"""Packs of a fixed number of rows: a result is the same bytes alone and in any batch."""

from __future__ import annotations

import pytest
import torch
from oracles import Opaque, random_mixture

from undiffuse.likelihood import density_ode, log_likelihood
from undiffuse.model import Denoiser, Model
from undiffuse.nets import build
from undiffuse.processes import VP
from undiffuse.transforms.base import GreyLevels

PLANE = random_mixture(3, 2)


def _network(shape: tuple[int, ...], classes: int = 0) -> Model:
    kind = {"net": "mlp", "args": {"width": 16, "depth": 1}} if len(shape) == 1 else \
        {"net": "unet", "args": {"widths": [8, 8], "stem": 1, "attention": [1]}}
    net = build(kind["net"], shape, classes, **kind["args"])
    return Denoiser(net, VP(), shape=shape, classes=classes).eval().requires_grad_(False)


@pytest.mark.slow
@pytest.mark.parametrize("divergence, probes", [("exact", 1), ("hutchinson", 4),
                                                ("hutchinson", density_ode.JOINT_MAX_PRODUCTS + 1)])
def test_a_number_is_the_same_bytes_alone_and_in_a_batch(divergence: str, probes: int) -> None:
    model, x = PLANE.denoiser(VP()), PLANE.sample(260, seed=1)
    many = log_likelihood(Opaque(model), x, divergence, probes, 1e-3, 1e-3)
    for i in (3, 258):
        one = log_likelihood(Opaque(model), x[i : i + 1], divergence, probes, 1e-3, 1e-3, first_index=i)
        assert all(torch.equal(a, b[i : i + 1]) for a, b in zip(one.budget().values(), many.budget().values(),
                                                                strict=True))


@pytest.mark.slow
def test_an_images_likelihood_of_a_network_with_labels() -> None:
    model = _network((1, 8, 8), classes=3)
    model.transform = GreyLevels(17)
    x = torch.arange(3 * 64, dtype=torch.float64).reshape(3, 1, 8, 8) % 17
    ll = log_likelihood(model, x, "hutchinson", 2, 1e-2, 1e-2, label=torch.tensor([0, 1, 2]))
    one = log_likelihood(model, x[1:2], "hutchinson", 2, 1e-2, 1e-2, label=1, first_index=1)
    assert torch.equal(ll.log_prob[1:2], one.log_prob) and ll.dim == 64 and ll.discrete
