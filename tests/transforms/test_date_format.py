"""Dates and times: every text comes back from its number of steps, and other texts are refused."""

from __future__ import annotations

import calendar
from datetime import datetime, timedelta

import pytest

from undiffuse.transforms.date_format import DateFormat, infer_date_format

START = datetime(2019, 11, 23, 17, 45, 30)
PATTERNS = ["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%b %d %Y", "%d-%b-%y", "%B %d, %Y", "%Y%m%d", "%Y-%m-%d %H:%M:%S",
            "%Y-%m-%dT%H:%M:%SZ", "%m/%d/%Y %I:%M %p", "%d/%m/%Y %H:%M", "%Y/%m/%d", "%Y-%m-%d %H:%M:%S.%f", "%a, %d "
                                                                                                             "%b %Y"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_moment_comes_back(pattern: str) -> None:
    texts = [(START + k * timedelta(days=11, hours=5, minutes=7)).strftime(pattern) for k in range(40)]
    form = infer_date_format(dict.fromkeys(texts, 1))
    assert form is not None and form.pattern == pattern
    steps = [form.value(text) for text in texts]
    assert all(v is not None and v == int(v) for v in steps)
    assert [form.text(v or 0.0) for v in steps] == texts
    assert DateFormat(**form.config()) == form


def test_steps_are_as_coarse_as_the_column() -> None:
    weeks = [(START + k * timedelta(days=7)).strftime("%Y-%m-%d") for k in range(9)]
    hours = [(START.replace(minute=0, second=0) + k * timedelta(hours=1)).strftime("%Y-%m-%d %H:%M:%S")
             for k in range(9)]
    first = [f"{2000 + k // 12}-{k % 12 + 1:02d}-01" for k in range(30)]
    last = [f"{text[:8]}{calendar.monthrange(int(text[:4]), int(text[5:7]))[1]}" for text in first]
    quarters = [f"{2000 + k // 4}Q{k % 4 + 1}" for k in range(9)]
    for texts, unit, step in ((weeks, "day", 7), (hours, "microsecond", 3_600_000_000), (first, "month", 1),
                              (last, "month", 1), (quarters, "month", 3)):
        form = infer_date_format(dict.fromkeys(texts, 1))
        assert form is not None and (form.unit, form.step) == (unit, step)
        value = form.value(texts[0])
        assert value is not None and form.text(value + 0.4) == texts[0] and form.text(value + 1) == texts[1]


def test_padding_letters_and_day_first() -> None:
    for texts in (["3/15/2011", "12/1/2012"], ["15/3/11", "1/12/12"], ["3-JAN-2001", "15-FEB-2002"], ["8:05", "17:40"],
                  ["9:05 am", "11:40 pm"], ["Jan 1 2000", "Feb 15 2001"], ["2001-02", "2005-11"]):
        form = infer_date_format(dict.fromkeys(texts, 1))
        assert form is not None and [form.text(form.value(text) or 0.0) for text in texts] == texts


@pytest.mark.parametrize("texts", [["a", "b"], ["2020-13-45", "2020-14-50"], ["u1", "u2"], ["1.5", "2.5"], ["12345678"],
                                   ["31.02.2020", "30.02.2021"], ["10-20", "30-40"]])
def test_other_texts_are_no_dates(texts: list[str]) -> None:
    assert infer_date_format(dict.fromkeys(texts, 1)) is None


def test_a_few_other_texts_do_not_matter() -> None:
    texts = {f"2020-{k % 12 + 1:02d}-{k % 28 + 1:02d}": 2 for k in range(80)}
    assert infer_date_format({**texts, "unknown": 3}) is not None
    assert infer_date_format({**texts, "unknown": 30}) is None
