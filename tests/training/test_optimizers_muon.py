"""Muon: its steps have the gradient's singular vectors, and are PyTorch's; the rest of the network gets AdamW's."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from training.small_runs import experiment, final, points, same

from undiffuse import training
from undiffuse.nets import build
from undiffuse.random import normal
from undiffuse.training.optimizers import Adam, Muon, flatten, hidden_matrices, orthogonal, trainable

SHAPES = [(5, 5), (4, 9), (9, 4)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_step_keeps_singular_vectors_and_makes_the_values_the_polynomials(shape: tuple[int, int]) -> None:
    """U f(S/‖S‖) Vᵀ with f five times 3.4445 x − 4.775 x³ + 2.0315 x⁵, from the singular value decomposition."""
    g = normal(1, 0, 0, 0, *shape[:1], shape[1:], torch.float64)
    u, s, vt = torch.linalg.svd(g, full_matrices=False)
    value = s / s.norm()
    for _ in range(5):
        value = 3.4445 * value - 4.775 * value**3 + 2.0315 * value**5
    torch.testing.assert_close(orthogonal(g), u @ torch.diag(value) @ vt, rtol=1e-8, atol=1e-10)
    assert orthogonal(torch.zeros(shape)).abs().max() == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_ten_updates_are_those_of_pytorch(shape: tuple[int, int]) -> None:
    """torch.optim.Muon with the factor of Liu et al.; it iterates in bfloat16, of 8 bits, ten times: 3 % of a step."""
    w0, rate = normal(2, 0, 0, 0, *shape[:1], shape[1:]), 0.01
    theirs = nn.Parameter(w0.clone())
    oracle = torch.optim.Muon([theirs], lr=rate, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    net = nn.Sequential(nn.Linear(shape[1], shape[0], bias=False))
    net[0].weight.data.copy_(w0)
    ours = Muon(flatten(trainable(net).values()), (0.9, 0.99), 0.1, net)
    for k in range(10):
        g = normal(3, 0, k, 0, *shape[:1], shape[1:])
        theirs.grad = g.clone()
        oracle.step()
        ours.update(g.flatten().clone(), rate, k, torch.ones(()))
    step = 0.2 * math.sqrt(max(shape)) * rate * math.sqrt(min(shape))  # the norm of an orthogonal step
    assert float((ours.weights - theirs.detach().flatten()).norm()) < 0.03 * 10 * step
    assert float((ours.weights - w0.flatten()).norm()) > step


def test_ends_biases_and_embeddings_get_adamws_steps() -> None:
    net = build("mlp", (3,), 2, width=8, depth=1, condition=4)
    names, hidden = list(trainable(net)), hidden_matrices(net)
    assert [n for n, h in zip(names, hidden, strict=True) if h] == [
        "condition.inner.weight", "condition.outer.weight", "blocks.0.film.map.weight", "blocks.0.inner.weight",
        "blocks.0.outer.weight"]
    start = torch.cat([normal(1, 0, i, 0, 1, tuple(p.shape)).flatten() for i, p in enumerate(trainable(net).values())])
    both = Muon(start.clone(), (0.9, 0.99), 0.1, net), Adam(start.clone(), (0.9, 0.99), 0.1, True)
    for k in range(3):
        g = normal(2, 0, k, 0, 1, (len(start),))[0]
        for optimizer in both:
            optimizer.update(g.clone(), 0.01, k, torch.ones(()))
    own = torch.cat([torch.full((p.numel(),), h) for p, h in zip(trainable(net).values(), hidden, strict=True)])
    assert torch.equal(both[0].weights[~own], both[1].weights[~own])
    assert not torch.isclose(both[0].weights[own], both[1].weights[own]).all()
    before = both[0].weights.clone()
    both[0].update(torch.zeros_like(start), 0.01, 3, torch.zeros(()))
    assert torch.equal(both[0].weights, before)


def test_a_run_stopped_and_continued_has_the_same_bits(tmp_path: Path) -> None:
    e = experiment(optimizer="muon", weight_decay=0.1)
    training.train(e, tmp_path / "whole", progress=False, data=points())
    for at in (1, 4, 7):
        training.train(e, tmp_path / "parts", progress=False, data=points(), stop=lambda step, at=at: step == at)
    training.train(e, tmp_path / "parts", progress=False, data=points())
    assert same(final(tmp_path / "whole"), final(tmp_path / "parts"))
    training.train(e.replace(optimizer="adamw"), tmp_path / "adamw", progress=False, data=points())
    assert not same(final(tmp_path / "whole"), final(tmp_path / "adamw"))
