"""How a batch in model units becomes a picture: images as tiles, everything else as dots in a plane."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from undiffuse.data import Dataset, Transform
from undiffuse.noise import Purpose, normal
from undiffuse.report import html, pictures

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
        self.style = "stroke" if pictures.strokes(self.bytes(data.x[:64])) else ""

    def bytes(self, x: Tensor) -> NDArray[np.uint8]:
        """Images in data units as bytes (n, H, W, C)."""
        return pictures.greys(x, self.levels)

    def sheet(self, x: Tensor, alt: str, columns: int) -> str:
        """Images in data units as an HTML element, enlarged smoothly."""
        return pictures.img(pictures.tiled(self.bytes(x), columns, smooth=True, clear=not self.style), alt, self.style)

    def picture(self, z: Tensor, alt: str, role: str = "made") -> str:
        """The tiles as a PNG, pixel for pixel."""
        tiles = pictures.tiled(self.bytes(self.transform.inverse(z)), self.columns, clear=not self.style)
        return pictures.img(tiles, alt, self.style)

    def frame(self, z: Tensor) -> Image.Image:
        """The tiles."""
        return pictures.tiled(self.bytes(self.transform.inverse(z)), self.columns)


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
        return pictures.dots(self._unit(z), role, alt)

    def frame(self, z: Tensor) -> Image.Image:
        """The points as soft dots, light on black."""
        return Image.fromarray(pictures.splat(self._unit(z), 400))

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
