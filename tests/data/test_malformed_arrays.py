"""Hundreds of strange and broken arrays: each gives a recipe or one line of InputError, and never anything else."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import wavfile

from undiffuse.data import open_data
from undiffuse.errors import InputError
from undiffuse.recipes import for_data

LAYOUTS = [None, "NT", "NTC", "NCT", "NHW", "NHWC", "NCHW", "NDHW", "NCDHW", "CNT", "NN", "NCTDHW", "é", "NXYZ"]
TYPES = ["float32", "float64", "float16", ">f8", "int8", "uint8", "int16", "uint16", "int64", "bool", "complex64", "U3",
         "M8[D]", "O"]


def strange(seed: int) -> tuple[Any, dict[str, Any]]:
    """An array of a random shape, type and kind of trouble, and options that may not fit it."""
    rng = np.random.Generator(np.random.Philox(seed))
    sizes = rng.choice([0, 1, 2, 3, 5, 8], rng.integers(0, 7), p=[.02, .08, .2, .3, .2, .2])
    shape = tuple(map(int, sizes))
    if shape and rng.random() < 0.7:
        shape = (int(rng.integers(2, 30)), *shape[1:])
    scale = 10.0 ** (rng.integers(-3, 4) if rng.random() < 0.8 else rng.integers(-30, 40))
    x = np.asarray(rng.normal(size=shape) * scale)
    trouble = rng.integers(0, 18)
    places = rng.random(shape) < rng.choice([0.05, 0.5, 0.95])
    with np.errstate(all="ignore"):
        x = {0: lambda: np.where(places, np.nan, x), 1: lambda: np.where(places, np.inf, x), 2: lambda: 0 * x,
             3: lambda: x * 1e300, 4: lambda: np.round(x), 5: lambda: x + 1e12, 6: lambda: np.where(places, 0, x)
             }.get(int(trouble), lambda: x)()
        kind = str(rng.choice(TYPES[:10] if rng.random() < 0.85 else TYPES))
        array = np.asarray(x).astype("float64" if kind == "M8[D]" else kind, casting="unsafe")
        array = array.astype("i8").astype("M8[D]") if kind == "M8[D]" else array
    fitting = [text for text in LAYOUTS[1:9] if text and len(text) == array.ndim] or [None]
    choice = LAYOUTS if rng.random() < 0.2 else fitting
    options: dict[str, Any] = {"layout": choice[int(rng.integers(len(choice)))] if rng.random() < 0.6 else None}
    if rng.random() < 0.2:
        options["channels"] = [f"c{k}" for k in range(int(rng.integers(1, 4)))]
    return array if rng.random() < 0.8 else array[..., ::-1] if array.ndim else array, options


def check(source: Any, options: dict[str, Any]) -> bool:
    """Whether a source has a recipe; otherwise its error is one line."""
    try:
        data = open_data(source, **options)
        for_data(data, steps=1)
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 700
        return False
    return True


@pytest.mark.parametrize("first", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in range(60, 480, 60))])
@pytest.mark.filterwarnings("ignore:Casting complex values:numpy.exceptions.ComplexWarning")
def test_strange_arrays(first: int) -> None:
    answers = [check(*strange(seed)) for seed in range(first, first + 60)]
    assert 5 < sum(answers) < 55  # some are data, and some are not


def damaged(content: bytes, seed: int) -> bytes:
    rng = np.random.Generator(np.random.Philox(seed))
    broken = bytearray(content[: len(content) if rng.random() < 0.6 else int(rng.integers(0, len(content)))])
    for _ in range(int(rng.integers(0, 6))):
        if broken:
            broken[int(rng.integers(min(len(broken), 200)))] = int(rng.integers(256))
    return bytes(broken)


@pytest.mark.parametrize("ending", ["npy", "npz", "wav", "h5"])
def test_damaged_files(tmp_path: Path, ending: str) -> None:
    x, stream = np.random.Generator(np.random.Philox(1)).normal(size=(6, 9, 2)), io.BytesIO()
    if ending == "h5":
        package = pytest.importorskip("h5py")
        with package.File(stream, "w") as file:
            file.create_dataset("x", data=x)
    elif ending == "wav":
        wavfile.write(stream, 800, (x[0] * 1000).astype(np.int16))
    else:
        (np.save if ending == "npy" else np.savez)(stream, x)
    for seed in range(12):
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / f"a.{ending}").write_bytes(damaged(stream.getvalue(), seed))
        (folder / f"b.{ending}").write_bytes(stream.getvalue())
        check(folder if ending != "h5" else folder / "a.h5", {})
        check(folder / f"a.{ending}", {})
