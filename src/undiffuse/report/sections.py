"""Sections of the page as data: titles, texts and figures, which templates/figures.html turns into HTML.

Real and generated samples, class agreement, memorisation, the trajectory from noise to data, and the training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.report import figures, table_sections, trajectory
from undiffuse.report.array_sections import FieldTiles, array_blocks
from undiffuse.report.blocks import Key, ReportFigure, Section
from undiffuse.report.denoising_error import DenoisingErrors, denoising_errors, minimum_loss
from undiffuse.report.evaluate import Metrics, ReportData, comparable
from undiffuse.report.figures import GENERATED, REAL
from undiffuse.report.formats import percent, short
from undiffuse.report.images import BatchView, Picture, Plane, Tiles, animation, data_url
from undiffuse.report.trajectory import Snapshot
from undiffuse.report.wording import memorisation, nouns
from undiffuse.training import checkpoint
from undiffuse.training.early_stopping import model_step, stopping_summary
from undiffuse.training.ema_sweep import ema_scores

Array = NDArray[np.float64]
FRAMES = 32
_MAX_LABELS, _PER_LABEL = 10, 8
_SNAPSHOTS = 6
_DOTS, _FEW_DOTS = 2500, 700
_IMAGES, _TILES, _ANIMATION_COLUMNS, _SEARCHED = 30, 16, 10, 1000
_MAX_LOG_SNR = 8.0  # beyond it the schedule shows nothing
_LOW, _HIGH = 190.0, 370.0  # heights of the schedule next to an animation of tiles, and of dots
_PAIRS = 12
_EMA_ROWS = 256
_MAX_CLASSES = 40


def samples_section(data: ReportData, metrics: Metrics) -> Section:
    """Real next to generated samples."""
    plural = nouns(data.train)[1]
    source = "were held out of the training" if data.held_out is not None else "are training data"
    text = f"The real {plural} {source}. The generated {plural} are the first with seed {data.seed}, without selection."
    blocks = table_sections.histograms(data, metrics) if data.kind == "table" else (
        (_images(data),) if data.kind == "image" else array_blocks(
            data.train, data.model.transform, data.real.x, data.generated, metrics.numbers)
        if data.kind == "array" else (_scatters(data),))
    return Section("Real and generated", text, blocks)


def trajectory_section(data: ReportData) -> Section:
    """Animation of the reverse process, its log-SNR, and snapshots of the forward and the reverse process."""
    index, plural = _selection(data.generated, data.labels, data), nouns(data.train)[1]
    start = data.model.prior_sample(len(data.generated), data.seed, 0)[index]
    cond = data.condition(index)
    frames = trajectory.backward(data.model, start, FRAMES, seed=data.seed, **cond)
    shown, view = trajectory.evenly_spaced(frames, _SNAPSHOTS), _view(data, _ANIMATION_COLUMNS)
    picture = Picture(f"Animation: noise becomes {plural} as t falls to 0", data_url(animation(view, frames), "gif"),
                      view.style, view.plate)
    caption = (f"Animation of {len(index):,} {plural} from noise at t = {frames[0].t:.3g} to data at t = 0, by "
               f"{data.samples.method} in {FRAMES} steps.")
    return Section("From noise to data", "", ((ReportFigure(picture, caption, layout="animation"),
                                               _schedule(data, shown)), _snapshots(data, shown, cond)))


def _schedule(data: ReportData, snapshots: list[Snapshot]) -> ReportFigure:
    """Log-SNR against t, with dots at the snapshots."""
    sde = data.model.sde
    t = torch.linspace(0, sde.T, 400, dtype=torch.float64)[1:]
    t = t[sde.log_snr(t).abs() < _MAX_LOG_SNR]
    points = [(s.t, s.log_snr) for s in snapshots if abs(s.log_snr) < _MAX_LOG_SNR]
    curve = (t.numpy(), sde.log_snr(t).numpy())
    chart = figures.schedule("Curve of log-SNR against t, falling from data to noise", curve, np.array(points).T,
                             _LOW if data.kind in ("image", "array") else _HIGH)
    return ReportFigure(chart, f"The process, {sde.name}: log-SNR against time t. Dots mark the snapshots below.")


def _snapshots(data: ReportData, snapshots: list[Snapshot], cond: dict[str, Any]) -> ReportFigure:
    """The forward process, the reverse process, and the expected data."""
    view, plural = _view(data, 4), nouns(data.train)[1]
    index = _selection(data.real.x, data.real.y if data.conditional else None, data)
    real = data.model.transform.forward(data.real.x[index]).to(data.model.dtype)
    forward = trajectory.forward(data.model, real, [s.t for s in reversed(snapshots)], data.seed)
    expected = trajectory.expected_data(data.model, snapshots, **cond)
    strips = [_strip(view, f"Forward process: real {plural} with increasing noise", forward, None, "real"),
              _strip(view, "Reverse process: samples of the animation", snapshots, None, "generated"),
              _strip(view, "Data expected by the model, E[x₀ | xₜ]", snapshots, expected, "generated")]
    caption = ("Forward and reverse process at the same times, scaled to the standard deviation of the data. At high "
               "noise levels the expected data is close to the mean; it becomes definite before the samples do.")
    return ReportFigure(strips, caption, layout="strips")


def _strip(view: BatchView, title: str, snapshots: list[Snapshot], batches: list[Tensor] | None,
           role: str) -> tuple[str, list[tuple[Any, tuple[str, str]]]]:
    """The title of a strip, and its graphics with time and log-SNR; `batches`: other states than the snapshots'."""
    cells = []
    for snapshot, z in zip(snapshots, batches or [s.scaled for s in snapshots], strict=True):
        texts = trajectory.time_labels(snapshot)
        graphic = view.picture(z if isinstance(view, Plane) else z[:_TILES], f"{title}, {texts[0]}", role)
        cells.append((graphic, texts))
    return title, cells


def _view(data: ReportData, columns: int) -> BatchView:
    """Pictures of the kind of data: tiles in `columns` columns, or dots."""
    if data.kind == "image":
        return Tiles(data.train, data.model.transform, columns)
    if data.kind == "array":
        return FieldTiles(data.train, data.model.transform, columns)
    return Plane(data.train, data.model.transform)


def _images(data: ReportData) -> tuple[ReportFigure, ...]:
    plural = nouns(data.train)[1]
    caption = f"Generated {plural}, " + ("one row per requested class." if data.conditional else "without a class.")
    real = _image_rows(data, data.real.x, data.real.y if data.conditional else None, f"Real {plural}")
    generated = _image_rows(data, data.generated, data.labels, f"Generated {plural}")
    return (_grid(real, f"Real {plural}.", (("real", "real"),)), _grid(generated, caption, (("generated",) * 2,)))


def _grid(content: Any, caption: str, key: Key) -> ReportFigure:
    return ReportFigure(content, caption, key, "graphic" if isinstance(content, Picture) else "rows")


def _image_rows(data: ReportData, x: Tensor, labels: Tensor | None, alt: str) -> Picture | list[tuple[str, Picture]]:
    """One row of images per class with its name, for at most ten classes; one grid without classes."""
    tiles = Tiles(data.train, data.model.transform, _PER_LABEL)
    if labels is None:
        return tiles.sheet(x[:_PER_LABEL * _PER_LABEL], alt, _PER_LABEL)
    rows = []
    for label, name in enumerate(data.train.classes[:_MAX_LABELS]):
        images = x[(labels == label).nonzero()[:_PER_LABEL, 0]]
        padded = torch.cat([images, images.new_zeros(_PER_LABEL - len(images), *images.shape[1:])])
        rows.append((name, tiles.sheet(padded, f"{alt} of class {name}", _PER_LABEL)))
    return rows


def _scatters(data: ReportData) -> tuple[ReportFigure, ...]:
    """Scatter plots of real and generated points, in two dimensions or on the principal axes."""
    view = Plane(data.train, data.model.transform)
    plural, names = nouns(data.train)[1], data.train.columns
    plane = len(names) == 2
    axes = (names[0], names[1]) if plane else ("first principal axis", "second principal axis")
    window = _window(data.real.x.double().numpy()) if plane else view.window
    panels = []
    for role, name, x in ((REAL, "real", data.real.x[:_DOTS]), (GENERATED, "generated", data.generated[:_DOTS])):
        points = x.double().numpy() if plane else view.points(data.model.transform.forward(x))
        chart = figures.scatter(f"Scatter plot of {len(x)} {name} {plural}", points, window, role, axes)
        panels.append(ReportFigure(chart, f"{len(x):,} {name} {plural}, on the same axes.", ((name, name),)))
    return tuple(panels)


def _window(points: Array) -> tuple[float, float, float, float]:
    middle, half = (points.max(0) + points.min(0)) / 2, 0.54 * float(np.ptp(points, 0).max())
    return (float(middle[0] - half), float(middle[0] + half), float(middle[1] - half), float(middle[1] + half))


def _selection(x: Tensor, labels: Tensor | None, data: ReportData) -> Tensor:
    """Indices of the rows in the animation: some hundreds of points, a few images with all classes in turn."""
    if data.kind not in ("image", "array"):
        return torch.arange(min(len(x), _FEW_DOTS))
    if labels is None:
        return torch.arange(min(len(x), _IMAGES))
    labels = labels[:_SEARCHED]
    turn = torch.stack([(labels[:k] == labels[k]).sum() for k in range(len(labels))])
    return torch.argsort(turn * (int(labels.max()) + 1) + labels)[:_IMAGES]


def class_agreement_section(data: ReportData, metrics: Metrics) -> Section | None:
    """Class agreement by a classifier per class, and the confusion matrix; None without classes or above 40."""
    if metrics.predicted is None or len(data.train.classes) > _MAX_CLASSES:
        return None
    n, plural, names = metrics.numbers, nouns(data.train)[1], data.train.classes
    generated, real, counts = n["per_class"], n["classifier_per_class"] or {}, np.array(n["confusion"], float)
    rates = ReportFigure(
        figures.class_rates(f"Fraction of generated {plural} classified as requested, per class", names, generated,
                            real), _lowest_agreement(generated),
        (("generated, 95 % interval", "generated"), ("held-out real", "real"))[: 2 if real else 1])
    errors = ReportFigure(
        figures.confusion("Matrix of requested against predicted classes", names,
                          counts / counts.sum(1, keepdims=True).clip(1)), _most_confused(counts, names))
    text = (f"A classifier trained on the real training {plural} only is applied to {n['n']:,} generated {plural}, "
            "each requested by class, without guidance.")
    return Section("Class agreement", text, ((rates, errors),))


def _lowest_agreement(rates: dict[str, dict[str, float]]) -> str:
    name = min(rates, key=lambda label: rates[label]["agreement"])
    rate = rates[name]["agreement"]
    return ("All samples are classified as requested." if rate == 1 else
            f"The class with the lowest agreement is {name}: {percent(rate)}.")


def _most_confused(counts: Array, names: tuple[str, ...]) -> str:
    wrong = counts * (1 - np.eye(len(counts)))
    if not wrong.any():
        return "No sample is classified as another class."
    i, j = np.unravel_index(int(wrong.argmax()), wrong.shape)
    return (f"Off-diagonal entries are misclassified samples, most often {names[i]} as {names[j]} "
            f"({int(wrong[i, j])} of {int(counts[i].sum())}).")


def memorisation_section(data: ReportData, metrics: Metrics) -> Section | None:
    """Distances to the nearest training row, and for images the nearest pairs; None if they were not measured."""
    if metrics.generated_distance is None:
        return None
    generated, real = metrics.generated_distance.numpy(), metrics.real_distance
    unit = "root mean square pixel difference" if data.kind == "image" else "distance in standard deviations"
    chart = figures.overlaid("Histograms of the distance to the nearest training row, generated and held-out real",
                             generated if real is None else real.numpy(), generated, unit, low=0.0)
    text = memorisation(metrics.numbers, nouns(data.train)[1]) or (
        "No rows were held out, so there is no distance to compare with.")
    row = "image" if data.kind == "image" else "row"
    histogram = ReportFigure(chart, f"Distance to the nearest training {row}. {_copies(metrics.numbers, row)}",
                             ((("held-out real", "real"),) if real is not None else ()) + (("generated",) * 2,))
    nearest = (_nearest_pairs(data, metrics.generated_distance),) if data.kind == "image" else ()
    return Section("Memorisation", text, ((histogram, *nearest),))


def _copies(numbers: dict[str, Any], row: str) -> str:
    identical, fraction = numbers["identical"], numbers["copied_fraction"]
    equal = f"{identical or 'none'} {'equals' if identical < 2 else 'equal'} a training {row}"
    if fraction is None:
        return f"Of the generated samples, {equal}."
    return f"{percent(fraction)} of the generated samples are nearer than 99 % of the held-out ones; {equal}."


def _nearest_pairs(data: ReportData, distance: Tensor) -> ReportFigure:
    """The generated images nearest to a training image, each next to it."""
    worst = distance.argsort()[:_PAIRS]
    train = comparable(data, data.train.x).flatten(1)
    nearest = torch.cdist(comparable(data, data.generated[worst]).flatten(1), train).argmin(1)
    tiles, cells = Tiles(data.train, data.model.transform, 2), []
    for i, j in zip(worst.tolist(), nearest.tolist(), strict=True):
        images = torch.stack([data.generated[i], data.train.x[j].to(data.generated)])
        text = f"{float(distance[i]):.3f}"
        cells.append((tiles.sheet(images, f"A generated image and its nearest training image, distance {text}", 2),
                      text))
    return ReportFigure(cells, f"The {len(cells)} generated images nearest to a training image (left), the training "
                        "image (right), and the distance.", layout="tiles")


def training_section(data: ReportData) -> Section:
    """Loss during training, and the denoising error at every noise level."""
    entries, plural = data.entries, nouns(data.train)[1]
    step = model_step(entries, data.run.experiment)
    errors = denoising_errors(data.model, data.train, data.held_out)
    chart = figures.error_by_level("Curves of the denoising error against the noise level", *errors)
    real = (("held-out", "real"),) if data.held_out is not None else ()
    by_level = ReportFigure(chart, _error_caption(errors, plural),
                            (("training", "generated"), *real, ("best linear denoiser", "muted dashed")))
    blocks = (*_loss(data, entries, step), by_level), training_figures(entries, step), _ema(data)
    return Section("Training", stopping_summary(entries, data.run.experiment), tuple(filter(None, blocks)))


def training_figures(entries: Sequence[Mapping[str, Any]], step: int) -> tuple[ReportFigure, ...]:
    """Gradient norm, and held-out loss at each noise level per checkpoint, as far as they were logged.

    The captions describe the model's `step`; later checkpoints are left out, later gradient norms are shown.
    """
    norms = [(e["step"], e["grad_norm"]) for e in entries if e.get("grad_norm", 0) > 0]
    losses = [(e["step"], np.array(e["levels"], float).T) for e in entries if e.get("levels") and e["step"] <= step]
    parts = []
    if norms:
        verb, mark, key = _mark(norms, step)
        parts.append(ReportFigure(
            figures.gradient_norm("Curve of the gradient norm", _columns(norms), mark),
            f"The gradient norm before clipping {verb} {short(_until(norms, step)[-1][1])}.",
            (("running mean", "generated"), *key)))
    if losses:
        (first, before), (last, after) = losses[0], losses[-1]
        ratio = after[1] / before[1]
        level = short(math.exp(after[0][int(ratio.argmax())]))
        chart = figures.loss_by_level("Curves of the held-out loss against the noise level, one per checkpoint",
                                      [(np.exp(level), loss) for _, (level, loss) in losses])
        caption = (f"From step {first:,} to step {last:,} the held-out loss changed by a factor between "
                   f"{short(ratio.min())} and {short(ratio.max())}, the latter at noise level {level}.")
        parts.append(ReportFigure(chart, caption, (("held-out, later checkpoints darker", "real"),)))
    return tuple(parts)


def _ema(data: ReportData) -> tuple[ReportFigure, ...]:
    """Held-out loss of averaged weights of several EMA lengths; () if there are none."""
    if data.held_out is None or not checkpoint.steps(data.run.averages_folder):
        return ()
    running, *others = ema_scores(data.run, data.held_out, n=_EMA_ROWS)
    best, chosen = min(others, key=lambda row: row.held_out), data.run.ema_choice()
    chart = figures.ema_lengths("Curve of the held-out loss against the relative EMA length",
                                *_columns([(row.sigma_rel or 0.0, row.held_out) for row in others]), running.held_out)
    model = "the running average" if chosen is None else f"the average with σ_rel {short(chosen)}"
    rows = min(_EMA_ROWS, len(data.held_out))
    caption = (f"Post-hoc averages of the weights on {rows} held-out rows: σ_rel {short(best.sigma_rel or 0.0)} has "
               f"the lowest loss, {short(best.held_out)}; the running average has {short(running.held_out)}. "
               f"This report uses {model}.")
    return (ReportFigure(chart, caption, (("power averages", "real"), ("running average", "ink dashed"))),)


def _until(pairs: Sequence[tuple[int, float]], step: int) -> Sequence[tuple[int, float]]:
    """The pairs up to a step, at least the first one."""
    return [pair for pair in pairs if pair[0] <= step] or pairs[:1]


def _mark(pairs: Sequence[tuple[int, float]], step: int) -> tuple[str, int | None, Key]:
    """The verb for a value at the model's step; the step to mark in a curve that continues after it, and its key."""
    if step >= pairs[-1][0]:
        return "ends at", None, ()
    return f"at the model's step {step:,} was", step, (("the model's step", "muted dashed"),)


def _loss(data: ReportData, entries: list[dict[str, Any]], step: int) -> tuple[ReportFigure, ...]:
    """Training and held-out loss against the step, with the lower bound if it is known; () without entries."""
    loss = [(e["step"], e["loss"]) for e in entries if "loss" in e]
    held_out = [(e["step"], e["held_out"]) for e in entries if "held_out" in e]
    if not loss:
        return ()
    minimum = minimum_loss(data.run.experiment, data.model, data.train)
    verb, mark, mark_key = _mark(loss, step)
    chart = figures.training_curve(f"Curve of the training loss over {loss[-1][0]:,} steps", _columns(loss),
                                   _columns(held_out) if held_out else None, minimum, mark)
    key: Key = (("training, running mean", "generated"), *((("held-out", "real"),) if held_out else ()))
    caption = f"The loss {verb} {short(float(_columns(_until(loss, step))[1][-max(1, len(loss) // 20):].mean()))}"
    if held_out:
        caption += f", on held-out data{' at' * (mark is None)} {short(_until(held_out, step)[-1][1])}"
    if minimum is not None:
        caption += f"; the lower bound of any network is {short(minimum)}"
        key += (("lower bound" + " given the class" * data.conditional, "ink dashed"),)
    return (ReportFigure(chart, f"{caption}.", key + mark_key),)


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[Array, Array]:
    table = np.array(pairs, float)
    return table[:, 0], table[:, 1]


def _error_caption(errors: DenoisingErrors, plural: str) -> str:
    """Where the network is furthest below the linear denoiser."""
    curve = errors.train if errors.held_out is None else errors.held_out
    best = int(np.argmin(curve / errors.linear))
    ratio, level = float(curve[best] / errors.linear[best]), short(float(errors.level[best]))
    comparison = (f"At noise level {level} it is {percent(ratio)} of the error of the best linear denoiser."
                  if ratio < 1 else "It is nowhere below the error of the best linear denoiser.")
    return (f"Denoising error on {'training' if errors.held_out is None else 'held-out'} {plural}, in standard "
            f"deviations of the data. {comparison}")
