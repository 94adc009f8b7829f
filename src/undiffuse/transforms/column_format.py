"""What a column of a table holds, and how its cells become numbers and texts again.

    number     float64 numbers; decimals, currency, percent, units and separators are kept for the way back
    date       the number of steps of a date or time; written in the pattern of the column
    category   the number of a word
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from undiffuse.errors import InputError, quote
from undiffuse.transforms.conditions import hardly_repeat, sort_categories
from undiffuse.transforms.date_format import DateFormat, infer_date_format
from undiffuse.transforms.number_format import NumberFormat, decimals_of, infer_number_format, too_large
from undiffuse.transforms.table_cells import Cells, is_infinite

_MAX_UNREADABLE = 0.1  # fraction of words in a column of numbers up to which they are unknown values
_FEW_NUMBERS = 20  # distinct numbers up to which a column of numbers and words is one of categories
_MOSTLY = 0.9  # fraction of different numbers in a column of identifiers
_NOTATION = "numbers in another notation"
_COUNTED = 10  # rows from which a counter is not a coincidence
_IDENTIFIER = re.compile(
    r"p?(id|ID|Id)(num|nr|no)?|.*[_ .-](id|ID|Id|no)|.*[a-z](Id|ID)|(id|ID|Id)[_ .-].*|uuid|guid|index")
_INDEX = re.compile(r"Unnamed: \d+|rownames|index", re.IGNORECASE)


class ColumnValues(NamedTuple):
    """The values of a column.

    Args:
        values: numbers (N,), NaN where missing or not readable.
        missing: the cells that are missing (N,).
        novel: the cells with a category that the training data do not have (N,).
    """

    values: NDArray[np.float64]
    missing: NDArray[np.bool_]
    novel: NDArray[np.bool_]


@dataclass(frozen=True)
class ColumnFormat:
    """What a column holds, and how it is written.

    Args:
        name: its name.
        categories: its categories 0, 1, ...; empty for numbers and dates.
        number: the text of its numbers.
        date: the text of its dates.
        missing: texts that stand for a missing value, besides the empty cell.
        unreadable: texts among numbers or dates that are unknown values and are never replaced.
    """

    name: str
    categories: tuple[str, ...] = ()
    number: NumberFormat | None = None
    date: DateFormat | None = None
    missing: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """"category", "date" or "number"."""
        return "category" if self.categories else "date" if self.date else "number"

    @property
    def integer(self) -> bool:
        """Whether the values are whole numbers."""
        return self.kind == "number" and self.number is not None and self.number.decimals[1:] == (0,)

    def text(self, value: float) -> str:
        """The text of a value; "" for NaN."""
        if math.isnan(value):
            return ""
        if self.categories:
            return self.categories[int(value)]
        return self.date.text(value) if self.date else (self.number or NumberFormat()).text(value)

    def read(self, cells: Cells, j: int) -> ColumnValues:
        """The values of column j of a table.

        Raises:
            InputError: naming row and column, for a text among numbers or dates that is neither missing nor one of the
                training data.
        """
        if self.categories:
            return self._read_categories(cells, j)
        absent = {*self.missing, *cells.missing(j, True)} - set(self.unreadable)
        tokens = cells.texts_of[j].tokens
        if self.date is None and (self.number is None or self.number.plain) and not tokens.keys() - absent:
            values = cells.values[:, j]
            return ColumnValues(values, np.isnan(values), np.zeros(len(values), np.bool_))
        return self._read_texts(cells, j, absent)

    def config(self) -> dict[str, Any]:
        """The JSON-compatible description."""
        return {"name": self.name, "categories": list(self.categories), "missing": list(self.missing),
                "unreadable": list(self.unreadable), "number": self.number and self.number.config(),
                "date": self.date and self.date.config()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ColumnFormat:
        """The inverse of `config`."""
        return cls(config["name"], tuple(config["categories"]),
                   None if config["number"] is None else NumberFormat.from_config(config["number"]),
                   None if config["date"] is None else DateFormat(**config["date"]),
                   tuple(config["missing"]), tuple(config["unreadable"]))

    def describe(self) -> str:
        """How samples of the column are written."""
        if self.categories:
            count = len(self.categories)
            return f"one of {count} words" if count > 1 else f"always {self.categories[0]}"
        if self.date:
            unit = {"month": "month", "day": "day"}.get(self.date.unit)
            step = f"{self.date.step} {unit}{'s' * (self.date.step > 1)}" if unit else f"{self.date.step / 1e6:g} s"
            return f"{self.date.pattern}, in steps of {step}"
        form = self.number or NumberFormat()
        digits = "whole numbers" if self.integer else "all digits"
        if form.decimals and not self.integer:
            digits = f"{form.decimals[1]} decimal{'s' * (form.decimals[1] > 1)}"
        return digits if form.plain else f"{digits}, like {form.text(1234.5)}"

    def _read_categories(self, cells: Cells, j: int) -> ColumnValues:
        number, texts = {text: float(k) for k, text in enumerate(self.categories)}, cells.texts([j])[j]
        values = np.array([number.get(text, math.nan) for text in texts])
        absent = {*self.missing, "", *(cells.missing(j, False) if not cells.typed else ())} - number.keys()
        missing = np.array([text in absent for text in texts], np.bool_)
        return ColumnValues(values, missing, np.isnan(values) & ~missing)

    def _read_texts(self, cells: Cells, j: int, absent: set[str]) -> ColumnValues:
        texts, unreadable = cells.texts([j])[j], {*self.unreadable}
        value, form = dict[str, float](), self.date or self.number or NumberFormat()
        for text in dict.fromkeys(texts):
            if text in absent or text in unreadable:
                continue
            number = form.value(text)
            if number is None:
                i = texts.index(text)
                what = f"a date like {self.date.text(0)}" if self.date else "a number"
                raise InputError(f"{cells.where(i, j)} holds {quote(text)}; expected {what}, or nothing")
            value[text] = number
        missing = np.array([text in absent for text in texts], np.bool_)
        return ColumnValues(np.array([value.get(text, math.nan) for text in texts]), missing,
                            np.zeros(len(texts), np.bool_))


class ColumnChoice(NamedTuple):
    """The decision on a column.

    Args:
        format: its format; None if it is left out.
        reason: why it is left out or, for others, a remark; "" if there is nothing to say.
        topic: heading under which such remarks are listed.
    """

    format: ColumnFormat | None
    reason: str = ""
    topic: str = ""


def infer_format(cells: Cells, j: int, comma: bool | None, required: bool = False) -> ColumnChoice:
    """The format that the cells of a column imply.

    Args:
        cells: cells of the training table.
        j: number of the column.
        comma: whether commas are decimal signs; None: decided from the column.
        required: whether the user named the column, so that row counters are learned.
    """
    texts, name = cells.texts_of[j], cells.columns[j]
    numbers = int((~np.isnan(cells.values[:, j])).sum())
    absent = cells.missing(j, True)
    infinite = {t: n for t, n in texts.tokens.items() if numbers and is_infinite(t)}
    words = {t: n for t, n in texts.tokens.items() if t not in absent and t not in infinite}
    distinct_words = [t for t in texts.tokens if t not in cells.missing(j, False)]
    if not numbers and not words and len(distinct_words) < 2:
        return ColumnChoice(None, "no values", "left out")
    if j in cells.unnamed and not required and _row_names(cells, j):
        return ColumnChoice(None, "names or numbers of the rows", "left out")
    empty = tuple(sorted(absent - {""}))
    if numbers and not words:
        choice = _number_choice(cells, j, empty, comma, required)
        return _with_unreadable(cells, j, choice.format, infinite, "") if infinite and choice.format else choice
    if words and (number := _dressed(cells, j, words, numbers, comma)):
        topic = "numbers with an uncertainty in brackets, which is not learned" if number.uncertain else _NOTATION
        return _with_unreadable(cells, j, ColumnFormat(name, number=number, missing=empty), words, topic)
    if words and (date := infer_date_format(words)) and sum(words.values()) >= 0.9 * (numbers + sum(words.values())):
        return _with_unreadable(cells, j, ColumnFormat(name, date=date, missing=empty), words, "dates and times")
    few_words = sum(words.values()) <= _MAX_UNREADABLE * (numbers + sum(words.values()))
    if numbers and few_words and len(np.unique(cells.values[:, j])) > _FEW_NUMBERS:
        decimals = decimals_of(texts.low, texts.high, texts.exponent)
        return _with_unreadable(cells, j, ColumnFormat(name, number=NumberFormat(decimals), missing=empty), words, "")
    return _category_choice(cells, j, "numbers and words, read as categories" if numbers else "")


def _row_names(cells: Cells, j: int) -> bool:
    """Whether all cells of a column are different, and words or whole numbers."""
    x, texts = cells.values[:, j], cells.texts_of[j]
    if len(x) < 2 or texts.high or texts.exponent:
        return False
    different = len({*cells.texts([j])[j]} - {""}) if texts.tokens else len(np.unique(x[~np.isnan(x)]))
    return different == len(x)


def _number_choice(cells: Cells, j: int, empty: tuple[str, ...], comma: bool | None, required: bool) -> ColumnChoice:
    """The format of a column in which all texts but those of missing values are numbers."""
    texts, name, x = cells.texts_of[j], cells.columns[j], cells.values[:, j]
    observed = x[~np.isnan(x)]
    integers = bool(np.isfinite(observed).all() and (observed == np.rint(observed)).all()) and texts.high == 0
    if integers and not texts.exponent and (texts.zeros or too_large(float(np.abs(observed).max()))):
        return _category_choice(cells, j, "codes with leading zeros or many digits, read as categories")
    if integers and not required and (why := _counter(cells, j, observed)):
        return ColumnChoice(None, why, "left out")
    if integers and len(observed) and observed.min() > 1e7 and observed.max() < 1e8:
        counts = {str(int(v)): 1 for v in np.unique(observed)}
        if date := infer_date_format(counts):
            return ColumnChoice(ColumnFormat(name, date=date, missing=empty), date.pattern, "dates and times")
    number = NumberFormat(decimals_of(texts.low, texts.high, texts.exponent))
    if comma and texts.high == 3:  # 1.234 may be 1234
        counts = Counter(t for t in cells.texts([j])[j] if t not in cells.missing(j, True))
        number = infer_number_format(counts, comma) or number
    return ColumnChoice(ColumnFormat(name, number=number, missing=empty))


def _counter(cells: Cells, j: int, x: NDArray[np.float64]) -> str:
    """Why a column of whole numbers only numbers the rows; "" if it does not."""
    name, unnamed = cells.columns[j], j in cells.unnamed
    if len(x) < len(cells.values) or len(x) < (2 if unnamed else _COUNTED):
        return ""
    rising = bool((np.diff(x) > 0).all())
    if x[0] in (0, 1) and rising and x[-1] - x[0] == len(x) - 1:
        return "row counter"
    if rising and (unnamed or _INDEX.fullmatch(name)):
        return "row numbers"
    different = len(x) >= _COUNTED and len(np.unique(x)) >= _MOSTLY * len(x)
    return "identifiers" if different and _IDENTIFIER.fullmatch(name) else ""


def _dressed(cells: Cells, j: int, words: Mapping[str, int], numbers: int, comma: bool | None) -> NumberFormat | None:
    """The format of numbers with separators, currencies or units, if the words are such."""
    if infer_number_format(words, comma) is None:
        return None
    missing = cells.missing(j, True)
    counts = Counter(t for t in cells.texts([j])[j] if t not in missing) if numbers else words
    return infer_number_format(counts, comma)


def _with_unreadable(cells: Cells, j: int, form: ColumnFormat, words: Mapping[str, int], topic: str) -> ColumnChoice:
    """The choice of a format for which some texts cannot be read."""
    reader = form.date or form.number or NumberFormat()
    unreadable = tuple(text for text in words if reader.value(text) is None)
    example = next((text for text in words if text not in unreadable), "")
    if not unreadable:
        return ColumnChoice(form, example, topic)
    count = sum(words[text] for text in unreadable)
    which = f"{unreadable[0]!r}" + (f" and {len(unreadable) - 1} more" if len(unreadable) > 1 else "")
    return ColumnChoice(dataclasses.replace(form, unreadable=unreadable), f"{which} in {count} "
                                                                          f"cells{' beside ' * bool(topic)}{example}",
                        "unknown values, which are not learned and not replaced")


def _category_choice(cells: Cells, j: int, topic: str) -> ColumnChoice:
    """The format of a column of words; left out if they hardly repeat."""
    missing = cells.missing(j, False)
    counts = Counter(text for text in cells.texts([j])[j] if text not in missing)
    total = sum(counts.values())
    if hardly_repeat(len(counts), total):
        return ColumnChoice(None, f"{len(counts)} different texts in {total} cells", "left out")
    form = ColumnFormat(cells.columns[j], sort_categories(counts), missing=tuple(sorted(missing - {""})))
    usual = sorted(t for t in counts if t in cells.missing(j, True))
    if usual and not topic:
        return ColumnChoice(form, ", ".join(f"{t!r} in {counts[t]} cells" for t in usual[:3]),
                            "words and not missing values (missing=TEXT changes that)")
    return ColumnChoice(form, next(iter(counts)) if topic else "", topic)


def comma_is_decimal(cells: Cells) -> bool | None:
    """Whether a comma is the decimal sign: as chosen, or in a file separated by semicolons without decimal points."""
    if cells.options.decimal:
        return cells.options.decimal == ","
    commas = any(re.fullmatch(r"[+-]?\d+,\d+", text) for texts in cells.texts_of for text in list(texts.tokens)[:20])
    points = any(texts.low > 0 and texts.high != 3 for texts in cells.texts_of if texts.high)
    return True if cells.separator == ";" and commas and not points else None


def number_column(name: str, x: NDArray[np.float64]) -> ColumnFormat:
    """The format of a column of an array: whole numbers, or all digits."""
    finite = np.isfinite(x)
    integers = bool(finite.any()) and bool((x[finite] == np.rint(x[finite])).all())
    return ColumnFormat(name, number=NumberFormat((0, 0) if integers else ()))

