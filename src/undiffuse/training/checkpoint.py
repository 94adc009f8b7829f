"""Checkpoints: safetensors files whose every byte is under a SHA-256, of which a folder keeps the last two.

    u64 header length | {"__metadata__": {"sha256": D, "state": JSON}, name: {dtype, shape, data_offsets}, ...} | data

D is the SHA-256 of the whole file with the 64 digits of D written as zeros. It is checked before anything else is
looked at, and the names, shapes and types must be exactly the expected ones. Any safetensors reader opens the file.

Reference: the safetensors format, version 0.4 (8-byte aligned header, tensors back to back).

JSON files and folders that outlive a crash.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from undiffuse.data.writers import atomic
from undiffuse.errors import InputError, MachineError, UndiffuseError

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


KEEP = 2
_DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
           torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL"}
_ZEROS = b"0" * 64
_START = b'{"__metadata__":{"sha256":"'
_DIGEST_AT = 8 + len(_START)
_MAX_HEADER = 1 << 24
_CHUNK = 1 << 20


class Checkpoint(NamedTuple):
    """What a file held: the step (number of updates made), the tensors on the CPU, and the state as JSON values."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]
    path: Path


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"checkpoint-{step}.safetensors"


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any],
         keep: int | None = KEEP) -> Path:
    """Writes a checkpoint atomically and removes all but the last `keep` up to this step (None: removes nothing).

    Raises MachineError with the path and the bytes needed where it does not fit; the earlier ones stay as they were.
    """
    path, header = path_of(folder, step), _header(tensors, {**state, "step": step})
    size = len(header) + sum(t.nbytes for t in tensors.values())
    try:
        with atomic(path) as stream:
            _write(stream, header, tensors)
    except MachineError as error:
        raise MachineError(f"{error} ({size} bytes are needed; the checkpoints before this one are kept)") from error
    sync_folder(folder)
    if keep is not None:
        _prune(folder, step, keep)
    return path


def load(path: Path, expected: Mapping[str, Tensor]) -> Checkpoint:
    """The checkpoint in a file, whose tensors must have the names, shapes and types of the expected ones.

    Raises InputError for a file that is damaged, is no checkpoint, or belongs to another network.
    """
    try:
        with open(path, "rb") as stream:
            return _read(stream, path, expected)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def newest(folder: Path, expected: Mapping[str, Tensor], say: Callable[[str], None]) -> Checkpoint | None:
    """The newest intact checkpoint of a folder, None if it never had one; `say` hears of those passed over.

    Raises InputError where there are checkpoints but none is intact.
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
    """The steps of which a folder has a checkpoint file."""
    found = (re.fullmatch(r"checkpoint-(\d{1,18})\.safetensors", path.name) for path in folder.glob("checkpoint-*"))
    return sorted(int(match[1]) for match in found if match)


def _prune(folder: Path, step: int, keep: int) -> None:
    """Removes all checkpoints but the last ones; those after the step are ones that were refused."""
    kept = [s for s in steps(folder) if s <= step][-keep:]
    for other in set(steps(folder)) - set(kept):
        path_of(folder, other).unlink(missing_ok=True)


def _layout(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The entries of the header, tensors back to back in the given order."""
    entries, offset = {}, 0
    for name, t in tensors.items():
        entries[name] = {"dtype": _DTYPES[t.dtype], "shape": list(t.shape), "data_offsets": [offset, offset + t.nbytes]}
        offset += t.nbytes
    return entries


def _header(tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> bytes:
    """The length and the header, with zeros for the digest and blanks up to a multiple of 8 bytes."""
    metadata = {"sha256": _ZEROS.decode(), "state": json.dumps(state, allow_nan=False)}
    text = json.dumps({"__metadata__": metadata, **_layout(tensors)}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write(stream: IO[bytes], header: bytes, tensors: Mapping[str, Tensor]) -> None:
    digest = hashlib.sha256(header)
    stream.write(header)
    for t in tensors.values():
        data = _bytes(t.detach().cpu().contiguous())
        digest.update(data)
        stream.write(data)
    stream.seek(_DIGEST_AT)
    stream.write(digest.hexdigest().encode())


def _read(stream: BinaryIO, path: Path, expected: Mapping[str, Tensor]) -> Checkpoint:
    length, size = int.from_bytes(stream.read(8), "little"), os.fstat(stream.fileno()).st_size
    if length > _MAX_HEADER or 8 + length > size:
        raise InputError(f"{path} is damaged or no checkpoint: its header claims {length} of {size} bytes")
    header = stream.read(length)
    if header[: len(_START)] != _START or _digest(stream) != header[_DIGEST_AT - 8 : _DIGEST_AT + 56]:
        raise InputError(f"{path} is damaged or no checkpoint: its SHA-256 is not the one written in it")
    entries = _parse(header, path)
    state = json.loads(entries.pop("__metadata__")["state"])
    if entries != _layout(expected) or size != 8 + length + sum(t.nbytes for t in expected.values()):
        raise InputError(f"{path} belongs to another network or optimiser: {_difference(entries, _layout(expected))}")
    stream.seek(8 + length)
    tensors = {name: _tensor(stream, like) for name, like in expected.items()}
    return Checkpoint(state["step"], tensors, state, path)


def _parse(header: bytes, path: Path) -> dict[str, Any]:
    """The header as JSON. Only a file made on purpose, with a right digest, can fail here."""
    try:
        entries: dict[str, Any] = json.loads(header)
        state = json.loads(entries["__metadata__"]["state"])
        if path_of(path.parent, state["step"]).name != path.name:
            raise ValueError(f"it says step {state['step']}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is no checkpoint of undiffuse: {error}") from None
    return entries


def _digest(stream: BinaryIO) -> bytes:
    """SHA-256 of the whole file with zeros in the place of the digest, in hexadecimal digits."""
    stream.seek(0)
    digest = hashlib.sha256(stream.read(_DIGEST_AT))
    digest.update(_ZEROS)
    stream.seek(64, os.SEEK_CUR)
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest().encode()


def _tensor(stream: BinaryIO, like: Tensor) -> Tensor:
    t = torch.empty(like.shape, dtype=like.dtype)
    stream.readinto(_bytes(t))  # type: ignore[attr-defined]
    return t


def _bytes(t: Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU."""
    return memoryview(t.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]


def _difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """The first entry in which two layouts differ."""
    for name in [*expected, *found]:
        if found.get(name) != expected.get(name):
            return f"got {name} = {found.get(name, 'nothing')}, expected {expected.get(name, 'nothing')}"
    return "its length is not that of its tensors"
