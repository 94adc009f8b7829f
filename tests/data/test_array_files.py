"""Arrays in folders, containers and files that stay on the disk: the same data as in one array in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import wavfile

import undiffuse as ud
from undiffuse.data import lazy, open_data
from undiffuse.errors import InputError

RNG = np.random.Generator(np.random.Philox(2))
X = (RNG.normal(size=(12, 30, 2)) * 5).astype(np.float32)


def folder_of(path: Path, save: Callable[[Path, Any], Any], names: list[str], x: Any = X) -> Path:
    for name, row in zip(names, x, strict=True):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        save(path / name, row)
    return path


NPY = [f"{k:02}.npy" for k in range(12)]


def test_one_sample_per_file_and_folders_are_labels(tmp_path: Path) -> None:
    data = open_data(folder_of(tmp_path / "a", np.save, NPY))
    assert data.array and data.array.layout == "NTC" and torch.equal(data.x, torch.tensor(X)) and data.y is None
    names = [f"{'bc'[k // 6]}/{k:02}.npz" for k in range(12)]
    labelled = open_data(folder_of(tmp_path / "l", lambda p, v: np.savez(p, u=v, v=-v), names), key="v")
    assert torch.equal(labelled.x, -torch.tensor(X)) and labelled.classes == ("b", "c")
    assert labelled.y is not None and labelled.y.tolist() == [0] * 6 + [1] * 6


def test_files_of_several_samples_are_joined_where_the_layout_says_so(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, np.save, ["1.npy", "2.npy"], X.reshape(2, 6, 30, 2))
    assert open_data(folder, layout="NTC").shape == (30, 2) and len(open_data(folder, layout="NTC")) == 12
    assert open_data(folder, layout="NDHW").shape == (6, 30, 2) and len(open_data(folder, layout="NDHW")) == 2


def test_sounds_are_cut_to_the_shortest_and_say_their_rate(tmp_path: Path) -> None:
    sounds = (X * 1000).astype(np.int16)
    for k, sound in enumerate(sounds):
        wavfile.write(tmp_path / f"{k:02}.wav", 8000, sound[: 30 - k % 3])
    data = open_data(tmp_path)
    assert torch.equal(data.x, torch.tensor(sounds[:, :28]).float()) and data.array and data.array.dtype == "int16"
    assert "12 sounds of 8,000 samples per second, cut to the shortest of 28" in data.notes[0]
    wavfile.write(tmp_path / "99.wav", 16000, sounds[0])
    with pytest.raises(InputError, match="expected one rate"):
        open_data(tmp_path)


@pytest.mark.parametrize("ending", ["h5", "zarr"])
def test_an_array_in_a_container(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x.{ending}"
    package = pytest.importorskip({"h5": "h5py", "zarr": "zarr"}[ending])
    root = package.File(path, "w") if ending == "h5" else package.open_group(str(path), mode="w")
    group = root.create_group("run")
    for name, value in (("u", X), ("v", X[..., 0]), ("y", np.arange(12) % 3)):
        group.create_dataset(name, data=value) if ending == "h5" else group.create_array(name, data=value)
    if ending == "h5":
        root.close()
    data = open_data(path, key="run/u", label="run/y")
    assert torch.equal(data.x, torch.tensor(X)) and data.classes == ("0", "1", "2")
    with pytest.raises(InputError, match="--key NAME"):
        open_data(path)
    with pytest.raises(InputError, match="no array called 'run/w'"):
        open_data(path, key="run/w")


def test_files_of_another_shape_or_type_are_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, np.save, NPY)
    np.save(folder / "05.npy", X[5].astype(np.float64))
    with pytest.raises(InputError, match=r"05\.npy.*float64.*expected one shape and type"):
        open_data(folder)
    (folder / "05.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match=r"05\.npy.*cannot be read"):
        open_data(folder)


@pytest.mark.parametrize("kind", ["float32", "float64", "int16"])
@pytest.mark.parametrize("in_folder", [False, True], ids=["file", "folder"])
def test_large_arrays_stay_on_the_disk_and_train_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                kind: str, in_folder: bool) -> None:
    x = (X * 100).astype(kind)
    if kind != "int16":
        x[3, 4, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    source = folder_of(tmp_path / "f", np.save, NPY, x) if in_folder else tmp_path / "x.npy"
    small: dict[str, Any] = {"layout": "NTC", "steps": 2, "batch_size": 4, "held_out": 3, "progress": False}
    direct = ud.train(x, tmp_path / "a", **small)
    monkeypatch.setattr(lazy, "LARGE", 100)
    data = open_data(source, layout="NTC")
    assert isinstance(data.x, lazy.Lazy) and "as they are needed" in data.notes[-1]
    assert data.array and data.array.dtype == kind
    stored = ud.train(source, tmp_path / "b", **small)
    assert stored.transform == direct.transform
    if kind == "int16":  # without missing values, which are filled batch by batch
        for a, b in zip(stored.parameters(), direct.parameters(), strict=True):
            assert torch.equal(a, b)
