"""Cells of a table, and the schema that turns them into the rows of a model.

    Cells         column names, numbers and texts, read from a file or a DataFrame
    TableSchema   columns, categories, label and conditions of a run: Cells -> rows, labels, conditions, by column name
    infer_schema  the schema that training cells imply
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.errors import InputError, did_you_mean, quote
from undiffuse.tensors import ArrayLike, as_tensor
from undiffuse.transforms import conditions
from undiffuse.transforms.conditions import Condition, categories_of

_MISSING = {"", "na", "n/a", "nan", "null", "none", "?", "-"}
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_BLOCK = 1 << 18  # cells that are converted at a time

Row = tuple[int, list[str]]
"""The line of the file on which a row ends, and its cells without surrounding spaces."""


def default_columns(count: int) -> list[str]:
    """The names x1, x2, ... of unnamed columns."""
    return [f"x{j + 1}" for j in range(count)]


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

    `fill` sets `lines`, the line of every row, `values` (N, D), NaN where a cell is missing or not a number, and
    `tokens`, for every column the cells that are neither, by row.
    """

    path: Path
    separator: str
    columns: list[str]
    header: bool
    read: Callable[[Sequence[int]], dict[int, list[str]]]
    notes: list[str] = field(default_factory=list)

    def fill(self, rows: Iterable[Row]) -> Cells:
        """Convert rows of texts; InputError for a row of another length."""
        self.lines, self.tokens = list[int](), [dict[int, str]() for _ in self.columns]
        self._texts: dict[int, list[str]] = {}
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

    def numbers(self, j: int) -> NDArray[np.float64]:
        """The values of column j; InputError, naming the row, for a text and for a number that is infinite."""
        self.check_finite(j)
        if self.tokens[j]:
            i, text = next(iter(self.tokens[j].items()))
            raise InputError(f"{self.where(i, j)} holds {quote(text)}; expected a number, or nothing")
        return self.values[:, j]

    def codes(self, j: int, categories: Sequence[str]) -> NDArray[np.float64]:
        """Column j as numbers of categories, NaN where missing; InputError, naming the row, for any other text."""
        number, texts = {text: float(k) for k, text in enumerate(categories)}, self.texts([j])[j]
        for i, text in enumerate(texts):
            if text not in number and not is_missing(text):
                raise InputError(f"{self.where(i, j)} holds {quote(text)}, which is not in the training data; "
                                 f"expected one of {', '.join(map(quote, categories[:8]))}"
                                 f"{did_you_mean(text, categories)}")
        return np.array([number.get(text, math.nan) for text in texts])

    def check_finite(self, j: int) -> None:
        """InputError, naming the row, for a number in column j that is infinite."""
        infinite = np.isinf(self.values[:, j])
        if infinite.any():
            i = int(np.argmax(infinite))
            raise InputError(f"{self.where(i, j)} holds a number that is not finite ({quote(self.texts([j])[j][i])}); "
                             "expected a finite number")

    def mostly_text(self, j: int) -> bool:
        """Whether most filled cells of column j are not numbers."""
        return len(self.tokens[j]) > int(np.isfinite(self.values[:, j]).sum())

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
            try:
                if "_" in "".join(column):
                    raise ValueError
                values[:, j] = list(map(float, [cell or "nan" for cell in column]))
            except ValueError:
                values[:, j] = self._mixed(j, column, first)
        return values

    def _mixed(self, j: int, column: Sequence[str], first: int) -> list[float]:
        """The values of a column with cells that are not numbers; those that are not missing go to `tokens`."""
        distinct = set(column)
        numbers = {cell: float(cell) for cell in distinct if is_number(cell)}
        if other := {cell for cell in distinct - numbers.keys() if not is_missing(cell)}:
            self.tokens[j].update((first + i, cell) for i, cell in enumerate(column) if cell in other)
        return [numbers.get(cell, math.nan) for cell in column]


@dataclass(frozen=True)
class TableRows:
    """Encoded rows of a table.

    Args:
        values: (N, D) in the order of the schema's columns, categories as numbers, NaN where missing.
        labels: class numbers (N,), the null label where missing; None without a label column.
        conditions: numeric rows (N, width) of each condition whose column is present, NaN where missing.
        places: for every column of the schema its number in the table.
    """

    values: NDArray[np.float64]
    labels: Tensor | None
    conditions: dict[str, Tensor]
    places: list[int]

    @property
    def x(self) -> Tensor:
        """The values as a float32 tensor."""
        return torch.from_numpy(self.values.astype(np.float32))


@dataclass(frozen=True)
class TableSchema:
    """The columns of a run's table.

    Args:
        columns: names of the columns that the model samples.
        categories: for every such column its categories 0, 1, ..., () for numbers; empty if all are numbers.
        label: name of the column of class labels.
        classes: names of the classes 0, 1, ...
        conditions: conditions, each a column of its name.
    """

    columns: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...] = ()
    label: str | None = None
    classes: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()

    @classmethod
    def from_config(cls, data: Mapping[str, Any], conditions: Sequence[Condition] = ()) -> TableSchema | None:
        """The schema in the data section of a model's configuration; None for images."""
        if data["kind"] == "image":
            return None
        return cls(tuple(data["columns"]), tuple(map(tuple, data["categories"])), data["label"],
                   tuple(data["classes"]), tuple(conditions))

    def matches_by_name(self, x: Any) -> bool:
        """Whether x is a DataFrame, and the training data had column names."""
        return hasattr(x, "columns") and list(self.columns) != default_columns(len(self.columns))

    def categories_of(self, j: int) -> tuple[str, ...]:
        """The categories of column j; () for numbers."""
        return self.categories[j] if self.categories else ()

    def encode(self, table: Any) -> TableRows:
        """The rows of a table; its columns are matched by name; label and condition columns may be absent.

        Args:
            table: `Cells` or a DataFrame.

        Raises:
            InputError: naming row and column, for cells that are not of the column's kind; for other columns.
        """
        cells = table if isinstance(table, Cells) else frame_cells(table)
        present = [c for c in self.conditions if c.name in cells.columns]
        label = self.label if self.label in cells.columns else None
        places = self._places(cells, [label, *(c.name for c in present)])
        columns = [cells.codes(j, self.categories_of(k)) if self.categories_of(k) else cells.numbers(j)
                   for k, j in enumerate(places)]
        labels = None if label is None else cells.codes(cells.columns.index(label), self.classes)
        return TableRows(np.stack(columns, 1), None if labels is None else torch.from_numpy(
            np.where(np.isnan(labels), len(self.classes), labels).astype(np.int64)),
            {c.name: _condition_rows(cells, c) for c in present}, places)

    def _places(self, cells: Cells, other: Sequence[str | None]) -> list[int]:
        """The numbers of the schema's columns in a table; InputError if one is missing or there is another."""
        position, expected = {name: j for j, name in enumerate(cells.columns)}, {*self.columns, *other}
        for name in self.columns:
            if name not in position:
                raise InputError(f"{quote(cells.path)} has no column {quote(name)}, which the model was trained on"
                                 f"{did_you_mean(name, cells.columns)}")
        if extra := [c for c in cells.columns if c not in expected]:
            raise InputError(f"{quote(cells.path)} has a column {quote(extra[0])} that the model was not trained on; "
                             "remove it")
        return [position[name] for name in self.columns]


def infer_schema(cells: Cells, label: str | None = None, condition: Sequence[str] = ()) -> TableSchema:
    """The schema of training cells.

    Args:
        cells: cells of the training table.
        label: name of the column of class labels.
        condition: columns that are conditions, as NAME or NAME:KIND.

    Raises:
        InputError: naming row and column, for a text among numbers, a missing label, categories that hardly repeat,
            and an unknown column.
    """
    at = None if label is None else cells.index(label)
    specs = {cells.index(name): (name, kind) for name, kind in map(conditions.parse_spec, condition)}
    plain = [j for j in range(len(cells.columns)) if j != at and j not in specs]
    cells.texts([j for j in range(len(cells.columns)) if j == at or cells.mostly_text(j)])
    fitted = tuple(_condition(cells, j, name, kind) for j, (name, kind) in specs.items())
    if not plain:
        raise InputError(f"all columns of {quote(cells.path)} are label or conditions; expected one that is learned")
    classes = () if at is None else _classes(cells, at)
    categories = tuple(_categories(cells, j) if cells.mostly_text(j) else () for j in plain)
    for j in plain:
        cells.check_finite(j)
        if not cells.mostly_text(j):
            _check_no_text(cells, j)
    return TableSchema(tuple(cells.columns[j] for j in plain), categories if any(categories) else (), label, classes,
                       fitted)


def data_rows(schema: TableSchema | None, x: ArrayLike) -> Tensor:
    """x (B, *event) in data units as a tensor; columns of a DataFrame are matched by name to the schema of a model.

    A model whose training data had no column names takes the columns of a DataFrame in their order.
    """
    return schema.encode(x).x if schema is not None and schema.matches_by_name(x) else as_tensor(x, "x")


def frame_cells(frame: Any, name: str = "the table") -> Cells:
    """The cells of a DataFrame (pandas, polars, ...), equal to those of its CSV file; None, NaN and NA are missing."""
    columns = [str(column) for column in frame.columns]
    check_names(columns, name)
    texts = [[_cell_text(value) for value in frame[column].to_list()] for column in frame.columns]
    cells = Cells(Path(name), "", columns, True, lambda wanted: {j: texts[j] for j in wanted})
    return cells.fill((i + 1, list(row)) for i, row in enumerate(zip(*texts, strict=True)))


def check_names(columns: Sequence[str], name: str) -> None:
    """InputError for a column name that occurs twice."""
    if repeated := [c for c, times in Counter(columns).items() if times > 1]:
        raise InputError(f"{name} has two columns called {quote(repeated[0])}; expected different names, so rename one")


def is_missing(cell: str) -> bool:
    """Whether a cell stands for a missing value."""
    return cell.lower() in _MISSING


def is_number(cell: str) -> bool:
    """Whether a cell is a number, infinities and NaN included."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _cell_text(value: Any) -> str:
    text = repr(float(value)) if isinstance(value, float) else str(value).strip()
    return "" if text in ("None", "nan", "<NA>", "NaT") else text


def condition_column(cells: Cells, j: int, name: str, kind: str | None) -> tuple[Condition, Tensor]:
    """The condition that column j implies, and its numeric rows.

    Args:
        cells: cells of the table.
        j: number of the column.
        name: name of the condition.
        kind: one of `KINDS`; None: inferred from the cells.
    """
    condition = _condition(cells, j, name, kind)
    return condition, _condition_rows(cells, condition)


def _condition(cells: Cells, j: int, name: str, kind: str | None) -> Condition:
    """The condition in column j."""
    if kind in ("class", "words") or cells.mostly_text(j):
        return conditions.infer(name, kind, ["" if is_missing(cell) else cell for cell in cells.texts([j])[j]])
    cells.check_finite(j)
    _check_no_text(cells, j)
    return conditions.infer(name, kind, cells.values[:, j])


def _condition_rows(cells: Cells, condition: Condition) -> Tensor:
    """The numeric rows (N, width) of a condition."""
    j = cells.columns.index(condition.name)
    if condition.kind == "number":
        return torch.from_numpy(cells.numbers(j).copy())[:, None]
    texts = cells.texts([j])[j]
    rows = condition.rows([None if is_missing(cell) else cell for cell in texts], len(texts))
    condition.check(rows)
    return rows


def _classes(cells: Cells, j: int) -> tuple[str, ...]:
    """The classes in column j."""
    texts = cells.texts([j])[j]
    if missing := [i for i, cell in enumerate(texts) if is_missing(cell)]:
        raise InputError(f"{cells.where(missing[0], j)}: the label is missing; fill it in or remove the row")
    return categories_of(texts, lambda count: (
        f"the labels of {cells.path.name} take {count} different values in {len(texts)} rows; expected classes that "
        "occur again, so choose another label"))


def _categories(cells: Cells, j: int) -> tuple[str, ...]:
    """The categories in column j."""
    texts = [cell for cell in cells.texts([j])[j] if not is_missing(cell)]
    place = f"column {quote(cells.columns[j])} of {quote(cells.path)}"
    if comma := next((c for c in texts if _DECIMAL_COMMA.fullmatch(c)), None):
        raise InputError(f"{place} holds {quote(comma)}; expected decimal points, so write 1.5 for 1,5")
    return categories_of(texts, lambda count: (
        f"{place} holds {count} different words in {len(texts)} cells; expected words that occur again, so remove it"))


def _check_no_text(cells: Cells, j: int) -> None:
    """Refuse a text in a training column of numbers."""
    if cells.tokens[j]:
        i, text = next(iter(cells.tokens[j].items()))
        raise InputError(f"{cells.where(i, j)} holds {quote(text)}, which is not a number like most of the column; "
                         f"leave the cell empty if its value is missing, or give label={cells.columns[j]!r} if the "
                         "column holds the classes")
