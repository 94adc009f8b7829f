"""p(x | y) from a model of p(x): one function for every way to get there."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.inverse.guides import SURROGATES, Guided
from undiffuse.inverse.observation import Observation
from undiffuse.inverse.operators import as_operator
from undiffuse.model import Model


def observe(model: Model, operator: Any, y: Any, noise_std: Any, method: str = "mmps", *, exact: bool = False,
            units: Literal["data", "model"] = "data", **options: Any) -> Model:
    """A model of p(x | y), y = A(x) + n with n ~ N(0, noise_std²), that `sample` takes like any other.

    operator: an `Operator`, a matrix (m, d), a boolean mask of an event, or any function of batches (B, *event).
    y: (*out), in which NaN is an entry that was not observed; None where every sample brings its own,
    `sample(observed, n, y=Y)` with Y (n, *out). noise_std: a number ≥ 0, or one an entry of y.
    units: those in which the operator sees x: data units, as `sample` returns, or the model's own.

    Raises InputError for an unknown method, a y of another shape than the operator's, noise below 0.
    """
    if method not in SURROGATES:
        raise InputError(f"got method={method!r}; expected one of {', '.join(SURROGATES)}")
    return Guided(model, observation(model, operator, y, noise_std, units), SURROGATES[method], **options)


def observation(model: Model, operator: Any, y: Any, noise_std: Any, units: str = "data") -> Observation:
    """The observation in model units, checked."""
    seen, std = as_operator(operator), torch.as_tensor(noise_std, dtype=torch.float64)
    if units not in ("data", "model"):
        raise InputError(f"got units={units!r}; expected data or model")
    if not bool((std >= 0).all()):
        raise InputError("got noise below 0 or NaN; expected a standard deviation ≥ 0, or one an entry of y")
    inverse = model.transform.inverse

    def function(z: Tensor) -> Tensor:
        return seen(inverse(z) if units == "data" else z)

    given = None if y is None else seen.seen(torch.as_tensor(y, dtype=torch.float64))
    made = Observation(function, given, std, model.shape, seen.seen)
    if given is not None and given.shape != made.zero.shape[1:]:
        raise InputError(f"got y of shape {tuple(given.shape)} for an operator that gives {tuple(made.zero.shape[1:])}")
    return made
