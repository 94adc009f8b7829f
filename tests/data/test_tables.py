"""Tables: headers, separators, labels, and refusals that name row and column."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from undiffuse.data import open_data

Refused = Callable[..., str]
ROWS = [[1.5, -2.0, 0.125, 40.0], [0.25, 7.0, 1.0, 41.5], [2.0, 0.0, -1.0, 39.0]]


def csv(tmp_path: Path, text: str | bytes, name: str = "t.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def lines(separator: str, header: str | None) -> str:
    body = "\n".join(separator.join(map(repr, row)) for row in ROWS)
    return body if header is None else separator.join(header.split()) + "\n" + body


@pytest.mark.parametrize("header", [None, "a b c d", "Höhe größe 数 d"])
@pytest.mark.parametrize(("separator", "name"), [(",", "t.csv"), (";", "t.csv"), ("\t", "t.csv"), ("\t", "t.TSV")])
@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_the_numbers_are_read_with_or_without_a_header(tmp_path: Path, header: str | None, separator: str, name: str,
                                                       end: str) -> None:
    data = open_data(csv(tmp_path, lines(separator, header) + end, name))
    assert torch.equal(data.x, torch.tensor(ROWS).double())
    assert data.columns == (tuple(header.split()) if header else ("x1", "x2", "x3", "x4"))
    assert data.kind == "table" and data.y is None
    assert data.notes == (() if header else ("the first line is a row of the table",))


@pytest.mark.parametrize("change", [lambda t: t.replace("\n", "\r\n"), lambda t: "\ufeff" + t,
                                    lambda t: t.replace("a,", '"a",'), lambda t: t.replace(",", " , ")])
def test_the_dialects_of_spreadsheets(tmp_path: Path, change: Callable[[str], str]) -> None:
    data = open_data(csv(tmp_path, change(lines(",", "a b c d"))))
    assert torch.equal(data.x, torch.tensor(ROWS).double()) and data.columns == tuple("abcd")


def test_a_header_that_only_counts_is_no_row(tmp_path: Path) -> None:
    data = open_data(csv(tmp_path, "0,1,2,3\n" + lines(",", None)))
    assert torch.equal(data.x, torch.tensor(ROWS).double()) and "counts" in data.notes[0]


def test_a_column_of_words_becomes_labels(tmp_path: Path) -> None:
    text = "a,kind,b\n1,cat,2\n3,dog,5\n8,cat,9\n"
    data = open_data(csv(tmp_path, text), label="kind")
    assert data.x.tolist() == [[1, 2], [3, 5], [8, 9]] and data.columns == ("a", "b")
    assert data.classes == ("cat", "dog") and data.y is not None and data.y.tolist() == [0, 1, 0]


def test_labels_that_are_numbers_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    data = open_data(csv(tmp_path, "1,2,10\n3,5,9\n8,9,10\n"), label="x3")
    assert data.classes == ("9", "10") and data.y is not None and data.y.tolist() == [1, 0, 1]


REFUSALS: list[tuple[str, str | bytes, str | None, list[str]]] = [
    ("empty", "", None, ["is empty"]),
    ("blank", "\n \n\n", None, ["is empty"]),
    ("header only", "a,b\n", None, ["no column that can be learned"]),
    ("one row", "a,b\n1,2\n", None, ["1 sample;"]),
    ("equal rows", "a,b\n1,2\n1,2\n", None, ["all 2 rows"]),
    ("no column with a value", "a,b\n,\n,NA\n,\n", None, ["'a' (no values)", "'b' (no values)"]),
    ("free text alone", "name\n" + "".join(f"n{i}\n" for i in range(30)), None, ["'name'", "30 different texts"]),
    ("a short row", "a,b\n1,2\n3\n", None, ["row 2 (line 3)", "1 cells; expected 2"]),
    ("a long row", "a,b\n1,2\n3,4,5\n", None, ["3 cells; expected 2"]),
    ("half a header", "a,2\n1,2\n3,4\n", None, ["mixes numbers such as '2' with words such as 'a'"]),
    ("unknown label", "a,kind\n1,2\n3,4\n", "kinds", ["no column 'kinds'", "did you mean 'kind'?"]),
    ("label alone", "kind\n1\n3\n", "kind", ["only the column 'kind'"]),
    ("missing label", "a,kind\n1,x\n3,\n", "kind", ["row 2", "'kind'", "label is missing"]),
    ("zero bytes", b"a,b\n1,2\n\0,2\n", None, ["zero bytes"]),
    ("open quote", 'a,b\n"1,2\n3,4\n', None, ["cannot be read as a table"]),
    ("a name in markup", "a,<script>\n1,2\n3,4\n", "b", ["'<script>'"]),
]


@pytest.mark.parametrize(("text", "label", "words"), [c[1:] for c in REFUSALS], ids=[c[0] for c in REFUSALS])
def test_refusals_name_row_and_column(tmp_path: Path, refused: Refused, text: str, label: str | None,
                                      words: list[str]) -> None:
    refused(csv(tmp_path, text), "t.csv", *words, label=label)


@pytest.mark.parametrize("text", ["1," * 5_000_000, "a" * 10_000_000, "a,b\n1,2\n" + '"' + "3\n" * 2_000_000])
def test_endless_lines_and_fields_are_refused_at_once(tmp_path: Path, refused: Refused, text: str) -> None:
    path = csv(tmp_path, text)
    began = time.perf_counter()
    refused(path, "t.csv")
    assert time.perf_counter() - began < 1


@pytest.mark.slow
def test_many_different_texts_take_linear_time(tmp_path: Path) -> None:
    text = "name,v\n" + "".join(f"person {k},{k % 7}.5\n" for k in range(60_000))
    start = time.process_time()
    assert open_data(csv(tmp_path, text)).columns == ("v",)
    assert time.process_time() - start < 5


def test_many_columns_are_fine(tmp_path: Path) -> None:
    text = "\n".join(",".join(str((i * 31 + j) % 97) for j in range(9_000)) for i in range(3))
    assert torch.equal(open_data(csv(tmp_path, text)).x, (31 * torch.arange(3)[:, None] + torch.arange(9_000)) % 97)
