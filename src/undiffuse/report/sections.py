"""The sections that judge: whether samples are what was asked for, whether they are new, how the training went.

The sections that show samples: real beside generated, and the way from noise to data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.report import figures, html, trajectory
from undiffuse.report.denoising_error import Errors, errors, floor_of
from undiffuse.report.evaluate import Metrics, ReportData, comparable
from undiffuse.report.figures import MADE, REAL
from undiffuse.report.images import Plane, Tiles, View, film, img_of
from undiffuse.report.wording import nouns, novelty, percent, short
from undiffuse.training import checkpoint
from undiffuse.training.early_stopping import model_step, stopping_summary
from undiffuse.training.ema_sweep import ema_scores

Array = NDArray[np.float64]

FRAMES = 32
_ROWS, _ACROSS = 10, 8
_SHOWN = 6
_DOTS, _FEW_DOTS = 2500, 700
_CAST, _TILES, _CINEMA, _SEARCHED = 30, 16, 10, 1000
_COLUMNS = 24
_CLOCK = 8.0  # beyond this log-SNR there is nothing to see
_LOW, _HIGH = 190.0, 370.0  # heights of a chart beside a film of tiles, and of dots


def side_by_side(seen: ReportData, found: Metrics) -> str:
    """Real beside generated."""
    several = nouns(seen.train)[1]
    held = "were held out of the training" if seen.held_out is not None else "are those of the training"
    text = f"The real {several} {held}. The generated ones are the first drawn with seed {seen.seed}; none was chosen."
    shown = _table(seen, found) if seen.kind == "table" else _grids(seen) if seen.kind == "image" else _scatters(seen)
    return html.section("Real and generated", text, shown)


def trajectory_section(seen: ReportData) -> str:
    """The film of the reverse process beside the log-SNR it runs through, and forward and reverse snapshots."""
    index, several = _cast(seen.made, seen.labels, seen), nouns(seen.train)[1]
    start = seen.model.prior_sample(len(seen.made), seen.seed, 0)[index]
    cond = seen.condition(index)
    moments = trajectory.backward(seen.model, start, FRAMES, seed=seen.seed, **cond)
    shots, wide = trajectory.spaced(moments, _SHOWN), _view(seen, _CINEMA)
    reel = html.figure(
        wide.framed(img_of(film(wide, moments), "gif", f"Film: noise becomes {several} as t falls to 0", wide.style)),
        f"Film. {len(index):,} {several} on their way from noise at t = {moments[0].t:.3g} to data at t = 0, by "
        f"{seen.samples.method} in {FRAMES} steps.")
    return html.section("From noise to data", "", html.pair(reel, _clock(seen, shots)),
                        _snapshots(seen, shots, cond))


def _clock(seen: ReportData, shots: list[trajectory.Snapshot]) -> str:
    """The log-SNR against t, with the moments of the snapshots."""
    sde = seen.model.sde
    t = torch.linspace(0, sde.T, 400, dtype=torch.float64)[1:]
    t = t[sde.log_snr(t).abs() < _CLOCK]
    marks = [(m.t, m.log_snr) for m in shots if abs(m.log_snr) < _CLOCK]
    curve = (t.numpy(), sde.log_snr(t).numpy())
    drawn = figures.schedule("Curve of log-SNR against t, falling from data to noise", curve, np.array(marks).T,
                             _LOW if seen.kind == "image" else _HIGH)
    return html.figure(drawn, f"The process, {sde.name}: the signal left at time t. Dots are the moments below.")


def _snapshots(seen: ReportData, shots: list[trajectory.Snapshot], cond: dict[str, Any]) -> str:
    """Data turning into noise, noise turning into data, and what the model expects on the way."""
    view, several = _view(seen, 4), nouns(seen.train)[1]
    cast = _cast(seen.real.x, seen.real.y if seen.conditional else None, seen)
    real = seen.model.transform.forward(seen.real.x[cast]).to(seen.model.dtype)
    there = trajectory.forward(seen.model, real, [m.t for m in reversed(shots)], seen.seed)
    guesses = trajectory.expected_data(seen.model, shots, **cond)
    rows = (_strip(view, f"Forward: real {several} under more and more noise", there, [m.shown for m in there], "real"),
            _strip(view, "Reverse: samples of the film", shots, [m.shown for m in shots], "made"),
            _strip(view, "What the model expects of them, E[x₀ | xₜ]", shots, guesses, "made"))
    return html.figure("".join(rows), "The same moments forward and in reverse, all scaled to the spread of the data. "
                       "Under much noise the model can only expect the mean; what it expects becomes definite before "
                       "the samples show it.")


def _view(seen: ReportData, columns: int) -> View:
    """How samples of this kind are looked at."""
    if seen.kind == "image":
        return Tiles(seen.train, seen.model.transform, columns)
    return Plane(seen.train, seen.model.transform)


def _grids(seen: ReportData) -> str:
    several = nouns(seen.train)[1]
    real = _rows(seen, seen.real.x, seen.real.y if seen.conditional else None, f"Real {several}")
    made = _rows(seen, seen.made, seen.labels, f"Generated {several}")
    how = "a row for each class that was asked for" if seen.conditional else "without a class"
    return html.pair(html.figure(real, f"Real {several}.", [("real", "real")]),
                     html.figure(made, f"Generated {several}, {how}.", [("generated", "made")]))


def _rows(seen: ReportData, x: Tensor, labels: Tensor | None, alt: str) -> str:
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


def _scatters(seen: ReportData) -> str:
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


def _table(seen: ReportData, found: Metrics) -> str:
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


def _cast(x: Tensor, labels: Tensor | None, seen: ReportData) -> Tensor:
    """The rows that are followed: of images a few, all classes in turn, of the rest some hundreds."""
    if seen.kind != "image":
        return torch.arange(min(len(x), _FEW_DOTS))
    if labels is None:
        return torch.arange(min(len(x), _CAST))
    labels = labels[:_SEARCHED]
    turn = torch.stack([(labels[:k] == labels[k]).sum() for k in range(len(labels))])
    return torch.argsort(turn * (int(labels.max()) + 1) + labels)[:_CAST]


def _strip(view: View, title: str, moments: list[trajectory.Snapshot], batches: list[Tensor], role: str) -> str:
    cells = []
    for m, z in zip(moments, batches, strict=True):
        left, right = trajectory.stamp(m)
        picture = view.picture(z[:_TILES] if isinstance(view, Tiles) else z, f"{title}, {left}", role)
        cells.append(html.tag("div", picture, f'<div class="stamp">{escape(left)}<br>{escape(right)}</div>'))
    return html.words("p", title, "label") + html.tag("div", *cells, class_="strip")


_PAIRS = 12
_COMPARED = 256
_MOST_CLASSES = 40


def asked(seen: ReportData, found: Metrics) -> str:
    """Class agreement by a classifier, class by class, and what is read in place of what was asked for."""
    if found.read is None or len(seen.train.classes) > _MOST_CLASSES:
        return ""
    n, several, names = found.numbers, nouns(seen.train)[1], seen.train.classes
    made, real, counts = n["per_class"], n["classifier_per_class"] or {}, np.array(n["confusion"], float)
    drawn = figures.class_rates(f"Share of generated {several} read as asked, class by class", names, made, real)
    rates = html.figure(drawn, _weakest(made),
                        [("generated, 95 % interval", "made"), ("held-out real", "real")][: 2 if real else 1])
    wrong = html.figure(
        figures.confusion("Matrix of classes asked for against classes read", names,
                          counts / counts.sum(1, keepdims=True).clip(1)), _most_mixed(counts, names))
    text = (f"A classifier trained on the real training {several}, and on nothing else, reads {n['n']:,} generated "
            f"{several}, each asked for by its class, without guidance.")
    return html.section("Is it what was asked for?", text, html.pair(rates, wrong))


def new(seen: ReportData, found: Metrics) -> str:
    """Distances to the nearest training row, and for images the pairs that are closest."""
    if found.near_made is None:
        return ""
    several = nouns(seen.train)[1]
    near, held = found.near_made.numpy(), found.near_held
    unit = "root mean square difference of a pixel" if seen.kind == "image" else "distance in standard deviations"
    drawn = figures.overlaid("Histograms of the distance to the nearest training row, generated and held-out real",
                             near if held is None else held.numpy(), near, unit, low=0.0)
    text = novelty(found.numbers, several) or "No rows were held out, so there is no distance to compare with."
    key = [("generated", "made")] if held is None else [("held-out real", "real"), ("generated", "made")]
    histogram = html.figure(drawn, f"Distance to the nearest training {'image' if seen.kind == 'image' else 'row'}. "
                            f"{_copied(found.numbers)}", key)
    return html.section("Is it new?", text, html.pair(histogram, _closest(seen, found)))


def learning(seen: ReportData) -> str:
    """The loss during training, up to the step of the model and beyond, and the error that it leaves at every level."""
    entries, several = seen.run.metrics(), nouns(seen.train)[1]
    step = model_step(entries, seen.run.experiment)
    measured = errors(seen.model, seen.train, seen.held_out)
    reals = [("held-out", "real")] if seen.held_out is not None else []
    drawn = figures.error_by_level("Curves of the error of the denoiser against the noise level", *measured)
    level = html.figure(drawn, _gain(measured, several),
                        [("training", "made"), *reals, ("best linear denoiser", "muted dashed")])
    return html.section("How it learned", stopping_summary(entries, seen.run.experiment),
                        html.pair(_curve(seen, entries, step), level), watched(entries, step), _averages(seen))


def watched(entries: Sequence[Mapping[str, Any]], step: int) -> str:
    """The norm of the gradient, and the held-out loss at each noise level, save by save; "" where none was noted.

    What is said is about the step of the model; later saves are left out, the later norm is shown.
    """
    norm = [(e["step"], e["grad_norm"]) for e in entries if e.get("grad_norm", 0) > 0]
    saves = [(e["step"], np.array(e["levels"], float).T) for e in entries if e.get("levels") and e["step"] <= step]
    parts = []
    if norm:
        verb, mark, key = _mark(norm, step)
        parts.append(html.figure(
            figures.gradient_norm("Curve of the norm of the gradient", _columns(norm), mark),
            f"The gradient's norm, before it was clipped, {verb} {short(_until(norm, step)[-1][1])}.",
            [("running mean", "made"), *key]))
    if saves:
        (first, before), (last, after) = saves[0], saves[-1]
        share = after[1] / before[1]
        least = short(math.exp(after[0][int(share.argmax())]))
        drawn = figures.loss_by_level("Curves of the held-out loss against the noise level, one for each save",
                                      [(np.exp(level), loss) for _, (level, loss) in saves])
        said = (f"From step {first:,} to step {last:,} the held-out loss went to {short(share.min())} of what it was "
                f"at best, and to {short(share.max())} at noise {least}.")
        parts.append(html.figure(drawn, said, [("held-out, the later the darker", "real")]))
    return html.pair(*parts) if parts else ""


def _averages(seen: ReportData) -> str:
    """Averages of the weights of several lengths, compared on held-out rows; "" where there are none."""
    if seen.held_out is None or not checkpoint.steps(seen.run.averages_folder):
        return ""
    running, *others = ema_scores(seen.run, seen.held_out, n=_COMPARED)
    best, chosen = min(others, key=lambda row: row.held_out), seen.run.ema_choice()
    drawn = figures.average_lengths("Curve of the held-out loss against the length of the average of the weights",
                                    *_columns([(row.sigma_rel or 0.0, row.held_out) for row in others]),
                                    running.held_out)
    taken = "the running average" if chosen is None else f"the one of σ_rel {short(chosen)}"
    rows = min(_COMPARED, len(seen.held_out))
    said = (f"Averages of the weights, made after the training, on {rows} held-out rows: that of σ_rel "
            f"{short(best.sigma_rel or 0.0)} has the least loss, {short(best.held_out)}, the running average "
            f"{short(running.held_out)}. This page is about {taken}.")
    return html.pair(html.figure(drawn, said, [("power averages", "real"), ("running average", "ink dashed")]))


def _until(pairs: Sequence[tuple[int, float]], step: int) -> Sequence[tuple[int, float]]:
    """The values up to a step; the first one at least."""
    return [pair for pair in pairs if pair[0] <= step] or pairs[:1]


def _mark(pairs: Sequence[tuple[int, float]], step: int) -> tuple[str, int | None, list[tuple[str, str]]]:
    """How a value at the step of the model is told, and where it is marked in a curve that goes on, with its key."""
    if step >= pairs[-1][0]:
        return "ends at", None, []
    return f"at the model's step {step:,} was", step, [("the model's step", "muted dashed")]


def _curve(seen: ReportData, entries: list[dict[str, Any]], step: int) -> str:
    loss = [(e["step"], e["loss"]) for e in entries if "loss" in e]
    held = [(e["step"], e["held_out"]) for e in entries if "held_out" in e]
    if not loss:
        return ""
    floor = floor_of(seen.run.experiment, seen.model, seen.train)
    verb, mark, marked = _mark(loss, step)
    drawn = figures.training_curve(f"Curve of the training loss over {loss[-1][0]:,} steps", _columns(loss),
                                   _columns(held) if held else None, floor, mark)
    key = [("training, running mean", "made"), *([("held-out", "real")] if held else []),
           *([("least possible" + ", classes known" * seen.conditional, "ink dashed")] if floor is not None else []),
           *marked]
    tail = _columns(_until(loss, step))[1][-max(1, len(loss) // 20):]
    last = f"The loss {verb} {short(float(tail.mean()))}"
    beside = f", on held-out data{' at' * (mark is None)} {short(_until(held, step)[-1][1])}" if held else ""
    least = f"; no network can be below {short(floor)}" if floor is not None else ""
    return html.figure(drawn, f"{last}{beside}{least}.", key)


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    table = np.array(pairs, float)
    return table[:, 0], table[:, 1]


def _gain(measured: Errors, several: str) -> str:
    """Where the network is furthest below the linear denoiser."""
    linear, curve = measured.linear, measured.train if measured.held_out is None else measured.held_out
    best = int(np.argmin(curve / linear))
    share, level = float(curve[best] / linear[best]), short(float(measured.level[best]))
    found = (f"At noise {level} the network leaves {percent(share)} of what the best linear denoiser leaves."
             if share < 1 else "The network is nowhere better than the best linear denoiser.")
    return (f"What is left of noise put on {'training' if measured.held_out is None else 'held-out'} {several}, in "
            f"standard deviations of the data. {found}")


def _weakest(made: dict[str, dict[str, float]]) -> str:
    name = min(made, key=lambda each: made[each]["agreement"])
    rate = made[name]["agreement"]
    return "Every class is always read as asked." if rate == 1 else f"The weakest class is {name}: {percent(rate)}."


def _most_mixed(counts: NDArray[np.float64], names: tuple[str, ...]) -> str:
    wrong = counts * (1 - np.eye(len(counts)))
    if not wrong.any():
        return "Nothing is read as another class."
    i, j = np.unravel_index(int(wrong.argmax()), wrong.shape)
    return (f"Off the diagonal is what is read as another class, most often {names[i]} as {names[j]} "
            f"({int(wrong[i, j])} of {int(counts[i].sum())}).")


def _copied(numbers: dict[str, Any]) -> str:
    equal = f"{numbers['identical'] or 'none'} of them equal{'s' * (numbers['identical'] < 2)} one"
    if numbers["copies"] is None:
        return f"Of the generated, {equal.replace(' of them', '')}."
    return f"{percent(numbers['copies'])} of the generated are nearer than 99 % of the real ones; {equal}."


def _closest(seen: ReportData, found: Metrics) -> str:
    """The generated images that come closest to a training image, beside it."""
    if seen.kind != "image" or found.near_made is None:
        return ""
    worst = found.near_made.argsort()[:_PAIRS]
    train = comparable(seen, seen.train.x).flatten(1)
    nearest = torch.cdist(comparable(seen, seen.made[worst]).flatten(1), train).argmin(1)
    tiles, cells = Tiles(seen.train, seen.model.transform, 2), []
    for i, j in zip(worst.tolist(), nearest.tolist(), strict=True):
        both = torch.stack([seen.made[i], seen.train.x[j].to(seen.made)])
        distance = f"{float(found.near_made[i]):.3f}"
        picture = tiles.sheet(both, f"A generated image and its nearest training image, {distance} apart", 2)
        cells.append(html.tag("div", picture, html.words("div", distance, "stamp")))
    return html.figure(html.tag("div", *cells, class_="tiles"), f"The {len(cells)} generated images nearest to a "
                       "training image, the right one of each pair, and the distance. These are the worst cases.")
