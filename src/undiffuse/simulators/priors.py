"""The bounds of parameters that a prior implies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from undiffuse.errors import InputError, quote

Bounds = tuple[tuple[float, float], ...]
Prior = torch.distributions.Distribution | tuple[Any, Any] | None
"""None, the pair (low, high) of numbers or vectors, or a distribution."""


def bounds_of_prior(prior: Prior, d: int) -> Bounds:
    """(low, high) of each of d parameters, with infinities where there is no bound; () without any bound.

    Args:
        prior: The pair (low, high), numbers or (d,); a distribution, whose support counts; or None.
        d: Number of parameters.

    Raises:
        InputError: For another number of bounds, low ≥ high, and a support that is not an interval per parameter.
    """
    low, high = _pair(prior)
    try:
        ends = [np.broadcast_to(np.asarray(end, np.float64), (d,)) for end in (low, high)]
    except (TypeError, ValueError):
        raise InputError(f"got a prior with bounds of shapes {np.shape(low)} and {np.shape(high)} for {d} parameters; "
                         "expected numbers, or one for each parameter") from None
    bounds = tuple((float(a), float(b)) for a, b in zip(*ends, strict=True))
    if wrong := [pair for pair in bounds if not pair[0] < pair[1]]:
        raise InputError(f"got a prior from {wrong[0][0]:g} to {wrong[0][1]:g}; expected a lower bound below the upper")
    return bounds if any(math.isfinite(end) for pair in bounds for end in pair) else ()


def check_inside(theta: NDArray[np.float64], bounds: Bounds, names: Sequence[str]) -> None:
    """InputError if simulated parameters (N, d) lie outside the bounds, naming the first."""
    for j, (low, high) in enumerate(bounds):
        outside = (theta[:, j] < low) | (theta[:, j] > high)
        if outside.any():
            row = int(np.argmax(outside))
            raise InputError(f"got {int(outside.sum())} values of the parameter {quote(names[j])} outside of the prior "
                             f"({low:g} to {high:g}), the first in simulation {row + 1}: {theta[row, j]:g}; give the "
                             "prior that the parameters were drawn from, or leave those simulations out")


def _pair(prior: Any) -> tuple[Any, Any]:
    if prior is None:
        return -math.inf, math.inf
    if isinstance(prior, torch.distributions.Distribution):
        return _support(prior)
    if isinstance(prior, tuple | list) and len(prior) == 2:
        return prior[0], prior[1]
    raise InputError(f"got a prior of type {type(prior).__name__}; expected None, (low, high), or a distribution of "
                     "torch.distributions")


def _support(prior: torch.distributions.Distribution) -> tuple[Any, Any]:
    """The ends of the support of a distribution."""
    support: Any = prior.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    low, high = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    if low is None and high is None and support is not torch.distributions.constraints.real \
            and type(support).__name__ not in ("_Real", "_RealVector"):
        raise InputError(f"got a prior with the support {support}; expected intervals, so give (low, high) of every "
                         "parameter")
    return -math.inf if low is None else low, math.inf if high is None else high
