"""IDX files, the format of MNIST and its relatives: a big-endian header and raw bytes, compressed or not.

Header: two zero bytes, the type (8 = uint8), the number of axes, and the length of each axis as uint32.
"""

from __future__ import annotations

import gzip
import math
import struct
from io import BufferedIOBase
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from undiffuse.data import build
from undiffuse.data.arrays import from_arrays
from undiffuse.data.checks import decoding, refuse_bomb
from undiffuse.data.dataset import Dataset
from undiffuse.errors import InputError, shown

_UINT8 = 8
_PREFIX = {"train": ("train",), "test": ("t10k", "test")}
_IMAGES_LABELS = (("images-idx3", "labels-idx1"), ("images.idx3", "labels.idx1"))


def is_idx(path: Path) -> bool:
    """True if the name or the first bytes say IDX."""
    if "idx" in path.name.lower() or path.suffix.lower() == ".gz":
        return True
    with decoding(path, "a file"), path.open("rb") as file:
        return file.read(3) == bytes([0, 0, _UINT8])


def images_in(folder: Path) -> list[Path]:
    """The IDX image files of a folder, those of both parts."""
    return sorted(p for p in folder.iterdir() if any(key in p.name for key, _ in _IMAGES_LABELS))


def read_idx_folder(folder: Path, size: int | None = None, part: str = "train") -> Dataset:
    """The Dataset of a folder with train-images-idx3-ubyte(.gz), t10k-images-..., and their labels."""
    found = [p for p in images_in(folder) if any(prefix in p.name for prefix in _PREFIX[part])]
    if len({p.name.removesuffix(".gz") for p in found}) != 1:
        raise InputError(f"{shown(folder)} holds {len(found)} IDX image files of the {part} part; expected "
                         "one, so give the path of the file")
    return _read(found[0], folder.name, size)


def read_idx(path: Path, size: int | None = None, part: str = "train") -> Dataset:
    """The Dataset of one IDX file of images; part "test" asks for the t10k file beside a train file."""
    if part == "test":
        return _read(_test_file(path), path.parent.name, size)
    return _read(path, path.name, size)


def load_idx(path: Path) -> NDArray[np.uint8]:
    """The array of an IDX file of uint8, after its header was compared with the bytes there are."""
    with decoding(path, "an IDX file"), _opened(path) as stream:
        shape = _shape(stream, path)
        needed = math.prod(shape)
        refuse_bomb(path, needed)
        data = stream.read(needed + 1)
    if len(data) != needed:
        held = f"{len(data):,}" if len(data) < needed else "more"
        raise InputError(f"the header of {shown(path)} promises {needed:,} bytes, but there are {held}; "
                         "the file is cut short or broken")
    return np.frombuffer(bytearray(data), np.uint8).reshape(shape)


def _read(path: Path, name: str, size: int | None) -> Dataset:
    x = load_idx(path)
    if x.ndim == 1:
        raise InputError(f"{shown(path)} holds labels; give the file of the images, and they are found "
                         "beside it")
    beside = _labels_beside(path)
    marks = None if beside is None else _labels(load_idx(beside), len(x), beside)
    if x.ndim != 3:
        return from_arrays(x, marks, name=name, size=size)
    note = ["no labels were found beside the images"] if marks is None else []
    return build.images(torch.from_numpy(x)[:, None], name=name, marks=marks, size=size, note=note)


def _labels(y: NDArray[np.uint8], n: int, path: Path) -> list[str]:
    if y.shape != (n,):
        raise InputError(f"{shown(path)} holds labels of shape {y.shape}; expected ({n},), one for each "
                         "image")
    return [str(mark) for mark in y.tolist()]


def _opened(path: Path) -> BufferedIOBase:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.GzipFile(path, "rb") if packed else path.open("rb")


def _shape(stream: BufferedIOBase, path: Path) -> tuple[int, ...]:
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or not 1 <= head[3] <= 4:
        raise InputError(f"{shown(path)} is no IDX file: it begins with {head.hex(' ') or 'nothing'}; "
                         "expected 00 00 08 and the number of axes, 1 to 4")
    if head[2] != _UINT8:
        raise InputError(f"{shown(path)} holds IDX values of type {head[2]}; expected type 8, unsigned bytes")
    return struct.unpack(f">{head[3]}I", stream.read(4 * head[3]))


def _labels_beside(path: Path) -> Path | None:
    names = [path.name.replace(images, labels) for images, labels in _IMAGES_LABELS if images in path.name]
    stems = [name.removesuffix(".gz") for name in names]
    return _first_file([path.with_name(name) for stem in stems for name in (stem, stem + ".gz")])


def _test_file(path: Path) -> Path:
    names = [path.name.replace("train", prefix) for prefix in _PREFIX["test"] if "train" in path.name]
    found = _first_file([path.with_name(name) for name in names])
    if found is None and not any(prefix in path.name for prefix in _PREFIX["test"]):
        raise InputError(f"{shown(path)} has no test images beside it; expected a t10k file of the same kind")
    return found or path


def _first_file(paths: list[Path]) -> Path | None:
    return next((p for p in paths if p.is_file()), None)
