"""Recipes: the experiment that suits some data, with the reason for every choice.

What can be measured on the data is measured (their deviation, the largest distance between two of them); network and
optimiser are those that did best in trials on data of the same kind.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from undiffuse.errors import InputError
from undiffuse.experiment import Experiment

_PROBED = 1000  # rows whose distances are measured


class Choice(NamedTuple):
    """Fields of an experiment, and why they were chosen."""

    fields: dict[str, Any]
    reason: str


def for_data(source: str, **changes: Any) -> tuple[Experiment, list[str]]:
    """The experiment for data as `open_data` takes them, with the user's changes, and the reasons, a sentence each."""
    from undiffuse.data import describe, open_data

    data = open_data(source, size=changes.get("size"), label=changes.get("label"))
    choices = [_network(data), _levels(data), _held_out(len(data))]
    fields = {name: value for choice in choices for name, value in choice.fields.items()}
    kept = {name: value for name, value in fields.items() if not (name == "net_args" and "net" in changes)
            and not (name == "sde_args" and "sde" in changes)}
    experiment = Experiment(data=source, **{**kept, **changes})
    reasons = [f"{describe(data)}.", *data.note, *(choice.reason for choice in choices)]
    return experiment, [*reasons, *(f"{name} = {value}, as asked." for name, value in sorted(changes.items()))]


def digits(**changes: Any) -> Experiment:
    """The bundled 8x8 digits of scikit-learn, by class."""
    return for_data("digits", **changes)[0]


def swiss_roll(**changes: Any) -> Experiment:
    """A curve in the plane, to learn in under a minute."""
    return for_data("swiss_roll", **changes)[0]


def mnist(path: str, **changes: Any) -> Experiment:
    """MNIST, or any set in its format, from the folder that holds its files."""
    return for_data(path, **changes)[0]


def _network(data: Any) -> Choice:
    """The network and its optimiser."""
    size = math.prod(data.shape)
    if data.kind == "image" and size > 256:
        return _unet(data.shape)
    if data.kind == "image":
        return Choice({"net": "mlp", "net_args": {"width": 256, "depth": 4, "condition": 128}, "steps": 2500,
                       "batch": 128, "lr": 3e-3, "schedule": "linear", "ema": 0.998, "betas": (0.9, 0.99),
                       "block": 128},
                      "A residual MLP of 4 x 256: on images this small it learns faster than a convolutional network.")
    width, depth = (128, 3) if size <= 16 else (256, 4)
    return Choice({"net": "mlp", "net_args": {"width": width, "depth": depth}, "steps": 4000, "batch": 256, "lr": 5e-3,
                   "schedule": "cosine", "ema": 0.998, "betas": (0.9, 0.99), "level_mean": -1.6, "level_std": 1.6,
                   "block": 256},
                  f"A residual MLP of {depth} x {width}, batch 256 and a high learning rate, as suits small events.")


def _unet(shape: tuple[int, ...]) -> Choice:
    stem = 2 if min(shape[1:]) >= 16 else 1
    return Choice({"net": "unet", "net_args": {"stem": stem, "widths": [48, 96], "attention": [1]}, "steps": 3000,
                   "batch": 64, "lr": 2e-3, "schedule": "linear", "ema": 0.998, "betas": (0.9, 0.99), "block": 32},
                  f"A U-Net with a {stem}x{stem} stem: the fastest learner per second on a CPU at this size.")


def _levels(data: Any) -> Choice:
    """The process, from the largest distance between two rows in model units."""
    import torch

    from undiffuse.data import transforms

    rows = data.x[:: max(1, len(data) // _PROBED)][:_PROBED]
    z = transforms.fit(data).forward(rows).flatten(1).double()
    distance = float(torch.cdist(z, z).max())
    if distance == 0:
        raise InputError("all rows are equal; there is nothing to learn")
    largest = _rounded_up(2 * distance)
    return Choice({"sde": "edm", "sde_args": {"sigma_max": largest}},
                  f"Noise up to {largest:g}, twice the largest distance between two rows ({distance:.3g}), so that the "
                  "start of sampling knows nothing of the data.")


def _held_out(n: int) -> Choice:
    """Rows to measure with: a fifth of a small set, at most 2,000."""
    count = min(2000, n // 5)
    return Choice({"held_out": count}, f"{count:,} rows are kept away from training, to measure with.")


def _rounded_up(value: float) -> float:
    """The next number with one significant digit."""
    unit = 10.0 ** math.floor(math.log10(value))
    return math.ceil(value / unit) * unit
