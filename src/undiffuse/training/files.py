"""JSON files and folders that outlive a crash."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from undiffuse.data.writers import atomic
from undiffuse.errors import InputError

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
