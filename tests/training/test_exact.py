"""Interrupted anyhow, a run ends with the same bits: weights, average, moments and metrics."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from training.small_runs import Crash, code_of, experiment, final, in_child, measured, points, quick_folder, same

from undiffuse.data import Dataset
from undiffuse.errors import InputError, MachineError
from undiffuse.experiment import Experiment
from undiffuse.training import load, train
from undiffuse.training.checkpoint import path_of, steps

DATA = points(50, classes=3)
EVERYTHING = {"held_out": 10, "schedule": "linear", "optimizer": "adamw", "weight_decay": 0.1, "label_dropout": 0.2}


def run(e: Experiment, folder: Path, stop_at: int | None = None, data: Dataset = DATA) -> None:
    train(e, folder, progress=False, data=data, stop=lambda step: step == stop_at)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    run(experiment(**EVERYTHING), folder)
    return folder


@pytest.mark.parametrize("at", range(1, 13))
def test_a_run_stopped_at_any_step_continues_to_the_same_bits(tmp_path: Path, uninterrupted: Path, at: int) -> None:
    e = experiment(**EVERYTHING)
    run(e, tmp_path, stop_at=at)
    assert steps(tmp_path)[-1] == at
    run(e, tmp_path)
    assert same(final(tmp_path), final(uninterrupted)) and measured(tmp_path) == measured(uninterrupted)


def test_so_does_one_stopped_at_every_step(tmp_path: Path, uninterrupted: Path) -> None:
    for step in range(1, 13):
        run(experiment(**EVERYTHING), tmp_path, stop_at=step)
    assert same(final(tmp_path), final(uninterrupted)) and measured(tmp_path) == measured(uninterrupted)


def test_how_often_it_is_saved_changes_nothing(tmp_path: Path, uninterrupted: Path) -> None:
    run(experiment(**EVERYTHING, save_every=5), tmp_path, stop_at=7)
    run(experiment(**EVERYTHING, save_every=3), tmp_path)
    assert same(final(tmp_path), final(uninterrupted))


def test_a_machine_that_changed_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    run(experiment(), tmp_path, stop_at=5)
    run(experiment(save_every=3), tmp_path, stop_at=6)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 61)
    run(experiment(), tmp_path)
    same_, other = capsys.readouterr().err.splitlines()
    assert same_ == "undiffuse: resuming from step 5"
    assert other.startswith("undiffuse: resuming from step 6; results may differ") and "threads 1 -> 61" in other


def test_a_finished_run_is_left_alone(tmp_path: Path, uninterrupted: Path) -> None:
    before = {path: path.read_bytes() for path in uninterrupted.glob("checkpoint-*")}
    run(experiment(**EVERYTHING), uninterrupted)
    assert before == {path: path.read_bytes() for path in uninterrupted.glob("checkpoint-*")}


def test_another_seed_gives_other_bits(tmp_path: Path, uninterrupted: Path) -> None:
    run(experiment(**EVERYTHING, seed=1), tmp_path)
    assert not same(final(tmp_path), final(uninterrupted))


def test_a_damaged_last_checkpoint_costs_one_interval_only(tmp_path: Path, uninterrupted: Path,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    run(experiment(**EVERYTHING), tmp_path, stop_at=10)
    path_of(tmp_path, 10).write_bytes(path_of(tmp_path, 10).read_bytes()[:-1])
    run(experiment(**EVERYTHING), tmp_path)
    assert "checkpoint-10.safetensors" in (said := capsys.readouterr().err) and "resuming from step 8" in said
    assert same(final(tmp_path), final(uninterrupted)) and measured(tmp_path) == measured(uninterrupted)


@pytest.mark.parametrize("tail", [b'{"step": 7, "lo', b'{"step": 99}\n{"step": 100}\n', b"\x00" * 100, b"{}\n[]\n"])
def test_metrics_torn_by_a_crash_are_mended(tmp_path: Path, uninterrupted: Path, tail: bytes) -> None:
    run(experiment(**EVERYTHING), tmp_path, stop_at=6)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(tail)
    run(experiment(**EVERYTHING), tmp_path)
    assert measured(tmp_path) == measured(uninterrupted)


def kill_until_done(e: Experiment, folder: Path, kills: int, delay: Callable[[], float]) -> int:
    """Starts the run again and again and kills it after a delay, `kills` times at most; how often it was."""
    killed = 0
    while True:
        pid = in_child(lambda: run(e, folder))
        if killed < kills:
            time.sleep(delay())
            os.kill(pid, signal.SIGKILL)
        if (code := code_of(pid)) == 0:
            return killed
        assert code == -signal.SIGKILL
        killed += 1


def kills_change_no_bit(kills: int, steps_: int) -> None:
    """As many runs as it takes for so many kills, each against the uninterrupted one.

    Every run has a folder and delays of its own, of up to the time that the uninterrupted one took: on a machine
    where a run is over before its kill, the next one gets another chance.
    """
    e, killed, chance = experiment(**EVERYTHING, steps=steps_, save_every=5), 0, random.Random(0)
    with quick_folder() as folder:
        began = time.monotonic()
        run(e, folder / "whole")
        longest = time.monotonic() - began
        attempt = 0
        while killed < kills:
            broken = folder / str(attempt := attempt + 1)
            killed += kill_until_done(e, broken, kills - killed, lambda: chance.uniform(0, longest))
            assert same(final(broken), final(folder / "whole"))
            assert measured(broken) == measured(folder / "whole")
            assert not list(broken.glob(".*.tmp"))


@pytest.mark.slow
def test_three_kills_change_no_bit() -> None:
    kills_change_no_bit(3, 100)


@pytest.mark.slow
def test_thirty_kills_change_no_bit() -> None:
    kills_change_no_bit(30, 500)


@pytest.mark.parametrize("stride", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_system_call_of_the_start_is_forgiven(tmp_path: Path, stride: int) -> None:
    """The first files of a run: experiment, description and the checkpoints of steps 0 and 1."""
    e, last, codes = experiment(steps=1), 0, set()
    run(e, tmp_path)
    while 0 not in codes:
        last += stride
        with quick_folder() as folder:
            def work(last: int = last, folder: Path = folder) -> None:
                Crash(last).install()
                run(e, folder / "run")

            codes.add(code_of(in_child(work)))
            run(e, folder / "run")
            assert same(final(folder / "run"), final(tmp_path))
    assert codes == {0, 77} and last > 25


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_and_exits_with_128_and_its_number(uninterrupted: Path, number: signal.Signals,
                                                          capfd: pytest.CaptureFixture[str]) -> None:
    def work(folder: Path) -> None:
        signal.signal(number, signal.SIG_DFL)
        train(experiment(**EVERYTHING), folder, progress=False, data=DATA,
              stop=lambda step: step == 7 and os.kill(os.getpid(), number))

    with quick_folder() as folder:
        assert code_of(in_child(lambda: work(folder / "run"))) == 128 + number
        assert steps(folder / "run") == [4, 7]
        assert f"`undiffuse train {folder / 'run'}` resumes" in capfd.readouterr().err
        run(experiment(**EVERYTHING), folder / "run")
        assert same(final(folder / "run"), final(uninterrupted))


def test_a_second_signal_ends_it_at_once_and_an_ignored_one_does_nothing() -> None:
    def twice(folder: Path) -> None:
        train(experiment(), folder, progress=False, data=DATA,
              stop=lambda step: step == 7 and [os.kill(os.getpid(), signal.SIGTERM) for _ in range(2)])

    def ignored(folder: Path) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        train(experiment(), folder, progress=False, data=DATA,
              stop=lambda step: step == 7 and os.kill(os.getpid(), signal.SIGHUP))

    with quick_folder() as folder:
        assert code_of(in_child(lambda: twice(folder / "twice"))) == -signal.SIGTERM
        assert steps(folder / "twice") == [0, 4]
        assert code_of(in_child(lambda: ignored(folder / "ignored"))) == 0
        assert steps(folder / "ignored") == [8, 12]


def test_a_signal_from_outside_is_obeyed_within_a_step_and_two_seconds() -> None:
    with quick_folder() as folder:
        pid = in_child(lambda: run(experiment(steps=10**6, save_every=10**6), folder / "run"))
        while not steps(folder / "run") or not (folder / "run" / "metrics.jsonl").exists():
            time.sleep(0.01)
        time.sleep(0.1)
        asked = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        assert code_of(pid) == 128 + signal.SIGTERM
        assert time.monotonic() - asked < 2
        assert load(folder / "run").shape == (2,)


def test_a_disk_that_fills_up_costs_no_checkpoint(uninterrupted: Path) -> None:
    with quick_folder() as folder:
        run(experiment(**EVERYTHING), folder, stop_at=6)
        limit = path_of(folder, 6).stat().st_size // 2  # checkpoints differ by a few bytes in the digits of a clock

        def fill() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            with pytest.raises(MachineError, match=r"checkpoint-8.*too large.*bytes are needed"):
                run(experiment(**EVERYTHING), folder)

        assert code_of(in_child(fill)) == 0
        assert steps(folder) == [4, 6] and not list(folder.glob(".*.tmp"))
        run(experiment(**EVERYTHING), folder)
        assert same(final(folder), final(uninterrupted))


def test_a_full_disk_under_the_metrics_is_one_sentence() -> None:
    with quick_folder() as folder:
        run(experiment(**EVERYTHING), folder, stop_at=6)

        def fill() -> None:
            size = (folder / "metrics.jsonl").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, size + 50))
            with pytest.raises(MachineError, match=r"metrics\.jsonl.*too large"):
                run(experiment(**EVERYTHING), folder)

        assert code_of(in_child(fill)) == 0
        assert steps(folder) == [4, 6]


def test_two_trainers_cannot_share_a_folder(tmp_path: Path) -> None:
    def second(step: int) -> bool:
        if step == 5:
            with pytest.raises(MachineError, match=f"in use by process {os.getpid()}"):
                run(experiment(), tmp_path)
        return False

    train(experiment(), tmp_path, progress=False, data=DATA, stop=second)
    assert steps(tmp_path) == [8, 12]


def test_a_started_run_is_not_started_afresh(tmp_path: Path) -> None:
    run(experiment(), tmp_path)
    for step in steps(tmp_path):
        path_of(tmp_path, step).unlink()
    with pytest.raises(InputError, match="its checkpoints are gone"):
        run(experiment(), tmp_path)


CHANGES = {"steps": 13, "batch_size": 17, "lr": 0.02, "seed": 3, "sde": "edm", "net_args": {"width": 9},
           "ema_decay": 0.99,
           "held_out": 1, "betas": (0.9, 0.99), "dtype": "float64", "eval_batch_size": 3, "prediction_type": "v"}


@pytest.mark.parametrize("name", CHANGES)
def test_another_experiment_is_refused_by_the_field_that_differs(uninterrupted: Path, name: str) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in uninterrupted.rglob("*"))
    with pytest.raises(InputError, match=rf"another run: {name} is .* there and .* here; choose"):
        run(experiment(**EVERYTHING).replace(**{name: CHANGES[name]}), uninterrupted)
    assert before == sorted((path, path.stat().st_mtime_ns) for path in uninterrupted.rglob("*"))


def test_other_data_are_refused(uninterrupted: Path) -> None:
    other = Dataset(DATA.x.clone(), DATA.y, DATA.kind, DATA.name, DATA.classes, DATA.columns)
    run(experiment(**EVERYTHING), uninterrupted, data=other)
    other.x[3, 1] += 1e-6
    with pytest.raises(InputError, match="trained on other data: 40 training rows of test points"):
        run(experiment(**EVERYTHING), uninterrupted, data=other)


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    for folder in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(InputError, match="not a run; choose another folder"):
            run(experiment(), folder)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_nothing_is_written_for_an_experiment_that_cannot_run(tmp_path: Path) -> None:
    for wrong in ({"net": "none"}, {"sde": "none"}, {"net_args": {"with": 3}}, {"held_out": 50},
                  {"noise_distribution": "none"},
                  {"weighting": "none"}):
        with pytest.raises(InputError):
            run(experiment(**wrong), tmp_path / "run")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("file, change", [
    ("experiment.json", lambda values: {**values, "lr": 0.02}),
    ("model/config.json", lambda values: {**values, "sigma_data": 9.0}),
])
def test_a_description_edited_by_hand_is_noticed(tmp_path: Path, file: str, change) -> None:
    run(experiment(), tmp_path)
    path = tmp_path / file
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(InputError, match="changed by hand"):
        load(tmp_path)


def test_float64_runs_resume_as_well(tmp_path: Path) -> None:
    e = experiment(dtype="float64")
    run(e, tmp_path / "a")
    run(e, tmp_path / "b", stop_at=5)
    run(e, tmp_path / "b")
    assert final(tmp_path / "a")["net.last.weight"].dtype == torch.float64
    assert same(final(tmp_path / "a"), final(tmp_path / "b"))
