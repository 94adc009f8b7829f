"""Every kind of data by every command and output format: it works, or it is refused in one sentence that says why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import undiffuse as ud
from undiffuse import cli

RNG = np.random.Generator(np.random.Philox(6))
DATA: dict[str, tuple[np.ndarray, dict[str, str]]] = {
    "points": (RNG.normal(size=(40, 2)), {}),
    "table": (RNG.normal(size=(40, 5)) * [1, 2, 3, 40, 5], {}),
    "images": ((RNG.random((40, 4, 4)) * 255).astype(np.uint8), {}),
    "series": (RNG.normal(size=(40, 9, 2)) * 7, {"layout": "NTC"}),
    "fields": (RNG.normal(size=(40, 4, 6)) * 7, {"layout": "NHW"}),
    "volumes": (RNG.normal(size=(40, 3, 4, 4)) * 7, {"layout": "NDHW"}),
}
# Per kind what a command says: "" where it works, else words of its sentence.
ROWS, ARRAY, IMAGES = "are not images", "ends in .npy", "images"
TABLE: dict[str, dict[str, str]] = {
    "sample .csv": {"points": "", "table": "", "images": "not rows", "*": ARRAY},
    "sample .npy": {"*": ""},
    "sample .png": {"points": ROWS, "table": ROWS, "images": "", "*": ARRAY},
    "likelihood": {"*": ""},
    "likelihood --rank": {"*": ""},
    "evaluate": {"*": ""},
    "report": {"*": ""},
    "impute": {"points": "", "table": "", "images": "was trained on images", "*": ""},
    "restore": {"points": "expected the run of images", "table": "expected the run of images", "*": ""},
    "forecast": {"*": "series"},
}


@pytest.fixture(scope="module", params=["table", "series", *(pytest.param(kind, marks=pytest.mark.slow) for kind in DATA
                                                             if kind not in ("table", "series"))])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A kind, and a folder with its run and files: x.npy, few.npy and, with missing values, gaps.npy."""
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    x, options = DATA[kind]
    gaps = x[:4].astype(np.float32)
    gaps.reshape(4, -1)[:, 1] = np.nan
    for name, array in (("x", x), ("few", x[:3]), ("gaps", gaps)):
        np.save(folder / f"{name}.npy", array)
    ud.train(folder / "x.npy", folder / "run", steps=2, batch_size=8, held_out=10, net="mlp", progress=False, **options)
    return kind, folder


@pytest.mark.parametrize("command", [pytest.param(name, marks=[pytest.mark.slow] * (name in ("report", "evaluate")))
                                     for name in TABLE])
def test_it_works_or_says_why_not(run: tuple[str, Path], command: str, capsys: pytest.CaptureFixture[str]) -> None:
    kind, folder = run
    few, words = folder / "few.npy", command.split()
    inputs: dict[str, list[object]] = {
        "sample": ["--n", 3, "--steps", 3, "--out", folder / f"s{words[-1]}"],
        "likelihood": [few, "--probes", 1, "--out", folder / "l.csv", *words[1:]],
        "impute": [folder / "gaps.npy", "--draws", 2, "--steps", 3, "--out", folder / "imputed"],
        "restore": [few, "--operator", "random", "--simulate", "--draws", 2, "--steps", 3, "--out", folder / "r"],
        "forecast": [few, "--horizon", 3]}
    expected = TABLE[command].get(kind, TABLE[command].get("*", ""))
    code = cli.main([words[0], str(folder / "run"), *map(str, inputs.get(words[0], []))])
    error = capsys.readouterr().err
    last = error.strip().splitlines()[-1] if error.strip() else ""
    assert "Traceback" not in error
    assert (code == 0) if not expected else (code == 2 and expected in last), (code, error)
