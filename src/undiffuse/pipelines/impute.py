"""Imputation: several samples of the missing values of every row, given the values that the row has.

A row with missing values is a noiseless observation y of a complete row x; a sample of p(x | y) fills the missing
values. In the written tables only the missing values change; all other characters are copied from the input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse import training
from undiffuse.atomic_files import atomic_folder
from undiffuse.data.arrays import load_rows
from undiffuse.data.delimited_text import unpacked_suffix
from undiffuse.data.sources import open_cells
from undiffuse.errors import InputError, quote
from undiffuse.inverse import Identity, observe
from undiffuse.inverse.guides import MomentGuide
from undiffuse.inverse.row_imputer import RowImputer
from undiffuse.model import Model
from undiffuse.pipelines import series
from undiffuse.pipelines.array_samples import impute_array_file, read_array
from undiffuse.pipelines.csv_text import Text, cell
from undiffuse.progress import bar, say
from undiffuse.samplers.driver import Progress, conditions_of, sample
from undiffuse.tensors import ArrayLike, ConditionValue, as_rows, as_tensor
from undiffuse.transforms.table_cells import Cells, array_cells
from undiffuse.transforms.table_schema import TableRows, TableSchema

_ROWS = 100  # values of every column from which rows are imputed from one another
_PARTICLES, _MAX_PARTICLES = 256, 2048  # particles per row, and in one block


def impute(model: Model, x: ArrayLike, draws: int = 10, *, seed: int = 0, steps: int = 20,
           labels: ArrayLike | None = None, method: str = "auto",
           conditions: Mapping[str, ConditionValue] | None = None, progress: Progress | None = None) -> Tensor:
    """Samples (draws, *x.shape) of rows with missing values, in data units; other values are returned unchanged.

    Args:
        model: a model of complete rows, or of arrays.
        x: rows (N, D), or an array in the layout of the training data, with NaN where missing; or a DataFrame, whose
            columns are matched by name to the training table; its label and condition columns are used unless labels or
            conditions are passed; for a model of a series, the DataFrame is a series and the result (draws, rows, C).
        draws: number of samples per missing value.
        seed: random seed.
        steps: number of steps from noise to data.
        labels: class numbers (N,).
        method: "rows" (`inverse.row_imputer`, from the rows x themselves, without the network), "linear" (covariance of
            x_0 given x_t from the data's moments, exact for Gaussian data), or of `observe`: "mmps" (covariance from
            the network), "twisted" (converges to the exact posterior), ...; "auto": "rows" if every column has at least
            100 values in x and no label or condition is passed, else "linear".
        conditions: by name, one value for all rows or one per row; NaN where unknown.
        progress: called as progress(done, total).

    Raises:
        InputError: if the rows do not match the model.
    """
    if hasattr(x, "columns") and series.is_series(model):
        return torch.from_numpy(series.fill_rows(model, series.open_series(model, x), draws, seed, method))
    if model.schema is not None and model.schema.matches_by_name(x):
        rows = model.schema.encode(x)
        x, labels, conditions = rows.x, rows.labels if labels is None else labels, conditions or rows.conditions
    x = as_tensor(x, "x")
    z = model.transform.forward(x)
    cond = conditions_of(model, _as_conditions(labels, conditions), len(x)) if x.ndim else {}
    if draws < 1 or tuple(z.shape[1:]) != model.shape:
        raise InputError(f"got draws={draws}, rows {tuple(x.shape[1:])}; expected draws ≥ 1, rows {model.shape}")
    full = x.expand(draws, *x.shape).clone()
    incomplete = z.flatten(1).isnan().any(1).nonzero()[:, 0]
    if method == "auto":
        method = "rows" if _many(model, x) and not cond else "linear"
    if len(incomplete) and method == "rows":
        counts = [len(words) for words in model.schema.categories] if model.schema else []
        imputer = RowImputer.fit(x.double().numpy(), counts or [0] * x.shape[1], seed)
        full = torch.from_numpy(imputer.sample(x.double().numpy(), draws)).to(x)
    elif len(incomplete):
        posterior, block = _posterior(model, method, draws)
        y = z[incomplete].to(model.dtype).repeat_interleave(draws, 0)
        cond = {name: value[incomplete].repeat_interleave(draws, 0) for name, value in cond.items()}
        samples = sample(posterior, len(y), steps=steps, seed=seed, block=block, progress=progress, y=y, **cond).x
        full[:, incomplete] = samples.reshape(len(incomplete), draws, *x.shape[1:]).transpose(0, 1).to(x)
    constant = model.transform.inverse(torch.zeros(1, *model.shape, dtype=torch.float64)).to(x)
    full = torch.where(full.isnan(), constant, full)
    return torch.where(x.isnan(), full, x)


def impute_file(run: Path, table: Path, out: Path, draws: int = 10, seed: int = 0, steps: int = 20,
                interval: float = 0.9, method: str = "auto", device: str = "auto") -> list[Path]:
    """Write draw-1.csv ... and summary.csv (.tsv for a .tsv) into a folder; returns their paths.

    summary.csv holds the mean of the samples of every missing value (the most frequent category), and for every column
    with missing values the endpoints of an interval (the fraction of the most frequent category).

    Args:
        run: folder of the run.
        table: a .csv, .tsv or .parquet file.
        out: folder to write, new or empty.
        draws: number of samples per missing value.
        seed: random seed.
        steps: number of steps from noise to data.
        interval: fraction of the samples inside the interval.
        method: see `impute`.
        device: device of the model.

    Raises:
        InputError: if the table does not match the run or has no missing values, or if the folder is not empty.
    """
    check_folder(out, draws, interval)
    model = training.load(run, device=device)
    if series.is_series(model):
        return _impute_series(model, table, out, draws, seed, interval, method)
    if (schema := model.schema) is None:
        if model.array is not None:
            return _impute_array(model, table, out, draws, seed, steps, interval, method)
        raise InputError(f"{run} was trained on images; expected the run of a table or an array")
    if table.suffix.lower() == ".npy" and table.is_file():
        cells = array_cells(load_rows(table), schema.columns, str(table))
    elif (opened := open_cells(str(table), options=schema.options, names=schema.order)) is not None:
        cells = opened
    else:
        raise InputError(f"{quote(table)} is not a table that can be filled in; expected a .csv, .tsv, .txt, .xlsx, "
                         f".parquet or "
                         ".npy file")
    text, rows = Text.of(cells), schema.encode(cells)
    for note in (*cells.notes, *rows.notes):
        say(note)
    if not rows.missing.any():
        other = [name for name in (schema.label, *(c.name for c in schema.conditions)) if name]
        where = f" in the columns that the run samples (not {', '.join(other)})" if other else ""
        raise InputError(f"{quote(table)} has no empty cell{where}, so there is nothing to fill")
    with bar("imputing") as progress:
        samples = impute(model, rows.x, draws, seed=seed, steps=steps, labels=rows.labels if model.classes else None,
                         method=method, conditions=rows.conditions, progress=progress).numpy()
    return _write(table, out, cells, _Filled(text, schema, rows, samples), interval)


def _impute_array(model: Model, source: Path, out: Path, draws: int, seed: int, steps: int, interval: float, method: str
                  ) -> list[Path]:
    """`impute_file` for a model of arrays."""
    x = read_array(str(source), model)
    if not x.isnan().any():
        raise InputError(f"{quote(source)} has no missing value (NaN), so there is nothing to fill")
    with bar("imputing") as progress:
        samples = impute(model, x, draws, seed=seed, steps=steps, method=method, progress=progress)
    return impute_array_file(model, source, out, samples, x, interval)


def _impute_series(model: Model, table: Path, out: Path, draws: int, seed: int, interval: float, method: str
                   ) -> list[Path]:
    """`impute_file` for a model of windows of a series."""
    opened = series.open_series(model, table)
    for note in (*opened.cells.notes, *opened.notes):
        say(note)
    if not opened.rows.missing.any():
        raise InputError(f"{quote(table)} has no empty cell in the columns that the run samples; to go on after its "
                         f"last row use undiffuse forecast")
    text, samples = Text.of(opened.cells), series.fill_rows(model, opened, draws, seed, method)
    return _write(table, out, opened.cells, _Filled(text, opened.schema.table, opened.rows, samples), interval)


def _write(table: Path, out: Path, cells: Cells, filled: _Filled, interval: float) -> list[Path]:
    """The files of the draws and their summary in a new folder."""
    draws, suffix = len(filled.samples), unpacked_suffix(table) if cells.separator else ".csv"
    files = {f"draw-{k + 1}{suffix}": filled.draw(k) for k in range(draws)}
    files[f"summary{suffix}"] = filled.summary(interval)
    with atomic_folder(out) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
    return [out / name for name in files]


def _many(model: Model, x: Tensor) -> bool:
    """Whether every column of a table has enough values to impute the rows from one another."""
    return model.schema is not None and x.ndim == 2 and int((~x.isnan()).sum(0).min()) >= _ROWS


def _as_conditions(labels: ArrayLike | None, conditions: Mapping[str, ConditionValue] | None) -> dict[str, Any]:
    """Labels and conditions as arguments of `sample`."""
    return {**(conditions or {}), **({} if labels is None else {"label": as_rows(labels, "labels", ()).long()})}


def _posterior(model: Model, method: str, draws: int) -> tuple[Model, int | None]:
    """p(x | y) and the block size (None: default); in particle methods one group holds all samples of a row."""
    if method == "linear" and model.moments is not None:
        return MomentGuide(model), None
    particles = draws * -(-_PARTICLES // draws)
    options: dict[str, Any] = {"group": draws, "particles": particles} if method == "twisted" else {}
    posterior = observe(model, Identity(), None, 0.0, "mmps" if method == "linear" else method, units="model",
                        **options)
    return posterior, draws * max(1, _MAX_PARTICLES // particles) if options else None


def check_folder(out: Path, draws: int, interval: float) -> None:
    """InputError for a folder that is not empty, no draws, and an interval beyond 0 to 1."""
    if draws < 1 or not 0 < interval < 1:
        raise InputError(f"got draws={draws} and interval={interval}; expected at least 1, and a fraction between 0 "
                         "and 1")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{quote(out)} is not empty; choose another folder")


@dataclass(frozen=True)
class _Filled:
    """The text of a table and samples (draws, N, D) of its missing values."""

    text: Text
    schema: TableSchema
    rows: TableRows
    samples: NDArray[np.floating[Any]]

    @property
    def missing(self) -> list[tuple[int, int]]:
        """The missing values, as (row, column of the schema)."""
        return [(int(i), int(j)) for i, j in np.argwhere(self.rows.missing)]

    @property
    def absent(self) -> list[str]:
        """The columns of the schema that the table does not have, which are added on the right."""
        return [name for name, place in zip(self.schema.columns, self.rows.places, strict=True) if place < 0]

    def draw(self, k: int) -> bytes:
        """The table filled with sample k."""
        return self.filled({(i, j): self.cell(j, self.samples[k, i, j]) for i, j in self.missing}, [], {})

    def filled(self, cells: Mapping[tuple[int, int], str], columns: Sequence[str],
               values: Mapping[tuple[int, str], str]) -> bytes:
        """The table with texts of missing values, by row and column of the schema, and with further columns."""
        places, names = self.rows.places, self.schema.columns
        present = {(i, places[j]): text for (i, j), text in cells.items() if places[j] >= 0}
        added = {(i, names[j]): text for (i, j), text in cells.items() if places[j] < 0}
        return self.text.filled(present, [*self.absent, *columns], {**added, **values})

    def cell(self, j: int, value: float) -> str:
        """A value of column j as a cell."""
        return cell(self.schema.formats[j].text(value), self.text.separator)

    def summary(self, interval: float) -> bytes:
        """The table filled with means (or modes), with columns for their spread."""
        centres: dict[tuple[int, int], str] = {}
        spread: dict[tuple[int, str], str] = {}
        for i, j in self.missing:
            values, name = self.samples[:, i, j].astype(np.float64), self.schema.columns[j]
            if self.schema.categories_of(j):
                counts = np.bincount(values.astype(np.int64))
                centres[i, j] = self.cell(j, float(counts.argmax()))
                spread[i, f"{name}_share"] = format(counts.max() / len(values), ".4g")
            else:
                bounds = np.quantile(values, [(1 - interval) / 2, (1 + interval) / 2], method="weibull")
                centres[i, j] = self._number(j, values.mean())
                spread |= {(i, f"{name}_{end}"): self._number(j, v) for end,
                           v in zip(("low", "high"), bounds, strict=True)}
        columns = [f"{self.schema.columns[j]}_{end}" for j in sorted({j for _, j in self.missing})
                   for end in (("share",) if self.schema.categories_of(j) else ("low", "high"))]
        return self.filled(centres, columns, spread)

    def _number(self, j: int, value: float) -> str:
        """A mean or quantile: in the notation of the column, of plain numbers with all digits."""
        form = self.schema.formats[j]
        plain = form.kind == "number" and (form.number is None or form.number.plain)
        return format(value, ".9g") if plain else self.cell(j, value)
