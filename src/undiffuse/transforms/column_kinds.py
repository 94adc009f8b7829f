"""The kinds of column maps by name, and the column that a configuration describes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from undiffuse.errors import InputError
from undiffuse.transforms.bounded import Bounded
from undiffuse.transforms.columns import Categories, Column, Constant, Power, Quantiles, Steps

KINDS: dict[str, type[Column]] = {c.kind: c for c in (Constant, Power, Quantiles, Steps, Categories, Bounded)}


def column(config: Mapping[str, Any]) -> Column:
    """The column that `Column.config` described; InputError for anything else."""
    entry = dict(config) if isinstance(config, Mapping) else {}
    kind = KINDS.get(str(entry.pop("kind", None)))
    if kind is None or set(entry) != {f.name for f in dataclasses.fields(kind)}:
        raise InputError(f"got {str(dict(config))[:80] if isinstance(config, Mapping) else config!r}; expected a "
                         f"column of kind {', '.join(KINDS)} with all its numbers")
    return kind(**{name: _clean(value) for name, value in entry.items()})


def _clean(value: Any) -> Any:
    """A bool, a number, or a tuple of numbers; InputError for anything else."""
    if isinstance(value, bool):
        return value
    numbers = value if isinstance(value, list | tuple) else [value]
    if not all(type(v) in (int, float) and abs(v) < 1e38 for v in numbers):
        raise InputError("got a column with something that is not a finite number; expected numbers")
    return tuple(map(float, numbers)) if isinstance(value, list | tuple) else float(value)
