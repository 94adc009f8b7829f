"""Checks of exercises: each compares an answer with the truth and with the usual wrong ones, and says which it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

BLANK = "there is still a blank (...) to fill in"
ExerciseCheck = Callable[[Any], str | None]
"""A function of the answer: None if it is right, else what to look at."""


def compare(got: Any, truth: Any, mistakes: Mapping[str, Any] | None = None, tol: float = 1e-6) -> str | None:
    """None if got equals truth up to tol (relative to its size), else the slip that it equals, or both values.

    `mistakes` are the usual wrong values, by the sentence that explains them.
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
    """What is wrong with an answer that is no array of numbers."""
    parts = list(got) if isinstance(got, tuple | list) else [got]
    if any(part is ... for part in parts):
        return BLANK
    if got is None:
        return "your function returned nothing; does its last line begin with return?"
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
    shown = ", ".join(f"{v:.4g}" for v in flat[:4].tolist())
    return f"[{shown}{', ...' if len(flat) > 4 else ''}]" if value.ndim else f"{float(value):.4g}"
