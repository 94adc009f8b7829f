"""Folders of images: PNG, JPEG, WEBP, BMP, TIFF, GIF; grey or RGB, transparent pixels on white; a folder is a label.

Grey images of 16 bits per pixel are read as an array of whole numbers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.data import arrays, lazy, validation
from undiffuse.data.dataset import Dataset
from undiffuse.data.validation import decoding
from undiffuse.errors import InputError, quote
from undiffuse.regular_files import open_regular

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
_UNREAD = {".heic", ".heif", ".avif", ".jp2", ".j2k", ".dcm", ".nii", ".svg", ".psd", ".raw", ".nef", ".cr2", ".dng",
           ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".exr", ".hdr", ".fits", ".npy", ".jfif", ".pcx", ".svs"}
_MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB"}
_DEEP = {"I", "I;16", "I;16L", "I;16B", "I;16N"}
_MOST_PIXELS = 64 << 20


def read_folder(folder: Path, size: int | None = None, skip_broken: bool = False) -> Dataset:
    """The Dataset of all images under a folder, in the order of their paths.

    The first sub-folder in a file's path is its label. More than 1 GiB of pixels stay in the files and are decoded when
    they are needed.

    Args:
        folder: the folder.
        size: side to which the centre squares are resampled; None: all images must have one size.
        skip_broken: whether images that cannot be read, or differ from the first one in size or mode, are left out.

    Raises:
        InputError: naming files, for mixed modes or sizes, broken files, floats and CMYK.
    """
    files, notes = _files(folder)
    if (deep := _deep(files, size)) is not None:
        data = arrays.from_arrays(deep, folder_labels(folder, files), name=folder.name)
        return replace(data, notes=(*data.notes, *notes, "pictures of 16 bits per pixel"))
    if skip_broken:
        files, notes = _readable(files, size, notes)
    return read_pictures(Files(folder, files, size), folder.name, lambda: folder_labels(folder, files), notes)


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


def load_pictures(path: Path, first: int | None, size: int | None) -> Tensor:
    """Images uint8 (N, C, H, W) of one file, or of a folder in the order of their paths.

    Args:
        path: file or folder.
        first: number of images from the start on; None: all.
        size: side to which images are cut and resampled if they differ in size; None: all must have one size.
    """
    files = _files(path)[0][:first] if path.is_dir() else [path]
    images = [load_image(file)[0] for file in files]
    if size is not None and len({image.shape[1:] for image in images}) > 1:
        images = [validation.resize(image[None], size)[0] for image in images]
    for file, image in zip(files, images, strict=True):
        _check_shape(image, file, images[0], files[0])
    return torch.stack(images)


def is_picture(path: Path) -> bool:
    """Whether the name of a file is that of an image."""
    return path.suffix.lower() in _SUFFIXES


def load_image(source: Path | IO[bytes], size: int | None = None, name: Path | None = None) -> tuple[Tensor, str]:
    """One image as uint8 (C, H, W), upright, and what was changed in it, or "".

    Args:
        source: path or stream of the image.
        size: side in pixels to which the centre square is resampled; None: unchanged.
        name: name of a stream in error messages; None: the source.
    """
    path = name or Path(str(source))
    with _opened(source, path) as image:
        plain, change = _plain(image, path)
        pixels = np.array(plain)
    x = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)
    return (x if size is None else validation.resize(x[None], size)[0]).contiguous(), change


def load_deep_pictures(path: Path, first: int | None = None, size: int | None = None) -> NDArray[Any] | None:
    """Images (N, H, W) of 16 bits per pixel, of one file or of a folder; None if the first has 8 bits.

    Args:
        path: file or folder.
        first: number of images from the start on; None: all.
        size: side to which the centre squares are resampled; None: all must have one size.
    """
    return _deep(_files(path)[0][:first] if path.is_dir() else [path], size)


def _deep(files: Sequence[Path], size: int | None) -> NDArray[Any] | None:
    """The whole numbers (N, H, W) of grey images of 16 bits per pixel; None if the first has another mode."""
    images: list[Tensor] = []
    for file in files:
        with _opened(file, file) as image:
            if image.mode not in _DEEP and not images:
                return None
            if image.mode not in _DEEP:
                raise InputError(f"{quote(file)} has 8 bits per pixel but {quote(files[0])} has 16; expected one mode, "
                                 "so convert them all to one")
            x = torch.from_numpy(np.array(image).astype(np.int32))[None]
        images.append(x if size is None else validation.resize(x[None], size, 1 << 16)[0])
        _check_shape(images[-1], file, images[0], files[0])
    return torch.cat(images).numpy().astype(np.uint16)


@contextmanager
def _opened(source: Path | IO[bytes], path: Path) -> Iterator[Image]:
    """An image, upright; InputError, naming it, if it is broken, too large or one of several in its file."""
    from PIL import Image, ImageOps

    with decoding(path, "an image"), ExitStack() as stack:
        file = stack.enter_context(open_regular(source)) if isinstance(source, str | Path) else source
        image = stack.enter_context(Image.open(file, formats=FORMATS))
        if image.width * image.height > _MOST_PIXELS:
            raise InputError(f"{quote(path)} has {image.width}x{image.height} pixels; expected at most "
                             f"{_MOST_PIXELS:,} in all, so scale it down")
        if (frames := getattr(image, "n_frames", 1)) > 1:
            raise InputError(f"{quote(path)} holds {frames} pictures; expected one, so save each as a file")
        yield ImageOps.exif_transpose(image)


def _plain(image: Image, path: Path) -> tuple[Image, str]:
    """The image as 8-bit grey or RGB, and what was changed; InputError if the conversion would lose information."""
    from PIL import Image as images

    if image.mode not in _MODES:
        raise InputError(f"{quote(path)} is of mode {image.mode} (such as 16 bits per channel, or CMYK) among "
                         "others; expected 8-bit grey or RGB, so convert it")
    mode = _MODES[image.mode]
    if image.has_transparency_data and (full := image.convert("RGBA")).getchannel("A").getextrema()[0] != 255:
        ground = images.new("RGBA", full.size, "white")
        return images.alpha_composite(ground, full).convert(mode), "transparent pixels were put on white"
    return image.convert(mode), "" if mode == image.mode else f"mode {image.mode} was converted to {mode}"


def _files(folder: Path) -> tuple[list[Path], list[str]]:
    paths = [p for p in folder.rglob("*") if not is_hidden(p.relative_to(folder)) and not p.is_dir()]
    files = sorted(filter(is_picture, paths), key=lambda p: p.relative_to(folder).parts)
    others = Counter(p.suffix.lower() or "no ending" for p in paths if not is_picture(p))
    endings = ", ".join(f"{n} {ending}" for ending, n in others.most_common(5))
    expected = f"expected {', '.join(sorted(_SUFFIXES))} files, in sub-folders if they have labels"
    if not files:
        raise InputError(f"{quote(folder)} holds no images{f' ({endings})' if endings else ''}; {expected}")
    if sum(n for ending, n in others.items() if ending in _UNREAD) > len(files):
        raise InputError(f"{quote(folder)} holds more images of other types ({endings}) than that can be read "
                         f"({len(files)}); {expected}, so convert them or move them away")
    return files, [f"files that are not images of these types were left out ({endings})"] if others else []


def _readable(files: Sequence[Path], size: int | None, notes: list[str]) -> tuple[list[Path], list[str]]:
    """The files that can be read, of the most frequent shape, and notes."""
    shapes: dict[Path, tuple[int, ...]] = {}
    reasons = []
    for file in files:
        try:
            shapes[file] = tuple(load_image(file, size)[0].shape)
        except InputError as error:
            reasons.append(str(error))
    usual = Counter(shapes.values()).most_common(1)[0][0] if shapes else ()
    readable = [file for file, shape in shapes.items() if shape == usual]
    if not readable:
        raise InputError(reasons[0])
    if (left := len(files) - len(readable)) > 0:
        why = f": {reasons[0]}" if reasons else ""
        notes = [*notes, f"images that cannot be read like the others were left out ({left}{why})"]
    return readable, notes


def is_hidden(path: Path) -> bool:
    """Whether a part of a path begins with a point."""
    return any(part.startswith(".") for part in path.parts)


def folder_labels(folder: Path, files: Sequence[Path]) -> list[str] | None:
    """The first sub-folder of each file; None for files without any."""
    parts = [file.relative_to(folder).parts for file in files]
    loose = [file for file, names in zip(files, parts, strict=True) if len(names) == 1]
    if loose and len(loose) < len(files):
        raise InputError(f"{quote(folder)} holds files in sub-folders, which are labels, and outside such "
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
