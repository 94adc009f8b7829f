"""Damaged images restored by a model: several draws of p(x | y) each, their mean and their deviation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from undiffuse.data import open_data
from undiffuse.data.images import load_image
from undiffuse.data.validation import decoding
from undiffuse.data.writers import atomic, png_grid
from undiffuse.errors import InputError
from undiffuse.inverse import (
    Downsample,
    Fourier,
    Grey,
    Mask,
    Operator,
    gaussian_blur,
    motion_blur,
    observe,
    random_mask,
)
from undiffuse.likelihood import label_posterior
from undiffuse.model import Model
from undiffuse.progress import bar, part
from undiffuse.random import Purpose, classes, normal, uniform
from undiffuse.samplers.driver import sample

OPERATORS = ("inpaint", "random", "blur", "motion", "downsample", "fourier", "grey")
"""What can have happened to an image, by name."""
_FEW = 20  # classes up to which a class that is not told is drawn
_APART = 1 << 32  # indices between the samples of one round and of the next
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True)
class Restored:
    """Observations y (N, *out) and draws (N, k, C, H, W) of what they came from, in grey levels 0 ... levels − 1."""

    y: Tensor
    draws: Tensor
    levels: int

    def write(self, folder: Path) -> list[Path]:
        """draws.npy (float32), mean.png, deviation.png (white: half of the range) and restored.png, one row an image:
        what was seen, the mean, the deviation, the draws.
        """
        folder.mkdir(parents=True, exist_ok=True)
        mean, deviation = self.draws.mean(1), (self.draws.std(1) if self.draws.shape[1] > 1 else 0 * self.draws[:, 0])
        bright = 2 * deviation
        shown = torch.cat([self._fitted()[:, None], mean[:, None], bright[:, None], self.draws], 1)
        pictures = {"mean.png": png_grid(mean, self.levels), "deviation.png": png_grid(bright, self.levels),
                    "restored.png": png_grid(_sheet(shown), self.levels)}
        paths = [folder / "draws.npy"]
        with atomic(paths[0]) as file:
            np.save(file, self.draws.float().numpy(), allow_pickle=False)
        for name, data in pictures.items():
            paths.append(folder / name)
            with atomic(paths[-1]) as file:
                file.write(data)
        return paths

    def _fitted(self) -> Tensor:
        """What was seen as pictures of the restored size, with mid-grey where nothing was; blank if it is none."""
        size = self.draws.shape[-3:]
        y = self.y.nan_to_num((self.levels - 1) / 2)
        if y.ndim != 4:
            return torch.full((len(y), *size), (self.levels - 1) / 2)
        large = torch.nn.functional.interpolate(y, size[-2:], mode="nearest")
        return large.expand(-1, size[0], -1, -1)


def images(source: Path, levels: int = 256) -> Tensor:
    """Images (N, C, H, W) in grey levels 0 ... levels − 1: one picture, a .npy (taken as it is), an IDX file or a
    folder.
    """
    if source.suffix.lower() in _PICTURES:
        return load_image(source)[0][None].float() * ((levels - 1) / 255)
    if source.suffix.lower() == ".npy":
        with decoding(source, "an array"):
            array = torch.from_numpy(np.load(source, allow_pickle=False)).float()
        if array.ndim not in (3, 4):
            raise InputError(f"got an array of shape {tuple(array.shape)}; expected (N, C, H, W) or (N, H, W)")
        return array if array.ndim == 4 else array[:, None]
    data = open_data(source)
    if data.kind != "image":
        raise InputError(f"got {source.name}, which holds no images; expected pictures, .npy or IDX files, or a folder")
    return data.x.float() * ((levels - 1) / (data.levels - 1))


def operator(name: str, shape: tuple[int, ...], mask: Path | None = None, amount: float | None = None,
             angle: float = 0.0, seed: int = 0) -> Operator:
    """The operator of that name for images (C, H, W).

    mask: a picture, white where the image is to be filled in. amount: the share hidden (random), the blur's deviation
    or the motion's length in pixels, the factor of downsampling, the share of frequencies measured (fourier).
    """
    if name not in OPERATORS:
        raise InputError(f"got operator {name!r}; expected one of {', '.join(OPERATORS)}")
    if (name == "inpaint") != (mask is not None):
        raise InputError("got inpaint without a mask, or a mask without inpaint; expected both together")
    if mask is not None:
        return Mask(_hidden(mask, shape) < 0.5)
    usual = {"random": 0.7, "blur": 1.0, "motion": 5.0, "downsample": 2.0, "fourier": 0.3, "grey": 0.0}
    value = usual[name] if amount is None else amount
    if name in ("motion", "downsample") and value % 1:
        raise InputError(f"got amount={value:g} for {name}; expected a whole number")
    made: dict[str, Callable[[], Operator]] = {
        "random": lambda: random_mask(shape, value, seed), "blur": lambda: gaussian_blur(value),
        "motion": lambda: motion_blur(int(value), angle), "downsample": lambda: Downsample(int(value)),
        "fourier": lambda: Fourier(_frequencies(shape, value, seed)), "grey": Grey,
    }
    return made[name]()


def restore(model: Model, seen: Operator, y: Tensor, noise: float = 0.0, draws: int = 8, *, simulate: bool = False,
            method: str = "mmps", exact: bool = False, steps: int | None = None, seed: int = 0, levels: int = 256,
            rounds: int | None = None, shares: Sequence[int] | None = None, **cond: Any) -> Restored:
    """Draws of p(x | y) for every row of y; with `simulate` y holds whole images, which are damaged first.

    noise: the standard deviation, in grey levels. cond: conditions; a tensor has one row an image. rounds: where no
    class is told, how often a class is drawn from p(class | x) for every draw x, and x anew given that class: Gibbs'
    sampler of p(x, class | y), in which the network is always told a class. By default once for up to 20 classes, and
    not with particles, of which a group has one class. shares: how frequent the classes are.
    Raises InputError where y is not what the operator gives, and for rounds where there is no class to
    draw.
    """
    if draws < 1:
        raise InputError(f"got {draws} draws; expected at least 1")
    observed = observe(model, seen, None, noise, method, exact=exact)
    expected = model.shape if simulate else tuple(observed.observation.zero.shape[1:])
    if tuple(y.shape[1:]) != expected:
        whole = "; whole ones are damaged by simulate" if tuple(y.shape[1:]) == model.shape else ""
        raise InputError(f"got images of shape {tuple(y.shape[1:])}; expected {expected}{whole}")
    if simulate:
        clean = seen(y)
        y = clean + noise * normal(seed, Purpose.DATA, 21, 0, len(clean), tuple(clean.shape[1:]))
    y, group = seen.mask_unobserved(y), observed.own.group if observed.own else 1
    each = -(-draws // group) * group  # samples of one run of particles are of one image
    told: dict[str, Any] = {name: v.repeat_interleave(each, 0) if isinstance(v, Tensor) else v
                            for name, v in cond.items()}
    rows, out = y.repeat_interleave(each, 0), y
    turns = 1 + _rounds(model, rounds, "label" in cond, group)
    with bar("restoring") as progress:
        for k in range(turns):
            label: dict[str, Any] = {"label": drawn_labels(model, out, seed, k, shares, **told)} if k else {}
            out = sample(observed, len(rows), steps=steps, seed=seed, first_index=k * _APART, y=rows, **label, **told,
                         progress=part(progress, k, turns)).x
    return Restored(y, out.reshape(len(y), each, *out.shape[1:])[:, :draws], levels)


def drawn_labels(model: Model, x: Tensor, seed: int = 0, turn: int = 0, shares: Sequence[int] | None = None,
                 **cond: Any) -> Tensor:
    """A class for every row of x (B, *event) in data units, drawn from `label_posterior`, (B,)."""
    known = None if shares is None else torch.tensor(shares, dtype=torch.float64)
    first = turn * _APART
    return classes(seed, first, label_posterior(model, x, seed=seed, shares=known, first_index=first, **cond))


def _rounds(model: Model, asked: int | None, told: bool, group: int) -> int:
    """How often classes are drawn."""
    possible = model.classes > 1 and not told and group == 1
    if asked is not None and (asked < 0 or (asked > 0 and not possible)):
        why = (" or more" if possible else ", for the class is told" if told else
               ", for particles have one class a group" if group > 1 else ", for there are no classes")
        raise InputError(f"got {asked} rounds; expected 0{why}")
    return int(possible and model.classes <= _FEW) if asked is None else asked


def _hidden(path: Path, shape: tuple[int, ...]) -> Tensor:
    """How white a mask is, 0 to 1, (1, H, W)."""
    picture = load_image(path)[0].float().mean(0, keepdim=True) / 255
    if picture.shape[-2:] != shape[-2:]:
        raise InputError(f"got a mask of {picture.shape[-1]}x{picture.shape[-2]} pixels for a model of "
                         f"{shape[-1]}x{shape[-2]}; expected the same size")
    return picture.expand(shape)


def _frequencies(shape: tuple[int, ...], share: float, seed: int) -> Tensor:
    """The lowest frequencies and a random rest, that share of all in the half-plane."""
    rows, columns = shape[-2], shape[-1] // 2 + 1
    up = torch.fft.fftfreq(shape[-2])[:, None].double()
    distance = (up**2 + (torch.arange(columns) / shape[-1]) ** 2).sqrt()
    rank = distance + 0.5 * uniform(seed, Purpose.DATA, 22, 0, 1, (rows, columns))[0]
    count = min(rank.numel(), max(1, math.ceil(share * rank.numel())))
    return torch.as_tensor(rank <= rank.flatten().kthvalue(count).values)


def _sheet(pictures: Tensor) -> Tensor:
    """(N, k, C, H, W) as one large picture (1, C, ...), a row an image, enlarged to be seen."""
    zoom = max(1, 64 // max(pictures.shape[-2:]))
    large = pictures.repeat_interleave(zoom, -1).repeat_interleave(zoom, -2)
    large = torch.nn.functional.pad(large, (2, 2, 2, 2), value=0.0)
    return large.permute(2, 0, 3, 1, 4).flatten(1, 2).flatten(2, 3)[None]
