"""The bounds of parameters that a prior implies."""

from __future__ import annotations

import math
from typing import Any

import torch

from undiffuse.errors import InputError

Prior = torch.distributions.Distribution | tuple[Any, Any] | None
"""None, the pair (low, high) of numbers or vectors, or a distribution."""


def ends_of(prior: Prior) -> tuple[Any, Any]:
    """The lower and upper bounds of a prior, numbers or (d,), infinite where there is none.

    Args:
        prior: The pair (low, high), a distribution, whose support counts, or None.

    Raises:
        InputError: For anything else, and a support that is not an interval per parameter.
    """
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
    if support.is_discrete:
        raise InputError(f"got a prior with the support {support}; expected intervals, because the parameters are "
                         "numbers with a density")
    low, high = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    if low is None and high is None and support is not torch.distributions.constraints.real \
            and type(support).__name__ not in ("_Real", "_RealVector"):
        raise InputError(f"got a prior with the support {support}; expected intervals, so give (low, high) of every "
                         "parameter")
    return -math.inf if low is None else low, math.inf if high is None else high
