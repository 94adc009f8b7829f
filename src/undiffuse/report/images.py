"""How a batch in model units becomes a picture: images as tiles, everything else as dots in a plane.

Samples as pictures inside the page: tiles of images, dots of points, and bytes as data: addresses.

The film of a reverse process: a GIF that loops, with the time written in every frame.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Sequence
from html import escape

import numpy as np
import torch
from matplotlib import font_manager
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter
from torch import Tensor

from undiffuse.data import Dataset, Transform
from undiffuse.random import Purpose, normal
from undiffuse.report import html
from undiffuse.report.trajectory import Snapshot, stamp

_GAP, _SIDE = 1, 56
_MANY = 300  # points from which on dots are small
_SMOOTHED = 3  # smaller factors are too small to see squares


def greys(x: Tensor, levels: int) -> NDArray[np.uint8]:
    """Images uint8 (n, C, H, W) in 0 ... levels − 1 as bytes (n, H, W, C) in 0 ... 255."""
    full = (x.double() * (255 / (levels - 1))).round().clamp(0, 255).to(torch.uint8)
    return full.permute(0, 2, 3, 1).numpy()


def tiled(images: NDArray[np.uint8], columns: int, smooth: bool = False, clear: bool = False) -> Image.Image:
    """Images (n, H, W, C) in rows of `columns`, a pixel apart; small ones are enlarged, to squares or smoothly.

    What is between them is black, or with `clear` transparent.
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
    whole = Image.fromarray(sheet[..., 0] if channels == 1 else sheet)
    if clear:
        whole.putalpha(Image.fromarray(solid))
    return whole


def _enlarged(image: NDArray[np.uint8], times: int, smooth: bool) -> NDArray[np.uint8]:
    """An image (H, W, C), each side that many times as long."""
    if not smooth or times < _SMOOTHED:
        return image.repeat(times, 0).repeat(times, 1)
    height, width, channels = image.shape
    flat = Image.fromarray(image[..., 0] if channels == 1 else image)
    soft = np.asarray(flat.resize((times * width, times * height), Image.Resampling.BICUBIC))
    return soft.reshape(times * height, times * width, channels)


def strokes(images: NDArray[np.uint8]) -> bool:
    """Whether images (n, H, W, C) are light strokes on a black ground, which a light page shows as ink on paper."""
    edges = np.concatenate([images[:, [0, -1]].reshape(-1), images[:, :, [0, -1]].reshape(-1)])
    return images.shape[-1] == 1 and bool(np.median(edges) == 0)


def img(image: Image.Image, alt: str, style: str = "") -> str:
    """An <img> that carries its own PNG."""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return img_of(stream.getvalue(), "png", alt, style)


def img_of(data: bytes, kind: str, alt: str, style: str = "") -> str:
    """An <img> that carries a file of that kind (png, gif)."""
    source = f"data:image/{kind};base64,{b64encode(data).decode()}"
    return f'<img class="{style}" alt="{escape(alt)}" src="{source}">'


def dots(points: NDArray[np.float64], role: str, alt: str) -> str:
    """Points (n, 2) in the unit square as one <svg> of lines of no length with round ends; y points up."""
    x, y = (np.clip(1000 * points[:, k], -200, 1200).round().astype(int) for k in (0, 1))
    width = 14 if len(points) > _MANY else 22
    path = "".join(f"M{a} {1000 - b}h0" for a, b in zip(x, y, strict=True))
    return (f'<svg class="dots plate" role="img" aria-label="{escape(alt)}" viewBox="0 0 1000 1000">'
            f'<path d="{path}" style="stroke: var(--{role}); stroke-width: {width}; stroke-opacity: .8"/></svg>')


def splat(points: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """Points (n, 2) in the unit square as a picture (size, size) of soft dots, 0 where there are none; y points up."""
    counts, _, _ = np.histogram2d(1 - points[:, 1], points[:, 0], bins=size, range=((0, 1), (0, 1)))
    width = 0.8 if len(points) > _MANY else 1.3
    light = gaussian_filter(counts, width, mode="constant") * width**2
    return np.asarray(255 * (1 - np.exp(-8 * light)), np.uint8)


_MARGIN = 0.08


class View(ABC):
    """A fixed way to look at batches of one kind of data, z (n, *event) in model units."""

    style = ""
    """The CSS class of its pictures."""
    colour = (191, 191, 191)
    """Of grey frames, the colour of what is three quarters as bright as white."""

    @abstractmethod
    def picture(self, z: Tensor, alt: str, role: str = "made") -> str:
        """The batch as an HTML element."""

    def framed(self, film: str) -> str:
        """A film as it stands on the page."""
        return html.tag("div", film, class_="film")

    @abstractmethod
    def frame(self, z: Tensor) -> Image.Image:
        """The batch as a frame of a film, in grey or RGB."""


class Tiles(View):
    """Images side by side, `columns` to a row."""

    def __init__(self, data: Dataset, transform: Transform, columns: int) -> None:
        self.transform, self.columns, self.levels = transform, columns, data.levels
        self.style = "stroke" if strokes(self.bytes(data.x[:64])) else ""

    def bytes(self, x: Tensor) -> NDArray[np.uint8]:
        """Images in data units as bytes (n, H, W, C)."""
        return greys(x, self.levels)

    def sheet(self, x: Tensor, alt: str, columns: int) -> str:
        """Images in data units as an HTML element, enlarged smoothly."""
        return img(tiled(self.bytes(x), columns, smooth=True, clear=not self.style), alt, self.style)

    def picture(self, z: Tensor, alt: str, role: str = "made") -> str:
        """The tiles as a PNG, pixel for pixel."""
        tiles = tiled(self.bytes(self.transform.inverse(z)), self.columns, clear=not self.style)
        return img(tiles, alt, self.style)

    def frame(self, z: Tensor) -> Image.Image:
        """The tiles."""
        return tiled(self.bytes(self.transform.inverse(z)), self.columns)


class Plane(View):
    """Points as they are in two dimensions, else on the two principal axes of the real data.

    `window` is (left, right, bottom, top), a square around the real data.
    """

    style = "stroke"
    colour = (240, 144, 90)

    def framed(self, film: str) -> str:
        """A film on the plate that the dots lie on."""
        return html.tag("div", film, class_="film plate")

    def __init__(self, data: Dataset, transform: Transform) -> None:
        z = transform.forward(data.x).flatten(1).double()
        self.centre = z.mean(0)
        self.axes = torch.eye(2, dtype=torch.float64) if z.shape[1] == 2 else _principal(z)
        if z.shape[1] == 2:
            self.centre = torch.zeros(2, dtype=torch.float64)
        self.window = _square(self.points(z))

    def points(self, z: Tensor) -> NDArray[np.float64]:
        """The places (n, 2) in the plane; numbers are spread at random along the second axis."""
        flat = z.flatten(1).double() - self.centre
        if flat.shape[1] == 1:
            return torch.cat([flat, 0.3 * normal(0, Purpose.PROBE, 0, 0, len(flat), (1,), torch.float64)], 1).numpy()
        return (flat @ self.axes).numpy()

    def picture(self, z: Tensor, alt: str, role: str = "made") -> str:
        """The points as dots."""
        return dots(self._unit(z), role, alt)

    def frame(self, z: Tensor) -> Image.Image:
        """The points as soft dots, light on black."""
        return Image.fromarray(splat(self._unit(z), 400))

    def _unit(self, z: Tensor) -> NDArray[np.float64]:
        left, right, bottom, top = self.window
        return (self.points(z) - (left, bottom)) / (right - left, top - bottom)


def _principal(z: Tensor) -> Tensor:
    """The two axes of greatest variance, (D, 2), each pointing so that its largest entry is positive."""
    axes: Tensor = torch.linalg.svd(z - z.mean(0), full_matrices=False).Vh[:2].mT
    return axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()


def _square(points: NDArray[np.float64]) -> tuple[float, float, float, float]:
    low, high = np.quantile(points, [0.002, 0.998], axis=0)
    middle, half = (low + high) / 2, (1 + 2 * _MARGIN) * float((high - low).max()) / 2
    return (float(middle[0] - half), float(middle[0] + half), float(middle[1] - half), float(middle[1] + half))


_STRIP, _INSET, _SHADES = 36, 8, 16
_WIDTH = 480
_FIRST, _EACH, _LAST = 700, 80, 2600


def film(view: View, moments: Sequence[Snapshot]) -> bytes:
    """The GIF of the moments in their order; it holds the first one shortly and the last one longer.

    Its comment lists the times, one a frame.
    """
    last = max(len(moments) - 1, 1)
    frames = [_frame(view.frame(m.shown), m, k / last, view.colour) for k, m in enumerate(moments)]
    durations = [_FIRST, *[_EACH] * (len(frames) - 2), _LAST][-len(frames):]
    comment = " ".join(f"{m.t:.6g}" for m in moments).encode()
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0,
                   comment=comment, optimize=False, disposal=1)
    return stream.getvalue()


def _frame(picture: Image.Image, moment: Snapshot, done: float, colour: tuple[int, int, int]) -> Image.Image:
    """A picture above a line that shows how far the process is, the time and the log-SNR."""
    picture = _fitted(picture)
    width, height = picture.size
    whole = Image.new(picture.mode, (width, height + _STRIP))
    whole.paste(picture, (0, 0))
    draw = ImageDraw.Draw(whole)
    light = 255 if picture.mode == "L" else (255, 255, 255)
    draw.rectangle((_INSET, height + 8, _INSET + round(done * (width - 1 - 2 * _INSET)), height + 9), fill=light)
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 14)
    for x, anchor, text in zip((_INSET, width - _INSET), ("la", "ra"), stamp(moment), strict=True):
        draw.text((x, height + 14), text, fill=light, font=font, anchor=anchor)
    return _few_colours(whole, colour)


def _fitted(picture: Image.Image) -> Image.Image:
    """The picture at most 480 pixels wide, enlarged by a whole factor where it is small."""
    width, height = picture.size
    factor = max(1, _WIDTH // width) if width < _WIDTH else _WIDTH / width
    size = (round(width * factor), round(height * factor))
    return picture.resize(size, Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX)


def _few_colours(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """The frame in a few shades from black over the colour to white: noise costs bytes by the number of its shades."""
    if image.mode != "L":
        return image.quantize(2 * _SHADES)
    shade = np.linspace(0, 1, _SHADES)
    frame = Image.fromarray(((np.asarray(image).astype(int) * (_SHADES - 1) + 127) // 255).astype(np.uint8), "P")
    ramp = [np.interp(shade, (0, 0.75, 1), (0, c, 255)) for c in colour]
    frame.putpalette(np.stack(ramp, 1).round().astype(int).ravel().tolist())
    return frame
