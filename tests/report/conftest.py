"""Three tiny runs, of images, points and a table, with names that would break a page without escaping."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from undiffuse import training
from undiffuse.data import Dataset, open_data
from undiffuse.experiment import Experiment
from undiffuse.model import Model, Wrapper
from undiffuse.random import Purpose, normal
from undiffuse.sde import Time, as_time

EVIL = "<script>alert(1)</script>"


class Tiny(NamedTuple):
    """A run and the data it was trained on."""

    folder: Path
    data: Dataset


class Copier(Wrapper):
    """A model whose denoiser returns the nearest training row."""

    def __init__(self, inner: Model, rows: Tensor) -> None:
        super().__init__(inner)
        self.rows = inner.transform.forward(rows)

    def denoise(self, x: Tensor, t: Time, **cond: Any) -> Tensor:
        z = x / self.sde.alpha(as_time(t)).to(x)
        nearest = torch.cdist(z.flatten(1), self.rows.flatten(1)).argmin(1)
        return self.rows[nearest]


def _train(folder: Path, data: Dataset, held_out: int) -> Tiny:
    experiment = Experiment(data="in memory", held_out=held_out, steps=12, batch_size=32, save_every=6, warmup=2,
                            net_args={"width": 16, "depth": 1}, eval_batch_size=64)
    training.train(experiment, folder, progress=False, data=data)
    return Tiny(folder, data)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    data = open_data("digits", n=400)
    named = replace(data, classes=(EVIL, '"1" & more', *data.classes[2:]), notes=(f"note {EVIL}",))
    return _train(tmp_path_factory.mktemp("report") / "images", named, 100)


@pytest.fixture(scope="session")
def points(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return _train(tmp_path_factory.mktemp("report") / "points", open_data("swiss_roll", n=500), 100)


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    z = normal(0, Purpose.DATA, 9, 0, 300, (4,))
    x = torch.stack([100 * z[:, 0], z[:, 0] + 0.1 * z[:, 1], 1e-3 * z[:, 2], torch.full((300,), 7.0)], 1)
    data = Dataset(x, None, "table", "numbers.csv", columns=(EVIL, "$x^2$", 'quo"te', "constant"))
    return _train(tmp_path_factory.mktemp("report") / "table", data, 60)


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A run without held-out rows."""
    return _train(tmp_path_factory.mktemp("report") / "alone", open_data("digits", n=60), 0)
