"""Arrays that are neither tables nor pictures: what is read, what is refused, and the way back to the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from undiffuse.data import describe, open_data, save_samples
from undiffuse.errors import InputError

RNG = np.random.Generator(np.random.Philox(1))
FIELD = RNG.normal(size=(20, 6, 9)) * 4
BYTES = (RNG.random((20, 6, 6)) * 255).astype(np.uint8)


@pytest.mark.parametrize(("x", "kind", "layout"), [
    (FIELD, "array", "NHW"), (FIELD[..., :2], "array", "NTC"), (FIELD[:, :2], "array", "NCT"),
    (np.repeat(FIELD[..., None], 4, 3), "array", "NHWC"), (BYTES, "image", None),
    (BYTES.astype(np.float32) / 255, "image", None), (FIELD / 99, "image", None),
    (FIELD[..., :2] / 99, "array", "NTC"),
    (np.stack([BYTES] * 3, 1), "image", None), (np.stack([BYTES] * 2, 1), "array", "NCHW"),
    (np.stack([FIELD / 99] * 3, 1), "image", None), ((FIELD * 900).astype(np.int16)[..., :3], "array", "NTC"),
    (np.stack([FIELD] * 8, 1), "array", "NDHW"), (np.stack([np.stack([FIELD] * 8, 1)] * 2, 1), "array", "NCDHW"),
])
def test_pictures_stay_pictures_and_everything_else_is_an_array(x: Any, kind: str, layout: str | None) -> None:
    data = open_data(x)
    assert (data.kind, data.array and data.array.layout) == (kind, layout)
    if layout:
        assert f"in the layout {layout}" in data.notes[0] and "--layout" in data.notes[0]
        assert torch.equal(data.x, torch.tensor(x).float()) and data.array and data.array.dtype == str(x.dtype)


def test_a_layout_that_is_said_decides(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", FIELD / 99)
    data = open_data(tmp_path / "x.npy", layout="ntc", channels=[f"v{i}" for i in range(9)])
    assert data.array and data.array.layout == "NTC" and data.columns[8] == "v8" and not data.notes
    assert describe(data) == "20 arrays of 9 channels of 6 (x.npy)"
    assert open_data(FIELD.reshape(20, -1), layout="NT").shape == (54,)
    assert "--layout NT reads" in " ".join(open_data(FIELD.reshape(20, -1)).notes)
    assert open_data(BYTES, layout="NHW").kind == "image" and open_data(FIELD / 99, layout="NHW").kind == "array"
    assert "--layout NHW reads them as real numbers" in open_data(FIELD / 99).notes[0]


def test_missing_values_are_counted_and_float64_is_kept_where_it_says_more() -> None:
    x = FIELD.copy()
    x[0, 0, :5] = np.nan
    data = open_data(x)
    assert int(data.x.isnan().sum()) == 5 and "5 of 1,080 values are missing" in data.notes[-1]
    assert data.x.dtype == torch.float32 and open_data(x + 1e7).x.dtype == torch.float64


@pytest.mark.parametrize(("x", "options", "expected"), [
    (FIELD[:1], {}, "at least 2"), (np.zeros((3, 4, 0)), {}, "at least"), (FIELD * 0 + 1.5, {}, "are equal"),
    (np.where(FIELD > 8, np.inf, FIELD), {}, "expected finite"), (FIELD * 1e31, {}, "scale them"),
    (FIELD * np.nan, {}, "no value"), (np.where(np.arange(9) == 3, np.nan, FIELD), {"layout": "NTC"}, "channel c4"),
    (FIELD, {"layout": "NHWC"}, "one letter per axis"), (FIELD, {"channels": ["a", "b"]}, "2 names"),
    (FIELD[None, None, None], {}, "axes of space"), (FIELD[:, 0], {"channels": ["a"]}, "leave it out"),
    (FIELD.astype(complex), {}, "numbers"), (FIELD, {"key": "x"}, "key"),
])
def test_what_cannot_be_learned_is_refused_in_a_sentence(x: Any, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        open_data(x, **options)


def test_an_array_is_chosen_by_its_key(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", u=FIELD, v=FIELD[..., :2], y=np.arange(20) % 2)
    assert open_data(tmp_path / "x.npz", key="v").shape == (6, 2)
    assert open_data(tmp_path / "x.npz", key="u").classes == ("0", "1")
    with pytest.raises(InputError, match="no array called"):
        open_data(tmp_path / "x.npz", key="w")


@pytest.mark.parametrize("dtype", ["float64", "float32", "int16", "float16"])
def test_samples_are_written_in_the_type_of_the_data(tmp_path: Path, dtype: str) -> None:
    x = (FIELD * 100).astype(dtype)
    data = open_data(x, layout="NHW")
    save_samples(tmp_path / "s.npy", data.x, array=data.array)
    written = np.load(tmp_path / "s.npy")
    assert written.dtype == x.dtype and np.allclose(written, x, rtol=1e-6)
    with pytest.raises(InputError, match=r"ends in \.npy"):
        save_samples(tmp_path / "s.csv", data.x, array=data.array)
