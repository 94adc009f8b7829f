"""Recipes for sets of pictures at several budgets: held-out loss, what the eye sees, and a contact sheet of each.

    python -m benchmarks pictures SETS [budgets] [variants] [seeds] [folder for contact sheets]

SETS: names of `picture_sets` with commas between them, or NAME=PATH. budgets: CPU minutes of one thread, 5 by default.
variants: of `VARIANTS`; recipe (what `undiffuse train` takes) and edm (the same without the linear denoiser to start
from) by default. seeds: of the training; 0 by default.

The number of updates is what fits into the budget by this machine's CPU time per update, measurements included.
FD is the Fréchet distance of 64 features of a convolutional network with random weights, 500 samples against held-out
pictures, divided by its value for training against held-out pictures. fine, drift, blank, W2 and read are
`fine_power_ratio`, `colour_drift`, `blank`, `sliced_w2_ratio` and `class_agreement` (of real pictures) of
`undiffuse.report.evaluate`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.picture_sets import picture_set
from undiffuse import recipes
from undiffuse.data import Dataset, save_samples
from undiffuse.experiment import Recipe
from undiffuse.metrics import frechet
from undiffuse.nets import initialize
from undiffuse.report.evaluate import ReportData, gather, measure
from undiffuse.training.timing import measure as timed

SAMPLES, SHEET = 500, 64
VARIANTS: dict[str, dict[str, Any]] = {
    "recipe": {}, "edm": {"prediction_type": "edm"}, "v": {"prediction_type": "v"}, "batch 16": {"batch_size": 16},
    "batch 64": {"batch_size": 64}, "rate .001": {"lr": 1e-3}, "rate .004": {"lr": 4e-3}, "flip": {"flip": True},
    "patience": {"patience": 3}, "average .99": {"ema_decay": 0.99}, "higher noise": {"level_mean": -0.6},
    "lower noise": {"level_mean": -1.8}, "dit": {"net": "dit"},
}
_WIDTHS = {"narrow": (2, 3), "wide": (4, 3)}


def table(sets: str, budgets: str = "5", variants: str = "recipe,edm", seeds: str = "0",
          folder: str = "") -> Iterator[str]:
    """One line per set, budget, variant and seed."""
    yield f"{'set':12}{'minutes':>8} {'variant':14}{'updates':>8}{'held out':>9}{'FD':>7}{'fine':>7}{'drift':>7}" \
          f"{'blank':>7}{'W2':>7}  read"
    for name in sets.split(","):
        data = picture_set(name)
        for minutes in map(float, budgets.split(",")):
            for variant in variants.split(","):
                for seed in map(int, seeds.split(",")):
                    yield _row(name.partition("=")[0], data, minutes, variant, seed, folder)


def _row(name: str, data: Dataset, minutes: float, variant: str, seed: int, folder: str) -> str:
    """Trains, samples and measures."""
    recipe = _recipe(data, minutes, variant, seed)
    with TemporaryDirectory() as run:
        recipes.train(recipe, run, progress=False)
        report = gather(Path(run), SAMPLES, seed=1000 + seed, data=data)
        numbers = measure(report).numbers
    loss = [entry["held_out"] for entry in report.entries if "held_out" in entry][-1]
    if folder:
        sheet = Path(folder) / f"{name}-{variant.replace(' ', '-')}-{minutes:g}-{seed}.png"
        save_samples(sheet, report.generated[:SHEET], levels=data.levels)
    agreement = numbers.get("class_agreement")
    read = "" if agreement is None else f"{agreement:.3f} ({numbers['classifier_accuracy']:.3f})"
    return (f"{name:12}{minutes:8g} {variant:14}{recipe.experiment.steps:8,}{loss:9.4f}{_distance(report):7.2f}"
            f"{numbers['fine_power_ratio']:7.2f}{numbers['colour_drift']:7.3f}{numbers['blank']:7.3f}"
            f"{numbers['sliced_w2_ratio']:7.2f}  {read}")


def _recipe(data: Dataset, minutes: float, variant: str, seed: int) -> Recipe:
    """The recipe of a variant with the number of updates that fits into some CPU minutes."""
    fields = {**_variant(data, variant), "seed": seed}
    timing = timed(recipes.for_data(data, **fields), time.process_time)
    steps = max(1, timing.max_steps(60 * minutes, _save_every))
    return recipes.for_data(data, steps=steps, save_every=_save_every(steps), **fields)


def _save_every(steps: int) -> int:
    return max(100, -(-steps // 8))


def _variant(data: Dataset, variant: str) -> dict[str, Any]:
    if variant not in _WIDTHS:
        return VARIANTS[variant]
    args, (up, down) = recipes.for_data(data).experiment.net_args, _WIDTHS[variant]
    return {"net_args": {**args, "widths": [width * up // down // 8 * 8 for width in args["widths"]]}}


def _distance(report: ReportData) -> float:
    """The Fréchet distance of random features to held-out pictures, in units of that of training pictures."""
    assert report.held_out is not None
    body = _features(report.train.shape[0])
    generated, real, train = (_apply(body, x.float() / (report.train.levels - 1)) for x in (
        report.generated, report.held_out.x[:SAMPLES], report.train.x[:SAMPLES]))
    return frechet(generated, real) / frechet(train, real)


def _features(channels: int) -> nn.Sequential:
    """Three convolutions with random weights, the mean and maximum of the last over the pixels: 64 features."""
    body = nn.Sequential(nn.Conv2d(channels, 32, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(32, 32, 3), nn.ReLU(),
                         nn.AvgPool2d(2), nn.Conv2d(32, 32, 3), nn.ReLU())
    initialize(body, 7)
    return body.requires_grad_(False)


def _apply(body: nn.Sequential, x: Tensor) -> Tensor:
    maps = torch.cat([body(part) for part in x.split(250)]).double()
    return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)
