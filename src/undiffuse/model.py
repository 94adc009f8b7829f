"""Models: the denoiser D(x, t) = E[x_0 | x_t], from which score, noise and velocity follow.

A network becomes a denoiser by three numbers (`predictions`). Guidance and conditions wrap a `Model`.

Reference: Efron (2011), Tweedie's formula.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from undiffuse.delegation import delegated, keywords
from undiffuse.errors import InputError, unknown_condition
from undiffuse.moments import Moments
from undiffuse.moments.conditional import Regression, features_of
from undiffuse.predictions import UNDEFINED_AT_ZERO, WIENER, WITH_MOMENTS, Clip, Reading
from undiffuse.random import Purpose, normal
from undiffuse.sde import SDE, GaussianSDE, Time, as_time, bcast, cast_like
from undiffuse.tensors import REAL, ArrayLike, as_rows
from undiffuse.transforms.array_schema import ArraySchema
from undiffuse.transforms.base import Identity, Transform
from undiffuse.transforms.conditions import Condition
from undiffuse.transforms.table_schema import TableSchema


class ReverseModel(nn.Module, ABC):
    """A model whose SDE can be run backwards: it has a process, a prior at T and the drift of the reverse SDE."""

    shape: tuple[int, ...]
    transform: Transform = Identity()
    classes: int = 0
    conditions: tuple[Condition, ...] = ()
    schema: TableSchema | None = None
    array: ArraySchema | None = None
    block: int = 256
    splits_blocks: bool = False
    clip: Clip | None = None

    @abstractmethod
    def process(self) -> SDE:
        """The forward process."""

    @abstractmethod
    def reverse_drift(self, x: Tensor, t: Time, eta: float = 1.0, **cond: Any) -> Tensor:
        """f − ½ (1 + η²) g² ∇log p_t, the drift of the reverse SDE that has noise η g; η = 0 is the ODE's velocity.

        Reference: Song et al. (2021), eqs. 6 and 13; Anderson (1982) for η = 1.
        """

    @abstractmethod
    def score(self, x: Tensor, t: Time, **cond: Any) -> Tensor:
        """∇log p_t(x)."""

    def denoise(self, x: Tensor, t: Time, **cond: Any) -> Tensor:
        """E[x_0 | x_t]; only a model of a Gaussian process has one."""
        raise InputError("got a model that has a score but no denoiser; use a method that needs the drift only")

    @abstractmethod
    def prior_sample(self, n: int, seed: int, first_index: int, t: float | None = None) -> Tensor:
        """Samples (n, *shape) of the prior at t (default T), by sample index.

        Args:
            n: number of samples.
            seed: seed of the random numbers.
            first_index: index of the first sample.
            t: time; None: T.
        """

    def encode_conditions(self, cond: dict[str, Any], n: int) -> dict[str, Any]:
        """The conditions of a call with named ones encoded as numeric rows, one per sample.

        Raises InputError for a value that a condition cannot have.
        """
        rows = {c.name: c.rows(cond[c.name], n) for c in self.conditions if cond.get(c.name) is not None}
        for c in self.conditions:
            if c.name in rows:
                c.check(rows[c.name])
        return {**cond, **rows}

    @property
    def device(self) -> torch.device:
        """Where the parameters are; the CPU for a model without any."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of states: that of the parameters or buffers, float32 where they have less or there are none."""
        return next((v.dtype for v in chain(self.parameters(), self.buffers()) if v.dtype in REAL), torch.float32)

    @property
    def condition_names(self) -> tuple[str, ...] | None:
        """The keywords of `denoise` other than x and t; None if it takes any."""
        return keywords(self.denoise)

    def states(self, x: ArrayLike, name: str = "x") -> Tensor:
        """x (B, *shape) in model units as a tensor, in `dtype` unless it is float32 or float64; see `as_rows`."""
        if isinstance(x, Tensor) and x.dtype in REAL and x.shape[1:] == self.shape and x.layout == torch.strided:
            return x
        return as_rows(x, name, self.shape, self.dtype)

    def __repr__(self) -> str:
        parts = [type(self.process()).__name__, f"shape={tuple(self.shape)}", *self._about()]
        return f"{type(self).__name__}({', '.join(parts)})"

    def _about(self) -> list[str]:
        """The part of the `repr` after process and shape."""
        return [f"classes={self.classes}"] * (self.classes > 0) + [c.name for c in self.conditions]


class Model(ReverseModel):
    """A denoiser D(x, t) = E[x_0 | x_t] of a Gaussian process; x is (B, *shape) in model units, t is () or (B,).

    `moments` are the data's, None where they are not known.
    """

    sde: GaussianSDE
    sigma_data: float = 0.5
    moments: Moments | None = None
    kind: str = "denoiser"

    @property
    def moments_are_exact(self) -> bool:
        """Whether `moments` describe the distribution that the model samples without conditions."""
        return self.moments is not None

    def moments_given(self, cond: dict[str, Any]) -> Moments | None:
        """The moments of the data under conditions; `moments` unless a linear part of the model depends on them."""
        return self.moments

    @abstractmethod
    def denoise(self, x: Tensor, t: Time, **cond: Any) -> Tensor:
        """E[x_0 | x_t = x], shaped like x."""

    def divergence(self, x: Tensor, t: Time, **cond: Any) -> Tensor | None:
        """∇·D(x, t) per sample (B,), if the model has a closed form; otherwise None."""
        return None

    def forward(self, x: Tensor, t: Time, **cond: Any) -> Tensor:
        """`denoise`."""
        return self.denoise(x, t, **cond)

    def given(self, **cond: Any) -> Model:
        """The model with conditions fixed: `model.given(label=4)`."""
        return FixedConditions(self, cond)

    def process(self) -> GaussianSDE:
        """The Gaussian process."""
        return self.sde

    def score(self, x: ArrayLike, t: Time, **cond: Any) -> Tensor:
        """∇log p_t(x) = (α D − x)/σ² (Tweedie's formula)."""
        x = self.states(x)
        return self.score_of(x, t, self.denoise(x, t, **cond))

    def score_of(self, x: Tensor, t: Time, D: Tensor) -> Tensor:
        """(α D − x)/σ², the score that belongs to D(x, t)."""
        alpha, variance = self.sde.alpha(as_time(t)), self.sde.variance(as_time(t))
        return (bcast(alpha, x) * D - x) / bcast(variance, x)

    def noise(self, x: ArrayLike, t: Time, **cond: Any) -> Tensor:
        """E[ε | x_t] = (x − α D)/σ = −σ ∇log p_t(x)."""
        return self._noise(x := self.states(x), t, self.denoise(x, t, **cond))

    def velocity(self, x: ArrayLike, t: Time, **cond: Any) -> Tensor:
        """The probability-flow velocity E[α' x_0 + σ' ε | x_t], finite also where α(T) = 0."""
        return self.reverse_drift(x, t, 0.0, **cond)

    def reverse_drift(self, x: ArrayLike, t: Time, eta: float = 1.0, **cond: Any) -> Tensor:
        """α' D + σ' ε̂ + ½ η² (g²/σ) ε̂, from one evaluation; decreasing t."""
        return self.drift_of(x := self.states(x), t, eta, self.denoise(x, t, **cond))

    def drift_of(self, x: Tensor, t: Time, eta: float, D: Tensor) -> Tensor:
        """The `reverse_drift` that belongs to D(x, t)."""
        eps = self._noise(x, t, D)
        dalpha, dsigma = self.sde.rates(t)
        rate = dsigma + 0.5 * eta**2 * self.sde.g2(t) / self.sde.sigma(t) if eta else dsigma
        return bcast(dalpha, x) * D + bcast(rate, x) * eps

    def prior_sample(self, n: int, seed: int, first_index: int, t: float | None = None) -> Tensor:
        """Samples of N(0, σ² I) at t, or of N(α μ, α² C + σ² I) with the data's moments; see `ReverseModel`."""
        at = as_time(self.sde.T if t is None else t)
        alpha, sigma = float(self.sde.alpha(at)), float(self.sde.sigma(at))
        eps = normal(seed, Purpose.INIT, 0, first_index, n, self.shape, self.dtype)
        return sigma * eps if self.moments is None else self.moments.prior_sample(eps, alpha, sigma)

    def t_start(self) -> float:
        """The default start of sampling, T."""
        return float(self.sde.T)

    def t_end(self) -> float:
        """The default end of sampling: σ/α = 0.004 standard deviations of the data (EDM: .002/.5)."""
        return float(self.sde.time_of(-torch.log(torch.tensor(0.004 * self.sigma_data, dtype=torch.float64))))

    def _noise(self, x: Tensor, t: Time, D: Tensor) -> Tensor:
        t = as_time(t)
        return (x - bcast(self.sde.alpha(t), x) * D) / bcast(self.sde.sigma(t), x)


class Wrapper(Model):
    """A model around another one; all attributes but `denoise` are delegated to the inner model.

    `takes` names conditions that are consumed here and not passed on.
    """

    inner: Model
    takes: tuple[str, ...] = ()
    sde: GaussianSDE = delegated()
    shape: tuple[int, ...] = delegated()
    sigma_data: float = delegated()
    moments: Moments | None = delegated()
    transform: Transform = delegated()
    classes: int = delegated()
    block: int = delegated()
    splits_blocks: bool = delegated()
    clip: Clip | None = delegated()
    kind: str = delegated()
    schema: TableSchema | None = delegated()
    array: ArraySchema | None = delegated()

    def __init__(self, inner: Model) -> None:
        super().__init__()
        self.inner = inner

    @property
    def conditions(self) -> tuple[Condition, ...]:  # type: ignore[override]
        """The conditions of the inner model, except `takes`."""
        return tuple(c for c in self.inner.conditions if c.name not in self.takes)

    @property
    def moments_are_exact(self) -> bool:
        """False, because the moments describe the inner model."""
        return False

    def t_start(self) -> float:
        """That of the inner model."""
        return self.inner.t_start()

    def t_end(self) -> float:
        """That of the inner model."""
        return self.inner.t_end()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the inner model."""
        return self.inner.dtype

    @property
    def condition_names(self) -> tuple[str, ...] | None:
        """The conditions of the inner model and of this `denoise`."""
        inner, here = self.inner.condition_names, keywords(self.denoise, variadic=False) or ()
        return None if inner is None else tuple(dict.fromkeys((*here, *self.takes, *inner)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"


class FixedConditions(Wrapper):
    """A model with fixed conditions; a condition of the call overrides them."""

    def __init__(self, inner: Model, cond: dict[str, Any]) -> None:
        super().__init__(inner)
        self.cond = cond
        if (names := inner.condition_names) is not None and (unknown := [k for k in cond if k not in names]):
            raise unknown_condition(unknown[0], names)

    @property
    def moments(self) -> Moments | None:  # type: ignore[override]
        """The moments of the data under the fixed conditions, where the model knows them."""
        return self.inner.moments_given(self.cond)

    def denoise(self, x: ArrayLike, t: Time, **cond: Any) -> Tensor:
        """D(x, t | the fixed conditions)."""
        return self.inner.denoise(self.states(x), t, **{**self.cond, **cond})

    def divergence(self, x: Tensor, t: Time, **cond: Any) -> Tensor | None:
        """∇·D(x, t | the fixed conditions), or None."""
        return self.inner.divergence(x, t, **{**self.cond, **cond})


class Denoiser(Model):
    """A network as a denoiser: D = c_skip x + c_out F(c_in x, c, label), by a `Reading`.

    `net(x, c, label)` takes x (B, *shape), the noise level c (B,) and a label (B,) (None without classes); the label
    `classes` is the null label, used if no label is passed. With `conditions` it has a fourth argument, their numbers
    (B, width) in its units, and they are arguments of `denoise` by name; None hides one. `prediction_type` may be a
    `Reading`; wiener needs `moments` (`Moments.precondition`) and may have a `regression` on the conditions. Raises
    InputError for noise and score where α(T) is 0. `joins_conditions`: guidance calls the network once for all;
    `source`, `digest`, `scheduler`: if it is pretrained.
    """

    bf16 = joins_conditions = False
    regression: Regression | None = None
    folder: Path | None = None
    source = ""
    digest: Callable[[], str] | None = None
    scheduler: tuple[str, dict[str, Any]] | None = None

    def __init__(self, net: nn.Module, sde: GaussianSDE, prediction_type: str | Reading = "edm", *,
                 shape: tuple[int, ...], sigma_data: float = 0.5, transform: Transform | None = None, classes: int = 0,
                 block: int = 256, conditions: Sequence[Condition] = ()) -> None:
        super().__init__()
        if isinstance(prediction_type, str) and prediction_type in UNDEFINED_AT_ZERO and float(sde.alpha(sde.T)) == 0:
            raise InputError(f"got prediction_type={prediction_type!r} where alpha(T) is 0; use v, velocity or edm")
        self.reading = Reading(prediction_type, sigma_data) if isinstance(prediction_type, str) else prediction_type
        self.prediction_type, self.clip, self.kind = self.reading.prediction_type, self.reading.clip, self.reading.kind
        self.net, self.sde, self.sigma_data = net, sde, sigma_data
        self.shape, self.transform, self.classes, self.block = tuple(shape), transform or Identity(), classes, block
        self.conditions = tuple(conditions)

    @property
    def condition_names(self) -> tuple[str, ...]:
        """label and the names of the conditions."""
        return ("label", *(c.name for c in self.conditions))

    def denoise(self, x: ArrayLike, t: Time, label: Tensor | int | None = None, **cond: Any) -> Tensor:
        """E[x_0 | x_t = x, label and conditions]."""
        x = self.states(x)
        rows, t = self._condition_rows(cond, x), as_time(t)
        level, labels = cast_like(self.level(t), x).expand(len(x)), self._labels(label, x)
        if (kind := self.prediction_type) in WITH_MOMENTS:
            if self.moments is None:
                raise InputError(f"got prediction_type={kind!r} without the data's moments; set `moments`, or use edm")
            state = (x, self.sde.alpha(t), self.sde.sigma(t), kind == WIENER)
            inputs, denoised = self.moments.precondition(*state) if self.regression is None else \
                self.regression.precondition(self.moments, self._features(rows, labels), *state)
            return denoised(self._output(inputs, level, labels, *rows))
        c_in, c_skip, c_out = self.reading.coefficients(self.sde, t)
        F = self._output(bcast(c_in, x) * x, level, labels, *rows)
        return bcast(c_skip, x) * x + bcast(c_out, x) * F

    def moments_given(self, cond: dict[str, Any]) -> Moments | None:
        """The moments of the data, or for one value of every condition those of the regression."""
        if self.regression is None:
            return self.moments
        try:
            like = torch.zeros(1, *self.shape, dtype=torch.float64, device=self.device)
            others = {name: value for name, value in cond.items() if name != "label"}
            features = self._features(self._condition_rows(others, like), self._labels(cond.get("label"), like))
        except (InputError, RuntimeError):  # a value for each of several samples
            return self.moments
        return self.regression.moments(features) if bool(self.regression.visible(features)) else self.moments

    def level(self, t: Time) -> Tensor:
        """The noise level as input of the network, shaped like t; see `Reading`."""
        return self.reading.time_input(self.sde, as_time(t))

    def t_start(self) -> float:
        """T, or the latest time at which the network says anything; see `Reading.start`."""
        return self.reading.start(self.sde)

    def t_end(self) -> float:
        """The default end of sampling, not below the smallest noise level of the training."""
        return max(super().t_end(), float(self.sde.time_of(-math.log(self.reading.levels[0] or 1e-300))))

    def _output(self, x: Tensor, *others: Tensor | None) -> Tensor:
        """F, in the precision of x for any precision of the layers."""
        with torch.autocast(x.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            try:
                F: Tensor = self.net(x, *others)
            except RuntimeError:
                dtype = next((p.dtype for p in self.net.parameters() if p.is_floating_point()), x.dtype)
                if x.dtype == dtype:
                    raise
                F = self.net(*(v.to(dtype) if v is not None and v.is_floating_point() else v for v in (x, *others)))
        return F.to(x.dtype)

    def _about(self) -> list[str]:
        return [f"prediction_type={self.prediction_type!r}", *super()._about(), type(self.net).__name__,
                f"{sum(p.numel() for p in self.parameters()):,} parameters"]

    def _condition_rows(self, cond: dict[str, Any], x: Tensor) -> list[Tensor]:
        """The conditions in the network's units (B, width), as its fourth argument if it has one."""
        if unknown := [name for name in cond if name not in self.condition_names]:
            raise unknown_condition(unknown[0], self.condition_names)
        pieces = [c.standardise(c.rows(cond.get(c.name), len(x)).to(x.device)) for c in self.conditions]
        return [torch.cat([piece.to(x) for piece in pieces], 1)] if pieces else []

    def _features(self, rows: list[Tensor], labels: Tensor | None) -> Tensor:
        """The features of the regression, (B, p)."""
        return features_of(self.conditions, rows[0] if rows else None, self.classes, labels)

    def _labels(self, label: Tensor | int | None, x: Tensor) -> Tensor | None:
        if self.classes == 0:
            if label is not None:
                raise InputError("got a label for a model that was trained without classes; leave it out")
            return None
        return torch.as_tensor(self.classes if label is None else label, device=x.device).expand(len(x))
