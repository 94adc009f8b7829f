"""The page of a calibration: one HTML file with the ranks and coverages of a posterior."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from undiffuse import __version__
from undiffuse.atomic_files import atomic_set, check_places
from undiffuse.errors import InputError
from undiffuse.report.blocks import ReportFigure, Section
from undiffuse.report.figures import GENERATED, MUTED, canvas, chart, shorten
from undiffuse.report.formats import percent, plus_minus
from undiffuse.report.page import Card, environment
from undiffuse.simulators.calibration import LEVELS, Calibration

Array = NDArray[np.float64]

_GRID = np.linspace(0, 1, 201)
_SHOWN = 12  # parameters with a chart


def save_page(calibration: Calibration, out: str | os.PathLike[str]) -> Path:
    """Writes a page with pictures and, next to it, the numbers as .json.

    Args:
        calibration: The calibration.
        out: A name that ends in .html.

    Raises:
        InputError: For another name.
    """
    path = Path(out)
    if path.suffix != ".html" or not path.absolute().parent.is_dir():
        raise InputError(f"got {path} for the page; expected a name that ends in .html, in a folder that exists")
    check_places([path, path.with_suffix(".json")], [])
    text = page(calibration, path.absolute().parent.name)
    with atomic_set([path.with_suffix(".json"), path]) as (numbers, html):
        numbers.write((json.dumps(calibration.to_dict(), indent=1) + "\n").encode())
        html.write(text.encode())
    return path


def page(calibration: Calibration, name: str) -> str:
    """The HTML text of the page.

    Args:
        calibration: The calibration.
        name: Name of the run.
    """
    title = "No deviation detected" if calibration.calibrated else "Not calibrated"
    return environment().get_template("calibration.html").render(
        name=name, title=title, verdict=calibration.verdict, cards=_cards(calibration),
        sections=[_regions(calibration), _parameters(calibration)],
        numbers=json.dumps(calibration.to_dict(), indent=1), version=__version__) + "\n"


def _cards(c: Calibration) -> list[Card]:
    cards = [Card(percent(value), f"in the {level:.0%} regions", f"± {100 * error:.1f} for a calibrated posterior")
             for value, level, error in zip(c.expected_coverage, LEVELS, c.stderr, strict=True)]
    return [*cards[1:3], Card(plus_minus(100 * c.c2st, 100 * c.c2st_stderr) + " %",
                              "accuracy of a classifier of true and drawn parameters", "50 % for the true posterior")]


def _regions(c: Calibration) -> Section:
    text = ("Regions around random points that hold a fraction of the draws should hold the same fraction of the true "
            "parameters. Below the diagonal the posterior is too narrow or displaced. The band is two standard errors.")
    figure = expected_coverage("Coverage of the true parameters against the level of the regions", c.nearer)
    return Section("All parameters together", text, (ReportFigure(figure, f"{c.simulations} held-out simulations."),))


def _parameters(c: Calibration) -> Section:
    text = ("The rank of the true value among the draws is uniform for the true posterior. A curve like an S that "
            "begins above the line belongs to a posterior that is too narrow, one on a single side of it to one that "
            "is displaced.")
    charts = tuple(ReportFigure(rank_difference(f"Ranks of {name}: distribution minus the uniform one",
                                                (c.ranks[:, j] + 0.5) / (c.draws + 1), shorten(name)),
                                f"{name}: p = {c.p_values[name]:.2g}.")
                   for j, name in enumerate(c.names[:_SHOWN]))
    pairs = tuple(charts[k : k + 2] if len(charts[k : k + 2]) > 1 else charts[k] for k in range(0, len(charts), 2))
    return Section("Each parameter", text, pairs)


@chart
def expected_coverage(nearer: Array) -> Figure:
    """The distribution function of the fractions of nearer draws, with the band of a calibrated posterior."""
    figure, ax = canvas(280)
    error = 2 * np.sqrt(_GRID * (1 - _GRID) / len(nearer))
    ax.fill_between(_GRID, _GRID - error, _GRID + error, color=MUTED, alpha=0.18, linewidth=0)
    ax.plot(_GRID, _GRID, color=MUTED, linestyle="dashed", linewidth=1)
    ax.plot(_GRID, (nearer[:, None] < _GRID).mean(0), color=GENERATED)
    ax.set(xlabel="level of the region", ylabel="true parameters inside", xlim=(0, 1), ylim=(0, 1))
    return figure


@chart
def rank_difference(u: Array, name: str) -> Figure:
    """The distribution function of the ranks in (0, 1) minus the uniform one, with the band of a uniform sample."""
    figure, ax = canvas(200)
    error = 2 * np.sqrt(_GRID * (1 - _GRID) / len(u))
    ax.fill_between(_GRID, -error, error, color=MUTED, alpha=0.18, linewidth=0)
    ax.plot(_GRID, (u[:, None] < _GRID).mean(0) - _GRID, color=GENERATED)
    ax.set(title=name, xlabel="rank of the true value among the draws", xlim=(0, 1))
    return figure
