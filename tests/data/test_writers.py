"""Writers: what was written is read back exactly, and a failure leaves nothing behind."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from undiffuse.data import open_data, save_samples
from undiffuse.errors import InputError, MachineError
from undiffuse.random import Purpose, normal

POINTS = normal(0, Purpose.DATA, 9, 0, 30, (3,))
IMAGES = (normal(0, Purpose.DATA, 9, 0, 7, (1, 4, 6)) * 5 + 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_table_is_read_back_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    x = (POINTS.double() * math.pi).to(dtype)
    path = save_samples(tmp_path / "a.csv", x, columns=["a", "b, c", 'd"'], labels=torch.arange(30) % 2,
                        classes=["no", "yes"], label_name="kind")
    data = open_data(path, label="kind")
    assert torch.equal(data.x, x.float()) and data.columns == ("a", "b, c", 'd"')
    assert data.y is not None and data.y.tolist() == [0, 1] * 15 and data.classes == ("no", "yes")
    text = np.loadtxt(save_samples(tmp_path / "b.csv", x), delimiter=",", skiprows=1)
    assert np.array_equal(text.astype(x.numpy().dtype), x.numpy())


def test_an_array_is_the_samples(tmp_path: Path) -> None:
    assert np.array_equal(np.load(save_samples(tmp_path / "a.npy", POINTS)), POINTS.numpy())
    images = np.load(save_samples(tmp_path / "b.npy", IMAGES, levels=17))
    assert images.dtype == np.uint8
    assert np.array_equal(images, np.clip(np.rint(IMAGES.numpy()), 0, 16))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("n", [1, 2, 7, 9])
def test_a_picture_holds_every_image_at_its_place(tmp_path: Path, channels: int, n: int) -> None:
    x = torch.arange(n * channels * 24).reshape(n, channels, 4, 6) * 7 % 16
    picture = np.asarray(Image.open(save_samples(tmp_path / "a.png", x, levels=16)))
    assert (picture.ndim == 3) == (channels == 3)
    zoom, across = 5, math.ceil(math.sqrt(n))
    down = math.ceil(n / across)
    small = picture[zoom // 2::zoom, zoom // 2::zoom].reshape(down * 5 - 1, across * 7 - 1, channels)
    assert picture.shape[0] == zoom * small.shape[0] and picture.shape[1] == zoom * small.shape[1]
    for i in range(n):
        row, column = divmod(i, across)
        tile = small[row * 5:row * 5 + 4, column * 7:column * 7 + 6]
        assert np.array_equal(tile, x[i].permute(1, 2, 0).numpy() * 17)  # 255/(16−1) = 17 exactly
    inside = np.zeros_like(small)
    for i in range(n):
        row, column = divmod(i, across)
        inside[row * 5:row * 5 + 4, column * 7:column * 7 + 6] = 1
    assert (small[inside == 0] == 0).all()


REFUSALS: list[tuple[str, Tensor, dict[str, object], str]] = [
    ("a.gif", IMAGES, {}, ".png, .npy, .csv"), ("a", IMAGES, {}, ".png, .npy, .csv"),
    ("a.png", POINTS, {}, ".npy or .csv"), ("a.csv", IMAGES, {}, ".npy or .png"),
    ("a.png", IMAGES.expand(-1, 2, -1, -1), {}, "not images"), ("a.png", IMAGES[:0], {}, "not images"),
    ("a.png", torch.zeros(1, 1, 9000, 9000), {}, "too many"),
    ("a.npy", torch.where(POINTS[3, 1] == POINTS, math.nan, POINTS), {}, "1 of 30 samples are not finite, the first "
     "is number 3"), ("a.png", IMAGES / 0, {}, "7 of 7"),
    ("a.csv", POINTS, {"columns": ["a"]}, "1 names for 3 columns"),
    ("a.csv", POINTS, {"labels": torch.zeros(3)}, "expected one for each"),
    ("none/a.csv", POINTS, {}, "does not exist"), (".", POINTS, {}, ".png, .npy, .csv"),
    ("d.npy", POINTS, {}, "folder")]


@pytest.mark.parametrize(("name", "x", "options", "word"), REFUSALS)
def test_refusals_write_nothing(tmp_path: Path, name: str, x: Tensor, options: dict[str, object], word: str) -> None:
    (tmp_path / "d.npy").mkdir()
    with pytest.raises(InputError, match=r"^[^\n]+$") as caught:
        save_samples(tmp_path / name, x, **options)  # type: ignore[arg-type]
    assert word in str(caught.value) and os.listdir(tmp_path) == ["d.npy"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_keeps_the_old_file_and_leaves_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                            call: str) -> None:
    path = save_samples(tmp_path / "a.npy", POINTS)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(MachineError, match="No space left on device"):
        save_samples(path, POINTS + 1)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.npy"]


def test_the_name_appears_only_when_the_file_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    sync = os.fsync

    def look(handle: int) -> None:
        seen.append((tmp_path / "a.csv").exists())
        sync(handle)

    monkeypatch.setattr(os, "fsync", look)
    save_samples(tmp_path / "a.csv", POINTS)
    assert seen == [False] and os.listdir(tmp_path) == ["a.csv"]
