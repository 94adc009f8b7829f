"""Tables: .csv and .tsv files of numbers and categories, and single-cell data in .h5ad files (AnnData)."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.data.dataset import Dataset, with_conditions
from undiffuse.data.validation import decoding, make_table
from undiffuse.errors import InputError, MachineError, did_you_mean, quote
from undiffuse.transforms.conditions import Condition, infer_rows, parse_spec
from undiffuse.transforms.table_schema import (
    Cells,
    Row,
    check_names,
    default_columns,
    infer_schema,
    is_missing,
    is_number,
)

_MAX_LINE = 1 << 20
_MAX_BYTES = 1 << 31


def read_table(path: Path, label: str | None = None, condition: Sequence[str] = ()) -> Dataset:
    """The Dataset in a .csv or .tsv file.

    The separator is the one of comma, semicolon and tab that the first line has most of. Empty cells, NA, NaN, null,
    none, ? and - are missing values. A column of texts becomes the numbers of its categories.

    Args:
        path: the file.
        label: name of the column of classes.
        condition: columns that are conditions, as NAME or NAME:KIND.

    Raises:
        InputError: naming row and column, for a text among numbers, a missing label and a row of another length.
    """
    with decoding(path, "a table"):
        return from_cells(read_cells(path), path.name, label, condition)


def read_h5ad(path: Path, label: str | None = None, condition: Sequence[str] = ()) -> Dataset:
    """The Dataset in an AnnData file: X, sparse or dense.

    Args:
        path: the file.
        label: column of obs that holds the classes.
        condition: columns of obs that are conditions, as NAME or NAME:KIND.

    Raises:
        MachineError: if the package anndata is missing.
        InputError: for a file without X, an unknown column, and more than 2 GiB of numbers.
    """
    try:
        import anndata
    except ImportError:
        raise MachineError(f"{quote(path)} needs the package anndata; install it with pip install "
                           "'undiffuse[cells]'") from None
    with decoding(path, "an AnnData file"):
        cells = anndata.read_h5ad(path)
        if cells.X is None:
            raise InputError(f"{quote(path)} has no X; expected the matrix of cells and genes there")
        if 8 * cells.n_obs * cells.n_vars > _MAX_BYTES:
            raise InputError(f"{quote(path)} holds {cells.n_obs:,} cells of {cells.n_vars:,} genes, over 2 GiB of "
                             "numbers; choose the genes that vary most, or save its principal components as .npy")
        x = np.asarray(cells.X.toarray() if hasattr(cells.X, "toarray") else cells.X, np.float64)
        label_texts = None if label is None else _obs_texts(cells.obs, label, path)
        conditions = [_obs_condition(cells.obs, path, *parse_spec(spec)) for spec in condition]
        genes = [str(name) for name in cells.var_names]
    if label_texts and "" in label_texts:
        raise InputError(f"the column {quote(label)} of {quote(path)} is empty for some cells; fill it in or remove "
                         "them")
    columns = genes if len(set(genes)) == len(genes) else ()
    data = make_table(x, name=path.name, columns=columns, label_texts=label_texts, notes=_count_notes(x))
    return with_conditions(data, conditions)


def from_cells(cells: Cells, name: str, label: str | None = None, condition: Sequence[str] = ()) -> Dataset:
    """The Dataset of the cells of a table.

    Args:
        cells: the cells of the table.
        name: name of the dataset.
        label: name of the column of class labels; None: no labels.
        condition: specifications of the columns that become conditions.
    """
    schema = infer_schema(cells, label, condition)
    rows = schema.encode(cells)
    data = make_table(rows.values, name=name, columns=schema.columns, categories=schema.categories, missing=True,
                      notes=cells.notes)
    return with_conditions(replace(data, y=rows.labels, classes=schema.classes),
                           [(c, rows.conditions[c.name]) for c in schema.conditions])


def read_cells(path: Path) -> Cells:
    """The cells of a .csv or .tsv file."""
    with decoding(path, "a table"), path.open(encoding="utf-8-sig", newline="") as file:
        names, notes, separator, rows = _parts(file, path)
        first = next(rows, None)
        columns = names or default_columns(len(first[1]) if first else 0)
        cells = Cells(path, separator, columns, names is not None, partial(_read_columns, path), notes)
        return cells.fill(chain([first] if first else [], rows))


def _read_columns(path: Path, columns: Sequence[int]) -> dict[int, list[str]]:
    """The texts of some columns, by number, without the header."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [[cells[j] for j in columns] for _, cells in _parts(file, path)[3]]
    return {j: [cells[k] for cells in rows] for k, j in enumerate(columns)}


def _parts(file: TextIO, path: Path) -> tuple[list[str] | None, list[str], str, Iterator[Row]]:
    """The names in the header if there is one, notes, the separator, and the rows below."""
    rows, separator = _rows(file, path)
    head = list(islice(rows, 2))
    if not head:
        raise InputError(f"{quote(path)} is empty; expected one line for each row")
    names, notes = _header(head, quote(path))
    return names, notes, separator, chain(head[1:] if names else head, rows)


def _rows(file: TextIO, path: Path) -> tuple[Iterator[Row], str]:
    """The rows that are not blank, and the separator."""
    lines = _lines(file, path)
    first = next(lines, "")
    separator = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    reader = csv.reader(chain([first], lines), delimiter=separator, strict=True)
    return ((reader.line_num, [cell.strip() for cell in cells]) for cells in reader
            if len(cells) > 1 or "".join(cells).strip()), separator


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    while line := file.readline(_MAX_LINE + 1):
        if len(line) > _MAX_LINE:
            raise InputError(f"{quote(path)} has a line of over {_MAX_LINE:,} characters; expected one line "
                             "for each row, so save wide data as .npy")
        yield line


def _header(head: Sequence[Row], name: str) -> tuple[list[str] | None, list[str]]:
    """The names in the first line, or None if it is data already, and notes."""
    first, below = head[0][1], head[-1][1]
    texts = [cell for cell, under in zip(first, below, strict=False)
             if not is_number(cell) and not is_missing(cell) and is_number(under)]
    numbers = [cell for cell in first if is_number(cell)]
    if texts and numbers:
        raise InputError(f"the first line of {name} mixes numbers such as {quote(numbers[0])} with words "
                         f"such as {quote(texts[0])}; expected a header of names or a row of numbers")
    if len(first) > 2 and first == [str(j) for j in range(len(first))]:
        return first, ["the first line counts the columns and was read as a header"]
    return None if numbers else _names(first, name), []


def _names(header: list[str], name: str) -> list[str]:
    columns = [cell or default for cell, default in zip(header, default_columns(len(header)), strict=True)]
    check_names(columns, name)
    return columns


def _obs_condition(obs: Any, path: Path, name: str, kind: str | None) -> tuple[Condition, Tensor]:
    texts = _obs_texts(obs, name, path)
    return infer_rows(name, kind, obs[name].to_numpy() if obs[name].dtype.kind in "iuf" else texts)


def _obs_texts(obs: Any, name: str, path: Path) -> list[str]:
    """The texts of a column of obs, "" where missing."""
    if name not in obs:
        columns = [str(column) for column in obs.columns]
        raise InputError(f"{quote(path)} has no column {quote(name)} in obs; it has "
                         f"{', '.join(map(quote, columns[:8])) or 'none'}{did_you_mean(name, columns)}")
    return ["" if missing else str(value) for value, missing in zip(obs[name], obs[name].isna(), strict=True)]


def _count_notes(x: NDArray[np.float64]) -> list[str]:
    counts = bool(x.size and x.min() >= 0 and x.max() > 20 and (x == np.rint(x)).all())
    return ["X holds raw counts; log1p of counts per 10,000 is easier to learn"] if counts else []
