"""Arrays that stay on the disk give the rows that they give in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from undiffuse.data import lazy, open_data, save_samples
from undiffuse.data.lazy import StoredArray
from undiffuse.random import Purpose, normal, raw_words


@pytest.mark.parametrize("shape", [(20, 3, 4, 5), (20, 4, 5, 3), (20, 4, 5), (20, 1, 4, 5)])
def test_a_large_npy_of_images_is_read_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                  shape: tuple[int, ...]) -> None:
    pixels = (raw_words(1, Purpose.DATA, 9, 0, int(np.prod(shape))) >> np.uint64(56)).astype(np.uint8).reshape(shape)
    np.save(tmp_path / "x.npy", pixels)
    whole = open_data(tmp_path / "x.npy")
    monkeypatch.setattr(lazy, "LARGE", 100)
    data = open_data(tmp_path / "x.npy")
    assert isinstance(data.x, lazy.Lazy) and tuple(data.x.shape) == tuple(whole.x.shape)
    for index in (torch.tensor([19, 3, 4, 5, 0, 0]), slice(2, 9), slice(None), torch.tensor([], dtype=torch.int64)):
        assert torch.equal(data.x[index], whole.x[index])
    first, second = data.split(7), whole.split(7)
    assert all(torch.equal(a.x[:], b.x) for a, b in zip(first, second, strict=True))
    before = data.fingerprint()
    np.save(tmp_path / "x.npy", pixels ^ 1)
    assert before != open_data(tmp_path / "x.npy").fingerprint()


def test_floats_and_transposed_arrays_are_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "LARGE", 10)
    pixels = np.arange(96, dtype=np.uint8).reshape(2, 3, 4, 4)
    np.save(tmp_path / "f.npy", pixels / 255)
    np.save(tmp_path / "t.npy", np.asfortranarray(pixels))
    for name in ("f.npy", "t.npy"):
        x = open_data(tmp_path / name).x
        assert isinstance(x, torch.Tensor) and torch.equal(x, torch.from_numpy(pixels))


@given(rows=st.lists(st.integers(0, 9), max_size=12))
def test_any_choice_of_rows(tmp_path_factory: pytest.TempPathFactory, rows: list[int]) -> None:
    x = normal(2, Purpose.DATA, 8, 0, 10, (3,))
    path = tmp_path_factory.getbasetemp() / "rows"
    path.write_bytes(b"abc" + x.numpy().tobytes())
    assert torch.equal(StoredArray(path, 3, (3,), torch.float32, 10)[torch.tensor(rows, dtype=torch.int64)], x[rows])


@pytest.mark.parametrize("ending", [".npy", ".csv"])
def test_rows_on_the_disk_are_saved_as_those_in_memory_are(tmp_path: Path, ending: str,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    from undiffuse.data import writers

    x = normal(2, Purpose.DATA, 8, 0, 50, (3,))
    (tmp_path / "rows").write_bytes(x.numpy().tobytes())
    labels = torch.arange(50) % 2
    save_samples(tmp_path / f"memory{ending}", x, labels=labels if ending == ".csv" else None, classes=("u", "v"))
    monkeypatch.setattr(writers, "_PART", 21)
    save_samples(tmp_path / f"disk{ending}", StoredArray(tmp_path / "rows", 0, (3,), torch.float32, 50),
                 labels=labels if ending == ".csv" else None, classes=("u", "v"))
    assert (tmp_path / f"disk{ending}").read_bytes() == (tmp_path / f"memory{ending}").read_bytes()
    if ending == ".npy":
        np.save(tmp_path / "numpy.npy", x.numpy())
        assert (tmp_path / "numpy.npy").read_bytes() == (tmp_path / "disk.npy").read_bytes()
