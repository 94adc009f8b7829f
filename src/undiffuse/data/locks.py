"""Locks of folders; the system releases a lock when its process ends."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from undiffuse.errors import MachineError

LOCK, HOLDER = "lock", "lock.holder"
FILES = (LOCK, HOLDER)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder; MachineError, naming the other process, if it is locked."""
    try:
        lock = FileLock(folder / LOCK).acquire(timeout=0)
    except Timeout:
        holder = "another process"
        with suppress(OSError):
            holder = (folder / HOLDER).read_text("utf-8")[:200] or holder
        raise MachineError(f"{folder} is in use by {holder}; wait for it or choose another folder") from None
    with lock:
        with open(folder / HOLDER, "w", encoding="utf-8") as stream:
            stream.write(f"process {os.getpid()} on {platform.node()}")
        yield


@contextmanager
def waited_for(folder: Path) -> Iterator[None]:
    """Make a folder and wait for its lock; OSError if it cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        yield
