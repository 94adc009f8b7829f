"""A table of scores: the log-likelihood of rows under a run, with its errors, a rank and a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from undiffuse.atomic_files import atomic_set, check_places
from undiffuse.data import Dataset, open_data
from undiffuse.data.pixel_units import PixelUnits
from undiffuse.data.sources import read_images, read_rows
from undiffuse.errors import InputError
from undiffuse.experiment import Experiment
from undiffuse.interop.imported import open_model
from undiffuse.likelihood import Likelihood, log_likelihood
from undiffuse.likelihood.column_surprise import column_surprise
from undiffuse.model import Model
from undiffuse.pipelines import series, series_files
from undiffuse.pipelines.array_samples import read_array
from undiffuse.progress import bar, say
from undiffuse.report.plots import least_likely, scores_figure

_NAMED = 3  # columns that are named for a row

def score(run: Path, source: str, out: Path, *, n: int | None, part: str, seed: int, device: str, rank: bool = False,
          **options: Any) -> str:
    """Write the table `out` (.csv) and a figure of the same name (.png); returns a summary of a few lines.

    Columns: row, rank (1: the most unusual), log_prob, bits_per_dim, and the parts of `Likelihood`; with `rank` also
    surprise_NAME for every column of a table, see `likelihood.column_surprise`.

    Args:
        run: folder of the run.
        source: data of the kind of the run, as for `open_data`.
        out: the table to write.
        n: number of rows from the start on; None: all.
        part: "train" or "test", where the source has both.
        seed: random seed.
        device: device of the model.
        rank: sort the rows by rank, and say which columns make them unusual.
        options: arguments of `log_likelihood`.

    Raises:
        InputError: for data of another kind or with other columns than the training data.
    """
    if out.suffix.lower() != ".csv" or (n is not None and n < 1):
        raise InputError(f"got {out} and n={n}; expected a name that ends in .csv and at least one row")
    picture = out.with_suffix(".png")
    check_places([out, picture], [source])
    opened = open_model(run, device)
    model = opened.model
    if series.is_series(model):
        return series_files.score_file(model, source, out, rank)
    data, novel = load_rows(source, model, opened.experiment, opened.data, part, n)
    data = data.take(torch.arange(len(data))[:n])
    scores = _with_progress(model, data, seed, options)
    scores = replace(scores, log_prob=scores.log_prob.masked_fill(novel[:len(data)], -math.inf))
    table = {"row": torch.arange(1.0, 1 + len(data)), "rank": scores.log_prob.argsort().argsort() + 1.0,
             "log_prob": scores.log_prob, "bits_per_dim": scores.bits_per_dim, **scores.budget()}
    has_columns = data.kind in ("points", "table")
    surprise = column_surprise(model, data.x, seed=seed) if rank and has_columns else None
    if surprise is not None:
        table |= {f"surprise_{name}": column for name, column in zip(data.columns, surprise.T, strict=True)}
    if rank:
        table = {name: column[table["rank"].argsort()] for name, column in table.items()}
    possible = scores.log_prob.isfinite()
    with atomic_set([out, picture]) as (rows, figure):
        rows.write(_csv_text(table).encode())
        figure.write(scores_figure(scores.select(possible), data.take(possible.nonzero()[:, 0]),
                                   None if surprise is None else surprise[possible]))
    return f"{summary(scores)}{_reasons(scores, surprise, data.columns)}\n{out} and {picture}"


def _reasons(scores: Likelihood, surprise: torch.Tensor | None, columns: Sequence[str]) -> str:
    """The columns with the largest surprise of the most unusual rows, a line per row."""
    if surprise is None:
        return ""
    lines = [""]
    for i in least_likely(scores).tolist():
        largest = [j for j in surprise[i].argsort(descending=True).tolist() if surprise[i, j] > 0][:_NAMED]
        lines.append(f"row {i + 1}: " + (", ".join(f"{columns[j]} {float(surprise[i, j]):+.1f}" for j in largest)
                                         or "no column by itself"))
    return "\n".join([*lines, "nats above those of the model's own samples, by column"])


def _csv_text(table: dict[str, torch.Tensor]) -> str:
    """Columns as the text of a .csv file; -inf for an impossible row."""
    rows = zip(*(column.tolist() for column in table.values()), strict=True)
    return "\n".join([",".join(table), *(",".join(map(repr, row)) for row in rows), ""])


def load_rows(source: str, model: Model, experiment: Experiment, config: dict[str, Any],
              part: str = "train", n: int | None = None) -> tuple[Dataset, torch.Tensor]:
    """The rows of a source, columns in the order of the run's, without label and conditions, and which are novel (N,).

    A table is read as the run's was: one row is enough, columns are matched by name, absent ones are missing values,
    and a row is novel with a category that the training data do not have.

    Args:
        source: data as for `open_data`.
        model: model of the run.
        experiment: experiment of the run.
        config: data section of the run's model configuration.
        part: "train" or "test".
        n: number of rows from the start on; None: all.
    """
    first, schema = experiment.max_rows if source == experiment.data else None, model.schema
    if schema is not None and (rows := read_rows(source, schema, part, first)) is not None:
        for note in rows.notes:
            say(note)
        x = rows.x.float() if config["kind"] == "points" else rows.x
        return Dataset(x, None, config["kind"], Path(source).name, columns=schema.columns, categories=schema.categories
                       ), torch.from_numpy(rows.novel)
    if config["kind"] == "image":
        return _images(source, model, experiment, config, part, first if n is None else min(n, first or n))
    if model.array is not None:
        x = read_array(source, model, part, n)
        samples = Dataset(x, None, "array", Path(source).name, columns=model.array.channels, array=model.array)
        return samples, torch.zeros(len(x), dtype=torch.bool)
    data = open_data(source, size=experiment.image_size, part=part, first=first)
    expected = {"kind": config["kind"], "levels": config["levels"], "columns": sorted(config["columns"])}
    values = {"kind": data.kind, "levels": data.levels, "columns": sorted(data.columns)}
    if differing := [f"{name} {values[name]!r} and not {expected[name]!r}" for name in values
                     if values[name] != expected[name]]:
        raise InputError(f"got {data.name}, which has {', '.join(differing)} as the run's data; give rows of that kind")
    novel = torch.zeros(len(data), dtype=torch.bool)
    order = [data.columns.index(name) for name in schema.columns] if schema else []
    return (data if schema is None else replace(data, x=data.x[:, order], columns=schema.columns, y=None)), novel


def _images(source: str, model: Model, experiment: Experiment, config: dict[str, Any], part: str, first: int | None
            ) -> tuple[Dataset, torch.Tensor]:
    """The images of a source in the grey levels of the run, to which they are rounded and limited."""
    units, shape = PixelUnits.from_config(config), model.transform.inverse(torch.empty(0, *model.shape)).shape
    x, notes = read_images(source, units, shape[1], experiment.image_size, part, first)
    if x.isnan().any():
        raise InputError(f"got {source}, which holds NaN; expected whole images")
    levels = x.round().clamp(0, units.levels - 1)
    if outside := int(((levels - x).abs() > 0.5 + 1e-6).flatten(1).any(1).sum()):
        notes.append(f"{outside} images with values outside of the training data's range were limited to it")
    for note in notes:
        say(note)
    kind = torch.uint8 if units.levels <= 256 else torch.int32
    return Dataset(levels.to(kind), None, "image", Path(source).name, levels=units.levels, units=units), torch.zeros(
        len(x), dtype=torch.bool)


def summary(scores: Likelihood) -> str:
    """Mean with its standard error over the rows, median errors per row, and the least likely rows."""
    impossible = int((scores.log_prob == -math.inf).sum())
    some = scores.select(scores.log_prob.isfinite())
    values, unit = (some.bits_per_dim, "bits/dim, at most") if scores.discrete else (some.log_prob, "nats")
    unit += ", at least" * (scores.bound and not scores.discrete)
    stderr = f" ± {float(values.std()) / math.sqrt(len(values)):.4f}" if len(values) > 1 else ""
    mean = f"mean {float(values.mean()):.4f}{stderr} {unit}" if len(values) else "none with a probability above 0"
    mean += f", without {impossible} of probability 0" * (0 < impossible < len(scores.log_prob))
    parts = ", ".join(f"{name} {float(getattr(scores, name).median()):.2g}"
                      for name in ("stderr", "solver", "truncation_error", "prior"))
    rows = ", ".join(str(i + 1) for i in least_likely(scores).tolist())
    return (f"{len(scores.log_prob)} rows: {mean}, {float(scores.nfe.median()):.0f} model evaluations per row\n"
            f"median error per row in nats: {parts}\nmost unusual rows: {rows}")


def _with_progress(model: Model, data: Dataset, seed: int, options: dict[str, Any]) -> Likelihood:
    """The likelihood, with a progress bar on a terminal."""
    block = 32 if data.x[0].numel() > 64 else 256
    with bar("scoring") as progress:
        return log_likelihood(model, data.x, seed=seed, block=block, progress=progress, **options)
