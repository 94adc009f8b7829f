"""Cells of a table, read from a file or a DataFrame: numbers, other texts, and how both are written."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from undiffuse.errors import InputError, did_you_mean, quote

_BLOCK = 1 << 18  # cells that are converted at a time
NULLS = {"nan", "NaN", "NAN", "<NA>", "#N/A", "#NA", "NaT", "#VALUE!", "#REF!", "#DIV/0!", "#NUM!", "#NAME?", "#NULL!"}
"""Texts that programs write for missing values."""
_BETWEEN_NUMBERS = {"na", "n/a", "n.a.", "nan", "null", "none", "nil", "missing", "?", "-", "--", "---", ".", "..",
                    "...", "–", "—", "*"}
_SIGNS = {"na", "n/a", "n.a.", "null", "?", "-", "--", "---", ".", "..", "...", "–", "—", "*"}  # no words of a language

Row = tuple[int, list[str]]
"""The line of the file on which a row ends, and its cells without surrounding spaces."""


@dataclass(frozen=True)
class TableOptions:
    """How a table is read, where the user says so.

    Args:
        ignore: names of columns that are left out.
        columns: names of the columns that are read; empty: all.
        missing: texts that stand for a missing value in every column.
        header: "yes" or "no": whether the first line holds names; "auto": decided from the cells.
        sep: separator of the cells; "": decided from the lines.
        decimal: decimal sign, "." or ","; "": decided from the cells.
        encoding: encoding of the text; "": decided from the bytes.
    """

    ignore: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    header: str = "auto"
    sep: str = ""
    decimal: str = ""
    encoding: str = ""

    def config(self) -> dict[str, Any]:
        """The JSON-compatible description, without defaults."""
        return {f.name: list(v) if isinstance(v, tuple) else v for f in dataclasses.fields(self)
                if (v := getattr(self, f.name)) != f.default}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TableOptions:
        """The inverse of `config`; a list or several names joined by commas are names.

        Raises:
            InputError: for an unknown option, header, or decimal sign.
        """
        names = [f.name for f in dataclasses.fields(cls)]
        if unknown := [name for name in config if name not in names]:
            raise InputError(f"got the option {quote(unknown[0])}; expected one of {', '.join(names)}")
        values: dict[str, Any] = {name: ((value,) if isinstance(value, str) else tuple(map(str, value)))
                  if name in ("ignore", "columns", "missing") else value for name, value in config.items()}
        options = cls(**values)
        if options.header not in ("auto", "yes", "no") or options.decimal not in ("", ".", ","):
            raise InputError(f"got header={options.header!r} and decimal={options.decimal!r}; expected auto, yes or "
                             f"no, and "
                             "a point or a comma")
        return options


DEFAULT_OPTIONS = TableOptions()
"""Everything is decided from the table."""


@dataclass
class ColumnTexts:
    """The texts of a column that are not numbers, and how its numbers are written.

    Args:
        tokens: how often every text occurs that is neither a number nor empty.
        low: the smallest number of decimals.
        high: the largest number of decimals.
        exponent: whether a number has an exponent.
        zeros: whether a number begins with 0 and another digit.
    """

    tokens: Counter[str] = field(default_factory=Counter)
    low: int = 1 << 30
    high: int = 0
    exponent: bool = False
    zeros: bool = False

    def add_numbers(self, lines: str) -> None:
        """Take lines that are numbers or empty into account."""
        data = np.frombuffer(lines.encode(), np.uint8)
        ends = np.flatnonzero(data == 10)
        starts = np.concatenate([[0], ends[:-1] + 1])
        if (filled := ends > starts).sum() < len(ends):
            starts, ends = starts[filled], ends[filled]
        if not len(ends):
            return
        dots, decimals = np.flatnonzero(data == ord(".")), np.zeros(len(ends), np.int64)
        if len(dots) == len(ends) and (dots < ends).all() and (dots >= starts).all():
            decimals = ends - dots - 1
        elif len(dots):
            owner = np.searchsorted(ends, dots)
            decimals[owner] = ends[owner] - dots - 1
        self.low, self.high = min(self.low, int(decimals.min())), max(self.high, int(decimals.max()))
        self.exponent |= bool(((data | 32) == ord("e")).any())
        digit = starts + ((data[starts] == ord("-")) | (data[starts] == ord("+")))
        following = data[np.minimum(digit + 1, len(data) - 1)]
        self.zeros |= bool(((data[digit] == ord("0")) & (following >= 48) & (following <= 57)).any())


@dataclass
class Cells:
    """The cells of a table.

    Args:
        path: name of the source, for error messages.
        separator: separator of the file; "" for a source without lines of text.
        columns: names of the columns.
        header: whether the source has these names.
        read: reads the texts of some columns, by number, without surrounding spaces.
        notes: remarks on how the source was read.
        options: options of the reader.
        typed: whether the source marks missing values itself, so that no text stands for one.
        unnamed: numbers of the columns whose name in the header is empty.
        encoding: encoding of the file.
        header_line: the line of the header; 0 without one.

    `fill` sets `lines`, the line of every row, `values` (N, D), NaN where a cell is not a number, and `texts_of`, what
    the texts of each column are like.
    """

    path: Path
    separator: str
    columns: list[str]
    header: bool
    read: Callable[[Sequence[int]], dict[int, list[str]]]
    notes: list[str] = field(default_factory=list)
    options: TableOptions = DEFAULT_OPTIONS
    typed: bool = False
    unnamed: frozenset[int] = frozenset()
    encoding: str = "utf-8"
    header_line: int = 0

    def fill(self, rows: Iterable[Row]) -> Cells:
        """Convert rows of texts; InputError for a row of another length."""
        self.lines, self.texts_of = list[int](), [ColumnTexts() for _ in self.columns]
        self._texts: dict[int, list[str]] = {}
        self._missing: dict[tuple[int, bool], set[str]] = {}
        parts, source = [], iter(rows)
        while block := list(islice(source, max(1, _BLOCK // max(1, len(self.columns))))):
            parts.append(self._convert(block))
        self.values = np.concatenate(parts) if parts else np.empty((0, len(self.columns)))
        return self

    def texts(self, columns: Sequence[int]) -> dict[int, list[str]]:
        """The texts of some columns, by number; each is read once."""
        if unread := [j for j in columns if j not in self._texts]:
            self._texts |= self.read(unread)
        return {j: self._texts[j] for j in columns}

    def where(self, row: int, column: int) -> str:
        """The place of a cell, for an error message."""
        line = f" (line {self.lines[row]})" if self.separator else ""
        return f"{quote(self.path)}, row {row + 1}{line}, column {quote(self.columns[column])}"

    def index(self, name: str) -> int:
        """The number of a label or condition column; InputError if there is no such column, or no other one."""
        if name not in self.columns:
            raise InputError(f"{quote(self.path)} has no column {quote(name)}; it has "
                             f"{', '.join(map(quote, self.columns[:8]))}{did_you_mean(name, self.columns)}")
        if len(self.columns) == 1:
            raise InputError(f"{quote(self.path)} has only the column {quote(name)}; expected another one to learn")
        return self.columns.index(name)

    def missing(self, j: int, number: bool) -> set[str]:
        """The texts of column j that stand for missing values if it holds numbers or dates, or if it holds words.

        Among words these are texts that programs write, and signs such as NA or ? that are missing values in a column
        of numbers of this table and unlike the other words of the column.
        """
        if (j, number) in self._missing:
            return self._missing[j, number]
        tokens, chosen = self.texts_of[j].tokens, {"", *self.options.missing}
        self._missing[j, number] = texts = chosen & {"", *tokens} if self.typed else {
            t for t in tokens if t in chosen or t in NULLS or (number and t.lower() in _BETWEEN_NUMBERS)
            or (t in self._signs and not any(_alike(t, other) for other in tokens if other != t))} | {""}
        return texts

    @cached_property
    def _signs(self) -> set[str]:
        """The signs that stand for missing values in columns most of whose cells are numbers."""
        numbers = (~np.isnan(self.values)).sum(0)
        return {t for texts, n in zip(self.texts_of, numbers.tolist(), strict=True) if n > texts.tokens.total()
                for t in texts.tokens if t.lower() in _SIGNS}

    def _convert(self, block: Sequence[Row]) -> NDArray[np.float64]:
        """The values of the next rows, column by column."""
        first, width = len(self.lines), len(self.columns)
        for i, (line, row) in enumerate(block):
            if len(row) != width:
                raise InputError(f"{quote(self.path)}, row {first + i + 1} (line {line}) has {len(row)} cells; "
                                 f"expected {width} like the first line")
        self.lines += [line for line, _ in block]
        values = np.empty((len(block), width))
        for j, column in enumerate(zip(*(row for _, row in block), strict=True)):
            lines = "\n".join(column) + "\n"
            try:
                if "_" in lines or self.options.missing:
                    raise ValueError
                missing = column.count("")
                values[:, j] = list(map(float, [cell or "nan" for cell in column] if missing else column))
                if np.isfinite(values[:, j]).sum() != len(block) - missing:
                    raise ValueError
                self.texts_of[j].add_numbers(lines)
            except ValueError:
                values[:, j] = self._mixed(j, column)
        return values

    def _mixed(self, j: int, column: Sequence[str]) -> list[float]:
        """The values of a column with cells that are not numbers, which are counted."""
        distinct = set(column) - {""}
        numbers = {cell: float(cell) for cell in distinct if is_number(cell) and cell not in self.options.missing}
        self.texts_of[j].add_numbers("\n".join(numbers) + "\n")
        if other := distinct - numbers.keys():
            self.texts_of[j].tokens.update(cell for cell in column if cell in other)
        return [numbers.get(cell, math.nan) for cell in column]


def default_columns(count: int) -> list[str]:
    """The names x1, x2, ... of unnamed columns."""
    return [f"x{j + 1}" for j in range(count)]


def frame_cells(frame: Any, name: str = "the table", options: TableOptions = DEFAULT_OPTIONS) -> Cells:
    """The cells of a DataFrame (pandas, polars, ...), equal to those of its CSV file; None, NaN and NA are missing."""
    columns, notes = unique_names([str(column) for column in frame.columns], name)
    series = [frame.iloc[:, j] if hasattr(frame, "iloc") else frame[column] for j, column in enumerate(frame.columns)]
    return _cells_of([cell_texts(column.to_list()) for column in series], columns, name, notes, options)


def array_cells(x: NDArray[np.float64], columns: Sequence[str], name: str) -> Cells:
    """The cells of an array (N, D) of numbers, NaN where missing.

    Args:
        x: the numbers.
        columns: names of the columns; x1, x2, ... for another number of columns.
        name: name of the array, for error messages.
    """
    names = list(columns) if len(columns) == x.shape[1] else default_columns(x.shape[1])
    return _cells_of([cell_texts(column) for column in x.T.tolist()], names, name, [], TableOptions())


def _cells_of(texts: list[list[str]], columns: list[str], name: str, notes: list[str], options: TableOptions) -> Cells:
    """The cells of columns of texts, "" where missing."""
    cells = Cells(Path(name), "", columns, True, lambda wanted: {j: texts[j] for j in wanted}, notes, options,
                  typed=True)
    return cells.fill((i + 1, list(row)) for i, row in enumerate(zip(*texts, strict=True)))


def unique_names(names: Sequence[str], source: str) -> tuple[list[str], list[str]]:
    """The names, with -1, -2, ... behind a name that was there before, and a note if there are such."""
    used, columns, repeated = set(names), dict[str, None](), list[str]()
    for name in names:
        new, k = name, 0
        while new in columns or (k and new in used):
            k += 1
            new = f"{name}-{k}"
        repeated += [name] * (k == 1)
        columns[new] = None
    if not repeated:
        return list(columns), []
    return list(columns), [f"names of columns that {source} has more than once were made unique: {repeated[0]}, "
                     f"{repeated[0]}-1, ..."]


def cell_texts(values: Sequence[Any]) -> list[str]:
    """The texts of typed values, "" where missing; the time of dates is left out if it is midnight in all of them."""
    texts = [_cell_text(value) for value in values]
    midnight = " 00:00:00"
    dates = all(text.endswith(midnight) for text in texts if text)
    return [text.removesuffix(midnight) for text in texts] if dates else texts


def is_number(cell: str) -> bool:
    """Whether a cell is a finite number."""
    try:
        return math.isfinite(float(cell)) and "_" not in cell
    except ValueError:
        return False


def is_infinite(cell: str) -> bool:
    """Whether a cell is an infinite or too large number."""
    try:
        return math.isinf(float(cell))
    except ValueError:
        return False


def _alike(sign: str, word: str) -> bool:
    """Whether a sign may be a word beside this one: signs without letters, or letters of one case and number."""
    if not any(map(str.isalnum, sign)):
        return not any(map(str.isalnum, word))
    return sign.isalpha() and word.isalpha() and len(sign) == len(word) and sign.isupper() == word.isupper()


def _cell_text(value: Any) -> str:
    text = repr(float(value)) if isinstance(value, float) else str(value).strip()
    return "" if text in ("None", "nan", "<NA>", "NaT") and not isinstance(value, str) else text
