"""One look for every chart: a drawing surface, and its SVG that takes its colours from the page.

Matplotlib writes placeholder colours, which become CSS variables: one chart serves the light and the dark page. Text
stays text, in the page's own font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import wraps
from html import escape
from typing import Any, Concatenate, ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

INK, MUTED, RULE, REAL, MADE, PAPER = (f"#00000{k}" for k in range(1, 7))
"""Colours by role: text, secondary text, thin lines, real data, generated data, the page."""

WIDTH = 400.0
"""Width of a chart in points: as wide as a telephone's screen, so that its labels can be read there."""

_VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", REAL: "real", MADE: "made", PAPER: "paper"}
_STYLE: Any = {
    "font.size": 12, "axes.labelsize": 12, "axes.titlesize": 12, "axes.titlelocation": "left", "axes.titlepad": 9,
    "xtick.labelsize": 11, "ytick.labelsize": 11, "text.color": INK, "axes.labelcolor": MUTED,
    "axes.titlecolor": MUTED, "xtick.color": RULE, "ytick.color": RULE, "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED, "axes.edgecolor": RULE, "axes.facecolor": "none", "figure.facecolor": "none",
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "axes.grid": True,
    "axes.grid.axis": "y", "grid.color": RULE, "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.linewidth": 0.8,
    "lines.linewidth": 1.7, "lines.solid_capstyle": "round", "svg.fonttype": "none", "svg.hashsalt": "undiffuse",
    "path.simplify": False, "xtick.major.size": 3, "ytick.major.size": 0, "legend.frameon": False,
}

P = ParamSpec("P")


def chart(draw: Callable[P, Figure]) -> Callable[Concatenate[str, P], str]:
    """A function that draws a figure, as one that returns an <svg>; it takes first the text that says what is shown."""

    @wraps(draw)
    def drawn(alt: str, /, *args: P.args, **kwargs: P.kwargs) -> str:
        with matplotlib.rc_context(_STYLE):
            return _svg(draw(*args, **kwargs), alt)

    return drawn


def canvas(height: float = 230, width: float = WIDTH) -> tuple[Figure, Axes]:
    """A figure of that size in points and its axes."""
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    return figure, figure.add_subplot()


def bare(ax: Axes) -> None:
    """Axes without lines, ticks and grid."""
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


def logarithmic(axis: Axis, name: str) -> None:
    """A logarithmic axis ("x" or "y") whose ticks are plain numbers, or a linear one where all values are alike."""
    low, high = axis.get_data_interval()
    if not 0 < low < high / 5:
        return
    axis.axes.set(**{f"{name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1.0,) if high > 150 * low else (1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _svg(figure: Figure, alt: str) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    size = re.search(r'viewBox="[^"]*"', text)
    body = text[text.index("</defs>") + len("</defs>"):]
    opening = f'<svg class="chart" role="img" aria-label="{escape(alt)}" {size[0] if size else ""}>'
    return opening + _themed(_slim(body)).strip()


def _slim(text: str) -> str:
    """Without comments, ids that nothing refers to, and digits that nobody sees."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r' id="[a-zA-Z0-9.]+_\d+(_\d+)*"', "", text)
    text = re.sub(r' transform="rotate\(-0 [^"]*"', "", text)
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), text)
    return re.sub(r"\s*\n\s*", " ", text)


def _themed(text: str) -> str:
    """With CSS variables for the placeholder colours, and the page's font for Matplotlib's."""
    for code, name in _VARIABLES.items():
        text = text.replace(code, f"var(--{name})")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    return re.sub(r"font-family: [^;\"]*;? ?", "", text)
