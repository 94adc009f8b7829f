"""Arrays: .npy, .npz and IDX files (the format of MNIST), and data in memory, recognised by shape and type.

An IDX file has two zero bytes, the type (8 = uint8), the number of axes, the length of each axis as big-endian uint32,
and raw bytes; it may be compressed.
"""

from __future__ import annotations

import gzip
import math
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray

from undiffuse.data import tables, validation
from undiffuse.data.dataset import Dataset, bounded, with_conditions
from undiffuse.data.fields import PLAIN, ArrayOptions, make_array
from undiffuse.data.pixel_units import are_pictures, pixels_of
from undiffuse.data.validation import decoding, first_line, refuse_bomb
from undiffuse.errors import InputError, did_you_mean, quote
from undiffuse.regular_files import open_regular
from undiffuse.tensors import as_tensor
from undiffuse.transforms import conditions
from undiffuse.transforms.number_format import too_large
from undiffuse.transforms.table_cells import DEFAULT_OPTIONS, TableOptions, frame_cells

Array = NDArray[Any]
_SERIES = 16  # columns from which a table may be one of series
_PRIOR = {"prior_low": -math.inf, "prior_high": math.inf}  # keys of the bounds of a table, and what is without them


def read_npy(path: Path, size: int | None = None, options: ArrayOptions = PLAIN) -> Dataset:
    """The Dataset in a .npy file."""
    with decoding(path, "an .npy array"):
        x = _read_array(lambda: open_regular(path), path.stat().st_size, quote(path))
    return from_arrays(x, name=path.name, size=size, options=options)


def read_npz(path: Path, size: int | None = None, label: str | None = None, part: str = "train",
             condition: Sequence[str] = (), options: ArrayOptions = PLAIN) -> Dataset:
    """The Dataset in an .npz file.

    Args:
        path: the file, with samples under x, arr_0, images or data, or by part x_train, x_test, train_images, ...;
            prior_low and prior_high are bounds of the columns of a table.
        size: side of square images in pixels.
        label: key of the labels; y or labels by default.
        part: "train" or "test".
        condition: keys of conditions, as NAME or NAME:KIND; these are not labels.
        options: how the array is read.
    """
    with decoding(path, "an .npz archive"), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        refuse_bomb(path, sum(info.file_size for info in members.values()))
        kinds = dict(map(conditions.parse_spec, condition))
        x_key, y_key = _keys([key for key in members if key not in kinds], label, part, quote(path), options.key)
        if unknown := [key for key in kinds if key not in members]:
            raise InputError(f"{quote(path)} holds no {quote(unknown[0])}{did_you_mean(unknown[0], members)}")
        x = _member(archive, members[x_key], path)
        y = _member(archive, members[y_key], path) if y_key else None
        values = {key: _member(archive, members[key], path) for key in kinds}
        ends = [_member(archive, members[key], path) if key in members else end for key, end in _PRIOR.items()]
    data = from_arrays(x, y, name=path.name, size=size, options=options)
    data = bounded(data, *ends) if _PRIOR.keys() & members.keys() else data
    return with_conditions(data, [_condition(key, kinds[key], v, len(data)) for key, v in values.items()])


def from_arrays(x: Array, y: Array | Sequence[str] | None = None, *, name: str = "the array",
                size: int | None = None, options: ArrayOptions = PLAIN) -> Dataset:
    """The Dataset of an array.

    Args:
        x: numbers (N,) or (N, D); images (N, H, W) or 4-D, one channel or three, first or last, whole numbers or floats
            in [0, 1] or [−1, 1]; or any other array of 3 to 5 axes.
        y: labels (N,), integers or texts.
        name: name of the data.
        size: side of square images in pixels.
        options: how an array that is neither a table nor images is read.

    Raises:
        InputError: for other shapes, types and values.
    """
    x = np.asarray(x)
    _check_type(x.dtype, name)
    if not 1 <= x.ndim <= 5:
        raise InputError(f"{name} has shape {x.shape}; expected (N, D) numbers, or samples of one to three axes of "
                         "space and one of channels")
    label_texts = None if y is None else _label_texts(np.asarray(y), len(x), name)
    if x.ndim > 2 and (size is not None or are_pictures(x, options.layout)):
        return _images(x, label_texts, name, size)
    if x.ndim > 2 or options.layout:
        return make_array(x, options, name=name, label_texts=label_texts)
    return _rows(x, label_texts, name)


def in_memory(source: Any, label: str | None = None, condition: Sequence[str] = (), size: int | None = None,
              options: TableOptions = DEFAULT_OPTIONS, array: ArrayOptions = PLAIN) -> Dataset:
    """The Dataset of a DataFrame (with columns `label` and `condition`), an array, a tensor or a list.

    Args:
        source: the DataFrame, array, tensor or list.
        label: name of the column of class labels; None: no labels.
        condition: specifications of the columns that become conditions.
        size: side in pixels of the resampled images; None: unchanged.
        options: of a DataFrame, how it is read.
        array: of an array, how it is read.
    """
    if hasattr(source, "columns"):
        return tables.from_cells(frame_cells(source, options=options), "the table", label, condition)
    if isinstance(source, torch.Tensor) and not source.is_floating_point():
        return from_arrays(source.cpu().numpy(), size=size, options=array)
    if isinstance(source, torch.Tensor) or _of_tensors(source):
        return from_arrays(as_tensor(source, "data").detach().cpu().numpy(), size=size, options=array)
    try:
        return from_arrays(np.asarray(source), size=size, options=array)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"got data of type {type(source).__name__} ({first_line(error)}); expected a path, an array, "
                         "a DataFrame, a Dataset, or a list of rows of equal length") from None


def load_rows(path: Path, part: str = "train") -> NDArray[np.float64]:
    """The numbers (N, D) in an .npy or .npz file, without the checks of training data; see `load_array`."""
    x = load_array(path, part)
    if x.ndim not in (1, 2):
        raise InputError(f"{quote(path)} has shape {x.shape}; expected rows (N, D) of numbers")
    return np.asarray(x.reshape(len(x), -1), np.float64)


def load_array(path: Path, part: str = "train", key: str | None = None) -> Array:
    """The array in an .npy file, or the samples in an .npz file.

    Args:
        path: the file.
        part: "train" or "test", for an .npz file with both.
        key: name of the array in an .npz file; None: x, arr_0, images or data.
    """
    with decoding(path, "an array"):
        if path.suffix.lower() == ".npy":
            x = _read_array(lambda: open_regular(path), path.stat().st_size, quote(path))
        else:
            with zipfile.ZipFile(path) as archive:
                members = {Path(info.filename).stem: info for info in archive.infolist()}
                refuse_bomb(path, sum(info.file_size for info in members.values()))
                x = _member(archive, members[_keys(list(members), None, part, quote(path), key)[0]], path)
    return x


def _of_tensors(source: Any) -> bool:
    return isinstance(source, list | tuple) and any(isinstance(row, torch.Tensor) for row in source)


def _condition(name: str, kind: str | None, values: Array, n: int) -> tuple[conditions.Condition, torch.Tensor]:
    if len(values) != n or values.ndim > 2:
        raise InputError(f"the condition {quote(name)} has shape {values.shape}; expected ({n},) or ({n}, width), one "
                         "for each sample")
    return conditions.infer_rows(name, kind, values.tolist() if values.dtype.kind == "U" else values)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    read = npy.read_array_header_1_0 if npy.read_magic(stream) == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype


def _rows(x: Array, label_texts: list[str] | None, name: str) -> Dataset:
    values = np.asarray(x.reshape(len(x), -1) if x.size else x.reshape(len(x), 0), np.float64)
    if values.shape[1] == 0:
        raise InputError(f"{name} has shape {x.shape}; expected at least one row and one column")
    if x.dtype.kind in "iu" and too_large(float(np.abs(values).max(initial=0))):
        raise InputError(f"{name} holds whole numbers of over 2^53, which lose their last digits; subtract an offset, "
                         f"or leave "
                         "them out if they are identifiers")
    side = math.isqrt(values.shape[1])
    flat = x.dtype == np.uint8 and side > 3 and side * side == values.shape[1]
    notes = [f"read as a table; save it as (N, {side}, {side}) if the rows are images"] if flat else [
        f"read as a table of {values.shape[1]} columns; --layout NT reads the rows as series"] * (
            values.shape[1] >= _SERIES and x.dtype.kind == "f")
    return validation.make_table(values, name=name, label_texts=label_texts, missing=True, notes=notes)


def _images(x: Array, label_texts: list[str] | None, name: str, size: int | None) -> Dataset:
    if x.size == 0:
        raise InputError(f"{name} has shape {x.shape}; expected at least 2 images of at least one pixel")
    validation.check_finite(np.asarray(x, np.float64), name)
    pixels, units, notes = pixels_of(x, name)
    data = validation.images(pixels, name=name, levels=units.levels, label_texts=label_texts, size=size, notes=notes)
    return replace(data, units=units)


def _label_texts(y: Array, n: int, name: str) -> list[str]:
    """Labels as texts; integer-valued floats are integers."""
    y = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    if y.shape != (n,):
        raise InputError(f"the labels of {name} have shape {y.shape}; expected ({n},), one for each sample")
    if y.dtype.kind == "f" and np.isfinite(y).all() and (y == np.rint(y)).all():
        y = y.astype(np.int64)
    if y.dtype.kind not in "iubU":
        raise InputError(f"the labels of {name} are of type {y.dtype}; expected whole numbers or words")
    return [str(label) for label in (y.astype(np.int64) if y.dtype.kind == "b" else y).tolist()]


def _keys(keys: list[str], label: str | None, part: str, name: str, key: str | None = None
          ) -> tuple[str, str | None]:
    part_x, part_y = [f"x_{part}", f"{part}_images"], [f"y_{part}", f"{part}_labels"]
    plain = part == "train"
    if key is not None and key not in keys:
        raise InputError(f"{name} holds no array called {quote(key)}{did_you_mean(key, keys)}")
    x = key or next((k for k in [*part_x, *["x", "arr_0", "images", "data"] * plain] if k in keys), None)
    if x is None:
        raise InputError(f"{name} holds {', '.join(map(quote, keys[:8])) or 'nothing'}; expected the "
                         "samples under "
                         + ("'x', 'arr_0', 'images' or 'data'" if plain else "'x_test' or 'test_images'"))
    if label is not None and label not in keys:
        raise InputError(f"{name} holds no labels called {quote(label)}{did_you_mean(label, keys)}")
    return x, label or next((k for k in [*part_y, *["y", "labels"] * plain] if k in keys), None)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Array:
    return _read_array(lambda: archive.open(info), info.file_size, f"{info.filename} in {quote(path)}")


def _read_array(source: Callable[[], IO[bytes]], available: int, name: str) -> Array:
    """An array, after its header was compared with the size of the file; nothing is unpickled."""
    with source() as stream:
        shape, dtype = _header(stream)
    _check_type(dtype, name, labels=True)
    needed = math.prod(shape) * dtype.itemsize
    if needed > available:
        raise InputError(f"the header of {name} promises {needed:,} bytes, but there are {available:,}; "
                         "the file is cut short or broken")
    with source() as stream:
        return np.asarray(npy.read_array(stream, allow_pickle=False))


def _check_type(dtype: np.dtype[Any], name: str, labels: bool = False) -> None:
    if dtype.kind not in ("biufU" if labels else "biuf"):
        what = "Python objects, which are never loaded" if dtype.hasobject else f"values of type {dtype}"
        raise InputError(f"{name} holds {what}; expected numbers, so save it as float32 or uint8")


_UINT8 = 8
_PREFIX = {"train": ("train",), "test": ("t10k", "test")}
_IMAGES_LABELS = (("images-idx3", "labels-idx1"), ("images.idx3", "labels.idx1"))


def is_idx(path: Path) -> bool:
    """Whether the name or the first bytes identify an IDX file."""
    if "idx" in path.name.lower() or path.suffix.lower() == ".gz":
        return True
    with decoding(path, "a file"), open_regular(path) as file:
        return file.read(3) == bytes([0, 0, _UINT8])


def images_in(folder: Path) -> list[Path]:
    """The IDX image files of a folder, training and test part."""
    return sorted(p for p in folder.iterdir() if any(key in p.name for key, _ in _IMAGES_LABELS))


def read_idx_folder(folder: Path, size: int | None = None, part: str = "train") -> Dataset:
    """The Dataset of a folder with train-images-idx3-ubyte(.gz), t10k-images-..., and their labels.

    Args:
        folder: the folder.
        size: side in pixels of the resampled images; None: unchanged.
        part: "train" or "test".
    """
    files = [p for p in images_in(folder) if any(prefix in p.name for prefix in _PREFIX[part])]
    if len({p.name.removesuffix(".gz") for p in files}) != 1:
        raise InputError(f"{quote(folder)} holds {len(files)} IDX image files of the {part} part; expected "
                         "one, so give the path of the file")
    return _read(files[0], folder.name, size)


def read_idx(path: Path, size: int | None = None, part: str = "train") -> Dataset:
    """The Dataset of one IDX file of images.

    Args:
        path: the file of images.
        size: side in pixels of the resampled images; None: unchanged.
        part: "train" reads the file itself, "test" the t10k file next to a train file.
    """
    if part == "test":
        return _read(_test_file(path), path.parent.name, size)
    return _read(path, path.name, size)


def load_idx(path: Path) -> NDArray[np.uint8]:
    """The array of an IDX file of uint8, after its header was compared with the size of the data."""
    with decoding(path, "an IDX file"), _open_idx(path) as stream:
        shape = _shape(stream, path)
        needed = math.prod(shape)
        refuse_bomb(path, needed)
        data = stream.read(needed + 1)
    if len(data) != needed:
        size = f"{len(data):,}" if len(data) < needed else "more"
        raise InputError(f"the header of {quote(path)} promises {needed:,} bytes, but there are {size}; "
                         "the file is cut short or broken")
    return np.frombuffer(bytearray(data), np.uint8).reshape(shape)


def _read(path: Path, name: str, size: int | None) -> Dataset:
    x = load_idx(path)
    if x.ndim == 1:
        raise InputError(f"{quote(path)} holds labels; give the file of the images, next to which "
                         "labels are found")
    labels = _label_file(path)
    label_texts = None if labels is None else _label_texts(load_idx(labels), len(x), quote(labels))
    if x.ndim != 3:
        return from_arrays(x, label_texts, name=name, size=size)
    notes = ["no labels were found next to the images"] if label_texts is None else []
    return validation.images(torch.from_numpy(x)[:, None], name=name, label_texts=label_texts, size=size, notes=notes)


def _open_idx(path: Path) -> BufferedIOBase:
    with open_regular(path) as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.GzipFile(path, "rb") if packed else path.open("rb")


def _shape(stream: BufferedIOBase, path: Path) -> tuple[int, ...]:
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or not 1 <= head[3] <= 4:
        raise InputError(f"{quote(path)} is not an IDX file: it begins with {head.hex(' ') or 'nothing'}; "
                         "expected 00 00 08 and the number of axes, 1 to 4")
    if head[2] != _UINT8:
        raise InputError(f"{quote(path)} holds IDX values of type {head[2]}; expected type 8, unsigned bytes")
    return struct.unpack(f">{head[3]}I", stream.read(4 * head[3]))


def _label_file(path: Path) -> Path | None:
    names = [path.name.replace(images, labels) for images, labels in _IMAGES_LABELS if images in path.name]
    stems = [name.removesuffix(".gz") for name in names]
    return _first_file([path.with_name(name) for stem in stems for name in (stem, stem + ".gz")])


def _test_file(path: Path) -> Path:
    names = [path.name.replace("train", prefix) for prefix in _PREFIX["test"] if "train" in path.name]
    file = _first_file([path.with_name(name) for name in names])
    if file is None and not any(prefix in path.name for prefix in _PREFIX["test"]):
        raise InputError(f"{quote(path)} has no test images next to it; expected a t10k file of the same kind")
    return file or path


def _first_file(paths: list[Path]) -> Path | None:
    return next((p for p in paths if p.is_file()), None)
