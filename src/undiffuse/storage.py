"""Named tensors and JSON values in one safetensors file whose every byte is under a SHA-256.

The metadata hold `sha256`, the SHA-256 of the whole file with the 64 digits of that entry written as zeros, and
`state`, the JSON values. The digest is checked before anything else is parsed. Any safetensors reader opens the file.

Locks of folders; the system releases a lock when its process ends.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from undiffuse.errors import InputError, MachineError
from undiffuse.hashing import sha256_of
from undiffuse.regular_files import open_regular

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


_ZEROS = b"0" * 64
_DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')


def write(stream: IO[bytes], tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors and JSON values to a binary stream.

    Args:
        stream: the binary stream.
        tensors: tensors by name, on any device; they are copied to the CPU.
        state: JSON values by name.
    """
    metadata = {"sha256": _ZEROS.decode(), "state": json.dumps(state, allow_nan=False)}
    content = memoryview(save({name: t.detach().contiguous() for name, t in tensors.items()}, metadata))
    start, end = _digest_span(content)
    for part in (content[:start], sha256_of(content).encode(), content[end:]):
        stream.write(part)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the JSON values in a file; InputError if it is damaged or was not written by `write`."""
    try:
        with open_regular(path) as stream:
            content = memoryview(stream.read())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    length = int.from_bytes(content[:8], "little")
    if 8 + length > len(content):
        raise InputError(f"{path} is damaged or not of undiffuse: its header claims {length} of {len(content)} bytes")
    try:
        start, end = _digest_span(content)
        if sha256_of(content[:start], _ZEROS, content[end:]).encode() != content[start:end]:
            raise ValueError("its SHA-256 is not the one written in it")
        state = json.loads(json.loads(bytes(content[8 : 8 + length]))["__metadata__"]["state"])
        if not isinstance(state, dict):
            raise TypeError("its state is not a JSON object")
        return load(content.obj), state  # type: ignore[arg-type]
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is damaged or not of undiffuse: {error}") from None


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _digest_span(content: memoryview) -> tuple[int, int]:
    """Where the digits of the digest stand in a file; ValueError if it has none."""
    match = _DIGEST.search(content, 8, 8 + int.from_bytes(content[:8], "little"))
    if match is None:
        raise ValueError("it has no SHA-256")
    return match.span(1)
