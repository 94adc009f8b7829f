"""Posterior models p(x | y) from a model of p(x): one function for every method."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any, Literal

from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.inverse.guides import SURROGATES, Guided
from undiffuse.inverse.observation import Observation
from undiffuse.inverse.operators import ChannelsFirst, Identity, Mask, Operator, as_operator
from undiffuse.inverse.samplers import STEPS, Posterior
from undiffuse.inverse.smc import MAX_DIM, twisted
from undiffuse.linear_solvers import Apply
from undiffuse.model import Model
from undiffuse.samplers import Method
from undiffuse.samplers.method import require_denoiser
from undiffuse.tensors import as_tensor
from undiffuse.transforms.array_schema import original
from undiffuse.transforms.base import Channels, Transform

METHODS = (*SURROGATES, *STEPS, "twisted")
"""The methods by name: guides, which are denoisers; posterior samplers; particles."""


def observe(model: Model, operator: Any, y: Any, noise_std: Any, method: str = "mmps", *, exact: bool = False,
            units: Literal["data", "model"] = "data", **options: Any) -> Guided | Posterior:
    """A model of p(x | y), y = A(x) + n with n ~ N(0, noise_std²), that `sample` accepts like any other.

    Guides (mmps, tmpd, pigdm, wiener) are denoisers for every sampler and for the ODE; the other methods have their own
    sampler. Particles are sampled in groups of indices, 64 by default, which share one run.

    Args:
        model: the model of p(x).
        operator: an `Operator`, a matrix (m, d), a boolean mask of an event, or a function of batches (B, *event).
        y: (*out), NaN where missing; None where every sample has its own, `sample(observed, n, y=Y)` with Y (n, *out).
        noise_std: standard deviation of the noise, a number ≥ 0 or one per entry of y.
        method: one of `METHODS`.
        exact: use the asymptotically exact method: particles ("twisted") up to 256 numbers per event, else split Gibbs.
        units: units of the operator's argument: "data", as `sample` returns, or "model". Of arrays, masks and functions
            get the layout of the data; blur, downsampling and frequencies have y with the channels first.
        options: options of the method.

    Returns:
        A `Guided` denoiser, or a `Posterior` with its own sampler.

    Raises:
        InputError: for an unknown method or option, a y of another shape than the operator's, noise below 0.
    """
    name = method if not exact else "twisted" if math.prod(model.shape) <= MAX_DIM else "gibbs"
    if name not in METHODS:
        raise InputError(f"got method={name!r}; expected one of {', '.join(METHODS)}")
    require_denoiser(model, "a posterior")
    observed = observation(model, operator, y, noise_std, units)
    if name in SURROGATES:
        _check_options(options, ("iterations",))
        return Guided(model, observed, SURROGATES[name], **options)
    make = twisted if name == "twisted" else STEPS[name]
    _check_options(options, tuple(k for k, p in signature(make).parameters.items() if p.kind == p.KEYWORD_ONLY))
    group = options.get("group", signature(make).parameters["group"].default) if make is twisted else 1
    sampler = Method(partial(make, observed, **options), 1, stochastic=True, **_DEFAULT_GRIDS.get(name, {}),
                     samples_per_run=group)
    return Posterior(model, observed, sampler, Guided(model, observed, SURROGATES["mmps"]) if make is twisted else None)


_DEFAULT_GRIDS: dict[str, dict[str, Any]] = {"twisted": {"grid": "karras", "start_level": 5.0, "steps": 100}}
"""Settings of a method's default grid."""


def _check_options(options: dict[str, Any], names: tuple[str, ...]) -> None:
    """Raise InputError for an option that the method does not have."""
    if unknown := [name for name in options if name not in names]:
        raise InputError(f"got the option {', '.join(unknown)}; expected options of this method: {', '.join(names)}")


def observation(model: Model, operator: Any, y: Any, noise_std: Any, units: str = "data") -> Observation:
    """The observation in model units, validated.

    Args:
        model: the model of p(x).
        operator: an `Operator`, a matrix (m, d), a boolean mask of an event, or a function of batches (B, *event).
        y: (*out), NaN where missing; None where every sample has its own.
        noise_std: standard deviation of the noise, a number ≥ 0 or one per entry of y.
        units: units of the operator's argument: "data" or "model".
    """
    A, std = as_operator(operator), as_tensor(noise_std, "noise_std").double()
    if A.channels_first and units == "data" and model.array is not None:
        A = ChannelsFirst(A, model.array.layout)
    if units not in ("data", "model"):
        raise InputError(f"got units={units!r}; expected data or model")
    if not bool((std >= 0).all()):
        raise InputError("got noise below 0 or NaN; expected a standard deviation ≥ 0, or one per entry of y")
    inverse = model.transform.inverse

    def function(z: Tensor) -> Tensor:
        return A(inverse(z).to(z.dtype) if units == "data" else z)

    values = None if y is None else as_tensor(y, "y").double()
    apply: Apply = function
    hide: Apply = A.mask_unobserved
    inner = A.operator if isinstance(A, ChannelsFirst) else A
    if units == "data" and isinstance(inner, Identity | Mask) and not bool(std.any()) and _is_elementwise(
            model.transform):
        apply, hide = _in_model_units(model.transform, inner, first=inner is not A)
    observed = Observation(apply, values, std, model.shape, hide)
    out = tuple(observed.zero.shape[1:])
    if observed.y is not None and tuple(observed.y.shape) != out:
        raise InputError(f"got y of shape {tuple(observed.y.shape)} for an operator that gives {out}; expected that "
                         "shape")
    if std.ndim > len(out) or any(a not in (1, b) for a, b in zip(std.shape[::-1], out[::-1], strict=False)):
        raise InputError(f"got noise of shape {tuple(std.shape)} for an operator that gives {out}; expected a number "
                         "for all, or one per entry")
    return observed if observed.y is None else replace(observed, y=A.mask_unobserved(observed.y))


def _is_elementwise(transform: Transform) -> bool:
    """Whether each value of an array is mapped to one model entry."""
    return isinstance(transform, Channels) and all(column.width for column in transform.columns)


def _in_model_units(transform: Transform, operator: Operator, first: bool) -> tuple[Apply, Apply]:
    """The operator of exactly observed values of an array in model units, in which it is linear, and the function that
    brings y there.

    Args:
        transform: the transform of the array.
        operator: `Identity` or a `Mask`.
        first: whether operator and y have the channels first, whatever the layout.
    """
    assert isinstance(transform, Channels)
    layout = transform.layout
    arranged: Apply = (lambda x: x) if first else partial(original, layout=layout)
    back: Apply = partial(original, layout=layout) if first else (lambda x: x)
    axes = len(layout) + (first and "C" not in layout)

    def hide(y: Tensor) -> Tensor:
        rows = operator.mask_unobserved(y) if y.ndim == axes else operator.mask_unobserved(y)[None]
        z = arranged(transform.forward(back(rows))).to(y)
        return z if y.ndim == axes else z[0]

    return lambda z: operator(arranged(z)), hide
