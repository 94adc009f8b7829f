"""Tables: .csv and .tsv files of numbers and categories, with or without a header."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

from undiffuse.data.dataset import Dataset, with_conditions
from undiffuse.data.validation import decoding, make_table
from undiffuse.errors import InputError, quote
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


def from_cells(cells: Cells, name: str, label: str | None = None, condition: Sequence[str] = ()) -> Dataset:
    """The Dataset of the cells of a table; arguments as those of `read_table`."""
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
