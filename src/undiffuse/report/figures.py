"""Charts of a report: functions from numbers to a `Chart`, an SVG that takes its colours from the page.

Every function takes the alternative text first. Colours by role: REAL data, GENERATED samples, MUTED references.
Matplotlib draws with placeholder colours, which become CSS variables, so that one chart serves the light and the dark
page; text stays text, in the font of the page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ClassVar, Concatenate, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from undiffuse.report.formats import plain_text

INK, MUTED, RULE, REAL, GENERATED, PAPER = (f"#00000{k}" for k in range(1, 7))
"""Colours by role: text, secondary text, thin lines, real data, generated data, the page."""

WIDTH = 400.0
"""Width of a chart in points: the width of a phone's screen, so that labels are legible there."""

_VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", REAL: "real", GENERATED: "generated", PAPER: "paper"}
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


@dataclass(frozen=True)
class Chart:
    """An SVG chart: alternative text, view box, and the elements in it up to the closing tag."""

    kind: ClassVar = "chart"
    alt: str
    view_box: str
    body: str


def chart(draw: Callable[P, Figure]) -> Callable[Concatenate[str, P], Chart]:
    """Decorator: a function that draws a figure then takes an alternative text first and returns a Chart."""

    @wraps(draw)
    def render(alt: str, /, *args: P.args, **kwargs: P.kwargs) -> Chart:
        with plain_text(), matplotlib.rc_context(_STYLE):
            return _svg(draw(*args, **kwargs), alt)

    return render


def canvas(height: float = 230, width: float = WIDTH) -> tuple[Figure, Axes]:
    """A figure of the given size in points, and its axes."""
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    return figure, figure.add_subplot()


def remove_frame(ax: Axes) -> None:
    """Remove the lines, ticks and grid of the axes."""
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


def logarithmic(axis: Axis, name: str) -> None:
    """Make an axis ("x" or "y") logarithmic with plain numbers at its ticks, if its values span a factor above 5."""
    low, high = axis.get_data_interval()
    if not 0 < low < high / 5:
        return
    axis.axes.set(**{f"{name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1.0,) if high > 150 * low else (1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _svg(figure: Figure, alt: str) -> Chart:
    """The figure as a chart, without Matplotlib's header and definitions."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    size = re.search(r'viewBox="([^"]*)"', text)
    body = text[text.index("</defs>") + len("</defs>"):text.rindex("</svg>")]
    return Chart(alt, size[1] if size else "", _with_variables(_compact(body)).strip())


def _compact(text: str) -> str:
    """The SVG without comments, unused ids and superfluous digits."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r' id="[a-zA-Z0-9.]+_\d+(_\d+)*"', "", text)
    text = re.sub(r' transform="rotate\(-0 [^"]*"', "", text)
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), text)
    return re.sub(r"\s*\n\s*", " ", text)


def _with_variables(text: str) -> str:
    """The SVG with placeholder colours replaced by CSS variables, and without Matplotlib's fonts."""
    for colour, name in _VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    return re.sub(r"font-family: [^;\"]*;? ?", "", text)


Array = NDArray[np.float64]
Curve = tuple[Array, Array]
"""Positions on the x axis and the values there."""
Rate = Mapping[str, float]
"""A rate `agreement` with its confidence interval `low` to `high`."""


@chart
def training_curve(train: Curve, held_out: Curve | None = None, floor: float | None = None,
                   mark: float | None = None) -> Figure:
    """Loss against step: values, running mean, held-out loss, and lower bound.

    Args:
        train: steps and training losses.
        held_out: steps and held-out losses; None: no such curve.
        floor: lower bound of the loss; None: no line.
        mark: the step of the model, if training continued after it.
    """
    figure, ax = canvas()
    steps, loss = train
    ax.plot(steps, loss, color=GENERATED, alpha=0.25, linewidth=0.8)
    ax.plot(steps, running_mean(loss), color=GENERATED)
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
    """Gradient norm before clipping against step: values and running mean; `mark` as in `training_curve`."""
    figure, ax = canvas()
    ax.plot(*norm, color=GENERATED, alpha=0.25, linewidth=0.8)
    ax.plot(norm[0], running_mean(norm[1]), color=GENERATED)
    _step(ax, mark)
    ax.set(xlabel="step", title="norm of the gradient", xlim=(0, max(float(norm[0][-1]), 1)))
    logarithmic(ax.yaxis, "y")
    return figure


@chart
def loss_by_level(checkpoints: Sequence[Curve]) -> Figure:
    """Held-out loss against noise level, one line per checkpoint, darker for later ones."""
    figure, ax = canvas()
    for number, (level, loss) in enumerate(checkpoints, 1):
        last = number == len(checkpoints)
        ax.plot(level, loss, color=REAL, alpha=1.0 if last else 0.15 + 0.4 * number / len(checkpoints),
                linewidth=1.6 if last else 0.9)
    ax.set(xlabel="noise level of the input, σ/α", title="held-out loss")
    logarithmic(ax.xaxis, "x")
    logarithmic(ax.yaxis, "y")
    return figure


@chart
def error_by_level(level: Array, train: Array, held_out: Array | None, linear: Array) -> Figure:
    """Denoising error against noise level σ/α, both in standard deviations of the data.

    Args:
        level: noise levels (L,).
        train: errors on training rows (L,).
        held_out: errors on held-out rows (L,); None: no such curve.
        linear: errors of the best linear denoiser (L,), drawn dashed.
    """
    figure, ax = canvas()
    ax.plot(level, linear, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
    ax.plot(level, train, color=GENERATED)
    if held_out is not None:
        ax.plot(level, held_out, color=REAL)
    ax.set(xlabel="noise level of the input", title="error of the output")
    logarithmic(ax.xaxis, "x")
    logarithmic(ax.yaxis, "y")
    return figure


@chart
def ema_lengths(sigma_rel: Array, held_out: Array, running: float) -> Figure:
    """Held-out loss of averaged weights against relative EMA length, and the loss of the running average.

    Args:
        sigma_rel: relative EMA lengths (K,).
        held_out: loss of the average of each length (K,).
        running: loss of the running average.
    """
    figure, ax = canvas()
    ax.plot(sigma_rel, held_out, "o-", color=REAL, markersize=4)
    _reference(ax, running)
    ax.set(xlabel="relative EMA length, σ_rel", title="held-out loss")
    logarithmic(ax.xaxis, "x")
    return figure


@chart
def class_rates(names: Sequence[str], generated: Mapping[str, Rate], real: Mapping[str, Rate]) -> Figure:
    """Class agreement of samples with its interval, and of held-out rows as a tick, per class.

    Args:
        names: names of the classes, from top to bottom.
        generated: agreement and interval of the samples by class name.
        real: agreement of the held-out rows by class name.
    """
    figure, ax = canvas(_class_height(len(names)))
    for row, name in enumerate(names):
        if name in real:
            ax.plot(real[name]["agreement"], row, "|", color=REAL, markersize=13, markeredgewidth=2.2, clip_on=False)
        if name in generated:
            rate = generated[name]
            ax.plot([rate["low"], rate["high"]], [row, row], color=GENERATED, linewidth=1.4, alpha=0.6, clip_on=False)
            ax.plot(rate["agreement"], row, "o", color=GENERATED, markersize=6, clip_on=False)
    low = min([0.9, *(rate["low"] for rate in generated.values()), *(rate["agreement"] for rate in real.values())])
    ax.set(xlim=(max(0.0, np.floor(20 * low) / 20), 1), ylim=(len(names) - 0.5, -0.5), title="classified as requested")
    ax.set_yticks(range(len(names)), [shorten(name) for name in names])
    ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    ax.spines["bottom"].set_visible(False)
    return figure


@chart
def confusion(names: Sequence[str], fractions: Array) -> Figure:
    """Confusion matrix: fractions (C, C) of each requested class (row) by predicted class (column)."""
    figure, ax = canvas(_class_height(len(names)))
    _cells(ax, fractions, [shorten(name) for name in names], lambda fraction: GENERATED)
    ax.set_aspect("auto")
    if len(names) <= 12:
        for (i, j), fraction in np.ndenumerate(fractions):
            if fraction >= 0.005:
                ax.text(j, i, f"{100 * fraction:.0f}", ha="center", va="center", fontsize=10,
                        color=PAPER if fraction > 0.6 else INK)
    ax.set_title("requested ↓   predicted → (%)")
    return figure


@chart
def correlations(names: Sequence[str], values: Array) -> Figure:
    """Correlation matrix (D, D): positive entries in the colour REAL, negative ones in GENERATED."""
    figure, ax = canvas(400)
    _cells(ax, values, [shorten(name) for name in names], lambda r: REAL if r > 0 else GENERATED)
    ax.tick_params(axis="both", labelsize=11 if len(names) <= 12 else 8)
    ax.tick_params(axis="x", labelrotation=90)
    return figure


@chart
def overlaid(real: Array, generated: Array, xlabel: str, low: float | None = None) -> Figure:
    """Histograms of real (filled) and generated values (line).

    Args:
        real: real values (n,).
        generated: generated values (m,).
        xlabel: label of the axis.
        low: left end of the axis; None: chosen from the values.
    """
    figure, ax = canvas()
    _density(ax, real, generated, _edges(real, generated, 40, low))
    ax.set_xlabel(xlabel)
    return figure


@chart
def column(real: Array, generated: Array, title: str, text: Callable[[float], str] | None = None) -> Figure:
    """Small histograms of one column of a table.

    Args:
        real: real values (n,).
        generated: generated values (m,).
        title: name of the column, shortened to 30 characters.
        text: text of a value on the axis; None: the number.
    """
    figure, ax = canvas(128, width=230)
    _density(ax, real, generated, _edges(real, generated, 24, None))
    ax.set_title(shorten(title, 30))
    ax.locator_params(axis="x", nbins=4 if text is None else 2)
    if text is not None:
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: shorten(text(value), 20)))
    return figure


@chart
def schedule(curve: Curve, points: Array, height: float) -> Figure:
    """Log-SNR against t, with dots.

    Args:
        curve: times t and values of log(α/σ).
        points: times and values of the dots (2, K).
        height: height of the chart in points.
    """
    figure, ax = canvas(height)
    ax.plot(*curve, color=INK, linewidth=1.3)
    ax.plot(points[0], points[1], "o", color=GENERATED, markersize=6, clip_on=False)
    ax.set(xlabel="t (0 is data)", title="log(α/σ)", xlim=(0, float(curve[0][-1])))
    return figure


@chart
def scatter(points: Array, window: tuple[float, float, float, float], role: str, axes: tuple[str, str]) -> Figure:
    """Scatter plot of points in a window.

    Args:
        points: coordinates (n, 2).
        window: edges (left, right, bottom, top).
        role: colour of the points, `REAL` or `GENERATED`.
        axes: label of the horizontal axis, and title.
    """
    left, right, bottom, top = window
    figure, ax = canvas(400)
    pairs = np.repeat(points, 3, axis=0)
    pairs[2::3] = np.nan  # a line of length 0 with round ends is a dot, in a fifth of a circle's bytes
    ax.plot(pairs[:, 0], pairs[:, 1], color=role, linewidth=2.2 if len(points) <= 1200 else 1.6, alpha=0.75)
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xlabel=axes[0], title=axes[1])
    ax.grid(True, axis="both")
    return figure


def _class_height(count: int) -> float:
    """Common height of the two charts of classes."""
    return 60 + 20.0 * count


def running_mean(values: Array) -> Array:
    """Running mean over a fortieth of the values."""
    return np.asarray(uniform_filter1d(values, max(1, len(values) // 40), mode="nearest"))


def _density(ax: Axes, real: Array, generated: Array, edges: Array) -> None:
    for values, role, filled in ((real, REAL, True), (generated, GENERATED, False)):
        ax.hist(values, edges.tolist(), density=True, histtype="stepfilled" if filled else "step", linewidth=1.6,
                edgecolor=role, facecolor=to_rgba(role, 0.25) if filled else "none")
    ax.set_xlim(edges[0], edges[-1])
    ax.set_yticks([])


def _edges(real: Array, generated: Array, bins: int, low: float | None) -> Array:
    """Edges of bins over the central 99.8 % of both samples; unit bins for integers."""
    both = np.concatenate([real, generated])
    first, last = np.quantile(both, [0.001, 0.999])
    first = first if low is None else low
    if last <= first:
        first, last = first - 0.5, last + 0.5
    if (real == np.rint(real)).all() and last - first <= bins:
        return np.arange(np.floor(first), np.ceil(last) + 2) - 0.5
    return np.linspace(first, last, bins + 1)


def _cells(ax: Axes, values: Array, names: Sequence[str], role: Callable[[float], str]) -> None:
    """A matrix of squares, coloured by the role of the value, opaque by its magnitude."""
    remove_frame(ax)
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


def shorten(name: str, limit: int = 12) -> str:
    """A name short enough for an axis."""
    return name if len(name) <= limit else name[: limit - 1] + "…"
