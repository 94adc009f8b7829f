"""Folders of images: PNG, JPEG, WEBP and BMP, grey or RGB; a sub-folder is a label."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from undiffuse.data import lazy, validation
from undiffuse.data.checks import decoding
from undiffuse.data.dataset import Dataset
from undiffuse.errors import InputError, quote

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
    return gathered(Files(folder, files, size), folder.name, lambda: _folder_labels(folder, files), note)


def gathered(pictures: Pictures, name: str, labels: Callable[[], list[str] | None],
             note: Sequence[str] = ()) -> Dataset:
    """The Dataset of some pictures: decoded if they are less than 1 GiB, else when they are needed."""
    if pictures.first.numel() * len(pictures) > lazy.LARGE and len(pictures) > 1:
        y, classes = (None, ()) if (marks := labels()) is None else validation.encode(marks, name)
        return Dataset(cast(Any, pictures), y, "image", name, classes, levels=256,
                       note=(*note, "the images are read as they are needed"))
    images, modes = zip(*(pictures.picture(number) for number in range(len(pictures))), strict=True)
    converted = [f"mode {mode} was converted to {_MODES[mode]} ({count} of {len(pictures)} images)"
                 for mode, count in sorted(Counter(modes).items()) if _MODES[mode] != mode]
    return validation.images(torch.stack(images), name=name, marks=labels(), note=[*note, *converted])


class Pictures(lazy.Lazy):
    """Encoded images, decoded when they are asked for; each must be like the `first` one."""

    def __init__(self, count: int, size: int | None) -> None:
        self.size = size
        self.first, _ = load_image(self.opened(0), size, self.called(0))
        super().__init__(self.first.shape, torch.uint8, count)

    @abstractmethod
    def opened(self, number: int) -> Path | IO[bytes]:
        """Where an image is read from."""

    @abstractmethod
    def called(self, number: int) -> Path:
        """What it is called in a sentence."""

    def picture(self, number: int) -> tuple[Tensor, str]:
        """One image, decoded, and its mode; InputError names one that is broken or of another size."""
        image, mode = load_image(self.opened(number), self.size, self.called(number))
        _check_alike(image, self.called(number), self.first, self.called(0))
        return image, mode

    def read(self, numbers: Sequence[int]) -> Tensor:
        """The images, decoded."""
        images = [self.picture(number)[0] for number in numbers]
        return torch.stack(images) if images else self.first.new_empty(0, *self.row)


class Files(Pictures):
    """The images of a folder."""

    def __init__(self, folder: Path, files: Sequence[Path], size: int | None) -> None:
        self.folder, self.files = folder, list(files)
        super().__init__(len(files), size)

    def opened(self, number: int) -> Path:
        """The file."""
        return self.files[number]

    called = opened

    def identity(self) -> bytes:
        """The names and sizes of the files."""
        files = [self.files[number] for number in self.numbers.tolist()]
        return repr([(file.relative_to(self.folder).parts, file.stat().st_size) for file in files]).encode()


def load_image(source: Path | IO[bytes], size: int | None = None, name: Path | None = None) -> tuple[Tensor, str]:
    """One image as uint8 (C, H, W), upright, and the mode it had; `name` is what a stream is called in a sentence."""
    from PIL import Image, ImageOps

    path = name or Path(str(source))
    with decoding(path, "an image"), Image.open(source, formats=FORMATS) as image:
        if image.width * image.height > _MOST_PIXELS:
            raise InputError(f"{quote(path)} has {image.width}x{image.height} pixels; expected at most "
                             f"{_MOST_PIXELS:,} in all, so scale it down")
        pixels = np.array(ImageOps.exif_transpose(_plain(image, path)))
        mode = image.mode
    x = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)
    return (x if size is None else validation.resize(x[None], size)[0]).contiguous(), mode


def _plain(image: Image, path: Path) -> Image:
    """The image as 8-bit grey or RGB, if nothing is lost by that."""
    if image.mode not in _MODES:
        raise InputError(f"{quote(path)} is of mode {image.mode} (such as 16 bits per channel, or CMYK); "
                         "expected 8-bit grey or RGB, so convert it")
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
        raise InputError(f"{quote(path)} is transparent in places; expected grey or RGB, so put it on a "
                         "background")
    return image.convert(_MODES[image.mode])


def _files(folder: Path) -> tuple[list[Path], list[str]]:
    seen = [p for p in folder.rglob("*") if not _hidden(p.relative_to(folder)) and not p.is_dir()]
    files = sorted((p for p in seen if p.suffix.lower() in _SUFFIXES),
                   key=lambda p: p.relative_to(folder).parts)
    if not files:
        raise InputError(f"{quote(folder)} holds no images; expected {', '.join(sorted(_SUFFIXES))} files, "
                         "in sub-folders if they have labels")
    others = len(seen) - len(files)
    return files, [f"files that are not PNG, JPEG, WEBP or BMP were left out ({others})"] if others else []


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _folder_labels(folder: Path, files: Sequence[Path]) -> list[str] | None:
    parts = [file.relative_to(folder).parts for file in files]
    loose = [file for file, way in zip(files, parts, strict=True) if len(way) == 1]
    if loose and len(loose) < len(files):
        raise InputError(f"{quote(folder)} holds images in sub-folders, which are labels, and outside such "
                         f"as {quote(loose[0].name)}; expected one or the other")
    return None if loose else [way[0] for way in parts]


def _check_alike(image: Tensor, path: Path, first: Tensor, first_path: Path) -> None:
    if image.shape[0] != first.shape[0]:
        colour = {1: "grey", 3: "RGB"}
        raise InputError(f"{quote(path)} is {colour[image.shape[0]]} but {quote(first_path)} is "
                         f"{colour[first.shape[0]]}; expected one mode, so convert them all to one")
    if image.shape != first.shape:
        raise InputError(f"{quote(path)} has {image.shape[2]}x{image.shape[1]} pixels but "
                         f"{quote(first_path)} has "
                         f"{first.shape[2]}x{first.shape[1]}; expected one size, so give size= to resize "
                         "them")
