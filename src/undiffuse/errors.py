"""The two kinds of failure that are not bugs: the user's input and the machine."""

from __future__ import annotations


class UndiffuseError(Exception):
    """A failure that is explained in one sentence: what was got, what was expected, what to do."""


class InputError(UndiffuseError, ValueError):
    """A mistake in what the user gave (an argument, a file, a request); the command exits with 2."""


class MachineError(UndiffuseError, RuntimeError):
    """Something that the machine lacks (disk, memory, a device, a free lock); the command exits with 1."""
