"""A folder that outlives a crash and has one writer at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from undiffuse.data.writers import atomic
from undiffuse.errors import InputError, MachineError

_MAX_JSON = 1 << 24


def sync_folder(folder: Path) -> None:
    """Forces the names in a folder to the disk, so that a new file keeps its name when the power fails."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """A JSON file, written atomically."""
    with atomic(path) as stream:
        stream.write(json.dumps(value, indent=1, allow_nan=False).encode() + b"\n")
    sync_folder(path.parent)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; InputError where there is none."""
    try:
        with open(path, "rb") as stream:
            value = json.loads(stream.read(_MAX_JSON))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot read {path}: {reason}; expected a JSON object that undiffuse wrote") from None
    if not isinstance(value, dict):
        raise InputError(f"got {type(value).__name__} in {path}, expected a JSON object")
    return value


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder for one process; the system lets go of it when the process ends, however it ends.

    Raises MachineError, naming the holder, while another process has it.
    """
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {os.uname().nodename}".encode())
        yield
    except BlockingIOError:
        holder = os.read(handle, 200).decode(errors="replace") or "another process"
        raise MachineError(f"{folder} is in use by {holder}; wait for it or choose another folder") from None
    finally:
        os.close(handle)
