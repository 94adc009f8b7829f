"""The sections that judge: whether samples are what was asked for, whether they are new, how the training went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from undiffuse.report import figures, html
from undiffuse.report.evaluate import Findings, comparable
from undiffuse.report.evidence import Evidence
from undiffuse.report.learning import Errors, errors, floor_of
from undiffuse.report.view import Tiles
from undiffuse.report.words import nouns, novelty, percent, short
from undiffuse.training import checkpoint
from undiffuse.training.lengths import compared
from undiffuse.training.patience import model_step, outcome

_PAIRS = 12
_COMPARED = 256
_MOST_CLASSES = 40


def asked(seen: Evidence, found: Findings) -> str:
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


def new(seen: Evidence, found: Findings) -> str:
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


def learning(seen: Evidence) -> str:
    """The loss during training, up to the step of the model and beyond, and the error that it leaves at every level."""
    entries, several = seen.run.metrics(), nouns(seen.train)[1]
    step = model_step(entries, seen.run.experiment)
    measured = errors(seen.model, seen.train, seen.held_out)
    reals = [("held-out", "real")] if seen.held_out is not None else []
    drawn = figures.error_by_level("Curves of the error of the denoiser against the noise level", *measured)
    level = html.figure(drawn, _gain(measured, several),
                        [("training", "made"), *reals, ("best linear denoiser", "muted dashed")])
    return html.section("How it learned", outcome(entries, seen.run.experiment),
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


def _averages(seen: Evidence) -> str:
    """Averages of the weights of several lengths, compared on held-out rows; "" where there are none."""
    if seen.held_out is None or not checkpoint.steps(seen.run.averages):
        return ""
    running, *others = compared(seen.run, seen.held_out, most=_COMPARED)
    best, chosen = min(others, key=lambda row: row.held_out), seen.run.chosen()
    drawn = figures.average_lengths("Curve of the held-out loss against the length of the average of the weights",
                                    *_columns([(row.length or 0.0, row.held_out) for row in others]), running.held_out)
    taken = "the running average" if chosen is None else f"the one of σ_rel {short(chosen)}"
    rows = min(_COMPARED, len(seen.held_out))
    said = (f"Averages of the weights, made after the training, on {rows} held-out rows: that of σ_rel "
            f"{short(best.length or 0.0)} has the least loss, {short(best.held_out)}, the running average "
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


def _curve(seen: Evidence, entries: list[dict[str, Any]], step: int) -> str:
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


def _closest(seen: Evidence, found: Findings) -> str:
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
