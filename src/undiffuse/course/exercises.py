"""The table of exercises, and the check of an answer."""

from __future__ import annotations

from typing import Any

from undiffuse.course import exercises_noise, exercises_score, exercises_use
from undiffuse.course.checking import BLANK, ExerciseCheck
from undiffuse.errors import InputError

CHECKS: dict[str, ExerciseCheck] = {**exercises_noise.CHECKS, **exercises_score.CHECKS, **exercises_use.CHECKS}
"""The check of every exercise by its name, chapter.number."""


def check(exercise: str, answer: Any) -> bool:
    """Whether the answer to an exercise ("c2.3") is right; prints ✓, or ✗ and what seems to have gone wrong.

    An answer is what the exercise asks for: a number, a tensor or a function. Nothing is raised, so that a chapter with
    blanks runs to its end. Raises InputError for an exercise that does not exist.
    """
    if exercise not in CHECKS:
        raise InputError(f"got exercise {exercise!r}; expected one of {', '.join(CHECKS)}")
    complaint = BLANK if answer is ... else _run_check(CHECKS[exercise], answer)
    praise = (CHECKS[exercise].__doc__ or "").split("\n")[0]
    print(f"✓ {exercise}: {praise}" if complaint is None else f"✗ {exercise}: {complaint}")
    return complaint is None


def _run_check(fn: ExerciseCheck, answer: Any) -> str | None:
    try:
        return fn(answer)
    except Exception as error:  # the student's function may do anything
        if "ellipsis" in str(error).lower():
            return BLANK
        return f"your code stopped with {type(error).__name__}: {error}"
