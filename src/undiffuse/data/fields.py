"""Arrays of any kind: fields, series and volumes, (N, C, *space) in any order of the axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from undiffuse.data.dataset import Dataset
from undiffuse.data.validation import check_count, check_finite, encode_labels
from undiffuse.errors import InputError
from undiffuse.transforms.array_schema import ArraySchema, channel_names, channels_first, check_layout, infer_layout
from undiffuse.transforms.column_fitting import needs_float64

_CHECKED = 100  # samples of an array on the disk that are checked
_MAX_VALUE = 1e30
_OTHERS = {"NTC": "NCT", "NCT": "NTC", "NHW": "NTC", "NHWC": "NDHW", "NCHW": "NDHW", "NDHW": "NCHW", "NCDHW": "NDHWC"}
_KINDS = {1: "series", 2: "fields", 3: "volumes"}


@dataclass(frozen=True)
class ArrayOptions:
    """How an array is read.

    Args:
        layout: one letter per axis, such as NTC; None: inferred from the shape.
        channels: names of the channels.
        key: name of the array in a file of several; None: x, arr_0, images or data.
    """

    layout: str | None = None
    channels: tuple[str, ...] = ()
    key: str | None = None

    def chosen(self) -> list[str]:
        """The names of the options that are set."""
        return [name for name, value in vars(self).items() if value]


PLAIN = ArrayOptions()


def make_array(x: NDArray[np.number], options: ArrayOptions = PLAIN, *, name: str,
               label_texts: Sequence[str] | None = None, notes: Sequence[str] = ()) -> Dataset:
    """The Dataset of an array of fields, series or volumes.

    Args:
        x: numbers with 3 to 5 axes, or 2 with a layout such as NT; NaN where missing.
        options: layout and names of the channels.
        name: name of the data.
        label_texts: the class of every sample.
        notes: remarks on changes to the data.

    Raises:
        InputError: for less than two samples, infinite or too large numbers, channels without a value, equal samples.
    """
    layout = _layout(x.shape, options, name)
    missing = np.isnan(x) if x.dtype.kind == "f" else np.zeros(x.shape, np.bool_)
    check_finite(np.where(missing, 0, x), name)
    _check_size(x, missing, name)
    tensor = torch.tensor(x.astype(np.float64 if _is_precise(x, layout) else np.float32))  # a copy
    count = channels_first(tensor[:1], layout).shape[1]
    schema = ArraySchema(layout, channel_names(options.channels, count, name), x.dtype.name)
    _check_values(x, missing, schema, name)
    y, classes = encode_labels(label_texts, name) if label_texts is not None else (None, ())
    inferred = [] if options.layout else [layout_note(schema, x.shape)]
    absent = int(missing.sum())
    missing_notes = [f"{absent:,} of {missing.size:,} values are missing, which the loss leaves out"] * (absent > 0)
    return Dataset(tensor, y, "array", name, classes, schema.channels, array=schema,
                   notes=(*notes, *inferred, *missing_notes))


def make_lazy_array(x: Any, kind: np.dtype[Any], options: ArrayOptions, *, name: str, y: torch.Tensor | None = None,
                    classes: Sequence[str] = (), notes: Sequence[str] = ()) -> Dataset:
    """The Dataset of an array that stays on the disk, of which 100 samples are checked.

    Args:
        x: the `Lazy` samples.
        kind: type of the array.
        options: layout and names of the channels.
        name: name of the data.
        y: class numbers (N,).
        classes: names of the classes.
        notes: remarks on the data.

    Raises:
        InputError: as `make_array`.
    """
    layout = _layout(x.shape, options, name)
    some = x[torch.linspace(0, len(x) - 1, min(len(x), _CHECKED)).round().long()].numpy()
    checked = make_array(some, ArrayOptions(layout, options.channels), name=name)
    assert checked.array is not None
    schema = ArraySchema(layout, checked.array.channels, kind.name)
    inferred = [] if options.layout else [layout_note(schema, x.shape)]
    return Dataset(x, y, "array", name, tuple(classes), schema.channels, array=schema,
                   notes=(*notes, *inferred, "the samples are read as they are needed"))


def _layout(shape: Sequence[int], options: ArrayOptions, name: str) -> str:
    """The layout, checked, of an array with at least two samples."""
    layout = check_layout(options.layout or infer_layout(shape), shape, name)
    if 0 in shape:
        raise InputError(f"{name} has shape {tuple(shape)}; expected at least 2 samples of at least one value")
    check_count(shape[0], name)
    return layout


def layout_note(schema: ArraySchema, shape: Sequence[int]) -> str:
    """The layout that was inferred, and how to change it."""
    sizes = dict(zip(schema.layout, shape, strict=True))
    count = "1 channel" if len(schema.channels) == 1 else f"{len(schema.channels)} channels"
    size = " x ".join(str(sizes[letter]) for letter in schema.space)
    other = _OTHERS.get(schema.layout, "NCDHW")
    return (f"read as {_KINDS[len(schema.space)]} in the layout {schema.layout}, {count} of {size}; --layout {other}, "
            "or other letters, reads it otherwise")


def _is_precise(x: NDArray[np.number], layout: str) -> bool:
    """Whether some channel has values that float32 does not resolve."""
    if x.dtype.itemsize <= 2 or x.dtype == np.float32:
        return False
    values = torch.from_numpy(np.ascontiguousarray(x, np.float64))
    return any(needs_float64(channel.numpy()) for channel in channels_first(values, layout).unbind(1))


def _check_size(x: NDArray[np.number], missing: NDArray[np.bool_], name: str) -> None:
    """Refuse arrays without a value, and numbers that are too large."""
    if missing.all():
        raise InputError(f"{name} holds no value that is not missing; expected some")
    if (largest := float(np.nanmax(np.abs(x.astype(np.float64))))) > _MAX_VALUE:
        raise InputError(f"{name} holds {largest:.3g}; expected numbers up to {_MAX_VALUE:g}, so scale them")


def _check_values(x: NDArray[np.number], missing: NDArray[np.bool_], schema: ArraySchema, name: str) -> None:
    """Refuse channels without a value, and equal samples."""
    rows = channels_first(torch.from_numpy(missing), schema.layout).transpose(0, 1).flatten(1)
    if (empty := rows.all(1)).any():
        raise InputError(f"the channel {schema.channels[int(empty.int().argmax())]} of {name} has no value; remove it")
    lowest, highest = np.fmin.reduce(x), np.fmax.reduce(x)
    if np.array_equal(lowest, highest, equal_nan=True):
        raise InputError(f"all {len(x)} samples of {name} are equal, so there is nothing to learn")
