"""From command-line flags to an `Experiment`: one flag per field that has one, with the field's own help."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from cyclopts import Parameter

from undiffuse.errors import InputError
from undiffuse.experiment import SETTINGS, Experiment, Recipe, read

_FLAG_TYPES = {tuple[str, ...]: str, Mapping[str, Any]: dict[str, float]}  # types that a flag cannot have


def _flags() -> Iterator[tuple[str, Any, Any]]:
    """Name, type and default of every flag; None leaves the recipe's choice."""
    types = get_type_hints(Experiment)
    for name, setting in SETTINGS.items():
        if setting.metadata["flag"]:
            kind = _FLAG_TYPES.get(types[name], types[name])
            yield name, Annotated[kind | None, Parameter(help=setting.metadata["help"])], None


_Flags: Any = dataclasses.make_dataclass("_Flags", _flags(), frozen=True)


@Parameter(name="*")
class Changes(_Flags):  # type: ignore[misc]
    """Fields of the experiment that the user sets; None leaves the recipe's choice."""

    def overrides(self) -> dict[str, Any]:
        """The fields that are set; `sigma-max` on the command line is `sigma_max` here."""
        values = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        for name in ("condition", "ignore", "columns", "missing", "channels"):
            if name in values:
                values[name] = [item.strip() for item in values[name].split(",")]
        if self.sde_args is not None:
            values["sde_args"] = {name.replace("-", "_"): value for name, value in self.sde_args.items()}
        return values


OptionalChanges = Annotated[Changes | None, Parameter(name="*")]


def resolve(source: str, changes: Changes | None, minutes: float | None = None) -> Recipe:
    """The recipe for `source`.

    Args:
        source: Data, for which a recipe is chosen; or a run or an experiment.json, whose experiment is taken.
        changes: Fields that the user sets.
        minutes: Time in which the training should end; for data only.
    """
    overrides = (changes or Changes()).overrides()
    if is_run(source) or source.endswith(".json"):
        if minutes is not None:
            raise InputError(f"got minutes={minutes:g} for {source}, which fixes the number of updates; "
                             "leave --minutes out")
        return Recipe(read(source).replace(**overrides), (f"as in {source}",))
    from undiffuse.recipes import for_data

    return for_data(source, **overrides) if minutes is None else for_data(source, minutes=minutes, **overrides)


def fix_steps(source: str, out: Path | None, changes: Changes | None,
              minutes: float | None) -> tuple[Changes | None, float | None, list[str]]:
    """Changes, minutes and reasons; a run that the folder already holds replaces the minutes by its updates."""
    folder = out or folder_for(source, Experiment(data=source))
    if minutes is None or is_run(source) or not is_run(folder) or (changes and changes.steps is not None):
        return changes, minutes, []
    steps = read(folder).steps
    reason = f"{steps:,} updates, as in the run in {folder}; the time per update was not measured again."
    return dataclasses.replace(changes or Changes(), steps=steps), None, [reason]


def is_run(source: str | Path) -> bool:
    """Whether `source` is the folder of a run."""
    return (Path(source) / "experiment.json").is_file()


def folder_for(source: str, experiment: Experiment) -> Path:
    """The default folder of a run: `source` if it is a run, else runs/NAME with the name of the data."""
    return Path(source) if is_run(source) else Path("runs") / Path(experiment.data).resolve().stem
