"""The held-out path loss: its closed form for Gaussian data, whatever loss and levels the run has."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from training.small_runs import experiment, measured, points

from undiffuse import training
from undiffuse.data import Dataset
from undiffuse.model import Denoiser
from undiffuse.moments import Moments
from undiffuse.nets import build
from undiffuse.processes import EDM
from undiffuse.random import Purpose, normal
from undiffuse.training.batches import Feed
from undiffuse.training.loop import path_loss


@pytest.mark.parametrize("asked", [{}, {"weighting": "min_snr", "noise_distribution": "time"},
                                   {"weighting": "whitened"}])
def test_of_the_exact_denoiser_of_a_gaussian(asked: dict[str, str]) -> None:
    """∫ s²/(s² + σ̂²) dλ from σ̂ = .002 to 80 = ½ [log σ̂²/(s² + σ̂²)], at σ_data = ½; a network that says 0 is exact."""
    s, n, d = 0.5, 256, 50
    net = build("mlp", (d,), width=8, depth=1)
    for parameter in net.parameters():
        parameter.data.zero_()
    model = Denoiser(net, EDM(), "wiener", shape=(d,), sigma_data=s)
    zero = torch.zeros(d, dtype=torch.float64)
    model.moments = Moments((d,), zero, zero + s**2, "pca", torch.eye(d, dtype=torch.float64))
    rows = Dataset(s * normal(4, Purpose.DATA, 0, 0, n, (d,)), None, "points", "a Gaussian")
    low, high = (0.5 * math.log(x**2 / (s**2 + x**2)) for x in (0.002, 80.0))
    found = path_loss(Feed(experiment(**asked), rows, model), 12)
    # each draw is (high − low) χ²_d/d, as the levels are drawn in proportion to s²/(s² + σ̂²)
    assert abs(found / (high - low) - 1) < 4 * math.sqrt(2 / d / n)


def test_it_stands_beside_the_held_out_loss_and_falls(tmp_path: Path) -> None:
    training.train(experiment(held_out=20, steps=60, save_every=30), tmp_path, progress=False, data=points(100))
    path = [line["path"] for line in measured(tmp_path) if "held_out" in line]
    assert len(path) == 2 and path[1] < path[0]
