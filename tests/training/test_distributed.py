"""Several processes train one run: as one process does, and bit for bit so with exact sums."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from training.small_runs import code_of, experiment, final, in_child, measured, points, quick_folder, same

from undiffuse.data import Dataset
from undiffuse.errors import InputError
from undiffuse.experiment import Experiment
from undiffuse.training import loop, train
from undiffuse.training.checkpoint import steps
from undiffuse.training.distributed import PIECES, ProcessGroup
from undiffuse.training.run import open_or_create

DATA = points(50, classes=3)
EVERYTHING = {"held_out": 10, "schedule": "linear", "optimizer": "adamw", "weight_decay": 0.1, "label_dropout": 0.2}


def together(size: int, work: Callable[[int], object]) -> list[int]:
    """The exit codes of so many forks of this process that do some work as one team."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def member(rank: int) -> None:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        work(rank)

    return [code_of(pid) for pid in [in_child(lambda rank=rank: member(rank)) for rank in range(size)]]


def run(e: Experiment, folder: Path, stop: Callable[[int], bool] | None = None, data: Dataset = DATA,
        peer_timeout: float = 30.0) -> None:
    train(e, folder, progress=False, data=data, stop=stop, peer_timeout=peer_timeout)


def largest_difference(a: Path, b: Path) -> float:
    """The largest difference of two runs' numbers, in units of the largest of each tensor."""
    x, y = final(a), final(b)
    return max(float((x[k].double() - y[k].double()).abs().max() / y[k].double().abs().max().clamp_min(1e-30))
               for k in x if y[k].is_floating_point() and k != "meter")


def test_two_processes_train_as_one_does_to_rounding() -> None:
    """Weights, averages and Adam's moments after 12 updates; Adam divides rounding by small gradients, hence 1e-5."""
    e = experiment(**EVERYTHING)
    with quick_folder() as folder:
        run(e, folder / "1")
        assert together(2, lambda rank: run(e, folder / "2")) == [0, 0]
        assert 0 < largest_difference(folder / "2", folder / "1") <= 1e-5
        ours, theirs = measured(folder / "2"), measured(folder / "1")
        assert [line["step"] for line in ours] == [line["step"] for line in theirs]
        for line, expected in zip(ours, theirs, strict=True):
            assert all(line[key] == pytest.approx(expected[key], rel=1e-5) for key in line if key != "levels")


@pytest.mark.parametrize(("size", "asked"), [(2, {}), (2, {"weighting": "learned", "optimizer": "muon"}),
                                             pytest.param(4, {}, marks=pytest.mark.slow)])
def test_with_exact_sums_no_bit_depends_on_the_number_of_processes(size: int, asked: dict[str, str]) -> None:
    e = experiment(**{**EVERYTHING, **asked}, deterministic_reduction=True, batch_size=19)
    with quick_folder() as folder:
        run(e, folder / "1")
        assert together(size, lambda rank: run(e, folder / ("n" if rank == 0 else "elsewhere"))) == [0] * size
        assert not (folder / "elsewhere").exists()
        assert same(final(folder / "n"), final(folder / "1")) and measured(folder / "n") == measured(folder / "1")


@pytest.mark.slow
@pytest.mark.parametrize("exact", [False, True])
def test_a_thousand_updates_on_one_two_and_four_processes(exact: bool) -> None:
    e = experiment(**EVERYTHING, steps=1000, save_every=1000, deterministic_reduction=exact)
    with quick_folder() as folder:
        run(e, folder / "1")
        for size in (2, 4):
            assert together(size, lambda rank, size=size: run(e, folder / str(size))) == [0] * size
            away = largest_difference(folder / str(size), folder / "1")
            assert away == 0 if exact else away <= 1e-5, away


def test_a_peer_that_dies_is_one_sentence_and_any_number_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    """Killed on two processes at step 7, gone on with one: exact sums end with the bits of an undisturbed run."""
    e = experiment(**EVERYTHING, deterministic_reduction=True)
    with quick_folder() as folder:
        run(e, folder / "whole")

        def work(rank: int) -> None:
            from undiffuse.cli import guarded

            def kill(step: int) -> bool:
                return bool(step == 7 and rank == 1 and os.kill(os.getpid(), signal.SIGKILL))

            raise SystemExit(guarded(lambda: run(e, folder / "run", kill)))

        assert together(2, work) == [1, -signal.SIGKILL]
        said = capfd.readouterr().err
        assert said.count("lost the connection") == 1 and "run the same command again" in said
        assert "Traceback" not in said
        assert steps(folder / "run") == [0, 4]
        run(e, folder / "run")
        assert same(final(folder / "run"), final(folder / "whole"))
        assert "resuming from step 4\n" in capfd.readouterr().err


@pytest.mark.slow
def test_a_peer_that_is_stuck_is_given_up(capfd: pytest.CaptureFixture[str]) -> None:
    e = experiment(**EVERYTHING)
    with quick_folder() as folder:
        def work(rank: int) -> None:
            from undiffuse.cli import guarded

            def stick(step: int) -> bool:
                return bool(step == 7 and rank == 1 and os.kill(os.getpid(), signal.SIGSTOP))

            code = guarded(lambda: run(e, folder / "run", stick, peer_timeout=2.0))
            (stuck := int((folder / "1").read_text())) and os.kill(stuck, signal.SIGKILL)
            raise SystemExit(code)

        def noted(rank: int) -> None:
            (folder / str(rank)).write_text(str(os.getpid()))
            work(rank)

        assert together(2, noted) == [1, -signal.SIGKILL]
        assert "did not answer for 2 s" in capfd.readouterr().err


def test_a_signal_to_one_stops_all_after_the_same_update() -> None:
    with quick_folder() as folder:
        def work(rank: int) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            run(experiment(**EVERYTHING), folder / "run",
                lambda step: bool(step == 6 and rank == 1 and os.kill(os.getpid(), signal.SIGTERM)))

        assert together(2, work) == [128 + signal.SIGTERM] * 2
        assert steps(folder / "run") == [4, 6]


def test_what_one_cannot_do_stops_all_and_one_says_so(monkeypatch: pytest.MonkeyPatch,
                                                      capfd: pytest.CaptureFixture[str]) -> None:
    """A row that is not finite, described as if it were, and a folder that holds something else."""
    from undiffuse.cli import guarded

    monkeypatch.setattr(loop, "open_or_create", lambda folder, e, data, rows: open_or_create(folder, e, DATA, DATA))
    bad = Dataset(torch.where(torch.arange(50)[:, None] == 17, torch.inf, DATA.x), DATA.y, "points", "test points",
                  DATA.classes, DATA.columns)
    with quick_folder() as folder:
        (folder / "other").mkdir()
        (folder / "other" / "thesis.tex").write_text("all of it")
        for name, data, sentence in (("nan", bad, "row 17"), ("other", DATA, "is not a run")):
            def work(rank: int, name: str = name, data: Dataset = data) -> None:
                raise SystemExit(guarded(lambda: run(experiment(), folder / name, data=data)))

            assert together(2, work) == [2, 2]
            assert capfd.readouterr().err.count(sentence) == 1


@pytest.mark.parametrize("asked, sentence", [
    ({"batch_size": 1}, "batch_size=1"), ({"patience": 2}, "without held-out rows")])
def test_what_does_not_go_together_is_said_by_one(asked: dict[str, object], sentence: str,
                                                  capfd: pytest.CaptureFixture[str]) -> None:
    from undiffuse.cli import guarded

    def work(rank: int) -> None:
        raise SystemExit(guarded(lambda: train(experiment(**asked), folder / "run", progress=False, data=DATA)))

    with quick_folder() as folder:
        assert together(2, work) == [2, 2] and not (folder / "run").exists()
    assert (said := capfd.readouterr().err).count("undiffuse:") == said.count(sentence) == 1


@pytest.mark.parametrize("size, exact, batch, words", [
    (3, True, 16, "1, 2, 4 or 8"), (16, True, 16, "1, 2, 4 or 8"), (1, True, PIECES - 1, "batch_size=7"),
    (4, False, 3, "batch_size=3")])
def test_a_batch_that_cannot_be_divided_is_refused(size: int, exact: bool, batch: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ProcessGroup(0, size, exact).check_batch_size(batch)


SCRIPT = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from training.small_runs import experiment, points
from undiffuse.training import loop, train
folder = Path({folder!r})
def stop(step):
    mark = folder / "killed"
    if {kill} and step == 7 and os.environ["RANK"] == "1" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
train(experiment(deterministic_reduction=True), folder / "run", progress=False, data=points(), stop=stop)
"""


@pytest.mark.slow
def test_torchrun_restarts_a_killed_worker_to_the_same_weights(tmp_path: Path) -> None:
    results = []
    for kill in (False, True):
        folder = tmp_path / str(kill)
        folder.mkdir()
        script = folder / "script.py"
        script.write_text(SCRIPT.format(tests=str(Path(__file__).parent.parent), folder=str(folder), kill=kill))
        done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                               "--max-restarts", "1", str(script)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert (folder / "killed").exists() == kill and ("resuming from step 4" in done.stderr) == kill
        results.append(final(folder / "run"))
    assert same(*results)
