"""Kernels and coefficients: what an exponential step integrates exactly, and the weights of the rest.

A kernel splits dz = −c (z − D) dλ + ℓ √2 σ̂ dw, c = 1 + ℓ², z = x/α, σ̂ = e^{−λ}, into a linear part and a remainder v:

    data     v = D, or with the data's moments v = D − Wiener(z), in the coordinates that diagonalise their covariance:
             y' = (Ψ'/Ψ)ᶜ y + c ∫ (Ψ'/Ψ_u)ᶜ v du + Ψ' √(1 − (Ψ'/Ψ)^{2ℓ²}) ξ,  Ψ² = s² + σ̂²  (s = 0 without moments)
    noise    v = ε̂:  z' = z − ∫ σ̂_u v du  (ℓ = 0)

A step replaces v(u) by a polynomial, so it needs the moments I_k = ∫ kernel(u) uᵏ du only. A `Rule` turns them into
weights, for `exact` by one small Vandermonde system per step; all steps of a grid are solved in one batch.

Reference: Lu et al. (2022), eq. 8 (arXiv:2211.01095) for s = 0; Hochbruck and Ostermann (2010), "Exponential
integrators". Zhang and Chen (2023), arXiv:2204.13902 for the noise form.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.moments import Moments
from undiffuse.samplers.method import Node

Array = NDArray[np.float64]
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


class Kernel(ABC):
    """A split of the reverse SDE: coordinates y, the remainder v, and the coefficients of a step between two nodes.

    Many steps in one call: nodes with arrays (n, 1) of α, σ and λ give (n, k), k = 1 if all coordinates are alike.
    """

    @property
    def stochastic(self) -> bool:
        """Whether a step adds noise."""
        return False

    @property
    def width(self) -> int:
        """The number of coordinates with separate coefficients."""
        return 1

    def to_coordinates(self, x: Tensor, node: Node) -> Tensor:
        """The coordinates of a state."""
        return x

    def from_coordinates(self, y: Tensor, node: Node) -> Tensor:
        """The state with those coordinates."""
        return y

    def noise_to_coordinates(self, xi: Tensor) -> Tensor:
        """Standard normals in the coordinates."""
        return xi

    @abstractmethod
    def residual(self, y: Tensor, D: Tensor, node: Node, spare: Tensor | None = None) -> Tensor:
        """The remainder v from the denoiser's value.

        Args:
            y: the state in the kernel's coordinates, (B, *event).
            D: the denoiser's value in model units, (B, *event).
            node: the node of y.
            spare: a tensor like y that may be overwritten; None: allocate a new one.
        """

    @abstractmethod
    def decay(self, node: Node, s: Node) -> Array:
        """The factor of y, an array of shape () or (k,)."""

    @abstractmethod
    def moments(self, node: Node, s: Node, order: int) -> Array:
        """∫₀ʰ kernel(u) uᵏ du for k < order, (order,) or (order, k).

        Args:
            node: the start of the step.
            s: the end of the step.
            order: number of moments.
        """

    def noise_std(self, node: Node, s: Node) -> Array:
        """The standard deviation of the noise that a step adds, an array of shape () or (k,)."""
        return np.zeros(())


@dataclass
class DataPrediction(Kernel):
    """The kernel of data prediction.

    Args:
        ell: stochasticity ℓ, or a function of σ̂, evaluated at the start of each step.
        frame: the data's moments, in whose principal coordinates the Wiener filter is integrated exactly; None: v = D.
    """

    ell: float | Callable[[float], float] = 0.0
    frame: Moments | None = None

    @property
    def stochastic(self) -> bool:
        """Whether ℓ is not 0 throughout."""
        return callable(self.ell) or self.ell > 0

    def level(self, node: Node) -> Any:
        """ℓ of a step that starts at the node."""
        return np.vectorize(self.ell)(np.exp(-node.log_snr)) if callable(self.ell) else self.ell

    @property
    def width(self) -> int:
        """The number of variances that are integrated exactly."""
        return self.s2.size

    @property
    def s2(self) -> Array:
        """The variances that are integrated exactly."""
        return np.zeros(()) if self.frame is None else self.frame.spectrum.numpy()

    def to_coordinates(self, x: Tensor, node: Node) -> Tensor:
        """Uᵀ (x − α μ)."""
        return x if self.frame is None else self.frame.rotate(x) - node.alpha * self.frame.rotated_mean(x)

    def from_coordinates(self, y: Tensor, node: Node) -> Tensor:
        """α μ + U y."""
        return y if self.frame is None else self.frame.unrotate(y + node.alpha * self.frame.rotated_mean(y))

    def noise_to_coordinates(self, xi: Tensor) -> Tensor:
        """Uᵀ ξ."""
        return xi if self.frame is None else self.frame.rotate(xi)

    def residual(self, y: Tensor, D: Tensor, node: Node, spare: Tensor | None = None) -> Tensor:
        """D, or Uᵀ (D − μ) − s²/(s² + σ̂²) y/α.

        Args:
            y: the state in the kernel's coordinates, (B, *event).
            D: the denoiser's value in model units, (B, *event).
            node: the node of y.
            spare: not used.
        """
        if self.frame is None:
            return D
        gain = node.alpha * self.s2 / self._total2(node)
        return self.frame.rotate(D) - self.frame.rotated_mean(D) - _coefficient(gain, y) * y

    def _total2(self, node: Node) -> Array:
        """α² Ψ² = α² s² + σ²."""
        return np.asarray(node.alpha**2 * self.s2 + node.sigma**2)

    def _shrink(self, node: Node, s: Node) -> Array:
        """(Ψ'/Ψ)^{ℓ²}, 0 from α = 0."""
        ell = self.level(node)
        if not np.any(ell):
            return np.ones(())
        ratio2 = self._total2(s) * node.alpha**2 / (self._total2(node) * s.alpha**2)
        return np.asarray(ratio2 ** (ell**2 / 2))

    def decay(self, node: Node, s: Node) -> Array:
        """(α'/α)(Ψ'/Ψ)ᶜ, finite at α = 0."""
        return np.sqrt(self._total2(s) / self._total2(node)) * self._shrink(node, s)

    def noise_std(self, node: Node, s: Node) -> Array:
        """α' Ψ' √(1 − (Ψ'/Ψ)^{2ℓ²})."""
        return np.sqrt(self._total2(s) * np.maximum(0, 1 - self._shrink(node, s) ** 2))

    def moments(self, node: Node, s: Node, order: int) -> Array:
        """α' c ∫₀ʰ (Ψ'/Ψ_u)ᶜ uᵏ du.

        Args:
            node: the start of the step.
            s: the end of the step.
            order: number of moments; from α = 0 only the zeroth is not zero.
        """
        c, h = 1 + self.level(node) ** 2, node.step_to(s)
        last2 = self._total2(s) / s.alpha**2
        if np.ndim(h) == 0 and math.isinf(h):
            q = (_NODES + 1) / 2
            level2 = (s.sigma / s.alpha) ** 2
            inside = (last2[..., None] / (self.s2[..., None] * q ** (2 / c) + level2)) ** (c / 2)
            return np.stack([s.alpha * (inside @ (_WEIGHTS / 2))] + [np.zeros_like(last2)] * (order - 1))
        u, lam = _inner(node, h)
        power = (_last(c) if np.ndim(c) else c) / 2
        inside = (last2[..., None] / (self.s2[..., None] + np.exp(-2 * lam))) ** power * _WEIGHTS
        return np.stack([s.alpha * c * h / 2 * (inside * u**k).sum(-1) for k in range(order)])


@dataclass
class NoisePrediction(Kernel):
    """The kernel of noise prediction, not defined from α = 0."""

    def residual(self, y: Tensor, D: Tensor, node: Node, spare: Tensor | None = None) -> Tensor:
        """ε̂ = (x − α D)/σ.

        Args:
            y: the state in the kernel's coordinates, (B, *event), here x itself.
            D: the denoiser's value in model units, (B, *event).
            node: the node of y.
            spare: a tensor like y for the result; None: allocate a new one.
        """
        return torch.sub(y, D, alpha=node.alpha, out=spare).div_(node.sigma)

    def decay(self, node: Node, s: Node) -> Array:
        """α'/α."""
        return np.asarray(s.alpha / node.alpha)

    def moments(self, node: Node, s: Node, order: int) -> Array:
        """−α' ∫₀ʰ σ̂_u uᵏ du.

        Args:
            node: the start of the step.
            s: the end of the step.
            order: number of moments.
        """
        h = node.step_to(s)
        u, lam = _inner(node, h)
        inside = np.exp(-lam) * _WEIGHTS
        return np.stack([-s.alpha * h / 2 * (inside * u**k).sum(-1) for k in range(order)])


def _last(c: Any) -> Array:
    """A number, or an array of them, with a last axis for the nodes of the quadrature."""
    return np.asarray(c)[..., None]


def _inner(node: Node, h: Any) -> tuple[Array, Array]:
    """The nodes of the quadrature over a step: u in (0, h) and λ + u."""
    u = _last(h) * (_NODES + 1) / 2
    return u, _last(node.log_snr) + u


def _coefficient(c: Array, y: Tensor) -> Tensor | float:
    """A coefficient as a number, or as a row vector in the dtype of y."""
    return float(c) if c.ndim == 0 else y.new_tensor(c)


Rule = Callable[[Array, Array, Any], Array]
"""(moments I_k of shape (m, ...), offsets (..., m) of the values, h) -> weights (m, ...)."""
_CHUNK = 200_000


def exact(moments: Array, offsets: Array, h: Any) -> Array:
    """The weights with Σ_j w_j ν_jᵏ = I_k for k < m: the interpolating polynomial is integrated exactly.

    Args:
        moments: the moments I_k for k < m, (m, ...).
        offsets: positions ν of the m values, relative to the node, in log-SNR, (..., m).
        h: the step in log-SNR; not used.
    """
    m = len(moments)
    powers = offsets[..., None, :] ** np.arange(m)[:, None]
    right = np.moveaxis(moments.reshape(m, *offsets.shape[:-1], -1), 0, -2)
    return np.asarray(np.moveaxis(np.linalg.solve(powers, right), -2, 0).reshape(moments.shape), np.float64)


def midpoint(moments: Array, offsets: Array, h: Any) -> Array:
    """Through two values with I_1 = h I_0/2, as in the published DPM-Solver++(2M) and UniPC's B₂(h).

    Args:
        moments: the moments I_k for k < m, (m, ...).
        offsets: positions ν of the m values, relative to the node, in log-SNR, (..., m).
        h: the step in log-SNR.
    """
    return exact(np.stack([moments[0], moments[0] * h / 2]) if len(moments) == 2 else moments, offsets, h)


def square(moments: Array, offsets: Array, h: Any) -> Array:
    """Through two values with I_1 = s h²/2, s the limit of I_0/h for small h: UniPC's B₁(h), data prediction.

    Args:
        moments: the moments I_k for k < m, (m, ...).
        offsets: positions ν of the m values, relative to the node, in log-SNR, (..., m).
        h: the step in log-SNR.
    """
    if len(moments) != 2:
        return exact(moments, offsets, h)
    return exact(np.stack([moments[0], moments[0] * h**2 / (-2 * np.expm1(-h))]), offsets, h)


def half_curvature(moments: Array, offsets: Array, h: Any) -> Array:
    """Through three values with I_2/2, as in the published DPM-Solver++(3M): second order only.

    Args:
        moments: the moments I_k for k < m, (m, ...).
        offsets: positions ν of the m values, relative to the node, in log-SNR, (..., m).
        h: the step in log-SNR; not used.
    """
    return exact(np.stack([*moments[:2], moments[2] / 2]) if len(moments) == 3 else moments, offsets, h)


_ADAMS = ((1,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def adams(moments: Array, offsets: Array, h: Any) -> Array:
    """I_0 times Adams and Bashforth's numbers for equal steps, as in iPNDM for all sizes (Zhang and Chen, algorithm 2).

    Args:
        moments: the moments I_k for k < m ≤ 4, (m, ...).
        offsets: positions of the m values; not used.
        h: the step in log-SNR; not used.
    """
    return np.stack([c * moments[0] for c in _ADAMS[len(moments) - 1]])


class StepCoefficients(NamedTuple):
    """The coefficients of one step: y' = decay·y + Σ_j weights_j·v_j + noise_std·ξ."""

    decay: float | Tensor
    weights: list[float | Tensor]
    noise_std: float | Tensor

    def __call__(self, y: Tensor, values: Sequence[Tensor], noise: Tensor | None) -> Tensor:
        """y', computed in one new buffer."""
        out = y * self.decay
        for w, v in zip(self.weights, values, strict=False):
            _add(out, v, w)
        return out if noise is None else _add(out, noise, self.noise_std)


def _add(out: Tensor, v: Tensor, w: float | Tensor) -> Tensor:
    """out + w v, in place."""
    return out.addcmul_(v, w) if isinstance(w, Tensor) else out.add_(v, alpha=w)


def step_coefficients(kernel: Kernel, node: Node, s: Node, offsets: Sequence[float], rule: Rule = exact, *,
                      template: Tensor) -> StepCoefficients:
    """The coefficients of one step from node to s that interpolates v at λ + offsets.

    Args:
        kernel: the linear part and the remainder v.
        node: the start of the step, with log-SNR λ.
        s: the end of the step.
        offsets: positions of the values of v relative to λ.
        rule: weights from moments.
        template: a tensor of the states' dtype and device.
    """
    return batch_step_coefficients(kernel, [(node, s)], [offsets], rule, template=template)[0]


def batch_step_coefficients(
    kernel: Kernel, steps: Sequence[tuple[Node, Node]], offsets: Sequence[Sequence[float]], rule: Rule, *,
    template: Tensor
) -> list[StepCoefficients]:
    """The coefficients of many steps (node, s); steps with equal numbers of offsets are solved in one batch.

    Args:
        kernel: the linear part and the remainder v.
        steps: start and end of each step.
        offsets: of each step, the positions of its values of v relative to the λ of its start.
        rule: weights from moments.
        template: a tensor of the states' dtype and device.
    """
    solved: dict[int, StepCoefficients] = {}
    groups: dict[int, list[int]] = {}
    for i, (node, s) in enumerate(steps):
        if math.isinf(node.step_to(s)):
            solved[i] = _from_pure_noise(kernel, node, s, template)
        else:
            groups.setdefault(len(offsets[i]), []).append(i)
    for group in groups.values():
        size = max(1, _CHUNK // max(1, kernel.width))
        for part in (group[k:k + size] for k in range(0, len(group), size)):
            batch = _solve_batch(kernel, [steps[i] for i in part], [offsets[i] for i in part], rule, template)
            solved |= zip(part, batch, strict=True)
    return [solved[i] for i in range(len(steps))]


def _from_pure_noise(kernel: Kernel, node: Node, s: Node, template: Tensor) -> StepCoefficients:
    """The coefficients of a step from α = 0, through one value."""
    decay, weight, noise_std = (_numbers(c.reshape(1, -1), template)[0]
                             for c in (kernel.decay(node, s), kernel.moments(node, s, 1), kernel.noise_std(node, s)))
    return StepCoefficients(decay, [weight], noise_std)


def _solve_batch(kernel: Kernel, steps: Sequence[tuple[Node, Node]], offsets: Sequence[Sequence[float]], rule: Rule,
              template: Tensor) -> list[StepCoefficients]:
    """The coefficients of steps with equal numbers of offsets."""
    node, s = (_stacked([pair[end] for pair in steps]) for end in (0, 1))
    places, n = np.array(offsets), len(steps)
    weights = rule(kernel.moments(node, s, places.shape[1]), places, node.step_to(s))
    decay, noise_std = (_numbers(np.broadcast_to(c, (n, c.shape[-1] if c.ndim else 1)), template)
                     for c in (kernel.decay(node, s), kernel.noise_std(node, s)))
    columns = [_numbers(w, template) for w in weights]
    numbers = zip(decay, zip(*columns, strict=True), noise_std, strict=True)
    return [StepCoefficients(c, list(w), std) for c, w, std in numbers]


def _stacked(nodes: Sequence[Node]) -> Node:
    """Many nodes as one, its coefficients arrays (n, 1)."""
    table = np.array([node[1:] for node in nodes])
    return Node(nodes[0].t, *(table[:, k:k + 1] for k in range(3)))  # type: ignore[arg-type]


def _numbers(c: Array, template: Tensor) -> list[Any]:
    """Coefficients (n, k) or (n,) as n numbers (k = 1) or n vectors (k,) in the dtype of the states."""
    return list(c.reshape(len(c)).tolist()) if c.size == len(c) else list(template.new_tensor(c))
