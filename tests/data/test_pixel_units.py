"""Arrays and pictures in the units of a run: training, restoration and samples read and write the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from undiffuse.data import open_data, save_samples
from undiffuse.data.pixel_units import PixelUnits
from undiffuse.data.sources import read_images
from undiffuse.errors import InputError

RAMP = np.arange(96).reshape(6, 4, 4)
ARRAYS: list[tuple[np.ndarray, PixelUnits]] = [
    ((RAMP * 255 // 95).astype(np.uint8), PixelUnits("uint8", 0, 255, 256)),
    ((RAMP % 5 // 4).astype(np.int64), PixelUnits("uint8", 0, 1, 2)),
    ((RAMP / 95).astype(np.float32), PixelUnits("float32", 0, 1, 256)),
    ((RAMP / 95 * 2 - 1).astype(np.float64), PixelUnits("float32", -1, 1, 256)),
    ((RAMP * 680).astype(np.uint16), PixelUnits("uint16", 0, 95 * 680, 95 * 680 + 1)),
    ((RAMP * 31 - 1000).astype(np.int16), PixelUnits("int16", -1000, 1945, 2946)),
]


@pytest.mark.parametrize(("x", "units"), ARRAYS)
def test_training_and_further_images_have_the_same_levels_and_samples_the_same_units(
        tmp_path: Path, x: np.ndarray, units: PixelUnits) -> None:
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "one.npy", x[:1])
    data = open_data(tmp_path / "x.npy")
    assert data.units == units and PixelUnits.from_config({"units": units.config()}) == units
    again, notes = read_images(str(tmp_path / "one.npy"), units, 1)
    assert (again - data.x[:1]).abs().max() <= 0.5 and len(notes) == (x.dtype.kind == "f" and units.dtype == "uint8")
    written = np.load(save_samples(tmp_path / "s.npy", data.x.float(), units=units))
    assert written.dtype == units.dtype and np.abs(written[:, 0] - x).max() <= (units.step / 2 if x.dtype.kind == "f"
                                                                                else 0)


def test_values_beyond_the_training_data_and_gaps_are_kept() -> None:
    units = PixelUnits("float32", -1, 1, 256)
    x, _ = units.read(np.array([[[[-1.5, np.nan], [0.0, 1.0]]]]))
    assert x[0, 0].nan_to_num(7).tolist() == [[-63.75, 7], [127.5, 255]]


def test_bytes_for_a_run_on_floats_and_floats_for_a_run_on_bytes() -> None:
    x = np.array([[[0, 51], [102, 255]]], np.uint8)
    levels, notes = PixelUnits("float32", 0, 1, 256).read(x)
    assert torch.equal(levels, torch.from_numpy(x)[:, None].double()) and "as bytes" in notes[0]
    levels, notes = PixelUnits().read(x / 255)
    assert torch.allclose(levels, torch.from_numpy(x)[:, None].double()) and "floats in [0, 1]" in notes[0]
    assert PixelUnits().read(x.astype(np.float64))[1] == []


def test_colours_become_luminance_grey_becomes_colour_and_larger_pictures_are_resampled(tmp_path: Path) -> None:
    red = np.zeros((2, 6, 8, 3), np.uint8)
    red[..., 0] = 200
    np.save(tmp_path / "x.npy", red)
    grey, notes = read_images(str(tmp_path / "x.npy"), PixelUnits(), 1, size=4)
    assert grey.shape == (2, 1, 4, 4) and (grey - 0.299 * 200).abs().max() <= 0.5 and "3 channels" in notes[0]
    Image.fromarray(red[0, :, :, 0]).save(tmp_path / "a.png")
    colour, _ = read_images(str(tmp_path / "a.png"), PixelUnits("uint8", 0, 15, 16), 3)
    assert colour.shape == (1, 3, 6, 8) and torch.allclose(colour, torch.full_like(colour, 200 * 15 / 255))
    with pytest.raises(InputError, match=r"there is no file 'c\.png'"):
        read_images("c.png", PixelUnits(), 1)


def test_more_than_65536_levels_are_an_array(tmp_path: Path, refused: Any) -> None:
    np.save(tmp_path / "x.npy", RAMP * 1000 - 7)
    assert open_data(tmp_path / "x.npy").kind == "array"
    refused(tmp_path / "x.npy", "65,536 levels", size=2)


FOLDERS: list[tuple[list[str], str, int, tuple[str, ...]]] = [
    (["train/cat", "train/dog", "val/cat", "val/dog"], "train", 4, ("cat", "dog")),
    (["train/cat", "train/dog", "val/cat"], "test", 2, ("cat",)),
    (["Training/a", "Testing/a", "Testing/b"], "test", 4, ("a", "b")),
    (["TRAIN/a", "TRAIN/b", "valid/a", "test/b"], "test", 2, ("b",)),
    (["pictures/a", "pictures/b"], "train", 4, ("a", "b")),
    (["outer/train/a", "outer/validation/a", "outer/train/b"], "train", 4, ("a", "b")),
    (["train/a", "other/a"], "train", 4, ("other", "train")),
    (["a", "b", "val"], "train", 6, ("a", "b", "val")),
]


@pytest.mark.parametrize(("folders", "part", "count", "classes"), FOLDERS)
def test_folders_of_parts_are_not_classes(tmp_path: Path, folders: list[str], part: str, count: int,
                                          classes: tuple[str, ...]) -> None:
    for k, name in enumerate(folders):
        (tmp_path / name).mkdir(parents=True)
        for i in range(2):
            Image.fromarray((np.arange(36).reshape(6, 6) * (5 + i + 2 * k)).astype(np.uint8)).save(
                tmp_path / name / f"{i}.png")
    data = open_data(tmp_path, part=part)
    assert (len(data), data.classes) == (count, classes)


def test_tiff_and_gif_are_read_and_other_endings_are_named(tmp_path: Path, refused: Any) -> None:
    picture = Image.fromarray(np.arange(108, dtype=np.uint8).reshape(6, 6, 3))
    picture.save(tmp_path / "a.tif")
    Image.fromarray(np.full((6, 6), 9, np.uint8)).save(tmp_path / "b.gif")
    assert open_data(tmp_path).x[:, 0, 0, :2].tolist() == [[0, 3], [9, 9]]
    for k in range(3):
        (tmp_path / f"{k}.dcm").write_bytes(b"x")
    refused(tmp_path, "3 .dcm", "move them away")
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "a.heic").write_bytes(b"x")
    refused(tmp_path / "only", "holds no images (1 .heic)")
    picture.save(tmp_path / "film.gif", save_all=True, append_images=[Image.fromarray(np.zeros((6, 6), np.uint8))])
    (tmp_path / "2.dcm").unlink()
    refused(tmp_path, "holds 2 pictures")


def test_broken_and_odd_pictures_are_left_out_on_request(tmp_path: Path, refused: Any) -> None:
    for k in range(4):
        Image.fromarray((np.arange(36).reshape(6, 6) * (k + 2)).astype(np.uint8)).save(tmp_path / f"{k}.png")
    (tmp_path / "4.png").write_bytes((tmp_path / "0.png").read_bytes()[:50])
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "0a.png")
    refused(tmp_path)
    data = open_data(tmp_path, skip_broken=True)
    assert len(data) == 4 and "(2: " in data.notes[-1] and "4.png" in data.notes[-1]
