"""The schema of a run's table: cells of files and DataFrames to the rows of a model, and samples back to cells.

    TableSchema   columns, label and conditions of a run: Cells -> rows, labels, conditions, by name; rows -> cells
    infer_schema  the schema that training cells imply, with a remark for every decision
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.errors import InputError, did_you_mean, quote
from undiffuse.tensors import ArrayLike, as_tensor
from undiffuse.transforms import conditions
from undiffuse.transforms.column_format import (
    ColumnChoice,
    ColumnFormat,
    comma_is_decimal,
    infer_format,
    number_column,
)
from undiffuse.transforms.conditions import Condition, categories_of
from undiffuse.transforms.number_format import NumberFormat
from undiffuse.transforms.table_cells import DEFAULT_OPTIONS, Cells, TableOptions, default_columns, frame_cells

_LISTED = 8  # columns that a remark names
_SEPARATORS = (",", ";", "\t", "|")  # with which tables are written


@dataclass(frozen=True)
class TableRows:
    """Encoded rows of a table.

    Args:
        values: (N, D) in the order of the schema's columns, categories as numbers, NaN where missing or unknown.
        labels: class numbers (N,), the null label where missing; None without a label column.
        conditions: numeric rows (N, width) of each condition whose column is present, NaN where missing.
        places: for every column of the schema its number in the table; −1 if the table does not have it.
        missing: the values that are missing (N, D), all of an absent column.
        novel: rows with a category that the training data do not have (N,).
        notes: remarks on the columns of the table.
    """

    values: NDArray[np.float64]
    labels: Tensor | None
    conditions: dict[str, Tensor]
    places: list[int]
    missing: NDArray[np.bool_]
    novel: NDArray[np.bool_]
    notes: list[str] = field(default_factory=list)

    @property
    def x(self) -> Tensor:
        """The values as a float64 tensor."""
        return torch.from_numpy(self.values)


@dataclass(frozen=True)
class TableSchema:
    """The columns of a run's table.

    Args:
        formats: the columns that the model samples.
        label: name of the column of class labels.
        classes: names of the classes 0, 1, ...
        conditions: conditions, each a column of its name.
        condition_formats: formats of the columns of conditions that are numbers.
        order: names of all columns that are read, in the order of the training table.
        left_out: other columns of the training table, each with the reason.
        options: how the training table was read.
        separator: separator of written tables.
    """

    formats: tuple[ColumnFormat, ...]
    label: str | None = None
    classes: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    condition_formats: tuple[ColumnFormat, ...] = ()
    order: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    options: TableOptions = DEFAULT_OPTIONS
    separator: str = ","

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns that the model samples."""
        return tuple(form.name for form in self.formats)

    @property
    def categories(self) -> tuple[tuple[str, ...], ...]:
        """For every column its categories 0, 1, ..., () for numbers; empty if all are numbers."""
        lists = tuple(form.categories for form in self.formats)
        return lists if any(lists) else ()

    def config(self) -> dict[str, Any]:
        """The JSON-compatible description of columns and options, without label, classes and conditions."""
        return {"formats": [form.config() for form in self.formats],
                "condition_formats": [form.config() for form in self.condition_formats],
                "order": list(self.order), "left_out": [list(pair) for pair in self.left_out],
                "options": self.options.config(), "separator": self.separator}

    @classmethod
    def from_config(cls, data: Mapping[str, Any], conditions: Sequence[Condition] = ()) -> TableSchema | None:
        """The schema in the data section of a model's configuration; None for images and arrays."""
        if data["kind"] in ("image", "array"):
            return None
        if (stored := data["schema"]) is None:
            return cls(tuple(ColumnFormat(name, number=NumberFormat()) for name in data["columns"]), data["label"],
                       tuple(data["classes"]), tuple(conditions), order=tuple(data["columns"]))
        formats = [tuple(map(ColumnFormat.from_config, stored[key])) for key in ("formats", "condition_formats")]
        return cls(formats[0], data["label"], tuple(data["classes"]), tuple(conditions), formats[1],
                   tuple(stored["order"]),
                   tuple((name, why) for name, why in stored["left_out"]), TableOptions.from_config(stored["options"]),
                   stored.get("separator", ","))

    @classmethod
    def of_numbers(cls, columns: Sequence[str], x: NDArray[np.float64]) -> TableSchema:
        """The schema of an array (N, D) of numbers."""
        return cls(tuple(number_column(name, x[:, j]) for j, name in enumerate(columns)), order=tuple(columns))

    def matches_by_name(self, x: Any) -> bool:
        """Whether x is a DataFrame, and the training data had column names."""
        return hasattr(x, "columns") and list(self.columns) != default_columns(len(self.columns))

    def categories_of(self, j: int) -> tuple[str, ...]:
        """The categories of column j; () for numbers."""
        return self.formats[j].categories

    def encode(self, table: Any, strict: bool = True) -> TableRows:
        """The rows of a table, whose columns are matched by name.

        The columns of label and conditions may be absent, a learned column that is absent is missing in every row, and
        other columns are ignored; without names the columns are matched by their order.

        Args:
            table: `Cells` or a DataFrame.
            strict: whether a category that the training data do not have is an error; else its row is `novel`.

        Raises:
            InputError: naming row and column, for cells that are not of the column's kind; for a table without any of
                the columns.
        """
        cells = table if isinstance(table, Cells) else frame_cells(table, options=self.options)
        names = self._names(cells)
        position = {name: j for j, name in enumerate(names)}
        places = [position.get(form.name, -1) for form in self.formats]
        notes = self._check_places(cells, names, places)
        missing, novel = np.ones((len(cells.lines), len(places)), np.bool_), np.zeros(len(cells.lines), np.bool_)
        values = np.full(missing.shape, math.nan)
        for k, j in enumerate(places):
            if j >= 0:
                read = self.formats[k].read(cells, j)
                if strict and read.novel.any():
                    raise _novel(cells, j, int(np.argmax(read.novel)), self.formats[k].categories)
                values[:, k], missing[:, k], novel = read.values, read.missing, novel | read.novel
        labels = self._labels(cells, position[self.label], strict) if self.label in position and self.classes else None
        rows = {c.name: self._condition_rows(cells, position[c.name], c) for c in self.conditions if c.name in position}
        return TableRows(values, labels, rows, places, missing, novel, notes)

    def encode_numbers(self, x: NDArray[np.float64], name: str) -> TableRows:
        """The rows of an array (N, D) with the schema's columns in their order, NaN where missing.

        Args:
            x: the numbers.
            name: name of the array, for error messages.

        Raises:
            InputError: for another number of columns, and an infinite number.
        """
        if x.shape[1] != len(self.formats):
            raise InputError(f"{quote(name)} has {x.shape[1]} columns; expected {len(self.formats)} like the training "
                             f"data")
        if (rows := np.flatnonzero(np.isinf(x).any(1))).size:
            raise InputError(f"{quote(name)}, row {rows[0] + 1} holds a number that is not finite; expected finite "
                             f"numbers")
        counts = np.array([len(form.categories) for form in self.formats])
        novel = (counts > 0) & ~np.isnan(x) & ((x < 0) | (x >= counts) | (x % 1 != 0))
        return TableRows(np.where(novel, math.nan, x), None, {}, list(range(x.shape[1])), np.isnan(x), novel.any(1))

    def cells(self, x: Tensor, labels: Sequence[int] | None = None, condition_texts: Mapping[str, str] | None = None,
              label_name: str = "label") -> tuple[list[str], list[list[str]]]:
        """Header and rows of texts for samples, in the column order of the training table.

        Args:
            x: samples (N, D).
            labels: their class numbers.
            condition_texts: text of each condition that all samples have.
            label_name: name of the label column if the training table has none.
        """
        digits = (lambda v: float(format(v, ".9g"))) if x.dtype == torch.float32 else float
        columns = {form.name: [form.text(digits(v)) for v in x[:, j].tolist()] for j, form in enumerate(self.formats)}
        if labels is not None:
            columns[self.label or label_name] = [self.classes[k] if self.classes else str(k) for k in labels]
        columns |= {name: [text] * len(x) for name, text in (condition_texts or {}).items()}
        place = {name: k for k, name in enumerate(self.order)}
        header = sorted(columns, key=lambda name: place.get(name, len(place)))
        return header, [list(row) for row in zip(*(columns[name] for name in header), strict=True)]

    def _names(self, cells: Cells) -> list[str]:
        """The names of the columns; those of the training table for a table of as many columns without names."""
        every = [*self.order, *(name for name, _ in self.left_out)]
        if cells.header or len(cells.columns) != len(self.order) or self.left_out or not every:
            return cells.columns
        return list(self.order)

    def _check_places(self, cells: Cells, names: Sequence[str], places: Sequence[int]) -> list[str]:
        """Remarks on absent and on further columns; InputError if the table has no column of the schema."""
        absent = [form.name for form, j in zip(self.formats, places, strict=True) if j < 0]
        if len(absent) == len(places):
            raise InputError(f"{quote(cells.path)} has no column {quote(absent[0])}, which the model was trained on"
                             f"{did_you_mean(absent[0], names)}, nor any other column of the run; it has "
                             f"{', '.join(map(quote, names[:_LISTED]))}")
        columns_of_run = {*self.columns, self.label, *(c.name for c in self.conditions)}
        other = [name for name in names if name not in columns_of_run]
        hint = did_you_mean(absent[0], other) if absent else ""
        return [f"{what} ({', '.join(columns[:_LISTED])}){more}" for what, columns, more in (
            ("columns that the table does not have are missing values", absent, hint),
            ("columns that the model does not sample are not used", other, "")) if columns]

    def _labels(self, cells: Cells, j: int, strict: bool) -> Tensor:
        """Class numbers, the null label where missing."""
        read = ColumnFormat(cells.columns[j], self.classes).read(cells, j)
        if strict and read.novel.any():
            raise _novel(cells, j, int(np.argmax(read.novel)), self.classes)
        return torch.from_numpy(np.where(np.isnan(read.values), len(self.classes), read.values).astype(np.int64))

    def _condition_rows(self, cells: Cells, j: int, condition: Condition) -> Tensor:
        """The numeric rows (N, width) of a condition."""
        form = next((form for form in self.condition_formats if form.name == condition.name), None)
        return _condition_rows(cells, j, condition, form)


def infer_schema(cells: Cells, label: str | None = None, condition: Sequence[str] = ()) -> tuple[TableSchema,
                                                                                                 list[str]]:
    """The schema of training cells, and one remark for every kind of decision.

    Args:
        cells: cells of the training table.
        label: name of the column of class labels.
        condition: columns that are conditions, as NAME or NAME:KIND.

    Raises:
        InputError: for a missing label, classes that hardly repeat, an unknown column, an infinite number, and if no
            column can be learned.
    """
    at = None if label is None else cells.index(label)
    specs = {cells.index(name): (name, kind) for name, kind in map(conditions.parse_spec, condition)}
    ignored, chosen = ([cells.index(name) for name in names] for names in (cells.options.ignore, cells.options.columns))
    plain = [j for j in range(len(cells.columns)) if j != at and j not in specs and j not in ignored and (
        not chosen or j in chosen)]
    if not plain:
        raise InputError(f"all columns of {quote(cells.path)} are label or conditions, or left out; expected one that "
                         f"is "
                         "learned")
    comma = comma_is_decimal(cells)
    cells.texts([j for j in (*([] if at is None else [at]), *specs)] + [j for j in plain if cells.texts_of[j].tokens])
    fitted = [_condition(cells, j, name, kind, comma) for j, (name, kind) in specs.items()]
    choices = _choices(cells, plain, comma, bool(chosen))
    classes = () if at is None else _classes(cells, at)
    formats = tuple(choice.format for choice in choices.values() if choice.format)
    order = tuple(name for j, name in enumerate(cells.columns) if j in (at, *specs)
                  or (j in choices and choices[j].format))
    left = tuple((cells.columns[j], choice.reason) for j, choice in choices.items() if not choice.format)
    schema = TableSchema(formats, label, classes, tuple(c for c, _ in fitted), tuple(f for _, f in fitted if f), order,
                         left, cells.options, cells.separator if cells.separator in _SEPARATORS else ",")
    return schema, [*cells.notes, *_remarks(cells, choices)]


def data_rows(schema: TableSchema | None, x: ArrayLike) -> Tensor:
    """x (B, *event) in data units as a tensor; columns of a DataFrame are matched by name to the schema of a model.

    A model whose training data had no column names takes the columns of a DataFrame in their order.
    """
    return schema.encode(x).x if schema is not None and schema.matches_by_name(x) else as_tensor(x, "x")


def condition_column(cells: Cells, j: int, name: str, kind: str | None) -> tuple[Condition, Tensor]:
    """The condition that column j implies, and its numeric rows.

    Args:
        cells: cells of the table.
        j: number of the column.
        name: name of the condition.
        kind: one of `KINDS`; None: inferred from the cells.
    """
    condition, form = _condition(cells, j, name, kind, comma_is_decimal(cells))
    return condition, _condition_rows(cells, j, condition, form)


def _choices(cells: Cells, columns: Iterable[int], comma: bool | None, required: bool) -> dict[int, ColumnChoice]:
    """The decision on every column; row counters are learned if there is nothing else."""
    choices = {j: infer_format(cells, j, comma, required) for j in columns}
    if not any(choice.format for choice in choices.values()):
        choices = {j: infer_format(cells, j, comma, True) for j in choices}
    if not any(choice.format for choice in choices.values()):
        reasons = ", ".join(f"{quote(cells.columns[j])} ({c.reason})" for j, c in list(choices.items())[:_LISTED])
        raise InputError(f"{quote(cells.path)} has no column that can be learned: {reasons}; expected numbers, dates "
                         f"or words "
                         "that occur again")
    return choices


def _remarks(cells: Cells, choices: Mapping[int, ColumnChoice]) -> list[str]:
    """One sentence for every topic, with the columns that it is about."""
    topics: dict[str, list[str]] = {}
    for j, choice in choices.items():
        if choice.topic:
            reason = f" ({choice.reason})" if choice.reason else ""
            topics.setdefault(choice.topic, []).append(cells.columns[j] + reason)
        if choice.format and (missing := [f"{t!r}" for t in cells.texts_of[j].tokens if t in choice.format.missing]):
            topics.setdefault("texts read as missing values",
                              []).append(f"{', '.join(missing[:3])} in {cells.columns[j]}")
    if cells.options.ignore:
        topics.setdefault("left out", []).extend(f"{name} (ignored)" for name in cells.options.ignore)
    return [f"{topic}: {', '.join(names[:_LISTED])}" + (f" and {len(names) - _LISTED} more" * (len(names) > _LISTED))
            for topic, names in topics.items()]


def _condition(cells: Cells, j: int, name: str, kind: str | None, comma: bool | None
               ) -> tuple[Condition, ColumnFormat | None]:
    """The condition in column j, and the format of its numbers."""
    form = infer_format(cells, j, comma, True).format if kind not in ("class", "words") else None
    if form is not None and not form.categories:
        return conditions.infer(name, kind, form.read(cells, j).values), form
    missing = cells.missing(j, False)
    return conditions.infer(name, kind, ["" if cell in missing else cell for cell in cells.texts([j])[j]]), None


def _condition_rows(cells: Cells, j: int, condition: Condition, form: ColumnFormat | None) -> Tensor:
    """The numeric rows (N, width) of a condition."""
    if condition.kind == "number":
        return torch.from_numpy((form or ColumnFormat(condition.name)).read(cells, j).values.copy())[:, None]
    texts, missing = cells.texts([j])[j], cells.missing(j, False)
    rows = condition.rows([None if cell in missing else cell for cell in texts], len(texts))
    condition.check(rows)
    return rows


def _classes(cells: Cells, j: int) -> tuple[str, ...]:
    """The classes in column j."""
    texts, absent = cells.texts([j])[j], cells.missing(j, False)
    if missing := [i for i, cell in enumerate(texts) if cell in absent]:
        raise InputError(f"{cells.where(missing[0], j)}: the label is missing; fill it in or remove the row")
    return categories_of(texts, lambda count: (
        f"the labels of {cells.path.name} take {count} different values in {len(texts)} rows; expected classes that "
        "occur again, so choose another label"))


def _novel(cells: Cells, j: int, row: int, categories: Sequence[str]) -> InputError:
    text = cells.texts([j])[j][row]
    return InputError(f"{cells.where(row, j)} holds {quote(text)}, which is not in the training data; expected one of "
                      f"{', '.join(map(quote, categories[:_LISTED]))}{did_you_mean(text, categories)}")
