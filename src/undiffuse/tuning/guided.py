"""Tuning a family of models with a strength, such as guidance: fitted at several strengths, interpolated between."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from undiffuse.errors import InputError
from undiffuse.model import Model
from undiffuse.steps.calibrated import Calibration, Tuning
from undiffuse.tuning.tune import EVALUATIONS, tune


@dataclass(frozen=True)
class Family:
    """Models by their strength, and the tunings at some strengths, rising, all on the same nodes."""

    model: Callable[[float], Model]
    strengths: tuple[float, ...]
    tunings: tuple[Tuning, ...]

    def at(self, strength: float) -> Model:
        """The model of that strength, its coefficients interpolated linearly; InputError outside of what was fitted."""
        known = self.strengths
        if not known[0] <= strength <= known[-1]:
            raise InputError(f"got the strength {strength:g}; expected one from {known[0]:g} to {known[-1]:g}")
        model, k = self.model(strength), max(1, bisect_left(known, strength))
        share = (strength - known[k - 1]) / (known[k] - known[k - 1])
        model.tuning = between(self.tunings[k - 1], self.tunings[k], share)
        return model


def tune_family(model: Callable[[float], Model], strengths: Sequence[float], evaluations: Sequence[int] = EVALUATIONS,
                *, trajectories: int = 32, rounds: int = 4) -> Family:
    """A family such as `lambda w: ud.classifier_free(model, w)`, tuned at each of these strengths.

    The nodes are those of the middle strength; at the others the coefficients alone are fitted. What is not better
    than untuned at one of two neighbours is not used between them. Raises InputError for fewer than two strengths.
    """
    rising = tuple(sorted(set(strengths)))
    if len(rising) < 2:
        raise InputError(f"got strengths={list(strengths)}; expected at least two, such as 1, 2, 4")
    middle = rising[len(rising) // 2]
    first = tune(model(middle), evaluations, trajectories=trajectories, rounds=rounds).tuning
    tunings = tuple(first if w == middle else tune(model(w), evaluations, trajectories=trajectories, like=first).tuning
                    for w in rising)
    return Family(model, rising, tunings)


def between(a: Tuning, b: Tuning, share: float) -> Tuning:
    """The tuning at a share of the way from a to b, which have the same nodes; what one lacks is left out."""
    table = {given: {n: _between(c, b.table[given][n], share) for n, c in known.items() if n in b.table[given]}
             for given, known in a.table.items()}
    return replace(a, table=table, rows=())


def _between(a: Calibration, b: Calibration, share: float) -> Calibration:
    return replace(a, theta=(1 - share) * a.theta + share * b.theta)
