"""One process at a time in a folder; the system ends a lock when its process ends, however it ends."""

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
    """Holds a folder for one process. Raises MachineError, naming the holder, while another process has it."""
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
    """Makes a folder and waits until no other process has it. Raises OSError where it cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        yield
