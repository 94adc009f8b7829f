"""Samples and filled cells of every kind of column, read back by pandas: types, notation and values of the source."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from undiffuse.cli import main
from undiffuse.data import Dataset, open_data, save_samples
from undiffuse.data.dataset import fit_transform
from undiffuse.random import Purpose, normal

pd = pytest.importorskip("pandas")
N = 40
WHOLE = st.lists(st.integers(-10**9, 10**9), min_size=N, max_size=N)
SMALL = st.lists(st.integers(0, 5000), min_size=N, max_size=N)


def dated(pattern: str, start: str, step: str) -> Callable[[list[int]], list[str]]:
    return lambda v: [(pd.Timestamp(start) + k * pd.Timedelta(step)).strftime(pattern) for k in v]


def word(k: int) -> str:
    return ["red", "dark blue", "green, light", 'say "no"', "Ünicode"][k % 5]


KINDS: dict[str, tuple[Any, Callable[[list[int]], list[str]]]] = {
    "whole": (WHOLE, lambda v: [str(k) for k in v]),
    "counts": (SMALL, lambda v: [str(k) for k in v]),
    "two decimals": (SMALL, lambda v: [f"{k / 100:.2f}" for k in v]),
    "signed": (WHOLE, lambda v: [f"{k / 1e6:.3f}" for k in v]),
    "money": (SMALL, lambda v: [f"${k * 7:,}" for k in v]),
    "cents": (SMALL, lambda v: [f"€ {k / 100:.2f}" for k in v]),
    "percent": (SMALL, lambda v: [f"{k / 50:.1f}%" for k in v]),
    "unit": (SMALL, lambda v: [f"{k / 10:.1f} km" for k in v]),
    "thousands": (SMALL, lambda v: [f"{k * 1000 + 1000 + k % 999:,}" for k in v]),
    "brackets": (WHOLE, lambda v: [f"({-k / 100:,.2f})" if k < 0 else f"{k / 100:,.2f}" for k in v]),
    "zip": (SMALL, lambda v: [f"{k % 7 * 1003:05d}" for k in v]),
    "code": (SMALL, lambda v: [str(90_000_000_001 + k % 6 * 7_000_003) for k in v]),
    "words": (SMALL, lambda v: [word(k) for k in v]),
    "bool": (SMALL, lambda v: [str(k % 3 == 0) for k in v]),
    "signs": (SMALL, lambda v: ["+-"[k % 2] for k in v]),
    "ties": (SMALL, lambda v: [f"{[0.1, 0.25, 1 / 3, 7e-5][k % 4]:.6g}" for k in v]),
    "constant": (SMALL, lambda v: ["2020"] * len(v)),
    "day": (SMALL, dated("%Y-%m-%d", "1999-01-31", "1D")),
    "american": (SMALL, dated("%m/%d/%Y", "2001-05-29", "1D")),
    "german": (SMALL, dated("%d.%m.%Y", "2001-05-29", "1D")),
    "minute": (SMALL, dated("%Y-%m-%d %H:%M", "2020-02-27 23:00", "15min")),
    "stamp": (SMALL, dated("%Y-%m-%dT%H:%M:%SZ", "2020-02-27 23:00", "1h")),
    "clock": (SMALL, lambda v: [f"{k % 24:02d}:{k % 4 * 15:02d}" for k in v]),
}
PATTERNS = {"day": "%Y-%m-%d", "american": "%m/%d/%Y", "german": "%d.%m.%Y", "minute": "%Y-%m-%d %H:%M",
            "stamp": "%Y-%m-%dT%H:%M:%SZ", "clock": "%H:%M"}
CLOSED = {"zip", "words", "bool", "signs", "ties", "constant", "code"}  # only texts of the source


def text_of(columns: dict[str, list[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([list(columns), *zip(*columns.values(), strict=True)])
    return out.getvalue()


def dtypes(columns: dict[str, list[str]]) -> dict[str, str]:
    """The type that pandas gives to every column by itself, without its empty cells."""
    return {name: str(pd.read_csv(io.StringIO(text_of({name: [c for c in cells if c]})))[name].dtype)
            for name, cells in columns.items()}


def decimals(cell: str) -> int:
    return len(cell.rpartition(".")[2].rstrip("%) km€")) if "." in cell else 0


def check(kind: str, source: list[str], written: list[str]) -> None:
    """The notation and the values of one column of samples."""
    source = [cell for cell in source if cell]
    if kind in PATTERNS:
        for cell in written:
            assert datetime.strptime(cell, PATTERNS[kind]).strftime(PATTERNS[kind]) == cell
        return
    if kind in CLOSED:
        assert {*written} <= {*source}
        return
    signs, known = {c for cell in written for c in cell if not c.isdigit()}, {c for s in source for c in s}
    assert signs - {","} <= known and max(map(decimals, written)) <= max(map(decimals, source))
    assert {decimals(cell) for cell in written} <= {decimals(cell) for cell in source}
    assert kind == "whole" or not any(re.search(r"\d{4,}", cell) for cell in written) or "," not in known


def samples(data: Dataset, n: int, seed: int) -> dict[str, list[str]]:
    """Samples of independent normal values in model units, written as the command `sample` writes them."""
    assert data.schema is not None
    transform = fit_transform(data)
    width = transform.forward(data.x[:1]).shape[1]
    z = 1.5 * normal(seed, Purpose.DATA, 7, 0, n, (width,), torch.float64)
    header, rows = data.schema.cells(transform.inverse(z))
    return {name: [row[j] for row in rows] for j, name in enumerate(header)}


def test_samples_are_read_by_the_call_that_reads_the_file(tmp_path: Path) -> None:
    lines = ["Preis;Tag;Ort", *(f"{k * 37 % 900},{k % 10}0;{1 + k % 28:02d}.03.2024;Köln" for k in range(N))]
    (tmp_path / "t.csv").write_text("\n".join(lines), "cp1252")
    data = open_data(tmp_path / "t.csv")
    assert data.schema is not None and data.schema.from_config({"kind": "table", "schema": data.schema.config(),
                                                                "label": None, "classes": []}) == data.schema
    out = save_samples(tmp_path / "s.csv", data.x, schema=data.schema)
    read = [pd.read_csv(path, sep=";", decimal=",", encoding=encoding) for path, encoding in (
        (tmp_path / "t.csv", "cp1252"), (out, "utf-8"))]
    assert read[0].equals(read[1]) and str(read[1]["Preis"].dtype) == "float64"


@pytest.mark.slow
@settings(derandomize=True, max_examples=25, deadline=None)
@given(st.data())
@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_type_notation_and_values_of_their_column(tmp_path_factory: pytest.TempPathFactory, kind: str,
                                                               data: st.DataObject) -> None:
    values, write = KINDS[kind]
    cells = write(data.draw(values))
    empty = data.draw(st.sets(st.integers(0, N - 1), max_size=9))
    columns = {"c": ["" if k in empty else cell for k, cell in enumerate(cells)],
               "z": [f"{k * 37 % 41 - 20}.5" for k in range(N)]}
    path = tmp_path_factory.mktemp("trip") / "t.csv"
    path.write_text(text_of(columns))
    opened = open_data(path, columns=["c", "z"])
    written = samples(opened, 60, 3)
    if kind in PATTERNS and kind != "clock":
        moments = [[datetime.strptime(cell, PATTERNS[kind]) for cell in cells if cell] for cells in (columns["c"],
                                                                                                      written["c"])]
        assert min(moments[0]) <= min(moments[1]) and max(moments[1]) <= max(moments[0])  # no later than the data
    check(kind, columns["c"], written["c"])
    unbracketed = kind == "brackets" and "(" not in "".join(written["c"])  # no sample is negative
    assert dtypes(written) == dtypes(columns) or kind == "ties" or unbracketed
    assert list(pd.read_csv(io.StringIO(text_of(written))).columns) == ["c", "z"]


def test_the_commands_write_every_kind_as_it_was(tmp_path: Path) -> None:
    """A short training on a table with all kinds: `sample` and `impute`, read by pandas."""
    columns = {kind: write([(7 * k * k + 3 * k + len(kind)) % 4999 * (1 if k % 3 else -1) if kind in ("whole", "signed",
                                                                                                   "brackets")
                            else (7 * k * k + 3 * k + len(kind)) % 4999 for k in range(60)])
               for kind, (_, write) in KINDS.items()}
    holed = {kind: ["" if (k + j) % 9 == 0 else c for k, c in enumerate(cells)]
             for j, (kind, cells) in enumerate(columns.items())}
    (tmp_path / "t.csv").write_text(text_of(holed))
    run, out = tmp_path / "run", tmp_path / "s.csv"
    assert main(["train", str(tmp_path / "t.csv"), "--out", str(run), "--steps", "3", "--held-out", "0"]) == 0
    assert main(["sample", str(run), "--n", "50", "--out", str(out)]) == 0
    assert main(["impute", str(run), str(tmp_path / "t.csv"), "--draws", "1", "--steps", "4", "--out",
                 str(tmp_path / "i")]) == 0
    for path in (out, tmp_path / "i" / "draw-1.csv"):
        written = {name: list(cells) for name, cells in pd.read_csv(path, dtype=str, keep_default_na=False).items()}
        assert list(written) == list(columns)
        for kind, cells in written.items():
            check(kind, holed[kind], cells)
        assert {k: v for k, v in dtypes(written).items() if k != "ties"} == {
            k: v for k, v in dtypes(columns).items() if k != "ties"}
    filled = pd.read_csv(tmp_path / "i" / "draw-1.csv", dtype=str, keep_default_na=False)
    for kind, cells in holed.items():
        assert all(new == old for new, old in zip(filled[kind], cells, strict=True) if old)
