"""Arrays of images and their grey levels: what a level is in the units of the array, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.transforms.array_schema import infer_layout

_MAX_LEVELS = 1 << 16
_ON_GRID = 0.01  # distance from a level
_LUMINANCE = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class PixelUnits:
    """What the grey levels 0 ... levels−1 are in an array: value = low + step · level, step = (high − low)/(levels−1).

    Args:
        dtype: name of the array's type.
        low: value of level 0.
        high: value of the last level.
        levels: number of levels.
    """

    dtype: str = "uint8"
    low: float = 0
    high: float = 255
    levels: int = 256

    @property
    def step(self) -> float:
        """The difference between two neighbouring levels, in units of the array."""
        return (self.high - self.low) / (self.levels - 1)

    def to_levels(self, values: Tensor) -> Tensor:
        """Levels, not rounded, of values in units of the array."""
        return (values - self.low) / self.step

    def values(self, levels: Tensor) -> Tensor:
        """Float64 values, in units of the array, of levels that need not be whole."""
        return levels.double() * self.step + self.low

    def array(self, levels: Tensor) -> NDArray[Any]:
        """Values in units and dtype of the array, of levels rounded to whole numbers in [0, levels−1]."""
        values = self.values(levels.round().clamp(0, self.levels - 1)).numpy()
        return (values if np.dtype(self.dtype).kind == "f" else np.rint(values)).astype(self.dtype)

    def read(self, x: NDArray[Any]) -> tuple[Tensor, list[str]]:
        """Levels (N, C, H, W) of further images, which may be noisy and in part NaN, and notes.

        Bytes for a run on floats are pictures of 256 levels; floats in [0, 1] or [−1, 1] for a run on bytes are read as
        training data are.
        """
        low, high = (float(v) for v in (np.nanmin(x), np.nanmax(x)))
        values = torch.from_numpy(channels_first(x, "the array").astype(np.float64))
        if self.dtype == "float32" and x.dtype == np.uint8 and high > self.high:
            units, notes = PixelUnits(), ["the array was read as bytes, 0 to 255"]
        elif (self.dtype, self.levels) == ("uint8", 256) and x.dtype.kind == "f" and low >= -1 and high <= 1:
            units = PixelUnits("float32", 0 if low >= 0 else -1, 1)
            notes = [f"the array was read as floats in [{units.low:g}, 1]"]
        else:
            units, notes = self, []
        return units.to_levels(values) * ((self.levels - 1) / (units.levels - 1)), notes

    def config(self) -> dict[str, Any]:
        """The JSON-compatible description."""
        return asdict(self)

    @classmethod
    def from_config(cls, data: Mapping[str, Any]) -> PixelUnits:
        """The units in the data section of a model's configuration; by default bytes that are the levels."""
        return cls(**data["units"]) if data.get("units") else cls("uint8", 0, data["levels"] - 1, data["levels"])


def pixels_of(x: NDArray[Any], name: str) -> tuple[Tensor, PixelUnits, list[str]]:
    """Images (N, C, H, W) of an array as levels, uint8 up to 256 of them and else int32, their units, and notes.

    Args:
        x: images (N, H, W) or 4-D, channels first or last: floats in [0, 1] or [−1, 1], or whole numbers.
        name: name of the array, for error messages.
    """
    low, high = x.min().item(), x.max().item()
    if x.dtype.kind == "f":
        units = _float_units(low, high, name)
        notes = [f"floats in [{units.low}, 1] were rounded to 256 levels, as of pictures; --layout "
                 f"{'NHW' if x.ndim == 3 else infer_layout(x.shape)} reads them as real numbers"]
    elif low >= 0 and high <= 255:
        units = PixelUnits("uint8", 0, 1, 2) if high <= 1 else PixelUnits()
        notes = ["images of 0 and 1 only: two levels"] if high <= 1 else []
    else:
        low, high = int(low), int(high)
        if high - low >= _MAX_LEVELS:
            raise InputError(f"{name} holds images with whole numbers in {low} ... {high}; expected at most "
                             f"{_MAX_LEVELS:,} levels, so divide them by a constant or subtract one")
        units = PixelUnits(x.dtype.name, low, high, high - low + 1)
        notes = [f"whole numbers in {low} ... {high}: {units.levels:,} levels"]
    levels = np.rint((channels_first(x, name).astype(np.float64) - units.low) / units.step)
    kind = np.uint8 if units.levels <= 256 else np.int32
    return torch.from_numpy(np.ascontiguousarray(levels.astype(kind))), units, notes


def are_pictures(x: NDArray[Any], layout: str | None = None) -> bool:
    """Whether an array of 3 or 4 axes holds grey or RGB images: bytes, other whole numbers unless an axis is much
    shorter, or floats in [0, 1] or [−1, 1] that are multiples of 1/255 or have no short axis; with a layout,
    bytes only.
    """
    letters = "NHW" if x.ndim == 3 else "NHWC" if x.ndim == 4 and x.shape[1] not in (1, 3) else "NCHW"
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[letters.index("C")] not in (1, 3)):
        return False
    if x.dtype.kind in "biu":
        bytes_only = x.dtype.itemsize == 1 and x.dtype.kind != "i"
        return layout.upper() == letters and bytes_only if layout else bytes_only or x.size == 0 or (
            infer_layout(x.shape) == letters and int(x.max()) - int(x.min()) < _MAX_LEVELS)
    if layout or x.size == 0 or not np.isfinite(x).all() or x.min() < -1 or x.max() > 1:
        return False
    if x.ndim == 4 or infer_layout(x.shape) == "NHW":
        return True
    levels = (x.astype(np.float64) - min(0.0, np.floor(x.min()))) * (255 / (1 if x.min() >= 0 else 2))
    return bool(np.abs(levels - np.rint(levels)).max() < _ON_GRID)


def channels_first(x: NDArray[Any], name: str) -> NDArray[Any]:
    """Images (N, H, W) or 4-D as (N, C, H, W)."""
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[1] in (1, 3):
        return x
    if x.ndim == 4 and x.shape[3] in (1, 3):
        return x.transpose(0, 3, 1, 2)
    raise InputError(f"{name} has shape {x.shape}; expected (N, H, W), (N, C, H, W) or (N, H, W, C) with C = 1 (grey) "
                     "or 3 (RGB), so remove other channels such as alpha")


def with_channels(x: Tensor, channels: int) -> Tensor:
    """Grey images as RGB, RGB images as their luminance, or images with this number of channels unchanged."""
    if x.shape[1] == channels:
        return x
    if channels == 1:
        return torch.einsum("nchw,c->nhw", x, torch.tensor(_LUMINANCE, dtype=x.dtype))[:, None]
    return x.expand(-1, channels, -1, -1)


def _float_units(low: float, high: float, name: str) -> PixelUnits:
    if low < -1 or high > 1:
        advice = ("save them as uint8 or divide by 255" if low >= 0 and high <= 255 else
                  "scale images, or flatten other arrays to (N, D)")
        raise InputError(f"{name} holds floats in {low:.4g} ... {high:.4g}; expected images as whole numbers or as "
                         f"floats in [0, 1] or [-1, 1], so {advice}")
    return PixelUnits("float32", 0 if low >= 0 else -1, 1)
