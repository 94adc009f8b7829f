"""All coefficients of a fit together: Gauss and Newton's method through the whole sampler.

Step by step every coefficient makes its own step exact; together they make the end exact, and early ones may err where
later ones put it right. A coefficient acts on its own step linearly, so its derivative there is its feature; how that
is carried to the end is measured by a small difference, all coefficients of a step in one batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from undiffuse.steps.calibrated import gain, plain_rows
from undiffuse.tuning.fit import Fit, Stop, features, fit, normal_equations
from undiffuse.tuning.nodes import loss
from undiffuse.tuning.reference import Reference

_DAMPING = (1e-4, 1e-2, 1.0)
_NUDGE = 1e-3


def together(reference: Reference, best: Fit, rounds: int) -> Iterator[Fit]:
    """The fit after every round, on its own nodes, as long as its loss falls."""
    for _ in range(rounds):
        A, pull = normal_equations(slopes(reference, best), best.error)
        tried = [_moved(reference, best, torch.linalg.solve(_loaded(A, damping), pull)) for damping in _DAMPING]
        found = min(tried, key=lambda f: loss(f.error))
        if not loss(found.error) < loss(best.error):
            return
        best = found
        yield best


def _loaded(A: Tensor, damping: float) -> Tensor:
    return A + torch.diag(damping * A.diagonal() + 1e-12 * A.diagonal().max() + 1e-300)


def _moved(reference: Reference, old: Fit, step: Tensor) -> Fit:
    """The fit with its coefficients less `step`, those of all steps in a row."""
    theta, k = [], 0
    for known, stop in zip(old.stops[-1].theta, old.stops[1:], strict=True):
        rows = 1 + old.gated
        count = rows * (1 + len(stop.values))
        moved = known.reshape(rows, -1).clone()
        moved[:, :1 + len(stop.values)] -= step[k:k + count].reshape(rows, -1)
        theta.append(moved.flatten())
        k += count
    return fit(reference, old.nodes, old.leap, gated=old.gated, theta=theta)


def slopes(reference: Reference, old: Fit) -> Tensor:
    """The derivative of the error by every coefficient, (p, M, k)."""
    nodes, theta = old.nodes[old.leap:], old.stops[-1].theta
    found = []
    for i, held in enumerate(plain_rows(reference.kernel, nodes, reference.x)[1]):
        here, after = old.stops[i:i + 2]
        gains = gain(reference.kernel, nodes[i + 1], here.y) if old.gated else None
        basis = features(here.y, after.values, held, gains)
        moved = Stop((after.y + _NUDGE * basis).flatten(0, 1), tuple(v.repeat(len(basis), 1) for v in after.values),
                     after.theta)
        error = fit(reference, old.nodes, old.leap, [*old.stops[:i + 1], moved], old.gated, theta).error
        found.append((error.unflatten(0, (len(basis), -1)) - old.error) / _NUDGE)
    return torch.cat(found)
