"""Channels and axes of an array, and the way back to the array of the user.

A layout is one letter per axis: N for the samples, first; C for the channels, absent where there is one only; and one
to three letters for the axes of space, T (time), D, H and W. A model has the order (B, C, *space).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.errors import InputError

_SPACE = "TDHW"
_MAX_CHANNELS = 16  # length up to which an axis that is much shorter than the others is taken for the channels
_FEW_CHANNELS = 4  # length up to which the shortest of three axes is
_EXAMPLES = "NTC, NCT, NHWC, NCHW, NDHWC or NCDHW, or without C for one channel"


@dataclass(frozen=True)
class ArraySchema:
    """What the samples of an array are.

    Args:
        layout: axes of the array, such as NTC or NCHW.
        channels: names of the channels.
        dtype: name of the array's type.
        windows: of a series, where its windows come from, as JSON; None for other arrays.
    """

    layout: str
    channels: tuple[str, ...]
    dtype: str = "float32"
    windows: Mapping[str, Any] | None = None

    @property
    def space(self) -> str:
        """The letters of the axes of space, in their order."""
        return self.layout.replace("N", "").replace("C", "")

    def channels_first(self, x: Tensor) -> Tensor:
        """(N, C, *space) of samples in the layout."""
        return channels_first(x, self.layout)

    def array(self, x: Tensor) -> NDArray[Any]:
        """Samples in data units as an array of the type; whole numbers are rounded and limited to its range."""
        values, kind = x.detach().cpu().numpy(), np.dtype(self.dtype)
        if kind.kind in "iu":
            limits = np.iinfo(kind)
            values = np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max)
        return values.astype(kind)

    def config(self) -> dict[str, Any]:
        """The JSON-compatible description."""
        return {**asdict(self), "channels": list(self.channels), "windows": self.windows and dict(self.windows)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None) -> ArraySchema | None:
        """The schema that `config` described; None for none."""
        return None if config is None else cls(**{**config, "channels": tuple(config["channels"])})


def channels_first(x: Tensor, layout: str) -> Tensor:
    """x (B, C, *space) of samples in a layout; InputError for another number of axes."""
    if x.ndim != len(layout):
        raise InputError(f"got an array of shape {tuple(x.shape)}; expected {len(layout)} axes, {layout}")
    axis = layout.find("C")
    return x[:, None] if axis < 0 else x.movedim(axis, 1)


def original(x: Tensor, layout: str) -> Tensor:
    """The inverse of `channels_first`."""
    axis = layout.find("C")
    return x[:, 0] if axis < 0 else x.movedim(1, axis)


def first_slice(x: Tensor) -> Tensor:
    """The first channel of (n, C, *space), of volumes the middle of the first axis of space: (n, H, W), or (n, T)."""
    field = x[:, 0]
    return field[:, field.shape[1] // 2] if field.ndim == 4 else field


def check_layout(layout: str, shape: Sequence[int], name: str) -> str:
    """A layout in capital letters, if it fits the shape.

    Args:
        layout: one letter per axis.
        shape: shape of the array.
        name: name of the array, for the message.

    Raises:
        InputError: for anything else.
    """
    letters = layout.upper()
    space = letters[1:].replace("C", "", 1)
    if letters[:1] != "N" or not 1 <= len(space) <= 3 or set(space) - set(_SPACE) or len(set(letters)) < len(letters):
        raise InputError(f"got layout {layout[:20]!r}; expected N, then C for the channels and one to three of T, D, H "
                         f"and W in the order of the axes: {_EXAMPLES}")
    if len(letters) != len(shape):
        raise InputError(f"got layout {letters} for {name} of shape {tuple(shape)}; expected one letter per axis")
    return letters


def infer_layout(shape: Sequence[int]) -> str:
    """The layout that a shape of three to five axes suggests: the channels are the axis that is much shorter."""
    first, last, rest = shape[1], shape[-1], sorted(shape[1:])
    if len(shape) == 3:
        one = rest[0] <= _MAX_CHANNELS and rest[1] >= 2 * rest[0]
        return "NHW" if not one else "NTC" if last < first else "NCT"
    few = rest[0] == 1 or (rest[0] <= _FEW_CHANNELS and rest[0] < rest[1])
    short = few or (rest[0] <= _MAX_CHANNELS and rest[1] >= 2 * rest[0])
    space = "HW" if len(shape) == 4 else "DHW"
    if first == rest[0] and (short or len(shape) == 5):
        return f"NC{space}"
    return f"N{space}C" if last == rest[0] and (short or len(shape) == 5) else "NDHW" if len(shape) == 4 else "NCDHW"


def channel_names(names: Sequence[str], count: int, name: str) -> tuple[str, ...]:
    """Names of the channels: those given, or c1, c2, ...; InputError for another number of them."""
    if names and len(names) != count:
        raise InputError(f"got {len(names)} names of channels for {name}, which has {count}; expected one for each")
    return tuple(names) or tuple(f"c{j + 1}" for j in range(count))
