"""From words to an experiment: what is not asked for stays as the recipe, or the earlier run, has it."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from undiffuse.cli import main
from undiffuse.cli.options import Changes, folder_for, resolve
from undiffuse.experiment import Experiment, Recipe

EARLIER = Experiment(data="moons", steps=123, lr=0.25, sde="ve", sde_args={"sigma_max": 8.0}, label="kind")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "earlier"
    folder.mkdir()
    (folder / "experiment.json").write_text(json.dumps(EARLIER.to_dict()))
    return folder


@pytest.fixture
def asked(monkeypatch) -> list[tuple[str, dict[str, object]]]:
    """What the recipes were asked for: a stand-in that answers with an experiment of just that."""
    calls: list[tuple[str, dict[str, object]]] = []
    module = ModuleType("undiffuse.recipes")

    def for_data(source: str, **overrides: object) -> Recipe:
        calls.append((source, overrides))
        return Recipe(Experiment(data=source).replace(**overrides), ("because",))

    module.for_data = for_data  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "undiffuse.recipes", module)
    return calls


def test_every_change_is_a_field_of_the_experiment() -> None:
    fields = {f.name: f.type for f in dataclasses.fields(Experiment)}
    assert [f.name for f in dataclasses.fields(Changes) if f.name not in fields] == []


def test_data_reaches_the_recipes_with_the_requested_changes_only(asked) -> None:
    recipe = resolve("moons", Changes(steps=5, sde_args={"beta_max": 10.0}))
    assert asked == [("moons", {"steps": 5, "sde_args": {"beta_max": 10.0}})]
    assert recipe.reasons == ("because",) and recipe.experiment.steps == 5


def test_a_run_and_its_file_are_repeated_as_they_are(run: Path, asked) -> None:
    for source in (str(run), str(run / "experiment.json")):
        assert resolve(source, None).experiment == EARLIER
        assert resolve(source, Changes(steps=7)).experiment.differences(EARLIER) == ["steps"]
    assert asked == []


def test_a_run_goes_on_in_its_folder_and_data_gets_a_new_one(run: Path) -> None:
    assert folder_for(str(run), EARLIER) == run
    assert folder_for(str(run / "experiment.json"), EARLIER) == Path("runs/moons")
    assert folder_for("a/b/cells.csv", Experiment(data="a/b/cells.csv")) == Path("runs/cells")


def test_flags_arrive_in_the_experiment(asked, capsys) -> None:
    flags = ["--lr", "0.5", "--sde", "ve", "--sde-args.sigma-max", "80", "--net=mlp"]
    assert main(["show", "moons", "--json", *flags]) == 0
    shown = Experiment.from_dict(json.loads(capsys.readouterr().out))
    assert shown == Experiment(data="moons", lr=0.5, sde="ve", sde_args={"sigma_max": 80.0}, net="mlp")


def test_show_prints_every_field(run: Path, capsys) -> None:
    assert main(["show", str(run)]) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert {name: shown[name] for name in EARLIER.to_dict()} == {k: str(v) for k, v in EARLIER.to_dict().items()}


def test_what_show_prints_as_json_is_what_train_takes(run: Path, tmp_path: Path, capsys) -> None:
    assert main(["show", str(run), "--json"]) == 0
    copy = tmp_path / "copy.json"
    copy.write_text(capsys.readouterr().out)
    assert resolve(str(copy), None).experiment == EARLIER


@pytest.mark.parametrize("flag, words", [("--steps=0", "steps=0"), ("--lr=-1", "lr=-1.0"), ("--device=gpu", "cuda:N")])
def test_a_value_outside_its_domain_is_one_line(run: Path, flag: str, words: str, capsys) -> None:
    assert main(["show", str(run), flag]) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err and err.count("\n") == 1
