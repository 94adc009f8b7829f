"""Twisted sequential Monte Carlo: particles proposed by the guided step, with weights that correct the proposal.

Under the denoiser x_0 ~ N(D, V) given x_t, so y ~ N(A D, S) with S = A V Aᵀ + R: the twisting function ψ_t(x_t). A step
of the reverse SDE with these moments is the Gaussian p(x_s | x_t) = N(a x_t + b D, c² I + b² V), and given y it is

    q(x_s | x_t) = N(a x_t + b D_y, c² I + b² V_y)        D_y = D + V Aᵀ S⁻¹ (y − A D), V_y = V − V Aᵀ S⁻¹ A V

Particles move by q and have their weights multiplied by p ψ_s/(q ψ_t). For any ψ the particles' distribution converges
to p(x | y) under the steps p as their number grows; the product of the mean weights is an unbiased estimate of p(y).

Reference: Wu et al. (2023), "Practical and asymptotically exact conditional sampling", algorithm 1. arXiv:2306.17775.
The covariance in twisting function and step: Rozet et al. (2024), arXiv:2405.13712; Boys et al. (2023),
arXiv:2310.06721.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.inverse.guides import DenoiserPosterior
from undiffuse.inverse.observation import LinearizedObservation, Observation
from undiffuse.inverse.samplers import linearize, posterior_at
from undiffuse.samplers.covariance_matched import bridge
from undiffuse.samplers.method import CountingModel, Node, SamplerContext, State, Step

_RESAMPLE, _INNER = 60, 64  # noise stages
MAX_DIM = 256
"""The largest number of coordinates for which a covariance per particle is affordable."""


@dataclass(frozen=True)
class Particles:
    """The particles of G runs of P.

    x (G P, d); log_weight (G, P); log_evidence (G,) up to the last resampling; pending_log_weight (G, P), the log of
    p/(q ψ) of the last move, to which ψ at the new time has to be added.
    """

    x: Tensor
    log_weight: Tensor
    log_evidence: Tensor
    pending_log_weight: Tensor

    @property
    def total(self) -> Tensor:
        """The estimate of log p(y), (G,)."""
        return self.log_evidence + self.log_weight.logsumexp(1) - math.log(self.log_weight.shape[1])


@dataclass(frozen=True)
class ParticleStats:
    """x, D, V, the shift D_y − D, V_y, and log ψ (N,) of particles (N, d); float64."""

    x: Tensor
    mean: Tensor
    cov: Tensor
    shift: Tensor
    guided_cov: Tensor
    log_twist: Tensor

    def select(self, rows: Tensor) -> ParticleStats:
        """Those of some particles."""
        return ParticleStats(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def twisted(
    observation: Observation, context: SamplerContext, *, particles: int = 256, group: int = 64, threshold: float = 0.5
) -> Step:
    """A step of runs of `particles`, each of which gives `group` samples with consecutive indices.

    A run is resampled where its effective sample size is below `threshold` times its particles, and at the end.

    Args:
        observation: y, the operator and the noise in model units.
        context: model, grid and settings of the sampling run.
        particles: number of particles of a run.
        group: number of samples that a run gives; a divisor of `particles`.
        threshold: effective sample size, relative to `particles`, below which a run is resampled.
    """
    if particles % group:
        raise InputError(f"got particles={particles} for group={group} samples; expected a multiple")
    if math.prod(context.model.shape) > MAX_DIM:
        raise InputError(f"got events of {math.prod(context.model.shape)} numbers; expected at most {MAX_DIM} for "
                         "particles; use method gibbs")
    per_sample = particles // group

    def step(state: State, s: Node) -> State:
        _check_conditions(state, group)
        expanded = _expand_particles(state, per_sample)
        stats, cloud = _reweight(observation, expanded, particles)
        stats, cloud = _resample(stats, cloud, _uniform(state, s, group), threshold)
        xi = torch.stack([state.normal(s, _INNER + k) for k in range(per_sample)], 1).reshape(len(stats.x), -1).double()
        x, pending = _propose(stats, expanded.node, s, xi)
        cloud = replace(cloud, x=x, pending_log_weight=pending.reshape(-1, particles))
        state.model.nfe += per_sample
        out = state.advance(x.reshape(expanded.x.shape)[::per_sample].to(state.x), s, cloud)
        return out if s is not context.nodes[-1] else _select_samples(observation, out, particles, per_sample)

    return step


def _check_conditions(state: State, group: int) -> None:
    """Raise InputError where the samples of one run have different conditions."""
    for name, value in state.model.cond.items():
        if isinstance(value, Tensor) and value.ndim and state.memory is None:
            runs = value.nan_to_num(0.0).reshape(-1, group, *value.shape[1:])
            if not bool((runs == runs[:, :1]).all()):
                raise InputError(f"got different {name} within one run of particles; expected the same for each group "
                                 f"of {group} samples, whose first index is a multiple of {group}")


def _expand_particles(state: State, per_sample: int) -> State:
    """The particles as a batch, with the conditions of their samples."""
    cond = {k: v.repeat_interleave(per_sample, 0) if isinstance(v, Tensor) and v.ndim else v
            for k, v in state.model.cond.items()}
    x = state.x.repeat_interleave(per_sample, 0)
    x = x if state.memory is None else state.memory.x.reshape(x.shape).to(x)
    return replace(state, x=x, model=CountingModel(state.model.model, cond))


def _reweight(observation: Observation, state: State, particles: int) -> tuple[ParticleStats, Particles]:
    """The particles' statistics, and their weights with ψ at this time."""
    posterior = posterior_at(state)
    stats = _statistics(state, posterior, linearize(observation, state, posterior.mean))
    log_twist, previous = stats.log_twist.reshape(-1, particles), state.memory
    if previous is None:
        zero = torch.zeros(len(log_twist), dtype=torch.float64)
        return stats, Particles(stats.x, log_twist, zero, torch.zeros_like(log_twist))
    return stats, replace(previous, log_weight=previous.log_weight + previous.pending_log_weight + log_twist)


def _statistics(state: State, posterior: DenoiserPosterior, local: LinearizedObservation) -> ParticleStats:
    """The moments of x_0 given x_t, without and with y, and log ψ."""
    A, V, r = local.matrix, posterior.matrix, local.residual.double()
    factor = torch.linalg.cholesky(local.system(V))
    half = torch.linalg.solve_triangular(factor, torch.cat([A @ V, r[..., None]], 2), upper=False)
    gain, whitened = half[..., :-1], half[..., -1]
    log_twist = (-0.5 * whitened.square().sum(1) - factor.diagonal(dim1=1, dim2=2).log().sum(1)
                 - 0.5 * math.log(2 * math.pi) * local.observed.sum(1))
    shift, mean = (gain.mT @ whitened[..., None])[..., 0], posterior.mean.flatten(1).double()
    return ParticleStats(state.x.flatten(1).double(), mean, V, shift, V - gain.mT @ gain, log_twist)


def _propose(stats: ParticleStats, t: Node, s: Node, xi: Tensor) -> tuple[Tensor, Tensor]:
    """A sample of q for every particle, from standard normals, and log p/(q ψ), (N,)."""
    a, b, noise = bridge(t, s)
    eye = noise * torch.eye(stats.x.shape[1], dtype=torch.float64)
    prior_factor, guided_factor = (torch.linalg.cholesky(eye + b**2 * C) for C in (stats.cov, stats.guided_cov))
    move = (guided_factor @ xi[..., None])[..., 0]
    whitened = torch.linalg.solve_triangular(prior_factor, (b * stats.shift + move)[..., None], upper=False)[..., 0]
    log_q = -0.5 * xi.square().sum(1) - _log_det(guided_factor)
    log_p = -0.5 * whitened.square().sum(1) - _log_det(prior_factor)
    return a * stats.x + b * (stats.mean + stats.shift) + move, log_p - log_q - stats.log_twist


def _resample(stats: ParticleStats, cloud: Particles, u: Tensor, threshold: float) -> tuple[ParticleStats, Particles]:
    """Systematic resampling of the runs whose effective sample size is below threshold · P."""
    g, p = cloud.log_weight.shape
    weights = cloud.log_weight.softmax(1)
    degenerate = 1 / weights.square().sum(1) < threshold * p
    rows = torch.where(degenerate[:, None], _systematic(weights, u, p), torch.arange(p).expand(g, p))
    log_weight = torch.where(degenerate[:, None], 0.0, cloud.log_weight)
    log_evidence = torch.where(degenerate, cloud.total, cloud.log_evidence)
    index = (rows + p * torch.arange(g)[:, None]).flatten()
    return stats.select(index), replace(cloud, log_weight=log_weight, log_evidence=log_evidence)


def _systematic(weights: Tensor, u: Tensor, count: int) -> Tensor:
    """`count` rows (G, count) sampled with probabilities weights (G, P) from one uniform number u (G,) per run."""
    quantiles = (u[:, None] + torch.arange(count, dtype=torch.float64)) / count
    return torch.searchsorted(weights.cumsum(1).contiguous(), quantiles).clamp_max(weights.shape[1] - 1)


def _select_samples(observation: Observation, state: State, particles: int, per_sample: int) -> State:
    """The samples, drawn from the particles at the last time, with the evidence."""
    stats, cloud = _reweight(observation, _expand_particles(state, per_sample), particles)
    group = particles // per_sample
    state.model.nfe += per_sample
    state.model.log_evidence = cloud.total.repeat_interleave(group)
    rows = _systematic(cloud.log_weight.softmax(1), _uniform(state, state.node, group), group)
    index = rows + particles * torch.arange(len(rows))[:, None]
    return replace(state, x=stats.x[index.flatten()].reshape(state.x.shape).to(state.x))


def _uniform(state: State, s: Node, group: int) -> Tensor:
    """A uniform number for every run, from a normal of its first sample."""
    z = state.normal(s, _RESAMPLE).flatten(1)[::group, 0].double()
    return torch.as_tensor(torch.special.ndtr(z)).cpu()


def _log_det(factor: Tensor) -> Tensor:
    """log det of a triangular matrix."""
    return factor.diagonal(dim1=1, dim2=2).log().sum(1)
