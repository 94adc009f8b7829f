"""Invertible transforms between data units and model units, with their log-determinants.

A model learns z = forward(x); a density of z becomes one of x by log p(x) = log p(z) + log |dz/dx|.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.transforms.array_schema import channels_first, original
from undiffuse.transforms.column_kinds import column
from undiffuse.transforms.columns import Column


class Transform(ABC):
    """An invertible map of samples; frozen, and its own configuration."""

    name: ClassVar[str]

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Model units from data units (B, *event); float64 for float64, else float32."""

    @abstractmethod
    def inverse(self, z: Tensor) -> Tensor:
        """Data units from model units, unrounded, in the dtype of z; of tables float64, where the device has it."""

    @abstractmethod
    def log_det(self, x: Tensor) -> Tensor:
        """log |d forward/dx| (B,) at x in data units; float64 where the device has it."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The JSON-compatible description that `from_config` reads."""


@dataclass(frozen=True)
class Identity(Transform):
    """z = x."""

    name = "identity"

    def forward(self, x: Tensor) -> Tensor:
        """z = x."""
        return _real(x)

    def inverse(self, z: Tensor) -> Tensor:
        """x = z."""
        return z

    def log_det(self, x: Tensor) -> Tensor:
        """0."""
        return _constant(x, 0.0)

    def config(self) -> dict[str, Any]:
        """{"name": "identity"}."""
        return {"name": self.name}


@dataclass(frozen=True)
class GreyLevels(Transform):
    """z = 2x/(levels−1) − 1 maps the grey levels 0 ... levels−1 to [−1, 1]."""

    levels: int
    name = "levels"

    def forward(self, x: Tensor) -> Tensor:
        """z = 2x/(levels−1) − 1."""
        return _real(x) * (2 / (self.levels - 1)) - 1

    def inverse(self, z: Tensor) -> Tensor:
        """x = (z+1)(levels−1)/2; rounding restores the grey level."""
        return (z + 1) * ((self.levels - 1) / 2)

    def log_det(self, x: Tensor) -> Tensor:
        """D log(2/(levels−1)) for D values per image."""
        return _constant(x, x[0].numel() * math.log(2 / (self.levels - 1)) if len(x) else 0.0)

    def config(self) -> dict[str, Any]:
        """{"name": "levels", "levels": ...}."""
        return {"name": self.name, "levels": self.levels}


@dataclass(frozen=True)
class Standardise(Transform):
    """z = (x − mean)/std for each column; a constant column (std 0) is left out of z and restored."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    name = "standardise"

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) to (B, number of columns that vary)."""
        wide = _wide(_of_width(x, len(self.mean)))
        return ((wide - self._mean.to(wide)) / self._scale.to(wide))[:, self._varies].to(_real(x[:0]).dtype)

    def inverse(self, z: Tensor) -> Tensor:
        """(B, number of columns that vary) to (B, D)."""
        wide = _wide(z)
        full = wide.new_zeros(len(z), len(self.mean)).index_copy(1, self._varies.to(z.device), wide)
        return (full * self._scale.to(wide) + self._mean.to(wide)).to(z.dtype)

    def log_det(self, x: Tensor) -> Tensor:
        """−Σ log std over the columns that vary; −∞ for a row that differs from a constant column."""
        log_det = -math.fsum(math.log(s) for s in self.std if s > 0)
        fixed = torch.tensor([s == 0 for s in self.std])
        equal = x[:, fixed].float() == self._mean[fixed].float().to(x.device)
        return _constant(x, log_det).masked_fill(~equal.all(1), -math.inf)

    def config(self) -> dict[str, Any]:
        """{"name": "standardise", "mean": [...], "std": [...]}."""
        return {"name": self.name, "mean": list(self.mean), "std": list(self.std)}

    @cached_property
    def _mean(self) -> Tensor:
        return torch.tensor(self.mean, dtype=torch.float64)

    @cached_property
    def _scale(self) -> Tensor:
        std = torch.tensor(self.std, dtype=torch.float64)
        return torch.where(std > 0, std, 1.0)

    @cached_property
    def _varies(self) -> Tensor:
        return torch.tensor(self.std, dtype=torch.float64).nonzero()[:, 0]


@dataclass(frozen=True)
class Table(Transform):
    """A separate map for every column (`transforms.columns`); categories become several numbers, constants none.

    Missing values are NaN and stay NaN.
    """

    columns: tuple[Column, ...]
    name = "table"

    def __post_init__(self) -> None:
        if sum(self.widths) == 0:
            raise InputError(f"got {len(self.columns)} columns that are all constant; expected one that varies")

    @property
    def widths(self) -> list[int]:
        """The number of model entries of each column."""
        return [c.width for c in self.columns]

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) to (B, sum of the widths)."""
        wide = _wide(_of_width(x, len(self.columns)))
        return torch.cat([c.forward(wide[:, j]) for j, c in enumerate(self.columns)], 1).to(_real(x[:0]).dtype)

    def inverse(self, z: Tensor) -> Tensor:
        """(B, sum of the widths) to (B, D); integer columns are rounded, categories are their numbers."""
        parts = torch.split(_wide(z), self.widths, 1)
        return torch.stack([c.inverse(p) for c, p in zip(self.columns, parts, strict=True)], 1)

    def log_det(self, x: Tensor) -> Tensor:
        """Σ log dz/dx; InputError for columns of categories or few distinct numbers, which have no density."""
        wide = _wide(x)
        return torch.stack([c.log_derivative(wide[:, j]) for j, c in enumerate(self.columns)]).sum(0)

    def log_measure(self, x: Tensor) -> Tensor:
        """Σ log dz/dx over the observed values that have a density; −∞ for a row with an impossible value."""
        wide = _wide(x)
        terms = torch.stack([c.log_measure(wide[:, j]) for j, c in enumerate(self.columns)])
        return torch.where(wide.T.isnan(), 0.0, terms).sum(0)

    def half_width(self, x: Tensor) -> Tensor:
        """Half of the interval of each model entry that stands for an observed value, (B, sum of the widths); 0 for a
        value with a density and for a missing value."""
        wide = _wide(x)
        parts = [torch.where(wide[:, j, None].isnan(), 0.0, c.half_width(wide[:, j]))
                 for j, c in enumerate(self.columns)]
        return torch.cat(parts, 1)

    @property
    def narrowest_level(self) -> float | None:
        """The median half width of the levels of the discrete column where it is smallest; None without any."""
        widths = [c.level_half_widths for c in self.columns]
        return min((float(w.median()) for w in widths if len(w)), default=None)

    def config(self) -> dict[str, Any]:
        """{"name": "table", "columns": [...]}."""
        return {"name": self.name, "columns": [c.config() for c in self.columns]}


@dataclass(frozen=True)
class Channels(Transform):
    """A separate map for every channel of an array (`transforms.columns`); constant channels are left out and restored.

    Data have the axes of `layout`, model units are (B, C, *space). Missing values are NaN and stay NaN. With `wide`
    data are float64 although models are float32.
    """

    columns: tuple[Column, ...]
    layout: str
    wide: bool = False
    name = "channels"

    def __post_init__(self) -> None:
        if not any(c.width for c in self.columns) or any(c.width > 1 for c in self.columns):
            raise InputError(f"got {len(self.columns)} channels without one that varies; expected one map per channel")

    def forward(self, x: Tensor) -> Tensor:
        """Samples in the layout to (B, number of channels that vary, *space)."""
        channels = self._unbind(x)
        parts = [c.forward(_wide(v).flatten()).reshape(v.shape) for c, v in zip(self.columns, channels, strict=True)
                 if c.width]
        return torch.stack(parts, 1).to(_real(x[:0]).dtype)

    def inverse(self, z: Tensor) -> Tensor:
        """(B, number of channels that vary, *space) to samples in the layout; whole numbers are rounded."""
        rows, parts = iter(z.unbind(1)), []
        for c in self.columns:
            v = next(rows) if c.width else z[:, 0]
            parts.append(c.inverse(_wide(v).reshape(-1, 1)).reshape(v.shape))
        x = original(torch.stack(parts, 1), self.layout)
        return x if self.wide else x.to(z.dtype)

    def log_det(self, x: Tensor) -> Tensor:
        """Σ log dz/dx over the values that are not missing; −∞ for a sample that differs from a constant channel."""
        terms = [c.log_derivative(_wide(v).flatten()).reshape(v.shape).flatten(1)
                 for c, v in zip(self.columns, self._unbind(x), strict=True)]
        return torch.cat([torch.where(t.isnan(), 0.0, t) for t in terms], 1).sum(1)

    def config(self) -> dict[str, Any]:
        """{"name": "channels", "columns": [...], "layout": ..., "wide": ...}."""
        return {"name": self.name, "columns": [c.config() for c in self.columns], "layout": self.layout,
                "wide": self.wide}

    def _unbind(self, x: Tensor) -> tuple[Tensor, ...]:
        channels = channels_first(x, self.layout).unbind(1)
        if len(channels) != len(self.columns):
            raise InputError(f"got an array of {len(channels)} channels; expected {len(self.columns)}, in the layout "
                             f"{self.layout}")
        return channels


def from_config(config: Mapping[str, Any]) -> Transform:
    """The transform that `Transform.config` described; InputError for anything else."""
    entry = dict(config)
    name = entry.pop("name", None)
    if not isinstance(name, str) or name not in _READERS:
        raise InputError(f"got transform {name!r}; expected one of {', '.join(_READERS)}")
    keys, read = _READERS[name]
    if set(entry) != set(keys):
        raise InputError(f"got transform {name!r} with {sorted(map(str, entry))}; expected exactly "
                         f"{sorted(keys)}")
    return read(*(entry[key] for key in keys))


def _levels(levels: Any) -> Transform:
    if type(levels) is not int or not 2 <= levels <= 1 << 16:
        raise InputError(f"got levels {levels!r}; expected a whole number from 2 to 65,536")
    return GreyLevels(levels)


def _standardise(mean: Any, std: Any) -> Transform:
    mean, std = _floats(mean, "mean"), _floats(std, "std")
    if len(mean) != len(std) or min(std, default=0.0) < 0 or not any(std):
        raise InputError(f"got {len(mean)} means and {len(std)} standard deviations; expected as many of "
                         "both, none negative and not all zero")
    return Standardise(mean, std)


def _table(columns: Any) -> Transform:
    if not isinstance(columns, list | tuple) or not columns:
        raise InputError("got a table without columns; expected a list of them")
    return Table(tuple(column(entry) for entry in columns))


def _channels(columns: Any, layout: Any, wide: Any) -> Transform:
    if not isinstance(layout, str) or not isinstance(wide, bool):
        raise InputError("got channels without a layout; expected letters such as NCHW")
    return Channels(tuple(column(entry) for entry in columns), layout, wide)


def _floats(values: Any, what: str) -> tuple[float, ...]:
    if not isinstance(values, list | tuple) or not all(map(_is_finite, values)):
        raise InputError(f"got a {what} that is not a list of finite numbers")
    return tuple(map(float, values))


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e38


def _of_width(x: Tensor, columns: int) -> Tensor:
    """x (B, columns); InputError for another shape."""
    if x.ndim != 2 or x.shape[1] != columns:
        raise InputError(f"got x of shape {tuple(x.shape)}; expected (B, {columns}), one row per sample (a single "
                         "point is x[None])")
    return x


def _real(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.device.type == "mps" else x.double()


def _constant(x: Tensor, value: float) -> Tensor:
    return _wide(x.new_zeros(len(x))) + value


_READERS: dict[str, tuple[tuple[str, ...], Callable[..., Transform]]] = {
    "identity": ((), Identity), "levels": (("levels",), _levels),
    "standardise": (("mean", "std"), _standardise), "table": (("columns",), _table),
    "channels": (("columns", "layout", "wide"), _channels)}
