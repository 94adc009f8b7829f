"""Pictures of batches in model units: images as tiles, points and tables as dots in a plane, and animations as GIF.

A `BatchView` draws batches of one kind of data, as a `Picture` or `Dots` for the page or as a frame of an animation.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from matplotlib import font_manager
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter
from torch import Tensor

from undiffuse.data import Dataset, Transform
from undiffuse.random import Purpose, normal
from undiffuse.report.trajectory import Snapshot, time_labels

_GAP, _SIDE = 1, 56
_MANY = 300  # number of points above which dots are small
_SMOOTHED = 3  # smallest factor at which smoothing is visible


@dataclass(frozen=True)
class Picture:
    """An image file as a data: address; `style` is its CSS class, `plate` whether it lies on a tinted ground."""

    kind: ClassVar = "image"
    alt: str
    source: str
    style: str = ""
    plate: bool = False


@dataclass(frozen=True)
class Dots:
    """Dots as one SVG path of lines of length 0 with round ends, in a square of side 1000."""

    kind: ClassVar = "dots"
    alt: str
    path: str
    role: str
    width: int


def greys(x: Tensor, levels: int) -> NDArray[np.uint8]:
    """Images (n, C, H, W) with grey levels 0 ... levels − 1 as bytes (n, H, W, C) in 0 ... 255."""
    full = (x.double() * (255 / (levels - 1))).round().clamp(0, 255).to(torch.uint8)
    return full.permute(0, 2, 3, 1).numpy()


def tiled(images: NDArray[np.uint8], columns: int, smooth: bool = False, clear: bool = False) -> Image.Image:
    """Images in rows, one pixel apart, small ones enlarged.

    Args:
        images: images (n, H, W, C).
        columns: images per row.
        smooth: whether to enlarge bicubically.
        clear: whether the gaps are transparent, else black.
    """
    n, height, width, channels = images.shape
    times = max(1, round(_SIDE / max(height, width)))
    step = (times * (height + _GAP), times * (width + _GAP))
    sheet = np.zeros((-(-n // columns) * step[0] - times * _GAP, columns * step[1] - times * _GAP, channels), np.uint8)
    solid = np.zeros(sheet.shape[:2], np.uint8)
    for k, image in enumerate(images):
        top, left = (k // columns) * step[0], (k % columns) * step[1]
        sheet[top:top + times * height, left:left + times * width] = _enlarged(image, times, smooth)
        solid[top:top + times * height, left:left + times * width] = 255
    picture = Image.fromarray(sheet[..., 0] if channels == 1 else sheet)
    if clear:
        picture.putalpha(Image.fromarray(solid))
    return picture


def _enlarged(image: NDArray[np.uint8], times: int, smooth: bool) -> NDArray[np.uint8]:
    """An image (H, W, C) enlarged by the factor `times`."""
    if not smooth or times < _SMOOTHED:
        return image.repeat(times, 0).repeat(times, 1)
    height, width, channels = image.shape
    flat = Image.fromarray(image[..., 0] if channels == 1 else image)
    soft = np.asarray(flat.resize((times * width, times * height), Image.Resampling.BICUBIC))
    return soft.reshape(times * height, times * width, channels)


def strokes(images: NDArray[np.uint8]) -> bool:
    """Whether images (n, H, W, C) are light strokes on black, which a light page shows inverted."""
    edges = np.concatenate([images[:, [0, -1]].reshape(-1), images[:, :, [0, -1]].reshape(-1)])
    return images.shape[-1] == 1 and bool(np.median(edges) == 0)


def png(image: Image.Image, alt: str, style: str = "") -> Picture:
    """An image as a PNG for the page.

    Args:
        image: the image.
        alt: alternative text.
        style: CSS class.
    """
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return Picture(alt, data_url(stream.getvalue(), "png"), style)


def data_url(content: bytes, kind: str) -> str:
    """The bytes of an image file of that kind (png, gif) as a data: address."""
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def dots(points: NDArray[np.float64], role: str, alt: str) -> Dots:
    """Points in the unit square as dots; y points up.

    Args:
        points: coordinates (n, 2).
        role: colour of the dots by role.
        alt: alternative text.
    """
    x, y = (np.clip(1000 * points[:, k], -200, 1200).round().astype(int) for k in (0, 1))
    path = "".join(f"M{a} {1000 - b}h0" for a, b in zip(x, y, strict=True))
    return Dots(alt, path, role, 14 if len(points) > _MANY else 22)


def splat(points: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """Points (n, 2) in the unit square as soft light dots on black (size, size); y points up."""
    counts, _, _ = np.histogram2d(1 - points[:, 1], points[:, 0], bins=size, range=((0, 1), (0, 1)))
    width = 0.8 if len(points) > _MANY else 1.3
    light = gaussian_filter(counts, width, mode="constant") * width**2
    return np.asarray(255 * (1 - np.exp(-8 * light)), np.uint8)


_MARGIN = 0.08


class BatchView(ABC):
    """Pictures of batches z (n, *event) in model units, of one kind of data."""

    style = ""
    """CSS class of the pictures."""
    plate = False
    """Whether an animation lies on a tinted ground."""
    colour = (191, 191, 191)
    """Colour of grey frames at three quarters of the brightness of white."""

    @abstractmethod
    def picture(self, z: Tensor, alt: str, role: str = "generated") -> Picture | Dots:
        """The batch as a graphic of the page.

        Args:
            z: batch (n, *event) in model units.
            alt: alternative text.
            role: colour of points by role; without effect on images.
        """

    @abstractmethod
    def frame(self, z: Tensor) -> Image.Image:
        """The batch as a frame of an animation, in grey or RGB."""


class Tiles(BatchView):
    """Images in a grid of `columns` columns."""

    def __init__(self, data: Dataset, transform: Transform, columns: int) -> None:
        self.transform, self.columns, self.levels = transform, columns, data.levels
        self.style = "stroke" if strokes(self.bytes(data.x[:64])) else ""

    def bytes(self, x: Tensor) -> NDArray[np.uint8]:
        """Images in data units as bytes (n, H, W, C)."""
        return greys(x, self.levels)

    def sheet(self, x: Tensor, alt: str, columns: int) -> Picture:
        """Images, smoothly enlarged.

        Args:
            x: images (n, *event) in data units.
            alt: alternative text.
            columns: images per row.
        """
        return png(tiled(self.bytes(x), columns, smooth=True, clear=not self.style), alt, self.style)

    def picture(self, z: Tensor, alt: str, role: str = "generated") -> Picture:
        """The tiles as a PNG without smoothing.

        Args:
            z: images (n, *event) in model units.
            alt: alternative text.
            role: without effect.
        """
        tiles = tiled(self.bytes(self.transform.inverse(z)), self.columns, clear=not self.style)
        return png(tiles, alt, self.style)

    def frame(self, z: Tensor) -> Image.Image:
        """The tiles."""
        return tiled(self.bytes(self.transform.inverse(z)), self.columns)


class Plane(BatchView):
    """Points in two dimensions, others projected on the two principal axes of the real data.

    `window` is (left, right, bottom, top), a square around the real data.
    """

    style = "stroke"
    plate = True
    colour = (240, 144, 90)

    def __init__(self, data: Dataset, transform: Transform) -> None:
        z = transform.forward(data.x).flatten(1).double()
        self.centre = z.mean(0)
        self.axes = torch.eye(2, dtype=torch.float64) if z.shape[1] == 2 else _principal(z)
        if z.shape[1] == 2:
            self.centre = torch.zeros(2, dtype=torch.float64)
        self.window = _square(self.points(z))

    def points(self, z: Tensor) -> NDArray[np.float64]:
        """Coordinates (n, 2) in the plane; of scalars the second coordinate is random."""
        flat = z.flatten(1).double() - self.centre
        if flat.shape[1] == 1:
            return torch.cat([flat, 0.3 * normal(0, Purpose.PROBE, 0, 0, len(flat), (1,), torch.float64)], 1).numpy()
        return (flat @ self.axes).numpy()

    def picture(self, z: Tensor, alt: str, role: str = "generated") -> Dots:
        """The points as dots.

        Args:
            z: rows (n, *event) in model units.
            alt: alternative text.
            role: colour of the dots by role.
        """
        return dots(self._unit(z), role, alt)

    def frame(self, z: Tensor) -> Image.Image:
        """The points as soft dots, light on black."""
        return Image.fromarray(splat(self._unit(z), 400))

    def _unit(self, z: Tensor) -> NDArray[np.float64]:
        left, right, bottom, top = self.window
        return (self.points(z) - (left, bottom)) / (right - left, top - bottom)


def _principal(z: Tensor) -> Tensor:
    """The two principal axes (D, 2), the largest entry of each positive."""
    axes: Tensor = torch.linalg.svd(z - z.mean(0), full_matrices=False).Vh[:2].mT
    return axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()


def _square(points: NDArray[np.float64]) -> tuple[float, float, float, float]:
    low, high = np.quantile(points, [0.002, 0.998], axis=0)
    middle, half = (low + high) / 2, (1 + 2 * _MARGIN) * float((high - low).max()) / 2
    return (float(middle[0] - half), float(middle[0] + half), float(middle[1] - half), float(middle[1] + half))


_STRIP, _INSET, _SHADES = 36, 8, 16
_WIDTH = 480
_FIRST, _EACH, _LAST = 700, 80, 2600


def animation(view: BatchView, snapshots: Sequence[Snapshot]) -> bytes:
    """A looping GIF of the snapshots, the first and the last shown longer; its comment lists the times."""
    last = max(len(snapshots) - 1, 1)
    frames = [_frame(view.frame(s.scaled), s, k / last, view.colour) for k, s in enumerate(snapshots)]
    durations = [_FIRST, *[_EACH] * (len(frames) - 2), _LAST][-len(frames):]
    comment = " ".join(f"{s.t:.6g}" for s in snapshots).encode()
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0,
                   comment=comment, optimize=False, disposal=1)
    return stream.getvalue()


def _frame(picture: Image.Image, snapshot: Snapshot, progress: float, colour: tuple[int, int, int]) -> Image.Image:
    """A picture above a progress line, the time and the log-SNR."""
    picture = _fitted(picture)
    width, height = picture.size
    frame = Image.new(picture.mode, (width, height + _STRIP))
    frame.paste(picture, (0, 0))
    draw = ImageDraw.Draw(frame)
    light = 255 if picture.mode == "L" else (255, 255, 255)
    draw.rectangle((_INSET, height + 8, _INSET + round(progress * (width - 1 - 2 * _INSET)), height + 9), fill=light)
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 14)
    for x, anchor, text in zip((_INSET, width - _INSET), ("la", "ra"), time_labels(snapshot), strict=True):
        draw.text((x, height + 14), text, fill=light, font=font, anchor=anchor)
    return _few_colours(frame, colour)


def _fitted(picture: Image.Image) -> Image.Image:
    """The picture at most 480 pixels wide; small ones are enlarged by an integer factor."""
    width, height = picture.size
    factor = max(1, _WIDTH // width) if width < _WIDTH else _WIDTH / width
    size = (round(width * factor), round(height * factor))
    return picture.resize(size, Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX)


def _few_colours(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """The frame in a few shades from black over the colour to white, since noise with many is large."""
    if image.mode != "L":
        return image.quantize(2 * _SHADES)
    shade = np.linspace(0, 1, _SHADES)
    frame = Image.fromarray(((np.asarray(image).astype(int) * (_SHADES - 1) + 127) // 255).astype(np.uint8), "P")
    ramp = [np.interp(shade, (0, 0.75, 1), (0, c, 255)) for c in colour]
    frame.putpalette(np.stack(ramp, 1).round().astype(int).ravel().tolist())
    return frame
