"""Twisted sequential Monte Carlo: particles that are led by the guess and weighted by what the guess got wrong.

At x_t the denoiser believes x_0 ~ N(D, V), so y ~ N(A D, S) with S = A V Aᵀ + R: the twist ψ_t(x_t). A step of the
reverse SDE with that belief is the Gaussian p(x_s | x_t) = N(a x_t + b D, c² I + b² V), and given y it is

    q(x_s | x_t) = N(a x_t + b D_y, c² I + b² V_y)        D_y = D + V Aᵀ S⁻¹ (y − A D), V_y = V − V Aᵀ S⁻¹ A V

Particles move by q and have their weights multiplied by p ψ_s/(q ψ_t). Whatever ψ is, the particles' law tends to that
of p(x | y) under the steps p as their number grows, and the product of the mean weights is an unbiased estimate of
p(y).

Reference: Wu et al. (2023), "Practical and asymptotically exact conditional sampling", algorithm 1. arXiv:2306.17775.
The covariance in twist and step: Rozet et al. (2024), arXiv:2405.13712; Boys et al. (2023), arXiv:2310.06721.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.inverse.belief import Belief
from undiffuse.inverse.methods import believed, near
from undiffuse.inverse.observation import Local, Observation
from undiffuse.steps.matched import bridge
from undiffuse.steps.method import Plan
from undiffuse.steps.state import Counted, Node, State, Step

_RESAMPLE, _INNER = 60, 64
MOST = 256
"""The greatest number of coordinates for which a covariance for every particle is bearable."""


@dataclass(frozen=True)
class Cloud:
    """The particles (G P, d) of G runs, their log weights (G, P), the log evidence (G,) up to the last resampling, and
    the log of p/(q ψ) (G, P) of the last move.
    """

    x: Tensor
    log_weight: Tensor
    evidence: Tensor
    owed: Tensor

    @property
    def total(self) -> Tensor:
        """The estimate of log p(y), (G,)."""
        return self.evidence + self.log_weight.logsumexp(1) - math.log(self.log_weight.shape[1])


@dataclass(frozen=True)
class View:
    """What particles (N, d) see: x, D, V, the gain's move D_y − D, V_y, and log ψ (N,); float64."""

    x: Tensor
    mean: Tensor
    cov: Tensor
    shift: Tensor
    left: Tensor
    twist: Tensor

    def at(self, rows: Tensor) -> View:
        """The same of some particles."""
        return View(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def twisted(observation: Observation, plan: Plan, *, particles: int = 256, group: int = 64, threshold: float = 0.5
            ) -> Step:
    """A run of `particles` gives the `group` samples whose indices begin at a multiple of it.

    A run is resampled where its effective size falls below `threshold` of its particles, and at the end.
    """
    if particles % group:
        raise InputError(f"got particles={particles} for group={group} samples; expected a multiple")
    if math.prod(plan.model.shape) > MOST:
        raise InputError(f"got events of {math.prod(plan.model.shape)} numbers; particles need at most {MOST}, so use "
                         "method gibbs")
    many = particles // group

    def step(state: State, s: Node) -> State:
        _alike(state, group)
        here = _many(state, many)
        view, cloud = _weighed(observation, here, particles)
        view, cloud = _resampled(view, cloud, _uniform(state, s, group), threshold)
        xi = torch.stack([state.normal(s, _INNER + k) for k in range(many)], 1).reshape(len(view.x), -1).double()
        x, owed = _moved(view, here.node, s, xi)
        cloud = replace(cloud, x=x, owed=owed.reshape(-1, particles))
        state.model.calls += many
        out = state.moved(x.reshape(here.x.shape)[::many].to(state.x), s, cloud)
        return out if s is not plan.nodes[-1] else _ended(observation, out, particles, many)

    return step


def _alike(state: State, group: int) -> None:
    """Raise InputError where the samples of one run have different conditions."""
    for name, value in state.model.cond.items():
        if isinstance(value, Tensor) and value.ndim and state.memory is None:
            runs = value.nan_to_num(0.0).reshape(-1, group, *value.shape[1:])
            if not bool((runs == runs[:, :1]).all()):
                raise InputError(f"got different {name} within one run of particles; expected the same for the {group} "
                                 "samples from every multiple of that index on")


def _many(state: State, many: int) -> State:
    """The particles as a batch of their own, with the conditions of their samples."""
    cond = {k: v.repeat_interleave(many, 0) if isinstance(v, Tensor) and v.ndim else v
            for k, v in state.model.cond.items()}
    x = state.x.repeat_interleave(many, 0)
    x = x if state.memory is None else state.memory.x.reshape(x.shape).to(x)
    return replace(state, x=x, model=Counted(state.model.model, cond))


def _weighed(observation: Observation, state: State, particles: int) -> tuple[View, Cloud]:
    """The particles' views, and their weights with ψ at this time."""
    seen = believed(state)
    view = _view(state, seen, near(observation, state, seen.mean))
    twist, before = view.twist.reshape(-1, particles), state.memory
    if before is None:
        return view, Cloud(view.x, twist, torch.zeros(len(twist), dtype=torch.float64), torch.zeros_like(twist))
    return view, replace(before, log_weight=before.log_weight + before.owed + twist)


def _view(state: State, seen: Belief, local: Local) -> View:
    A, V, r = local.matrix, seen.matrix, local.residual.double()
    factor = torch.linalg.cholesky(local.system(V))
    half = torch.linalg.solve_triangular(factor, torch.cat([A @ V, r[..., None]], 2), upper=False)
    gain, whitened = half[..., :-1], half[..., -1]
    twist = (-0.5 * whitened.square().sum(1) - factor.diagonal(dim1=1, dim2=2).log().sum(1)
             - 0.5 * math.log(2 * math.pi) * local.seen.sum(1))
    shift = (gain.mT @ whitened[..., None])[..., 0]
    return View(state.x.flatten(1).double(), seen.mean.flatten(1).double(), V, shift, V - gain.mT @ gain, twist)


def _moved(view: View, t: Node, s: Node, xi: Tensor) -> tuple[Tensor, Tensor]:
    """A draw of q for every particle, from standard normals, and log p/(q ψ), (N,)."""
    keep, share, noise = bridge(t, s)
    eye = noise * torch.eye(view.x.shape[1], dtype=torch.float64)
    free, led = (torch.linalg.cholesky(eye + share**2 * C) for C in (view.cov, view.left))
    move = (led @ xi[..., None])[..., 0]
    back = torch.linalg.solve_triangular(free, (share * view.shift + move)[..., None], upper=False)[..., 0]
    log_q = -0.5 * xi.square().sum(1) - _log_det(led)
    log_p = -0.5 * back.square().sum(1) - _log_det(free)
    return keep * view.x + share * (view.mean + view.shift) + move, log_p - log_q - view.twist


def _resampled(view: View, cloud: Cloud, u: Tensor, threshold: float) -> tuple[View, Cloud]:
    """The particles after systematic resampling of those runs whose effective size is below threshold · P."""
    g, p = cloud.log_weight.shape
    share = cloud.log_weight.softmax(1)
    poor = 1 / share.square().sum(1) < threshold * p
    rows = torch.where(poor[:, None], _systematic(share, u, p), torch.arange(p).expand(g, p))
    log_weight = torch.where(poor[:, None], 0.0, cloud.log_weight)
    evidence = torch.where(poor, cloud.total, cloud.evidence)
    place = (rows + p * torch.arange(g)[:, None]).flatten()
    return view.at(place), replace(cloud, log_weight=log_weight, evidence=evidence)


def _systematic(share: Tensor, u: Tensor, count: int) -> Tensor:
    """`count` rows (G, count) drawn with probabilities share (G, P) by one uniform number u (G,) each."""
    teeth = (u[:, None] + torch.arange(count, dtype=torch.float64)) / count
    return torch.searchsorted(share.cumsum(1).contiguous(), teeth).clamp_max(share.shape[1] - 1)


def _ended(observation: Observation, state: State, particles: int, many: int) -> State:
    """The samples, drawn from the particles at the last time, with the evidence."""
    view, cloud = _weighed(observation, _many(state, many), particles)
    group = particles // many
    state.model.calls += many
    state.model.evidence = cloud.total.repeat_interleave(group)
    rows = _systematic(cloud.log_weight.softmax(1), _uniform(state, state.node, group), group)
    place = rows + particles * torch.arange(len(rows))[:, None]
    return replace(state, x=view.x[place.flatten()].reshape(state.x.shape).to(state.x))


def _uniform(state: State, s: Node, group: int) -> Tensor:
    """A uniform number for every run, from a normal of its first sample."""
    z = state.normal(s, _RESAMPLE).flatten(1)[::group, 0].double()
    return torch.as_tensor(torch.special.ndtr(z)).cpu()


def _log_det(factor: Tensor) -> Tensor:
    return factor.diagonal(dim1=1, dim2=2).log().sum(1)
