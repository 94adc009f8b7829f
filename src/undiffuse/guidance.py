"""Guidance: denoisers that lean towards a condition. Every one works with every sampler, the ODE and the likelihood.

    D_w = D_0 + w (D_1 − D_0)

is the form of almost all: w = 1 is D_1, w = 0 is D_0, w > 1 goes past D_1. None of them for w > 1 is the denoiser of a
law p(x) p(c | x)^w, although it is the score of one at every single time: the laws of different times do not belong to
one diffusion.

Reference: Ho and Salimans (2022), arXiv:2207.12598; Bradley and Nakkiran (2024), arXiv:2408.09000 for what it samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.model import FixedConditions, Model, Wrapper
from undiffuse.sde import Time, as_time, bcast
from undiffuse.tensors import ArrayLike

Interval = tuple[float, float] | None
"""The noise levels σ̂ = σ/α, low < σ̂ ≤ high, at which guidance acts; None: all."""
Combine = Callable[[Tensor, Tensor, float], Tensor]
"""The guided D from (D_1, D_1 − D_0, w)."""


class ExtrapolationGuidance(Wrapper):
    """D_1 + (w − 1)(D_1 − D_0) inside the interval, D_1 outside of it; `combine` replaces the sum.

    `plain`: it is classifier-free guidance without any option, for which a tuned model has samplers.
    """

    def __init__(self, towards: Model, away: Model, scale: float, interval: Interval = None,
                 combine: Combine | None = None) -> None:
        super().__init__(towards)
        _check_scale(scale)
        self.away, self.scale, self.interval = away, scale, _check_interval(interval)
        self.combine = combine or (lambda D, difference, w: D + (w - 1) * difference)
        self.plain = False

    def denoise(self, x: ArrayLike, t: Time, **cond: Any) -> Tensor:
        """The guided D."""
        x = self.states(x)
        D = self.inner.denoise(x, t, **cond)
        acts = _is_active(self, x, t)
        if self.scale == 1 or not bool(acts.any()):
            return D
        guided = self.combine(D, D - self.away.denoise(x, t, **cond), self.scale)
        return guided if bool(acts.all()) else torch.where(bcast(acts.to(x), x) > 0, guided, D)


class OverrideConditions(Wrapper):
    """A model that is told other conditions than those of the call: `said` in their place, or nothing at all."""

    def __init__(self, inner: Model, said: Mapping[str, Any] | None) -> None:
        super().__init__(inner)
        self.said = said

    def denoise(self, x: ArrayLike, t: Time, **cond: Any) -> Tensor:
        """D(x, t | what it is told)."""
        return self.inner.denoise(self.states(x), t, **({} if self.said is None else {**cond, **self.said}))


class ClassifierGuidance(Wrapper):
    """D + w (σ²/α) ∇_x log p(c | x_t) of a classifier that knows the noise level."""

    def __init__(self, inner: Model, log_prob: Callable[..., Tensor], scale: float, interval: Interval = None) -> None:
        super().__init__(inner)
        _check_scale(scale)
        self.log_prob, self.scale, self.interval = log_prob, scale, _check_interval(interval)

    def denoise(self, x: ArrayLike, t: Time, *, label: Any = None, **cond: Any) -> Tensor:
        """The guided D; without a label the model's own."""
        x = self.states(x)
        D = self.inner.denoise(x, t, **cond)
        if label is None or self.scale == 0:
            return D
        with torch.enable_grad():
            at = x.detach().requires_grad_(True)
            chosen = self.log_prob(at, t).gather(1, torch.as_tensor(label, device=x.device).expand(len(x))[:, None])
            (slope,) = torch.autograd.grad(chosen.sum(), at)
        t = as_time(t)
        weight = self.scale * _is_active(self, x, t) * self.sde.variance(t) / self.sde.alpha(t)
        return D + bcast(weight.to(x), x) * slope.to(x)


class CompositionalGuidance(Wrapper):
    """D_0 + Σ_k w_k (D(c_k) − D_0): several conditions, each with a scale of its own."""

    def __init__(self, inner: Model, scales: Mapping[str, float], interval: Interval = None) -> None:
        super().__init__(inner)
        for scale in scales.values():
            _check_scale(scale)
        self.scales, self.interval = dict(scales), _check_interval(interval)

    def denoise(self, x: ArrayLike, t: Time, **cond: Any) -> Tensor:
        """The guided D; conditions without a scale are given to every term."""
        x = self.states(x)
        fixed = {k: v for k, v in cond.items() if k not in self.scales}
        acts = _is_active(self, x, t).to(x)
        D = free = self.inner.denoise(x, t, **fixed)
        for name in (name for name in self.scales if cond.get(name) is not None):
            weight = bcast(1 + (self.scales[name] - 1) * acts, x)
            D = D + weight * (self.inner.denoise(x, t, **fixed, **{name: cond[name]}) - free)
        return D


def classifier_free(model: Model, guidance_scale: float | Mapping[str, float] = 2.0, *, interval: Interval = None,
                    negative: Mapping[str, Any] | None = None, rescale: float = 0.0,
                    projected: bool = False) -> Model:
    """D_∅ + w (D_c − D_∅), c the conditions of the call: w = 1 conditional, w = 0 unconditional, w > 1 past it.

    model: trained with conditions that were hidden now and then. guidance_scale: w, or one for each condition by name,
    D_∅ + Σ w_k (D_{c_k} − D_∅). interval: (low, high), the noise levels σ̂ = σ/α at which it acts; conditional
    elsewhere. negative: conditions to go away from, in place of none: {"label": 3}. rescale: how much (0 to 1) of the
    guided D's deviation is set back to that of D_c. projected: leave out what is parallel to D_c (APG).
    A model whose guidance was tuned (`tuning.tune_guided`) is then sampled as fitted, if w is all that is given.

    Reference: Ho and Salimans (2022), eq. 6, arXiv:2207.12598; Kynkäänniemi et al. (2024), arXiv:2404.07724; Lin et al.
    (2024), section 3.4, arXiv:2305.08891; Sadat et al. (2025), arXiv:2410.02416; Liu et al. (2022), arXiv:2206.01714.
    """
    if isinstance(model, FixedConditions):
        fixed = classifier_free(model.inner, guidance_scale, interval=interval, negative=negative, rescale=rescale,
                                projected=projected)
        return fixed.given(**model.cond)
    if isinstance(guidance_scale, Mapping):
        if negative or rescale or projected:
            raise InputError("got several scales with negative, rescale or projected; expected one scale with those")
        return CompositionalGuidance(model, guidance_scale, interval)
    if not 0 <= rescale <= 1:
        raise InputError(f"got rescale={rescale}; expected a number from 0 to 1")
    guided = ExtrapolationGuidance(
        model, OverrideConditions(model, negative), guidance_scale, interval, _combined(rescale, projected)
    )
    guided.plain = interval is None and negative is None and not rescale and not projected
    return guided


def with_guidance(model: Model, guidance_scale: float | Mapping[str, float], told: Sequence[str]) -> Model:
    """The model under classifier-free guidance, or as it is at scale 1; told: the conditions that it is told.

    Raises InputError for a scale of what it is not told.
    """
    if guidance_scale == 1:
        return model
    unknown = [name for name in guidance_scale if name not in told] if isinstance(guidance_scale, Mapping) else []
    if unknown or not told:
        of = f"of {unknown[0]} without {unknown[0]}" if unknown else "alone"
        raise InputError(f"got guidance_scale {of}; expected a label or a condition to lean towards")
    return classifier_free(model, guidance_scale)


def autoguidance(model: Model, weaker: Model, guidance_scale: float = 2.0, *, interval: Interval = None) -> Model:
    """D_bad + w (D_good − D_bad): away from what a smaller model, or an earlier state of this one, gets wrong.

    Both see the same conditions. Reference: Karras et al. (2024), eq. 3. arXiv:2406.02507
    """
    if weaker.sde != model.sde or weaker.shape != model.shape:
        raise InputError("got a weaker model of another process or shape; expected the same ones")
    return ExtrapolationGuidance(model, weaker, guidance_scale, interval)


def classifier_guidance(model: Model, log_prob: Callable[..., Tensor], guidance_scale: float = 1.0, *,
                        interval: Interval = None) -> Model:
    """D + w (σ²/α) ∇_x log p(c | x_t): w = 1 is exact, if the classifier is.

    model: one without conditions. log_prob(x, t): log-probabilities (B, classes) at noise level t, differentiable in x,
    such as a network trained on noised data. `label=` is then a condition.

    Reference: Dhariwal and Nichol (2021), algorithm 1. arXiv:2105.05233
    """
    return ClassifierGuidance(model, log_prob, guidance_scale, interval)


def _combined(rescale: float, projected: bool) -> Combine:
    """How D_c and D_c − D_∅ become the guided D."""

    def combine(D: Tensor, difference: Tensor, w: float) -> Tensor:
        step = difference
        if projected:
            step = difference - _projection_coefficient(difference, D) * D
        guided = D + (w - 1) * step
        if rescale:
            spread = _std(D) / _std(guided).clamp_min(1e-12)
            guided = guided * bcast(1 + rescale * (spread - 1), D)
        return guided

    return combine


def _projection_coefficient(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩/⟨b, b⟩ of every sample, ready to multiply b."""
    rows, onto = a.flatten(1), b.flatten(1)
    return bcast((rows * onto).sum(1) / onto.square().sum(1).clamp_min(1e-12), b)


def _std(x: Tensor) -> Tensor:
    """The standard deviation over the entries of every sample, (B,)."""
    return x.flatten(1).std(1, unbiased=False)


def _is_active(model: Any, x: Tensor, t: Time) -> Tensor:
    """1.0 where the noise level is in the interval, (B,)."""
    if model.interval is None:
        return torch.ones(len(x), dtype=torch.float64)
    level = torch.exp(-model.sde.log_snr(t).double()).expand(len(x))
    low, high = model.interval
    return torch.as_tensor((level > low) & (level <= high)).double()


def _check_interval(interval: Interval) -> Interval:
    if interval is not None and not 0 <= interval[0] < interval[1]:
        raise InputError(f"got interval={interval}; expected two noise levels with 0 ≤ low < high")
    return interval


def _check_scale(scale: float) -> None:
    if not math.isfinite(scale):
        raise InputError(f"got guidance_scale={scale}; expected a finite number")
