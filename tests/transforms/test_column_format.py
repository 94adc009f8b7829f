"""The decision on every column, from all of its cells, and the sentence that says it."""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from undiffuse.data import Dataset, open_data
from undiffuse.data.tables import read_cells
from undiffuse.errors import InputError
from undiffuse.random import Purpose, normal
from undiffuse.transforms.column_format import ColumnFormat

N = 60
Z = normal(0, Purpose.DATA, 80, 0, N, (3,)).tolist()
OTHERS = {"u": [f"{a:.3f}" for a, _, _ in Z], "v": [f"{b:.3f}" for _, b, _ in Z]}


def table(path: Path, cells: dict[str, list[str]], separator: str = ",", **options: Any) -> Dataset:
    rows = zip(*cells.values(), *OTHERS.values(), strict=True)
    path.write_text("\n".join(map(separator.join, [[*cells, *OTHERS], *rows])) + "\n")
    return open_data(path, **options)


def cycle(*texts: str) -> list[str]:
    return [texts[5 * k // 3 % len(texts)] for k in range(N)]


def kind(data: Dataset, name: str = "c") -> str:
    return data.schema.formats[data.columns.index(name)].kind if data.schema and name in data.columns else "left out"


days = [(datetime.date(2020, 1, 1) + datetime.timedelta(37 * k * k % 900)).isoformat() for k in range(N)]
DECISIONS: list[tuple[str, list[str], str, str]] = [
    ("classes that look like missing values", cycle("+", "-", "+"), "category", "'-' in"),
    ("codes of countries", cycle("NA", "ZA", "BW"), "category", "'NA' in"),
    ("gaps among numbers", cycle("1.5", "NA", "2.5", "-", "4"), "number", "texts read as missing values: "),
    ("money", cycle('"$1,500"', '"$18,000"', '"$900"'), "number", "numbers in another notation: c"),
    ("percent", cycle("45%", "5%", "100%"), "number", "numbers in another notation: c"),
    ("dates", days, "date", "dates and times: c"),
    ("zip codes", cycle("01001", "02139", "10001"), "category", "codes with leading zeros"),
    ("long codes", cycle("12345678901234567890", "99999999999999999999"), "category", "many digits"),
    ("identifiers of 64 bits", [str(2**60 + 7 * k) for k in range(N)], "left out", "different texts"),
    ("names", [f"person {k}" for k in range(N)], "left out", "c (60 different texts in 60 cells)"),
    ("a counter", [str(k + 1) for k in range(N)], "left out", "c (row counter)"),
    ("nothing", [""] * N, "left out", "c (no values)"),
    ("only marks", ["?"] * N, "left out", "c (no values)"),
    ("booleans", cycle("True", "False"), "category", "categories: c (2)"),
    ("a constant", ["2020"] * N, "number", "constant"),
    ("a constant word", ["x"] * N, "category", "constant"),
    ("numbers and a word", [*(f"{k}.5" for k in range(N - 1)), "<0.1"], "number", "unknown values"),
    ("levels and a word", cycle("0", "1", "2", "3+"), "category", "numbers and words, read as categories"),
    ("tickets", [f"{k}" if k % 3 else f"A/5 {k}" for k in range(N)], "left out", "different texts"),
    ("codes", cycle("20000001", "40000003", "60000005"), "number", ""),
]


@pytest.mark.parametrize(("cells", "expected", "text"), [c[1:] for c in DECISIONS], ids=[c[0] for c in DECISIONS])
def test_the_decision_and_its_sentence(tmp_path: Path, cells: list[str], expected: str, text: str) -> None:
    data = table(tmp_path / "t.csv", {"c": cells})
    assert kind(data) == expected and text in " | ".join(data.notes)


@pytest.mark.parametrize("cells", [c[1] for c in DECISIONS if c[2] != "left out"],
                         ids=[c[0] for c in DECISIONS if c[2] != "left out"])
def test_every_cell_comes_back_to_the_character(tmp_path: Path, cells: list[str]) -> None:
    data = table(tmp_path / "t.csv", {"c": cells})
    assert data.schema is not None
    form, values = data.schema.formats[0], data.x[:, 0].tolist()
    plain = [cell.strip('"') for cell in cells]
    assert [form.text(v) for v in values if not math.isnan(v)] == [
        cell for cell, v in zip(plain, values, strict=True) if not math.isnan(v)]
    assert all(cell in form.unreadable or cell in ("NA", "-", "") for cell, v in zip(plain, values, strict=True)
               if math.isnan(v))
    assert ColumnFormat.from_config(form.config()) == form


def test_identifiers_by_their_name_and_unnamed_row_numbers(tmp_path: Path) -> None:
    numbers = [str(1000 + 17 * k % 61) for k in range(N)]
    for name in ("id", "PassengerId", "customer_id", "ID number"):
        assert kind(table(tmp_path / "t.csv", {name: numbers}), name) == "left out"
    for name in ("paid", "fluid", "width", "grid"):
        assert kind(table(tmp_path / "t.csv", {name: numbers}), name) == "number"
    assert table(tmp_path / "t.csv", {"": [str(10 + 2 * k) for k in range(N)]}).columns == ("u", "v")


def test_columns_that_are_named_are_learned_and_others_ignored(tmp_path: Path) -> None:
    counter = {"c": [str(k) for k in range(N)], "d": cycle("x", "y")}
    assert table(tmp_path / "t.csv", counter, columns=["c", "u"]).columns == ("c", "u")
    data = table(tmp_path / "t.csv", counter, ignore=["d", "u"])
    assert data.columns == ("v",) and "d (ignored)" in " ".join(data.notes)
    with pytest.raises(InputError, match=r"no column 'dd'.*did you mean 'd'"):
        table(tmp_path / "t.csv", counter, ignore=["dd"])


def test_texts_that_the_user_calls_missing(tmp_path: Path) -> None:
    data = table(tmp_path / "t.csv", {"c": cycle("-999", "1.5", "2.5", "7"), "d": cycle("?", "a", "b")},
                 missing=["-999", "?"])
    assert [int(n) for n in data.x.isnan().sum(0)] == [cycle("-999", "1.5", "2.5", "7").count("-999"),
                                                       cycle("?", "a", "b").count("?"), 0, 0]
    assert data.categories[1] == ("a", "b")


@pytest.mark.parametrize(("separator", "texts", "values", "options"), [
    (";", ("9,72", "10,60", "8"), (9.72, 10.6, 8), {}), (";", ("1.234", "2.500,5", "7,25"), (1234, 2500.5, 7.25), {}),
    (";", ("1.5", "2.25", "7"), (1.5, 2.25, 7), {}), ("\t", ("9,72", "10,60"), (9.72, 10.6), {}),
    (",", ('"1,234"', '"2,500"'), (1234, 2500), {}), (",", ('"1,234"', '"2,500"'), (1.234, 2.5), {"decimal": ","})])
def test_decimal_commas(tmp_path: Path, separator: str, texts: tuple[str, ...], values: tuple[float, ...],
                        options: dict[str, str]) -> None:
    data = table(tmp_path / "t.csv", {"c": cycle(*texts)}, separator, **options)
    assert {round(v, 5) for v in data.x[:, 0].tolist()} == set(values)


def test_names_that_occur_twice_are_made_unique(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,a\n" + "1.5,2,3\n4,5.5,7\n" * 9)
    data = open_data(tmp_path / "t.csv")
    assert data.columns == ("a", "b", "a-1") and "made unique" in data.notes[0]


def test_only_nulls_are_missing_in_typed_tables() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"iso": cycle("NA", "ZA", "none"), "a": [a for a, _, _ in Z], "none": ["-", None] * (N // 2),
                          "day": pd.date_range("2020-01-01", periods=N), "yes": [k % 3 == 0 for k in range(N)],
                          "n": pd.array([None if k % 7 == 0 else k % 5 for k in range(N)], dtype="Int64")})
    data = open_data(frame)
    assert data.schema is not None and data.schema.formats[0].categories == ("NA", "ZA", "none")
    assert [kind(data, name) for name in frame.columns] == ["category", "number", "category", "date", "category",
                                                            "number"]
    assert data.x.isnan().sum(0).tolist() == [0, 0, N // 2, 0, 0, len(range(0, N, 7))]
    assert np.isclose(data.x[:, 1].numpy(), frame["a"]).all()


@pytest.mark.parametrize(("words", "numbers", "missing"), [
    (("NA", "ZA", "BW"), "NA", False), (("NA", "female", "male"), "NA", True), (("NA", "female", "male"), "1.5", False),
    (("+", "-"), "-", False), (("?", "a", "b"), "?", True), (("?", "+", "-"), "?", False),
    ((".", "yes", "no"), ".", True),
    (("none", "some"), "none", False), (("NA", "EU", "Asia"), "NA", False), (("n/a", "low", "high"), "n/a", True)])
def test_signs_among_words_are_missing_if_they_are_among_numbers_and_unlike_the_other_words(
        tmp_path: Path, words: tuple[str, ...], numbers: str, missing: bool) -> None:
    data = table(tmp_path / "t.csv", {"w": cycle(*words), "n": cycle(numbers, "1.5", "2.5", "7", "3", "4")})
    assert data.categories[0] == tuple(sorted(words[missing:]))
    assert bool(data.x[:, 0].isnan().any()) == missing and len(data) == N


def test_infinite_numbers_are_unknown_and_never_replaced(tmp_path: Path) -> None:
    data = table(tmp_path / "t.csv", {"c": ["inf", "-Inf", "1e999", *(f"{k}.5" for k in range(N - 3))]})
    assert kind(data) == "number" and "unknown values" in " ".join(data.notes) and int(data.x[:, 0].isnan().sum()) == 3
    assert data.schema is not None and not data.schema.encode(read_cells(tmp_path / "t.csv")).missing.any()


def test_dates_with_a_few_others_are_dates(tmp_path: Path) -> None:
    days = [f"2020-{1 + k % 12:02d}-{1 + k % 28:02d}" for k in range(N - 5)]
    data = table(tmp_path / "t.csv", {"c": [*days, *["2021-01-01 22:20:10.165"] * 5]})
    assert kind(data) == "date" and int(data.x[:, 0].isnan().sum()) == 5
    swapped = [f"{1 + k % 28:02d}/{1 + k % 12:02d}/2020" for k in range(N)]
    data = table(tmp_path / "t.csv", {"c": swapped})
    assert data.schema is not None and data.schema.formats[0].text(float(data.x[20, 0])) == swapped[20]


def test_a_run_reads_other_files_as_its_own(tmp_path: Path) -> None:
    """An unknown text of the training data stays unknown and is not missing; a new one is refused by row and column."""
    data = table(tmp_path / "t.csv", {"c": [*(f"{k}.5" for k in range(N - 2)), "<0.1", "NA"]})
    assert data.schema is not None
    rows = data.schema.encode(read_cells(tmp_path / "t.csv"))
    assert np.isnan(rows.values[-2:, 0]).all() and rows.missing[:, 0].nonzero()[0].tolist() == [N - 1]
