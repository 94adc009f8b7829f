"""The two exceptions that users see, one for their input and one for their machine, and helpers for the messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class UndiffuseError(Exception):
    """Base class: a one-line message with the value, the expectation and the remedy."""


class InputError(UndiffuseError, ValueError):
    """Invalid input: an argument, a file or a request. A command exits with code 2."""


class MachineError(UndiffuseError, RuntimeError):
    """Missing resource: disk space, memory, a device or a free lock. A command exits with code 1."""


def quote(text: object) -> str:
    """A path or a cell in quotes: one printable line of at most 200 characters."""
    plain = str(text).encode("utf-8", "backslashreplace").decode()
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in plain[:400])
    return f"'{line}'" if len(line) <= 200 else f"'{line[:80]} ... {line[-100:]}'"


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """The hint "; did you mean '...'?" if one of the names is similar, otherwise ""."""
    close = get_close_matches(word, list(names), n=1) if len(word) < 200 else []
    return f"; did you mean {quote(close[0])}?" if close else ""


def unknown_condition(name: str, names: Sequence[str]) -> InputError:
    """The error for a condition that a model does not have."""
    return InputError(f"got the condition {name}; this model has only {', '.join(names) or 'none'}"
                      f"{did_you_mean(name, names)}")
