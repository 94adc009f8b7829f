"""PNG figures of other commands: errors of a tuned sampler against model evaluations, and log-likelihood scores."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.atomic_files import atomic
from undiffuse.data import Dataset
from undiffuse.errors import InputError
from undiffuse.interop.comparison import ComparedSampler
from undiffuse.likelihood import Likelihood
from undiffuse.report.figures import logarithmic
from undiffuse.report.formats import plain_text
from undiffuse.report.images import greys, tiled
from undiffuse.samplers.tuned import Tuning
from undiffuse.transforms.base import Transform

_FIGURES = {"median": "median over trajectories", "rmse": "root mean square over trajectories"}
_BEFORE, _AFTER = "#8a8a8a", "#c0392b"
_COLUMNS = 12  # columns whose surprise is shown


@plain_text()
def tuning_figure(tuning: Tuning, path: Path) -> Path:
    """Write a PNG of error against model evaluations before and after tuning: median and root mean square.

    Args:
        tuning: tuned sampler with the rows of its measurement.
        path: file to write.

    Raises:
        InputError: if the tuning has no measured rows.
    """
    if not tuning.rows:
        raise InputError("got a tuning without measured errors; expected at least one; tune the model again")
    figure = Figure(figsize=(9, 4), layout="constrained")
    for ax, (key, title) in zip(figure.subplots(1, 2, sharey=True), _FIGURES.items(), strict=True):
        for condition in dict.fromkeys(row["given"] for row in tuning.rows if "=" not in row["given"]):
            _lines(ax, [row for row in tuning.rows if row["given"] == condition], key,
                   f" given {condition}" * bool(condition))
        ax.set(title=title, xlabel="model evaluations", xscale="log")
        ticks = sorted({row["evaluations"] for row in tuning.rows})
        ax.set_xticks(ticks, [str(n) for n in ticks])
        ax.xaxis.set_minor_locator(NullLocator())
        logarithmic(ax.yaxis, "y")
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("distance to the exact endpoint,\nstandard deviations of the data")
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
    with atomic(path) as file:
        figure.savefig(file, format="png", dpi=140)
    return path


def _lines(ax: Axes, rows: list[dict[str, object]], key: str, condition: str) -> None:
    """Errors before and after tuning, given one condition (a suffix of the labels)."""
    n, style = [row["evaluations"] for row in rows], {"marker": "o", "ms": 4, "ls": "--" if condition else "-"}
    for part, colour, name in (("before", _BEFORE, "best untuned"), ("after", _AFTER, "tuned")):
        ax.plot(n, [row[part][key] for row in rows], color=colour, label=name + condition, **style)  # type: ignore[index,arg-type]


@plain_text()
def comparison_figure(compared: Sequence[ComparedSampler], path: Tensor, transform: Transform, file: Path) -> Path:
    """Write a PNG: the samples of every sampler at every number of evaluations, and of the fine path, from equal noise.

    Args:
        compared: the samplers.
        path: ends of the fine path, in the network's units.
        transform: map from these units to images.
        file: file to write.
    """
    budgets = list(dict.fromkeys(c.steps for c in compared))
    names = list(dict.fromkeys((c.ours, c.label) for c in compared))
    cells = {(c.ours, c.label, c.steps): c for c in compared}
    figure = Figure(figsize=(1 + 3.2 * len(budgets), 1 + 0.9 * len(names)), layout="constrained")
    axes = figure.subplots(1 + len(names), len(budgets), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    _samples(axes[0, 0], path, transform, "the fine path")
    for (ours, name), row in zip(names, axes[1:], strict=True):
        for budget, ax in zip(budgets, row, strict=True):
            if (cell := cells.get((ours, name, budget))) is not None:
                _samples(ax, cell.z, transform, f"{name}, {cell.calls} calls: {cell.mean:.3f}",
                         _AFTER if ours else _BEFORE)
    figure.suptitle("distance to the fine path in standard deviations; red: undiffuse, grey: diffusers", fontsize=10)
    with atomic(file) as stream:
        figure.savefig(stream, format="png", dpi=140)
    return file


def _samples(ax: Axes, z: Tensor, transform: Transform, title: str, colour: str = "black") -> None:
    """Samples in a row, with a title."""
    x = transform.inverse(z.nan_to_num()[:8])
    ax.imshow(np.asarray(tiled(greys(x, getattr(transform, "levels", 256)), min(8, len(x)))), cmap="gray")
    ax.set_title(title, fontsize=8, color=colour)


_SHOWN = 16
_LIKELY, _UNLIKELY, _ALL = "#1f6f8b", "#d9480f", "#8a939b"


@plain_text()
def scores_figure(likelihood: Likelihood, data: Dataset, surprise: Tensor | None = None) -> bytes:
    """A PNG: histogram of the scores, log p with standard errors by rank, and the extremes or the surprise of columns.

    Args:
        likelihood: log-likelihoods of the rows.
        data: the rows; images show their extremes, points in the plane are coloured by log p.
        surprise: surprise of every column (N, D) in nats; None: not shown.
    """
    plane = data.x.ndim == 2 and data.x.shape[1] == 2
    three = data.kind == "image" or plane or surprise is not None
    figure = Figure(figsize=(12 if three else 8, 3.6), layout="constrained")
    sides = figure.subplots(1, 3 if three else 2)
    _histogram(sides[0], likelihood)
    _ranked(sides[1], likelihood)
    if data.kind == "image":
        _extremes(sides[2], likelihood, data)
    elif surprise is not None:
        _reasons(sides[2], likelihood, data, surprise)
    elif plane:
        _plane(sides[2], likelihood, data)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130)
    return stream.getvalue()


def _score(likelihood: Likelihood) -> tuple[NDArray[np.float64], str]:
    """The scores and their name: bits per dimension for discrete data, else nats."""
    if likelihood.discrete:
        return likelihood.bits_per_dim.numpy(), "bits per dimension (lower: more likely)"
    return likelihood.log_prob.numpy(), "log p in nats"


def _histogram(ax: Axes, likelihood: Likelihood) -> None:
    values, name = _score(likelihood)
    ax.hist(values, bins=min(40, max(5, len(values) // 4)), color=_ALL)
    ax.axvline(float(values.mean()), color="black", lw=1)
    ax.set(xlabel=name, ylabel="rows", title=f"{len(values):,} rows, mean {values.mean():.4g}")
    ax.spines[["top", "right"]].set_visible(False)


def _ranked(ax: Axes, likelihood: Likelihood) -> None:
    order = likelihood.log_prob.argsort()
    error = likelihood.error.nan_to_num(0.0)[order].numpy()
    values = likelihood.log_prob[order].numpy()
    rank = np.arange(1, len(order) + 1)
    ax.fill_between(rank, values - 2 * error, values + 2 * error, color=_ALL, alpha=0.4, lw=0, label="± 2 s.e.")
    ax.plot(rank, values, color="black", lw=1)
    ax.set(xlabel="rank (1: most unusual)", title="log p in nats, by rank")
    ax.legend(frameon=False, loc="lower right")
    ax.spines[["top", "right"]].set_visible(False)


def _extremes(ax: Axes, likelihood: Likelihood, data: Dataset) -> None:
    order = likelihood.log_prob.argsort()
    n = min(_SHOWN, len(order) // 2 or 1)
    ax.set(title="most unusual (above), most likely (below)")
    for bottom, rows in ((0.52, order[:n]), (0.0, order[-n:].flip(0))):
        image = tiled(greys(data.x[rows], data.levels), 8)
        inset = ax.inset_axes((0, bottom, 1, 0.48))
        inset.imshow(np.asarray(image), cmap="gray", aspect="equal", interpolation="nearest")
        inset.set_axis_off()
    ax.set_axis_off()


def _plane(ax: Axes, likelihood: Likelihood, data: Dataset) -> None:
    order = likelihood.log_prob.argsort(descending=True)
    x, few = data.x.double()[order].numpy(), min(10, len(order))
    points = ax.scatter(x[:, 0], x[:, 1], c=likelihood.log_prob[order].numpy(), s=6, cmap="viridis", rasterized=True)
    ax.scatter(x[-few:, 0], x[-few:, 1], s=60, facecolors="none", edgecolors=_UNLIKELY, label="most unusual")
    ax.figure.colorbar(points, ax=ax, label="log p in nats")
    ax.set(title="log p in the plane", aspect="equal")
    ax.legend(frameon=False, loc="upper left")


def _reasons(ax: Axes, likelihood: Likelihood, data: Dataset, surprise: Tensor) -> None:
    """The surprise of the columns of the most unusual rows."""
    rows = least_likely(likelihood)
    columns = surprise[rows].amax(0).argsort(descending=True)[:_COLUMNS].sort().values
    image = ax.imshow(surprise[rows][:, columns].clamp_min(0).numpy(), cmap="Reds", aspect="auto", vmin=0)
    ax.set_xticks(range(len(columns)), [str(data.columns[j])[:14] for j in columns.tolist()], rotation=60, ha="right",
                  rotation_mode="anchor", fontsize=8)
    ax.set_yticks(range(len(rows)), [str(i + 1) for i in range(len(rows))], fontsize=8)
    ax.set(title="columns of the most unusual rows", ylabel="rank among rows with a probability")
    ax.figure.colorbar(image, ax=ax, label="surprise in nats")


def least_likely(likelihood: Likelihood, n: int = 10) -> torch.Tensor:
    """Indices of the n least likely rows, the least likely first."""
    return likelihood.log_prob.argsort()[:n]
