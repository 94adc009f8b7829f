"""A picture that shows itself in a notebook, and that a script saves where it is told to."""

from __future__ import annotations

import base64
import io
import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

COLOURS = ("#1c4e80", "#e8590c", "#2b8a3e", "#862e9c", "#868e96", "#c2255c")
"""Blue, orange, green, violet, grey, red: apart for all common kinds of colour vision, in this order."""

_STYLE: Any = {
    "font.size": 10, "axes.titlesize": 10.5, "axes.titlelocation": "left", "axes.spines.top": False,
    "axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 1.6, "axes.titlepad": 7,
    "axes.prop_cycle": f"cycler(color={list(COLOURS)})",
}
_numbers = itertools.count(1)


class Picture:
    """A figure as PNG bytes, with a sentence that says what it shows; `save(path)` writes it.

    Where the environment names a folder UNDIFFUSE_FIGURES, every picture is also written there, numbered.
    """

    suffix, kind = ".png", "image/png"

    def __init__(self, data: bytes, alt: str = "") -> None:
        self.data, self.alt = data, alt
        if place := os.environ.get("UNDIFFUSE_FIGURES"):
            self.save(Path(place) / f"{next(_numbers):02d}{self.suffix}")

    def save(self, path: Path | str) -> None:
        """Writes the file."""
        Path(path).write_bytes(self.data)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        coded = base64.b64encode(self.data).decode()
        return {self.kind: coded, "text/plain": self.alt}


class Film(Picture):
    """Pictures one after the other, as a GIF that loops."""

    suffix, kind = ".gif", "image/gif"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        coded = base64.b64encode(self.data).decode()
        return {"text/html": f'<img alt="{self.alt}" src="data:image/gif;base64,{coded}">', "text/plain": self.alt}


def panels(n: int, height: float = 3.0, width: float = 9.6, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure with n axes side by side, in the course's style."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
        return figure, list(figure.subplots(1, n, squeeze=False, **options)[0])


def finished(figure: Figure, alt: str) -> Picture:
    """The figure as a picture."""
    return Picture(_png(figure), alt)


def film(figures: Iterable[Figure], alt: str, milliseconds: int = 90) -> Film:
    """The figures as a film; the last one stands for two seconds."""
    frames = [Image.open(io.BytesIO(_png(f))).convert("RGB").quantize(48) for f in figures]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:], loop=0,
                   duration=[milliseconds] * (len(frames) - 1) + [2000])
    return Film(stream.getvalue(), alt)


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
