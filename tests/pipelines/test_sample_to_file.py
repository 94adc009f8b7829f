"""Samples drawn by several processes are the file that one process makes."""

from __future__ import annotations

from pathlib import Path

import pytest
from training.small_runs import TINY, quick_folder
from training.test_distributed import together

from undiffuse.cli import main
from undiffuse.experiment import Experiment
from undiffuse.pipelines import sample_to_file
from undiffuse.training import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(Experiment(data="moons", net_args=TINY, steps=3, batch_size=8, eval_batch_size=8, device="cpu"), folder,
          progress=False)
    return folder


@pytest.mark.parametrize("ending", [".csv", ".npy"])
def test_the_file_is_the_same_on_one_two_and_three_processes(run: Path, ending: str,
                                                             monkeypatch: pytest.MonkeyPatch,
                                                             capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sample_to_file, "_PIECE_SIZE", 32)  # pieces of two blocks of 8 points
    wanted = ["sample", str(run), "--indices", "3-70,900-917,5", "--steps", "2"]
    with quick_folder() as folder:
        assert main([*wanted, "--out", str(folder / f"1{ending}")]) == 0
        for size in (2, 3):
            def work(rank: int, size: int = size) -> None:
                raise SystemExit(main([*wanted, "--out", str(folder / f"{size}{ending}")]))

            capfd.readouterr()
            assert together(size, work) == [0] * size
            printed = capfd.readouterr().out  # torch 2.9 adds lines of its own
            assert printed.count(str(folder / f"{size}{ending}")) == 1
            assert (folder / f"{size}{ending}").read_bytes() == (folder / f"1{ending}").read_bytes()
        assert sorted(path.name for path in folder.iterdir()) == [f"{k}{ending}" for k in (1, 2, 3)]


def test_a_place_that_cannot_be_is_refused_before_anything_is_drawn(run: Path, tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_to_file, "_fill", None)
    assert main(["sample", str(run), "--out", str(tmp_path / "x.jpeg")]) == 2
    assert main(["sample", str(run), "--out", str(tmp_path / "none" / "x.csv")]) == 2
    assert list(tmp_path.iterdir()) == []
