"""Folders of images: PNG, JPEG, WEBP and BMP, grey or RGB, transparent pixels on white; a sub-folder is a label."""

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
from undiffuse.data.dataset import Dataset
from undiffuse.data.validation import decoding
from undiffuse.errors import InputError, quote

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB"}
_MOST_PIXELS = 64 << 20


def read_folder(folder: Path, size: int | None = None) -> Dataset:
    """The Dataset of all images under a folder, in the order of their paths.

    The first sub-folder in a file's path is its label. More than 1 GiB of pixels stay in the files and are decoded when
    they are needed.

    Args:
        folder: the folder.
        size: side to which the centre squares are resampled; None: all images must have one size.

    Raises:
        InputError: naming files, for mixed modes or sizes, broken files, more than 8 bits per channel and CMYK.
    """
    files, notes = _files(folder)
    return read_pictures(Files(folder, files, size), folder.name, lambda: _folder_labels(folder, files), notes)


def read_pictures(pictures: Pictures, name: str, labels: Callable[[], list[str] | None],
                  notes: Sequence[str] = ()) -> Dataset:
    """The Dataset of encoded images: decoded at once below 1 GiB, else when they are needed.

    Args:
        pictures: the encoded images.
        name: name of the dataset.
        labels: function that gives the label of each image, or None without labels.
        notes: remarks to show to the user.
    """
    if pictures.first.numel() * len(pictures) > lazy.LARGE and len(pictures) > 1:
        y, classes = (None, ()) if (label_texts := labels()) is None else validation.encode_labels(label_texts, name)
        return Dataset(cast(Any, pictures), y, "image", name, classes, levels=256,
                       notes=(*notes, "the images are read as they are needed"))
    images, changes = zip(*(pictures.picture(number) for number in range(len(pictures))), strict=True)
    changed = [f"{change} ({count} of {len(pictures)} images)"
               for change, count in sorted(Counter(changes).items()) if change]
    return validation.images(torch.stack(images), name=name, label_texts=labels(), notes=[*notes, *changed])


class Pictures(lazy.Lazy):
    """Encoded images, decoded on access; all must have the shape of the first."""

    def __init__(self, count: int, size: int | None) -> None:
        self.size = size
        self.first, _ = load_image(self.source(0), size, self.label(0))
        super().__init__(self.first.shape, torch.uint8, count)

    @abstractmethod
    def source(self, number: int) -> Path | IO[bytes]:
        """The encoded image."""

    @abstractmethod
    def label(self, number: int) -> Path:
        """The name of an image in error messages."""

    def picture(self, number: int) -> tuple[Tensor, str]:
        """One decoded image and what was changed in it; InputError, naming it, if it is broken or of another size."""
        image, change = load_image(self.source(number), self.size, self.label(number))
        _check_shape(image, self.label(number), self.first, self.label(0))
        return image, change

    def read(self, numbers: Sequence[int]) -> Tensor:
        """The decoded images."""
        images = [self.picture(number)[0] for number in numbers]
        return torch.stack(images) if images else self.first.new_empty(0, *self.row)


class Files(Pictures):
    """The images of a folder."""

    def __init__(self, folder: Path, files: Sequence[Path], size: int | None) -> None:
        self.folder, self.files = folder, list(files)
        super().__init__(len(files), size)

    def source(self, number: int) -> Path:
        """The file."""
        return self.files[number]

    label = source

    def identity(self) -> bytes:
        """Names and sizes of the files."""
        files = [self.files[number] for number in self.numbers.tolist()]
        return repr([(file.relative_to(self.folder).parts, file.stat().st_size) for file in files]).encode()


def load_image(source: Path | IO[bytes], size: int | None = None, name: Path | None = None) -> tuple[Tensor, str]:
    """One image as uint8 (C, H, W), upright, and what was changed in it, or "".

    Args:
        source: path or stream of the image.
        size: side in pixels to which the centre square is resampled; None: unchanged.
        name: name of a stream in error messages; None: the source.
    """
    from PIL import Image, ImageOps

    path = name or Path(str(source))
    with decoding(path, "an image"), Image.open(source, formats=FORMATS) as image:
        if image.width * image.height > _MOST_PIXELS:
            raise InputError(f"{quote(path)} has {image.width}x{image.height} pixels; expected at most "
                             f"{_MOST_PIXELS:,} in all, so scale it down")
        plain, change = _plain(ImageOps.exif_transpose(image), path)
        pixels = np.array(plain)
    x = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)
    return (x if size is None else validation.resize(x[None], size)[0]).contiguous(), change


def _plain(image: Image, path: Path) -> tuple[Image, str]:
    """The image as 8-bit grey or RGB, and what was changed; InputError if the conversion would lose information."""
    from PIL import Image as images

    if image.mode not in _MODES:
        raise InputError(f"{quote(path)} is of mode {image.mode} (such as 16 bits per channel, or CMYK); "
                         "expected 8-bit grey or RGB, so convert it")
    mode = _MODES[image.mode]
    if image.has_transparency_data and (full := image.convert("RGBA")).getchannel("A").getextrema()[0] != 255:
        ground = images.new("RGBA", full.size, "white")
        return images.alpha_composite(ground, full).convert(mode), "transparent pixels were put on white"
    return image.convert(mode), "" if mode == image.mode else f"mode {image.mode} was converted to {mode}"


def _files(folder: Path) -> tuple[list[Path], list[str]]:
    paths = [p for p in folder.rglob("*") if not _hidden(p.relative_to(folder)) and not p.is_dir()]
    files = sorted((p for p in paths if p.suffix.lower() in _SUFFIXES),
                   key=lambda p: p.relative_to(folder).parts)
    if not files:
        raise InputError(f"{quote(folder)} holds no images; expected {', '.join(sorted(_SUFFIXES))} files, "
                         "in sub-folders if they have labels")
    others = len(paths) - len(files)
    return files, [f"files that are not PNG, JPEG, WEBP or BMP were left out ({others})"] if others else []


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _folder_labels(folder: Path, files: Sequence[Path]) -> list[str] | None:
    parts = [file.relative_to(folder).parts for file in files]
    loose = [file for file, names in zip(files, parts, strict=True) if len(names) == 1]
    if loose and len(loose) < len(files):
        raise InputError(f"{quote(folder)} holds images in sub-folders, which are labels, and outside such "
                         f"as {quote(loose[0].name)}; expected one or the other")
    return None if loose else [names[0] for names in parts]


def _check_shape(image: Tensor, path: Path, first: Tensor, first_path: Path) -> None:
    if image.shape[0] != first.shape[0]:
        colour = {1: "grey", 3: "RGB"}
        raise InputError(f"{quote(path)} is {colour[image.shape[0]]} but {quote(first_path)} is "
                         f"{colour[first.shape[0]]}; expected one mode, so convert them all to one")
    if image.shape != first.shape:
        raise InputError(f"{quote(path)} has {image.shape[2]}x{image.shape[1]} pixels but "
                         f"{quote(first_path)} has "
                         f"{first.shape[2]}x{first.shape[1]}; expected one size, so give size= to resize "
                         "them")
