"""Where the steps stand: even in local error to begin with, then moved by Gauss and Newton's method.

The coefficients are fitted anew for every set of nodes, so only the nodes are variables (variable projection: Golub and
Pereyra, 1973). A node that moves leaves all steps before it as they are.

All coefficients of a fit together: Gauss and Newton's method through the whole sampler.

Step by step every coefficient makes its own step exact; together they make the end exact, and early ones may err where
later ones put it right. A coefficient acts on its own step linearly, so its derivative there is its feature; how that
is carried to the end is measured by a small difference, all coefficients of a step in one batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from undiffuse.samplers.method import Node, nodes_of
from undiffuse.samplers.tuned import TunedSampler, gain, plain_rows
from undiffuse.tuning.fit import Fit, FitState, features, fit, normal_equations
from undiffuse.tuning.reference import Reference

FIRST = (2.0, 3.0, 5.0, 7.0, 10.0, 14.0, 20.0, 30.0)
"""The levels, in deviations of the data, that the step without an evaluation is tried to."""
_TRIED, _FINER = 4, 2
_COARSE = 8
_NUDGE, _REACH = 0.03, 0.4
_DAMPING = (0.01, 0.1, 1.0)


def loss(error: Tensor) -> float:
    """(mean √e)² of the paths' errors e, error (M, k): a few lost paths count little."""
    return float(error.norm(dim=1).sqrt().mean() ** 2)


def search(reference: Reference, steps: int, rounds: int, coarser: Sequence[Fit] = ()) -> list[Fit]:
    """Good fits, of which other starts have to choose: the loss has many minima.

    The best error-even grids, and those with the nodes of the fits for fewer steps, `coarser`, as densities, are
    improved by up to so many rounds of Gauss and Newton's method.
    """
    if rounds and steps > _COARSE and not coarser:
        coarser = search(reference, steps // 2, rounds)
    tried = leading((fit(reference, *start) for start in starts(reference, steps)), _TRIED)
    finer = leading((fit(reference, *refined(reference, f, steps)) for f in coarser), _FINER)
    return [_polished(reference, f, rounds) for f in (*tried, *finer)]


def gated(reference: Reference, plain: Fit, rounds: int) -> Fit:
    """The fit with gates, its nodes moved by up to so many rounds."""
    return _polished(reference, fit(reference, plain.nodes, plain.leap, gated=True), rounds)


def leading(fits: Iterable[Fit], n: int) -> list[Fit]:
    """The n fits of least loss."""
    return sorted(fits, key=_loss)[:n]


def _polished(reference: Reference, best: Fit, rounds: int) -> Fit:
    for _ in range(rounds):
        better = improved(reference, best)
        if _loss(better) > 0.98 * _loss(best):
            return better
        best = better
    return best


def refined(reference: Reference, coarse: Fit, steps: int) -> tuple[list[Node], bool]:
    """So many steps with the nodes of a coarser fit as their density, and its step without an evaluation."""
    lam = np.array([node.log_snr for node in coarse.nodes])
    first, rest = lam[:coarse.leap], lam[coarse.leap:]
    if math.isinf(rest[0]):
        first, rest, steps = rest[:1], rest[1:], steps - 1
    dense = PchipInterpolator(np.linspace(0, 1, len(rest)), rest)(np.linspace(0, 1, steps + 1))
    return _nodes(reference, torch.from_numpy(np.concatenate([first, dense]))), coarse.leap


def _loss(fitted: Fit) -> float:
    return loss(fitted.error)


def refit(reference: Reference, known: TunedSampler) -> Fit:
    """The coefficients of a calibration fitted anew on its own nodes."""
    return fit(reference, nodes_of(reference.meter.model.sde, known.times), known.leap, gated=known.gated)


def starts(reference: Reference, steps: int) -> Iterator[tuple[list[Node], bool]]:
    """Nodes for so many evaluations, with a first step that evaluates nothing to each level of `FIRST`, and without."""
    lam, deviation = reference.log_snr, reference.meter.model.sigma_data
    endless = math.isinf(float(lam[0]))
    for first in FIRST:
        level = -math.log(first * deviation)
        if float(lam[1]) < level < float(lam[-2]):
            yield _nodes(reference, torch.cat([lam[:1], spaced(reference, level, steps)])), True
            if endless and steps > 1:
                yield _nodes(reference, torch.cat([lam[:1], spaced(reference, level, steps - 1)])), False
    if not endless:
        yield _nodes(reference, spaced(reference, float(lam[0]), steps)), False


def spaced(reference: Reference, level: float, steps: int) -> Tensor:
    """λ of steps + 1 nodes from a level to the end with ∫ m^{1/3} dλ alike between them, m the curvature + 2 % of its
    greatest: the error of a second-order step is m h³."""
    lam, m = reference.curvature()
    smooth = torch.nn.functional.avg_pool1d(m[None, None], 5, 1, 2, count_include_pad=False)[0, 0]
    density = (smooth + 0.02 * smooth.max()) ** (1 / 3)
    whole = torch.cat([reference.log_snr[-len(lam) - 2:-len(lam) - 1], lam, reference.log_snr[-1:]]).numpy()
    padded = torch.cat([density[:1], density, density[-1:]]).numpy()
    total = np.concatenate([[0.0], np.cumsum((padded[1:] + padded[:-1]) / 2 * np.diff(whole))])
    wanted = np.linspace(np.interp(level, whole, total), total[-1], steps + 1)
    found = torch.from_numpy(np.interp(wanted, total, whole))
    found[0], found[-1] = level, whole[-1]
    return found


def improved(reference: Reference, old: Fit) -> Fit:
    """One round: the residual's derivative by every node, the damped step of least robust loss, the fit there."""
    lam = torch.tensor([node.log_snr for node in old.nodes], dtype=torch.float64)
    free = range(1, len(lam) - 1)
    gap = torch.minimum(lam.diff()[:-1], lam.diff()[1:])
    slopes = torch.stack([_nudged(reference, old, lam, j, _NUDGE * float(gap[j - 1])) for j in free])
    A, pull = normal_equations(slopes, old.error)
    found = [old]
    for damping in _DAMPING:
        loaded = A + torch.diag(damping * A.diagonal() + 1e-3 * A.diagonal().mean() + 1e-300)
        moved = lam.clone()
        moved[1:-1] -= gap * torch.linalg.solve(loaded, pull).clamp(-_REACH, _REACH)
        if bool((moved.diff() > 0).all()):
            found.append(fit(reference, _nodes(reference, moved), old.leap, gated=old.gated))
    return min(found, key=_loss)


def _nudged(reference: Reference, old: Fit, lam: Tensor, j: int, by: float) -> Tensor:
    """The derivative of the error by node j, in units of its smaller gap."""
    moved = lam.clone()
    moved[j] += by
    known = old.stops[:j - old.leap] if j > old.leap else None
    return (fit(reference, _nodes(reference, moved), old.leap, known, old.gated).error - old.error) / _NUDGE


def _nodes(reference: Reference, lam: Tensor) -> list[Node]:
    """The nodes at λ, the two ends being exactly those of the reference."""
    times = reference.meter.model.sde.time_of(lam)
    times[0], times[-1] = reference.nodes[0].t, reference.nodes[-1].t
    return nodes_of(reference.meter.model.sde, times)


_JOINT_DAMPING = (1e-4, 1e-2, 1.0)
_JOINT_NUDGE = 1e-3


def joint_refinement(reference: Reference, best: Fit, rounds: int) -> Iterator[Fit]:
    """The fit after every round, on its own nodes, as long as its loss falls."""
    for _ in range(rounds):
        A, pull = normal_equations(slopes(reference, best), best.error)
        tried = [_moved(reference, best, torch.linalg.solve(_loaded(A, damping), pull)) for damping in _JOINT_DAMPING]
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
        moved = FitState(
            (after.y + _JOINT_NUDGE * basis).flatten(0, 1),
            tuple(v.repeat(len(basis), 1) for v in after.values),
            after.theta,
        )
        error = fit(reference, old.nodes, old.leap, [*old.stops[:i + 1], moved], old.gated, theta).error
        found.append((error.unflatten(0, (len(basis), -1)) - old.error) / _JOINT_NUDGE)
    return torch.cat(found)
