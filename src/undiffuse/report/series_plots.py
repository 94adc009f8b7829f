"""Figures of series: forecasts with bands, and the surprise of steps."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from undiffuse.report.formats import plain_text

_COLUMNS, _PATHS = 8, 3  # columns and draws that are shown
_PAST, _FUTURE = "#41525c", "#d9480f"

Array = NDArray[np.floating[Any]]


@plain_text()
def forecast_figure(past: Array, draws: Array, columns: Sequence[str], interval: float = 0.9, name: str = "",
                    truth: Array | None = None) -> bytes:
    """A PNG of the last steps of a series and a forecast: median, bands of half and `interval` of the draws, and paths.

    Args:
        past: last steps (steps, C), NaN where missing.
        draws: draws of the future (draws, horizon, C).
        columns: names of the columns.
        interval: fraction of the draws inside the wide band.
        name: name of the series, for the title.
        truth: what came (horizon, C), where it is known.
    """
    shown = min(len(columns), _COLUMNS)
    figure = Figure(figsize=(9, 0.6 + 1.5 * shown), layout="constrained")
    axes = figure.subplots(shown, 1, sharex=True, squeeze=False)[:, 0]
    before, after = np.arange(-len(past) + 1, 1), np.arange(1, 1 + draws.shape[1])
    for j, ax in enumerate(axes):
        last = past[-1:, j] if len(past) and np.isfinite(past[-1, j]) else np.empty(0)
        ahead = np.concatenate([np.zeros(len(last)), after])
        paths = np.concatenate([np.repeat(last[None], len(draws), 0), draws[:, :, j]], 1)
        for share, alpha in ((interval, 0.18), (0.5, 0.3)):
            low, high = np.quantile(paths, [(1 - share) / 2, (1 + share) / 2], axis=0)
            ax.fill_between(ahead, low, high, color=_FUTURE, alpha=alpha, lw=0, label=f"{share:.0%} of the draws")
        ax.plot(ahead, paths[:_PATHS].T, color=_FUTURE, lw=0.6, alpha=0.7)
        ax.plot(ahead, np.median(paths, 0), color=_FUTURE, lw=1.8, label="median")
        ax.plot(before, past[:, j], color=_PAST, lw=1.3, label="history")
        if truth is not None:
            ax.plot(after, truth[:, j], color="black", lw=1, ls=":", label="what came")
        ax.set_ylabel(columns[j][:16])
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("steps after the last one")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False)
    figure.suptitle(name, fontsize=10)
    return _png(figure)


@plain_text()
def scores_picture(values: Array, steps: Array, columns: Sequence[str], start: int) -> bytes:
    """A PNG of a series over the surprise of its steps, with the ten most unusual ones marked.

    Args:
        values: the first stretch of the series (steps, C).
        steps: scores of the steps, see `pipelines.series.SeriesScores`.
        columns: names of the columns.
        start: first step of the stretch.
    """
    shown = min(len(columns), _COLUMNS)
    figure = Figure(figsize=(10, 1.4 * (shown + 1)), layout="constrained")
    axes = figure.subplots(shown + 1, 1, sharex=True, squeeze=False)[:, 0]
    at = steps[:, 1] - start
    inside = (steps[:, 0] == steps[0, 0]) & (at >= 0) & (at < len(values))
    at, surprise = at[inside].astype(int), steps[inside, -1]
    worst = at[np.argsort(-surprise)[:10]]
    for j, ax in enumerate(axes[:-1]):
        ax.plot(values[:, j], color=_PAST, lw=0.7)
        ax.plot(worst, values[worst, j], "o", ms=4, color=_FUTURE)
        ax.set_ylabel(columns[j][:16])
    axes[-1].plot(at, surprise, color=_FUTURE, lw=0.7)
    axes[-1].set(ylabel="surprise", xlabel="steps")
    for ax in axes:
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130)
    return stream.getvalue()
