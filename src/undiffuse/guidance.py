"""Guidance: wrappers that move a denoiser towards a condition; they work with every sampler and the likelihood.

    D_w = D_0 + w (D_1 − D_0)

is the common form: w = 1 is D_1, w = 0 is D_0, w > 1 extrapolates. For w > 1 it is not the denoiser of p(x) p(c | x)^w:
it is the score of such a density at each single time, but the densities of different times do not form one diffusion.

Reference: Ho and Salimans (2022), arXiv:2207.12598; Bradley and Nakkiran (2024), arXiv:2408.09000.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.model import Denoiser, FixedConditions, Model, Wrapper
from undiffuse.sde import Time, as_time, bcast
from undiffuse.tensors import ArrayLike, leaf_of
from undiffuse.wrappers import TransparentWrapper

Interval = tuple[float, float] | None
"""Noise levels low < σ̂ = σ/α ≤ high at which guidance is active; None: all."""
Combine = Callable[[Tensor, Tensor, float, Tensor, Time], Tensor]
"""Function (D_1, D_1 − D_0, w, x, t) -> guided D."""
Affine = Callable[[Tensor, Time], tuple[Tensor | float, Tensor | float]]
"""Function (x, t) -> (a, b) of an affine map from a quantity F to D = a x + b F."""


class ExtrapolationGuidance(Wrapper):
    """D_1 + (w − 1)(D_1 − D_0) inside the interval, D_1 outside of it; `combine` replaces the sum.

    `plain`: it is classifier-free guidance without any option, for which a tuned model has samplers.
    """

    def __init__(self, towards: Model, away: Model, scale: float, interval: Interval = None,
                 combine: Combine | None = None) -> None:
        super().__init__(towards)
        _check_scale(scale)
        self.away, self.scale, self.interval = away, scale, _check_interval(interval)
        self.combine = combine or (lambda D, difference, w, x, t: D + (w - 1) * difference)
        self.plain = False

    def denoise(self, x: ArrayLike, t: Time, **cond: Any) -> Tensor:
        """The guided D."""
        x = self.states(x)
        active = _is_active(self, x, t)
        if self.scale == 1 or not bool(active.any()):
            return self.inner.denoise(x, t, **cond)
        if isinstance(self.away, OverrideConditions) and self.away.inner is self.inner:
            D, away = denoise_each(self.inner, x, t, [cond, self.away.replaced(cond)])
        else:
            D, away = self.inner.denoise(x, t, **cond), self.away.denoise(x, t, **cond)
        guided = self.combine(D, D - away, self.scale, x, t)
        return guided if bool(active.all()) else torch.where(bcast(active.to(x), x) > 0, guided, D)


class OverrideConditions(Wrapper):
    """Replaces conditions of the call by `replacements`, or drops all of them (None)."""

    def __init__(self, inner: Model, replacements: Mapping[str, Any] | None) -> None:
        super().__init__(inner)
        self.replacements = replacements

    def denoise(self, x: ArrayLike, t: Time, **cond: Any) -> Tensor:
        """D(x, t | the replaced conditions)."""
        return self.inner.denoise(self.states(x), t, **self.replaced(cond))

    def replaced(self, cond: dict[str, Any]) -> dict[str, Any]:
        """The conditions that the inner model receives instead of `cond`."""
        return {} if self.replacements is None else {**cond, **self.replacements}


class ClassifierGuidance(Wrapper):
    """D + w (σ²/α) ∇_x log p(c | x_t) with a noise-conditional classifier."""

    def __init__(self, inner: Model, log_prob: Callable[..., Tensor], scale: float, interval: Interval = None) -> None:
        super().__init__(inner)
        _check_scale(scale)
        self.log_prob, self.scale, self.interval = log_prob, scale, _check_interval(interval)

    def denoise(self, x: ArrayLike, t: Time, *, label: Any = None, **cond: Any) -> Tensor:
        """The guided D; without a label, the unguided D."""
        x = self.states(x)
        D = self.inner.denoise(x, t, **cond)
        if label is None or self.scale == 0:
            return D
        leaf = leaf_of(x)
        with torch.enable_grad():
            log_prob = self.log_prob(leaf, t).gather(1, torch.as_tensor(label, device=x.device).expand(len(x))[:, None])
            (gradient,) = torch.autograd.grad(log_prob.sum(), leaf, create_graph=leaf is x)
        t = as_time(t)
        weight = self.scale * _is_active(self, x, t) * self.sde.variance(t) / self.sde.alpha(t)
        return D + bcast(weight.to(x), x) * gradient.to(x)


class CompositionalGuidance(Wrapper):
    """D_0 + Σ_k w_k (D(c_k) − D_0): several conditions with separate scales."""

    def __init__(self, inner: Model, scales: Mapping[str, float], interval: Interval = None) -> None:
        super().__init__(inner)
        for scale in scales.values():
            _check_scale(scale)
        self.scales, self.interval = dict(scales), _check_interval(interval)

    def denoise(self, x: ArrayLike, t: Time, **cond: Any) -> Tensor:
        """The guided D; conditions without a scale enter every term."""
        x = self.states(x)
        fixed = {k: v for k, v in cond.items() if k not in self.scales}
        active = _is_active(self, x, t).to(x)
        names = [name for name in self.scales if cond.get(name) is not None]
        unconditional, *towards = denoise_each(self.inner, x, t, [fixed, *({**fixed, k: cond[k]} for k in names)])
        D = unconditional
        for name, conditional in zip(names, towards, strict=True):
            D = D + bcast(1 + (self.scales[name] - 1) * active, x) * (conditional - unconditional)
        return D


def denoise_each(model: Model, x: Tensor, t: Time, conditions: Sequence[Mapping[str, Any]]) -> list[Tensor]:
    """D(x, t | c) for each set of conditions c; a network that `joins_conditions` is called once for all of them.

    Args:
        model: the model.
        x: states (B, *shape).
        t: times, () or (B,).
        conditions: the sets of conditions, by name.
    """
    net: Model = model
    while isinstance(net, TransparentWrapper):
        net = net.inner
    if not isinstance(net, Denoiser) or not net.joins_conditions or len(conditions) == 1:
        return [model.denoise(x, t, **cond) for cond in conditions]
    joined = {k: v for cond in conditions for k, v in cond.items() if k not in net.condition_names}  # an error
    if net.classes:
        joined["label"] = torch.cat([torch.as_tensor(net.classes if (label := cond.get("label")) is None else label,
                                                     device=x.device).expand(len(x)) for cond in conditions])
    for c in net.conditions:
        joined[c.name] = torch.cat([c.rows(cond.get(c.name), len(x)).to(x.device) for cond in conditions])
    t = as_time(t)
    D = model.denoise(torch.cat([x] * len(conditions)), torch.cat([t] * len(conditions)) if t.ndim else t, **joined)
    return list(D.chunk(len(conditions)))


def classifier_free(model: Model, guidance_scale: float | Mapping[str, float] = 2.0, *, interval: Interval = None,
                    negative: Mapping[str, Any] | None = None, rescale: float = 0.0,
                    rescale_of: Literal["denoised", "output"] = "denoised", projected: bool = False) -> Model:
    """Classifier-free guidance D_∅ + w (D_c − D_∅), c the conditions of the call.

    A model whose guidance was tuned (`tuning.tune_guided`) keeps its tuned sampler if only w is given.

    Args:
        model: Model trained with conditions that were dropped at random.
        guidance_scale: w (1: conditional, 0: unconditional, above 1: stronger), or one w_k per condition by name,
            D_∅ + Σ_k w_k (D_{c_k} − D_∅).
        interval: (low, high), noise levels σ̂ = σ/α at which guidance is active; conditional elsewhere.
        negative: Conditions that replace ∅, such as {"label": 3}.
        rescale: Fraction, 0 to 1, by which the standard deviation of the guided D is reset to the one of D_c.
        rescale_of: "output": it is the network's output whose deviation is reset, as diffusers' guidance_rescale does.
        projected: Whether to drop the part of the difference parallel to D_c (APG).

    Returns:
        The guided model.

    Raises:
        InputError: For scales that are not finite, and for several scales with negative, rescale or projected.

    Reference: Ho and Salimans (2022), eq. 6, arXiv:2207.12598; Kynkäänniemi et al. (2024), arXiv:2404.07724; Lin et al.
    (2024), section 3.4, arXiv:2305.08891; Sadat et al. (2025), arXiv:2410.02416; Liu et al. (2022), arXiv:2206.01714.
    """
    if isinstance(model, FixedConditions):
        fixed = classifier_free(model.inner, guidance_scale, interval=interval, negative=negative, rescale=rescale,
                                rescale_of=rescale_of, projected=projected)
        return fixed.given(**model.cond)
    if isinstance(guidance_scale, Mapping):
        if negative or rescale or projected:
            raise InputError("got several scales with negative, rescale or projected; expected one scale with those")
        return CompositionalGuidance(model, guidance_scale, interval)
    if not 0 <= rescale <= 1:
        raise InputError(f"got rescale={rescale}; expected a number from 0 to 1")
    guided = ExtrapolationGuidance(model, OverrideConditions(model, negative), guidance_scale, interval,
                                   _combined(rescale, projected, _scaled_quantity(model, rescale_of)))
    guided.plain = interval is None and negative is None and not rescale and not projected
    return guided


def with_guidance(model: Model, guidance_scale: float | Mapping[str, float], names: Sequence[str]) -> Model:
    """Classifier-free guidance, or the model itself at scale 1.

    Raises InputError for a scale of a condition that is not in `names`, the conditions of the call.

    Args:
        model: the model to guide.
        guidance_scale: scale w, one number or one by condition; 1: no guidance.
        names: names of the conditions of the call.
    """
    if guidance_scale == 1:
        return model
    unknown = [name for name in guidance_scale if name not in names] if isinstance(guidance_scale, Mapping) else []
    if unknown or not names:
        which = f"of {unknown[0]} without {unknown[0]}" if unknown else "without a condition"
        raise InputError(f"got guidance_scale {which}; add a label or a condition")
    return classifier_free(model, guidance_scale)


def autoguidance(model: Model, weaker: Model, guidance_scale: float = 2.0, *, interval: Interval = None) -> Model:
    """Autoguidance D_weak + w (D − D_weak): away from the errors of a weaker model, with equal conditions.

    Args:
        model: The model D.
        weaker: A smaller model, or an earlier checkpoint, of the same process and shape.
        guidance_scale: w.
        interval: (low, high), noise levels at which guidance is active.

    Reference: Karras et al. (2024), eq. 3. arXiv:2406.02507
    """
    if weaker.sde != model.sde or weaker.shape != model.shape:
        raise InputError("got a weaker model of another process or shape; expected equal ones")
    return ExtrapolationGuidance(model, weaker, guidance_scale, interval)


def classifier_guidance(model: Model, log_prob: Callable[..., Tensor], guidance_scale: float = 1.0, *,
                        interval: Interval = None) -> Model:
    """Classifier guidance D + w (σ²/α) ∇_x log p(c | x_t), exact at w = 1 for an exact classifier.

    Args:
        model: Unconditional model; `label=` becomes a condition.
        log_prob: Function (x, t) -> log-probabilities (B, classes) at noise level t, differentiable in x.
        guidance_scale: w.
        interval: (low, high), noise levels at which guidance is active.

    Reference: Dhariwal and Nichol (2021), algorithm 1. arXiv:2105.05233
    """
    return ClassifierGuidance(model, log_prob, guidance_scale, interval)


def _scaled_quantity(model: Model, name: str) -> Affine:
    """The quantity whose deviation is reset: D itself, or the output of the network."""
    if name == "denoised":
        return lambda x, t: (0.0, 1.0)
    while isinstance(model, Wrapper):
        model = model.inner
    if name != "output" or not isinstance(model, Denoiser):
        raise InputError(f"got rescale_of={name!r} for a {type(model).__name__}; expected denoised, or output for a "
                         "network")
    reading, sde = model.reading, model.sde

    def coefficients(x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        _, a, b = reading.coefficients(sde, as_time(t))
        return bcast(a, x), bcast(b, x)

    return coefficients


def _combined(rescale: float, projected: bool, quantity: Affine) -> Combine:
    """The function that combines D_c and D_c − D_∅."""

    def combine(D: Tensor, difference: Tensor, w: float, x: Tensor, t: Time) -> Tensor:
        step = difference
        if projected:
            step = difference - _projection_coefficient(difference, D) * D
        guided = D + (w - 1) * step
        if rescale:
            a, b = quantity(x, t)
            F, G = (D - a * x) / b, (guided - a * x) / b
            guided = a * x + b * G * bcast(1 + rescale * (_std(F) / _std(G).clamp_min(1e-12) - 1), D)
        return guided

    return combine


def _projection_coefficient(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩/⟨b, b⟩ per sample, reshaped to multiply b."""
    rows, direction = a.flatten(1), b.flatten(1)
    return bcast((rows * direction).sum(1) / direction.square().sum(1).clamp_min(1e-12), b)


def _std(x: Tensor) -> Tensor:
    """The standard deviation over the entries of each sample, (B,)."""
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
    if isinstance(scale, str) or not math.isfinite(scale):
        raise InputError(f"got guidance_scale={scale!r}; expected a finite number")
