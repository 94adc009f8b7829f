"""Tables: .csv and .tsv files of numbers and words, with or without a header, with a column of labels if named."""

from __future__ import annotations

import csv
import math
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.data import validation
from undiffuse.data.checks import decoding
from undiffuse.data.dataset import Dataset, with_conditions
from undiffuse.data.validation import default_columns
from undiffuse.errors import InputError, did_you_mean, quote
from undiffuse.transforms import conditions
from undiffuse.transforms.conditions import by_number

_LONGEST = 1 << 20
_MISSING = {"", "na", "n/a", "nan", "null", "none", "?", "-"}
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")

Row = tuple[int, list[str]]  # the line of the file it ends on, and its cells


@dataclass
class Cells:
    """The text of a table: the names of its columns, whether the file gives them, and its rows of cells, stripped.

    `values` (N, D) are the numbers among them, NaN where a cell is missing or a word; `words` holds the words of every
    column by row. `texts(numbers of columns)` reads the texts of some columns again. A file that has no lines has no
    separator.
    """

    path: Path
    separator: str
    columns: list[str]
    header: bool
    lines: list[int]
    values: NDArray[np.float64]
    words: list[dict[int, str]]
    texts: Callable[[Sequence[int]], dict[int, list[str]]]
    note: list[str] = field(default_factory=list)

    def where(self, row: int, column: int) -> str:
        """A cell's place, for a sentence."""
        line = f" (line {self.lines[row]})" if self.separator else ""
        return f"{quote(self.path)}, row {row + 1}{line}, column {quote(self.columns[column])}"


def read_table(path: Path, label: str | None = None, condition: Sequence[str] = ()) -> Dataset:
    """The Dataset in a .csv or .tsv file; `label` names the column that holds the classes.

    The separator is the one of comma, semicolon and tab that the first line has most of. A column of words becomes the
    numbers of those words; an empty cell, NA, NaN, null, none, ? and - are cells that are missing. Columns named in
    `condition`, as NAME or NAME:KIND, are conditions. Raises InputError, naming row and column, for a word among
    numbers, a missing label and a row of another length.
    """
    with decoding(path, "a table"):
        return from_cells(read_cells(path), path.name, label, condition)


def from_cells(cells: Cells, name: str, label: str | None = None, condition: Sequence[str] = ()) -> Dataset:
    """The Dataset of the cells of a table, see `read_table`; the cells are used up."""
    at = _label_at(cells, label)
    asked = {_column_at(cells, key): (key, kind) for key, kind in map(conditions.named, condition)}
    plain = [j for j in range(len(cells.columns)) if j != at and j not in asked]
    texts = cells.texts([j for j in range(len(cells.columns)) if j == at or _wordy(cells, j)])
    given = [_condition(cells, j, *spec) for j, spec in asked.items()]
    if not plain:
        raise InputError(f"all columns of {quote(cells.path)} are label or conditions; expected one that is learned")
    marks = None if at is None else [_mark(m, cells.where(i, at)) for i, m in enumerate(texts.pop(at))]
    texts = {j: text for j, text in texts.items() if j in plain}
    vocabulary = {j: _vocabulary(cells, j, text) for j, text in texts.items()}
    for j, text in texts.items():
        cells.values[:, j] = coded(text, vocabulary[j])
    for j in plain:
        _check_numbers(cells, j, j in texts)
    return with_conditions(validation.make_table(
        cells.values[:, plain], name=name, columns=[cells.columns[j] for j in plain], marks=marks,
        words=[vocabulary.get(j, ()) for j in plain], gaps=True, note=cells.note), given)


def frame_cells(frame: Any, name: str = "the table") -> Cells:
    """The cells of a DataFrame (of pandas, polars, ...), as those of a file are read; None, NaN and NA are missing."""
    columns = [str(column) for column in frame.columns]
    if twice := [c for c, times in Counter(columns).items() if times > 1]:
        raise InputError(f"{name} has two columns called {quote(twice[0])}; expected different names, so rename one")
    texts = [[_cell_text(value) for value in frame[column].to_list()] for column in frame.columns]
    cells = Cells(Path(name), "", columns, True, [], np.empty(0), [{} for _ in columns],
                  lambda wanted: {j: texts[j] for j in wanted})
    return filled(cells, ((i + 1, list(row)) for i, row in enumerate(zip(*texts, strict=True))))


def _cell_text(value: Any) -> str:
    text = repr(float(value)) if isinstance(value, float) else str(value).strip()
    return "" if text in ("None", "nan", "<NA>", "NaT") else text


def read_cells(path: Path) -> Cells:
    """The cells of a table, numbers as numbers."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        names, note, separator, rows = _parts(file, path)
        first = next(rows, None)
        columns = names or default_columns(len(first[1]) if first else 0)
        cells = Cells(path, separator, columns, names is not None, [], np.empty(0), [{} for _ in columns],
                      partial(read_columns, path), note)
        return filled(cells, chain([first] if first else [], rows))


def filled(cells: Cells, rows: Iterable[Row]) -> Cells:
    """The cells with the numbers and words of these rows, stripped texts."""
    values = array("d")
    for line, row in rows:
        _take(cells, values, line, row)
    cells.values = np.array(values, np.float64).reshape(-1, len(cells.columns))
    return cells


def read_names(path: Path) -> list[str]:
    """The names of a table's columns in its first line; none where that is a row of numbers."""
    with decoding(path, "a table"), path.open(encoding="utf-8-sig", newline="") as file:
        return _parts(file, path)[0] or []


def read_columns(path: Path, wanted: Sequence[int]) -> dict[int, list[str]]:
    """The texts of some columns by number, stripped, without the header."""
    if not wanted:
        return {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        kept = [[cells[j] for j in wanted] for _, cells in _parts(file, path)[3]]
    return {j: [cells[k] for cells in kept] for k, j in enumerate(wanted)}


def coded(text: Sequence[str], words: Sequence[str]) -> NDArray[np.float64]:
    """The numbers of words, NaN for a missing cell and for a word that is none of them."""
    number = {word: float(i) for i, word in enumerate(words)}
    return np.array([math.nan if missing(cell) else number.get(cell, math.nan) for cell in text])


def missing(cell: str) -> bool:
    """Whether a cell says that its value is missing."""
    return cell.lower() in _MISSING


def check_finite(cells: Cells, j: int) -> None:
    """Refuse a number that is infinite in column j, naming its row."""
    infinite = np.isinf(cells.values[:, j])
    if infinite.any():
        at = int(np.argmax(infinite))
        raise InputError(f"{cells.where(at, j)} holds a number that is not finite "
                         f"({quote(cells.texts([j])[j][at])}); expected a finite number")


def _take(cells: Cells, values: array[float], line: int, row: list[str]) -> None:
    """Adds a row."""
    i = len(cells.lines)
    if len(row) != len(cells.columns):
        raise InputError(f"{quote(cells.path)}, row {i + 1} (line {line}) has {len(row)} cells; expected "
                         f"{len(cells.columns)} like the first line")
    cells.lines.append(line)
    try:
        numbers = [float(cell) for cell in row]
    except ValueError:
        numbers = [float(cell) if _is_number(cell) else math.nan for cell in row]
    if not math.isfinite(sum(numbers)) or "_" in "".join(row):
        for j, cell in enumerate(row):
            if not _is_number(cell) and not missing(cell):
                cells.words[j][i], numbers[j] = cell, math.nan
    values.extend(numbers)


def _label_at(cells: Cells, label: str | None) -> int | None:
    return None if label is None else _column_at(cells, label)


def _column_at(cells: Cells, name: str) -> int:
    if name not in cells.columns or len(cells.columns) < 2:
        raise InputError(f"{quote(cells.path)} has no column {quote(name)} beside columns of numbers; it has "
                         f"{', '.join(map(quote, cells.columns[:8]))}{did_you_mean(name, cells.columns)}")
    return cells.columns.index(name)


def _condition(cells: Cells, j: int, name: str, kind: str | None) -> tuple[conditions.Condition, Tensor]:
    """A column as a condition, missing cells not known."""
    if kind in ("class", "words") or _wordy(cells, j):
        text = cells.texts([j])[j]
        return conditions.read(name, kind, ["" if missing(cell) else cell for cell in text])
    _check_numbers(cells, j, False)
    return conditions.read(name, kind, cells.values[:, j])


def _wordy(cells: Cells, j: int) -> bool:
    """Whether most cells of a column that hold anything hold words."""
    return len(cells.words[j]) > int(np.isfinite(cells.values[:, j]).sum())


def _vocabulary(cells: Cells, j: int, text: Sequence[str]) -> tuple[str, ...]:
    """The different words of a column: numbers in order, then words in order."""
    filled = [cell for cell in text if not missing(cell)]
    if comma := next((c for c in filled if _DECIMAL_COMMA.fullmatch(c)), None):
        raise InputError(f"column {quote(cells.columns[j])} of {quote(cells.path)} holds {quote(comma)}; expected "
                         "decimal points, so write 1.5 for 1,5")
    words = sorted(set(filled), key=by_number)
    if len(words) > max(10, len(filled) // 2):
        raise InputError(f"column {quote(cells.columns[j])} of {quote(cells.path)} holds {len(words)} different words "
                         f"in {len(filled)} cells; expected words that occur again, so remove it")
    return tuple(words)


def _check_numbers(cells: Cells, j: int, words: bool) -> None:
    """Refuse a word among numbers, and numbers that are infinite."""
    check_finite(cells, j)
    if cells.words[j] and not words:
        at, word = next(iter(cells.words[j].items()))
        column = cells.columns[j]
        raise InputError(f"{cells.where(at, j)} holds {quote(word)}, which is not a number like most of the column; "
                         f"leave the cell empty if its value is missing, or give label={column!r} if the column holds "
                         "the classes")


def _parts(file: TextIO, path: Path) -> tuple[list[str] | None, list[str], str, Iterator[Row]]:
    """The names in the header if there is one, notes, the separator, and the rows below."""
    rows, separator = _rows(file, path)
    head = list(islice(rows, 2))
    if not head:
        raise InputError(f"{quote(path)} is empty; expected one line for each row")
    names, note = _header(head, quote(path))
    return names, note, separator, chain(head[1:] if names else head, rows)


def _rows(file: TextIO, path: Path) -> tuple[Iterator[Row], str]:
    """The rows that are not blank, and the separator."""
    lines = _lines(file, path)
    first = next(lines, "")
    separator = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    reader = csv.reader(chain([first], lines), delimiter=separator, strict=True)
    return ((reader.line_num, [cell.strip() for cell in cells]) for cells in reader
            if len(cells) > 1 or "".join(cells).strip()), separator


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    while line := file.readline(_LONGEST + 1):
        if len(line) > _LONGEST:
            raise InputError(f"{quote(path)} has a line of over {_LONGEST:,} characters; expected one line "
                             "for each row, so save wide data as .npy")
        yield line


def _header(head: Sequence[Row], name: str) -> tuple[list[str] | None, list[str]]:
    """The names in the first line, or None if it is data already, and notes."""
    first, below = head[0][1], head[-1][1]
    words = [cell for cell, under in zip(first, below, strict=False) if _is_word(cell) and _is_number(under)]
    numbers = [cell for cell in first if _is_number(cell)]
    counted = len(first) > 2 and first == [str(j) for j in range(len(first))]
    if words and numbers:
        raise InputError(f"the first line of {name} mixes numbers such as {quote(numbers[0])} with words "
                         f"such as {quote(words[0])}; expected a header of names or a row of numbers")
    if counted:
        return first, ["the first line counts the columns and was read as a header"]
    return None if numbers else _names(first, name), []


def _names(header: list[str], name: str) -> list[str]:
    columns = [cell or default for cell, default in zip(header, default_columns(len(header)), strict=True)]
    twice = [c for c, times in Counter(columns).items() if times > 1]
    if twice:
        raise InputError(f"{name} has two columns called {quote(twice[0])}; expected different names, so "
                         "rename one")
    return columns


def _mark(cell: str, where: str) -> str:
    if missing(cell):
        raise InputError(f"{where}: the label is missing; fill it in or remove the row")
    return cell


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _is_word(cell: str) -> bool:
    return not _is_number(cell) and not missing(cell)
