"""What a series is: its columns, the column of times, and the grid of equal steps on which the times lie."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from undiffuse.errors import InputError, quote
from undiffuse.transforms.column_format import ColumnFormat
from undiffuse.transforms.date_format import infer_date_format
from undiffuse.transforms.number_format import NumberFormat
from undiffuse.transforms.table_cells import Cells
from undiffuse.transforms.table_schema import TableSchema

_DAY = 86_400_000_000  # microseconds
_MAX_MOVED = 0.05  # fraction of the rows whose time may lie beside the grid
_CLOSE = 1e-6  # of a step
_MAX_PERIOD = 2000

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class SeriesSchema:
    """The columns of a series and its grid of times.

    Args:
        table: the columns that are learned, all numbers, and how they are written.
        time: the column of times; None: the rows are consecutive steps.
        step: difference between consecutive times, in units of the column's values.
        offset: time of step 0.
        group: name of the column that tells several series apart; None: one series.
        window: number of steps of a window.
        period: number of steps of a day, week or year; 0: none.
    """

    table: TableSchema
    time: ColumnFormat | None
    step: float
    offset: float
    group: str | None
    window: int
    period: int

    def config(self) -> dict[str, Any]:
        """The JSON-compatible description."""
        return {"table": self.table.config(), "time": self.time and self.time.config(), "step": self.step,
                "offset": self.offset, "group": self.group, "window": self.window, "period": self.period}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SeriesSchema:
        """The inverse of `config`."""
        none: dict[str, Any] = {"kind": "table", "schema": config["table"], "label": None, "classes": []}
        table = TableSchema.from_config(none)
        assert table is not None
        time = None if config["time"] is None else ColumnFormat.from_config(config["time"])
        return cls(table, time, config["step"], config["offset"], config["group"], config["window"], config["period"])

    def time_text(self, step: int) -> str:
        """The text of the time of a step."""
        if self.time is None:
            return str(step + 1)
        value = self.offset + step * self.step
        return self.time.text(value) if self.time.date else format(value, ".12g")

    def steps_of(self, cells: Cells) -> tuple[Ints, list[str]]:
        """The step of every row of a table, and notes; see `grid_steps`."""
        if self.time is None:
            return np.arange(len(cells.lines)), []
        name = self.time.name
        values = self.time.read(cells, cells.index(name))
        return grid_steps(values.values, self.step, self.offset, cells, name)

    def groups_of(self, cells: Cells) -> list[str]:
        """The series of every row."""
        return [""] * len(cells.lines) if self.group is None else group_texts(cells, self.group)


def group_texts(cells: Cells, name: str) -> list[str]:
    """The texts of the column of groups; InputError for an empty one."""
    texts = cells.texts([cells.index(name)])[cells.index(name)]
    if "" in texts:
        raise InputError(f"{cells.where(texts.index(''), cells.index(name))} is empty; expected the series to which "
                         f"the row belongs")
    return texts


def time_column(cells: Cells, name: str) -> ColumnFormat:
    """The format of a column of times: dates, or numbers.

    Raises:
        InputError: for a column of other texts.
    """
    j = cells.index(name)
    absent = cells.missing(j, True)
    if cells.texts_of[j].tokens.keys() - absent or _compact(cells.values[:, j]):
        date = infer_date_format(Counter(text for text in cells.texts([j])[j] if text and text not in absent))
        if date is None and cells.texts_of[j].tokens.keys() - absent:
            example = next(iter(cells.texts_of[j].tokens))
            raise InputError(f"the column {quote(name)} of {quote(cells.path)} holds {example[:40]!r}; expected dates, "
                             f"times or numbers, such as 2024-01-31 or 2024-01-31 12:00")
        if date is not None:
            return ColumnFormat(name, date=date)
    return ColumnFormat(name, number=NumberFormat())


def infer_grid(values: NDArray[np.float64], groups: Sequence[str]) -> tuple[float, float]:
    """Step and offset of the grid: the most frequent difference between consecutive times of a series."""
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    order = np.lexsort((values, codes))
    differences = np.diff(values[order])[np.diff(codes[order]) == 0]
    positive = np.round(differences[differences > 0], 9)
    if not len(positive):
        return 1.0, 0.0
    kinds, counts = np.unique(positive, return_counts=True)
    step = float(kinds[counts.argmax()])
    offsets, counts = np.unique(np.round(values / step % 1, 6) % 1, return_counts=True)
    return step, float(offsets[counts.argmax()]) * step


def grid_steps(values: NDArray[np.float64], step: float, offset: float, cells: Cells, name: str
               ) -> tuple[Ints, list[str]]:
    """The step of every time, and a note on those that are moved to the nearest step.

    Args:
        values: times (N,).
        step: difference between consecutive times.
        offset: time of step 0.
        cells: the table, for messages.
        name: name of the column of times.

    Raises:
        InputError: for a missing time, and if more than 5 % are not on the grid.
    """
    refuse_missing_times(values, cells, name)
    exact = (values - offset) / step
    steps = np.rint(exact).astype(np.int64)
    moved = int((np.abs(exact - steps) > _CLOSE * (1 + np.abs(exact) * 1e-6)).sum())
    if moved > _MAX_MOVED * len(values):
        raise InputError(f"{moved:,} of {len(values):,} times in the column {quote(name)} are not on a grid of equal "
                         f"steps; resample the series to one, such as frame.resample('1h').mean() in pandas")
    notes = [f"{moved:,} times are not on the grid of equal steps and were moved to the nearest step"]
    return steps, notes * (moved > 0)


def refuse_missing_times(values: NDArray[np.float64], cells: Cells, name: str) -> None:
    """InputError for a missing time, naming its row.

    Args:
        values: times (N,).
        cells: the table.
        name: name of the column of times.
    """
    if np.isnan(values).any():
        row = int(np.isnan(values).argmax())
        raise InputError(f"{cells.where(row, cells.columns.index(name))} holds no time; expected one in every row")


def calendar_period(time: ColumnFormat | None, step: float) -> int:
    """The number of steps of a day, of a week of daily values, or of a year of monthly ones; 0: none."""
    if time is None or time.date is None:
        return 0
    units = step * time.date.step
    length = {"microsecond": _DAY, "day": 7, "month": 12}[time.date.unit] / units
    if time.date.unit == "microsecond" and math.isclose(length, 1):
        length = 7.0
    period = round(length)
    return period if 2 <= period <= _MAX_PERIOD and math.isclose(length, period) else 0


def refuse_repeated(steps: Ints, codes: Ints, cells: Cells, text: str, grouped: bool) -> None:
    """InputError for two rows of one series and step.

    Args:
        steps: step of every row.
        codes: number of the series of every row.
        cells: the table.
        text: name of the column of times.
        grouped: whether there is a column of groups.
    """
    order = np.lexsort((steps, codes))
    same = (np.diff(steps[order]) == 0) & (np.diff(codes[order]) == 0)
    if not same.any():
        return
    k = int(same.argmax())
    rows = sorted((int(order[k]), int(order[k + 1])))
    way = "remove one of them" if grouped else "remove one of them, or name the column that tells series apart (group)"
    raise InputError(f"{int(same.sum()):,} rows of {quote(cells.path)} have the time of another row, first rows "
                     f"{rows[0] + 1} and {rows[1] + 1} in the column {quote(text)}; {way}")


def _compact(values: NDArray[np.float64]) -> bool:
    """Whether numbers look like dates of eight digits."""
    finite = values[~np.isnan(values)]
    return bool(len(finite)) and bool(((finite > 18_000_000) & (finite < 22_000_000) & (finite % 1 == 0)).all())
