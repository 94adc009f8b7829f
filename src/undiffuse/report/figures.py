"""The charts of a report: functions from numbers to an <svg>, whose first argument is the text for those who listen.

Colours mean the same everywhere: REAL is real data, MADE is generated, MUTED is a reference.

One look for every chart: a drawing surface, and its SVG that takes its colours from the page.

Matplotlib writes placeholder colours, which become CSS variables: one chart serves the light and the dark page. Text
stays text, in the page's own font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from html import escape
from typing import Any, Concatenate, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

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


Array = NDArray[np.float64]
Curve = tuple[Array, Array]
"""The places on the x axis and the values there."""
Rate = Mapping[str, float]
"""A share as `agreement`, and its interval from `low` to `high`."""


@chart
def training_curve(train: Curve, held_out: Curve | None = None, floor: float | None = None,
                   mark: float | None = None) -> Figure:
    """The loss against the step: all values faint, their running mean, the held-out loss, and the least possible.

    `mark` is the step of the model, where the training went on.
    """
    figure, ax = canvas()
    steps, loss = train
    ax.plot(steps, loss, color=MADE, alpha=0.25, linewidth=0.8)
    ax.plot(steps, running_mean(loss), color=MADE)
    if held_out is not None:
        ax.plot(*held_out, color=REAL)
    if floor is not None:
        _reference(ax, floor)
    _step(ax, mark)
    ax.set(xlabel="step", title="loss", xlim=(0, max(float(steps[-1]), 1)))
    logarithmic(ax.yaxis, "y")
    return figure


@chart
def gradient_norm(norm: Curve, mark: float | None = None) -> Figure:
    """The norm of the gradient before it was clipped, against the step: all values faint, their running mean.

    `mark` as in `training_curve`.
    """
    figure, ax = canvas()
    ax.plot(*norm, color=MADE, alpha=0.25, linewidth=0.8)
    ax.plot(norm[0], running_mean(norm[1]), color=MADE)
    _step(ax, mark)
    ax.set(xlabel="step", title="norm of the gradient", xlim=(0, max(float(norm[0][-1]), 1)))
    logarithmic(ax.yaxis, "y")
    return figure


@chart
def loss_by_level(saves: Sequence[Curve]) -> Figure:
    """The held-out loss against the noise level, one line for each save, the later the darker."""
    figure, ax = canvas()
    for place, (level, loss) in enumerate(saves, 1):
        last = place == len(saves)
        ax.plot(level, loss, color=REAL, alpha=1.0 if last else 0.15 + 0.4 * place / len(saves),
                linewidth=1.6 if last else 0.9)
    ax.set(xlabel="noise in the input, σ/α", title="held-out loss")
    logarithmic(ax.xaxis, "x")
    logarithmic(ax.yaxis, "y")
    return figure


@chart
def error_by_level(level: Array, train: Array, held_out: Array | None, linear: Array) -> Figure:
    """The error of the denoiser, in deviations of the data, against the noise level σ/α in the same unit."""
    figure, ax = canvas()
    ax.plot(level, linear, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
    ax.plot(level, train, color=MADE)
    if held_out is not None:
        ax.plot(level, held_out, color=REAL)
    ax.set(xlabel="noise in the input", title="error left in the output")
    logarithmic(ax.xaxis, "x")
    logarithmic(ax.yaxis, "y")
    return figure


@chart
def average_lengths(length: Array, held_out: Array, running: float) -> Figure:
    """The held-out loss of averages of the weights against their relative length, and that of the running average."""
    figure, ax = canvas()
    ax.plot(length, held_out, "o-", color=REAL, markersize=4)
    _reference(ax, running)
    ax.set(xlabel="relative length of the average, σ_rel", title="held-out loss")
    logarithmic(ax.xaxis, "x")
    return figure


@chart
def class_rates(names: Sequence[str], made: Mapping[str, Rate], real: Mapping[str, Rate]) -> Figure:
    """For each class the share that is read as asked with its interval, and that of held-out real data as a tick."""
    figure, ax = canvas(_class_height(len(names)))
    for row, name in enumerate(names):
        if name in real:
            ax.plot(real[name]["agreement"], row, "|", color=REAL, markersize=13, markeredgewidth=2.2, clip_on=False)
        if name in made:
            rate = made[name]
            ax.plot([rate["low"], rate["high"]], [row, row], color=MADE, linewidth=1.4, alpha=0.6, clip_on=False)
            ax.plot(rate["agreement"], row, "o", color=MADE, markersize=6, clip_on=False)
    low = min([0.9, *(rate["low"] for rate in made.values()), *(rate["agreement"] for rate in real.values())])
    ax.set(xlim=(max(0.0, np.floor(20 * low) / 20), 1), ylim=(len(names) - 0.5, -0.5), title="read as asked")
    ax.set_yticks(range(len(names)), [_short(name) for name in names])
    ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    ax.spines["bottom"].set_visible(False)
    return figure


@chart
def confusion(names: Sequence[str], shares: Array) -> Figure:
    """Which class (column) the samples of each asked class (row) are read as: shares (C, C) whose rows sum to 1."""
    figure, ax = canvas(_class_height(len(names)))
    _cells(ax, shares, [_short(name) for name in names], lambda share: MADE)
    ax.set_aspect("auto")
    if len(names) <= 12:
        for (i, j), share in np.ndenumerate(shares):
            if share >= 0.005:
                ax.text(j, i, f"{100 * share:.0f}", ha="center", va="center", fontsize=10,
                        color=PAPER if share > 0.6 else INK)
    ax.set_title("asked ↓   read as → (%)")
    return figure


@chart
def correlations(names: Sequence[str], values: Array) -> Figure:
    """A correlation matrix (D, D): positive in the colour of real data, negative in the other one."""
    figure, ax = canvas(400)
    _cells(ax, values, [_short(name) for name in names], lambda r: REAL if r > 0 else MADE)
    ax.tick_params(axis="both", labelsize=11 if len(names) <= 12 else 8)
    ax.tick_params(axis="x", labelrotation=90)
    return figure


@chart
def overlaid(real: Array, made: Array, xlabel: str, low: float | None = None) -> Figure:
    """The densities of two samples of numbers: real filled, generated as a line. `low` is the left end, if known."""
    figure, ax = canvas()
    _density(ax, real, made, _edges(real, made, 40, low))
    ax.set_xlabel(xlabel)
    return figure


@chart
def column(real: Array, made: Array, title: str) -> Figure:
    """The densities of one column of a table, small."""
    figure, ax = canvas(128, width=230)
    _density(ax, real, made, _edges(real, made, 24, None))
    ax.set_title(_short(title, 30))
    ax.locator_params(axis="x", nbins=4)
    return figure


@chart
def schedule(curve: Curve, marks: Array, height: float) -> Figure:
    """The log-SNR against t, and marks (2, K) on it."""
    figure, ax = canvas(height)
    ax.plot(*curve, color=INK, linewidth=1.3)
    ax.plot(marks[0], marks[1], "o", color=MADE, markersize=6, clip_on=False)
    ax.set(xlabel="t (0 is data)", title="log(α/σ)", xlim=(0, float(curve[0][-1])))
    return figure


@chart
def scatter(points: Array, window: tuple[float, float, float, float], role: str, axes: tuple[str, str]) -> Figure:
    """Points (n, 2) as dots in the window (left, right, bottom, top)."""
    left, right, bottom, top = window
    figure, ax = canvas(400)
    pairs = np.repeat(points, 3, axis=0)
    pairs[2::3] = np.nan  # a line of length 0 with round ends is a dot, in a fifth of a circle's bytes
    ax.plot(pairs[:, 0], pairs[:, 1], color=role, linewidth=2.2 if len(points) <= 1200 else 1.6, alpha=0.75)
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xlabel=axes[0], title=axes[1])
    ax.grid(True, axis="both")
    return figure


def _class_height(count: int) -> float:
    """The same height for the two charts that stand beside each other."""
    return 60 + 20.0 * count


def running_mean(values: Array) -> Array:
    """The mean over a window of a fortieth of the whole."""
    return np.asarray(uniform_filter1d(values, max(1, len(values) // 40), mode="nearest"))


def _density(ax: Axes, real: Array, made: Array, edges: Array) -> None:
    for values, role, filled in ((real, REAL, True), (made, MADE, False)):
        ax.hist(values, edges.tolist(), density=True, histtype="stepfilled" if filled else "step", linewidth=1.6,
                edgecolor=role, facecolor=to_rgba(role, 0.25) if filled else "none")
    ax.set_xlim(edges[0], edges[-1])
    ax.set_yticks([])


def _edges(real: Array, made: Array, bins: int, low: float | None) -> Array:
    """Bins over what both samples cover, apart from their thousandth in either tail; whole ones for whole numbers."""
    both = np.concatenate([real, made])
    first, last = np.quantile(both, [0.001, 0.999])
    first = first if low is None else low
    if last <= first:
        first, last = first - 0.5, last + 0.5
    if (real == np.rint(real)).all() and last - first <= bins:
        return np.arange(np.floor(first), np.ceil(last) + 2) - 0.5
    return np.linspace(first, last, bins + 1)


def _cells(ax: Axes, values: Array, names: Sequence[str], role: Callable[[float], str]) -> None:
    """A matrix of squares, whose colour is the role of the value and whose strength is its size."""
    bare(ax)
    for (i, j), value in np.ndenumerate(values):
        strength = min(abs(float(value)), 1.0)
        square = to_rgba(role(float(value)), strength) if strength >= 0.005 else to_rgba(RULE, 0.25)
        ax.bar(j, 0.92, 0.92, i - 0.46, color=square, linewidth=0)
    size = len(values)
    ax.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
    ax.set_xticks(range(size), names)
    ax.set_yticks(range(size), names)


def _reference(ax: Axes, value: float) -> None:
    ax.axhline(value, color=INK, linewidth=1.1, linestyle=(0, (4, 3)))


def _step(ax: Axes, step: float | None) -> None:
    if step is not None:
        ax.axvline(step, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))


def _short(name: str, limit: int = 12) -> str:
    """A name that fits at an axis; Matplotlib reads no formula into it."""
    return (name if len(name) <= limit else name[: limit - 1] + "…").replace("$", r"\$")
