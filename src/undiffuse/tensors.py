"""Conversion of arrays, lists, DataFrames and tensors of any type to tensors; anything else is an InputError."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.errors import InputError

REAL = (torch.float32, torch.float64)
"""The dtypes of states."""


class SupportsArray(Protocol):
    """Objects that NumPy converts: arrays, DataFrames, Series, `Samples`."""

    def __array__(self) -> NDArray[Any]:
        """The object as an array."""


ArrayLike = (Tensor | SupportsArray | Sequence[float] | Sequence[Sequence[float]] | Sequence[Sequence[Sequence[float]]]
             | Sequence[Tensor] | Sequence[NDArray[Any]])
"""Anything that `as_tensor` accepts."""
ConditionValue = (int | float | str | Tensor | SupportsArray | Sequence[int | float | str | None]
                  | Sequence[Sequence[float]] | None)
"""A condition of `sample`: one value for all samples, or one per sample; None means unknown."""


def as_tensor(value: Any, name: str, dtype: torch.dtype | None = None) -> Tensor:
    """Convert a value to a float32 or float64 tensor.

    Args:
        value: A tensor, array, list or DataFrame of numbers.
        name: Name of the argument, for error messages.
        dtype: Result dtype, except that float32 and float64 tensors stay unchanged. None: the dtype in which the
            values are exact, float32 for integers and floats of at most 16 bits.

    Raises:
        InputError: For text, objects, complex numbers and rows of different lengths.
    """
    if isinstance(value, Tensor) and value.dtype in REAL and value.layout == torch.strided:
        return value
    if isinstance(value, Tensor):
        if value.is_complex() or value.layout != torch.strided:
            raise _refusal(name, f"a tensor of {value.dtype}, {value.layout}")
        small = value.dtype.itemsize <= 2
        return value.to(dtype or (torch.float32 if small else torch.float64))
    if isinstance(value, list | tuple) and value and all(isinstance(row, Tensor) for row in value):
        try:
            return as_tensor(torch.stack(tuple(value)), name, dtype)
        except (RuntimeError, TypeError):
            raise _refusal(name, "tensors of different shapes") from None
    return _from_array(value, name, dtype)


def as_rows(value: Any, name: str, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """`as_tensor` with the shape (B, *shape) enforced; InputError for another shape.

    Args:
        value: a tensor, an array, or nested lists of numbers.
        name: name of the argument, for the error message.
        shape: shape of one row.
        dtype: dtype of the result, as in `as_tensor`.
    """
    rows = as_tensor(value, name, dtype)
    if rows.ndim == 0 or tuple(rows.shape[1:]) != tuple(shape):
        wanted = ", ".join(("B", *map(str, shape)))
        raise InputError(f"got {name} of shape {tuple(rows.shape)}; expected ({wanted}), one row per sample (a single "
                         f"point is {name}[None])")
    return rows


def leaf_of(x: Tensor) -> Tensor:
    """The tensor to differentiate with respect to, at x: x itself where its gradient is recorded, as in a likelihood,
    which differentiates D; else a copy without history."""
    return x if x.requires_grad and torch.is_grad_enabled() else x.detach().requires_grad_(True)


def _from_array(value: Any, name: str, dtype: torch.dtype | None) -> Tensor:
    try:
        array = value.to_numpy(np.float64, na_value=np.nan) if hasattr(value, "to_numpy") else np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _refusal(name, f"{type(value).__name__} ({' '.join(str(error).split())[:100]})") from None
    if array.dtype.kind not in "biuf":
        raise _refusal(name, f"{type(value).__name__} of {'text' if array.dtype.kind in 'US' else array.dtype}")
    exact = np.float32 if array.dtype.itemsize <= 2 or array.dtype == np.float32 else np.float64
    tensor = torch.from_numpy(np.require(array, exact, ["C", "W"]))
    return tensor if dtype is None else tensor.to(dtype)


def _refusal(name: str, got: str) -> InputError:
    return InputError(f"got {name} that is {got}; expected numbers: an array, a tensor, a list or a DataFrame of rows "
                      "of equal length")
