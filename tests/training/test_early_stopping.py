"""Patience: the training ends where the held-out path loss says so, its best model is kept, whatever interrupts it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from training.small_runs import experiment, final, measured, points, quick_folder, same
from training.test_distributed import together

from undiffuse import training
from undiffuse.cli import main
from undiffuse.errors import InputError
from undiffuse.experiment import Experiment
from undiffuse.training.checkpoint import steps
from undiffuse.training.early_stopping import best_checkpoint, model_step, should_stop, stopping_summary
from undiffuse.training.replay import replay
from undiffuse.training.run import Run, load

E = experiment(held_out=10, save_every=1, steps=40, lr=0.2, patience=2, deterministic_reduction=True)


def saves(*losses: float) -> list[dict[str, Any]]:
    return [{"step": 10 * k, "held_out": 0.0, "path": loss} for k, loss in enumerate(losses, 1)]


def train(e: Experiment, folder: Path, **options: Any) -> Any:
    return training.train(e, folder, progress=False, data=points(), **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that its patience has ended."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(E, folder)
    return folder


def test_it_is_over_so_many_saves_after_the_least_loss() -> None:
    assert best_checkpoint([{"step": 1, "loss": 2.0}]) is None and not should_stop([], 1)
    entries = saves(3.0, 1.0, 2.0, 1.0, 1.5)
    assert best_checkpoint(entries) == (20, 1.0)  # the first of equals
    assert [should_stop(entries, k) for k in (0, 1, 2, 3, 4)] == [False, True, True, True, False]
    assert not should_stop(saves(3.0, 2.0, 1.0), 1)
    assert [model_step(entries, E.replace(patience=k)) for k in (0, 3)] == [50, 20] and model_step([], E) == 0


def test_why_it_ended_is_one_sentence() -> None:
    e = experiment(held_out=10, steps=50, patience=3)
    assert stopping_summary(saves(3.0, 1.0, 2.0, 1.0), e) == (
        "At step 40 of 50; the model is from step 20, with the smallest held-out path loss, 1.0000 nats per "
        "entry.")
    assert stopping_summary(saves(1.0, 2.0, 2.0, 2.0), e) == (
        "Stopped early at step 40 of 50: the held-out path loss did not improve for 3 checkpoints; the model is from "
        "step 10, with the smallest held-out path loss, 1.0000 nats per entry.")
    assert stopping_summary(saves(1.0, 2.0, 2.0, 2.0, 2.0), e).startswith(
        "All 50 updates made; the model is from step 10,"
    )
    assert stopping_summary(saves(3.0, 4.0), e.replace(patience=0)) == "At step 20 of 50."


@pytest.mark.slow
def test_it_ends_where_the_same_run_without_patience_says(whole: Path, tmp_path: Path, capsys: Any) -> None:
    free = E.replace(patience=0)
    train(free, tmp_path / "free")
    entries = measured(tmp_path / "free")
    last = next(k for k in range(E.steps) if should_stop([e for e in entries if e["step"] <= k], E.patience))
    best = best_checkpoint([e for e in entries if e["step"] <= last])
    assert best is not None and best[0] < last < E.steps
    assert measured(whole) == [e for e in entries if e["step"] <= last]
    assert steps(whole / "best") == [best[0]] and steps(whole)[-1] == last
    again = train(free, tmp_path / "stopped", stop=lambda step: step == best[0])
    stopped = load(whole)
    assert all(torch.equal(p, q) for p, q in zip(stopped.net.parameters(), again.net.parameters(), strict=True))
    assert main(["show", str(whole)]) == 0
    assert f"Stopped early at step {last} of 40: the held-out path loss did not improve" in capsys.readouterr().out


def test_only_updates_that_were_made_can_be_replayed(whole: Path) -> None:
    last = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert last < E.steps and replay(whole, last - 1, data=points()).step == last - 1
    with pytest.raises(InputError, match=f"got step={last}; expected 0 to {last - 1}"):
        replay(whole, last, data=points())


def test_interrupted_at_any_save_it_ends_there_with_the_same_bits(whole: Path, tmp_path: Path) -> None:
    for at in range(1, 12):
        train(E, tmp_path / "parts", stop=lambda step, at=at: step == at)
    model = train(E, tmp_path / "parts")
    again = train(E, tmp_path / "parts")  # one that has ended makes no more updates, and gives its best model
    assert measured(tmp_path / "parts") == measured(whole)
    for folder in ("", "best"):
        assert same(final(tmp_path / "parts" / folder), final(whole / folder))
    for p, q, r in zip(model.net.parameters(), again.net.parameters(), load(whole).net.parameters(), strict=True):
        assert torch.equal(p, q) and torch.equal(p, r)


def test_killed_between_a_save_and_the_best_it_keeps_the_best(whole: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The checkpoint is written first; what is then missing is written when the run goes on."""
    target, keep = steps(whole / "best")[0], Run.save_best

    def killed(run: Run, state: Any) -> None:
        if state.step == target:
            raise KeyboardInterrupt
        keep(run, state)

    monkeypatch.setattr(Run, "save_best", killed)
    with pytest.raises(KeyboardInterrupt):
        train(E, tmp_path / "run")
    assert steps(tmp_path / "run")[-1] == target and target not in steps(tmp_path / "run" / "best")
    monkeypatch.setattr(Run, "save_best", keep)
    train(E, tmp_path / "run")
    assert same(final(tmp_path / "run" / "best"), final(whole / "best"))
    assert measured(tmp_path / "run") == measured(whole)


def test_two_processes_end_together_with_the_best_model(whole: Path) -> None:
    kept = torch.cat([p.flatten() for p in load(whole).net.parameters()])

    def member(rank: int) -> None:
        model = train(E, folder / ("run" if rank == 0 else "elsewhere"))
        assert torch.equal(torch.cat([p.detach().flatten() for p in model.net.parameters()]), kept)

    with quick_folder() as folder:
        assert together(2, member) == [0, 0]
        assert same(final(folder / "run" / "best"), final(whole / "best")) and not (folder / "elsewhere").exists()


def test_what_would_change_the_outcome_is_refused(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="save_every is 1 there and 2 here"):
        train(E.replace(save_every=2), whole)
    with pytest.raises(InputError, match="patience=2 without held-out rows"):
        train(E.replace(held_out=0), tmp_path / "none")
    assert not (tmp_path / "none").exists()
