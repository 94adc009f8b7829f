"""Folders of images: PNG, JPEG, WEBP and BMP, grey or RGB; a sub-folder is a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from undiffuse.data import build, stored
from undiffuse.data.checks import decoding, shown
from undiffuse.data.dataset import Dataset
from undiffuse.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB"}
_MOST_PIXELS = 64 << 20


def read_folder(folder: Path, size: int | None = None) -> Dataset:
    """The Dataset of all images under a folder, in the order of their paths.

    The first sub-folder on the way to a file is its label. With `size`, each image is cut to its centre
    square and resampled; without, all must have one size. More than 1 GiB of pixels stay in their files, and are
    decoded when they are needed. Raises InputError, naming files, for mixed modes or
    sizes, broken files, transparency, more than 8 bits per channel and CMYK.
    """
    files, note = _files(folder)
    first, _ = load_image(files[0], size)
    if first.numel() * len(files) > stored.LARGE and len(files) > 1:
        y, classes = build.encode(marks, folder.name) if (marks := _labels(folder, files)) else (None, ())
        return Dataset(cast(Any, Files(folder, files, first, size)), y, "image", folder.name, classes, levels=256,
                       note=(*note, "the images are read as they are needed"))
    images, modes = [], Counter[str]()
    for file in files:
        image, mode = load_image(file, size)
        _check_alike(image, file, first, files[0])
        images.append(image)
        modes[mode] += 1
    converted = [f"mode {mode} was converted to {_MODES[mode]} ({count} of {len(files)} images)"
                 for mode, count in sorted(modes.items()) if _MODES[mode] != mode]
    return build.images(torch.stack(images), name=folder.name, marks=_labels(folder, files),
                        note=[*note, *converted])


class Files(stored.Lazy):
    """The images of a folder, decoded when they are asked for; each must be like the `first` one."""

    def __init__(self, folder: Path, files: Sequence[Path], first: Tensor, size: int | None) -> None:
        super().__init__(first.shape, torch.uint8, len(files))
        self.folder, self.files, self.first, self.size = folder, list(files), first, size

    def read(self, numbers: Sequence[int]) -> Tensor:
        """The images, decoded; InputError names a file that is broken or another size."""
        images = [load_image(self.files[number], self.size)[0] for number in numbers]
        for number, image in zip(numbers, images, strict=True):
            _check_alike(image, self.files[number], self.first, self.files[0])
        return torch.stack(images) if images else self.first.new_empty(0, *self.row)

    def identity(self) -> bytes:
        """The names and sizes of the files."""
        files = [self.files[number] for number in self.numbers.tolist()]
        return repr([(file.relative_to(self.folder).parts, file.stat().st_size) for file in files]).encode()


def load_image(path: Path, size: int | None = None) -> tuple[Tensor, str]:
    """One image as uint8 (C, H, W), upright, and the mode it had in the file."""
    from PIL import Image, ImageOps

    with decoding(path, "an image"), Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > _MOST_PIXELS:
            raise InputError(f"{shown(path)} has {image.width}x{image.height} pixels; expected at most "
                             f"{_MOST_PIXELS:,} in all, so scale it down")
        pixels = np.array(ImageOps.exif_transpose(_plain(image, path)))
        mode = image.mode
    x = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)
    return (x if size is None else build.resize(x[None], size)[0]).contiguous(), mode


def _plain(image: Image, path: Path) -> Image:
    """The image as 8-bit grey or RGB, if nothing is lost by that."""
    if image.mode not in _MODES:
        raise InputError(f"{shown(path)} is of mode {image.mode} (such as 16 bits per channel, or CMYK); "
                         "expected 8-bit grey or RGB, so convert it")
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
        raise InputError(f"{shown(path)} is transparent in places; expected grey or RGB, so put it on a "
                         "background")
    return image.convert(_MODES[image.mode])


def _files(folder: Path) -> tuple[list[Path], list[str]]:
    seen = [p for p in folder.rglob("*") if not _hidden(p.relative_to(folder)) and not p.is_dir()]
    files = sorted((p for p in seen if p.suffix.lower() in _SUFFIXES),
                   key=lambda p: p.relative_to(folder).parts)
    if not files:
        raise InputError(f"{shown(folder)} holds no images; expected {', '.join(sorted(_SUFFIXES))} files, "
                         "in sub-folders if they have labels")
    others = len(seen) - len(files)
    return files, [f"files that are not PNG, JPEG, WEBP or BMP were left out ({others})"] if others else []


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _labels(folder: Path, files: Sequence[Path]) -> list[str] | None:
    parts = [file.relative_to(folder).parts for file in files]
    loose = [file for file, way in zip(files, parts, strict=True) if len(way) == 1]
    if loose and len(loose) < len(files):
        raise InputError(f"{shown(folder)} holds images in sub-folders, which are labels, and outside such "
                         f"as {shown(loose[0].name)}; expected one or the other")
    return None if loose else [way[0] for way in parts]


def _check_alike(image: Tensor, path: Path, first: Tensor, first_path: Path) -> None:
    if image.shape[0] != first.shape[0]:
        colour = {1: "grey", 3: "RGB"}
        raise InputError(f"{shown(path)} is {colour[image.shape[0]]} but {shown(first_path)} is "
                         f"{colour[first.shape[0]]}; expected one mode, so convert them all to one")
    if image.shape != first.shape:
        raise InputError(f"{shown(path)} has {image.shape[2]}x{image.shape[1]} pixels but "
                         f"{shown(first_path)} has "
                         f"{first.shape[2]}x{first.shape[1]}; expected one size, so give size= to resize "
                         "them")
