"""Sets of pictures as people have them, by name: drawn here, or read from packages and paths.

    discs, squares, stripes, gradients, text    shapes in two to four classes on grounds of their own, 40 x 40
    lines                                       black outlines on white, 32 x 32
    icons32, icons64                            colour emoji with their groups as classes (fonts-noto-color-emoji,
                                                unicode-data)
    flags                                       flags of countries, 24 x 32 (iso-flags-png-320x240)
    photos                                      patches of scikit-learn's two photographs, 32 x 32
    digits, clothes                             the IDX folders of MNIST and Fashion-MNIST, by path: digits=FOLDER

Every set has one seed, and `seed=1` draws another of the same kind where it is drawn here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from undiffuse.data import Dataset, open_data
from undiffuse.errors import InputError

Bytes = NDArray[np.uint8]
Drawn = tuple[Bytes, list[str]]
_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
_NAMES = Path("/usr/share/unicode/emoji/emoji-test.txt")
_FLAGS = Path("/usr/share/iso-flags-png-320x240")
_TEXT_FONT = 20  # points
_BITMAP = 109  # the one size of the emoji font


def picture_set(name: str, seed: int = 0) -> Dataset:
    """The pictures (n, C, H, W) of a set, uint8, with their classes.

    Args:
        name: A name of the module's list, or name=PATH for a set on the disk.
        seed: Seed of the sets that are drawn.
    """
    if "=" in name:
        return open_data(name.split("=", 1)[1], size=28)
    if name not in SETS:
        raise InputError(f"got the set {name!r}; expected one of {', '.join(SETS)}, or NAME=PATH")
    x, labels = SETS[name](np.random.default_rng(seed))
    classes = tuple(sorted(set(labels)))
    y = torch.tensor([classes.index(label) for label in labels]) if len(classes) > 1 else None
    images = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    return Dataset(images, y, "image", name, classes if y is not None else (), levels=256)


def write(dataset: Dataset, folder: Path) -> None:
    """The pictures as PNG files, in a sub-folder for every class."""
    for i, image in enumerate(dataset.x):
        under = folder / dataset.classes[int(dataset.y[i])] if dataset.y is not None else folder
        under.mkdir(parents=True, exist_ok=True)
        pixels = image.permute(1, 2, 0).numpy()
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(under / f"{i:05}.png")


def _drawn(rng: np.random.Generator, n: int, side: int, kinds: list[str],
           draw: Callable[[ImageDraw.ImageDraw, str, np.random.Generator, int], None]) -> Drawn:
    """n pictures, each drawn four times as large and reduced, on a light ground."""
    images, labels = [], []
    for i in range(n):
        ground = tuple(int(v) for v in rng.integers(215, 250, 3))
        picture = Image.new("RGB", (4 * side, 4 * side), ground)
        draw(ImageDraw.Draw(picture), kinds[i % len(kinds)], rng, 4 * side)
        images.append(np.asarray(picture.resize((side, side), Image.Resampling.BOX)))
        labels.append(kinds[i % len(kinds)])
    return np.stack(images), labels


def _colour(kind: str, rng: np.random.Generator) -> tuple[int, ...]:
    strong = {"red": (205, 45, 40), "blue": (45, 65, 200), "green": (40, 150, 60), "black": (25, 25, 25)}[kind]
    return tuple(int(np.clip(v + rng.integers(-20, 21), 0, 255)) for v in strong)


def _disc(pen: ImageDraw.ImageDraw, kind: str, rng: np.random.Generator, side: int) -> None:
    r = rng.uniform(0.15, 0.32) * side
    x, y = rng.uniform(r, side - r, 2)
    pen.ellipse((x - r, y - r, x + r, y + r), fill=_colour(kind, rng))


def _square(pen: ImageDraw.ImageDraw, kind: str, rng: np.random.Generator, side: int) -> None:
    a = rng.uniform(0.2, 0.5) * side
    x, y = rng.uniform(0, side - a, 2)
    pen.rectangle((x, y, x + a, y + a), fill=_colour(kind, rng))


def _stripes(pen: ImageDraw.ImageDraw, kind: str, rng: np.random.Generator, side: int) -> None:
    period, start = rng.uniform(0.15, 0.35) * side, rng.uniform(0, 1)
    colour = _colour(str(rng.choice(["red", "blue", "green"])), rng)
    for k in range(-1, 8):
        at = (k + start) * period
        box = (at, 0, at + period / 2, side) if kind == "upright" else (0, at, side, at + period / 2)
        pen.rectangle(box, fill=colour)


def _letters(pen: ImageDraw.ImageDraw, kind: str, rng: np.random.Generator, side: int) -> None:
    word = "".join(rng.choice(list("AEHKMNRSTX" if kind == "letters" else "0123456789"), 3))
    at = tuple(rng.uniform(0.02, 0.3, 2) * side)
    pen.text(at, word, fill=_colour("black", rng), font=ImageFont.load_default(size=0.38 * side))


def _gradients(rng: np.random.Generator) -> Drawn:
    """Smooth ramps between two colours, along x or y."""
    images, labels = [], []
    for i in range(800):
        a, b = rng.uniform(0, 255, (2, 3))
        ramp = np.linspace(0, 1, 40)[:, None, None] * np.ones((1, 40, 1))
        image = a + (b - a) * (ramp if i % 2 else ramp.transpose(1, 0, 2))
        images.append(image.round().astype(np.uint8))
        labels.append("down" if i % 2 else "across")
    return np.stack(images), labels


def _lines(rng: np.random.Generator) -> Drawn:
    """Outlines in black on white: circles, boxes, triangles and stars."""
    images, labels = [], []
    corners = {"circle": 40, "box": 4, "triangle": 3, "star": 10}
    for i in range(1200):
        kind = list(corners)[i % 4]
        n, (cx, cy), r, turn = corners[kind], rng.uniform(45, 83, 2), rng.uniform(25, 44), rng.uniform(0, 2 * np.pi)
        angles = turn + 2 * np.pi * np.arange(n) / n
        radii = np.where(np.arange(n) % 2, 0.45, 1.0) * r if kind == "star" else np.full(n, r)
        points = [(cx + a * np.cos(b), cy + a * np.sin(b)) for a, b in zip(radii, angles, strict=True)]
        picture = Image.new("L", (128, 128), 255)
        ImageDraw.Draw(picture).line([*points, points[0], points[1]], fill=0, width=7, joint="curve")
        images.append(np.asarray(picture.resize((32, 32), Image.Resampling.BOX))[..., None])
        labels.append(kind)
    return np.stack(images), labels


def _icons(side: int) -> Drawn:
    """Emoji without skin tones, on white, with their groups as classes."""
    _need(_FONT, "fonts-noto-color-emoji")
    _need(_NAMES, "unicode-data")
    font, images, labels, group = ImageFont.truetype(str(_FONT), _BITMAP), [], [], ""
    for line in _NAMES.read_text("utf-8").splitlines():
        if line.startswith("# group:"):
            group = line.split(":", 1)[1].strip().lower().replace(" & ", "-").replace(" ", "-")
        if "; fully-qualified" not in line or group in ("flags", "component") or "skin tone" in line:
            continue
        text = "".join(chr(int(code, 16)) for code in line.split(";")[0].split())
        picture = Image.new("RGB", (136, 128), "white")
        ImageDraw.Draw(picture).text((0, 0), text, font=font, embedded_color=True)
        images.append(np.asarray(picture.crop((4, 0, 132, 128)).resize((side, side), Image.Resampling.BOX)))
        labels.append(group)
    return np.stack(images), labels


def _flags(rng: np.random.Generator) -> Drawn:
    _need(_FLAGS, "iso-flags-png-320x240")
    pictures = [Image.open(file).convert("RGB") for file in sorted(_FLAGS.rglob("*.png"))]
    return np.stack([np.asarray(p.resize((32, 24), Image.Resampling.BOX)) for p in pictures]), ["flag"] * len(pictures)


def _photos(rng: np.random.Generator) -> Drawn:
    from sklearn.datasets import load_sample_images

    images, labels = [], []
    for name, photo in zip(("temple", "flower"), load_sample_images().images, strict=True):
        half = np.asarray(Image.fromarray(photo).reduce(2))
        for _ in range(1000):
            top, left = (int(rng.integers(0, n - 31)) for n in half.shape[:2])
            images.append(half[top:top + 32, left:left + 32])
            labels.append(name)
    return np.stack(images), labels


def _need(path: Path, package: str) -> None:
    if not path.exists():
        raise InputError(f"{path} is not there; install Debian's package {package}")


SETS: dict[str, Callable[[np.random.Generator], Drawn]] = {
    "discs": lambda rng: _drawn(rng, 800, 40, ["red", "blue"], _disc),
    "squares": lambda rng: _drawn(rng, 800, 40, ["red", "blue", "green"], _square),
    "stripes": lambda rng: _drawn(rng, 800, 40, ["upright", "level"], _stripes),
    "text": lambda rng: _drawn(rng, 800, 40, ["letters", "digits"], _letters),
    "gradients": _gradients,
    "lines": _lines,
    "icons32": lambda rng: _icons(32),
    "icons64": lambda rng: _icons(64),
    "flags": _flags,
    "photos": _photos,
}
