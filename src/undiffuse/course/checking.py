"""Compares the answer to an exercise with the right value and with common mistakes, and names the mistake."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

BLANK = "the cell still contains a blank (...); fill it in"
ExerciseCheck = Callable[[Any], str | None]
"""A function of the answer that returns None if it is right, else a hint."""


def compare(got: Any, truth: Any, mistakes: Mapping[str, Any] | None = None, tol: float = 1e-6) -> str | None:
    """None if `got` equals `truth`, else a hint.

    Args:
        got: the answer; a number, tensor or tuple of these.
        truth: the right value.
        mistakes: common wrong values by the hint that explains them.
        tol: tolerance relative to the largest entry of `truth`.

    Returns:
        The hint of the mistake that `got` equals, else a comparison of both values or shapes.
    """
    right = _real(truth)
    if complaint := _unusable(got, right):
        return complaint
    value = _real(got)
    if _near(value, right, tol):
        return None
    for sentence, wrong in (mistakes or {}).items():
        if _near(value, _real(wrong), tol):
            return sentence
    if value.shape != right.shape:
        return f"got {_shape(value)}, expected {_shape(right)}"
    same = _short(value) == _short(right)
    return f"got {_short(value)}, expected {_short(right)}" + (
        f"; the largest difference is {float((value - right).abs().max()):.1g}" if same else "")


def _unusable(got: Any, right: Tensor) -> str | None:
    """A hint for an answer that is not an array of numbers."""
    parts = list(got) if isinstance(got, tuple | list) else [got]
    if any(part is ... for part in parts):
        return BLANK
    if got is None:
        return "your function returned None; does its last line begin with return?"
    try:
        shapes = {tuple(_real(part).shape) for part in parts}
    except (TypeError, ValueError, RuntimeError):
        return f"got {got!r:.60}, expected {_shape(right)}"
    return f"got values of different shapes {sorted(shapes)}, expected {_shape(right)}" if len(shapes) > 1 else None


def _shape(value: Tensor) -> str:
    if value.ndim == 0:
        return "a number"
    few = value.ndim == 1 and 1 < len(value) < 4
    return f"{len(value)} numbers" if few else f"an array of shape {tuple(value.shape)}"


def _real(value: Any) -> Tensor:
    if isinstance(value, tuple | list):
        return torch.stack([_real(v) for v in value])
    return torch.as_tensor(value, dtype=torch.float64).detach().cpu()


def _near(a: Tensor, b: Tensor, tol: float) -> bool:
    return a.shape == b.shape and bool(a.isfinite().all()) and float((a - b).abs().max()) <= tol * max(
        float(b.abs().max()), 1e-12)


def _short(value: Tensor) -> str:
    flat = value.flatten()
    digits = ", ".join(f"{v:.4g}" for v in flat[:4].tolist())
    return f"[{digits}{', ...' if len(flat) > 4 else ''}]" if value.ndim else f"{float(value):.4g}"
