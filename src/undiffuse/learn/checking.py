"""Checks of exercises: each compares an answer with the truth and with the usual wrong ones, and says which it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from undiffuse.errors import InputError

Check = Callable[[Any], str | None]
"""A function of the answer: None if it is right, else what to look at."""


def check(exercise: str, answer: Any) -> bool:
    """Whether the answer to an exercise ("c2.3") is right; prints ✓, or ✗ and what seems to have gone wrong.

    An answer is what the exercise asks for: a number, a tensor or a function. Nothing is raised, so that a chapter with
    blanks runs to its end. Raises InputError for an exercise that does not exist.
    """
    from undiffuse.learn.exercises import CHECKS

    if exercise not in CHECKS:
        raise InputError(f"got exercise {exercise!r}; expected one of {', '.join(CHECKS)}")
    complaint = "there is still a blank (...) to fill in" if answer is ... else _judged(CHECKS[exercise], answer)
    praise = (CHECKS[exercise].__doc__ or "").split("\n")[0]
    print(f"✓ {exercise}: {praise}" if complaint is None else f"✗ {exercise}: {complaint}")
    return complaint is None


def _judged(fn: Check, answer: Any) -> str | None:
    try:
        return fn(answer)
    except Exception as error:  # the student's function may do anything
        if "ellipsis" in str(error).lower():
            return "there is still a blank (...) to fill in"
        return f"your code stopped with {type(error).__name__}: {error}"


def verdict(got: Any, truth: Any, slips: Mapping[str, Any] | None = None, tol: float = 1e-6) -> str | None:
    """None if got equals truth up to tol (relative to its size), else the slip that it equals, or both values.

    `slips` are the usual wrong values, by the sentence that explains them.
    """
    if got is ... or got is None:
        return "there is still a blank (...) to fill in"
    value, right = _real(got), _real(truth)
    if value.shape != right.shape:
        return f"got shape {tuple(value.shape)}, expected {tuple(right.shape)}"
    if _near(value, right, tol):
        return None
    for sentence, wrong in (slips or {}).items():
        if _near(value, _real(wrong), tol):
            return sentence
    return f"got {_short(value)}, expected {_short(right)}"


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
