"""The table of exercises."""

from __future__ import annotations

from undiffuse.learn import answers_noise, answers_score, answers_use
from undiffuse.learn.checking import Check

CHECKS: dict[str, Check] = {**answers_noise.CHECKS, **answers_score.CHECKS, **answers_use.CHECKS}
"""The check of every exercise by its name, chapter.number."""
