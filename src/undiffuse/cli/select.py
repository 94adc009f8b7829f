"""Which samples are asked for: stretches of indices, and the label that each index has."""

from __future__ import annotations

import re
from collections.abc import Sequence

from undiffuse.errors import InputError


def stretches(text: str) -> list[tuple[int, int]]:
    """Pairs (first index, how many) of a list such as "7,9000,20-29"; InputError for anything else."""
    return [(first, last - first + 1) for first, last in _ranges(text, "indices")]


def labels_of(text: str, classes: int) -> list[int]:
    """The classes of "4", "0,3,5-7" or "all"; InputError if the model has no such class.

    Sample i gets number i modulo their count, so that it has the same label whatever else is asked for.
    """
    if classes == 0:
        raise InputError(f"got --label {text}, but this model was trained without labels; leave --label out")
    ranges = [(0, classes - 1)] if text == "all" else _ranges(text, "labels")
    top = max(last for _, last in ranges)
    if top >= classes:
        raise InputError(f"got label {top}, expected 0 to {classes - 1}, the classes of this model, or all")
    return [label for first, last in ranges for label in range(first, last + 1)]


def cycled(labels: Sequence[int], first: int, count: int) -> list[int]:
    """The labels of the samples `first` to `first + count - 1`."""
    return [labels[index % len(labels)] for index in range(first, first + count)]


def _ranges(text: str, what: str) -> list[tuple[int, int]]:
    found = [re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", part.strip(), re.ASCII) for part in text.split(",")]
    pairs = [(int(m[1]), int(m[2] or m[1])) for m in found if m]
    if len(pairs) < len(found) or any(first > last for first, last in pairs):
        raise InputError(f'got {what} "{text[:60]}", expected numbers or ranges such as 7,9000,20-29')
    return pairs
