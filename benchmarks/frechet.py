"""Samples by class after equal numbers of updates, by parameterisation and loss: what a classifier sees in them.

    FD = ‖μ − ν‖² + tr(A + B − 2 (A^{½} B A^{½})^{½})

of a small classifier's 64 features, 1,000 samples against 5,000 training rows.

The classifier, two convolutions and two layers, learns the real rows first. Images are brought to 16 x 16 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from benchmarks.preconditioning import VARIANTS
from undiffuse.data import Dataset
from undiffuse.nets import initialize
from undiffuse.recipes import for_data
from undiffuse.samplers.driver import sample
from undiffuse.training.batches import Feed, batch_gradient, order
from undiffuse.training.model_config import describe, initialized
from undiffuse.training.run import load_dataset, split_held_out
from undiffuse.training.state import TrainingState

SIDE, SAMPLES, REAL, LESSONS, STEPS = 16, 1000, 5000, 700, 20


def table(data: str, updates: str = "600", net: str = "unet", *names: str) -> Iterator[str]:
    """data: a folder of MNIST's files. updates: of each network. net: unet, mlp or dit. names: rows; all by default."""
    recipe = replace(for_data(data, image_size=SIDE, net=net).experiment, steps=int(updates), ema_decay=0.99)
    rows, held_out, _ = split_held_out(load_dataset(recipe), recipe.held_out)
    judge = classifier_of(rows)
    real = features(judge, rows.x[:REAL])
    assert held_out is not None
    yield f"held-out real images: FD {frechet(features(judge, held_out.x[:SAMPLES]), real):.1f}"
    for name in names or VARIANTS:
        predict, weighting = VARIANTS[name]
        e = replace(recipe, prediction_type=predict, weighting=weighting)
        model = initialized(describe(e, rows, ""), e.seed, rows)
        state, feed = TrainingState(e, model), Feed(e, rows, model)
        while state.step < e.steps:
            state.update(batch_gradient(state, feed, 0, e.batch_size))
        label = torch.arange(SAMPLES) % model.classes
        images = sample(state.ema_model.eval(), SAMPLES, steps=STEPS, label=label).x
        correct = _logits(judge, images).argmax(1) == label
        fraction = float(correct.float().mean())
        yield f"{name:18}FD {frechet(features(judge, images), real):6.1f}, {fraction:.1%} classified as requested"


def classifier_of(rows: Dataset) -> nn.Sequential:
    """A classifier of the training rows; its features are the outputs of the last layer but one."""
    assert rows.y is not None
    judge = nn.Sequential(nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(24, 48, 3, padding=1),
                          nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48 * (SIDE // 4) ** 2, 64), nn.ReLU(),
                          nn.Linear(64, len(rows.classes)))
    initialize(judge, 0)
    adam = torch.optim.Adam(judge.parameters(), 2e-3)
    for step in range(LESSONS):
        some = order(0, len(rows), 64 * step, 64)
        adam.zero_grad()
        fn.cross_entropy(judge(_scaled(rows.x[some])), rows.y[some]).backward()
        adam.step()
    return judge


@torch.no_grad()
def features(judge: nn.Sequential, x: Tensor) -> Tensor:
    """The features of grey levels, (n, 64) float64."""
    return torch.cat([judge[:-1](_scaled(part)) for part in x.split(500)]).double()


@torch.no_grad()
def _logits(judge: nn.Sequential, x: Tensor) -> Tensor:
    logits: Tensor = judge(_scaled(x))
    return logits


def _scaled(x: Tensor) -> Tensor:
    return x.float() / 127.5 - 1


def frechet(a: Tensor, b: Tensor) -> float:
    """The Fréchet distance of two sets of features, as Gaussians."""
    A, B = a.T.cov(), b.T.cov()
    values, basis = torch.linalg.eigh(A)
    root = basis * values.clamp_min(0).sqrt() @ basis.T
    cross = torch.linalg.eigvalsh(root @ B @ root).clamp_min(0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + A.trace() + B.trace() - 2 * cross)
