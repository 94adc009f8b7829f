"""The nodes of a tuned sampler: initially even in local error, then improved by the Gauss-Newton method.

The coefficients are fitted again for every set of nodes, so only the nodes are variables (variable projection: Golub
and Pereyra, 1973). Moving a node does not change the steps before it.

`joint_refinement` then improves all coefficients jointly: step by step each makes its own step exact; jointly they make
the end exact. A coefficient acts on its step linearly, so its derivative there is its feature; the effect at the end is
measured by a finite difference, all coefficients of a step in one batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from undiffuse.samplers.method import Node, nodes_of
from undiffuse.samplers.tuned import TunedSampler, gain, plain_coefficients
from undiffuse.tuning.fit import Fit, FitState, features, fit, normal_equations
from undiffuse.tuning.reference import Reference

START_LEVELS = (2.0, 3.0, 5.0, 7.0, 10.0, 14.0, 20.0, 30.0)
"""The levels, in standard deviations of the data, tried for the end of the first step without evaluation."""
_TRIED, _FINER = 4, 2
_COARSE = 8
_NUDGE, _REACH = 0.03, 0.4
_DAMPING = (0.01, 0.1, 1.0)


def loss(error: Tensor) -> float:
    """(mean √e)² of the errors e of the trajectories, error (M, k): robust to a few outliers."""
    return float(error.norm(dim=1).sqrt().mean() ** 2)


def search(reference: Reference, steps: int, rounds: int, coarser: Sequence[Fit] = ()) -> list[Fit]:
    """Good fits, between which other starts choose, because the loss has many minima.

    The best grids that are even in error, and grids as dense as those of coarser fits, are improved by the Gauss-Newton
    method.

    Args:
        reference: trajectories to fit.
        steps: number of steps.
        rounds: largest number of Gauss-Newton rounds.
        coarser: fits with fewer steps, whose nodes serve as densities; empty: searched for here where that helps.
    """
    if rounds and steps > _COARSE and not coarser:
        coarser = search(reference, steps // 2, rounds)
    tried = leading((fit(reference, *start) for start in starts(reference, steps)), _TRIED)
    finer = leading((fit(reference, *refined(reference, f, steps)) for f in coarser), _FINER)
    return [_polished(reference, f, rounds) for f in (*tried, *finer)]


def gated(reference: Reference, plain: Fit, rounds: int) -> Fit:
    """The fit with gates, its nodes improved.

    Args:
        reference: trajectories to fit.
        plain: fit without gates.
        rounds: largest number of Gauss-Newton rounds.
    """
    return _polished(reference, fit(reference, plain.nodes, plain.first_step_free, gated=True), rounds)


def leading(fits: Iterable[Fit], n: int) -> list[Fit]:
    """The n fits with the smallest loss."""
    return sorted(fits, key=_loss)[:n]


def _polished(reference: Reference, best: Fit, rounds: int) -> Fit:
    for _ in range(rounds):
        better = improved(reference, best)
        if _loss(better) > 0.98 * _loss(best):
            return better
        best = better
    return best


def refined(reference: Reference, coarse: Fit, steps: int) -> tuple[list[Node], bool]:
    """The nodes of a finer grid, distributed like those of a coarser fit, and whether the first step is free.

    Args:
        reference: trajectories to fit.
        coarse: fit with fewer steps.
        steps: number of steps of the finer grid.
    """
    lam = np.array([node.log_snr for node in coarse.nodes])
    first, rest = lam[:coarse.first_step_free], lam[coarse.first_step_free:]
    if math.isinf(rest[0]):
        first, rest, steps = rest[:1], rest[1:], steps - 1
    dense = PchipInterpolator(np.linspace(0, 1, len(rest)), rest)(np.linspace(0, 1, steps + 1))
    return _nodes(reference, torch.from_numpy(np.concatenate([first, dense]))), coarse.first_step_free


def _loss(fitted: Fit) -> float:
    return loss(fitted.error)


def refit(reference: Reference, sampler: TunedSampler) -> Fit:
    """A sampler with its coefficients fitted again on its own nodes."""
    nodes = nodes_of(reference.counter.model.sde, sampler.times)
    return fit(reference, nodes, sampler.first_step_free, gated=sampler.gated)


def starts(reference: Reference, steps: int) -> Iterator[tuple[list[Node], bool]]:
    """Nodes for `steps` evaluations, with a free first step to each of `START_LEVELS`, and without one."""
    lam, data_std = reference.log_snr, reference.counter.model.sigma_data
    from_pure_noise = math.isinf(float(lam[0]))
    for first in START_LEVELS:
        level = -math.log(first * data_std)
        if float(lam[1]) < level < float(lam[-2]):
            yield _nodes(reference, torch.cat([lam[:1], spaced(reference, level, steps)])), True
            if from_pure_noise and steps > 1:
                yield _nodes(reference, torch.cat([lam[:1], spaced(reference, level, steps - 1)])), False
    if not from_pure_noise:
        yield _nodes(reference, spaced(reference, float(lam[0]), steps)), False


def spaced(reference: Reference, level: float, steps: int) -> Tensor:
    """λ of steps + 1 nodes from a level to the end with equal ∫ m^{1/3} dλ between them, m the curvature + 2 % of its
    maximum: the error of a second-order step is m h³.

    Args:
        reference: trajectories whose curvature is used.
        level: λ of the first node.
        steps: number of steps.
    """
    lam, m = reference.curvature()
    smooth = torch.nn.functional.avg_pool1d(m[None, None], 5, 1, 2, count_include_pad=False)[0, 0]
    density = (smooth + 0.02 * smooth.max()) ** (1 / 3)
    levels = torch.cat([reference.log_snr[-len(lam) - 2:-len(lam) - 1], lam, reference.log_snr[-1:]]).numpy()
    padded = torch.cat([density[:1], density, density[-1:]]).numpy()
    total = np.concatenate([[0.0], np.cumsum((padded[1:] + padded[:-1]) / 2 * np.diff(levels))])
    wanted = np.linspace(np.interp(level, levels, total), total[-1], steps + 1)
    nodes = torch.from_numpy(np.interp(wanted, total, levels))
    nodes[0], nodes[-1] = level, levels[-1]
    return nodes


def improved(reference: Reference, old: Fit) -> Fit:
    """One Gauss-Newton round over the nodes: the damped step with the smallest loss, and the fit there."""
    lam = torch.tensor([node.log_snr for node in old.nodes], dtype=torch.float64)
    free = range(1, len(lam) - 1)
    gap = torch.minimum(lam.diff()[:-1], lam.diff()[1:])
    slopes = torch.stack([_nudged(reference, old, lam, j, _NUDGE * float(gap[j - 1])) for j in free])
    A, pull = normal_equations(slopes, old.error)
    fits = [old]
    for damping in _DAMPING:
        loaded = A + torch.diag(damping * A.diagonal() + 1e-3 * A.diagonal().mean() + 1e-300)
        moved = lam.clone()
        moved[1:-1] -= gap * torch.linalg.solve(loaded, pull).clamp(-_REACH, _REACH)
        if bool((moved.diff() > 0).all()):
            fits.append(fit(reference, _nodes(reference, moved), old.first_step_free, gated=old.gated))
    return min(fits, key=_loss)


def _nudged(reference: Reference, old: Fit, lam: Tensor, j: int, by: float) -> Tensor:
    """The derivative of the error with respect to node j, in units of its smaller gap."""
    moved = lam.clone()
    moved[j] += by
    states = old.states[:j - old.first_step_free] if j > old.first_step_free else None
    return (fit(reference, _nodes(reference, moved), old.first_step_free, states, old.gated).error - old.error) / _NUDGE


def _nodes(reference: Reference, lam: Tensor) -> list[Node]:
    """The nodes at λ, with exactly the endpoints of the reference."""
    times = reference.counter.model.sde.time_of(lam)
    times[0], times[-1] = reference.nodes[0].t, reference.nodes[-1].t
    return nodes_of(reference.counter.model.sde, times)


_JOINT_DAMPING = (1e-4, 1e-2, 1.0)
_JOINT_NUDGE = 1e-3


def joint_refinement(reference: Reference, best: Fit, rounds: int) -> Iterator[Fit]:
    """The fit after every Gauss-Newton round over all coefficients, as long as its loss falls.

    Args:
        reference: trajectories to fit.
        best: fit to start from.
        rounds: largest number of rounds.
    """
    for _ in range(rounds):
        A, pull = normal_equations(slopes(reference, best), best.error)
        tried = [_moved(reference, best, torch.linalg.solve(_loaded(A, damping), pull)) for damping in _JOINT_DAMPING]
        candidate = min(tried, key=lambda f: loss(f.error))
        if not loss(candidate.error) < loss(best.error):
            return
        best = candidate
        yield best


def _loaded(A: Tensor, damping: float) -> Tensor:
    return A + torch.diag(damping * A.diagonal() + 1e-12 * A.diagonal().max() + 1e-300)


def _moved(reference: Reference, old: Fit, step: Tensor) -> Fit:
    """The fit with `step` subtracted from its coefficients, (p,)."""
    theta, k = [], 0
    for fitted, state in zip(old.states[-1].theta, old.states[1:], strict=True):
        rows = 1 + old.gated
        count = rows * (1 + len(state.values))
        moved = fitted.reshape(rows, -1).clone()
        moved[:, :1 + len(state.values)] -= step[k:k + count].reshape(rows, -1)
        theta.append(moved.flatten())
        k += count
    return fit(reference, old.nodes, old.first_step_free, gated=old.gated, theta=theta)


def slopes(reference: Reference, old: Fit) -> Tensor:
    """The derivative of the error with respect to every coefficient, (p, M, k)."""
    nodes, theta = old.nodes[old.first_step_free:], old.states[-1].theta
    derivatives = []
    for i, first in enumerate(plain_coefficients(reference.kernel, nodes, reference.x)[1]):
        here, after = old.states[i:i + 2]
        gains = gain(reference.kernel, nodes[i + 1], here.y) if old.gated else None
        basis = features(here.y, after.values, first, gains)
        moved = FitState(
            (after.y + _JOINT_NUDGE * basis).flatten(0, 1),
            tuple(v.repeat(len(basis), 1) for v in after.values),
            after.theta,
        )
        error = fit(reference, old.nodes, old.first_step_free, [*old.states[:i + 1], moved], old.gated, theta).error
        derivatives.append((error.unflatten(0, (len(basis), -1)) - old.error) / _JOINT_NUDGE)
    return torch.cat(derivatives)
