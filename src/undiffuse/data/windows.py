"""Series: a long table with a column of times as windows (N, T, C) of consecutive steps.

The times are put on a grid of equal steps, per series where there are several; steps without a row are missing values,
and where a hole is longer than a window the series is cut. Training and held-out windows are split by time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from undiffuse.data.dataset import Dataset
from undiffuse.data.fields import ArrayOptions, make_array
from undiffuse.errors import InputError, quote
from undiffuse.transforms.series_schema import (
    Ints,
    SeriesSchema,
    calendar_period,
    group_texts,
    infer_grid,
    refuse_missing_times,
    refuse_repeated,
    time_column,
)
from undiffuse.transforms.table_cells import Cells
from undiffuse.transforms.table_schema import TableRows, infer_schema

_MAX_BYTES = 1 << 31
Array = NDArray[np.float64]


@dataclass(frozen=True)
class SeriesOptions:
    """How a table is read as a series.

    Args:
        time: name of the column of times; None: the rows are consecutive steps.
        window: number of steps of a window; None: the table is not a series.
        stride: steps between the beginnings of consecutive windows.
        group: name of the column that tells several series apart; None: one series.
    """

    time: str | None = None
    window: int | None = None
    stride: int = 1
    group: str | None = None

    def chosen(self) -> list[str]:
        """The names of the options that are set."""
        return [f for f in ("time", "window", "group") if getattr(self, f) is not None] + ["stride"] * (self.stride > 1)

    def check(self) -> None:
        """InputError for a time, a group or a stride without a window, and a window of one step."""
        if self.window is None and self.chosen():
            raise InputError(f"got {self.chosen()[0]} without window; give the number of steps of a window, such as "
                             f"window=48, to read the table as a series")
        if self.window is not None and (self.window < 2 or self.stride < 1):
            raise InputError(f"got window={self.window} and stride={self.stride}; expected at least 2 and 1 steps")


@dataclass(frozen=True, eq=False)
class Piece:
    """A stretch of a series without holes longer than a window.

    Args:
        group: number of the series.
        start: step of the first row.
        values: (steps, C), NaN where missing.
        rows: row of the table of every step, −1 where it has none.
    """

    group: int
    start: int
    values: Array
    rows: Ints


@dataclass(frozen=True, eq=False)
class SeriesTable:
    """The rows of a table on the grid of a series.

    Args:
        schema: the columns and the grid.
        cells: the table.
        pieces: its stretches, in the order of series and time.
        groups: names of the series.
        rows: the encoded rows of the table.
        notes: remarks on times and columns.
    """

    schema: SeriesSchema
    cells: Cells
    pieces: list[Piece]
    groups: list[str]
    rows: TableRows
    notes: list[str]


def series_schema(cells: Cells, options: SeriesOptions) -> tuple[SeriesSchema, list[str]]:
    """The schema of a training table, and notes.

    Raises:
        InputError: for times that are not readable, and a table without a column of numbers.
    """
    options.check()
    assert options.window is not None
    names = [name for name in (options.time, options.group) if name is not None]
    for name in names:
        cells.index(name)
    chosen = replace(cells.options, ignore=(*cells.options.ignore, *names))
    cells.options = chosen
    table, notes = infer_schema(cells)
    table = replace(table, left_out=tuple(pair for pair in table.left_out if pair[0] not in names))
    notes = [*cells.notes, *(note for note in notes if note not in cells.notes and not note.startswith("left out"))]
    notes += [f"left out: {', '.join(f'{name} ({why})' for name, why in table.left_out)}"] * bool(table.left_out)
    words = [form.name for form in table.formats if form.kind != "number"]
    table = replace(table, formats=tuple(form for form in table.formats if form.kind == "number"),
                    order=tuple(name for name in table.order if name not in words))
    notes += [f"columns that are not numbers are left out ({', '.join(words[:8])})"] * bool(words)
    if not table.formats:
        raise InputError(f"{quote(cells.path)} has no column of numbers besides {', '.join(map(quote, names))}; "
                         f"expected the values of a series")
    time = None if options.time is None else time_column(cells, options.time)
    step, offset = 1.0, 0.0
    if time is not None:
        groups = [""] * len(cells.lines) if options.group is None else group_texts(cells, options.group)
        values = time.read(cells, cells.index(time.name)).values
        refuse_missing_times(values, cells, time.name)
        step, offset = infer_grid(values, groups)
    return SeriesSchema(table, time, step, offset, options.group, options.window, calendar_period(time, step)), notes


def series_table(cells: Cells, schema: SeriesSchema) -> SeriesTable:
    """The rows of a table on the grid of a schema.

    Raises:
        InputError: for two rows of one time, and times beside the grid.
    """
    steps, notes = schema.steps_of(cells)
    names = schema.groups_of(cells)
    groups = list(dict.fromkeys(names))
    codes = np.array([groups.index(name) for name in names] if len(groups) > 1 else [0] * len(names), np.int64)
    name = schema.time.name if schema.time else ""
    refuse_repeated(steps, codes, cells, name, schema.group is not None)
    rows = schema.table.encode(cells)
    order = np.lexsort((steps, codes))
    if (np.diff(order) < 0).any():
        notes.append("the rows were put into the order of their times")
    pieces = list(_pieces(steps, codes, order, rows.values, schema.window))
    empty = sum(int((piece.rows < 0).sum()) for piece in pieces)
    cuts = len(pieces) - len(groups)
    notes += [f"{empty:,} steps without a row are missing values"] * (empty > 0)
    notes += [f"the series is cut at {cuts:,} holes longer than a window"] * (cuts > 0)
    notes += [note for note in rows.notes if "does not have" in note]
    return SeriesTable(schema, cells, pieces, groups, rows, notes)


def read_series(cells: Cells, options: SeriesOptions, name: str) -> Dataset:
    """The Dataset of the windows of a table.

    Args:
        cells: the table.
        options: time, window, stride and group.
        name: name of the data.
    """
    schema, notes = series_schema(cells, options)
    table = series_table(cells, schema)
    x, starts = windows_of(table, options.stride)
    if len(x) < 2:
        longest = max(len(piece.values) for piece in table.pieces)
        raise InputError(f"{name} has {len(x)} windows of {schema.window} steps, its longest stretch has {longest:,}; "
                         f"expected at least 2, so choose a shorter window")
    data = make_array(x, ArrayOptions("NTC", schema.table.columns), name=name, notes=[])
    assert data.array is not None
    remarks = [*notes, *table.notes, _grid_note(table, len(x), options)]
    return replace(data, array=replace(data.array, windows=schema.config()), starts=torch.from_numpy(starts),
                   notes=(*remarks, *data.notes))


def windows_of(table: SeriesTable, stride: int = 1) -> tuple[Array, Ints]:
    """All windows (N, T, C) with an observed value, and series and first step of each (N, 2)."""
    window, parts, starts = table.schema.window, list[Any](), list[Any]()
    count = sum(max(0, len(p.values) - window + stride) // stride for p in table.pieces)
    if (size := 8 * count * window * len(table.schema.table.columns)) > _MAX_BYTES:
        raise InputError(f"got {count:,} windows, over 2 GiB of numbers ({size >> 30} GiB); give a stride, such as "
                         f"stride={max(2, window // 4)}")
    for piece in table.pieces:
        if len(piece.values) < window:
            continue
        view = np.lib.stride_tricks.sliding_window_view(piece.values, window, 0)[::stride].transpose(0, 2, 1)
        some = ~np.isnan(view).all((1, 2))
        parts.append(view[some])
        begin = piece.start + stride * np.flatnonzero(some)
        starts.append(np.stack([np.full(len(begin), piece.group), begin], 1))
    if not parts:
        return np.empty((0, window, len(table.schema.table.columns))), np.empty((0, 2), np.int64)
    return np.concatenate(parts), np.concatenate(starts).astype(np.int64)


def _pieces(steps: Ints, codes: Ints, order: Ints, values: Array, window: int) -> Iterator[Piece]:
    cut = np.flatnonzero((np.diff(codes[order]) != 0) | (np.diff(steps[order]) > window)) + 1
    for part in np.split(order, cut):
        if not len(part):
            continue
        start = int(steps[part[0]])
        at = steps[part] - start
        grid, rows = np.full((int(at[-1]) + 1, values.shape[1]), np.nan), np.full(int(at[-1]) + 1, -1, np.int64)
        grid[at], rows[at] = values[part], part
        yield Piece(int(codes[part[0]]), start, grid, rows)


def _grid_note(table: SeriesTable, count: int, options: SeriesOptions) -> str:
    schema, first = table.schema, table.pieces[0]
    ends = [schema.time_text(first.start + k) for k in (0, 1)]
    step = f", one step is {ends[0]} to {ends[1]}" if schema.time else ""
    many = f"{len(table.groups):,} series" if len(table.groups) > 1 else "one series"
    return (f"read as {many}{step}; {count:,} windows of {schema.window} steps, one every {options.stride}"
            + (f"; mean and covariance follow a period of {schema.period} steps" if schema.period else ""))
