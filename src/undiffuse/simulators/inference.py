"""From simulations to a posterior: a conditional model of the parameters given what the simulator returns.

    θ_i ~ prior,   x_i ~ p(x | θ_i)   ->   p(θ | x)

The parameters are mapped so that no mass lies outside the bounds of the prior, the linear prediction of θ from x stands
in front of the network, and the training ends when the loss on a few held-out simulations no longer falls.

Reference: Papamakarios and Murray (2016); Sharrock et al. (2022), arXiv:2210.04872, for scores of posteriors.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from undiffuse import recipes
from undiffuse.data.dataset import Dataset, bounded, conditioned
from undiffuse.data.validation import make_table
from undiffuse.errors import InputError
from undiffuse.progress import say
from undiffuse.simulators.posterior import OBSERVATION, SimulatorPosterior
from undiffuse.simulators.priors import Prior, ends_of

Array = NDArray[np.float64]

_FEWEST = 20  # simulations


def infer(theta: Any, x: Any, prior: Prior = None, out: str | os.PathLike[str] | None = None, *,
          progress: bool = True, minutes: float | None = None, **fields: Any) -> SimulatorPosterior:
    """The posterior p(θ | x) of a simulator, learned from simulations.

    Args:
        theta: Parameters (N, d), drawn from the prior; array, tensor or DataFrame, whose columns name the parameters.
        x: What the simulator returned for them, (N, ...); NaN is a missing entry.
        prior: The pair (low, high) of bounds, numbers or (d,); a distribution of torch, whose support is used; None: no
            bounds.
        out: Folder of the run; None: a new temporary one.
        progress: Whether to show how far the training is.
        minutes: Longest duration of the training; None: no limit.
        fields: Fields of the experiment, such as steps or seed.

    Returns:
        The posterior, with `sample`, `log_prob` and `check`.

    Raises:
        InputError: For other numbers of rows, too few simulations, and parameters outside the bounds of the prior.
    """
    data, notes = simulations(theta, x, prior)
    for note in notes if progress else ():
        say(note)
    recipe = recipes.for_data(data, minutes=minutes, **fields)
    frame = theta.iloc[:0] if hasattr(theta, "iloc") else None
    return SimulatorPosterior(recipes.train(recipe, out, progress=progress), recipe.data, frame)


def simulations(theta: Any, x: Any, prior: Prior = None) -> tuple[Dataset, list[str]]:
    """The parameters as a table whose condition is the simulator's output, and notes on what was left out.

    Args:
        theta: Parameters (N, d).
        x: Outputs (N, ...).
        prior: As for `infer`.

    Raises:
        InputError: As `infer` does.
    """
    names = [str(name) for name in theta.columns] if hasattr(theta, "columns") else None
    values, outputs = _numbers(theta, "theta"), _numbers(x, "x")
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or len(values) != len(outputs):
        raise InputError(f"got theta of shape {values.shape} and x of shape {outputs.shape}; expected (N, d) "
                         "parameters and N outputs")
    values, rows, notes = _usable(values, outputs.reshape(len(outputs), -1))
    names = names or [f"theta{j + 1}" for j in range(values.shape[1])]
    table = make_table(values, name="simulations", columns=names)
    table = dataclasses.replace(table, kind="table", x=torch.tensor(values))
    return conditioned(bounded(table, *ends_of(prior)), **{OBSERVATION: rows}), notes


def _usable(theta: Array, x: Array) -> tuple[Array, Array, list[str]]:
    """The simulations whose numbers are finite or missing in part, and a note on those that are left out."""
    valid = np.isfinite(theta).all(1) & ~np.isinf(x).any(1) & ~np.isnan(x).all(1)
    left = int((~valid).sum())
    notes = [f"{left:,} of {len(theta):,} simulations are not finite and were left out"] if left else []
    if int(valid.sum()) < _FEWEST:
        raise InputError(f"got {int(valid.sum())} usable simulations; expected at least {_FEWEST}")
    constant = np.nanmax(x[valid], 0) == np.nanmin(x[valid], 0)
    if constant.all():
        raise InputError("got outputs that are the same for all simulations, so they say nothing about the parameters")
    return theta[valid], x[valid], notes


def _numbers(values: Any, name: str) -> Array:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"got {name} of type {type(values).__name__} that does not hold numbers; expected an array of "
                         "numbers") from None
