"""Held-out path loss of the recipe's network after equal numbers of updates, by parameterisation and loss.

    ∫ e^{2λ} E‖D_θ − x_0‖² dλ, in nats a row: the same integral as the path-KL, plus what no denoiser can know

For data whose denoiser is not known. "genes" are made here: log(1 + counts) with counts ~ Poisson(rate · gamma), where
the log rates have rank 10; 2,000 rows of 200 columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from benchmarks.preconditioning import VARIANTS
from undiffuse.data import Dataset
from undiffuse.experiment import Experiment
from undiffuse.random import Purpose, normal
from undiffuse.recipes import for_data
from undiffuse.training.batches import Feed, batch_gradient
from undiffuse.training.loop import path_loss
from undiffuse.training.model_config import describe, initialized
from undiffuse.training.run import load_dataset, split_held_out
from undiffuse.training.state import TrainingState

DRAWS = 4  # of levels and noise for the rows that are measured
FIELDS = {"image_size": int, "net": str, "lr": float}


def table(data: str = "digits", seeds: str = "2", *words: str) -> Iterator[str]:
    """data: a name, a path, or genes. seeds: runs of each kind. words: numbers of updates, and fields (net=mlp)."""
    asked = dict(word.split("=", 1) for word in words if "=" in word)
    fields = {name: FIELDS[name](value) for name, value in asked.items()}
    with TemporaryDirectory() as folder:
        at = _genes(Path(folder)) if data == "genes" else data
        recipe = replace(for_data(at, **fields).experiment, ema_decay=0.99)
        rows, held_out, _ = split_held_out(load_dataset(recipe), recipe.held_out)
        if held_out is None:
            raise ValueError(f"{data} has too few rows to hold some out")
        for steps in [int(word) for word in words if "=" not in word] or [150, 300, 600]:
            for name, (predict, weighting) in VARIANTS.items():
                runs = [replace(recipe, prediction_type=predict, weighting=weighting, steps=steps, seed=seed)
                        for seed in range(int(seeds))]
                losses = torch.tensor([loss_after(e, rows, held_out) for e in runs])
                spread = float(losses.std()) / math.sqrt(len(losses)) if len(losses) > 1 else math.nan
                yield f"{steps:5} updates  {name:18}held-out path loss {float(losses.mean()):8.1f} ± {spread:.1f}"


def loss_after(e: Experiment, rows: Dataset, held_out: Dataset) -> float:
    """The path loss of a row, in nats, of the averaged weights after the updates of an experiment."""
    model = initialized(describe(e, rows, ""), e.seed, rows)
    state, feed = TrainingState(e, model), Feed(e, rows, model)
    while state.step < e.steps:
        state.update(batch_gradient(state, feed, 0, e.batch_size))
    held_out_feed = Feed(replace(e, seed=0), held_out, state.ema_model)
    draws = [path_loss(held_out_feed, 10**6 + k) for k in range(DRAWS)]
    return sum(draws) / DRAWS * math.prod(model.shape)


def _genes(folder: Path, rows: int = 2000, columns: int = 200, rank: int = 10) -> str:
    """A CSV file as counts of transcripts are."""
    def draws(address: int, *shape: int) -> Tensor:
        return normal(0, Purpose.DATA, 40 + address, 0, shape[0], shape[1:], torch.float64)

    mean = 0.5 + draws(2, columns, 1)[:, 0]
    log_rate = 0.75 * draws(0, rows, rank) @ draws(1, rank, columns) / math.sqrt(rank) + mean
    chance = np.random.Generator(np.random.PCG64(0))
    counts = chance.poisson(log_rate.exp().numpy() * chance.gamma(4.0, 0.25, (rows, columns)))
    np.savetxt(folder / "genes.csv", np.log1p(counts), fmt="%.6g", delimiter=",",
               header=",".join(f"gene{k}" for k in range(columns)), comments="")
    return str(folder / "genes.csv")
