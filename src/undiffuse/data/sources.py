"""From a name, a path or data in memory to a Dataset."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from undiffuse.data import huggingface, lazy, tables
from undiffuse.data.array_files import CONTAINERS, holds_arrays, on_disk, read_container, read_folder_of_arrays
from undiffuse.data.arrays import (
    images_in,
    in_memory,
    is_idx,
    load_array,
    load_rows,
    read_idx,
    read_idx_folder,
    read_npy,
    read_npz,
)
from undiffuse.data.dataset import Dataset
from undiffuse.data.fields import ArrayOptions
from undiffuse.data.images import is_picture, load_deep_pictures, load_pictures, read_folder
from undiffuse.data.pixel_units import PixelUnits, with_channels
from undiffuse.data.toys import TOYS, digits, toy
from undiffuse.data.validation import check_first, resize
from undiffuse.data.windows import SeriesOptions, read_series
from undiffuse.errors import InputError, did_you_mean, quote
from undiffuse.tensors import ArrayLike
from undiffuse.transforms.table_cells import DEFAULT_OPTIONS, Cells, TableOptions, array_cells, frame_cells
from undiffuse.transforms.table_schema import TableRows, TableSchema

NAMES = ("digits", *TOYS)
_MAX_SIZE = 1024
_PARTS = {"train": ("train", "training"), "test": ("test", "testing"), "valid": ("val", "valid", "validation")}

Source = str | os.PathLike[str] | Dataset | ArrayLike
"""Sources that `open_data` opens."""


def open_data(source: Source, *, size: int | None = None, label: str | None = None,
              n: int | None = None, seed: int = 0, part: str = "train", condition: Sequence[str] = (),
              first: int | None = None, skip_broken: bool = False, layout: str | None = None,
              channels: Sequence[str] = (), key: str | None = None, time: str | None = None,
              window: int | None = None, stride: int = 1, group: str | None = None, **table: Any) -> Dataset:
    """The Dataset of a source.

    Args:
        source: a built-in set, a file, a folder of images, arrays (.npy, .npz, .wav), IDX or parquet files, OWNER/NAME
            of the Hugging Face hub, an array, list, tensor or DataFrame, or a Dataset.
        size: side of square images in pixels (centre square, resampled).
        label: column (table) or key (.npz) of the classes.
        n: number of samples (toys: 10,000 by default; others: all, or a random subset).
        seed: seed of toys and of the subset.
        part: "train" or "test", where the source has both.
        condition: columns or keys that are conditions, as NAME or NAME:KIND.
        first: number of samples from the start on; of the hub only these are fetched.
        skip_broken: of a folder of images, whether those that cannot be read as the first one are left out.
        layout: of arrays, one letter per axis, such as NTC or NCHW; by default inferred from the shape.
        channels: of arrays, names of the channels.
        key: of files of several arrays, the name of the one to learn.
        time: of series, the column of times; None: the rows are consecutive steps.
        window: number of steps of a window, which makes a table a series (`data.windows`).
        stride: of series, steps between the beginnings of consecutive windows.
        group: of series, the column that tells several apart.
        table: of tables, fields of `TableOptions`, such as ignore=["id"], missing=["-999"] or decimal=",".

    Raises:
        InputError: for a source that cannot be read, and options that do not apply to it.
        MachineError: for a missing package and a hub that cannot be reached.
    """
    _check_options(size, part, first)
    options, array = TableOptions.from_config(table), ArrayOptions(layout, tuple(channels), key)
    windows = SeriesOptions(time, window, stride, group)
    windows.check()
    if window is not None and not isinstance(source, Dataset):
        return _series(source, windows, options, label, condition, part, first)
    if not isinstance(source, str | os.PathLike):
        data = _in_memory(source, size, label, part, condition, options, array).head(first)
        return data if n is None else data.subset(n, seed)
    name = os.fsdecode(source)
    if name in TOYS:
        data = toy(name, (first or 10_000) if n is None else n, seed, part)
    else:
        data = _open(name, size, label, part, condition, first, skip_broken, options, array)
        data = data if n is None else data.subset(n, seed)
    _check_used(data, size, label, condition, options, _has_columns(name))
    _check_array(data, array, name)
    return _note_shadowed(data, name)


def _series(source: Any, windows: SeriesOptions, options: TableOptions, label: str | None, condition: Sequence[str],
            part: str, first: int | None) -> Dataset:
    """The windows of a series in a table or an array (steps, C)."""
    if label is not None or condition:
        raise InputError(f"got {'label' if label is not None else 'condition'} for a series, whose windows have none; "
                         "leave it out: other columns are channels")
    cells = series_cells(source, options, part, first)
    return read_series(cells, windows, cells.path.name)


def series_cells(source: Any, options: TableOptions = DEFAULT_OPTIONS, part: str = "train",
                 first: int | None = None, names: Collection[str] = ()) -> Cells:
    """The cells of a series: a table in a file or of the hub, a DataFrame, or an array (steps, C).

    A DataFrame whose index holds times has them as its first column, named like the index or "time".

    Args:
        source: the series.
        options: how a table is read.
        part: "train" or "test".
        first: number of rows from the start on; None: all.
        names: names of columns by which a header is recognised.

    Raises:
        InputError: for any other source.
    """
    if hasattr(source, "columns"):
        if hasattr(getattr(source, "index", None), "freq") or getattr(getattr(source, "index", None), "name", None):
            source = source.rename_axis(source.index.name or "time").reset_index()
        return frame_cells(source, options=options)
    path = Path(os.path.expanduser(os.fsdecode(source))) if isinstance(source, str | os.PathLike) else None
    if path is not None and path.suffix.lower() not in (".npy", ".npz"):
        if (cells := open_cells(str(path), part, first, options, names)) is None:
            raise InputError(f"got {quote(path)} for a series; expected a table with a row per step, such as .csv")
        return cells
    x = load_array(path, part) if path is not None else np.asarray(source)
    if x.ndim not in (1, 2):
        raise InputError(f"got an array of shape {x.shape} with window; expected one series (steps, C), or leave "
                         f"window out for samples (N, T, C)")
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    return array_cells(x, [f"x{j + 1}" for j in range(x.shape[1])], str(path or "the series"))


def open_cells(name: str, part: str = "train", first: int | None = None, options: TableOptions = DEFAULT_OPTIONS,
               names: Collection[str] = ()) -> Cells | None:
    """The cells of a table in a file or of Hugging Face; None for any other source.

    Args:
        name: path, or name of a table on the hub.
        part: "train" or "test".
        first: number of rows to read from the start; None: all.
        options: how the table is read.
        names: names of columns by which a header is recognised.
    """
    path = Path(os.path.expanduser(name))
    if name and name not in NAMES and huggingface.is_source(name, path):
        return huggingface.read_cells(name, part, first, options)
    if not tables.is_table(path) or not path.is_file():
        return None
    _only_train(path, part)
    return tables.read_cells(path, options, names)


def read_rows(source: str, schema: TableSchema, part: str = "train", first: int | None = None) -> TableRows | None:
    """The rows of a source for the model of a table, read as its training table was; None if it is not a table.

    Args:
        source: a table in a file or of Hugging Face, or an .npy or .npz file.
        schema: schema of the model.
        part: "train" or "test".
        first: number of rows to read from the start; None: all.
    """
    path = Path(os.path.expanduser(source))
    if path.suffix.lower() in (".npy", ".npz") and path.is_file():
        return schema.encode_numbers(load_rows(path, part), str(path))
    cells = open_cells(source, part, first, schema.options, schema.order)
    return None if cells is None else schema.encode(cells, strict=False)


def read_images(source: str, units: PixelUnits, channels: int, size: int | None = None, part: str = "train",
                first: int | None = None) -> tuple[Tensor, list[str]]:
    """Images (N, C, H, W) in grey levels that need not be whole, read as the images of a run were, and notes.

    One image is enough; grey images become RGB for a run on RGB, and RGB its luminance for one on grey; images larger
    than those of a run with `size` are cut and resampled to it.

    Args:
        source: a picture, an array, a folder, or any other source of images.
        units: units of the run.
        channels: number of channels of the run's images.
        size: side of square images in pixels, if the run resampled its images.
        part: "train" or "test".
        first: number of images from the start on; None: all.
    """
    path = Path(os.path.expanduser(source))
    if path.suffix.lower() in (".npy", ".npz") and path.is_file():
        x, notes = units.read(load_array(path, part))
    else:
        pictures = is_picture(path) or (path.is_dir() and not images_in(path))
        folder, notes = _part_of(path, part) if path.is_dir() else (path, [])
        data = None if pictures else open_data(source, part=part, first=first)
        if data is not None and data.kind != "image":
            raise InputError(f"got {quote(source)}, which does not hold images; expected pictures, .npy or IDX files, "
                             f"or a folder")
        x, more = _grey_levels(folder, units, size, first) if data is None else (
            data.x[:].double() * ((units.levels - 1) / (data.levels - 1)), [])
        notes += more
    notes += [f"images of {x.shape[1]} channels were converted to {channels}"] * (x.shape[1] != channels)
    x = with_channels(x[:first], channels)
    return (resize(x, size, units.levels) if size and min(x.shape[-2:]) > size else x), notes


def _grey_levels(path: Path, units: PixelUnits, size: int | None, first: int | None) -> tuple[Tensor, list[str]]:
    """Images of pictures in grey levels of a run, and notes."""
    deep = load_deep_pictures(path, first, size)
    if deep is None:
        return load_pictures(path, first, size).double() * ((units.levels - 1) / 255), []
    if units.levels <= 256:
        raise InputError(f"got {quote(str(path))} of 16 bits per pixel for a run on {units.levels} levels; expected "
                         "8 bits, so convert it")
    return units.read(deep)


def _in_memory(source: Dataset | ArrayLike, size: int | None, label: str | None, part: str,
               condition: Sequence[str], options: TableOptions, array: ArrayOptions) -> Dataset:
    """The Dataset of data in memory."""
    _only_train("data in memory", part)
    data = source if isinstance(source, Dataset) else in_memory(source, label, condition, size, options, array)
    if isinstance(source, Dataset) and size is not None:
        raise InputError(f"got size={size} for a Dataset, which is used unchanged; leave size out")
    _check_used(data, size, label, condition, options, hasattr(source, "to_numpy"))
    if not isinstance(source, Dataset):
        _check_array(data, array, "")
    return data


def _open(name: str, size: int | None, label: str | None, part: str, condition: Sequence[str],
          first: int | None, skip_broken: bool, options: TableOptions, array: ArrayOptions) -> Dataset:
    if name == "digits":
        return _digits(size, part).head(first)
    path = Path(os.path.expanduser(name))
    if name and huggingface.is_source(name, path):
        return huggingface.read(name, size, label, part, condition, first, options)
    if not name or not os.path.exists(path):
        raise InputError(_unknown(name, path))
    if path.suffix.lower() in CONTAINERS:
        _only_train(path, part)
        return read_container(path, array, label).head(first)
    if path.is_dir():
        return _folder(path, size, part, skip_broken, array).head(first)
    if not path.is_file():
        raise InputError(f"{quote(path)} is neither a file nor a folder; expected data on disk")
    return _file(path, size, label, part, condition, options, array).head(first)


def _file(path: Path, size: int | None, label: str | None, part: str, condition: Sequence[str],
          options: TableOptions, array: ArrayOptions) -> Dataset:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return read_npz(path, size, label, part, condition, array)
    if tables.is_table(path):
        _only_train(path, part)
        return tables.read_table(path, label, condition, options)
    if suffix == ".h5ad":
        _only_train(path, part)
        return tables.read_h5ad(path, label, condition)
    if suffix == ".npy":
        _only_train(path, part)
        large = size is None and path.stat().st_size > lazy.LARGE
        return (on_disk(path, array) if large else None) or read_npy(path, size, array)
    if is_idx(path):
        return read_idx(path, size, part)
    raise InputError(f"{quote(path)} has an unknown type; expected .npy, .npz, .csv, .tsv, .txt, .data, .xlsx, "
                     ".parquet, .h5ad, .h5, .zarr, an IDX file, or a folder of images, arrays or sounds")


def _folder(path: Path, size: int | None, part: str, skip_broken: bool, array: ArrayOptions) -> Dataset:
    """IDX files, arrays, or images; sub-folders "train" and "test" are parts, not labels."""
    path = path.absolute()
    if images_in(path):
        return read_idx_folder(path, size, part)
    folder, notes = _part_of(path, part)
    data = read_folder_of_arrays(folder, array) if holds_arrays(folder) else read_folder(folder, size, skip_broken)
    return replace(data, name=path.name, notes=(*notes, *data.notes))


def _part_of(path: Path, part: str) -> tuple[Path, list[str]]:
    """The folder of a part, and notes; a single folder above other folders is passed through.

    Folders train and test (or val) in any case are parts; the test part is the validation part if there is no other.
    """
    folders = {p.name.lower(): p for p in sorted(path.iterdir()) if p.is_dir() and not p.name.startswith(".")}
    parts = {key: folder for key, names in _PARTS.items() for name, folder in folders.items() if name in names}
    if "train" in parts and len(parts) > 1:
        if part == "train":
            others = ", ".join(folder.name for key, folder in parts.items() if key != "train")
            return parts["train"], [f"images in the folder {parts['train'].name} are learned, and none of {others}"]
        return parts.get("test", parts.get("valid", path)), []
    files = any(p.is_file() and is_picture(p) for p in path.iterdir())
    if len(folders) == 1 and not files and any(p.is_dir() for p in next(iter(folders.values())).iterdir()):
        return _part_of(next(iter(folders.values())), part)
    _only_train(path, part)
    return path, []


def _digits(size: int | None, part: str) -> Dataset:
    _only_train("digits", part)
    return digits(size)


def _only_train(source: str | Path, part: str) -> None:
    if part != "train":
        raise InputError(f"{quote(source)} has no test part; make one with .split(held_out)")


def _check_options(size: int | None, part: str, first: int | None) -> None:
    check_first(first)
    if part not in ("train", "test"):
        raise InputError(f"got part {part!r}; expected 'train' or 'test'")
    if size is not None and not 1 <= size <= _MAX_SIZE:
        raise InputError(f"got size={size}; expected 1 to {_MAX_SIZE} pixels")


def _has_columns(name: str) -> bool:
    """Whether a source can have a column or key for classes and conditions."""
    path = Path(os.path.expanduser(name))
    return huggingface.is_source(name, path) or tables.is_table(path) or name.lower().endswith(
        (".npz", ".h5ad", *CONTAINERS))


def _check_used(data: Dataset, size: int | None, label: str | None, condition: Sequence[str], options: TableOptions,
                columns: bool) -> None:
    """Refuse an option that does not apply to this data."""
    if size is not None and data.kind != "image":
        raise InputError(f"got size={size}, but {data.name} is not a set of images; leave size out")
    named = label if label is not None else ",".join(condition)
    if (chosen := options.config()) and (not columns or data.kind == "image"):
        raise InputError(f"got {', '.join(chosen)} for {data.name}, which is not a table with columns; leave it out")
    if named and not columns:
        option = "label" if label is not None else "condition"
        raise InputError(f"got {option}={named!r}, which names a column of a table or a key of an .npz file; "
                         f"{data.name} is neither, so leave {option} out")


def _check_array(data: Dataset, array: ArrayOptions, name: str) -> None:
    """Refuse an option of arrays that does not apply to this data."""
    used = {"layout": data.kind in ("array", "image"), "channels": data.kind == "array",
            "key": os.path.isdir(name) or name.lower().endswith((".npz", *CONTAINERS))}
    if unused := [option for option in array.chosen() if not used[option]]:
        kind = {"table": "a table", "image": "images"}.get(data.kind, data.kind)
        raise InputError(f"got {', '.join(unused)} for {data.name}, which is read as {kind}; leave it out")


def _note_shadowed(data: Dataset, name: str) -> Dataset:
    if name not in NAMES or not os.path.exists(name):
        return data
    return replace(data, notes=(*data.notes, f"the built-in set was used; write ./{name} for the file of this name"))


def _unknown(name: str, path: Path) -> str:
    try:
        siblings = [str(path.parent / entry) for entry in os.listdir(path.parent)]
    except (OSError, ValueError):
        siblings = []
    return (f"got {quote(name)}, which is neither a path that exists nor a built-in set ({', '.join(NAMES)})"
            f"{did_you_mean(name, [*NAMES, *siblings])}")
