"""Coefficients in closed form: ridge least squares step by step, on the states that the fitted sampler reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from undiffuse.samplers.coefficients import StepCoefficients
from undiffuse.samplers.method import Node
from undiffuse.samplers.tuned import VALUES, TunedSampler, gain, plain_rows
from undiffuse.tuning.reference import Reference

RIDGE = 1e-5
_ROUNDS = 3


class FitState(NamedTuple):
    """Where a fit stands before a step: the coordinates, the latest remainders, the corrections so far."""

    y: Tensor
    values: tuple[Tensor, ...]
    theta: tuple[Tensor, ...]


class Fit(NamedTuple):
    """A fitted sampler on its nodes: a stop before every step that evaluates, one at the end, and the error (M, k)
    there, in units of x_0 and of one coordinate. gated: its corrections differ from direction to direction."""

    nodes: list[Node]
    leap: bool
    stops: list[FitState]
    error: Tensor
    gated: bool = False

    @property
    def steps(self) -> int:
        """How many evaluations it makes."""
        return len(self.stops) - 1

    @property
    def calibration(self) -> TunedSampler:
        """The sampler."""
        return TunedSampler(torch.stack([node.t for node in self.nodes]), torch.stack(self.stops[-1].theta), self.leap)


def fit(reference: Reference, nodes: list[Node], leap: bool, known: list[FitState] | None = None, gated: bool = False,
        theta: Sequence[Tensor] | None = None) -> Fit:
    """The corrections on these nodes; `known` are stops of the same fit that need not be computed again.

    With the corrections `theta` nothing is fitted, and states may be M or M several times over."""
    y = reference.kernel.enter(reference.x, nodes[0])
    rows, held = plain_rows(reference.kernel, nodes[leap:], y)
    stops = known or [FitState(_leapt(reference, nodes, y) if leap else y, (), ())]
    for i in range(len(stops) - 1, len(rows)):
        y, values, before = stops[-1]
        node, s = nodes[leap + i], nodes[leap + i + 1]
        values = (reference.value(y, node), *values)[:VALUES]
        basis = features(y, values, held[i], gain(reference.kernel, s, y) if gated else None)
        guess = rows[i](y, values, None)
        found = robust(basis, reference.at(s) - guess) if theta is None else used(theta[i], len(values), gated)
        padded = torch.nn.functional.pad(found.reshape(1 + gated, -1), (0, VALUES - len(values))).flatten()
        stops = [*stops, FitState(guess + torch.einsum("f,fmk->mk", found, basis), values, (*before, padded))]
    return Fit(nodes, leap, stops, _error(reference, stops[-1].y, nodes[-1]), gated)


def features(y: Tensor, values: Sequence[Tensor], held: StepCoefficients, gains: Tensor | None) -> Tensor:
    """What the corrections of a step multiply, (f, M, k): c y and I_0 R_j, and the same times the gains."""
    basis = torch.stack([y * held.carry, *(v * held.weights[0] for v in values)])
    return basis if gains is None else torch.cat([basis, basis * gains])


def used(theta: Tensor, values: int, gated: bool) -> Tensor:
    """The corrections (f,) of a step that has so many values yet, out of all."""
    return theta.reshape(1 + gated, -1)[:, :1 + values].flatten()


def _error(reference: Reference, y: Tensor, end: Node) -> Tensor:
    apart: Tensor = y.unflatten(0, (-1, len(reference.x))) - reference.at(end)
    return apart.div(end.alpha * y.shape[1] ** 0.5).flatten(0, 1)


def normal_equations(slopes: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """A (p, p) and b (p,) of Gauss and Newton's step A⁻¹ b for the loss Σ √|e|, its slopes being (p, M, k)."""
    square = error.square().sum(1)
    weight = (square + 0.1 * square.median()) ** -0.75
    flat = slopes * weight[:, None]
    return flat.flatten(1) @ slopes.flatten(1).mT, flat.flatten(1) @ error.flatten()


def robust(basis: Tensor, target: Tensor, ridge: float = RIDGE) -> Tensor:
    """θ (f,) with Σ_f θ_f basis_f ≈ target, basis (f, M, k), each of M paths weighted by 1/√(e² + median e²).

    Paths near a boundary between modes cannot be fitted by any θ; unweighted they would decide it. ridge: relative to
    the square of each feature.
    """
    weight = torch.ones(basis.shape[1], dtype=basis.dtype)
    for _ in range(_ROUNDS + 1):
        theta = _ridge(basis, target, weight, ridge)
        square = (target - torch.einsum("f,fmk->mk", theta, basis)).square().sum(1)
        weight = (square + square.median() + 1e-30).rsqrt()
    return theta


def _ridge(basis: Tensor, target: Tensor, weight: Tensor, ridge: float) -> Tensor:
    root = (weight / weight.mean()).sqrt()[:, None]
    flat = (basis * root).flatten(1)
    gram = flat @ flat.mT
    loaded = gram + torch.diag(ridge * gram.diagonal() + 1e-14 * gram.diagonal().max() + 1e-300)
    theta: Tensor = torch.linalg.solve(loaded, flat @ (target * root).flatten())
    return theta


def _leapt(reference: Reference, nodes: list[Node], y: Tensor) -> Tensor:
    """The coordinates after the step that evaluates nothing."""
    moved: Tensor = y * plain_rows(reference.kernel, nodes[:2], y)[1][0].carry
    return moved
