"""A table of scores: the log-likelihood of given rows under a run, with its budget, a rank and a figure."""

from __future__ import annotations

import math
from itertools import repeat
from pathlib import Path
from typing import Any

import torch

from undiffuse import training
from undiffuse.data import Dataset, open_data, save_samples, tables
from undiffuse.data.writers import atomic
from undiffuse.errors import InputError, did_you_mean, quote
from undiffuse.experiment import Experiment
from undiffuse.likelihood import Likelihood, log_likelihood
from undiffuse.model import Model
from undiffuse.progress import bar
from undiffuse.report.plots import scores_figure, unusual
from undiffuse.transforms.conditions import named


def score(run: Path, source: str, out: Path, *, n: int | None, part: str, seed: int, device: str,
          **options: Any) -> str:
    """Write the table `out` (.csv) and the figure beside it (.png); a summary in a few lines.

    Columns: row, rank (1: the most unusual), log_prob, bits_per_dim, and the parts of `Likelihood`.
    """
    if out.suffix.lower() != ".csv" or (n is not None and n < 1):
        raise InputError(f"got {out} and n={n}; expected a name that ends in .csv and at least one row")
    opened, model = training.open_run(run), training.load(run, device=device)
    experiment = opened.experiment
    data = _rows(source, experiment, part)
    _same_kind(opened.config["data"], data)
    data = data.take(torch.arange(len(data))[:n])
    found = _watched(model, data, seed, options)
    table = {"row": torch.arange(1.0, 1 + len(data)), "rank": found.log_prob.argsort().argsort() + 1.0,
             "log_prob": found.log_prob, "bits_per_dim": found.bits_per_dim, **found.budget()}
    save_samples(out, torch.stack([column.double() for column in table.values()], 1), columns=list(table))
    picture = out.with_suffix(".png")
    with atomic(picture) as file:
        file.write(scores_figure(found, data))
    return f"{summary(found)}\n{out} and {picture}"


def _rows(source: str, experiment: Experiment, part: str) -> Dataset:
    """The rows, less what the run takes for class or conditions where the source has that."""
    label, told, path = experiment.label, experiment.condition, Path(source).expanduser()
    always: dict[str, Any] = {"size": experiment.image_size, "part": part,
                              "first": experiment.max_rows if source == experiment.data else None}
    if path.suffix.lower() in (".csv", ".tsv") and path.is_file():
        there = tables.read_names(path)
        label = label if label in there else None
        told = tuple(spec for spec in told if named(spec)[0] in there)
        return open_data(source, label=label, condition=told, **always)
    try:
        return open_data(source, label=label, condition=told, **always)
    except InputError:  # of a source that names what it holds before it is read
        return open_data(source, **always)


def summary(found: Likelihood) -> str:
    """The mean with its standard error over the rows, the errors of a row, and the most unusual ones."""
    values, unit = (found.bits_per_dim, "bits/dim, at most") if found.discrete else (found.log_prob, "nats")
    spread = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    parts = ", ".join(f"{name} {float(getattr(found, name).median()):.2g}"
                      for name in ("stderr", "solver", "truncation_error", "prior"))
    rows = ", ".join(str(i + 1) for i in unusual(found).tolist())
    return (f"{len(values)} rows: mean {float(values.mean()):.4f} ± {spread:.4f} {unit}, "
            f"{float(found.nfe.median()):.0f} evaluations a row\nmedian error of a row in nats: {parts}\n"
            f"most unusual rows: {rows}")


def _watched(model: Model, data: Dataset, seed: int, options: dict[str, Any]) -> Likelihood:
    """The likelihood, with a bar on a terminal."""
    block = 32 if data.x[0].numel() > 64 else 256
    with bar("scoring") as progress:
        return log_likelihood(model, data.x, seed=seed, block=block, progress=progress, **options)


def _same_kind(about: dict[str, Any], data: Dataset) -> None:
    """InputError where the rows are of another kind than those of the run, or hold words that those do not."""
    here = {"kind": data.kind, "levels": data.levels, "columns": list(data.columns)}
    differing = [f"{name} {here[name]!r} and not {about[name]!r}" for name in here
                 if here[name] != (list(about[name]) if name == "columns" else about[name])]
    if differing:
        raise InputError(f"got {data.name}, which has {', '.join(differing)} as the run's data; give rows of that kind")
    for column, words, there in zip(data.columns, data.words, about.get("words") or repeat(()), strict=False):
        if unknown := [word for word in words if word not in there]:
            expected = f"one of {', '.join(map(quote, there[:8]))}" if there else "numbers"
            raise InputError(f"column {quote(column)} of {data.name} holds {quote(unknown[-1])}, which the run's data "
                             f"do not; expected {expected}{did_you_mean(unknown[-1], there)}")
