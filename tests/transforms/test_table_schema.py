"""Columns of a run: every source of the same rows is encoded to the same numbers, by name; other tables are refused."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import undiffuse as ud
from undiffuse.data import tables
from undiffuse.errors import InputError
from undiffuse.pipelines.impute import impute
from undiffuse.transforms import table_cells
from undiffuse.transforms.column_format import ColumnFormat
from undiffuse.transforms.conditions import Condition
from undiffuse.transforms.number_format import NumberFormat
from undiffuse.transforms.table_cells import Cells
from undiffuse.transforms.table_schema import TableSchema, infer_schema

TEXT = """size,city,kind,age,count
1.5,Rome,a,40,3
-2e-3,New York,b,,4
NA,,a,30.5,5
0.25,Rome,b,?,3
"""
SCHEMA = TableSchema(
    (ColumnFormat("size", number=NumberFormat(), missing=("NA",)), ColumnFormat("city", ("New York", "Rome")),
     ColumnFormat("count", number=NumberFormat((0, 0)))), "kind", ("a", "b"), (Condition("age", "number"),),
    (ColumnFormat("age", number=NumberFormat((0, 1)), missing=("?",)),), ("size", "city", "kind", "age", "count"))
VALUES = [[1.5, 1, 3], [-2e-3, 0, 4], [math.nan, math.nan, 5], [0.25, 1, 3]]


def csv(path: Path, text: str = TEXT) -> Cells:
    path.write_text(text)
    return tables.read_cells(path)


def test_training_cells_imply_the_schema_and_its_rows(tmp_path: Path) -> None:
    cells = csv(tmp_path / "t.csv")
    assert infer_schema(cells, "kind", ["age"]) == (SCHEMA, ["texts read as missing values: 'NA' in size"])
    rows = SCHEMA.encode(cells)
    assert np.array_equal(rows.values, VALUES, equal_nan=True) and rows.places == [0, 1, 4]
    assert rows.labels is not None and rows.labels.tolist() == [0, 1, 0, 1]
    assert torch.equal(rows.conditions["age"].nan_to_num(-1), torch.tensor([[40], [-1], [30.5], [-1]]).double())


def test_frames_and_columns_in_any_order_give_the_same_rows(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"count": [3, 4, 5, 3], "city": ["Rome", "New York", None, "Rome"], "kind": list("abab"),
                          "size": [1.5, -2e-3, math.nan, 0.25], "age": [40, math.nan, 30.5, math.nan]})
    file, direct = SCHEMA.encode(csv(tmp_path / "t.csv")), SCHEMA.encode(frame)
    assert np.array_equal(file.values, direct.values, equal_nan=True) and direct.places == [3, 1, 0]
    assert torch.equal(file.conditions["age"].nan_to_num(), direct.conditions["age"].nan_to_num())
    bare = SCHEMA.encode(frame[["city", "size", "count"]])
    assert np.array_equal(file.values, bare.values, equal_nan=True) and bare.labels is None and not bare.conditions
    frame.loc[2, "kind"] = None
    assert SCHEMA.encode(frame).labels.tolist() == [0, 1, 2, 1]  # type: ignore[union-attr]  # 2: no class


def test_a_schema_survives_its_configuration() -> None:
    config = json.loads(json.dumps({"kind": "table", "columns": SCHEMA.columns, "schema": SCHEMA.config(),
                                    "label": SCHEMA.label, "classes": SCHEMA.classes}))
    assert TableSchema.from_config(config, SCHEMA.conditions) == SCHEMA
    assert TableSchema.from_config({**config, "kind": "image"}) is None


@pytest.mark.parametrize(("old", "new", "words"), [
    ("Rome,b,?", "Paris,b,?", r"row 4 \(line 5\), column 'city' holds 'Paris'.*one of 'New York', 'Rome'"),
    ("Rome,b,?", "Rome,c,?", r"row 4 \(line 5\), column 'kind' holds 'c'"),
    ("0.25", "x", r"row 4 \(line 5\), column 'size' holds 'x'; expected a number"),
    ("0.25", "1_0", r"row 4 \(line 5\), column 'size' holds '1_0'"),
    ("0.25", "inf", r"row 4 \(line 5\), column 'size' holds 'inf'; expected a number"),
    ("b,?", "b,old", r"row 4 \(line 5\), column 'age' holds 'old'"),
])
def test_what_does_not_fit_is_named_by_row_and_column(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        SCHEMA.encode(csv(tmp_path / "t.csv", TEXT.replace(old, new)))


def test_further_columns_are_ignored_and_absent_ones_are_missing(tmp_path: Path) -> None:
    lines = [f"{line.split(',', 1)[1]},{i or 'id'}" for i, line in enumerate(TEXT.splitlines())]
    rows, full = SCHEMA.encode(csv(tmp_path / "t.csv", "\n".join(lines))), SCHEMA.encode(csv(tmp_path / "u.csv"))
    assert np.array_equal(rows.values[:, 1:], full.values[:, 1:], equal_nan=True) and rows.places == [-1, 0, 3]
    assert np.isnan(rows.values[:, 0]).all() and rows.missing[:, 0].all()
    assert ["(size)" in rows.notes[0], "(id)" in rows.notes[1]] == [True, True]
    with pytest.raises(InputError, match=r"no column 'size', which the model was trained on.*nor any other column"):
        SCHEMA.encode(csv(tmp_path / "v.csv", "sise,b\n1,2\n3,4\n"))


CELL = st.sampled_from(["1", "-2.5e3", "", "NA", "nan", "inf", "x", "1_0", "0x1", "New York", "-"])


WORDS = ("NA", "nan", "x", "1_0", "0x1", "New York", "-", "inf", "-inf", "1e999")


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=9), st.integers(1, 7))
def test_cells_are_converted_one_by_one_whatever_the_block(rows: list[tuple[str, str]], block: int) -> None:
    """The oracle: Python's float of every cell by itself, underscores and infinity refused."""
    before, table_cells._BLOCK = table_cells._BLOCK, block
    try:
        cells = Cells(Path("t"), "", ["a", "b"], True, lambda wanted: {}).fill(
            (i, list(row)) for i, row in enumerate(rows))
    finally:
        table_cells._BLOCK = before
    for i, row in enumerate(rows):
        for j, text in enumerate(row):
            number = None if text in ("", *WORDS) else float(text)
            assert np.array_equal(cells.values[i, j], math.nan if number is None else number, equal_nan=True)
    for j in (0, 1):
        words = [row[j] for row in rows if row[j] in WORDS]
        assert cells.texts_of[j].tokens == Counter(words)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    rows = [f"{math.sin(i):.3f},{math.cos(3 * i):.3f},{'uv'[i % 2]},{i % 5}" for i in range(60)]
    path = tmp_path_factory.mktemp("schema") / "t.csv"
    path.write_text("\n".join(["a,b,kind,age", *rows]))
    experiment = ud.Experiment(data=str(path), label="kind", condition=("age",), steps=2, save_every=2, warmup=1,
                               batch_size=8, eval_batch_size=16, net_args={"width": 8, "depth": 1})
    return ud.train(experiment, path.parent / "run", progress=False)


def test_models_match_the_columns_of_frames_by_name(model: Any) -> None:
    pd = pytest.importorskip("pandas")
    x = torch.tensor([[0.5, -0.25], [0.125, 1.0], [0.75, 0.5]], dtype=torch.float64)
    frame = pd.DataFrame({"b": x[:, 1], "age": [3, 1, 4], "a": x[:, 0], "kind": ["u", "v", "u"]})
    expected = ud.log_likelihood(model, x).log_prob
    for given_model in (model, ud.classifier_free(model, 1.0)):
        assert torch.equal(ud.log_likelihood(given_model, frame).log_prob, expected)
        assert torch.equal(ud.log_likelihood(given_model, frame[["a", "b"]]).log_prob, expected)
    with pytest.raises(InputError, match="no column 'a'"):
        ud.log_likelihood(model, frame.rename(columns={"a": "c", "b": "d"}))


def test_imputation_takes_label_and_conditions_from_a_frame(model: Any) -> None:
    pd = pytest.importorskip("pandas")
    x = torch.tensor([[0.5, math.nan], [math.nan, 1.0]])
    frame = pd.DataFrame({"kind": ["v", "u"], "b": x[:, 1], "a": x[:, 0], "age": [3, 1]})
    expected = impute(model, x, 3, steps=3, labels=[1, 0], conditions={"age": [3, 1]})
    assert torch.equal(impute(model, frame, 3, steps=3), expected) and not expected.isnan().any()
