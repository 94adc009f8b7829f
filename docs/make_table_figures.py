"""Draws the picture of the page on tables: `python docs/make_table_figures.py` (no arguments, some seconds)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer

from undiffuse.estimators import Imputer
from undiffuse.random import Purpose, uniform

COLUMNS, NAMES = (0, 3, 4, 6), ("mean radius", "mean area", "mean smoothness", "mean concavity")
REAL, MADE = "#4c6ef5", "#e8590c"


def holes() -> Figure:
    """Radius and area in the breast-cancer table with 30 % of its cells hidden, and draws in their place."""
    whole = load_breast_cancer().data[:, COLUMNS]
    hidden = uniform(0, Purpose.DATA, 30, 0, len(whole), (4,)).numpy() < 0.3
    gaps = np.where(hidden, np.nan, whole)
    draws = np.stack(Imputer().fit(gaps).draw(gaps, 19))
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    one = hidden[:, 1] & ~hidden[:, 0]
    left.scatter(whole[~hidden[:, :2].any(1), 0], whole[~hidden[:, :2].any(1), 1], s=6, color=REAL, label="both there")
    left.scatter(whole[one, 0], draws[0, one, 1], s=6, color=MADE, label="area drawn, given the rest of the row")
    mean = np.full(one.sum(), np.nanmean(gaps[:, 1]))
    left.scatter(whole[one, 0], mean, s=6, color="#adb5bd", label="the mean in its place")
    left.set(xlabel=NAMES[0], ylabel=NAMES[1])
    left.legend(frameon=False)
    rows = np.flatnonzero(hidden[:, 3])[:30]
    low, high = draws[:, rows, 3].min(0), draws[:, rows, 3].max(0)
    right.vlines(range(len(rows)), low, high, color=MADE, lw=2.5, alpha=0.5, label="90 % of the draws")
    right.scatter(range(len(rows)), whole[rows, 3], s=10, color="black", zorder=3, label="what was hidden")
    right.set(xlabel="thirty hidden cells", ylabel=NAMES[3], xticks=[])
    right.set_ylim(0, 1.3 * float(high.max()))
    right.legend(frameon=False, loc="upper left")
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    torch.set_num_threads(1)
    holes().savefig(Path(__file__).parent / "figures" / "imputation.png", dpi=110)
