"""Samplers fitted to a model next to the best published one on any grid, on exact laws and on networks.

    python -m benchmarks tuning [plane,clusters:3,RUN,...] [evaluations,...] [starts]

A path that ends in another mode, one in some hundreds, weighs much in the mean square of a few starts.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.measure.tuned import LAWS, tuned_table
from undiffuse.errors import InputError
from undiffuse.tuning import EVALUATIONS


def table(names: str = "", evaluations: str = "", starts: str = "") -> Iterator[str]:
    """A row for each law or run and budget."""
    if starts and not (starts.isdigit() and int(starts) >= 16):
        raise InputError(f"got {starts[:20]} starts; expected 16 or more, such as 2048")
    budgets = tuple(map(int, evaluations.split(","))) if evaluations else EVALUATIONS
    return tuned_table(names.split(",") if names else list(LAWS), budgets, int(starts) if starts else None)
