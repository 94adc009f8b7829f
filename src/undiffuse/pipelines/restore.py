"""Restoration of degraded images and arrays: several samples of p(x | y) for each, their mean and deviation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from undiffuse.atomic_files import atomic_set
from undiffuse.data.arrays import load_array
from undiffuse.data.images import load_image
from undiffuse.data.pixel_units import PixelUnits
from undiffuse.data.writers import png_grid
from undiffuse.errors import InputError
from undiffuse.inverse import (
    Downsample,
    Fourier,
    Grey,
    Identity,
    Mask,
    Operator,
    gaussian_blur,
    motion_blur,
    observe,
    random_mask,
)
from undiffuse.inverse.operators import ChannelsFirst
from undiffuse.likelihood import label_posterior
from undiffuse.model import Model
from undiffuse.pipelines.array_samples import RestoredArrays, event_shape
from undiffuse.progress import bar, part
from undiffuse.random import Purpose, classes, normal, uniform
from undiffuse.samplers.driver import sample
from undiffuse.samplers.method import required_sampler

OPERATORS = ("inpaint", "random", "blur", "motion", "downsample", "fourier", "grey")
"""Names of the degradations."""
_MAX_CLASSES = 20  # up to which an unknown class is sampled by default
FILES = ("draws.npy", "mean.png", "std.png", "restored.png")
"""Names of the files that `Restored.write` writes."""
_ROUND_STRIDE = 1 << 32  # sample indices between two rounds


@dataclass(frozen=True)
class Restored:
    """Restored images, in grey levels 0 ... levels − 1.

    Args:
        y: observations (N, *out).
        draws: samples (N, k, C, H, W) of the original images.
        units: units of the arrays that are written, with the number of grey levels.
    """

    y: Tensor
    draws: Tensor
    units: PixelUnits = field(default_factory=PixelUnits)

    @property
    def levels(self) -> int:
        """Number of grey levels."""
        return self.units.levels

    def write(self, folder: Path) -> list[Path]:
        """Write draws.npy (float32, in units of the data), mean.png, std.png (standard deviation; white is half
        of the range) and restored.png, with one row per image: observation, mean, standard deviation, samples.
        Returns the paths.
        """
        folder.mkdir(parents=True, exist_ok=True)
        mean, std = self.draws.mean(1), (self.draws.std(1) if self.draws.shape[1] > 1 else 0 * self.draws[:, 0])
        columns = torch.cat([self._observations()[:, None], mean[:, None], 2 * std[:, None], self.draws], 1)
        pictures = (mean, 2 * std, _sheet(columns))
        paths = [folder / name for name in FILES]
        with atomic_set(paths) as (array, *files):
            np.save(array, self.units.values(self.draws).float().numpy(), allow_pickle=False)
            for file, picture in zip(files, pictures, strict=True):
                file.write(png_grid(picture, self.levels))
        return paths

    def _observations(self) -> Tensor:
        """The observations as images of the restored size, mid-grey where unobserved; blank if they are not images."""
        size = self.draws.shape[-3:]
        y = self.y.nan_to_num((self.levels - 1) / 2)
        if y.ndim != 4:
            return torch.full((len(y), *size), (self.levels - 1) / 2)
        large = torch.nn.functional.interpolate(y, size[-2:], mode="nearest")
        return large.expand(-1, size[0], -1, -1)


def operator(name: str, shape: tuple[int, ...], mask: Path | None = None, amount: float | None = None,
             angle: float = 0.0, seed: int = 0) -> Operator:
    """The degradation operator for images or arrays (C, *space).

    Args:
        name: one of `OPERATORS`.
        shape: shape of a sample.
        mask: picture, or of arrays an .npy file, that is white, or the larger of two values, where the sample is to be
            filled in (inpaint).
        amount: hidden fraction (random), standard deviation of the blur or length of the motion in pixels, factor of
            downsampling, fraction of measured frequencies (fourier).
        angle: direction of a motion in degrees.
        seed: seed of random masks.
    """
    if name not in OPERATORS:
        raise InputError(f"got operator {name!r}; expected one of {', '.join(OPERATORS)}")
    axes, array = len(shape) - 1, mask is not None and mask.suffix.lower() == ".npy"
    if array or (name == "inpaint" and mask is None and axes != 2):
        return Mask(~_hidden_places(mask, shape)) if mask is not None else Identity()
    if name in ("motion", "grey") and axes != 2:
        raise InputError(f"got operator {name} for samples of {axes} axes of space; expected images")
    if (name == "inpaint") != (mask is not None):
        raise InputError("got inpaint without a mask, or a mask without inpaint; expected both together")
    if mask is not None:
        return Mask(~_hidden(mask, shape))
    usual = {"random": 0.7, "blur": 1.0, "motion": 5.0, "downsample": 2.0, "fourier": 0.3, "grey": 0.0}
    value = usual[name] if amount is None else amount
    if name in ("motion", "downsample") and value % 1:
        raise InputError(f"got amount={value:g} for {name}; expected a whole number")
    operators: dict[str, Callable[[], Operator]] = {
        "random": lambda: random_mask(shape, value, seed), "blur": lambda: gaussian_blur(value, axes=axes),
        "motion": lambda: motion_blur(int(value), angle), "downsample": lambda: Downsample(int(value)),
        "fourier": lambda: Fourier(_frequencies(shape, value, seed)), "grey": Grey,
    }
    return operators[name]()


def restore(model: Model, degradation: Operator, y: Tensor, noise: float = 0.0, draws: int = 8, *,
            simulate: bool = False, method: str = "mmps", exact: bool = False, steps: int | None = None, seed: int = 0,
            units: PixelUnits | None = None, rounds: int | None = None, class_counts: Sequence[int] | None = None,
            **cond: Any) -> Restored | RestoredArrays:
    """Samples of p(x | y) for every row of y.

    Args:
        model: a model of images or arrays.
        degradation: operator that gave y, on samples with the channels first.
        y: observations (N, *out) in grey levels, or in units of the arrays.
        noise: standard deviation of the observation noise, in the same units.
        draws: samples per image.
        simulate: y holds clean images, to which operator and noise are applied first.
        method: method of `observe`.
        exact: use the method that tends to the exact posterior.
        steps: number of steps from noise to data.
        seed: random seed.
        units: units of the arrays that are written; None: grey levels 0 ... 255.
        rounds: for an unknown class, rounds of Gibbs sampling of p(x, class | y): a class from p(class | x) for every
            sample x, then x given that class. By default 1 for up to 20 classes, 0 with particles.
        class_counts: numbers of training rows per class, the prior of the class.
        cond: conditions; a tensor has one row per image.

    Raises:
        InputError: if y is not an output of the operator, and for rounds without a class to sample.
    """
    if draws < 1:
        raise InputError(f"got draws={draws}; expected at least 1")
    array, event = model.array, model.shape if model.array is None else event_shape(model)
    arranged = degradation if array is None or degradation.channels_first else ChannelsFirst(degradation, array.layout)
    posterior = observe(model, arranged, None, noise, method, exact=exact)
    expected = event if simulate else tuple(posterior.observation.zero.shape[1:])
    if tuple(y.shape[1:]) != expected:
        what, hint = "images" if array is None else "samples", "; for clean ones use simulate"
        raise InputError(f"got {what} of shape {tuple(y.shape[1:])}; expected {expected}"
                         f"{hint if tuple(y.shape[1:]) == event else ''}")
    if simulate:
        clean = degradation(y)
        y = clean + noise * normal(seed, Purpose.DATA, 21, 0, len(clean), tuple(clean.shape[1:]))
    y = degradation.mask_unobserved(y)
    group = sampler.samples_per_run if (sampler := required_sampler(posterior)) else 1
    each = -(-draws // group) * group  # the samples of one particle run are of one image
    repeated: dict[str, Any] = {name: v.repeat_interleave(each, 0) if isinstance(v, Tensor) else v
                                for name, v in cond.items()}
    rows, out = y.repeat_interleave(each, 0), y
    count = 1 + _rounds(model, rounds, "label" in cond, group)
    with bar("restoring") as progress:
        for k in range(count):
            label: dict[str, Any] = {"label": sample_labels(model, out, seed, k, class_counts, **repeated)} if k else {}
            out = sample(posterior, len(rows), steps=steps, seed=seed, first_index=k * _ROUND_STRIDE, y=rows,
                         progress=part(progress, k, count), **label, **repeated).x
    samples = out.reshape(len(y), each, *out.shape[1:])[:, :draws]
    return Restored(y, samples, units or PixelUnits()) if array is None else RestoredArrays(y, samples, array)


def sample_labels(model: Model, x: Tensor, seed: int = 0, turn: int = 0, class_counts: Sequence[int] | None = None,
                  **cond: Any) -> Tensor:
    """Classes (B,) of rows x (B, *event) in data units, sampled from `label_posterior`.

    Args:
        model: model with classes.
        x: rows (B, *event) in data units.
        seed: seed of the classes and of the noise of the posterior.
        turn: number of the round; each round has its own random numbers.
        class_counts: training rows per class, the prior of the classes up to a factor; None: uniform.
        cond: conditions in addition to the class.
    """
    prior = None if class_counts is None else torch.tensor(class_counts, dtype=torch.float64)
    first = turn * _ROUND_STRIDE
    return classes(seed, first, label_posterior(model, x, seed=seed, prior=prior, first_index=first, **cond))


def _rounds(model: Model, rounds: int | None, labelled: bool, group: int) -> int:
    """The rounds of class sampling, by default 0 or 1."""
    possible = model.classes > 1 and not labelled and group == 1
    if rounds is not None and (rounds < 0 or (rounds > 0 and not possible)):
        why = (" or more" if possible else ", because a label was passed" if labelled else
               ", because the particles of an image share one class" if group > 1 else
               ", because the model has no classes")
        raise InputError(f"got {rounds} rounds; expected 0{why}")
    return int(possible and model.classes <= _MAX_CLASSES) if rounds is None else rounds


def _hidden(path: Path, shape: tuple[int, ...]) -> Tensor:
    """The pixels of an image (C, H, W) that a mask hides: the larger of two values, else the brighter half."""
    picture = load_image(path)[0].float().mean(0, keepdim=True)
    values = picture.unique()
    hidden = picture > ((values[0] + values[-1]) / 2 if len(values) == 2 else 127.5)
    if picture.shape[-2:] != shape[-2:]:
        raise InputError(f"got a mask of {picture.shape[-1]}x{picture.shape[-2]} pixels for a model of "
                         f"{shape[-1]}x{shape[-2]}; expected the same size")
    if hidden.all() or not hidden.any():
        raise InputError(f"got the mask {path}, which hides {'every' if hidden.all() else 'no'} pixel; expected the "
                         f"larger of two values where the image is to be filled in")
    return hidden.expand(shape)


def _hidden_places(path: Path, shape: tuple[int, ...]) -> Tensor:
    """The entries of a sample (C, *space) that an .npy mask hides, where it is not 0; the same for all channels where
    it has none."""
    hidden = torch.from_numpy(np.asarray(load_array(path)) != 0)
    hidden = hidden if hidden.ndim == len(shape) else hidden[None]
    if hidden.shape[1:] != shape[1:] or hidden.shape[0] not in (1, shape[0]):
        raise InputError(f"got a mask of shape {tuple(hidden.shape)}; expected {shape[1:]}, or {shape} with the "
                         "channels first")
    if hidden.all() or not hidden.any():
        raise InputError(f"got the mask {path}, which hides {'every' if hidden.all() else 'no'} value; expected some")
    return hidden.expand(shape)


def _frequencies(shape: tuple[int, ...], fraction: float, seed: int) -> Tensor:
    """A mask of a fraction of the frequencies of a real sample: the lowest ones, and random others."""
    waves = [torch.fft.fftfreq(n).double() for n in shape[1:-1]]
    waves += [torch.arange(shape[-1] // 2 + 1).double() / shape[-1]]
    distance = torch.stack(torch.meshgrid(*waves, indexing="ij")).square().sum(0).sqrt()
    rank = distance + 0.5 * uniform(seed, Purpose.DATA, 22, 0, 1, tuple(distance.shape))[0]
    count = min(rank.numel(), max(1, math.ceil(fraction * rank.numel())))
    return torch.as_tensor(rank <= rank.flatten().kthvalue(count).values)


def _sheet(pictures: Tensor) -> Tensor:
    """(N, k, C, H, W) as one enlarged picture (1, C, ...), one row per image."""
    zoom = max(1, 64 // max(pictures.shape[-2:]))
    large = pictures.repeat_interleave(zoom, -1).repeat_interleave(zoom, -2)
    large = torch.nn.functional.pad(large, (2, 2, 2, 2), value=0.0)
    return large.permute(2, 0, 3, 1, 4).flatten(1, 2).flatten(2, 3)[None]
