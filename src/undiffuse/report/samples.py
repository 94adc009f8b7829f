"""The sections that show samples: real beside generated, and the way from noise to data."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.report import figures, html, journey
from undiffuse.report.evaluate import Findings
from undiffuse.report.evidence import Evidence
from undiffuse.report.film import film
from undiffuse.report.pictures import img_of
from undiffuse.report.style import MADE, REAL
from undiffuse.report.view import Plane, Tiles, View
from undiffuse.report.words import nouns, short

Array = NDArray[np.float64]

FRAMES = 32
_ROWS, _ACROSS = 10, 8
_SHOWN = 6
_DOTS, _FEW_DOTS = 2500, 700
_CAST, _TILES, _CINEMA, _SEARCHED = 30, 16, 10, 1000
_COLUMNS = 24
_CLOCK = 8.0  # beyond this log-SNR there is nothing to see
_LOW, _HIGH = 190.0, 370.0  # heights of a chart beside a film of tiles, and of dots


def side_by_side(seen: Evidence, found: Findings) -> str:
    """Real beside generated."""
    several = nouns(seen.train)[1]
    held = "were held out of the training" if seen.held_out is not None else "are those of the training"
    text = f"The real {several} {held}. The generated ones are the first drawn with seed {seen.seed}; none was chosen."
    shown = _table(seen, found) if seen.kind == "table" else _grids(seen) if seen.kind == "image" else _scatters(seen)
    return html.section("Real and generated", text, shown)


def way(seen: Evidence) -> str:
    """The film of the reverse process beside the log-SNR it runs through, and forward and reverse snapshots."""
    index, several = _cast(seen.made, seen.labels, seen), nouns(seen.train)[1]
    start = seen.model.prior_sample(len(seen.made), seen.seed, 0)[index]
    cond = seen.condition(index)
    moments = journey.backward(seen.model, start, FRAMES, seed=seen.seed, **cond)
    shots, wide = journey.spaced(moments, _SHOWN), _view(seen, _CINEMA)
    reel = html.figure(
        wide.framed(img_of(film(wide, moments), "gif", f"Film: noise becomes {several} as t falls to 0", wide.style)),
        f"Film. {len(index):,} {several} on their way from noise at t = {moments[0].t:.3g} to data at t = 0, by "
        f"{seen.samples.method.split()[0]} in {FRAMES} steps.")
    return html.section("From noise to data", "", html.pair(reel, _clock(seen, shots)),
                        _snapshots(seen, shots, cond))


def _clock(seen: Evidence, shots: list[journey.Moment]) -> str:
    """The log-SNR against t, with the moments of the snapshots."""
    sde = seen.model.sde
    t = torch.linspace(0, sde.T, 400, dtype=torch.float64)[1:]
    t = t[sde.log_snr(t).abs() < _CLOCK]
    marks = [(m.t, m.log_snr) for m in shots if abs(m.log_snr) < _CLOCK]
    curve = (t.numpy(), sde.log_snr(t).numpy())
    drawn = figures.schedule("Curve of log-SNR against t, falling from data to noise", curve, np.array(marks).T,
                             _LOW if seen.kind == "image" else _HIGH)
    return html.figure(drawn, f"The process, {sde.name}: the signal left at time t. Dots are the moments below.")


def _snapshots(seen: Evidence, shots: list[journey.Moment], cond: dict[str, Any]) -> str:
    """Data turning into noise, noise turning into data, and what the model expects on the way."""
    view, several = _view(seen, 4), nouns(seen.train)[1]
    cast = _cast(seen.real.x, seen.real.y if seen.conditional else None, seen)
    real = seen.model.transform.forward(seen.real.x[cast]).to(seen.model.dtype)
    there = journey.forward(seen.model, real, [m.t for m in reversed(shots)], seen.seed)
    guesses = journey.beliefs(seen.model, shots, **cond)
    rows = (_strip(view, f"Forward: real {several} under more and more noise", there, [m.shown for m in there], "real"),
            _strip(view, "Reverse: samples of the film", shots, [m.shown for m in shots], "made"),
            _strip(view, "What the model expects of them, E[x₀ | xₜ]", shots, guesses, "made"))
    return html.figure("".join(rows), "The same moments forward and in reverse, all scaled to the spread of the data. "
                       "Under much noise the model can only expect the mean; what it expects becomes definite before "
                       "the samples show it.")


def _view(seen: Evidence, columns: int) -> View:
    """How samples of this kind are looked at."""
    if seen.kind == "image":
        return Tiles(seen.train, seen.model.transform, columns)
    return Plane(seen.train, seen.model.transform)


def _grids(seen: Evidence) -> str:
    several = nouns(seen.train)[1]
    real = _rows(seen, seen.real.x, seen.real.y if seen.conditional else None, f"Real {several}")
    made = _rows(seen, seen.made, seen.labels, f"Generated {several}")
    how = "a row for each class that was asked for" if seen.conditional else "without a class"
    return html.pair(html.figure(real, f"Real {several}.", [("real", "real")]),
                     html.figure(made, f"Generated {several}, {how}.", [("generated", "made")]))


def _rows(seen: Evidence, x: Tensor, labels: Tensor | None, alt: str) -> str:
    """Rows of images, one for each class with its name, at most ten."""
    tiles = Tiles(seen.train, seen.model.transform, _ACROSS)
    if labels is None:
        return tiles.sheet(x[:_ACROSS * _ACROSS], alt, _ACROSS)
    names = seen.train.classes[:_ROWS]
    style = "row wide" if max(map(len, names)) > 3 else "row"
    rows = []
    for label, name in enumerate(names):
        some = x[(labels == label).nonzero()[:_ACROSS, 0]]
        padded = torch.cat([some, some.new_zeros(_ACROSS - len(some), *some.shape[1:])])
        rows.append(html.tag("div", html.words("span", name, "label"),
                             tiles.sheet(padded, f"{alt} of class {name}", _ACROSS), class_=style))
    return "".join(rows)


def _scatters(seen: Evidence) -> str:
    view = Plane(seen.train, seen.model.transform)
    several, names = nouns(seen.train)[1], seen.train.columns
    flat = len(names) == 2
    axes = (names[0], names[1]) if flat else ("first principal axis", "second principal axis")
    panels = []
    for role, name, x in ((REAL, "real", seen.real.x), (MADE, "generated", seen.made)):
        some = x[:_DOTS]
        places = some.double().numpy() if flat else view.points(seen.model.transform.forward(some))
        window = _window(seen.real.x.double().numpy()) if flat else view.window
        drawn = figures.scatter(f"Scatter plot of {len(some)} {name} {several}", places, window, role, axes)
        key = [(name, "real" if role == REAL else "made")]
        panels.append(html.figure(drawn, f"{len(some):,} {name} {several}, in the same frame.", key))
    return html.pair(*panels)


def _window(points: Array) -> tuple[float, float, float, float]:
    middle, half = (points.max(0) + points.min(0)) / 2, 0.54 * float(np.ptp(points, 0).max())
    return (float(middle[0] - half), float(middle[0] + half), float(middle[1] - half), float(middle[1] + half))


def _table(seen: Evidence, found: Findings) -> str:
    """Every column by itself, and all pairs of columns."""
    real, made = seen.real.x.double().numpy(), seen.made.double().numpy()
    names, ks = seen.train.columns[:_COLUMNS], found.numbers.get("ks") or {}
    charts = [figures.column(f"Histograms of column {name}, real and generated", real[:, j], made[:, j],
                             f"{name} ({ks[name]:.2f})" if ks else name) for j, name in enumerate(names)]
    of = "every column" if len(names) == len(seen.train.columns) else f"the first {len(names)} columns"
    chance = short(found.numbers.get("ks_by_chance"))
    distance = f", with their Kolmogorov-Smirnov distances; 95 % of equal laws stay below {chance}" if ks else ""
    both = html.figure(html.tag("div", *charts, class_="columns"), f"The values in {of}{distance}.",
                       [("real", "real"), ("generated", "made")])
    return both + _correlations(names, real[:, :_COLUMNS], made[:, :_COLUMNS])


def _correlations(names: tuple[str, ...], real: Array, made: Array) -> str:
    """The correlation matrices of the columns that vary."""
    vary = [j for j in range(len(names)) if np.ptp(real[:, j]) > 0 and np.ptp(made[:, j]) > 0]
    if len(vary) < 2:
        return ""
    both = {name: np.atleast_2d(np.corrcoef(x[:, vary].T)) for name, x in (("real", real), ("generated", made))}
    gap = short(float(np.abs(both["real"] - both["generated"]).max()))
    ends = {"real": ".", "generated": f"; the largest difference is {gap}."}
    key = [("positive", "real"), ("negative", "made")]
    return html.pair(*(html.figure(
        figures.correlations(f"Correlation matrix of {name} rows", [names[j] for j in vary], values),
        f"Correlations of {name} rows{ends[name]}", key) for name, values in both.items()))


def _cast(x: Tensor, labels: Tensor | None, seen: Evidence) -> Tensor:
    """The rows that are followed: of images a few, all classes in turn, of the rest some hundreds."""
    if seen.kind != "image":
        return torch.arange(min(len(x), _FEW_DOTS))
    if labels is None:
        return torch.arange(min(len(x), _CAST))
    labels = labels[:_SEARCHED]
    turn = torch.stack([(labels[:k] == labels[k]).sum() for k in range(len(labels))])
    return torch.argsort(turn * (int(labels.max()) + 1) + labels)[:_CAST]


def _strip(view: View, title: str, moments: list[journey.Moment], batches: list[Tensor], role: str) -> str:
    cells = []
    for m, z in zip(moments, batches, strict=True):
        left, right = journey.stamp(m)
        picture = view.picture(z[:_TILES] if isinstance(view, Tiles) else z, f"{title}, {left}", role)
        cells.append(html.tag("div", picture, f'<div class="stamp">{escape(left)}<br>{escape(right)}</div>'))
    return html.words("p", title, "label") + html.tag("div", *cells, class_="strip")
