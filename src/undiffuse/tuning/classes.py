"""Tuning class by class: on the nodes that all classes share, coefficients and a linear part of each class's own."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.gaussian import Moments
from undiffuse.missing import measured
from undiffuse.model import Model
from undiffuse.steps.calibrated import Calibration, Own, Tuning
from undiffuse.tuning.identity import current
from undiffuse.tuning.nodes import loss, refit
from undiffuse.tuning.reference import Ends, Meter, Reference, paths
from undiffuse.tuning.tune import CHOSEN, HELD, MORE, better, chosen_of, figures, own_moments

M = TypeVar("M", bound=Model)


def tune_classes(model: M, *, data: Tensor | None = None, labels: Tensor | None = None, trajectories: int = 32,
                 rounds: int = 4, say: Callable[[str], None] = lambda line: None) -> M:
    """The same tuned model, whose samplers for labels have coefficients, and maybe moments, of every class's own.

    Nodes stay what `tune` found for all labels in turn. For every class, paths are followed and the coefficients fitted
    with the moments of all data and with those of the class; other starts choose, and others decide whether either is
    nearer than what all classes have. Where no sampler for labels was kept, none of a class is fitted. data (n, *shape)
    in data units, labels (n,): rows to measure the moments of a class by; else those of 512 samples of the model.

    Raises InputError for a model without classes, and for one that is not tuned, or was before it changed.
    """
    check(model)
    tuning = current(model)
    if tuning is None or "label" not in tuning.table:
        raise InputError("got a model that is not tuned for samples with labels; tune it first")
    known, own, rows = tuning.table["label"], {n: dict[int, Own]() for n in tuning.table["label"]}, []
    for c in range(model.classes if known else 0):
        say(f"fitting class {c}")
        meter = Meter(model, {"label": c})
        frame = _moments(model, meter, c, data, labels)
        for n, found, row in _fitted(meter, tuning, frame, known, trajectories, rounds):
            rows.append({**row, "given": f"label={c}"})
            own[n] |= {c: found} if row["kept"] else {}
    tuned = copy.copy(model)
    table = {**tuning.table, "label": {n: replace(common, own=own[n]) for n, common in known.items()}}
    before = [row for row in tuning.rows if "=" not in row["given"]]
    tuned.tuning = replace(tuning, table=table, rows=(*before, *rows))
    return tuned


def check(model: Model) -> None:
    """Raises InputError for a model without classes."""
    if not model.classes:
        raise InputError("got a model that was trained without labels; it has no classes to tune to")


def _fitted(meter: Meter, tuning: Tuning, frame: Moments, known: Mapping[int, Calibration], n: int, rounds: int
            ) -> Iterator[tuple[int, Own, dict[str, Any]]]:
    """For each number of evaluations what a class has of its own, and what was measured of it."""
    clock, all_, end = time.monotonic(), tuning.frame, tuning.t_end
    followed = paths(meter, n, 0, end)
    references = {f: Reference.framed(meter, f, followed) for f in (all_, frame)}
    chosen, held = (Ends.follow(meter, all_, MORE * n, first, end) for first in (CHOSEN, HELD))
    for steps, common in known.items():
        common = replace(common, own={})
        tried = [Own(chosen_of(reference, chosen.within(f), [refit(reference, common)], rounds, False).theta,
                     None if f is all_ else f) for f, reference in references.items()]
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
    return measured(data, (labels == c).nonzero()[:, 0], model.transform, table=len(model.shape) == 1)
