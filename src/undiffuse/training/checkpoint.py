"""Checkpoints: files of `storage`, of which a folder keeps the last two; JSON files; both survive a crash.

A file is written under another name, forced to the disk and renamed, so that it is complete or does not exist. On
reading, the names, shapes and types of the tensors must be exactly the expected ones.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from undiffuse import storage
from undiffuse.atomic_files import atomic
from undiffuse.errors import InputError, MachineError, UndiffuseError
from undiffuse.regular_files import open_regular

KEEP = 2
_MAX_JSON = 1 << 24


def sync_folder(folder: Path) -> None:
    """Forces the names in a folder to the disk, so that a new file keeps its name after a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically."""
    with atomic(path) as stream:
        stream.write(json.dumps(value, indent=1, allow_nan=False).encode() + b"\n")
    sync_folder(path.parent)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; InputError if there is none."""
    try:
        with open_regular(path) as stream:
            value = json.loads(stream.read(_MAX_JSON))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot read {path}: {reason}; expected a JSON object that undiffuse wrote") from None
    if not isinstance(value, dict):
        raise InputError(f"got {type(value).__name__} in {path}; expected a JSON object")
    return value


class Checkpoint(NamedTuple):
    """The content of a checkpoint: the step (number of updates), the tensors on the CPU, JSON values, and its path."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]
    path: Path


def path_of(folder: Path, step: int) -> Path:
    """The path of the checkpoint of a step."""
    return folder / f"checkpoint-{step}.safetensors"


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any],
         keep: int | None = KEEP) -> Path:
    """Writes a checkpoint atomically and removes older ones.

    Args:
        folder: The folder of the checkpoints.
        step: Number of updates.
        tensors: The tensors by name.
        state: JSON values.
        keep: Number of checkpoints up to this step that remain; None: all.

    Raises:
        MachineError: With the path and the bytes needed if the disk is full; the earlier checkpoints remain.
    """
    path, size = path_of(folder, step), sum(t.nbytes for t in tensors.values())
    try:
        with atomic(path) as stream:
            storage.write(stream, tensors, {**state, "step": step})
    except MachineError as error:
        raise MachineError(f"{error} ({size} bytes are needed; the checkpoints before this one are kept)") from error
    sync_folder(folder)
    if keep is not None:
        _prune(folder, step, keep)
    return path


def load(path: Path, expected: Mapping[str, Tensor]) -> Checkpoint:
    """The checkpoint in a file, whose tensors must have the names, shapes and types of the expected ones.

    Raises:
        InputError: If the file is damaged, is not a checkpoint, or belongs to another network.
    """
    tensors, state = storage.read(path)
    step = state.get("step")
    if not isinstance(step, int) or path_of(path.parent, step).name != path.name:
        raise InputError(f"{path} is not a checkpoint of undiffuse: its step is {step!r}")
    if difference := _difference(tensors, expected):
        raise InputError(f"{path} belongs to another network or optimizer: {difference}")
    return Checkpoint(step, {name: tensors[name] for name in expected}, state, path)


def newest(folder: Path, expected: Mapping[str, Tensor], say: Callable[[str], None]) -> Checkpoint | None:
    """The newest intact checkpoint of a folder, None if there was never one.

    Args:
        folder: The folder of the checkpoints.
        expected: Tensors of the names, shapes and types that a checkpoint must have.
        say: Receives one line per damaged checkpoint.

    Raises:
        InputError: If there are checkpoints and none is intact.
    """
    damaged = []
    for step in sorted(steps(folder), reverse=True):
        try:
            return load(path_of(folder, step), expected)
        except UndiffuseError as error:
            damaged.append(str(error))
            say(f"{error}; trying the one before")
    if damaged:
        raise InputError(f"no checkpoint in {folder} is intact: {damaged[0]}")
    return None


def steps(folder: Path) -> list[int]:
    """The steps of the checkpoint files in a folder, in order."""
    matches = (re.fullmatch(r"checkpoint-(\d{1,18})\.safetensors", path.name) for path in folder.glob("checkpoint-*"))
    return sorted(int(match[1]) for match in matches if match)


def _prune(folder: Path, step: int, keep: int) -> None:
    """Removes all checkpoints but the last `keep` up to a step; later ones were rejected on reading."""
    remaining = [s for s in steps(folder) if s <= step][-keep:]
    for other in set(steps(folder)) - set(remaining):
        path_of(folder, other).unlink(missing_ok=True)


def _difference(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """The first tensor whose type or shape differs; empty if none does."""
    layouts = [{name: f"{t.dtype} {tuple(t.shape)}" for name, t in side.items()} for side in (tensors, expected)]
    for name in [*expected, *tensors]:
        actual, required = (layout.get(name, "nothing") for layout in layouts)
        if actual != required:
            return f"got {name} = {actual}; expected {required}"
    return ""
