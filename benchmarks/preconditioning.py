"""Path-KL of a small network after equal numbers of updates, on mixtures whose denoiser is known.

    path-KL = ∫ e^{2λ} E‖D_θ − D‖² dλ, in nats: by how much the likelihood bound is worse than with the exact denoiser

EDM's parameterisation and loss beside the Wiener parameterisation with EDM's loss and with the whitened loss; the same
network, first weights, rows, noise levels and noise for all three.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure.laws import clusters, digits
from undiffuse import nets
from undiffuse.data import Dataset
from undiffuse.experiment import Experiment
from undiffuse.loss import NoiseLevelDistribution
from undiffuse.mixture import Mixture
from undiffuse.model import Denoiser
from undiffuse.moments import Moments
from undiffuse.processes import EDM
from undiffuse.random import Purpose, normal
from undiffuse.training.batches import Feed, batch_gradient
from undiffuse.training.state import TrainingState

VARIANTS = {"EDM": ("edm", "edm"), "Wiener, EDM loss": ("wiener", "edm"), "Wiener, whitened": ("wiener", "whitened")}
RECIPE = Experiment(data="memory", net_args={"width": 96, "depth": 3, "condition": 64}, level_mean=-1.6, level_std=1.6,
                    optimizer="adamw", betas=(0.9, 0.99), warmup=50, ema_decay=0.99)
ROWS, LEVELS, DRAWS = 200_000, 48, 256
SDE = EDM()


def table(steps: str = "600", seeds: str = "5", lr: str = "5e-3", *words: str) -> Iterator[str]:
    """steps: updates. seeds: runs of each kind. lr: highest rate.

    words: laws, where a number is the dimension of ten clusters turned at random and "digits" is a mixture fitted to
    the bundled digits, in 64 dimensions; and fields of the experiment, as optimizer=muon or level_std=1.2.
    """
    pairs = (word.split("=", 1) for word in words if "=" in word)
    fields: dict[str, Any] = {name: _value(text) for name, text in pairs}
    variants = list(VARIANTS.items())[: 2 if "weighting" in fields else 3]
    for name_of_law in [word for word in words if "=" not in word] or ["16", "32", "digits"]:
        law = digits() if name_of_law == "digits" else clusters(dim=int(name_of_law))
        rows = law.sample(ROWS, 1)
        divergences: dict[str, list[float]] = {name: [] for name, _ in variants}
        for seed in range(int(seeds)):
            for name, (predict, weighting) in variants:
                e = replace(RECIPE, prediction_type=predict, steps=int(steps), lr=float(lr), seed=seed,
                            **{"weighting": weighting, **fields})
                divergences[name].append(path_kl(law, learned(rows, e)))
        for name, values in divergences.items():
            kl, share = torch.tensor(values), torch.tensor(values) / torch.tensor(divergences["EDM"])
            yield f"{name_of_law:>6}  {name:18}path-KL {_mean(kl)}   of EDM's {_mean(share)}"


def learned(rows: Tensor, e: Experiment) -> Denoiser:
    """The denoiser with averaged weights after the updates of an experiment on rows of a law."""
    shape, moments = tuple(rows.shape[1:]), Moments.measure(rows)
    net = nets.initialize(nets.build(e.net, shape, **e.net_args), e.seed)
    model = Denoiser(net, SDE, e.prediction_type, shape=shape, sigma_data=moments.total_std)
    model.moments = moments
    state, feed = TrainingState(e, model), Feed(e, Dataset(rows.float(), None, "points", "a mixture"), model)
    while state.step < e.steps:
        state.update(batch_gradient(state, feed, 0, e.batch_size))
    return state.ema_model


@torch.no_grad()
def path_kl(law: Mixture, model: Denoiser) -> float:
    """∫ e^{2λ} E‖D_θ − D‖² dλ from σ̂ = .004 to 80, the middle rule in λ with the same draws for every model."""
    levels = NoiseLevelDistribution("log_uniform", sigma_data=0.5, low=0.004)
    times = levels.quantile(SDE, (torch.arange(LEVELS) + 0.5).double() / LEVELS)
    exact, x0 = law.denoiser(SDE), law.sample(DRAWS, 2)
    total = 0.0
    for k, t in enumerate(times):
        x = SDE.perturb(x0, t, normal(3, Purpose.NOISE, k, 0, DRAWS, law.shape, torch.float64))
        gap = model.denoise(x.float(), t).double() - exact.denoise(x, t)
        total += float(torch.exp(2 * SDE.log_snr(t)) * gap.square().sum(1).mean() / levels.density(SDE, t))
    return total / LEVELS


def _value(text: str) -> float | str:
    return float(text) if text.replace(".", "", 1).lstrip("-").isdigit() else text


def _mean(values: Tensor) -> str:
    return f"{float(values.mean()):7.3f} ± {float(values.std()) / math.sqrt(len(values)):.3f}"
