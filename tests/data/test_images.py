"""Folders of images: modes, sizes, labels, and refusals that name the file."""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from undiffuse.data import lazy, open_data
from undiffuse.data.pixel_units import PixelUnits
from undiffuse.data.sources import read_images
from undiffuse.errors import InputError

Refused = Callable[..., str]


def pixels(i: int, height: int = 6, width: int = 6, channels: int = 1) -> np.ndarray:
    x = (np.arange(height * width * channels) * (i + 3) * 7 % 256).astype(np.uint8)
    return x.reshape(height, width, channels).squeeze(-1) if channels == 1 else x.reshape(height, width, channels)


def write(path: Path, image: np.ndarray | Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)
    return path


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", ["png", "bmp", "PNG"])
def test_lossless_files_come_back_exactly(tmp_path: Path, channels: int, suffix: str) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.{suffix}", pixels(i, 5, 7, channels))
    data = open_data(tmp_path)
    expected = np.stack([pixels(i, 5, 7, channels).reshape(5, 7, channels).transpose(2, 0, 1) for i in range(3)])
    assert torch.equal(data.x, torch.from_numpy(expected)) and data.y is None and data.levels == 256


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp"])
def test_lossy_files_come_back_nearly(tmp_path: Path, suffix: str) -> None:
    ramp = np.tile(np.arange(0, 128, 8, dtype=np.uint8), (16, 1))
    for i in range(2):
        write(tmp_path / f"{i}.{suffix}", np.stack([ramp + 50 * i] * 3, -1))
    x = open_data(tmp_path).x.double()
    assert (x[0, 0] - torch.from_numpy(ramp)).abs().max() < 8 and (x[1] - x[0] - 50).abs().max() < 8


def test_sub_folders_are_labels(tmp_path: Path) -> None:
    for i, name in enumerate(["10", "9", "9", "katze ü", "10/deeper"]):
        write(tmp_path / name / f"{i}.png", pixels(i))
    data = open_data(tmp_path)
    assert data.classes == ("9", "10", "katze ü") and data.y is not None
    for image, label in zip(data.x, data.y, strict=True):
        i = next(i for i in range(5) if np.array_equal(image[0].numpy(), pixels(i)))
        assert data.classes[label] == ["10", "9", "9", "katze ü", "10"][i]


def test_train_and_test_folders_are_parts_and_no_labels(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for i in range(2 + (part == "train")):
            write(tmp_path / part / f"c{i % 2}" / f"{i}.png", pixels(i))
    assert (len(open_data(tmp_path)), len(open_data(tmp_path, part="test"))) == (3, 2)
    assert open_data(tmp_path).classes == ("c0", "c1")


def test_what_loses_nothing_is_converted_and_noted(tmp_path: Path) -> None:
    base = Image.fromarray(pixels(1, channels=3))
    opaque = base.convert("RGBA")
    write(tmp_path / "a.png", base)
    write(tmp_path / "b.png", opaque)
    write(tmp_path / "c.png", Image.fromarray(pixels(2, channels=3) // 64 * 64).convert("P"))
    data = open_data(tmp_path)
    assert torch.equal(data.x[0], data.x[1]) and data.shape == (3, 6, 6)
    assert set(data.notes) == {"mode P was converted to RGB (1 of 3 images)",
                              "mode RGBA was converted to RGB (1 of 3 images)"}


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_put_on_white_and_this_is_noted(tmp_path: Path, mode: str) -> None:
    both = pixels(1, 5, 7, channels=len(mode))
    write(tmp_path / "a.png", Image.fromarray(both, mode))
    write(tmp_path / "b.png", pixels(0, 5, 7, 3 if mode == "RGBA" else 1))
    share = both[..., -1:] / 255
    expected = both[..., :-1] * share + 255 * (1 - share)
    data = open_data(tmp_path)
    assert np.abs(data.x[0].permute(1, 2, 0).numpy() - expected).max() <= 1
    assert data.notes == ("transparent pixels were put on white (1 of 2 images)",)


def test_a_transparent_palette_and_a_turned_camera(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(2):
        palette.save(tmp_path / f"{i}.png", transparency=1 + i, exif=exif)
    upright = torch.tensor([[70, 10], [255, 255], [10, 70]], dtype=torch.uint8)
    assert torch.equal(open_data(tmp_path).x[0, 0], upright)


def test_bilevel_images_are_grey(tmp_path: Path) -> None:
    for i in range(2):
        write(tmp_path / f"{i}.png", Image.fromarray(pixels(i) > 99))
    assert torch.equal(open_data(tmp_path).x[1, 0], torch.from_numpy((pixels(1) > 99).astype(np.uint8) * 255))


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    for i in range(2):
        Image.fromarray(pixels(i, 4, 6)).save(tmp_path / f"{i}.png", exif=exif)
    assert torch.equal(open_data(tmp_path).x[0, 0], torch.from_numpy(np.rot90(pixels(0, 4, 6), -1).copy()))


def test_size_makes_all_alike(tmp_path: Path, refused: Refused) -> None:
    write(tmp_path / "a.png", pixels(0, 6, 6))
    write(tmp_path / "b.png", pixels(1, 8, 6))
    refused(tmp_path, "a.png", "b.png", "6x8", "6x6", "size=")
    data = open_data(tmp_path, size=6)
    assert torch.equal(data.x[1, 0], torch.from_numpy(pixels(1, 8, 6)[1:7]))  # the centre square, not resampled


def test_refusals_name_the_file(tmp_path: Path, refused: Refused) -> None:
    cases = {"la.png": (Image.fromarray(pixels(1)).convert("LA"), None),
             "deep.png": (Image.fromarray(pixels(1).astype(np.uint16) * 250), ["I;16", "8-bit"]),
             "cmyk.jpg": (Image.fromarray(pixels(1, channels=4), "CMYK"), ["CMYK"]),
             "rgb.png": (Image.fromarray(pixels(1, channels=3)), ["is RGB", "a.png' is grey"])}
    for name, (image, words) in cases.items():
        folder = tmp_path / name.replace(".", "_")
        write(folder / "a.png", pixels(0))
        write(folder / name, image)
        if words is None:
            assert len(open_data(folder)) == 2
        else:
            refused(folder, name, *words)


def test_refusals_of_folders(tmp_path: Path, refused: Refused) -> None:
    refused(tmp_path, "holds no images", ".png")
    write(tmp_path / "a.png", pixels(0))
    refused(tmp_path, "1 sample;")
    write(tmp_path / "b.png", pixels(0))
    refused(tmp_path, "all 2 images", "equal")
    write(tmp_path / "sub" / "c.png", pixels(1))
    refused(tmp_path, "sub-folders", "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:-30])
    refused(tmp_path, "b.png", "cannot be read as an image")
    (tmp_path / "b.png").unlink()
    (tmp_path / "b.png").symlink_to(tmp_path / "missing.png")
    refused(tmp_path, "there is no file", "b.png")


def test_other_files_are_left_out_and_loops_end(tmp_path: Path) -> None:
    for i in range(2):
        write(tmp_path / "a" / f"{i}.png", pixels(i))
        write(tmp_path / "b" / f"{i}.png", pixels(i + 2))
    (tmp_path / "a" / "readme.txt").write_text("hello")
    write(tmp_path / ".thumbnails" / "0.png", pixels(9))
    os.symlink(tmp_path, tmp_path / "b" / "again")
    data = open_data(tmp_path)
    assert len(data) == 4 and data.notes == ("files that are not images of these types were left out (1 .txt)",)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@pytest.mark.parametrize("side", [12_000, 100_000, 2**31 - 1])
@pytest.mark.parametrize("size", [None, 8])
def test_enormous_images_are_refused_before_they_are_decoded(tmp_path: Path, refused: Refused, side: int,
                                                             size: int | None) -> None:
    write(tmp_path / "a.png", pixels(0))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b""))
    began = time.perf_counter()
    refused(tmp_path, "b.png", "pixels", size=size)
    assert time.perf_counter() - began < 1


def test_a_large_folder_is_decoded_when_it_is_asked_for(tmp_path: Path, refused: Refused,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows in any order are those of the same folder read at once; a file that is broken is named when it is met."""
    for i in range(5):
        write(tmp_path / "ab"[i % 2] / f"{i}.png", pixels(i))
    whole = open_data(tmp_path)
    monkeypatch.setattr(lazy, "LARGE", 100)
    data = open_data(tmp_path)
    assert isinstance(data.x, lazy.Lazy) and data.shape == whole.shape and data.classes == whole.classes
    index = torch.tensor([4, 0, 0, 2])
    assert torch.equal(data.x[index], whole.x[index]) and torch.equal(data.y, whole.y)
    assert torch.equal(data.x[1:3], whole.x[1:3]) and torch.equal(data.x[3], whole.x[3])
    train, held = data.split(2)
    again, other = whole.split(2)
    assert torch.equal(train.x[:], again.x) and torch.equal(held.x[:], other.x)
    train.x.prefetch(torch.tensor([2, 1]))
    assert torch.equal(train.x[torch.tensor([2, 1])], again.x[[2, 1]])
    assert data.fingerprint() == open_data(tmp_path).fingerprint() != whole.fingerprint()
    (tmp_path / "a" / "4.png").write_bytes(b"\x89PNG broken")
    assert data.fingerprint() != train.fingerprint()
    with pytest.raises(InputError, match=r"4\.png"):
        data.x[:]


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_pictures_of_16_bits_are_an_array_of_whole_numbers(ending: str, tmp_path: Path) -> None:
    x = (np.arange(5 * 6 * 4).reshape(5, 6, 4) * 500 + 300).astype(np.uint16)
    folder = tmp_path / "deep"
    folder.mkdir()
    for k, picture in enumerate(x):
        Image.fromarray(picture).save(folder / f"{k}.{ending}")
    data, expected = open_data(folder), open_data(x)
    assert torch.equal(data.x[:], expected.x[:]) and data.units == expected.units and data.units is not None
    assert "16 bits" in " ".join(data.notes) and data.units.dtype == "uint16"
    for source in (folder, folder / f"1.{ending}"):
        levels, _ = read_images(str(source), data.units, 1)
        wanted = x if source is folder else x[1:2]
        assert np.array_equal(data.units.array(levels)[:, 0], wanted)
    assert open_data(folder, size=4).x[:].shape == (5, 1, 4, 4)
    with pytest.raises(InputError, match="16 bits per pixel for a run on 256 levels"):
        read_images(str(folder), PixelUnits(), 1)
    Image.fromarray((x[0] % 256).astype(np.uint8)).save(folder / f"9.{ending}")
    with pytest.raises(InputError, match=r"9\..* has 8 bits per pixel"):
        open_data(folder)
