"""From numbers in memory to a Dataset: the checks that no reader may skip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from undiffuse.data.dataset import Dataset
from undiffuse.errors import InputError, quote
from undiffuse.transforms.conditions import by_number

_LARGEST = 1e30
_CHUNK = 256


def make_table(x: NDArray[np.float64], *, name: str, columns: Sequence[str] = (), marks: Sequence[str] | None = None,
         words: Sequence[tuple[str, ...]] = (), gaps: bool = False, note: Sequence[str] = ()) -> Dataset:
    """Points (up to three columns of similar scale) or a table, from finite numbers (N, D).

    words: what the numbers of each column stand for; gaps: NaN is a cell that is missing. Raises InputError for less
    than two rows, NaN or Inf, columns without a value, equal rows, and numbers that float32 cannot hold.
    """
    names = tuple(columns) or tuple(default_columns(x.shape[1]))
    _enough(len(x), name)
    missing = np.isnan(x) if gaps else np.zeros(x.shape, dtype=np.bool_)
    _check_filled(missing, name, names)
    check_finite(np.where(missing, 0.0, x), name, names)
    seen = np.ma.masked_array(x, missing)
    constant = np.asarray(seen.max(0) == seen.min(0))
    if constant.all():
        raise InputError(f"all {len(x)} rows of {name} are equal, so there is nothing to learn")
    std = np.where(constant, np.nan, _std(seen, name))
    _check_precision(seen, std, name, names)
    alike = len(names) <= 3 and not constant.any() and not missing.any() and not any(words) and (
        std.max() <= 10 * std.min())
    y, classes = encode(marks, name) if marks is not None else (None, ())
    return Dataset(torch.from_numpy(x.astype(np.float32)), y, "points" if alike else "table", name, classes,
                   names, words=tuple(words) if any(words) else (), note=(
                       *note, *_words_note(names, words), *_missing_note(missing), *_constant_note(names, constant)))


def images(x: Tensor, *, name: str, levels: int = 256, marks: Sequence[str] | None = None,
           size: int | None = None, note: Sequence[str] = ()) -> Dataset:
    """Images from uint8 (N, C, H, W) in 0 ... levels−1, grey or RGB, resized to `size` if given.

    Raises InputError for less than two images, empty or equal images, and another number of channels.
    """
    _enough(len(x), name)
    if x.shape[1] not in (1, 3) or 0 in x.shape:
        raise InputError(f"{name} has images of {'x'.join(map(str, x.shape[1:]))} (channels, height, width); "
                         "expected 1 (grey) or 3 (RGB) channels and at least one pixel")
    if size is not None:
        x = resize(x, size, levels)
    if (x == x[:1]).all():
        raise InputError(f"all {len(x)} images of {name} are equal, so there is nothing to learn")
    y, classes = encode(marks, name) if marks is not None else (None, ())
    return Dataset(x, y, "image", name, classes, levels=levels, note=tuple(note))


def resize(x: Tensor, size: int, levels: int = 256) -> Tensor:
    """The centre square of images uint8 (N, C, H, W), resampled to size x size (bicubic, antialiased)."""
    side = min(x.shape[-2:])
    top, left = ((length - side) // 2 for length in x.shape[-2:])
    square = x[..., top:top + side, left:left + side]
    if side == size:
        return square.contiguous()
    return torch.cat([_resample(part, size, levels) for part in torch.split(square, _CHUNK)])


def default_columns(count: int) -> list[str]:
    """The names x1, x2, ... of columns that have none."""
    return [f"x{j + 1}" for j in range(count)]


def encode(marks: Sequence[str], name: str) -> tuple[Tensor, tuple[str, ...]]:
    """Labels 0, 1, ... (int64) and the class names they stand for: numbers in order, then words in order.

    Raises InputError when there are so many different labels that they must be identifiers.
    """
    classes = tuple(sorted(set(marks), key=by_number))
    if len(classes) > max(10, len(marks) // 2):
        raise InputError(f"the labels of {name} take {len(classes)} different values in {len(marks)} rows; "
                         "expected classes that occur again, so choose another label")
    number = {mark: i for i, mark in enumerate(classes)}
    return torch.tensor([number[mark] for mark in marks]), classes


def check_finite(x: NDArray[np.float64], name: str, columns: Sequence[str] = ()) -> None:
    """Refuse NaN and Inf, naming the first by row and column."""
    finite = np.isfinite(x)
    if not finite.all():
        at = tuple(int(i) for i in np.unravel_index(int(np.argmin(finite)), x.shape))
        column = f", column {quote(columns[at[1]])}" if columns else ""
        raise InputError(f"{name} holds {x[at]} in row {at[0] + 1}{column} (x[{', '.join(map(str, at))}]); "
                         "expected finite numbers, so fill in or remove that row")


def _resample(x: Tensor, size: int, levels: int) -> Tensor:
    soft = functional.interpolate(x.float(), (size, size), mode="bicubic", antialias=True)
    # A little more than a half: ties go one way, whatever the last bits of this machine's arithmetic.
    return (soft + 0.5001).floor().clamp(0, levels - 1).to(torch.uint8)


def _enough(n: int, name: str) -> None:
    if n < 2:
        raise InputError(f"{name} holds {n} sample{'s' * (n != 1)}; expected at least 2")


def _check_filled(missing: NDArray[np.bool_], name: str, columns: Sequence[str]) -> None:
    empty = missing.all(0)
    if empty.any():
        raise InputError(f"column {quote(columns[int(np.argmax(empty))])} of {name} has no value in any row; remove it")


def _std(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    if np.abs(x).max() > _LARGEST:
        raise InputError(f"{name} holds {np.abs(x).max():.3g}; expected numbers up to {_LARGEST:g}, so scale "
                         "them")
    return np.asarray(x.std(0), np.float64)


def _check_precision(x: NDArray[np.float64], std: NDArray[np.float64], name: str,
                     columns: Sequence[str]) -> None:
    """Refuse a column whose variation is lost in float32, such as identifiers and time stamps."""
    lost = np.abs(x - x.astype(np.float32)).max(0) > 1e-3 * std
    lost |= std < 1 / _LARGEST
    if lost.any():
        j = int(np.argmax(lost))
        raise InputError(f"column {quote(columns[j])} of {name} varies by {std[j]:.3g} around "
                         f"{x[:, j].mean():.6g}, "
                         "less than float32 resolves; subtract an offset and scale it, or remove it")


def _words_note(columns: Sequence[str], words: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    found = [f"{c} ({len(w)})" for c, w in zip(columns, words, strict=False) if w]
    return (f"words are categories: {', '.join(found[:8])}{', ...' if len(found) > 8 else ''}",) if found else ()


def _missing_note(missing: NDArray[np.bool_]) -> tuple[str, ...]:
    count = int(missing.sum())
    if count == 0:
        return ()
    return (f"{count:,} of {missing.size:,} cells are empty; what the others say is learned",)


def _constant_note(columns: Sequence[str], constant: NDArray[np.bool_]) -> tuple[str, ...]:
    names = [c for c, same in zip(columns, constant, strict=True) if same]
    if not names:
        return ()
    shown_names = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    plural = "columns are" if len(names) > 1 else "column is"
    return (f"{len(names)} constant {plural} stored and restored exactly ({shown_names})",)


