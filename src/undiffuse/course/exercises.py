"""The checks of all exercises by name, and the function that runs one."""

from __future__ import annotations

from typing import Any

from undiffuse.course import exercises_noise, exercises_score, exercises_use
from undiffuse.course.checking import BLANK, ExerciseCheck
from undiffuse.errors import InputError

CHECKS: dict[str, ExerciseCheck] = {**exercises_noise.CHECKS, **exercises_score.CHECKS, **exercises_use.CHECKS}
"""Checks by exercise name ("c2.3": chapter 2, exercise 3)."""


def check(exercise: str, answer: Any) -> bool:
    """Check the answer to an exercise; prints ✓, or ✗ with a hint.

    A wrong or failing answer raises nothing, so that a chapter with blanks runs to its end.

    Args:
        exercise: name of the exercise, such as "c2.3".
        answer: the number, tensor or function that the exercise asks for.

    Returns:
        Whether the answer is right.

    Raises:
        InputError: for an unknown exercise.
    """
    if exercise not in CHECKS:
        raise InputError(f"got exercise {exercise!r}; expected one of {', '.join(CHECKS)}")
    complaint = BLANK if answer is ... else _run_check(CHECKS[exercise], answer)
    summary = (CHECKS[exercise].__doc__ or "").split("\n")[0]
    print(f"✓ {exercise}: {summary}" if complaint is None else f"✗ {exercise}: {complaint}")
    return complaint is None


def _run_check(fn: ExerciseCheck, answer: Any) -> str | None:
    try:
        return fn(answer)
    except Exception as error:  # the student's function may raise anything
        if "ellipsis" in str(error).lower():
            return BLANK
        return f"your code stopped with {type(error).__name__}: {error}"
