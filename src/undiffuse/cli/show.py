"""`undiffuse show RUN|RECIPE`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from undiffuse.cli.options import OptionalChanges, is_run, resolve
from undiffuse.experiment import Experiment


def show(what: str, /, *, as_json: Annotated[bool, Parameter("--json", negative="")] = False,
         changes: OptionalChanges = None) -> None:
    """Print the settings of a run, or the columns of a table and the settings that `train` would choose for data.

    Args:
        what: A run, an experiment.json, or DATA as for train.
        as_json: Print the JSON that `undiffuse train FILE.json` reads.
    """
    recipe = resolve(what, changes)
    reasons = [*recipe.reasons, *_outcome(what, recipe.experiment)]
    fields = recipe.experiment.to_dict()
    if as_json:
        print(json.dumps(fields, indent=2))
    else:
        from undiffuse.data.dataset import column_lines

        lines = column_lines(recipe.data) if recipe.data else []
        settings = [f"{name:<25}{value}" for name, value in fields.items()]
        print(*lines, *[""] * bool(lines), *settings, *reasons, sep="\n")


def _outcome(what: str, experiment: Experiment) -> list[str]:
    """The progress of a run; empty for data and before the first update."""
    if not is_run(what):
        return []
    from undiffuse.training.early_stopping import stopping_summary
    from undiffuse.training.metrics_log import NAME, read_metrics

    entries = read_metrics(Path(what) / NAME)
    return [stopping_summary(entries, experiment)] if entries else []
