"""Tables: text files, workbooks and DataFrames as data sets, and single-cell data in .h5ad files (AnnData)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.data import delimited_text
from undiffuse.data.dataset import Dataset, with_conditions
from undiffuse.data.validation import decoding, make_table
from undiffuse.errors import InputError, MachineError, did_you_mean, quote
from undiffuse.transforms.conditions import Condition, infer_rows, parse_spec
from undiffuse.transforms.table_cells import DEFAULT_OPTIONS, Cells, TableOptions, cell_texts, unique_names
from undiffuse.transforms.table_schema import infer_schema

_MAX_BYTES = 1 << 31


def is_table(path: Path) -> bool:
    """Whether a file is a table of text or a workbook, by its name."""
    return delimited_text.is_table(path) or path.suffix.lower() == ".xlsx"


def read_cells(path: Path, options: TableOptions = DEFAULT_OPTIONS, names: Collection[str] = ()) -> Cells:
    """The cells of a text file or of the first sheet of an .xlsx workbook.

    Args:
        path: the file.
        options: what the user says about it.
        names: names of columns by which a header is recognised.

    Raises:
        MachineError: for a workbook without pandas and openpyxl.
    """
    if path.suffix.lower() != ".xlsx":
        return delimited_text.read_cells(path, options, names)
    try:
        pandas, _ = import_module("pandas"), import_module("openpyxl")
    except ImportError:
        raise MachineError(f"{quote(path)} needs the packages pandas and openpyxl; install them, or save the sheet as "
                           f".csv"
                           ) from None
    with decoding(path, "a workbook"), pandas.ExcelFile(path) as book:
        sheet = book.parse(0, header=None, dtype=object, keep_default_na=False, na_values=[""])
        columns = [_sheet_texts(sheet[j].tolist()) for j in sheet]
        notes = [f"the first of {len(book.sheet_names)} sheets was read ({book.sheet_names[0]})"]
    rows = [(k + 1, list(row)) for k, row in enumerate(zip(*columns, strict=True))]
    return delimited_text.cells_of_rows(path, rows, options, names, notes[: len(book.sheet_names) - 1])


def _sheet_texts(values: Sequence[Any]) -> list[str]:
    """The texts of a column of a sheet; dates without a time if it is midnight in all of them."""
    moments = cell_texts([value for value in values if isinstance(value, datetime)])
    dates = iter(moments)
    return [next(dates) if isinstance(value, datetime) else cell_texts([value])[0] for value in values]


def read_table(path: Path, label: str | None = None, condition: Sequence[str] = (),
               options: TableOptions = DEFAULT_OPTIONS) -> Dataset:
    """The Dataset in a text file or workbook; every decision of the reader is one of its notes.

    Args:
        path: the file.
        label: name of the column of classes.
        condition: columns that are conditions, as NAME or NAME:KIND.
        options: what the user says about the file.

    Raises:
        InputError: naming row and column, for a missing label and a row of another length.
    """
    with decoding(path, "a table"):
        return from_cells(read_cells(path, options), path.name, label, condition)


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
    columns, notes = unique_names(genes, quote(path))
    data = make_table(x, name=path.name, columns=columns, label_texts=label_texts, missing=True,
                      notes=[*notes, *_count_notes(x)])
    return with_conditions(data, conditions)


def from_cells(cells: Cells, name: str, label: str | None = None, condition: Sequence[str] = ()) -> Dataset:
    """The Dataset of the cells of a table.

    Args:
        cells: the cells of the table.
        name: name of the dataset.
        label: name of the column of class labels; None: no labels.
        condition: specifications of the columns that become conditions.
    """
    schema, notes = infer_schema(cells, label, condition)
    rows = schema.encode(cells)
    data = make_table(rows.values, name=name, schema=schema, missing=True, notes=notes)
    return with_conditions(replace(data, y=rows.labels, classes=schema.classes),
                           [(c, rows.conditions[c.name]) for c in schema.conditions])


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
    counts = bool(x.size and np.nanmin(x) >= 0 and x.max() > 20 and (x == np.rint(x)).all())
    return ["X holds raw counts; log1p of counts per 10,000 is easier to learn"] if counts else []
