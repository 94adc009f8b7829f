"""One exponential family: exact in the linear part, with an order and a stochasticity, in log-SNR time.

In z = x/α the reverse SDE with stochasticity ℓ is dz = −(1 + ℓ²)(z − D) dλ + ℓ √2 e^{−λ} dw. Over a step h with
c = 1 + ℓ² its solution is

    z_{λ+h} = e^{−ch} z_λ + c ∫₀ʰ e^{−c(h−u)} D(λ+u) du + σ̂_{λ+h} √(1 − e^{−2ℓ²h}) ξ,

and D is interpolated through its p latest values. p = 1, ℓ = 0 is DDIM; p = 1, ℓ = 1 is DDPM's ancestral sampler.

Reference: Lu et al. (2022), arXiv:2211.01095; Xue et al. (2023), arXiv:2309.05019 (SA-Solver);
Gonzalez et al. (2023), arXiv:2305.14267 (SEEDS).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from undiffuse.steps.state import Node, State, Step

_GAUSS = np.polynomial.legendre.leggauss(24)


def moments(h: float, c: float, order: int) -> NDArray[np.float64]:
    """I_k = c ∫₀ʰ e^{−c(h−u)} uᵏ du for k < order: I_0 = 1 − e^{−ch}, I_k = hᵏ − (k/c) I_{k−1}."""
    if c * h < 1:
        u = h * (_GAUSS[0] + 1) / 2
        powers = u[None] ** np.arange(order)[:, None]
        return np.asarray(powers @ (c * h / 2 * _GAUSS[1] * np.exp(-c * (h - u))))
    values = [-math.expm1(-c * h)]
    for k in range(1, order):
        values.append(h**k - k / c * values[-1])
    return np.array(values)


def weights(offsets: list[float], h: float, c: float) -> list[float]:
    """The weights of D at λ + ν_j that integrate every polynomial of degree < p: Σ_j w_j ν_jᵏ = I_k."""
    vandermonde = np.array(offsets)[None] ** np.arange(len(offsets))[:, None]
    return [float(w) for w in np.linalg.solve(vandermonde, moments(h, c, len(offsets)))]


def exponential(order: int = 1, ell: float = 0.0) -> Step:
    """The multistep method of that order and stochasticity ℓ; it starts with lower orders."""

    def step(state: State, s: Node) -> State:
        node, h = state.node, state.node.step_to(s)
        past = ((node.log_snr, state.model.denoise(state.x, node)), *state.past)[:order]
        finite = [(lam, D) for lam, D in past if not math.isinf(lam)] or past[:1]
        shrink = math.exp(-(ell**2) * h) if ell else 1.0
        x = (s.sigma / node.sigma * shrink) * state.x
        for w, (_, D) in zip(_weights(finite, node, h, ell), finite, strict=True):
            x = x + (s.alpha * w) * D
        if ell:
            x = x + (s.sigma * math.sqrt(1 - shrink**2)) * state.normal()
        return state.moved(x, s, past)

    return step


def _weights(past: Sequence[tuple[float, object]], node: Node, h: float, ell: float) -> list[float]:
    """The weights of the past values; from λ = −∞ the first-order one."""
    if math.isinf(h):
        return [1.0]
    return weights([lam - node.log_snr for lam, _ in past], h, 1 + ell**2)
