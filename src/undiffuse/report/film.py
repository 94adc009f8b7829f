"""The film of a reverse process: a GIF that loops, with the time written in every frame."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from undiffuse.report.journey import Moment, stamp
from undiffuse.report.view import View

_STRIP, _INSET, _SHADES = 36, 8, 16
_WIDTH = 480
_FIRST, _EACH, _LAST = 700, 80, 2600


def film(view: View, moments: Sequence[Moment]) -> bytes:
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


def _frame(picture: Image.Image, moment: Moment, done: float, colour: tuple[int, int, int]) -> Image.Image:
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
