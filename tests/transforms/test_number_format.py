"""Numbers in the notations of the world: every text comes back, and words are no numbers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undiffuse.transforms.number_format import NumberFormat, infer_number_format

COLUMNS = [
    (["$1,500", "$18,000", "$900"], [1500, 18000, 900]), (["45%", "5%", "100%"], [45, 5, 100]),
    (["1,234,567", "12", "1,000"], [1234567, 12, 1000]), (["−5", "7", "−12"], [-5, 7, -12]),
    (["3.4 km", "12.0 km"], [3.4, 12.0]), (["(1,500.00)", "20.50"], [-1500, 20.5]),
    (["€ 9.50", "€ 12.00"], [9.5, 12]), (["12'500.5", "900.0"], [12500.5, 900]),
    (["1 234 567", "12 000"], [1234567, 12000]), (["-$5.20", "$7.00"], [-5.2, 7]),
    (["3 people", "12 people", "7 people"], [3, 12, 7]), (["1.5e-3 mg", "2.5e-3 mg"], [1.5e-3, 2.5e-3]),
]


@pytest.mark.parametrize(("texts", "values"), COLUMNS)
def test_a_notation_is_read_and_written(texts: list[str], values: list[float]) -> None:
    form = infer_number_format(dict.fromkeys(texts, 3))
    assert form is not None and [form.value(text) for text in texts] == values
    if form.decimals:
        assert [form.text(value) for value in values] == texts
    assert NumberFormat.from_config(json.loads(json.dumps(form.config()))) == form


@pytest.mark.parametrize(("texts", "comma", "values"), [
    (["9,72", "10,60"], None, [9.72, 10.6]), (["1.100,50", "20,25"], None, [1100.5, 20.25]),
    (["1,234", "2,500"], None, [1234, 2500]), (["1,234", "2,500"], True, [1.234, 2.5]),
    (["1.234", "2.500"], True, [1234, 2500]), (["1.234", "2.5"], True, [1.234, 2.5]),
    (["1.234.567", "2.500"], None, [1234567, 2500])])
def test_commas_and_points(texts: list[str], comma: bool | None, values: list[float]) -> None:
    form = infer_number_format(dict.fromkeys(texts, 1), comma)
    assert form is not None and [form.value(text) for text in texts] == values


@pytest.mark.parametrize("texts", [["u1", "u2"], ["5A", "5B"], ["A12", "A13"], ["Q1", "Q2"], ["12:30", "13:45"],
                                   ["+", "-"],
                                   ["10-20", "20-30"], ["1/2", "3/4"], ["a", "b"], ["1,2,3", "4,5,6"], ["5A", "6A"],
                                   ["2020-01-01", "2020-01-02"], ["$1", "€2", "£3"],
                                   ["1. Yes", "2. Yes", "3. Yes"], ["2 Mid Atlantic"]])
def test_words_are_no_numbers(texts: list[str]) -> None:
    assert infer_number_format(dict.fromkeys(texts, 5)) is None


@settings(derandomize=True, max_examples=200)
@given(st.integers(-10**9, 10**9), st.integers(0, 4), st.sampled_from([".", ","]), st.sampled_from(["", "'", " "]),
       st.sampled_from(["", "$", "€ "]), st.sampled_from(["", "%", " km"]), st.sampled_from(["-", "−", "("]))
def test_a_text_is_the_inverse_of_its_value(units: int, decimals: int, decimal: str, thousands: str, prefix: str,
                                            suffix: str, minus: str) -> None:
    form = NumberFormat((decimals, decimals), decimal, thousands, prefix, suffix, minus)
    value = units / 10**decimals
    assert form.value(form.text(value)) == value and form.text(form.value(form.text(value)) or 0.0) == form.text(value)


def test_trailing_zeros_are_as_in_the_column() -> None:
    assert [NumberFormat((0, 2)).text(v) for v in (1.0, 2.5, -0.001, 20.0)] == ["1", "2.5", "0", "20"]
    assert [NumberFormat((1, 2)).text(v) for v in (1.0, 2.25, 20.0)] == ["1.0", "2.25", "20.0"]
    assert [NumberFormat((2, 2)).text(v) for v in (1.0, 2.255, -3.0)] == ["1.00", "2.25", "-3.00"]
    assert NumberFormat(()).text(0.0506801187398186) == "0.0506801187398186"


@pytest.mark.parametrize("texts, values, written", [
    (["66.44(7)", "1.20(10)", "-0.5(1)", "3.1"], [66.44, 1.2, -0.5, 3.1], "3.25"),
    (["2.5(3) kg", "12.5(4) kg", "1.0(2) kg"], [2.5, 12.5, 1.0], "3.2 kg"),
    (["1,5(3)", "2,25(12)", "7,0(1)"], [1.5, 2.25, 7.0], "3,25")])
def test_an_uncertainty_in_brackets_is_read_and_not_written(texts: list[str], values: list[float], written: str
                                                            ) -> None:
    form = infer_number_format(dict.fromkeys(texts, 2), comma="," in texts[0] or None)
    assert form is not None and form.uncertain and not form.plain
    assert [form.value(text) for text in texts] == values and form.text(3.25) == written
    assert NumberFormat.from_config(form.config()) == form


@pytest.mark.parametrize("texts", [["Smith(3)", "Jones(2)"], ["(5)", "7", "(9)"], ["a1(2)", "b2(2)", "c(3)"]])
def test_other_brackets_are_no_uncertainty(texts: list[str]) -> None:
    form = infer_number_format(dict.fromkeys(texts, 2))
    assert form is None or not form.uncertain
