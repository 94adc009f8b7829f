"""Arrays in many files or in containers: folders of .npy, .npz and .wav files, .h5 and .zarr, and large .npy files that
stay on the disk.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.data import lazy
from undiffuse.data.arrays import from_arrays, load_array
from undiffuse.data.dataset import Dataset
from undiffuse.data.fields import ArrayOptions, make_lazy_array
from undiffuse.data.images import folder_labels, is_hidden, is_picture
from undiffuse.data.pixel_units import are_pictures
from undiffuse.data.validation import decoding, encode_labels
from undiffuse.errors import InputError, MachineError, did_you_mean, quote

Array = NDArray[Any]
_LOOKED_AT = 100  # samples of a large array
_SUFFIXES = (".npy", ".npz", ".wav")
CONTAINERS = {".h5": "h5py", ".hdf5": "h5py", ".zarr": "zarr"}
"""Endings of containers of several arrays, and the packages that read them."""


def holds_arrays(folder: Path) -> bool:
    """Whether a folder holds .npy, .npz or .wav files and no pictures."""
    files = _files(folder)
    return any(file.suffix.lower() in _SUFFIXES for file in files) and not any(map(is_picture, files))


def read_folder_of_arrays(folder: Path, options: ArrayOptions) -> Dataset:
    """The Dataset of a folder with one sample per file, in the order of their paths; a sub-folder is a label.

    Files of several samples each are joined where the layout has one letter per axis of a file. Samples of more than
    1 GiB in all stay in the files.

    Args:
        folder: the folder.
        options: how the arrays are read.

    Raises:
        InputError: naming files, for different shapes, types and sample rates, and a folder of one file.
    """
    kind, _ = Counter(f.suffix.lower() for f in _files(folder) if f.suffix.lower() in _SUFFIXES).most_common(1)[0]
    files = [file for file in _files(folder) if file.suffix.lower() == kind]
    labels = folder_labels(folder, files)
    source = ArrayFolder(folder, files, options.key)
    if len(files) == 1 or (options.layout and len(options.layout) == len(source.row)):
        parts = [source.load(k) for k in range(len(files))]
        texts = labels and [text for text, part in zip(labels, parts, strict=True) for _ in range(len(part))]
        return from_arrays(np.concatenate(parts), texts, name=folder.name, options=options)
    if math.prod(source.row) * source.type.itemsize * len(files) > lazy.LARGE:
        y, classes = encode_labels(labels, folder.name) if labels else (None, ())
        return make_lazy_array(cast(Any, source), source.type, options, name=folder.name, y=y, classes=classes,
                               notes=source.notes)
    rows = np.stack([source.load(k) for k in range(len(files))])
    data = from_arrays(rows, labels, name=folder.name, options=options)
    return replace(data, notes=(*source.notes, *data.notes))


class ArrayFolder(lazy.Lazy):
    """Samples of an array in one file each; sounds are cut to the length of the shortest."""

    def __init__(self, folder: Path, files: Sequence[Path], key: str | None) -> None:
        self.folder, self.files, self.key, self.rate = folder, list(files), key, 0
        self.notes: tuple[str, ...] = ()
        first = self._load(files[0])
        self.type, shape = first.dtype, first.shape
        if files[0].suffix.lower() == ".wav":
            lengths = [len(self._load(file)) for file in files]
            shape = (min(lengths), *shape[1:])
            cut = f", cut to the shortest of {min(lengths):,} samples" if min(lengths) < max(lengths) else ""
            self.notes = (f"{len(files)} sounds of {self.rate:,} samples per second{cut}",)
        super().__init__(shape, torch.float32, len(files))

    def load(self, number: int) -> Array:
        """One file's array; InputError if it differs from the first in shape or type."""
        x = self._load(self.files[number])
        x = x[: self.row[0]] if self.notes else x
        if x.shape[1:] != self.row[1:] or x.dtype != self.type or x.ndim != len(self.row):
            raise InputError(f"{quote(self.files[number])} holds {x.dtype} of shape {x.shape} but "
                             f"{quote(self.files[0])} {self.type} of {tuple(self.row)}; expected one shape and type")
        return x

    def read(self, numbers: Sequence[int]) -> Tensor:
        """The samples, float32."""
        rows = [self.load(number) for number in numbers]
        if any(row.shape != tuple(self.row) for row in rows):
            raise InputError(f"{quote(self.folder)} holds arrays of different lengths; expected one shape")
        return torch.from_numpy(np.array(rows, np.float32).reshape(-1, *self.row))

    def identity(self) -> bytes:
        """Names and sizes of the files."""
        files = [self.files[number] for number in self.numbers.tolist()]
        return repr([(file.relative_to(self.folder).parts, file.stat().st_size) for file in files]).encode()

    def _load(self, file: Path) -> Array:
        if file.suffix.lower() != ".wav":
            return np.asarray(load_array(file, key=self.key))
        from scipy.io import wavfile

        with decoding(file, "a sound"), warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            rate, x = wavfile.read(file)
        if self.rate not in (0, rate):
            raise InputError(f"{quote(file)} has {rate:,} samples per second but {quote(self.files[0])} {self.rate:,}; "
                             "expected one rate, so resample them")
        self.rate = rate
        return np.asarray(x)


def read_container(path: Path, options: ArrayOptions, label: str | None = None) -> Dataset:
    """The Dataset of an array in an .h5 or .zarr container: the only one, or the one called `options.key`.

    Args:
        path: the file or folder.
        options: key, layout and names of the channels.
        label: name of the array of labels.

    Raises:
        MachineError: without the package that reads it.
        InputError: for an unknown key, and several arrays without one.
    """
    package = CONTAINERS[path.suffix.lower()]
    try:
        reader = import_module(package)
    except ImportError:
        raise MachineError(f"{quote(path)} needs the package {package}; install it with pip install {package}, or save "
                           "the array as .npy") from None
    with decoding(path, "a container of arrays"):
        root = reader.File(path, "r") if package == "h5py" else reader.open(str(path), mode="r")
        arrays = _arrays_of(root)
        names = [name for name in arrays if name != label]
        key = options.key or next((k for k in ("x", "data", "images") if k in names), None) or (
            names[0] if len(names) == 1 else None)
        for wanted in [k for k in (key, label) if k is not None]:
            if wanted not in arrays:
                raise InputError(f"{quote(path)} holds no array called {quote(wanted)}{did_you_mean(wanted, arrays)}")
        if key is None:
            raise InputError(f"{quote(path)} holds {', '.join(map(quote, names[:8])) or 'no array'}; choose one with "
                             "--key NAME")
        x = np.asarray(arrays[key][...])
        y = None if label is None else np.asarray(arrays[label][...])
    return from_arrays(x, y, name=path.name, options=options)


def _arrays_of(node: Any, prefix: str = "") -> dict[str, Any]:
    """The arrays below a group, by path; a container may be one array."""
    if hasattr(node, "dtype"):
        return {prefix or "x": node}
    arrays: dict[str, Any] = {}
    for name in node:
        arrays |= _arrays_of(node[name], f"{prefix}/{name}" if prefix else str(name))
    return arrays


def on_disk(path: Path, options: ArrayOptions) -> Dataset | None:
    """The Dataset of an .npy file that stays on the disk; None for types and orders that have to be read."""
    with decoding(path, "an .npy array"):
        try:
            array = npy.open_memmap(path, mode="r")
        except ValueError:  # too short, or Python objects
            return None
    types: dict[str, torch.dtype] = {name: getattr(torch, name) for name in ("uint8", "int16", "float32", "float64")}
    if array.dtype.name not in types or not array.dtype.isnative or not array.flags.c_contiguous or array.ndim < 3:
        return None
    kind, row = types[array.dtype.name], array.shape[1:]
    if array.dtype == np.uint8 and array.ndim < 5 and not options.layout and _picture_axes(array.shape):
        return _pictures(path, array)
    if are_pictures(np.asarray(array[:: max(1, len(array) // _LOOKED_AT)]), options.layout):
        return None
    stored = lazy.StoredArray(path, array.offset, row, kind, len(array))
    return make_lazy_array(cast(Any, stored), array.dtype, options, name=path.name)


def _picture_axes(shape: Sequence[int]) -> bool:
    return len(shape) == 3 or bool({shape[1], shape[3]} & {1, 3})


def _pictures(path: Path, array: Any) -> Dataset:
    """Images, grey or RGB, that stay in their file."""
    n, *row = array.shape if array.ndim == 4 else (len(array), 1, *array.shape[1:])
    kind = lazy.StoredArray if row[0] in (1, 3) else lazy.ChannelsLast
    return Dataset(cast(Any, kind(path, array.offset, row, torch.uint8, n)), None, "image", path.name, levels=256,
                   notes=("the images are read as they are needed",))


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and not is_hidden(p.relative_to(folder)))
