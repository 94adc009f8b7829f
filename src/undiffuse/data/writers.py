"""Samples to files: .png grids, .npy arrays and .csv tables, written atomically."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from undiffuse.atomic_files import atomic
from undiffuse.data.lazy import Lazy
from undiffuse.data.pixel_units import PixelUnits
from undiffuse.errors import InputError, quote
from undiffuse.transforms.array_schema import ArraySchema
from undiffuse.transforms.table_cells import default_columns
from undiffuse.transforms.table_schema import TableSchema

_SUFFIXES = (".png", ".npy", ".csv")
_MAX_PIXELS = 64 << 20
_MIN_SIDE = 32  # pixels to which small images are enlarged
_PART = 1 << 20  # numbers that are written at a time

TextRows = Callable[[Tensor, Sequence[int] | None], tuple[list[str], list[list[str]]]]
"""Header and cells of samples and their class numbers."""


def save_samples(path: str | os.PathLike[str], x: Tensor | Lazy, *, levels: int = 0, units: PixelUnits | None = None,
                 columns: Sequence[str] = (), labels: Tensor | None = None, classes: Sequence[str] = (),
                 label_name: str = "label", schema: TableSchema | None = None, array: ArraySchema | None = None,
                 condition_texts: Mapping[str, str] | None = None) -> Path:
    """Write samples to a file; returns its path.

    Args:
        path: .png or .npy for images, .npy or .csv for points and tables.
        x: samples in data units; images (N, C, H, W) are rounded and clamped to 0 ... levels−1.
        levels: number of grey levels; 0: 256.
        units: units of an .npy of images, instead of levels; None: the grey levels as uint8.
        columns: names of the columns of a .csv.
        labels: class numbers (N,), the last column of a .csv.
        classes: names of the classes.
        label_name: name of that column.
        schema: schema of a table, in whose notation a .csv is written.
        array: channels and type of an array, which is written as .npy.
        condition_texts: of a table, the text of each condition that all samples have.

    Raises:
        InputError: before anything is written, for samples that are not finite, an unknown ending, and a shape that the
            file cannot hold.
        MachineError: if writing fails.
    """
    path, units = Path(path), units or PixelUnits("uint8", 0, (levels or 256) - 1, levels or 256)
    if array is not None and path.suffix.lower() != ".npy":
        raise InputError(f"got {quote(path)} for samples of an array; expected a name that ends in .npy")
    _check(path, x, labels)
    with atomic(path) as file:
        if path.suffix.lower() == ".npy":
            _npy(file, x, array or units)
        elif path.suffix.lower() == ".png":
            file.write(png_grid(x[:], units.levels))
        else:
            table = schema and (lambda part, numbers: schema.cells(part, numbers, condition_texts, label_name))
            for text in _csv(x, labels, table or partial(_cells, columns=columns, classes=classes,
                                                         label_name=label_name), schema.separator if schema else ","):
                file.write(text.encode())
    return path


def png_grid(x: Tensor, levels: int = 256) -> bytes:
    """A PNG of images (N, C, H, W) in an almost square grid; small images are enlarged by an integer factor."""
    from PIL import Image

    across = math.ceil(math.sqrt(len(x)))
    down = math.ceil(len(x) / across)
    zoom = max(1, _MIN_SIDE // max(x.shape[-2:]))
    if across * down * zoom**2 * math.prod(x.shape[-2:]) > _MAX_PIXELS:
        raise InputError(f"got {len(x)} images of {x.shape[-1]}x{x.shape[-2]}, too many for one .png; "
                         "save them as .npy")
    grey = torch.from_numpy(PixelUnits(levels=levels).array(x.detach().cpu()))
    grid = _tiles(grey, across, down)
    grid = grid.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)
    buffer = io.BytesIO()
    Image.fromarray(grid.squeeze(-1).numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def check_path(path: Path) -> None:
    """InputError for a path that cannot be written: an unknown ending, a folder, or a missing folder."""
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"got {quote(path)}; expected a name that ends in {', '.join(_SUFFIXES)}")
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{quote(path)} cannot be written: it is a folder, or its folder does not exist")


def _check(path: Path, x: Tensor | Lazy, labels: Tensor | None) -> None:
    check_path(path)
    suffix = path.suffix.lower()
    if suffix == ".png" and not (len(x.shape) == 4 and x.shape[1] in (1, 3) and 0 not in x.shape):
        raise InputError(f"got samples of shape {tuple(x.shape)}, which are not images for a .png; save them "
                         "as .npy or .csv")
    if suffix == ".csv" and len(x.shape) != 2:
        raise InputError(f"got samples of shape {tuple(x.shape)}, which are not rows for a .csv; save them as "
                         ".npy or .png")
    if labels is not None and labels.shape != tuple(x.shape[:1]):
        raise InputError(f"got {tuple(labels.shape)} labels for {len(x)} samples; expected one for each")
    broken = [at + row for at, part in _parts(x)
              for row in (~part.isfinite().flatten(1).all(1)).nonzero()[:, 0].tolist()]
    if broken:
        raise InputError(f"{len(broken)} of {len(x)} samples are not finite, the first is number "
                         f"{broken[0]}; nothing was written")


def _parts(x: Tensor | Lazy) -> Iterator[tuple[int, Tensor]]:
    """The samples in parts, each with its first number."""
    size = max(1, _PART // max(1, math.prod(x.shape[1:])))
    return ((at, x[at : at + size]) for at in range(0, len(x), size))


def _npy(file: IO[bytes], x: Tensor | Lazy, units: PixelUnits | ArraySchema) -> None:
    """An .npy file, part by part."""
    kind = _in_units(x[:0], units).dtype
    header = {"descr": npy.dtype_to_descr(kind), "fortran_order": False, "shape": tuple(x.shape)}
    npy.write_array_header_1_0(file, header)
    for _, part in _parts(x):
        file.write(_in_units(part, units).tobytes())


def _in_units(x: Tensor, units: PixelUnits | ArraySchema) -> NDArray[Any]:
    """The array of images and of arrays in units of their data, and of other samples unchanged."""
    x = x.detach().cpu()
    return units.array(x) if x.ndim == 4 or isinstance(units, ArraySchema) else x.numpy()


def _tiles(x: Tensor, across: int, down: int) -> Tensor:
    """(N, C, H, W) as one picture (rows, columns, C), with black lines between images."""
    x = functional.pad(x, (0, 1, 0, 1))
    n, channels, height, width = x.shape
    padded = torch.cat([x, x.new_zeros(across * down - n, channels, height, width)])
    tiles = padded.reshape(down, across, channels, height, width).permute(0, 3, 1, 4, 2)
    return tiles.reshape(down * height, across * width, channels)[:-1, :-1]


def _csv(x: Tensor | Lazy, labels: Tensor | None, cells: TextRows, separator: str) -> Iterator[str]:
    """The text of a table, part by part: the header and the rows."""
    yield _text([cells(x[:0], None if labels is None else [])[0]], separator)
    for at, part in _parts(x):
        yield _text(cells(part, None if labels is None else labels[at : at + len(part)].tolist())[1], separator)


def _cells(x: Tensor, labels: Sequence[int] | None, columns: Sequence[str], classes: Sequence[str], label_name: str
           ) -> tuple[list[str], list[list[str]]]:
    """Header and cells of numbers, with the digits that restore each exactly."""
    header = list(columns) or default_columns(x.shape[1])
    if len(header) != x.shape[1]:
        raise InputError(f"got {len(header)} names for {x.shape[1]} columns; expected as many")
    digits = ".17g" if x.dtype == torch.float64 else ".9g"
    rows = [[format(value, digits) for value in row] for row in x.detach().cpu().tolist()]
    for row, label in zip(rows, labels or (), strict=labels is not None):
        row.append(classes[label] if classes else str(label))
    return [*header, *([label_name] if labels is not None else [])], rows


def _text(rows: Sequence[Sequence[str]], separator: str) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n").writerows(rows)
    return text.getvalue()
