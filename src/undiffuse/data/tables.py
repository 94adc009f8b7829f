"""Tables: .csv and .tsv files of numbers, with or without a header, with one column of labels if named."""

from __future__ import annotations

import csv
import math
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

import numpy as np

from undiffuse.data import build
from undiffuse.data.build import default_columns
from undiffuse.data.checks import decoding, did_you_mean, shown
from undiffuse.data.dataset import Dataset
from undiffuse.errors import InputError

_LONGEST = 1 << 20
_MISSING = {"", "na", "n/a", "nan", "null", "none", "?", "-"}

Row = tuple[int, list[str]]  # the line of the file it ends on, and its cells


def read_table(path: Path, label: str | None = None) -> Dataset:
    """The Dataset in a .csv or .tsv file; `label` names the column that holds the classes.

    The separator is the one of comma, semicolon and tab that the first line has most of. Raises InputError,
    naming row and column, for a missing value, a word among numbers and a row of another length.
    """
    with decoding(path, "a table"), path.open(encoding="utf-8-sig", newline="") as file:
        rows = _rows(file, path)
        head = list(islice(rows, 2))
        if not head:
            raise InputError(f"{shown(path)} is empty; expected one line for each row")
        names, note = _header(head, shown(path))
        columns = names or default_columns(len(head[0][1]))
        values, marks = _body(chain(head[1:] if names else head, rows), columns, label, path)
    numbers = [c for c in columns if c != label]
    x = np.array(values, np.float64).reshape(-1, len(numbers))
    return build.rows(x, name=path.name, columns=numbers, marks=marks, note=note)


def _rows(file: TextIO, path: Path) -> Iterator[Row]:
    lines = _lines(file, path)
    first = next(lines, "")
    separator = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    reader = csv.reader(chain([first], lines), delimiter=separator, strict=True)
    for cells in reader:
        if len(cells) > 1 or "".join(cells).strip():
            yield reader.line_num, [cell.strip() for cell in cells]


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    while line := file.readline(_LONGEST + 1):
        if len(line) > _LONGEST:
            raise InputError(f"{shown(path)} has a line of over {_LONGEST:,} characters; expected one line "
                             "for each row, so save wide data as .npy")
        yield line


def _header(head: Sequence[Row], name: str) -> tuple[list[str] | None, list[str]]:
    """The names in the first line, or None if it is data already, and notes."""
    first, below = head[0][1], head[-1][1]
    words = [cell for cell, under in zip(first, below, strict=False) if _is_word(cell) and _is_number(under)]
    numbers = [cell for cell in first if _is_number(cell)]
    counted = len(first) > 2 and first == [str(j) for j in range(len(first))]
    if words and numbers:
        raise InputError(f"the first line of {name} mixes numbers such as {shown(numbers[0])} with words "
                         f"such as {shown(words[0])}; expected a header of names or a row of numbers")
    if counted:
        return first, ["the first line counts the columns and was read as a header"]
    return None if numbers else _names(first, name), []


def _names(header: list[str], name: str) -> list[str]:
    columns = [cell or default for cell, default in zip(header, default_columns(len(header)), strict=True)]
    twice = [c for c, times in Counter(columns).items() if times > 1]
    if twice:
        raise InputError(f"{name} has two columns called {shown(twice[0])}; expected different names, so "
                         "rename one")
    return columns


def _body(rows: Iterator[Row], columns: list[str], label: str | None,
          path: Path) -> tuple[array[float], list[str] | None]:
    """All numbers, row after row, and the labels if there are any."""
    if label is not None and (label not in columns or len(columns) < 2):
        raise InputError(f"{shown(path)} has no column {shown(label)} beside columns of numbers; it has "
                         f"{', '.join(map(shown, columns[:8]))}{did_you_mean(label, columns)}")
    at = None if label is None else columns.index(label)
    numbers = [c for c in columns if c != label]
    values, marks, name = array("d"), list[str](), shown(path)
    for i, (line, cells) in enumerate(rows, 1):
        where = f"{name}, row {i} (line {line})"
        if len(cells) != len(columns):
            raise InputError(f"{where} has {len(cells)} cells; expected {len(columns)} like the first line")
        if at is not None:
            marks.append(_mark(cells.pop(at), where, columns[at]))
        values.extend(_numbers(cells, numbers, where))
    return values, None if at is None else marks


def _numbers(cells: list[str], columns: Sequence[str], where: str) -> list[float]:
    try:
        row = [float(cell) for cell in cells]
    except ValueError:
        row = [math.nan]
    if not math.isfinite(sum(row)) or "_" in "".join(cells):
        for cell, column in zip(cells, columns, strict=True):
            _check_cell(cell, f"{where}, column {shown(column)}", column)
    return row


def _check_cell(cell: str, where: str, column: str) -> None:
    if cell.lower() in _MISSING:
        raise InputError(f"{where}: the value is missing; fill it in or remove the row")
    if not _is_number(cell):
        raise InputError(f"{where} holds {shown(cell)}, which is not a number; give label={column!r} if the "
                         "column holds the classes, or remove it")
    if not math.isfinite(float(cell)):
        raise InputError(f"{where} holds {shown(cell)}; expected a finite number")


def _mark(cell: str, where: str, column: str) -> str:
    if cell.lower() in _MISSING:
        raise InputError(f"{where}, column {shown(column)}: the label is missing; fill it in or remove the "
                         "row")
    return cell


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _is_word(cell: str) -> bool:
    return not _is_number(cell) and cell.lower() not in _MISSING
