"""Updates by time: the largest number that fits, measured on updates that are thrown away."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from training.small_runs import experiment, final, points, same

from undiffuse import recipes, training
from undiffuse.cli import main
from undiffuse.errors import InputError
from undiffuse.experiment import Recipe, read
from undiffuse.training.timing import StepTiming, measure


@pytest.mark.parametrize("seconds", [0.0, 0.12, 1.0, 7.3, 60.0, 300.0])
@pytest.mark.parametrize("pace", [StepTiming(0.02, 0.1), StepTiming(0.001, 0.0), StepTiming(0.2, 3.0)])
def test_the_number_fits_and_the_next_one_does_not(pace: StepTiming, seconds: float) -> None:
    def save_every(n: int) -> int:
        return max(100, -(-n // 8))

    def cost(n: int) -> float:
        return n * pace.update + -(-n // save_every(n)) * pace.save

    n = pace.max_steps(seconds, save_every)
    assert cost(n) <= seconds < cost(n + 1)


def test_without_saves_it_is_time_over_pace() -> None:
    assert StepTiming(0.25, 0.0).max_steps(60, lambda n: 7) == 240
    assert StepTiming(0.25, 1.0).max_steps(60, lambda n: 4) == 120  # a save every 4 updates: 2 s for 4


def test_the_pace_is_what_the_clock_says() -> None:
    """A clock that ticks once a look: every update and every save takes one tick."""
    ticks = itertools.count()
    assert measure(Recipe(experiment(held_out=10), data=points()), lambda: float(next(ticks))) == StepTiming(1.0, 1.0)


def test_measuring_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    e = experiment(held_out=10)
    training.train(e, tmp_path / "before", progress=False, data=points())
    measure(Recipe(e, data=points()))
    training.train(e, tmp_path / "after", progress=False, data=points())
    assert same(final(tmp_path / "before"), final(tmp_path / "after"))


def test_minutes_become_updates_of_the_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.5 s an update and 2 s a save: 112 updates and two saves a minute; never more than the data can stand."""
    monkeypatch.setattr(recipes, "measure", lambda *args: StepTiming(0.5, 2.0))
    recipe = recipes.for_data("swiss_roll", minutes=1)
    one, why = recipe.experiment, recipe.reasons
    assert one.steps == (60 - 2 * 2) / 0.5 and "112 updates, as many as fit into 1 minutes" in " ".join(why)
    every = recipes.for_data("swiss_roll", minutes=1, save_every=10).experiment
    assert (every.steps, every.save_every) == (84, 10)  # 42 s of updates and 9 saves
    recipe = recipes.for_data("digits", minutes=600)
    most, why = recipe.experiment, recipe.reasons
    assert most.steps == 100 * (1797 - most.held_out) // most.batch_size
    assert "more updates would overfit" in " ".join(why)


@pytest.mark.parametrize("asked, words", [
    ({"minutes": 1, "steps": 5}, "give one of them"), ({"minutes": 0}, "above 0"), ({"minutes": -1}, "above 0"),
    ({"minutes": float("nan")}, "above 0"), ({"minutes": 0.001}, "no update fits"),
])
def test_refusals(asked: dict[str, float], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "measure", lambda *args: StepTiming(0.5, 2.0))
    with pytest.raises(InputError, match=words):
        recipes.for_data("swiss_roll", **asked)


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="2 processes"):
        recipes.for_data("swiss_roll", minutes=1)


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
                             ) -> None:
    """The number is stored; the same words go on with the run, whatever the machine's pace is then."""
    run = str(tmp_path / "run")
    words = ["train", "swiss_roll", "--minutes", "0.1", "--out", run, "--batch-size", "8", "--device", "cpu"]
    monkeypatch.setattr(recipes, "measure", lambda *args: StepTiming(0.5, 1.0))
    assert main(words) == 0
    assert read(run).steps == 10 and "10 updates, as many as fit into 0.1 minutes" in capsys.readouterr().out
    weights = final(tmp_path / "run")
    monkeypatch.setattr(recipes, "measure", lambda *args: StepTiming(0.1, 1.0))
    assert main(words) == 0
    assert read(run).steps == 10 and "not measured again" in capsys.readouterr().out
    assert same(weights, final(tmp_path / "run"))
    assert main(["train", run, "--minutes", "1"]) == 2
    assert main([*words, "--steps", "3"]) == 2
    assert "give one of them" in capsys.readouterr().err
