"""p(x | y) from a model of p(x): one function for every way to get there."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any, Literal

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.inverse.guides import SURROGATES, Guided
from undiffuse.inverse.methods import STEPS, Posterior
from undiffuse.inverse.observation import Observation
from undiffuse.inverse.operators import as_operator
from undiffuse.inverse.twisted import MOST, twisted
from undiffuse.model import Model
from undiffuse.steps import Method

METHODS = (*SURROGATES, *STEPS, "twisted")
"""The methods by name: guides, which are denoisers; steps of their own; particles."""


def observe(model: Model, operator: Any, y: Any, noise_std: Any, method: str = "mmps", *, exact: bool = False,
            units: Literal["data", "model"] = "data", **options: Any) -> Guided | Posterior:
    """A model of p(x | y), y = A(x) + n with n ~ N(0, noise_std²), that `sample` takes like any other.

    operator: an `Operator`, a matrix (m, d), a boolean mask of an event, or any function of batches (B, *event).
    y: (*out), in which NaN is an entry that was not observed; None where every sample brings its own,
    `sample(observed, n, y=Y)` with Y (n, *out). noise_std: a number ≥ 0, or one an entry of y.
    method: one of `METHODS`; exact=True takes the one that tends to the truth, particles ("twisted") up to 256 numbers
    an event and split Gibbs beyond. units: those in which the operator sees x: data units, as `sample` returns, or the
    model's own. options: the method's.

    Guides (mmps, tmpd, pigdm, wiener) return a denoiser for every sampler and for the ODE; what the others return is
    sampled in their own way only. Particles are drawn in groups of indices, 64 by default, which share one run.

    Raises InputError for an unknown method or option, a y of another shape than the operator's, noise below 0.
    """
    name = method if not exact else "twisted" if math.prod(model.shape) <= MOST else "gibbs"
    if name not in METHODS:
        raise InputError(f"got method={name!r}; expected one of {', '.join(METHODS)}")
    seen = observation(model, operator, y, noise_std, units)
    if name in SURROGATES:
        _check(options, ("iterations",))
        return Guided(model, seen, SURROGATES[name], **options)
    make = twisted if name == "twisted" else STEPS[name]
    _check(options, tuple(k for k, p in signature(make).parameters.items() if p.kind == p.KEYWORD_ONLY))
    group = options.get("group", signature(make).parameters["group"].default) if make is twisted else 1
    own = Method(partial(make, seen, **options), 1, stochastic=True, **_WISHES.get(name, {}), group=group)
    return Posterior(model, seen, own, Guided(model, seen, SURROGATES["mmps"]) if make is twisted else None)


_WISHES: dict[str, dict[str, Any]] = {"twisted": {"grid": "karras", "first": 5.0, "steps": 100}}
"""What a method likes of its grid."""


def _check(options: dict[str, Any], known: tuple[str, ...]) -> None:
    if unknown := [name for name in options if name not in known]:
        raise InputError(f"got the option {', '.join(unknown)}; this method has {', '.join(known)}")


def observation(model: Model, operator: Any, y: Any, noise_std: Any, units: str = "data") -> Observation:
    """The observation in model units, checked."""
    seen, std = as_operator(operator), numbers(noise_std, "noise_std")
    if units not in ("data", "model"):
        raise InputError(f"got units={units!r}; expected data or model")
    if not bool((std >= 0).all()):
        raise InputError("got noise below 0 or NaN; expected a standard deviation ≥ 0, or one an entry of y")
    inverse = model.transform.inverse

    def function(z: Tensor) -> Tensor:
        return seen(inverse(z) if units == "data" else z)

    made = Observation(function, None if y is None else numbers(y, "y"), std, model.shape, seen.seen)
    out = tuple(made.zero.shape[1:])
    if made.y is not None and tuple(made.y.shape) != out:
        raise InputError(f"got y of shape {tuple(made.y.shape)} for an operator that gives {out}; expected that shape")
    if std.ndim > len(out) or any(a not in (1, b) for a, b in zip(std.shape[::-1], out[::-1], strict=False)):
        raise InputError(f"got noise of shape {tuple(std.shape)} for an operator that gives {out}; expected a number "
                         "for all, or one an entry")
    return made if made.y is None else replace(made, y=seen.seen(made.y))


def numbers(values: Any, name: str) -> Tensor:
    """Values as a float64 tensor; InputError for what is none."""
    try:
        return torch.as_tensor(values, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"got {name} that is no array of numbers; expected a number, a list or a tensor") from None
