"""Coefficients in closed form: ridge least squares, step by step, on the states that the fitted sampler reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from undiffuse.samplers.coefficients import StepCoefficients
from undiffuse.samplers.method import Node
from undiffuse.samplers.tuned import VALUES, TunedSampler, gain, plain_coefficients
from undiffuse.tuning.reference import Reference

RIDGE = 1e-5
_ROUNDS = 3


class FitState(NamedTuple):
    """The state of a fit before a step: coordinates (M, k), the latest remainders, the corrections so far."""

    y: Tensor
    values: tuple[Tensor, ...]
    theta: tuple[Tensor, ...]


class Fit(NamedTuple):
    """A fitted sampler: its nodes, the states before every step that evaluates and at the end, and the error (M, k)
    there, in units of x_0 and of one coordinate. gated: the corrections differ between directions."""

    nodes: list[Node]
    first_step_free: bool
    states: list[FitState]
    error: Tensor
    gated: bool = False

    @property
    def steps(self) -> int:
        """The number of model evaluations."""
        return len(self.states) - 1

    @property
    def sampler(self) -> TunedSampler:
        """The sampler."""
        times, theta = torch.stack([node.t for node in self.nodes]), torch.stack(self.states[-1].theta).double()
        return TunedSampler(times, theta, self.first_step_free)


def fit(reference: Reference, nodes: list[Node], first_step_free: bool, states: list[FitState] | None = None,
        gated: bool = False, theta: Sequence[Tensor] | None = None) -> Fit:
    """The corrections on these nodes.

    Args:
        reference: the trajectories.
        nodes: the nodes of the sampler.
        first_step_free: the first step needs no evaluation.
        states: the first states of this fit, if they are known; None: from the start.
        gated: corrections with gates.
        theta: corrections to apply instead of fitting; states may then contain several copies of M rows.
    """
    y = reference.kernel.to_coordinates(reference.x, nodes[0])
    second, first = plain_coefficients(reference.kernel, nodes[first_step_free:], y)
    states = states or [FitState(_after_free_step(reference, nodes, y) if first_step_free else y, (), ())]
    for i in range(len(states) - 1, len(second)):
        y, values, before = states[-1]
        node, s = nodes[first_step_free + i], nodes[first_step_free + i + 1]
        values = (reference.residual(y, node), *values)[:VALUES]
        basis = features(y, values, first[i], gain(reference.kernel, s, y) if gated else None)
        guess = second[i](y, values, None)
        fitted = robust(basis, reference.at(s) - guess) if theta is None else used(theta[i], len(values), gated)
        padded = torch.nn.functional.pad(fitted.reshape(1 + gated, -1), (0, VALUES - len(values))).flatten()
        states = [*states, FitState(guess + torch.einsum("f,fmk->mk", fitted, basis), values, (*before, padded))]
    return Fit(nodes, first_step_free, states, _error(reference, states[-1].y, nodes[-1]), gated)


def features(y: Tensor, values: Sequence[Tensor], first: StepCoefficients, gains: Tensor | None) -> Tensor:
    """The features that the corrections of a step multiply, (f, M, k): c y and I_0 R_j, and both times the gains.

    Args:
        y: coordinates (M, k) at the start of the step.
        values: remainders R_j so far, each (M, k).
        first: coefficients of the step, with the decay c and the weight I_0.
        gains: gates of the directions (k,); None: no gates.
    """
    basis = torch.stack([y * first.decay, *(v * first.weights[0] for v in values)])
    return basis if gains is None else torch.cat([basis, basis * gains])


def used(theta: Tensor, values: int, gated: bool) -> Tensor:
    """The corrections (f,) of a step that has `values` values so far.

    Args:
        theta: all corrections of the step, padded.
        values: number of values so far.
        gated: whether there are corrections with gates.
    """
    return theta.reshape(1 + gated, -1)[:, :1 + values].flatten()


def _error(reference: Reference, y: Tensor, end: Node) -> Tensor:
    error: Tensor = y.unflatten(0, (-1, len(reference.x))) - reference.at(end)
    return error.div(end.alpha * y.shape[1] ** 0.5).flatten(0, 1)


def normal_equations(slopes: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """A (p, p) and b (p,) of the Gauss-Newton step A⁻¹ b for the loss Σ √|e| with the Jacobian `slopes` (p, M, k)."""
    square = error.double().square().sum(1)
    weight = (square + 0.1 * square.median()) ** -0.75
    A = torch.zeros(len(slopes), len(slopes) + 1, dtype=torch.float64)
    for m, w in enumerate(weight):  # trajectory by trajectory: no second copy of the Jacobian
        rows = slopes[:, m].double()
        A += w * rows @ torch.cat([rows, error[None, m].double()]).mT
    return A[:, :-1], A[:, -1]


def robust(basis: Tensor, target: Tensor, ridge: float = RIDGE) -> Tensor:
    """θ (f,) with Σ_f θ_f basis_f ≈ target, each trajectory weighted by 1/√(e² + median e²).

    Trajectories near a boundary between modes cannot be fitted by any θ; unweighted they would dominate.

    Args:
        basis: features (f, M, k).
        target: values to fit (M, k).
        ridge: penalty, relative to the square of each feature.
    """
    grams = torch.stack([rows @ rows.mT for rows in (torch.cat([basis[:, m], target[None, m]]).double()
                                                     for m in range(len(target)))])  # (M, f + 1, f + 1)
    weight = torch.ones(len(grams), dtype=torch.float64)
    for _ in range(_ROUNDS + 1):
        total = ((weight / weight.mean())[:, None, None] * grams).sum(0)
        theta = _ridge(total[:-1, :-1], total[:-1, -1], ridge)
        signed = torch.cat([theta, -torch.ones(1, dtype=torch.float64)])
        square = torch.einsum("f,mfg,g->m", signed, grams, signed).clamp_min(0)
        weight = (square + square.median() + 1e-30).rsqrt()
    return theta.to(basis)


def _ridge(gram: Tensor, right: Tensor, ridge: float) -> Tensor:
    loaded = gram + torch.diag(ridge * gram.diagonal() + 1e-14 * gram.diagonal().max() + 1e-300)
    theta: Tensor = torch.linalg.solve(loaded, right)
    return theta


def _after_free_step(reference: Reference, nodes: list[Node], y: Tensor) -> Tensor:
    """The coordinates after the first step without evaluation."""
    out: Tensor = y * plain_coefficients(reference.kernel, nodes[:2], y)[1][0].decay
    return out
