"""Samples as pictures inside the page: tiles of images, dots of points, and bytes as data: addresses."""

from __future__ import annotations

import io
from base64 import b64encode
from html import escape

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

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
