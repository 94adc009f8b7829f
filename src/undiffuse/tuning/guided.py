"""Tuning a family of models with a strength, such as guidance: fitted at several strengths, interpolated between."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from undiffuse.errors import InputError
from undiffuse.guide import classifier_free
from undiffuse.model import Model
from undiffuse.steps.calibrated import Tuning
from undiffuse.tuning.identity import kept
from undiffuse.tuning.tune import CONDITIONS, EVALUATIONS, frame_of, tune

M = TypeVar("M", bound=Model)


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


def tune_guided(model: M, scales: Sequence[float], evaluations: Sequence[int] = EVALUATIONS, *, trajectories: int = 32,
                rounds: int = 4, say: Callable[[str], None] = lambda line: None) -> M:
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
    tuned.tuning = replace(kept(model, frame, family.t_end), family=family.family)
    return tuned
