"""Checks that every reader applies: broken and malicious files, and numbers in memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from undiffuse.data.dataset import Dataset
from undiffuse.errors import InputError, UndiffuseError, quote
from undiffuse.transforms.conditions import categories_of
from undiffuse.transforms.table_cells import default_columns
from undiffuse.transforms.table_schema import TableSchema

_MAX_VALUE = 1e30
_FAR_FROM_ZERO = 6  # standard deviations beyond which samples do not change their sign
_CHUNK = 256
_MAX_UNPACKED, _MAX_RATIO = 256 << 20, 100


@contextmanager
def decoding(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a decoder raises in the block into one InputError that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (UndiffuseError, MemoryError):
        raise
    except FileNotFoundError:
        raise InputError(f"there is no file {quote(path)}") from None
    except Exception as error:
        reason = " ".join(ascii(str(error))[1:-1].split())[:160] or type(error).__name__
        raise InputError(f"{quote(path)} cannot be read as {what} ({reason}); "
                         "check that the file is complete and of this type") from error


def refuse_bomb(path: Path, unpacked: int) -> None:
    """Refuse a compressed file that unpacks to over 256 MiB and over a hundred times its size."""
    if unpacked > max(_MAX_UNPACKED, _MAX_RATIO * path.stat().st_size):
        raise InputError(f"{quote(path)} would unpack to {unpacked:,} bytes, more than {_MAX_RATIO} times its "
                         "size; if this is meant, save it without compression")


def check_first(first: int | None) -> None:
    """Refuse a number of first rows below two."""
    if first is not None and first < 2:
        raise InputError(f"got first={first}; expected at least 2 rows, or none for all rows")


def first_line(error: Exception) -> str:
    """The first line of an error's message, or else its type, in at most 200 characters."""
    return " ".join(str(error).split("\n")[0].split())[:200] or type(error).__name__


def make_table(x: NDArray[np.float64], *, name: str, columns: Sequence[str] = (),
               label_texts: Sequence[str] | None = None, schema: TableSchema | None = None,
               missing: bool = False, notes: Sequence[str] = ()) -> Dataset:
    """The Dataset of numbers (N, D): points or a table.

    Points are up to three columns of similar scale; with a schema, none of them whole or of one sign and near zero.

    Args:
        x: the numbers.
        name: name of the data.
        columns: names of the columns; x1, x2, ... by default.
        label_texts: the class of every row.
        schema: schema of the columns; by default that of numbers.
        missing: whether NaN is a missing value rather than an error.
        notes: remarks on changes to the data.

    Raises:
        InputError: for less than two rows, NaN or Inf, columns without a value, equal rows, and too large numbers.
    """
    check_count(len(x), name)
    plain = schema is None or not any(form.integer or form.kind != "number" for form in schema.formats)
    read = schema is not None
    schema = schema or TableSchema.of_numbers(columns or default_columns(x.shape[1]), x)
    names = schema.columns
    empty = np.isnan(x) if missing else np.zeros(x.shape, dtype=np.bool_)
    _check_filled(empty, name, names)
    check_finite(np.where(empty, 0.0, x), name, names)
    values = np.ma.masked_array(x, empty)
    constant = np.asarray(values.max(0) == values.min(0))
    if constant.all():
        raise InputError(f"all {len(x)} rows of {name} are equal, so there is nothing to learn")
    std = np.where(constant, np.nan, _std(values, name))
    similar = len(names) <= 3 and not constant.any() and not empty.any() and plain and std.max() <= 10 * std.min()
    similar = similar and not (read and _one_sided(x, std).any())
    y, classes = encode_labels(label_texts, name) if label_texts is not None else (None, ())
    rows = torch.tensor(x, dtype=torch.float32 if similar else torch.float64)  # a copy: the array may change later
    return Dataset(rows, y, "points" if similar else "table", name, classes, names, categories=schema.categories,
                   schema=schema, notes=(*notes, *_category_note(names, schema.categories), *_missing_note(empty),
                                         *_constant_note(names, constant)))


def images(x: Tensor, *, name: str, levels: int = 256, label_texts: Sequence[str] | None = None,
           size: int | None = None, notes: Sequence[str] = ()) -> Dataset:
    """The Dataset of images, grey or RGB.

    Args:
        x: uint8 or int32 (N, C, H, W) in 0 ... levels−1.
        name: name of the data.
        levels: number of grey levels.
        label_texts: the class of every image.
        size: side to which the centre squares are resized; None: unchanged.
        notes: remarks on changes to the data.

    Raises:
        InputError: for less than two images, empty or equal images, and another number of channels.
    """
    check_count(len(x), name)
    if x.shape[1] not in (1, 3) or 0 in x.shape:
        raise InputError(f"{name} has images of {'x'.join(map(str, x.shape[1:]))} (channels, height, width); "
                         "expected 1 (grey) or 3 (RGB) channels and at least one pixel")
    if size is not None:
        x = resize(x, size, levels)
    if (x == x[:1]).all():
        raise InputError(f"all {len(x)} images of {name} are equal, so there is nothing to learn")
    y, classes = encode_labels(label_texts, name) if label_texts is not None else (None, ())
    return Dataset(x, y, "image", name, classes, levels=levels, notes=tuple(notes))


def resize(x: Tensor, size: int, levels: int = 256) -> Tensor:
    """The centre squares of images (N, C, H, W), resampled to size x size (bicubic, antialiased).

    Args:
        x: images (N, C, H, W), whole numbers.
        size: side of the result in pixels.
        levels: number of grey levels per channel.
    """
    side = min(x.shape[-2:])
    top, left = ((length - side) // 2 for length in x.shape[-2:])
    square = x[..., top:top + side, left:left + side]
    if side == size:
        return square.contiguous()
    return torch.cat([_resample(part, size, levels) for part in torch.split(square, _CHUNK)])


def encode_labels(texts: Sequence[str], name: str) -> tuple[Tensor, tuple[str, ...]]:
    """Class numbers 0, 1, ... (int64) and the names of the classes: numbers in order, then words in order.

    Raises:
        InputError: if the labels hardly repeat, so that they must be identifiers.
    """
    classes = categories_of(texts, lambda count: (
        f"the labels of {name} take {count} different values in {len(texts)} rows; expected classes that occur again, "
        "so choose another label"))
    number = {text: i for i, text in enumerate(classes)}
    return torch.tensor([number[text] for text in texts]), classes


def check_finite(x: NDArray[np.float64], name: str, columns: Sequence[str] = ()) -> None:
    """Raise InputError for NaN and Inf, naming the first by row and column.

    Args:
        x: the numbers, rows first.
        name: name of the source in the message.
        columns: names of the columns; empty: none.
    """
    finite = np.isfinite(x)
    if not finite.all():
        at = tuple(int(i) for i in np.unravel_index(int(np.argmin(finite)), x.shape))
        column = f", column {quote(columns[at[1]])}" if columns else ""
        raise InputError(f"{name} holds {x[at]} in row {at[0] + 1}{column} (x[{', '.join(map(str, at))}]); "
                         "expected finite numbers, so fill in or remove that row")


def _resample(x: Tensor, size: int, levels: int) -> Tensor:
    smooth = functional.interpolate(x.float(), (size, size), mode="bicubic", antialias=True)
    # Slightly above a half, so that rounding of ties does not depend on the last bits.
    return (smooth + 0.5001).floor().clamp(0, levels - 1).to(x.dtype)


def check_count(n: int, name: str) -> None:
    """Refuse less than two samples."""
    if n < 2:
        raise InputError(f"{name} holds {n} sample{'s' * (n != 1)}; expected at least 2")


def _check_filled(missing: NDArray[np.bool_], name: str, columns: Sequence[str]) -> None:
    empty = missing.all(0)
    if empty.any():
        raise InputError(f"column {quote(columns[int(np.argmax(empty))])} of {name} has no value in any row; remove it")


def _std(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    if np.abs(x).max() > _MAX_VALUE:
        raise InputError(f"{name} holds {np.abs(x).max():.3g}; expected numbers up to {_MAX_VALUE:g}, so scale them")
    std = np.asarray(x.std(0), np.float64)
    if (tiny := (std > 0) & (std < 1 / _MAX_VALUE)).any():
        raise InputError(f"{name} holds a column that varies by {std[tiny].max():.3g}, less than float32 resolves; "
                         f"scale it")
    return std


def _one_sided(x: NDArray[np.float64], std: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The columns whose numbers have one sign and come near zero, so that samples of one scale may change the sign."""
    near = np.abs(x.mean(0)) < _FAR_FROM_ZERO * std
    return np.asarray(near & ((x.min(0) >= 0) | (x.max(0) <= 0)))


def _category_note(columns: Sequence[str], categories: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    counts = [f"{c} ({len(w)})" for c, w in zip(columns, categories, strict=False) if w]
    return (f"columns of categories: {', '.join(counts[:8])}{', ...' if len(counts) > 8 else ''}",) if counts else ()


def _missing_note(missing: NDArray[np.bool_]) -> tuple[str, ...]:
    count = int(missing.sum())
    return (f"{count:,} of {missing.size:,} cells are missing values, which the loss leaves out",) if count else ()


def _constant_note(columns: Sequence[str], constant: NDArray[np.bool_]) -> tuple[str, ...]:
    names = [c for c, same in zip(columns, constant, strict=True) if same]
    if not names:
        return ()
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return (f"{len(names)} constant {'columns are' if len(names) > 1 else 'column is'} stored and restored exactly "
            f"({listed})",)
