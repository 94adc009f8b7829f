"""Imputation: the empty cells of a table, drawn given the cells that hold something.

Every row is an observation of its own, without noise, of a model that was trained on such rows (with cells that were
empty then, too); a draw of p(x | y) fills its gaps. Files come back character by character, but for the gaps.
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
from undiffuse.data import huggingface, tables
from undiffuse.data.checks import decoding
from undiffuse.data.writers import atomic
from undiffuse.errors import InputError, did_you_mean, quote
from undiffuse.inverse import Identity, observe
from undiffuse.inverse.guides import MomentGuide
from undiffuse.model import Model
from undiffuse.pipelines.csv_text import Text, cell
from undiffuse.progress import bar
from undiffuse.samplers.driver import Progress, conditions_of, sample
from undiffuse.tensors import ArrayLike, ConditionValue, as_rows, as_tensor
from undiffuse.transforms.conditions import Condition

_PARTICLES, _AT_ONCE = 256, 2048  # particles that draw one row, and in one block


def impute(model: Model, x: ArrayLike, draws: int = 10, *, seed: int = 0, steps: int = 20,
           labels: ArrayLike | None = None, method: str = "linear",
           conditions: Mapping[str, ConditionValue] | None = None, progress: Progress | None = None) -> Tensor:
    """Draws (draws, N, D) of rows x (N, D) in data units, where NaN is a missing cell; the others stay as they are.

    labels: the class of each row (N,), where the model knows classes; conditions: raw numbers (N, width) of the
    conditions that it knows by name, NaN where they are not known. method: "linear", which takes the covariance of
    x_0 given x_t from the data's moments and is exact if they say all (`MomentGuide`), or one of `observe`: mmps takes
    it from the network, twisted tends to the truth. progress: as that of `sample`. Raises InputError for rows that are
    not the model's.
    """
    x = as_tensor(x, "x")
    z, given = model.transform.forward(x), conditions_of(model, _given(labels, conditions), len(x)) if x.ndim else {}
    if draws < 1 or tuple(z.shape[1:]) != model.shape:
        raise InputError(f"got {draws} draws of rows {tuple(x.shape[1:])}; expected at least 1 of the model's own rows")
    full = x.expand(draws, *x.shape).clone()
    rows = z.isnan().any(1).nonzero()[:, 0]
    if len(rows):
        observed, block = _observed(model, method, draws)
        y = z[rows].to(model.dtype).repeat_interleave(draws, 0)
        given = {name: value[rows].repeat_interleave(draws, 0) for name, value in given.items()}
        drawn = sample(observed, len(rows) * draws, steps=steps, seed=seed, block=block, progress=progress, y=y,
                       **given).x
        full[:, rows] = drawn.reshape(len(rows), draws, -1).transpose(0, 1).to(x)
    constant = model.transform.inverse(torch.zeros(1, *model.shape, dtype=torch.float64)).to(x)
    full = torch.where(full.isnan(), constant, full)
    return torch.where(x.isnan(), full, x)


def _given(labels: ArrayLike | None, conditions: Mapping[str, ConditionValue] | None) -> dict[str, Any]:
    """Labels and conditions as those of `sample`."""
    return {**(conditions or {}), **({} if labels is None else {"label": as_rows(labels, "labels", ()).long()})}


def _observed(model: Model, method: str, draws: int) -> tuple[Model, int | None]:
    """p(x | y), and how many samples are drawn at once; particles make all draws of a row in one run."""
    if method == "linear" and model.moments is not None:
        return MomentGuide(model), None
    particles = draws * -(-_PARTICLES // draws)
    options: dict[str, Any] = {"group": draws, "particles": particles} if method == "twisted" else {}
    seen = observe(model, Identity(), None, 0.0, "mmps" if method == "linear" else method, units="model", **options)
    return seen, draws * max(1, _AT_ONCE // particles) if options else None


def impute_file(run: Path, table: Path, out: Path, draws: int = 10, seed: int = 0, steps: int = 20,
                interval: float = 0.9, method: str = "linear", device: str = "auto") -> list[Path]:
    """Writes draw-1.csv ... and summary.csv (.tsv of a .tsv) into the folder `out`, and returns their paths.

    summary.csv holds the mean of the draws in each gap, of words the most frequent, and for every column with gaps two
    more, the ends of the interval that holds that share of the draws, of words the share of the most frequent one.
    Raises InputError for a table that is not the run's, one without gaps, and a folder that holds something.
    """
    _check(out, draws, interval)
    opened, model = training.open_run(run), training.load(run, device=device)
    about = opened.config["data"]
    if about["kind"] == "image":
        raise InputError(f"{run} was trained on images; expected the run of a table")
    asked = _read(table, about, opened.experiment.label, model.conditions)
    if not asked.x.isnan().any():
        given = [opened.experiment.label or "", *(c.name for c in model.conditions)]
        left = f" in the columns that the run draws (not {', '.join(filter(None, given))})" if any(given) else ""
        raise InputError(f"{quote(table)} has no empty cell{left}, so there is nothing to fill")
    labels = asked.labels if model.classes else None
    with bar("imputing") as progress:
        filled = impute(model, asked.x, draws, seed=seed, steps=steps, labels=labels, method=method,
                        conditions=asked.conditions, progress=progress).numpy()
    out.mkdir(parents=True, exist_ok=True)
    suffix = ".tsv" if table.suffix.lower() == ".tsv" else ".csv"
    files = {out / f"draw-{k + 1}{suffix}": asked.with_gaps(filled[k]) for k in range(draws)}
    files[out / f"summary{suffix}"] = _summary(asked, filled, interval)
    for path, text in files.items():
        with atomic(path) as file:
            file.write(text.encode())
    return list(files)


@dataclass(frozen=True)
class _Asked:
    """A table to complete: its text, the rows x (N, D) in the model's order, and where each column is in the text."""

    text: Text
    x: Tensor
    labels: Tensor | None
    conditions: dict[str, Tensor]
    names: Sequence[str]
    words: Sequence[Sequence[str]]
    at: list[int]

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """The missing cells, as (row, column of the model)."""
        return [(i, j) for i, j in self.x.isnan().nonzero().tolist()]

    def with_gaps(self, values: NDArray[np.floating[Any]]) -> str:
        """The text with the gaps filled."""
        return self.text.filled({(i, self.at[j]): self.shown(j, values[i, j]) for i, j in self.gaps})

    def shown(self, j: int, value: float) -> str:
        """A value of column j as a cell."""
        return cell(self.words[j][int(value)] if self.words[j] else format(value, ".9g"), self.text.separator)


def _check(out: Path, draws: int, interval: float) -> None:
    if draws < 1 or not 0 < interval < 1:
        raise InputError(f"got draws={draws} and interval={interval}; expected at least 1, and a share between 0 and 1")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{quote(out)} holds something; choose another folder")


def _read(path: Path, about: dict[str, Any], label: str | None, conditions: Sequence[Condition]) -> _Asked:
    """The table, in the order of the run's columns."""
    if path.suffix.lower() not in (".csv", ".tsv", ".parquet") or not path.is_file():
        raise InputError(f"{quote(path)} is not a table that can be filled in; expected a .csv, .tsv or .parquet file")
    names, words = about["columns"], about.get("words") or [[]] * len(about["columns"])
    if path.suffix.lower() == ".parquet":
        cells = huggingface.read_cells(path)
        text = Text.of(cells)
    else:
        with decoding(path, "a table"):
            cells = tables.read_cells(path)
            text = Text.read(path, cells)
    told = [c for c in conditions if c.name in cells.columns]
    at = _places(cells, names, [label, *(c.name for c in told)])
    texts = cells.texts([j for j, w in zip(at, words, strict=True) if w])
    columns = [_words(cells, j, texts[j], w) if w else _numbers(cells, j) for j, w in zip(at, words, strict=True)]
    x = torch.from_numpy(np.stack(columns, 1).astype(np.float32))
    given = {c.name: _condition(cells, c) for c in told}
    return _Asked(text, x, _labels(cells, label, about["classes"]), given, names, words, at)


def _places(cells: tables.Cells, names: Sequence[str], beside: Sequence[str | None]) -> list[int]:
    """Where the model's columns stand in the table; InputError if one is missing or there is another."""
    table = quote(cells.path)
    for name in names:
        if name not in cells.columns:
            raise InputError(f"{table} has no column {quote(name)}, which the model was trained on"
                             f"{did_you_mean(name, cells.columns)}")
    others = [c for c in cells.columns if c not in names and c not in beside]
    if others:
        raise InputError(f"{table} has a column {quote(others[0])} that the model was not trained on; remove it")
    return [cells.columns.index(name) for name in names]


def _numbers(cells: tables.Cells, j: int) -> NDArray[np.float64]:
    if cells.words[j]:
        i, word = next(iter(cells.words[j].items()))
        raise InputError(f"{cells.where(i, j)} holds {quote(word)}; expected a number, or nothing")
    tables.check_finite(cells, j)
    return cells.values[:, j]


def _words(cells: tables.Cells, j: int, text: Sequence[str], words: Sequence[str]) -> NDArray[np.float64]:
    codes = tables.coded(text, words)
    for i in np.flatnonzero(np.isnan(codes)).tolist():
        if not tables.missing(text[i]):
            raise InputError(f"{cells.where(i, j)} holds {quote(text[i])}, which the model has never seen; expected "
                             f"one of {', '.join(map(quote, words[:8]))}{did_you_mean(text[i], words)}")
    return codes


def _condition(cells: tables.Cells, condition: Condition) -> Tensor:
    """A column of conditions as raw numbers (N, width), NaN where the cell is empty."""
    j = cells.columns.index(condition.name)
    text = cells.texts([j])[j]
    rows = condition.rows([None if tables.missing(cell) else cell for cell in text], len(text))
    condition.check(rows)
    return rows


def _labels(cells: tables.Cells, label: str | None, classes: Sequence[str]) -> Tensor | None:
    """The number of each row's class, that of no class where the cell is empty; None without such a column."""
    if label not in cells.columns:
        return None
    j = cells.columns.index(label)
    codes = _words(cells, j, cells.texts([j])[j], classes)
    return torch.from_numpy(np.where(np.isnan(codes), len(classes), codes).astype(np.int64))


def _summary(asked: _Asked, filled: NDArray[np.floating[Any]], interval: float) -> str:
    """The table with the middle of the draws in its gaps, and columns that say how sure they are."""
    columns = sorted({j for _, j in asked.gaps})
    middle: dict[tuple[int, int], str] = {}
    beside: dict[tuple[int, str], str] = {}
    for i, j in asked.gaps:
        draws = filled[:, i, j].astype(np.float64)
        if asked.words[j]:
            counts = np.bincount(draws.astype(np.int64))
            middle[i, asked.at[j]] = asked.shown(j, float(counts.argmax()))
            beside[i, f"{asked.names[j]}_share"] = format(counts.max() / len(draws), ".4g")
        else:
            low, high = np.quantile(draws, [(1 - interval) / 2, (1 + interval) / 2], method="weibull")
            middle[i, asked.at[j]] = format(draws.mean(), ".9g")
            beside[i, f"{asked.names[j]}_low"] = format(low, ".9g")
            beside[i, f"{asked.names[j]}_high"] = format(high, ".9g")
    ends = [[f"{asked.names[j]}_share"] if asked.words[j] else [f"{asked.names[j]}_low", f"{asked.names[j]}_high"]
            for j in columns]
    return asked.text.filled(middle, [name for pair in ends for name in pair], beside)
