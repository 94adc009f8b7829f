"""Fitting a sampler to a model: reference paths, nodes and coefficients, and an honest look at held-out noises.

Tuning class by class: on the nodes that all classes share, coefficients and a linear part of each class's own.

Tuning a family of models with a strength, such as guidance: fitted at several strengths, interpolated between.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.guidance import classifier_free
from undiffuse.model import Model, ReverseModel
from undiffuse.moments import Moments, measure_moments
from undiffuse.samplers.tuned import ClassCoefficients, TunedSampler, Tuning
from undiffuse.tuning.fit import Fit
from undiffuse.tuning.grid_search import gated, joint_refinement, loss, refit, search
from undiffuse.tuning.reference import Meter, PathEnds, Reference, paths
from undiffuse.tuning.storage import compatible_tuning, valid_tuning

EVALUATIONS = (4, 5, 6, 8, 10, 15, 20)
UNTUNED = (("auto", None), ("deis_3", "time_quadratic"), ("unipc", "time_quadratic"), ("unipc_4_noise", "log_snr"),
           ("dpmpp_2m", "karras"))
"""The untuned samplers and grids of which the best is what a tuning has to beat."""
CONDITIONS = ("", "label")
"""What samplers are fitted under: nothing, and all labels in turn where the model has classes."""
HELD, CHOSEN, _DRAWN = 1 << 20, 3 << 20, 1 << 21
MORE = 4
"""How many other starts choose, and how many validate, for each that is fitted to."""
_GATED, _LEADING = 2, 3
_MEASURED = 512

M = TypeVar("M", bound=ReverseModel)
D = TypeVar("D", bound=Model)


def tune(model: M, evaluations: Sequence[int] = EVALUATIONS, *, t_end: float | None = None, trajectories: int = 32,
         rounds: int = 4, like: Tuning | None = None, given: Sequence[str] = CONDITIONS,
         say: Callable[[str], None] = lambda line: None) -> M:
    """The same model with samplers fitted to it, which `ud.sample(tuned, steps=n)` takes for n in `evaluations`.

    Its probability flow is followed from `trajectories` starts by 256 small steps. For every n, grids even in local
    error are tried, coefficients follow in closed form, and `rounds` rounds of Gauss and Newton's method move the
    nodes. Four times as many other starts choose among the fits, and as many again decide: where the best of `UNTUNED`
    is not beaten, nothing is kept. A model with classes is tuned for samples with labels and without. What else the
    model is tuned to (under guidance) stays beside it, as long as the model is the same. Nothing is
    differentiated; `tuned.tuning.rows` says what came out, and what it cost. A model without moments gets those of 512
    samples of its own.

    t_end: where paths end, the model's own end by default. like: a tuning whose nodes are kept, so that only the
    coefficients are fitted; what it does not have is left out. given: for which conditions only, of `CONDITIONS`.
    say: hears of every stage. Raises InputError for fewer than 2 evaluations, fewer than 4 trajectories, and for a
    model that has no denoiser.

    Reference: Wang and Vastola (2024), arXiv:2412.09726 (the exact Gaussian part); Golub and Pereyra (1973).
    """
    _check(model, evaluations, trajectories, rounds)
    assert isinstance(model, Model)
    frame, end = frame_of(model, say, like), model.t_end() if t_end is None else t_end
    table: dict[str, dict[int, TunedSampler]] = {}
    rows: list[dict[str, Any]] = []
    for name, cond in _conditions(model, MORE * trajectories, given).items():
        known = None if like is None else like.table.get(name, {})
        wanted = [n for n in sorted(set(evaluations)) if known is None or n in known]
        meter = Meter(model, cond)
        found = list(_fit_budget(meter, frame, wanted, end, trajectories, rounds, known, say)) if wanted else []
        table[name] = {c.evaluations: c for c, row in found if row["kept"]}
        rows += [row for _, row in found]
    tuned = copy.copy(model)
    tuned.tuning = replace(compatible_tuning(model, frame, end), table=table, rows=tuple(rows))
    return tuned


def frame_of(model: Model, say: Callable[[str], None], like: Tuning | None = None) -> Moments:
    """The moments of the data, else those that the model is tuned in already, else those of its samples."""
    known = like or valid_tuning(model)
    if model.moments is not None:
        return model.moments
    if known is not None:
        return known.frame
    say(f"drawing {_MEASURED} samples for the moments")
    return own_moments(model, Meter(model, {}))


def _fit_budget(meter: Meter, frame: Moments, evaluations: list[int], t_end: float, n: int, rounds: int,
            known: Mapping[int, TunedSampler] | None, say: Callable[[str], None]
            ) -> Iterator[tuple[TunedSampler, dict[str, Any]]]:
    """For each number of evaluations the calibration and what was measured of it."""
    name, clock = ",".join(meter.cond), time.monotonic()
    say(f"following {(1 + 2 * MORE) * n} paths" + f" given {name}" * bool(name))
    fitted = Reference.follow(meter, frame, n, 0, t_end)
    found: list[Fit] = []
    chosen, held = (PathEnds.follow(meter, frame, MORE * n, first, t_end) for first in (CHOSEN, HELD))
    for steps in evaluations:
        say(f"fitting {steps} evaluations" + f" given {name}" * bool(name))
        found = search(fitted, steps, rounds, found) if known is None else [refit(fitted, known[steps])]
        best = found[0].calibration if known else chosen_of(fitted, chosen, found, rounds)
        after, _ = held.error(best.method(frame), steps)
        untuned = [held.error(method, steps, grid) for method, grid in UNTUNED]
        before, method = min(untuned, key=lambda pair: loss(pair[0]))
        row = {"given": name, "evaluations": steps, "untuned": method,
               "kept": all(better(after, other) for other, _ in untuned),
               "before": figures(before, frame), "after": figures(after, frame), "calls": meter.rows,
               "seconds": round(time.monotonic() - clock, 2)}
        meter.rows, clock = 0, time.monotonic()
        yield best, row


def chosen_of(fitted: Reference, chosen: PathEnds, found: list[Fit], rounds: int, moved: bool = True) -> TunedSampler:
    """The best on other starts of the fits that were found, the best of them with gates, and the best of all those with
    their coefficients improved together. The loss times the root mean square is what counts: where fits differ little
    in the one, it is the lost paths that tell them apart. moved: gates may bring nodes of their own.
    """

    def ranked(fits: Iterable[Fit]) -> list[tuple[float, Fit]]:
        errors = ((chosen.error(f.calibration.method(chosen.frame), f.steps)[0], f) for f in fits)
        return [(loss(error) * float(error.square().mean().sqrt()), f) for error, f in errors]

    def best(pairs: list[tuple[float, Fit]], n: int) -> list[Fit]:
        return [f for _, f in sorted(pairs, key=lambda pair: pair[0])[:n]]

    known = ranked(found)
    known += ranked(gated(fitted, f, rounds if moved else 0) for f in best(known, _GATED))
    known += ranked(f for start in best(known, _LEADING) for f in joint_refinement(fitted, start, rounds))
    return best(known, 1)[0].calibration


def better(after: Tensor, before: Tensor) -> bool:
    """Whether errors (n, k) are less than others of the same starts: the loss is, and the mean square is not greater by
    more than two standard errors, of which a single path that is lost makes one."""
    rise = after.square().sum(1) - before.square().sum(1)
    return loss(after) < loss(before) and float(rise.mean()) <= 2 * float(rise.std()) / len(rise) ** 0.5


def figures(error: Tensor, frame: Moments) -> dict[str, float]:
    """The root mean square over paths and their median error, in deviations of the data."""
    each = error.norm(dim=1) / frame.total_std
    return {"rmse": float(each.square().mean().sqrt()), "median": float(each.median())}


def _conditions(model: Model, n: int, given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The conditions for n samples by their names."""
    labels: dict[str, Any] = {"label": torch.arange(n) % max(model.classes, 1)}
    every = {"": dict[str, Any](), "label": labels}
    return {name: cond for name, cond in every.items() if name in given and (model.classes or not name)}


def own_moments(model: Model, meter: Meter) -> Moments:
    """The moments of the model's own samples: all directions only where there are many more samples than those."""
    x = meter.run(_MEASURED, _DRAWN, steps=20).x
    d = x[0].numel()
    if 4 * d <= _MEASURED:
        return Moments.measure(x, "pca")
    return Moments.measure(x, "dct") if len(model.shape) == 3 else Moments.measure(x, "pca", _MEASURED // 8)


def _check(model: ReverseModel, evaluations: Sequence[int], trajectories: int, rounds: int) -> None:
    if not isinstance(model, Model):
        raise InputError(f"got a {type(model).__name__}, which has no denoiser; expected a model of a Gaussian process")
    if not evaluations or not all(isinstance(n, int) and 2 <= n <= 100 for n in evaluations):
        raise InputError(f"got evaluations={list(evaluations)}; expected numbers from 2 to 100, such as 5,8,20")
    if trajectories < 4 or rounds < 0:
        raise InputError(f"got trajectories={trajectories} and rounds={rounds}; expected at least 4 and 0")


def tune_classes(model: D, *, data: Tensor | None = None, labels: Tensor | None = None, trajectories: int = 32,
                 rounds: int = 4, say: Callable[[str], None] = lambda line: None) -> D:
    """The same tuned model, whose samplers for labels have coefficients, and maybe moments, of every class's own.

    Nodes stay what `tune` found for all labels in turn. For every class, paths are followed and the coefficients fitted
    with the moments of all data and with those of the class; other starts choose, and others decide whether either is
    nearer than what all classes have. Where no sampler for labels was kept, none of a class is fitted. data (n, *shape)
    in data units, labels (n,): rows to measure the moments of a class by; else those of 512 samples of the model.

    Raises InputError for a model without classes, and for one that is not tuned, or was before it changed.
    """
    check_per_class(model)
    tuning = valid_tuning(model)
    if tuning is None or "label" not in tuning.table:
        raise InputError("got a model that is not tuned for samples with labels; tune it first")
    known, own, rows = tuning.table["label"], {n: dict[int, ClassCoefficients]() for n in tuning.table["label"]}, []
    for c in range(model.classes if known else 0):
        say(f"fitting class {c}")
        meter = Meter(model, {"label": c})
        frame = _moments(model, meter, c, data, labels)
        for n, found, row in _fit_class(meter, tuning, frame, known, trajectories, rounds):
            rows.append({**row, "given": f"label={c}"})
            own[n] |= {c: found} if row["kept"] else {}
    tuned = copy.copy(model)
    table = {**tuning.table, "label": {n: replace(common, own=own[n]) for n, common in known.items()}}
    before = [row for row in tuning.rows if "=" not in row["given"]]
    tuned.tuning = replace(tuning, table=table, rows=(*before, *rows))
    return tuned


def check_per_class(model: Model) -> None:
    """Raises InputError for a model without classes."""
    if not model.classes:
        raise InputError("got a model that was trained without labels; it has no classes to tune to")


def _fit_class(meter: Meter, tuning: Tuning, frame: Moments, known: Mapping[int, TunedSampler], n: int, rounds: int
            ) -> Iterator[tuple[int, ClassCoefficients, dict[str, Any]]]:
    """For each number of evaluations what a class has of its own, and what was measured of it."""
    clock, all_, end = time.monotonic(), tuning.frame, tuning.t_end
    followed = paths(meter, n, 0, end)
    references = {f: Reference.framed(meter, f, followed) for f in (all_, frame)}
    chosen, held = (PathEnds.follow(meter, all_, MORE * n, first, end) for first in (CHOSEN, HELD))
    for steps, common in known.items():
        common = replace(common, own={})
        tried = [
            ClassCoefficients(
                chosen_of(reference, chosen.within(f), [refit(reference, common)], rounds, False).theta,
                None if f is all_ else f,
            )
            for f, reference in references.items()
        ]
        methods = [replace(common, theta=own.theta).method(own.frame or all_) for own in tried]
        best = min(range(2), key=lambda k: loss(chosen.error(methods[k], steps)[0]))
        before, after = (held.error(method, steps)[0] for method in (common.method(all_), methods[best]))
        yield steps, tried[best], {
            "evaluations": steps, "untuned": "all classes alike", "kept": better(after, before),
            "before": figures(before, all_), "after": figures(after, all_), "calls": meter.rows,
            "seconds": round(time.monotonic() - clock, 2)}
        meter.rows, clock = 0, time.monotonic()


def _moments(model: Model, meter: Meter, c: int, data: Tensor | None, labels: Tensor | None) -> Moments:
    """The moments of the rows of a class in model units, or of samples where there are none."""
    if data is None or labels is None or int((labels == c).sum()) < 2:
        return own_moments(model, meter)
    return measure_moments(data, (labels == c).nonzero()[:, 0], model.transform, table=len(model.shape) == 1)


@dataclass(frozen=True)
class Family:
    """Models by their strength, and a tuning whose family is tuned at some strengths, all on the same nodes."""

    model: Callable[[float], Model]
    tuning: Tuning

    def at(self, strength: float) -> Model:
        """The model of that strength, its coefficients interpolated linearly; InputError outside of what was fitted."""
        known = [fitted for fitted, _ in self.tuning.family]
        if not known[0] <= strength <= known[-1]:
            raise InputError(f"got the strength {strength:g}; expected one from {known[0]:g} to {known[-1]:g}")
        model = self.model(strength)
        model.tuning = self.tuning.strength(strength)
        return model


def tune_family(model: Callable[[float], Model], strengths: Sequence[float], evaluations: Sequence[int] = EVALUATIONS,
                *, trajectories: int = 32, rounds: int = 4, given: Sequence[str] = CONDITIONS,
                say: Callable[[str], None] = lambda line: None) -> Family:
    """A family such as `lambda w: ud.classifier_free(model, w)`, tuned at each of these strengths.

    The nodes are those of the middle strength; at the others the coefficients alone are fitted. What is not better
    than untuned at one of two neighbours is not used between them. given, say: as in `tune`. Raises InputError for
    fewer than two strengths.
    """
    rising = tuple(sorted(set(map(float, strengths))))
    if len(rising) < 2:
        raise InputError(f"got strengths={list(strengths)}; expected at least two, such as 1, 2, 4")
    middle, found = rising[len(rising) // 2], dict[float, Tuning]()
    for w in (middle, *(w for w in rising if w != middle)):
        say(f"tuning at scale {w:g}")
        found[w] = tune(model(w), evaluations, trajectories=trajectories, rounds=rounds, like=found.get(middle),
                        given=given, say=say).tuning
    first = found[middle]
    return Family(model, Tuning(first.frame, first.t_end, {}, family=tuple((w, found[w]) for w in rising)))


def tune_guided(model: D, scales: Sequence[float], evaluations: Sequence[int] = EVALUATIONS, *, trajectories: int = 32,
                rounds: int = 4, say: Callable[[str], None] = lambda line: None) -> D:
    """The same model, whose classifier-free guidance is tuned at these scales, beside the samplers that it has.

    `ud.sample(ud.classifier_free(tuned, w), steps=n, label=...)` takes what was fitted for n in `evaluations` and any w
    from the least scale to the greatest. Raises InputError for a model without classes, and as `tune_family`.
    """
    if not model.classes:
        raise InputError("got guidance scales for a model that was trained without labels; leave them out")
    bare, frame = copy.copy(model), frame_of(model, say)
    bare.moments, bare.tuning = frame, None
    family = tune_family(lambda w: classifier_free(bare, w), scales, evaluations, trajectories=trajectories,
                         rounds=rounds, given=["label"], say=say).tuning
    tuned = copy.copy(model)
    tuned.tuning = replace(compatible_tuning(model, frame, family.t_end), family=family.family)
    return tuned
