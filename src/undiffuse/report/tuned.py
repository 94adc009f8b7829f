"""The figure of a tuning: error against evaluations, before and after."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from undiffuse.data.writers import atomic
from undiffuse.errors import InputError
from undiffuse.report.style import logarithmic
from undiffuse.steps.calibrated import Tuning

_FIGURES = {"median": "median over paths", "rmse": "root mean square over paths"}
_BEFORE, _AFTER = "#8a8a8a", "#c0392b"


def draw(tuning: Tuning, path: Path) -> Path:
    """Writes the figure as a PNG, a panel for the median and one for the root mean square; InputError without rows."""
    if not tuning.rows:
        raise InputError("got a tuning of which nothing was measured; tune the model again")
    figure = Figure(figsize=(9, 4), layout="constrained")
    for ax, (key, title) in zip(figure.subplots(1, 2, sharey=True), _FIGURES.items(), strict=True):
        for given in dict.fromkeys(row["given"] for row in tuning.rows if "=" not in row["given"]):
            _lines(ax, [row for row in tuning.rows if row["given"] == given], key, f" given {given}" * bool(given))
        ax.set(title=title, xlabel="evaluations", xscale="log")
        ticks = sorted({row["evaluations"] for row in tuning.rows})
        ax.set_xticks(ticks, [str(n) for n in ticks])
        ax.xaxis.set_minor_locator(NullLocator())
        logarithmic(ax.yaxis, "y")
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("distance to the exact end,\ndeviations of the data")
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
    with atomic(path) as file:
        figure.savefig(file, format="png", dpi=140)
    return path


def _lines(ax: Axes, rows: list[dict[str, object]], key: str, given: str) -> None:
    """Before and after, of one condition."""
    n, style = [row["evaluations"] for row in rows], {"marker": "o", "ms": 4, "ls": "--" if given else "-"}
    for part, colour, name in (("before", _BEFORE, "best untuned"), ("after", _AFTER, "tuned")):
        ax.plot(n, [row[part][key] for row in rows], color=colour, label=name + given, **style)  # type: ignore[index,arg-type]
