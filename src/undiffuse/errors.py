"""The two kinds of failure that are not bugs, the user's input and the machine, and words for their sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class UndiffuseError(Exception):
    """A failure that is explained in one sentence: what was got, what was expected, what to do."""


class InputError(UndiffuseError, ValueError):
    """A mistake in what the user gave (an argument, a file, a request); the command exits with 2."""


class MachineError(UndiffuseError, RuntimeError):
    """Something that the machine lacks (disk, memory, a device, a free lock); the command exits with 1."""


def quote(text: object) -> str:
    """A path or a cell in quotes, on one line, printable, and not longer than 200 characters."""
    plain = str(text).encode("utf-8", "backslashreplace").decode()
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in plain[:400])
    return f"'{line}'" if len(line) <= 200 else f"'{line[:80]} ... {line[-100:]}'"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """"; did you mean '...'?" if one of the known words is close, and otherwise nothing."""
    close = get_close_matches(word, list(known), n=1) if len(word) < 200 else []
    return f"; did you mean {quote(close[0])}?" if close else ""


def unknown_condition(name: str, known: Sequence[str]) -> InputError:
    """The error for a condition that a model does not know."""
    return InputError(f"got the condition {name}; this model knows only {', '.join(known) or 'none'}"
                      f"{did_you_mean(name, known)}")
