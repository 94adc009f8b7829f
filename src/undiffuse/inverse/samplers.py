"""Posterior samplers: methods for p(x | y) that are steps instead of denoisers.

    replacement   after every step, the observed entries are replaced by y at the step's noise level
    repaint       replacement, with every step repeated several times
    dps           an ancestral step, then one of gradient descent on ‖y − A D(x_t)‖
    diffpir       D replaced by the minimizer of ‖y − A x‖²/R + λ ‖x − D‖²/σ̂², then noised again
    daps          the ODE to x_0, a sample of the Gaussian posterior around it, noised again
    gibbs         p(x_0 | z) by the reverse SDE and p(z | x_0, y), alternating at decreasing noise; exact in the limit

Each is a function (observation, context, options) -> step, with the options of `observe`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.inverse.guides import DENSE, DenoiserPosterior
from undiffuse.inverse.observation import LinearizedObservation, Observation
from undiffuse.linear_solvers import Apply
from undiffuse.model import Model, Wrapper
from undiffuse.samplers.combinators import after_step, repeat
from undiffuse.samplers.covariance_matched import bridge, matched
from undiffuse.samplers.exponential import first_order
from undiffuse.samplers.grid import time_grid
from undiffuse.samplers.method import Method, Node, RequiresSampler, SamplerContext, State, Step, nodes_of
from undiffuse.samplers.stochastic import multistep_sde
from undiffuse.sde import Time, as_time
from undiffuse.tensors import ArrayLike

_ITERATIONS = 20  # of conjugate gradients
_INNER = 64  # the first noise stage inside a step


class Posterior(RequiresSampler):
    """A model of p(x | y) with its own sampler.

    Args:
        inner: the model of p(x).
        observation: y, the operator and the noise in model units.
        sampler: the sampler.
        last: the model whose denoiser is used for p(x | y); None: the denoiser of p(x).
    """

    takes = ("y",)

    def __init__(self, inner: Model, observation: Observation, sampler: Method, last: Model | None = None) -> None:
        super().__init__(inner, sampler)
        self.observation, self.last = observation, last

    def denoise(self, x: ArrayLike, t: Time, *, y: Tensor | None = None, **cond: Any) -> Tensor:
        """D of `last` given y, or D of the inner model."""
        x = self.states(x)
        if self.last is None:
            return self.inner.denoise(x, t, **cond)
        return self.last.denoise(x, t, y=y, **cond)


def posterior_at(state: State) -> DenoiserPosterior:
    """p(x_0 | x_t) by the denoiser of p(x) at a state, counted as one model evaluation."""
    model, cond = state.model.model, dict(state.model.cond)
    while isinstance(model, Wrapper):
        cond, is_posterior = {**getattr(model, "cond", {}), **cond}, isinstance(model, Posterior)
        model = model.inner
        if is_posterior:
            break
    cond.pop("y", None)
    state.model.nfe += 1
    if not isinstance(model, Model):
        raise InputError("got a model without a denoiser; expected one with a denoiser for an observation")
    return DenoiserPosterior(model, state.x, as_time(state.node.t), cond)


def linearize(observation: Observation, state: State, x0: Tensor) -> LinearizedObservation:
    """The observation at x0, with the y of the request.

    Args:
        observation: y, the operator and the noise in model units.
        state: the state of the sampler, with its node and model.
        x0: estimates of x_0 (B, *event) in model units.
    """
    noise_variance = math.exp(-2 * state.node.log_snr) if state.node.alpha else math.inf
    return observation.linearize(x0, _residual_variance(state, noise_variance), state.model.cond.get("y"))


def replacement(observation: Observation, context: SamplerContext, *, times: int = 1, eta: float = 1.0) -> Step:
    """x ← x + A⁺ (α y + σ A ε − A x) after every ancestral step.

    Args:
        observation: y, the operator and the noise in model units.
        context: model, grid and settings of the sampling run.
        times: number of repetitions of every step.
        eta: amount of noise of the ancestral step; 1: as in the reverse SDE.

    Reference: Song et al. (2021), appendix I.2, arXiv:2011.13456; Lugmayr et al. (2022), arXiv:2201.09865.
    """

    def replace_observed(state: State, eps: Tensor) -> Tensor:
        node = state.node
        local = linearize(observation, state, state.x / node.alpha)
        residual = node.alpha * local.residual + node.sigma * local.push(eps.flatten(1))
        variance = torch.where(local.observed, 1e-8 * observation.scale2, 1.0)
        w = replace(local, residual=residual, variance=variance).solve(*_isotropic(state.x, 1.0))
        return state.x + local.pull(w).reshape(state.x.shape)

    step = after_step(multistep_sde(1)(context, eta=eta), replace_observed)
    return repeat(step, times) if times > 1 else step


def repaint(observation: Observation, context: SamplerContext, *, times: int = 10, eta: float = 1.0) -> Step:
    """Replacement with every step repeated `times` times.

    Args:
        observation: y, the operator and the noise in model units.
        context: model, grid and settings of the sampling run.
        times: number of repetitions of every step.
        eta: amount of noise of the ancestral step; 1: as in the reverse SDE.

    Reference: Lugmayr et al. (2022), "RePaint", section 4.2. arXiv:2201.09865
    """
    return replacement(observation, context, times=times, eta=eta)


def dps(observation: Observation, context: SamplerContext, *, zeta: float = 1.0) -> Step:
    """z_s ← z_s − ζ ∇_z ‖y − A D‖ after an ancestral step, with the norm of each sample.

    Args:
        observation: y, the operator and the noise in model units.
        context: model, grid and settings of the sampling run.
        zeta: step size ζ of the gradient; the best ζ depends on the problem and on the number of steps.

    Reference: Chung et al. (2023), algorithm 1. arXiv:2209.14687
    """

    def step(state: State, s: Node) -> State:
        a, b, noise = bridge(state.node, s)
        posterior = posterior_at(state)
        local = linearize(observation, state, posterior.mean)
        norm = local.residual.norm(dim=1, keepdim=True).clamp_min(1e-12)
        gradient = posterior.vjp(local.pull(local.residual / norm)).reshape(state.x.shape)
        descent = s.alpha * state.node.alpha * gradient
        return state.advance(a * state.x + b * posterior.mean + noise**0.5 * state.normal(s) + zeta * descent, s)

    return step


def diffpir(observation: Observation, context: SamplerContext, *, strength: float = 7.0, zeta: float = 0.3) -> Step:
    """x̂ = argmin ‖y − A x‖²/R + λ ‖x − D‖²/σ̂², then α_s x̂ + σ_s (√(1 − ζ) ε̂ + √ζ ξ).

    Args:
        observation: y, the operator and the noise in model units.
        context: model, grid and settings of the sampling run.
        strength: weight λ of the distance to D.
        zeta: fraction ζ of new noise, from 0 to 1.

    Reference: Zhu et al. (2023), algorithm 1. arXiv:2305.08995
    """

    def step(state: State, s: Node) -> State:
        t, D = state.node, state.model.denoise(state.x, state.node)
        local = linearize(observation, state, D)
        x0 = sample_conditional(local, D, _capped_noise_variance(state) / strength)
        eps = (state.x - t.alpha * x0) / t.sigma
        eps = (1 - zeta) ** 0.5 * eps + zeta**0.5 * state.normal(s)
        return state.advance(s.alpha * x0 + s.sigma * eps, s)

    return step


def daps(observation: Observation, context: SamplerContext, *, inner: int = 5) -> Step:
    """x̂_0 by `inner` ODE steps, a sample of N(x̂_0, r²) p(y | x_0) with r² = s² σ̂²/(s² + σ̂²), noised again.

    Args:
        observation: y, the operator and the noise in model units.
        context: model, grid and settings of the sampling run.
        inner: number of ODE steps for x̂_0.

    Reference: Zhang et al. (2024), algorithm 1. arXiv:2407.01521
    """

    def step(state: State, s: Node) -> State:
        mean = _denoise_in_steps(context, state, inner, first_order)
        local = linearize(observation, state, mean)
        r2 = _residual_variance(state, math.exp(-2 * state.node.log_snr))
        x0 = sample_conditional(local, mean, r2, state, s)
        return state.advance(s.alpha * x0 + s.sigma * state.normal(s), s)

    return step


def gibbs(observation: Observation, context: SamplerContext, *, inner: int = 4, repeats: int = 4) -> Step:
    """x_0 ~ p(x_0 | z) by `inner` covariance-matched steps of the reverse SDE, then z ~ N(x_0, σ̂_s²) p(y | z).

    At fixed σ̂ the samples converge to the distribution
    p(x_0) N(z; x_0, σ̂²) p(y | z), which tends to the posterior as σ̂ → 0.

    Args:
        observation: y, the operator and the noise in model units.
        context: model, grid and settings of the sampling run.
        inner: number of covariance-matched steps of the reverse SDE for x_0.
        repeats: number of repetitions of both at every node.

    Reference: Wu et al. (2024), PnP-DM, algorithm 1, arXiv:2405.18782; Vono et al. (2019), split Gibbs.
    """

    reverse_step = matched(context, eta=1.0)

    def sweep(state: State, s: Node, k: int) -> State:
        x0 = _denoise_in_steps(context, state, inner, reverse_step, k)
        local = linearize(observation, replace(state, node=s), x0)
        z = sample_conditional(local, x0, math.exp(-2 * s.log_snr), state, s, k)
        return replace(state, x=s.alpha * z, node=s)

    def step(state: State, s: Node) -> State:
        out = state
        for k in range(repeats):
            out = sweep(out, s, k)
        return state.advance(out.x, s)

    return step


def sample_conditional(local: LinearizedObservation, x0: Tensor, r2: float, state: State | None = None,
                       s: Node | None = None, sweep: int = 0) -> Tensor:
    """A sample of N(x; x0, r² I) p(y | x), or its mean if no state is given.

    With x̃ ~ N(x0, r² I) and ξ ~ N(0, I) it is x̃ + r² Aᵀ (r² A Aᵀ + R)⁻¹ (y + R^½ ξ − A x̃).

    Args:
        local: the linearized observation A, y, R at x0.
        x0: mean (B, *event) of the Gaussian.
        r2: variance r² of the Gaussian per entry.
        state: state that addresses the random numbers; None: the mean is returned.
        s: next node, the address of the random numbers.
        sweep: index of the repetition at this node.

    Reference: Papandreou and Yuille (2010), perturb and solve; Matheron's rule.
    """
    x, perturbed = x0, local
    if state is not None and s is not None:
        dx = r2**0.5 * state.normal(s, _INNER - 2 + 4096 * sweep)
        xi = _normals_like(local.residual, state, s, _INNER + 2048 + 4096 * sweep)
        noise = torch.where(local.observed, local.variance.sqrt() * xi, 0.0)
        x = x0 + dx
        perturbed = replace(local, residual=local.residual + noise - local.push(dx.flatten(1)))
    return x + r2 * local.pull(perturbed.solve(*_isotropic(x0, r2))).reshape(x0.shape)


def _isotropic(x: Tensor, r2: float) -> tuple[Tensor | Apply, int]:
    """r² I for rows like x, as a matrix where that is small, and the number of conjugate gradient iterations."""
    d = math.prod(x.shape[1:])
    if d > DENSE:
        return lambda u: r2 * u, _ITERATIONS
    return r2 * torch.eye(d, dtype=torch.float64).expand(len(x), d, d), 0


def _normals_like(rows: Tensor, state: State, s: Node, stage: int) -> Tensor:
    """Standard normals (B, m), concatenated from events of noise."""
    d = math.prod(state.x.shape[1:])
    events = [state.normal(s, stage + k).flatten(1) for k in range(-(-rows.shape[1] // d))]
    return torch.cat(events, 1)[:, : rows.shape[1]]


def _denoise_in_steps(context: SamplerContext, state: State, inner: int, step: Step, sweep: int = 0) -> Tensor:
    """x_0 from a state: `inner` steps to the end of the grid, then D."""
    last, end = context.nodes[-1], state
    if state.node.log_snr < last.log_snr:
        times = time_grid(context.sde, inner, "karras", float(state.node.t), float(last.t))[1:]
        for k, s in enumerate(nodes_of(context.sde, times)):
            end = step(state.substep(end.x, end.node, (sweep * inner + k) % 1024), s)
    return end.model.denoise(end.x, end.node)


def _data_std(state: State) -> float:
    """The data's standard deviation."""
    model = state.model.model
    return float(model.sigma_data) if isinstance(model, Model) else 1.0


def _residual_variance(state: State, noise_variance: float) -> float:
    """s² σ̂²/(s² + σ̂²)."""
    s2 = _data_std(state) ** 2
    return s2 if math.isinf(noise_variance) else s2 * noise_variance / (s2 + noise_variance)


def _capped_noise_variance(state: State) -> float:
    """σ̂², at most 10⁴ s²."""
    cap = 1e4 * _data_std(state) ** 2
    return min(cap, math.exp(-2 * state.node.log_snr)) if state.node.alpha else cap


STEPS: dict[str, Callable[..., Step]] = {
    "replacement": replacement, "repaint": repaint, "dps": dps, "diffpir": diffpir, "daps": daps, "gibbs": gibbs,
}
