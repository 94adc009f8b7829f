"""The numbers of exponential steps: a small Vandermonde system each, all steps of a grid solved at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from undiffuse.steps.kernel import Array, Kernel
from undiffuse.steps.state import Node

Rule = Callable[[Array, Array, Any], Array]
"""(moments I_k of shape (m, ...), offsets (..., m) of the values, h) -> weights (m, ...)."""
_CHUNK = 200_000


def exact(moments: Array, offsets: Array, h: Any) -> Array:
    """The weights with Σ_j w_j ν_jᵏ = I_k for k < m: the interpolating polynomial is integrated exactly."""
    m = len(moments)
    powers = offsets[..., None, :] ** np.arange(m)[:, None]
    right = np.moveaxis(moments.reshape(m, *offsets.shape[:-1], -1), 0, -2)
    return np.asarray(np.moveaxis(np.linalg.solve(powers, right), -2, 0).reshape(moments.shape), np.float64)


def midpoint(moments: Array, offsets: Array, h: Any) -> Array:
    """Through two values with I_1 = h I_0/2, as the published DPM-Solver++(2M) and UniPC's B₂(h) have it."""
    return exact(np.stack([moments[0], moments[0] * h / 2]) if len(moments) == 2 else moments, offsets, h)


def square(moments: Array, offsets: Array, h: Any) -> Array:
    """Through two values with I_1 = s h²/2, s the limit of I_0/h for small h: UniPC's B₁(h), data prediction."""
    if len(moments) != 2:
        return exact(moments, offsets, h)
    return exact(np.stack([moments[0], moments[0] * h**2 / (-2 * np.expm1(-h))]), offsets, h)


def half_curvature(moments: Array, offsets: Array, h: Any) -> Array:
    """Through three values with I_2/2, as the published DPM-Solver++(3M) has it: second order only."""
    return exact(np.stack([*moments[:2], moments[2] / 2]) if len(moments) == 3 else moments, offsets, h)


_ADAMS = ((1,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def adams(moments: Array, offsets: Array, h: Any) -> Array:
    """I_0 times Adams and Bashforth's numbers for equal steps, as iPNDM has it whatever the steps.

    Reference: Zhang and Chen (2023), algorithm 2. arXiv:2204.13902
    """
    return np.stack([c * moments[0] for c in _ADAMS[len(moments) - 1]])


class Row(NamedTuple):
    """The numbers of one step: y' = carry·y + Σ weights_j·v_j + spread·ξ."""

    carry: float | Tensor
    weights: list[float | Tensor]
    spread: float | Tensor

    def __call__(self, y: Tensor, values: Sequence[Tensor], noise: Tensor | None) -> Tensor:
        """y', computed in one buffer of its own."""
        out = y * self.carry
        for w, v in zip(self.weights, values, strict=False):
            _add(out, v, w)
        return out if noise is None else _add(out, noise, self.spread)


def _add(out: Tensor, v: Tensor, w: float | Tensor) -> Tensor:
    """out + w v, in place."""
    return out.addcmul_(v, w) if isinstance(w, Tensor) else out.add_(v, alpha=w)


def row(kernel: Kernel, node: Node, s: Node, offsets: Sequence[float], rule: Rule = exact, *,
        like: Tensor) -> Row:
    """The row of one step from node to s that interpolates v at λ + offsets."""
    return rows(kernel, [(node, s)], [offsets], rule, like=like)[0]


def rows(kernel: Kernel, steps: Sequence[tuple[Node, Node]], offsets: Sequence[Sequence[float]], rule: Rule, *,
         like: Tensor) -> list[Row]:
    """The rows of many steps (node, s), each with its own offsets; those with as many offsets are solved together."""
    found: dict[int, Row] = {}
    groups: dict[int, list[int]] = {}
    for i, (node, s) in enumerate(steps):
        if math.isinf(node.step_to(s)):
            found[i] = _first(kernel, node, s, like)
        else:
            groups.setdefault(len(offsets[i]), []).append(i)
    for group in groups.values():
        size = max(1, _CHUNK // max(1, kernel.width))
        for part in (group[k:k + size] for k in range(0, len(group), size)):
            together = _together(kernel, [steps[i] for i in part], [offsets[i] for i in part], rule, like)
            found |= zip(part, together, strict=True)
    return [found[i] for i in range(len(steps))]


def _first(kernel: Kernel, node: Node, s: Node, like: Tensor) -> Row:
    """The row of a step from α = 0, through one value."""
    carry, weight, spread = (_numbers(c.reshape(1, -1), like)[0]
                             for c in (kernel.carry(node, s), kernel.moments(node, s, 1), kernel.spread(node, s)))
    return Row(carry, [weight], spread)


def _together(kernel: Kernel, steps: Sequence[tuple[Node, Node]], offsets: Sequence[Sequence[float]], rule: Rule,
              like: Tensor) -> list[Row]:
    """The rows of steps with the same number of offsets."""
    node, s = (_stacked([pair[end] for pair in steps]) for end in (0, 1))
    places, n = np.array(offsets), len(steps)
    weights = rule(kernel.moments(node, s, places.shape[1]), places, node.step_to(s))
    carry, spread = (_numbers(np.broadcast_to(c, (n, c.shape[-1] if c.ndim else 1)), like)
                     for c in (kernel.carry(node, s), kernel.spread(node, s)))
    columns = [_numbers(w, like) for w in weights]
    return [Row(c, list(w), p) for c, w, p in zip(carry, zip(*columns, strict=True), spread, strict=True)]


def _stacked(nodes: Sequence[Node]) -> Node:
    """Many nodes as one, its coefficients arrays (n, 1)."""
    table = np.array([node[1:] for node in nodes])
    return Node(nodes[0].t, *(table[:, k:k + 1] for k in range(3)))  # type: ignore[arg-type]


def _numbers(c: Array, like: Tensor) -> list[Any]:
    """Coefficients (n, k), or (n,), as n numbers (k = 1), or n vectors (k,) in the dtype of the states."""
    return list(c.reshape(len(c)).tolist()) if c.size == len(c) else list(like.new_tensor(c))
