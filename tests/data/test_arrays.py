"""Arrays: what shape and type mean, and every refusal."""

from __future__ import annotations

import io
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from undiffuse.data import Dataset, from_arrays, open_data, validation
from undiffuse.errors import InputError

Refused = Callable[..., str]
IMAGES = (np.arange(6 * 4 * 5) * 2 % 256).astype(np.uint8).reshape(6, 4, 5)


def saved(tmp_path: Path, x: Any, name: str = "x.npy") -> Path:
    np.save(tmp_path / name, x)
    return tmp_path / name


def opened(tmp_path: Path, x: Any) -> Dataset:
    return open_data(saved(tmp_path, x))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f8", "i4", ">i8", "u1"])
def test_numbers_keep_their_values_whatever_the_type(tmp_path: Path, dtype: str) -> None:
    x = np.array([[1, 2], [3, 5], [6, 7]], dtype)
    data = opened(tmp_path, x)
    assert data.x.dtype == torch.float32 and data.x.tolist() == [[1, 2], [3, 5], [6, 7]]
    assert (data.kind, data.columns, data.y) == ("points", ("x1", "x2"), None)


@pytest.mark.parametrize("shape", [(30, 5), (30, 2), (30, 8, 8), (30, 1, 8, 8)], ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
@pytest.mark.parametrize("tensor", [False, True], ids=["array", "tensor"])
def test_an_array_may_change_after_its_data_were_opened(shape: tuple[int, ...], dtype: str, tensor: bool) -> None:
    x = (np.random.default_rng(0).random(shape) * (255 if dtype == "uint8" else 1)).astype(dtype)
    data = open_data(torch.from_numpy(x) if tensor else x)
    before = data.x.clone()
    x[...] = 7
    assert torch.equal(data.x, before)


def test_an_array_that_may_not_be_written_is_read_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    x = np.random.default_rng(0).random((30, 5))
    x.flags.writeable = False
    open_data(x)
    assert not recwarn.list


def test_the_kind_follows_from_shape_and_scale(tmp_path: Path) -> None:
    z = np.random.Generator(np.random.Philox(0)).normal(size=(40, 5))
    assert [opened(tmp_path, z[:, :d]).kind for d in (1, 2, 3, 4, 5)] == ["points"] * 3 + ["table"] * 2
    assert opened(tmp_path, z[:, 0]).shape == (1,)
    assert opened(tmp_path, z[:, :2] * [1, 1000]).kind == "table"  # one scale for both would lose the first
    constant = opened(tmp_path, np.concatenate([z[:, :1], np.full((40, 1), 0.1)], 1))
    assert constant.kind == "table" and constant.notes == ("1 constant column is stored and restored exactly (x2)",)


def test_images_are_told_by_their_axes(tmp_path: Path) -> None:
    data = opened(tmp_path, IMAGES)
    assert data.kind == "image" and torch.equal(data.x[:, 0], torch.from_numpy(IMAGES))
    colour = np.stack([IMAGES, IMAGES + 1, IMAGES + 2], -1)
    first, last = opened(tmp_path, colour.transpose(0, 3, 1, 2)), opened(tmp_path, colour)
    assert first.shape == (3, 4, 5) and torch.equal(first.x, last.x)


@pytest.mark.parametrize(("low", "note"), [(0, "floats in [0, 1]"), (-1, "floats in [-1, 1]")])
def test_float_images_are_rounded_to_their_level(tmp_path: Path, low: int, note: str) -> None:
    floats = (low + IMAGES * ((1 - low) / 255.0)).astype(np.float32)
    floats[0, 0, 0] = low
    data = opened(tmp_path, floats)
    expected = IMAGES.copy()
    expected[0, 0, 0] = 0
    assert torch.equal(data.x[:, 0], torch.from_numpy(expected)) and data.notes[0].startswith(note)


def test_whole_numbers_and_booleans_are_images_too(tmp_path: Path) -> None:
    assert torch.equal(opened(tmp_path, IMAGES.astype(np.int64)).x, opened(tmp_path, IMAGES).x)
    binary = opened(tmp_path, IMAGES > 100)
    assert binary.levels == 2 and torch.equal(binary.x[:, 0], torch.from_numpy((IMAGES > 100).astype(np.uint8)))


def test_the_middle_is_cut_out_and_nothing_else_if_the_size_fits(tmp_path: Path) -> None:
    data = open_data(saved(tmp_path, IMAGES), size=4)
    assert torch.equal(data.x[:, 0], torch.from_numpy(IMAGES[:, :, :4]))


@pytest.mark.parametrize("size", [3, 4, 16, 31])
def test_resampling_keeps_means_and_symmetry(size: int) -> None:
    ramp = np.tile(np.arange(20, 240, 30, dtype=np.uint8), (2, 8, 1))
    ramp[1] = ramp[1].T
    x = from_arrays(ramp, size=size).x.double()
    # A kernel that is symmetric and sums to one keeps the mean of a ramp and its point symmetry, up to rounding.
    assert (x.mean((1, 2, 3)) - 125).abs().max() < 1
    assert ((x + x.flip(2, 3)) - 250).abs().max() <= 1
    assert torch.equal(x[0], x[1].transpose(1, 2))


def test_fine_stripes_become_grey_and_not_coarse_stripes() -> None:
    stripes = np.tile(np.array([0, 240], np.uint8), (2, 21, 10))[:, :20]
    stripes[1] = stripes[1].T
    x = from_arrays(stripes, size=5).x.double()
    assert ((x - 120).abs() < 25).all()  # without the antialiasing kernel each pixel would be one stripe, or half


REFUSALS: list[tuple[str, Any, list[str]]] = [
    ("no rows", np.zeros((0, 2)), ["at least"]),
    ("one row", np.ones((1, 2)), ["1 sample", "at least 2"]),
    ("no columns", np.zeros((3, 0)), ["column"]),
    ("equal rows", np.ones((9, 2)), ["all 9 rows", "equal"]),
    ("equal images", np.ones((9, 2, 2), np.uint8), ["all 9 images", "equal"]),
    ("no images", np.ones((0, 2, 2), np.uint8), ["at least 2 images"]),
    ("only NaN", np.array([[1, 2, np.nan, 4], [5, 6, np.nan, 8.0]]), ["'x3'", "no value"]),
    ("an infinity", np.array([[1, 2], [-np.inf, 8.0]]), ["-inf", "row 2", "'x1'"]),
    ("one value and NaN", np.where(np.arange(24).reshape(2, 3, 4) == 17, np.nan, 0.5), ["all 2 samples", "equal"]),
    ("equal fields", np.ones((3, 8, 8, 4), np.uint8), ["all 3 samples", "equal"]),
    ("a scalar", np.float32(3), ["shape ()"]),
    ("six axes", np.ones((2, 3, 4, 5, 6, 7), np.uint8), ["shape (2, 3, 4, 5, 6, 7)"]),
    ("complex numbers", np.ones((3, 2), complex), ["complex128"]),
    ("words", np.array([["a"], ["b"]]), ["<U1"]),
    ("dates", np.array([["2020-01-01"], ["2021-01-01"]], "M8[D]"), ["datetime64"]),
    ("records", np.zeros(3, [("a", "f4"), ("b", "f4")]), ["expected numbers"]),
    ("identifiers", 2**53 + np.arange(40).reshape(20, 2), ["2^53", "subtract an offset"]),
    ("huge numbers", np.array([[1e300, 1], [2, 3]]), ["1e+300", "scale"]),
    ("tiny numbers", np.array([[1e-40], [2e-40]]), ["float32"]),
]


@pytest.mark.parametrize(("x", "words"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS])
def test_refusals_say_what_and_what_to_do(tmp_path: Path, refused: Refused, x: Any, words: list[str]) -> None:
    refused(saved(tmp_path, x), "x.npy", *words)


def test_objects_are_never_unpickled(tmp_path: Path, refused: Refused) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    np.save(tmp_path / "o.npy", np.array([Trap(), Trap()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "o.npz", x=np.array([Trap(), Trap()], dtype=object))
    for name in ("o.npy", "o.npz"):
        refused(tmp_path / name, "never loaded")
    assert not (tmp_path / "sprung").exists()


def test_a_table_of_pixels_gets_a_hint(tmp_path: Path) -> None:
    assert "(N, 5, 5)" in opened(tmp_path, np.arange(100, dtype=np.uint8).reshape(4, 25)).notes[0]


def npz(tmp_path: Path, **arrays: Any) -> Path:
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    return tmp_path / "a.npz"


@pytest.mark.parametrize("key", ["x", "arr_0", "images", "data", "x_train", "train_images"])
@pytest.mark.parametrize("label", ["y", "labels"])
def test_archives_hold_samples_and_labels_under_the_usual_names(tmp_path: Path, key: str, label: str) -> None:
    y = np.array([7, 3, 7, 3, 3, 3])
    data = open_data(npz(tmp_path, **{key: IMAGES, label: y, "other": np.ones(3)}))
    assert torch.equal(data.x[:, 0], torch.from_numpy(IMAGES))
    assert data.y is not None and data.classes == ("3", "7") and data.y.tolist() == [1, 0, 1, 0, 0, 0]


def test_an_archive_may_hold_both_parts(tmp_path: Path, refused: Refused) -> None:
    path = npz(tmp_path, x_train=IMAGES, y_train=np.arange(6), x_test=IMAGES[:3] + 1, y_test=np.array([[2], [1], [0]]))
    test = open_data(path, part="test")
    assert len(test) == 3 and test.y is not None and test.y.tolist() == [2, 1, 0]
    assert len(open_data(path)) == 6
    refused(npz(tmp_path, x=IMAGES), "x_test", part="test")


def test_the_key_of_the_labels_can_be_named(tmp_path: Path, refused: Refused) -> None:
    path = npz(tmp_path, x=IMAGES, kind=np.array(["b", "a", "b", "a", "a", "é"]), soft=np.ones((6, 3)) / 3)
    assert open_data(path).y is None
    assert open_data(path, label="kind").classes == ("a", "b", "é")
    refused(path, "did you mean 'kind'?", label="kinds")
    refused(path, "(6, 3)", "expected (6,)", label="soft")
    refused(npz(tmp_path, z=IMAGES), "'z'", "'arr_0'")
    refused(npz(tmp_path, x=IMAGES, y=np.arange(6) + 0.5), "float64", "whole numbers")
    refused(npz(tmp_path, x=IMAGES, y=np.arange(5)), "(5,)")


def test_labels_that_never_repeat_are_identifiers() -> None:
    with pytest.raises(InputError, match="40 different values in 40 rows"):
        from_arrays(np.arange(80.0).reshape(40, 2), np.arange(40))


def test_a_header_that_promises_terabytes_is_refused_at_once(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "big.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)})
        file.write(bytes(1000))
    began = time.perf_counter()
    tracemalloc.start()
    refused(path, "promises 8,000,000,000,000 bytes", "1,")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20 and time.perf_counter() - began < 1


def test_an_archive_that_unpacks_to_much_is_refused_before_it_is_read(tmp_path: Path, refused: Refused,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    path = npz(tmp_path, x=np.zeros((1000, 1000)), other=np.zeros(10))
    monkeypatch.setattr(validation, "_MAX_UNPACKED", 1 << 20)
    tracemalloc.start()
    refused(path, "would unpack to 8,000,3", "without compression")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_member_whose_header_lies_is_refused(tmp_path: Path, refused: Refused) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 3)})
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(100))
    refused(tmp_path / "lie.npz", "x.npy in", "promises 24,000,000,000 bytes")


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04", b"hello, world" * 99, bytes(5000)])
def test_broken_files_are_refused(tmp_path: Path, refused: Refused, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, name, "cannot be read")


def test_paths_of_every_kind(tmp_path: Path, refused: Refused) -> None:
    folder = tmp_path / "mes données 数据"
    folder.mkdir()
    assert len(opened(folder, IMAGES)) == 6
    (folder / "no\nnumbers.npy").write_bytes(b"?")
    refused(folder / "no\nnumbers.npy", "no\\nnumbers")
    refused(folder / "y.npy", "did you mean", "x.npy")
    refused(str(folder / ("a" * 5000)), "neither a path")
    refused("x\0y.npy", "neither a path")
    refused("", "neither a path")
    (folder / "loop.npy").symlink_to(folder / "loop.npy")
    refused(folder / "loop.npy", "neither a path")
    (folder / "notes.rtf").write_text("hello")
    refused(folder / "notes.rtf", "unknown type", ".npz")
    refused("/dev/null", "neither a file nor a folder")
