"""The commands on a real run: samples by index, training that goes on, repeats, and never starts afresh by accident."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from undiffuse.cli import main
from undiffuse.experiment import Experiment
from undiffuse.guidance import with_guidance
from undiffuse.pipelines.sample_to_file import random_labels
from undiffuse.samplers.driver import sample
from undiffuse.training import load, load_data

EXPERIMENT = Experiment(data="moons", held_out=50, steps=6, save_every=3, warmup=2, batch_size=32, eval_batch_size=16,
                        net_args={"width": 16, "depth": 1})


def write(folder: Path, experiment: Experiment) -> str:
    file = folder / "recipe.json"
    file.write_text(json.dumps(experiment.to_dict()))
    return str(file)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    assert main(["train", write(folder, EXPERIMENT), "--out", str(folder / "run")]) == 0
    return folder / "run"


def drawn(run: Path, file: Path, *flags: str) -> np.ndarray:
    assert main(["sample", str(run), "--steps", "3", "--out", str(file), *flags]) == 0
    return np.load(file) if file.suffix == ".npy" else np.loadtxt(file, delimiter=",", skiprows=1)


@pytest.mark.parametrize("flags", [(), ("--method", "ancestral"), ("--label", "all"), ("--label", "1,0,0")])
def test_a_sample_is_the_same_bytes_whatever_else_is_drawn(run: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    many = drawn(run, tmp_path / "many.npy", "--n", "1000", *flags)
    few = drawn(run, tmp_path / "few.npy", "--n", "10", *flags)
    later = drawn(run, tmp_path / "later.npy", "--n", "3", "--first-index", "7", *flags)
    chosen = drawn(run, tmp_path / "chosen.npy", "--indices", "998,7,3-4", *flags)
    assert few.tobytes() == many[:10].tobytes() and later.tobytes() == many[7:10].tobytes()
    assert chosen.tobytes() == many[[998, 7, 3, 4]].tobytes()
    assert len(np.unique(many, axis=0)) == 1000


def test_a_table_has_the_numbers_and_the_requested_labels(run: Path, tmp_path: Path) -> None:
    table = drawn(run, tmp_path / "x.csv", "--n", "5", "--label", "1,0")
    assert (table[:, 2] == [1, 0, 1, 0, 1]).all()
    assert (table[:, :2].astype(np.float32) == drawn(run, tmp_path / "x.npy", "--n", "5", "--label", "1,0")).all()


def test_without_a_label_classes_are_as_frequent_as_in_the_data(run: Path, tmp_path: Path) -> None:
    """p(x) = Σ p(c) p(x | c): the labels are drawn, by index, and the samples are the model's with these labels."""
    labels = torch.tensor(random_labels([5, 0, 3, 2], 1, 40, 6000))
    shares = labels.bincount(minlength=4) / 6000
    assert (shares - torch.tensor([0.5, 0.0, 0.3, 0.2])).abs().max() < 4 * 0.5 / 6000**0.5 and shares[1] == 0
    assert random_labels([5, 0, 3, 2], 1, 47, 3) == labels[7:10].tolist()
    counts = json.loads((run / "model" / "config.json").read_text())["data"]["counts"]
    assert counts == load_data(run)[0].y.bincount().tolist()
    with_them = sample(load(run), 40, steps=3, label=torch.tensor(random_labels(counts, 0, 0, 40))).x
    assert np.array_equal(drawn(run, tmp_path / "any.npy", "--n", "40"), with_them.numpy())


def test_classes_are_missed_before_anything_is_fitted(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("undiffuse.tuning.tune", lambda *_, **__: pytest.fail("fitted"))
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(200, 2)))
    plain = write(tmp_path, replace(EXPERIMENT, data=str(tmp_path / "x.npy")))
    assert main(["train", plain, "--out", str(tmp_path / "run")]) == 0
    assert main(["tune", str(tmp_path / "run"), "--per-class"]) == 2
    assert "got a model that was trained without labels" in capsys.readouterr().err


@pytest.mark.slow
def test_guidance_is_tuned_and_used_at_scales_between(run: Path, tmp_path: Path, capsys) -> None:
    copied = shutil.copytree(run, tmp_path / "run")
    ask = [str(copied), "--steps", "3", "--n", "4", "--label", "all"]
    words = ["--evaluations", "3", "--rounds", "0", "--trajectories", "8"]
    assert main(["tune", str(copied), *words]) == main(["tune", str(copied), *words, "--guidance-scale", "1,3"]) == 0
    assert "at guidance scale 3" in capsys.readouterr().out
    said = {}
    for scale in ("1", "2", "9"):
        out = tmp_path / f"{scale}.npy"
        assert main(["sample", *ask, "--guidance-scale", scale, "--out", str(out)]) == 0
        said[scale] = capsys.readouterr().err
        expected = sample(
            with_guidance(load(copied), float(scale), ["label"]), 4, steps=3, label=torch.tensor([0, 1, 0, 1])
        )
        assert np.array_equal(np.load(out), expected.x.numpy())
        assert bool(expected.tuned_for) is (scale != "9")
    assert said["1"] == "" and "for 3 evaluations at scale 2, between 1 and 3" in said["2"]
    assert "no sampler is tuned for 3 steps at scale 9, outside of 1 to 3" in said["9"]
    assert main(["sample", *ask, "--guidance-scale", "9", "--method", "tuned"]) == 2
    assert "none at scale 9, outside of 1 to 3" in capsys.readouterr().err


def test_a_finished_training_is_left_alone(run: Path, capsys) -> None:
    before = {file: file.read_bytes() for file in run.rglob("*.safetensors")}
    assert before and main(["train", str(run)]) == 0
    assert {file: file.read_bytes() for file in run.rglob("*.safetensors")} == before


def test_the_experiment_of_a_run_repeats_it(run: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert main(["train", str(run / "experiment.json"), "--out", str(again)]) == 0
    assert drawn(again, tmp_path / "a.npy").tobytes() == drawn(run, tmp_path / "b.npy").tobytes()


@pytest.mark.parametrize("argv, words", [
    (["train", "RUN", "--lr", "0.5"], "lr is"),
    (["train", "RUN", "--seed", "9"], "seed is"),
    (["sample", "RUN", "--label", "moon"], '"moon"; expected 0, 1 or all'),
    (["sample", "RUN", "--method", "eular"], "'eular'"),
    (["sample", "RUN", "--indices", "7-"], "such as 7,20-29"),
    (["sample", "RUN", "--n=-1"], "n=-1"),
    (["sample", "RUN", "--seed=-1"], "seed=-1; expected a whole number from 0"),
    (["sample", "RUN", "--first-index=-4"], "first_index=-4; expected a whole number from 0"),
    (["sample", "RUN", "--steps=0"], "steps=0"),
    (["sample", "RUN", "--out", "x.bmp"], "x.bmp"),
    (["tune", "RUN", "--evaluations", "5-4"], 'evaluations "5-4"'),
    (["tune", "RUN", "--guidance-scale", "2"], "such as 1,2,4"),
    (["tune", "RUN", "--guidance-scale", "1,two"], "such as 1,2,4"),
    (["tune", "RUN", "--guidance-scale", "1,2", "--per-class"], "use one of them"),
    (["sample", "nowhere"], "nowhere is not the folder of a run"),
    (["train", "nowhere.csv"], "nowhere.csv"),
])
def test_a_wrong_request_is_one_line_and_writes_nothing(run: Path, argv: list[str], words: str, capsys, tmp_path: Path,
                                                        monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    capsys.readouterr()
    assert main([str(run) if word == "RUN" else word for word in argv]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before


@pytest.mark.parametrize("faults, code", [((), 0), (("kernel",), 1)])
def test_verify_fails_if_one_check_does(faults: tuple[str, ...], code: int, monkeypatch, capsys) -> None:
    results = [(name, name not in faults, f"of {name}") for name in ("schedule", "kernel")]
    monkeypatch.setitem(sys.modules, "undiffuse.pipelines.verify", SimpleNamespace(verify=lambda run: results))
    assert main(["verify"]) == code
    assert capsys.readouterr().out.splitlines() == [
        f"{'FAIL' if name in faults else 'ok  '}  {name}: of {name}" for name in ("schedule", "kernel")]


def test_evaluate_prints_json_and_report_a_path(monkeypatch, capsys) -> None:
    figures = {"w2": 0.25, "agreement": None}
    pages = SimpleNamespace(evaluate=lambda run: {**figures, "run": str(run)}, write_report=lambda run: run / "a.html")
    monkeypatch.setitem(sys.modules, "undiffuse.report", pages)
    assert main(["evaluate", "a"]) == 0
    assert json.loads(capsys.readouterr().out) == {**figures, "run": "a"}
    assert main(["report", "a"]) == 0
    assert Path(capsys.readouterr().out.strip()) == Path("a/a.html")
