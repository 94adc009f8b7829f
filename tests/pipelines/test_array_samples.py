"""Arrays through every command: what was observed stays to the bit, layouts and types come back, the rest is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import undiffuse as ud
from undiffuse import cli
from undiffuse.errors import InputError
from undiffuse.inverse import Downsample, Mask, gaussian_blur
from undiffuse.pipelines.array_samples import event_shape, read_array
from undiffuse.pipelines.restore import RestoredArrays, operator, restore

RNG = np.random.Generator(np.random.Philox(4))
KINDS: dict[str, tuple[str, tuple[int, ...], str]] = {
    "series": ("NTC", (40, 8, 2), "float32"), "signals": ("NCT", (40, 2, 8), "float64"),
    "sounds": ("NT", (40, 8), "int16"), "fields": ("NHWC", (40, 4, 6, 2), "float32"),
    "maps": ("NHW", (40, 4, 6), "float32"),
    "volumes": ("NCDHW", (40, 1, 4, 4, 4), "float32")}


def data_of(kind: str) -> np.ndarray:
    _, shape, dtype = KINDS[kind]
    x = RNG.normal(size=shape) * 300 + 50 + 200 * RNG.normal(size=(shape[0], *[1] * (len(shape) - 1)))
    return x.astype(dtype)


@pytest.fixture(scope="module", params=["series", "sounds", *(pytest.param(kind, marks=pytest.mark.slow) for kind in (
    "signals", "fields", "maps", "volumes"))])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, np.ndarray]:
    """A run of two updates on 40 samples, beside its data in x.npy."""
    folder, x = tmp_path_factory.mktemp(request.param), data_of(request.param)
    np.save(folder / "x.npy", x)
    ud.train(folder / "x.npy", folder / "run", layout=KINDS[request.param][0], steps=2, batch_size=8, held_out=10,
             net="mlp", progress=False)
    return request.param, folder, x


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def test_samples_have_the_layout_and_the_type(trained: tuple[str, Path, np.ndarray]) -> None:
    _, folder, x = trained
    assert run("sample", folder / "run", "--n", 3, "--steps", 4) == 0
    written = np.load(folder / "run" / "samples.npy")
    assert written.shape == (3, *x.shape[1:]) and written.dtype == x.dtype
    for ending in ("csv", "png"):
        assert run("sample", folder / "run", "--n", 3, "--steps", 4, "--out", folder / f"s.{ending}") == 2


def test_every_command_answers(trained: tuple[str, Path, np.ndarray], capsys: pytest.CaptureFixture[str]) -> None:
    """Each works, or ends with one line and code 2."""
    _, folder, x = trained
    few = folder / "few.npy"
    np.save(few, x[:2])
    answers: dict[str, list[object]] = {
        "likelihood": [few, "--out", folder / "l.csv", "--probes", 1], "restore": [few, "--operator", "random",
                       "--simulate", "--draws", 2, "--steps", 3, "--out", folder / "r"],
        "evaluate": [], "report": [], "show": [], "verify": []}
    for command, words in answers.items():
        code = run(command, folder / "run", *words)
        out = capsys.readouterr()
        assert code in (0, 2) and "Traceback" not in out.err, command
        assert code == 0 or command == "verify", (command, out.err)
    assert run("restore", folder / "run", few, "--operator", "motion", "--out", folder / "r2") in (0, 2)
    assert run("impute", folder / "run", few) == 2 and "nothing to fill" in capsys.readouterr().err
    assert np.load(folder / "r" / "draws.npy").dtype == x.dtype


def test_imputation_changes_what_is_missing_and_nothing_else(trained: tuple[str, Path, np.ndarray]) -> None:
    kind, folder, x = trained
    if KINDS[kind][2] == "int16":
        return
    gaps = x[:3].copy()
    gaps.reshape(3, -1)[:, ::3] = np.nan
    np.save(folder / "gaps.npy", gaps)
    assert run("impute", folder / "run", folder / "gaps.npy", "--draws", 2, "--steps", 4, "--out", folder / "i") == 0
    for name in ("draw-1", "draw-2", "mean", "low", "high"):
        filled = np.load(folder / "i" / f"{name}.npy")
        assert filled.dtype == x.dtype and filled.shape == gaps.shape and np.isfinite(filled).all()
        assert np.array_equal(filled[~np.isnan(gaps)], gaps[~np.isnan(gaps)])


def test_one_sample_is_enough_and_another_shape_is_refused(trained: tuple[str, Path, np.ndarray]) -> None:
    kind, folder, x = trained
    model = ud.load(folder / "run")
    np.save(folder / "one.npy", x[0])
    assert torch.equal(read_array(str(folder / "one.npy"), model), torch.from_numpy(x[:1].astype(np.float32)))
    np.save(folder / "bad.npy", np.repeat(x[:2], 2, -1))
    with pytest.raises(InputError, match=f"in the layout {KINDS[kind][0]}"):
        read_array(str(folder / "bad.npy"), model)


MAKE: dict[str, Callable[[tuple[int, ...]], Any]] = {
    "blur": lambda shape: gaussian_blur(0.4, axes=len(shape) - 1), "downsample": lambda shape: Downsample(2),
    "fourier": lambda shape: operator("fourier", shape, amount=0.5)}


@pytest.mark.parametrize("name", MAKE)
def test_operators_see_the_channels_first_in_every_layout(trained: tuple[str, Path, np.ndarray], name: str) -> None:
    _, folder, x = trained
    model = ud.load(folder / "run")
    shape = event_shape(model)
    assert model.array is not None
    clean = model.array.channels_first(torch.from_numpy(x[:2].astype(np.float32)))
    y = MAKE[name](shape)(clean)
    restored = restore(model, MAKE[name](shape), y, 1.0, 2, steps=3)
    assert isinstance(restored, RestoredArrays) and restored.draws.shape == (2, 2, *x.shape[1:])
    assert restored.draws.isfinite().all()


def test_a_mask_in_the_layout_of_the_data_keeps_what_it_observes(trained: tuple[str, Path, np.ndarray]) -> None:
    """With noiseless values the linear posterior's draws have them to the accuracy of its last step."""
    _, folder, x = trained
    model = ud.load(folder / "run")
    mask = torch.from_numpy(RNG.random(x.shape[1:]) < 0.5)
    y = torch.from_numpy(x[0].astype(np.float32))
    posterior = ud.observe(model, Mask(mask), y, 0.0, "wiener")
    draws = ud.sample(posterior, 2, steps=10).x
    assert float((draws - y)[:, mask].abs().max()) < 0.05 * float(y.std())
