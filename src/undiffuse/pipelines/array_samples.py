"""Arrays in and out of the commands: read as the training data were, written in their layout, units and type."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.atomic_files import atomic_folder, atomic_set
from undiffuse.data.arrays import load_array
from undiffuse.data.sources import open_data
from undiffuse.data.writers import png_grid
from undiffuse.errors import InputError, quote
from undiffuse.model import Model
from undiffuse.transforms.array_schema import ArraySchema, first_slice
from undiffuse.transforms.base import Channels

FILES = ("draws.npy", "mean.npy", "std.npy", "restored.png")
"""Names of the files that `RestoredArrays.write` writes."""
_SHOWN, _DRAWS = 8, 4  # samples in a picture, and draws of each
_LOW, _HIGH = 0.005, 0.995  # quantiles that are black and white
_HEIGHT = 24  # of a series in a picture, in pixels


def schema_of(model: Model) -> ArraySchema:
    """The schema of a model of arrays; InputError for another."""
    if model.array is None:
        raise InputError("got a model of other data than arrays; expected one that was trained on an array")
    return model.array


def event_shape(model: Model) -> tuple[int, ...]:
    """(C, *space) of the samples of a model of arrays, constant channels included."""
    return tuple(schema_of(model).channels_first(_no_samples(model)).shape[1:])


def read_array(source: str, model: Model, part: str = "train", first: int | None = None) -> Tensor:
    """Samples of a source in the layout of a model's training data; one sample, without the first axis, is enough.

    Args:
        source: an .npy or .npz file, or another source of arrays.
        model: a model of arrays.
        part: "train" or "test", where the source has both.
        first: number of samples from the start on; None: all.

    Raises:
        InputError: for another shape and for infinite values.
    """
    schema, path = schema_of(model), Path(os.path.expanduser(source))
    if path.suffix.lower() in (".npy", ".npz") and path.is_file():
        values: NDArray[Any] = load_array(path, part)
    else:
        values = open_data(source, part=part, layout=schema.layout, channels=schema.channels).x[:].numpy()
    expected = tuple(_no_samples(model).shape[1:])
    values = values[None] if values.shape == expected else values
    if values.shape[1:] != expected or values.dtype.kind not in "biuf":
        raise InputError(f"got {quote(source)} with an array of {values.dtype}, {values.shape}; expected samples of "
                         f"shape {expected} in the layout {schema.layout}, as the training data")
    if values.dtype.kind == "f" and np.isinf(values).any():
        raise InputError(f"got {quote(source)}, which holds infinite values; expected finite ones, NaN where missing")
    wide = isinstance(model.transform, Channels) and model.transform.wide
    return torch.from_numpy(np.array(values[:first], np.float64 if wide else np.float32))


@dataclass(frozen=True)
class RestoredArrays:
    """Restored arrays.

    Args:
        y: observations (N, *out), NaN where nothing was observed.
        draws: samples (N, k, *event) of the original arrays, in the layout of the data.
        schema: channels and axes.
    """

    y: Tensor
    draws: Tensor
    schema: ArraySchema

    def write(self, folder: Path) -> list[Path]:
        """Write draws.npy, mean.npy and std.npy, in units of the data, and restored.png, with one row per array:
        observation, mean, standard deviation, samples of the first channel. Returns the paths.
        """
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / name for name in FILES]
        mean = self.draws.mean(1)
        std = self.draws.std(1) if self.draws.shape[1] > 1 else 0 * mean
        with atomic_set(paths) as (draws, means, stds, picture):
            _save(draws, self.schema.array(self.draws))
            _save(means, mean.float().numpy())
            _save(stds, std.float().numpy())
            picture.write(png_grid(self._sheet(mean, std)))
        return paths

    def _sheet(self, mean: Tensor, std: Tensor) -> Tensor:
        """One picture (1, 1, H, W) of the first channel in grey levels; blank where y is no array of this size."""
        mean, std = mean[:_SHOWN], std[:_SHOWN]
        shown = [_picture(self.schema.channels_first(x))
                 for x in (mean, std, *self.draws[:_SHOWN, :_DRAWS].unbind(1))]
        y = self.y[:_SHOWN]
        same = self.schema.channels_first(mean).shape
        observed = _picture(y) if y.shape == same else torch.full_like(shown[0], torch.nan)
        low, high = (float(torch.quantile(torch.stack(shown[2:]).double().flatten()[:1_000_000], q))
                     for q in (_LOW, _HIGH))
        scale = 255 / max(high - low, 1e-30)
        columns = [(x.double() - low) * scale for x in (observed, shown[0], *shown[2:])]
        columns.insert(2, 2 * scale * shown[1].double())
        tiles = torch.stack(columns, 1).nan_to_num(127.0).clamp(0, 255)
        zoom = max(1, 64 // max(tiles.shape[-2:]))
        large = tiles.repeat_interleave(zoom, -1).repeat_interleave(zoom, -2)
        padded = torch.nn.functional.pad(large, (2, 2, 2, 2))
        return padded.permute(0, 2, 1, 3).flatten(0, 1).flatten(1)[None, None]


def impute_array_file(model: Model, source: Path, out: Path, samples: Tensor, x: Tensor, interval: float
                      ) -> list[Path]:
    """Write draw-1.npy ..., mean.npy, low.npy and high.npy of the samples of missing values; returns their paths.

    Args:
        model: a model of arrays.
        source: the file that was filled in.
        out: folder to write, new or empty.
        samples: samples (draws, N, *event) in data units.
        x: the samples with NaN where missing.
        interval: fraction of the samples inside [low, high].
    """
    schema, missing = schema_of(model), x.isnan().numpy()
    values = samples.double().numpy()
    low, high = np.quantile(values, [(1 - interval) / 2, (1 + interval) / 2], axis=0, method="weibull")
    arrays = {f"draw-{k + 1}.npy": schema.array(samples[k]) for k in range(len(samples))}
    arrays |= {"mean.npy": values.mean(0), "low.npy": low, "high.npy": high}
    original = load_array(source) if source.suffix.lower() in (".npy", ".npz") else x.numpy()
    original = original.reshape(x.shape)
    with atomic_folder(out) as folder:
        for name, array in arrays.items():
            with (folder / name).open("wb") as file:
                _save(file, np.where(missing, array, original).astype(original.dtype))
    return [out / name for name in arrays]


def _no_samples(model: Model) -> Tensor:
    """No samples of a model, in the layout of its data."""
    return model.transform.inverse(torch.empty(0, *model.shape))


def _picture(x: Tensor) -> Tensor:
    """`first_slice` as (n, H, W), series as strips."""
    field = first_slice(x)
    return field[:, None].expand(-1, _HEIGHT, -1) if field.ndim == 2 else field


def _save(file: IO[bytes], array: NDArray[Any]) -> None:
    np.save(file, array, allow_pickle=False)
