"""Metrics of a run, measured against held-out rows so that memorisation does not improve them.

`gather` loads a run and generates one batch of samples; `measure` computes all metrics of it; `evaluate` does both.
The classifier and the nearest-neighbour distances use the training rows only, and real rows to compare with are those
held out of the training. Without held-out rows the metrics that need them are None.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from undiffuse import metrics, training
from undiffuse.data import Dataset, distance_to_curve
from undiffuse.data.dataset import WITH_MISSING
from undiffuse.data.toys import SPIRALS
from undiffuse.errors import InputError
from undiffuse.model import Model
from undiffuse.picture_statistics import blank_share, colour_drift, fine_power
from undiffuse.random import Purpose, permutation
from undiffuse.report.array_sections import array_scores
from undiffuse.report.table_metrics import MixedColumns, table_scores
from undiffuse.samplers.driver import sample
from undiffuse.samplers.samples import Samples
from undiffuse.training import Run
from undiffuse.training.batches import completed
from undiffuse.training.linear_loss import linear_loss_ratio

STEPS = 20
_MAX_SAMPLES, _MAX_VALUES = 5000, 2_000_000


@dataclass(frozen=True)
class ReportData:
    """A run, its model and data, and one batch of samples, shared by all metrics and figures.

    Args:
        run, model: the run and its model.
        train: training rows.
        held_out: rows held out of the training, or None.
        generated: samples (n, *event) in data units; images are rounded to grey levels, as in saved files.
        labels: requested classes (n,), or None for a model without classes.
        samples: result of the sampler.
        seed: seed of the samples.
    """

    run: Run
    model: Model
    train: Dataset
    held_out: Dataset | None
    generated: Tensor
    labels: Tensor | None
    samples: Samples
    seed: int

    @property
    def kind(self) -> str:
        """Kind of the data: points, table or image."""
        return self.train.kind

    @property
    def real(self) -> Dataset:
        """Real rows to compare with: the held-out rows, or the training rows if there are none."""
        return self.train if self.held_out is None else self.held_out

    @cached_property
    def entries(self) -> list[dict[str, Any]]:
        """The entries of metrics.jsonl."""
        return self.run.metrics()

    @property
    def conditional(self) -> bool:
        """Whether the samples were generated given classes."""
        return self.labels is not None

    def condition(self, index: Tensor | slice = slice(None)) -> dict[str, Any]:
        """The conditions of the samples at `index`."""
        return {} if self.labels is None else {"label": self.labels[index]}


def gather(folder: Path, n: int | None = None, seed: int = 0, *, model: Model | None = None,
           data: Dataset | None = None) -> ReportData:
    """Load a run and generate n samples, with the labels of random training rows if the model has classes.

    Args:
        folder: folder of the run.
        n: number of samples; None: as many as held-out rows, within limits that take seconds.
        seed: seed of labels and samples.
        model, data: replace the model and the data of the run.

    Returns:
        The data of the report; missing values of a table are replaced by samples of the model's Gaussian moments.

    Raises:
        InputError: for n < 2, and as `training.load` and `sample`.
    """
    run = training.open_run(folder)
    train, held_out = training.load_data(folder, data)
    model = model or training.load(folder)
    train, held_out = _complete(train, model), None if held_out is None else _complete(held_out, model)
    count = n if n is not None else _default_count(train, held_out)
    if count < 2:
        raise InputError(f"got n={count}; expected at least 2 samples to compare")
    labels = _labels(train, count, seed) if model.classes else None
    cond: dict[str, Any] = {} if labels is None else {"label": labels}
    samples = sample(model, count, steps=STEPS, seed=seed, **cond)
    return ReportData(run, model, train, held_out, _round_images(samples.x, train), labels, samples, seed)


def _default_count(train: Dataset, held_out: Dataset | None) -> int:
    """The number of held-out rows; for images 200 to 1,000, fewer for larger images."""
    rows = len(train if held_out is None else held_out)
    if train.kind != "image":
        return min(max(rows, 2), _MAX_SAMPLES, max(64, _MAX_VALUES // math.prod(train.shape)))
    return max(200, min(1000, 300_000 // math.prod(train.shape)))


def _complete(data: Dataset, model: Model) -> Dataset:
    """The data with missing values imputed."""
    missing = data.x.isnan() if data.kind in WITH_MISSING else torch.zeros(1)
    if not missing.any():
        return data
    filled = model.transform.inverse(completed(model.transform.forward(data.x), model))
    return replace(data, x=torch.where(missing, filled, data.x))


def _labels(train: Dataset, n: int, seed: int) -> Tensor:
    """Labels of n training rows in random order, so that their frequencies equal the ones of the data."""
    assert train.y is not None  # a model with classes was trained on labels
    order = permutation(seed, Purpose.CONDITION, 0, len(train))
    return train.y[order[torch.arange(n) % len(train)]]


def _round_images(x: Tensor, train: Dataset) -> Tensor:
    return x.round().clamp(0, train.levels - 1) if train.kind == "image" else x


_CLASSIFIED, _PAIRED = 2000, 1000  # maximal numbers of rows for the classifier, and for pairwise distances
_COPY_QUANTILE, _IDENTICAL = 0.01, 1e-6


@dataclass(frozen=True)
class Metrics:
    """Metrics of a run, and the per-sample values that the figures show.

    Args:
        numbers: the metrics as JSON types, see `evaluate`.
        predicted: classes (n,) that the classifier assigns to the samples.
        generated_distance, real_distance: distances to the nearest training row of samples and held-out rows.
    """

    numbers: dict[str, Any]
    predicted: Tensor | None = None
    generated_distance: Tensor | None = None
    real_distance: Tensor | None = None


def evaluate(run: Path | str, n: int | None = None, seed: int = 0, *, model: Model | None = None,
             data: Dataset | None = None) -> dict[str, Any]:
    """Metrics of a run as a dict of JSON types, deterministic in run, n and seed.

    All data: kind, data, n, seed, method, grid, steps, nfe (model evaluations per sample), guidance, train_rows,
    held_out_rows, sliced_w2 to the held-out rows, sliced_w2_floor (between two sets of real rows),
    sliced_w2_floor_std and sliced_w2_ratio. Images and tables: median distance to the nearest training row of
    samples (nearest_generated) and of held-out rows (nearest_held_out), nearest_ratio, copied_fraction (samples nearer
    to a training row than 99 % of held-out rows), identical and identical_held_out (rows equal to a training row).
    Images: fine_power_ratio (of the finest details, generated to real), colour_drift and colour_drift_floor (W₁ of the
    mean values of single images, as a fraction of the range), blank and blank_real (shares of images with hardly any
    contrast), linear_loss_ratio (held-out loss to that of the best linear denoiser). Images with classes:
    class_agreement, class_agreement_stderr, per_class, confusion, classifier_accuracy and classifier_per_class on
    held-out rows. Points: mmd, mmd_floor, mmd_floor_std, curve_distance. Tables: ks
    (Kolmogorov-Smirnov distance per column of numbers), ks_critical (exceeded by 5 % of equal distributions), and the
    scores of `table_metrics` with their floors. Arrays: ks per channel, and spectrum_factor, the largest factor between
    the power spectra of generated and held-out samples, beside that of training samples (spectrum_factor_real).

    Args:
        run: folder of the run.
        n: number of samples; None: as many as held-out rows, within limits.
        seed: seed of the samples.
        model, data: replace the model and the data of the run.

    Raises:
        InputError: for a folder without a run, and as `training.load` and `sample`.
    """
    return measure(gather(Path(run), n, seed, model=model, data=data)).numbers


def measure(data: ReportData) -> Metrics:
    """All metrics of the gathered data."""
    numbers: dict[str, Any] = {
        "kind": data.kind, "data": data.train.name, "n": len(data.generated), "seed": data.seed,
        "method": data.samples.method, "grid": data.samples.grid, "steps": STEPS,
        "nfe": data.samples.nfe, "guidance": 1.0,
        "train_rows": len(data.train), "held_out_rows": 0 if data.held_out is None else len(data.held_out),
    }
    numbers |= _distance(data)
    metrics_of_kind = {"points": _points, "table": _table, "image": _image, "array": _array}[data.kind](data)
    return replace(metrics_of_kind, numbers={**numbers, **metrics_of_kind.numbers})


def _distance(data: ReportData) -> dict[str, Any]:
    """Sliced W₂ to the held-out rows, and its noise floor between equally many real rows."""
    if data.held_out is None:
        return dict.fromkeys(("sliced_w2", "sliced_w2_floor", "sliced_w2_floor_std", "sliced_w2_ratio"))
    generated, real = comparable(data, data.generated), comparable(data, data.held_out.x)
    train = comparable(data, data.train.x[_evenly_spaced(len(data.train), len(generated))])
    value, floor = metrics.sliced_w2(generated, real), metrics.noise_floor(metrics.sliced_w2, train, real)
    return {"sliced_w2": value, "sliced_w2_floor": floor.value, "sliced_w2_floor_std": floor.stderr,
            "sliced_w2_ratio": value / floor.value if floor.value else None}


def _points(data: ReportData) -> Metrics:
    """MMD to the held-out rows, and the mean distance to the curve of a spiral data set."""
    numbers: dict[str, Any] = {"mmd": None, "mmd_floor": None, "mmd_floor_std": None}
    if data.held_out is not None:
        generated, real = data.generated[:_PAIRED], data.held_out.x[:_PAIRED]
        train = data.train.x[_evenly_spaced(len(data.train), len(generated))]
        floor = metrics.noise_floor(metrics.mmd, train, real)
        numbers = {"mmd": metrics.mmd(generated, real), "mmd_floor": floor.value, "mmd_floor_std": floor.stderr}
    if data.train.name not in SPIRALS:
        return Metrics({**numbers, "curve_distance": None})
    distance, real_distance = (float(distance_to_curve(data.train.name, x).mean())
                               for x in (data.generated, data.real.x))
    return Metrics({**numbers, "curve_distance": distance, "curve_distance_real": real_distance})


def mixed_columns(data: ReportData) -> MixedColumns:
    """The columns of a table, with that of the label if samples were generated given one."""
    train = data.train
    label = [data.run.experiment.label or "label"] if data.labels is not None else []
    words = train.categories or ((),) * len(train.columns)
    return MixedColumns((*train.columns, *label), (*words, *([train.classes] if label else [])))


def with_labels(x: Tensor, labels: Tensor | None) -> NDArray[np.float64]:
    """Rows (N, D) with their labels, if there are such, as the last column."""
    return (x.double() if labels is None else torch.cat([x.double(), labels[:, None].double()], 1)).numpy()


def _table(data: ReportData) -> Metrics:
    """Kolmogorov-Smirnov distance per column, scores of the table, and the nearest rows in standardised units."""
    numbers: dict[str, Any] = {}
    if data.held_out is not None:
        columns = mixed_columns(data)
        labelled = data.labels is not None
        train, real = (with_labels(part.x, part.y if labelled else None) for part in (data.train, data.held_out))
        generated = with_labels(data.generated, data.labels)
        numbers["ks"] = {name: float(stats.ks_2samp(generated[:, j], real[:, j]).statistic)
                         for j, name in enumerate(columns.names) if not columns.words[j]}
        numbers |= table_scores(columns, train, real, generated)
        numbers["ks_critical"] = 1.358 * math.sqrt((len(generated) + len(real)) / (len(generated) * len(real)))
    return _nearest(data, numbers)


def _array(data: ReportData) -> Metrics:
    """Values and spectra of the channels, and the nearest samples in model units."""
    numbers: dict[str, Any] = {}
    if data.held_out is not None and data.train.array is not None:
        rows = data.train.x[_evenly_spaced(len(data.train), len(data.held_out))]
        numbers = array_scores(data.train.array, data.held_out.x[:], data.generated, rows)
    return _nearest(data, numbers)


def _image(data: ReportData) -> Metrics:
    """Visible defects, class agreement, if there are classes, and the nearest images."""
    visible = _visible(data)
    if data.labels is None or data.train.y is None:
        return _nearest(data, visible)
    classify = metrics.classifier(data.train.x, data.train.y)
    predicted = classify(data.generated)
    rate = metrics.agreement(predicted, data.labels)
    numbers = {"class_agreement": rate.value, "class_agreement_stderr": rate.stderr,
               "per_class": _per_class(data, predicted, data.labels),
               "confusion": _confusion(data, predicted, data.labels)}
    return _nearest(data, visible | numbers | _accuracy(data, classify), predicted)


def _visible(data: ReportData) -> dict[str, Any]:
    """Grain, drift of colour and blank images, relative to real images."""
    x, real = data.generated, data.real.x[_evenly_spaced(len(data.real), len(data.generated))]
    fine, levels = fine_power(real), data.train.levels - 1
    train = data.train.x[_evenly_spaced(len(data.train), len(x))]
    floor = metrics.noise_floor(colour_drift, train, real)
    return {"fine_power_ratio": fine_power(x) / fine if fine else None,
            "colour_drift": colour_drift(x, real) / levels, "colour_drift_floor": floor.value / levels,
            "blank": blank_share(x, real), "blank_real": blank_share(train, real),
            "linear_loss_ratio": linear_loss_ratio(data.entries, data.run.experiment, data.model)}


def _accuracy(data: ReportData, classify: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Accuracy of the classifier on held-out images."""
    if data.held_out is None or data.held_out.y is None:
        return {"classifier_accuracy": None, "classifier_per_class": None}
    real = data.held_out.take(_evenly_spaced(len(data.held_out), _CLASSIFIED))
    assert real.y is not None
    predicted = classify(real.x)
    return {"classifier_accuracy": metrics.agreement(predicted, real.y).value,
            "classifier_per_class": _per_class(data, predicted, real.y)}


def _nearest(data: ReportData, numbers: dict[str, Any], predicted: Tensor | None = None) -> Metrics:
    """Distances of samples and held-out rows to their nearest training rows."""
    train = comparable(data, data.train.x)
    generated = metrics.nearest_distance(comparable(data, data.generated), train)
    numbers |= {"nearest_generated": float(generated.median()), "identical": int((generated < _IDENTICAL).sum())}
    if data.held_out is None:
        missing = dict.fromkeys(("nearest_held_out", "nearest_ratio", "copied_fraction"))
        return Metrics(numbers | missing, predicted, generated)
    rows = data.held_out.x[_evenly_spaced(len(data.held_out), len(data.generated))]
    real = metrics.nearest_distance(comparable(data, rows), train)
    median = float(real.median())
    numbers |= {"nearest_held_out": median, "nearest_ratio": float(generated.median()) / median if median else None,
                "identical_held_out": int((real < _IDENTICAL).sum()),
                "copied_fraction": float((generated < torch.quantile(real, _COPY_QUANTILE)).double().mean())}
    return Metrics(numbers, predicted, generated, real)


def _per_class(data: ReportData, predicted: Tensor, labels: Tensor) -> dict[str, dict[str, float]]:
    """Per class: agreement of prediction and label, its 95 % interval (Wilson, 1927), and the number of rows."""
    rates: dict[str, dict[str, float]] = {}
    for label, name in enumerate(data.train.classes):
        rows = labels == label
        if rows.any():
            correct, n = int((predicted[rows] == label).sum()), int(rows.sum())
            low, high = stats.binomtest(correct, n).proportion_ci(0.95, "wilson")
            rates[name] = {"agreement": correct / n, "low": float(low), "high": float(high), "n": n}
    return rates


def _confusion(data: ReportData, predicted: Tensor, labels: Tensor) -> list[list[int]]:
    """Counts of predicted classes (columns) for each label (row)."""
    size = len(data.train.classes)
    return torch.bincount(labels * size + predicted, minlength=size * size).reshape(size, size).tolist()


def comparable(data: ReportData, x: Tensor) -> Tensor:
    """Rows x in the unit in which distances are measured.

    Points: data units. Tables and arrays: model units, standard deviation 1 per column or channel. Images: scaled so
    that a distance is the root mean square pixel difference as a fraction of the grey-level range.
    """
    if data.kind in WITH_MISSING:
        return data.model.transform.forward(x.double())
    if data.kind == "points":
        return x
    return x.to(torch.float64, copy=True).div_((data.train.levels - 1) * math.sqrt(math.prod(data.train.shape)))


def _evenly_spaced(n: int, count: int) -> Tensor:
    """At most `count` of the integers 0 ... n − 1, evenly spaced."""
    return torch.from_numpy(np.unique(np.linspace(0, n - 1, min(n, count)).round().astype(np.int64)))
