"""Conditions: what a source says of its rows comes back as the numbers that it is, and nonsense in a sentence."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from undiffuse.data import conditioned, from_arrays, open_data
from undiffuse.errors import InputError
from undiffuse.model import Denoiser
from undiffuse.samplers.driver import sample
from undiffuse.transforms.conditions import RESERVED, Condition, from_config, infer_rows, parse_spec, split

TABLE = """height,age,sex,note,code
1.5,30,f,a red circle,1
1.7,,m,a blue square,2
1.6,50,f,,1
1.8,70,,the red square,3
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "people.csv"
    file.write_text(TABLE)
    return file


def test_columns_become_conditions_and_are_not_learned(table: Path) -> None:
    data = open_data(table, condition=["age", "sex", "note", "code:class"])
    assert data.columns == ("height",) and data.x[:, 0].tolist() == pytest.approx([1.5, 1.7, 1.6, 1.8])
    assert [c.kind for c in data.conditions] == ["number", "class", "words", "class"]
    parts = split(data.conditions, data.condition_values)
    assert parts["age"][:, 0].nan_to_num(-1).tolist() == [30, -1, 50, 70]
    assert data.conditions[1].vocabulary == ("f", "m") and parts["sex"][:, 0].nan_to_num(-1).tolist() == [0, 1, 0, -1]
    assert data.conditions[3].vocabulary == ("1", "2", "3") and parts["code"][:, 0].tolist() == [0, 1, 0, 2]
    words = data.conditions[2].vocabulary
    back = [" ".join(words[int(k)] for k in row[~row.isnan()]) for row in parts["note"]]
    assert back == ["a red circle", "a blue square", "", "the red square"]


def test_arrays_beside_the_samples_are_conditions(tmp_path: Path) -> None:
    x, y = np.arange(24.0).reshape(8, 3) ** 1.5, np.linspace(0, 1, 16).reshape(8, 2)
    np.savez(tmp_path / "a.npz", x=x, y=y, kind=np.array(list("abababab")))
    data = open_data(tmp_path / "a.npz", condition=["y", "kind"])
    assert data.y is None and [c.form for c in data.conditions] == [("vector", 0, 2), ("class", 2, 1)]
    assert torch.equal(data.condition_values[:, :2], torch.from_numpy(y))
    again = conditioned(from_arrays(x), y=y, kind=["a", "b"] * 4)
    assert torch.equal(again.condition_values, data.condition_values) and again.conditions == data.conditions


def test_splits_and_fingerprints_go_with_the_conditions(table: Path) -> None:
    plain, data = open_data(table), open_data(table, condition=["age"])
    assert torch.equal(data.take(torch.tensor([2, 0])).condition_values[:, 0], torch.tensor([50.0, 30]).double())
    table.write_text(TABLE.replace("70", "71"))
    prints = {plain.fingerprint(), data.fingerprint(), open_data(table, condition=["age"]).fingerprint()}
    assert len(prints) == 3


def test_values_are_one_for_all_or_one_each() -> None:
    age, kind = Condition("age", "number", mean=(40.0,), std=(10.0,)), Condition("kind", "class", ("f", "m"))
    place = Condition("place", "vector", mean=(0.0, 1.0), std=(1.0, 2.0), width=2)
    note = Condition("note", "words", ("", "red", "blue"), width=3)
    assert torch.equal(age.rows(50, 2), age.rows([50, 50], 2)) and age.standardise(age.rows("45", 1)).item() == 0.5
    assert torch.equal(age.rows(torch.tensor([1.0, 2.0]), 2)[:, 0], torch.tensor([1.0, 2.0]))
    assert kind.rows("m", 2).tolist() == [[1.0], [1.0]] and kind.rows(["f", "m"], 2).tolist() == [[0.0], [1.0]]
    assert place.rows([1.0, 2.0], 3).tolist() == [[1.0, 2.0]] * 3 and place.rows("1,2", 1).tolist() == [[1.0, 2.0]]
    assert place.standardise(place.rows([[1, 2], [3, 5]], 2)).tolist() == [[1.0, 0.5], [3.0, 2.0]]
    assert note.rows("Blue, red!", 1).nan_to_num(-1).tolist() == [[2.0, 1.0, -1.0]]
    assert note.rows(["a red one in blue", "blue"], 2).nan_to_num(-1).tolist() == [[0.0, 1.0, 0.0], [2.0, -1.0, -1.0]]
    for c in (age, kind, place, note):
        assert c.rows(None, 2).isnan().all() and from_config(c.config()) == c
        assert torch.equal(c.rows(c.rows(None, 2), 2).isnan(), torch.ones(2, c.width, dtype=torch.bool))


def test_numbers_are_standardised_by_the_rows_that_are_known() -> None:
    condition, rows = infer_rows("age", None, np.array([1.0, math.nan, 3.0]))
    fitted = condition.fitted(rows)
    assert (fitted.mean, fitted.std) == ((2.0,), (1.0,))
    assert fitted.standardise(rows)[:, 0].nan_to_num(9).tolist() == [-1, 9, 1]


def test_names_of_arguments_are_no_names_of_conditions() -> None:
    """A condition is an argument of `sample` and of `denoise`; none may hide another argument."""
    taken = {*inspect.signature(sample).parameters, *inspect.signature(Denoiser.denoise).parameters} - {"cond"}
    assert taken <= set(RESERVED)
    assert parse_spec("note:words") == ("note", "words") and parse_spec("a:b") == ("a:b", None)


@pytest.mark.parametrize("wrong, words", [
    (lambda: Condition("steps", "number"), "rename it"), (lambda: Condition("age", "colour"), "expected one of class"),
    (lambda: Condition("age", "number").rows("old", 1), "expected a number"),
    (lambda: Condition("age", "number").rows([1.0, 2.0], 3), "one for each of 3"),
    (lambda: Condition("age", "number").rows(object(), 3), "expected a number"),
    (lambda: Condition("sex", "class", ("f", "m")).rows("x", 1), "expected one of f, m"),
    (lambda: Condition("sex", "class", ("f", "m")).check(torch.tensor([[2.0]])), "expected 0 to 1"),
    (lambda: Condition("age", "number").check(torch.tensor([[math.inf]])), "finite"),
    (lambda: Condition("place", "vector", width=2).rows([1.0, 2.0, 3.0], 1), "expected 2 numbers"),
    (lambda: infer_rows("id", None, [f"word{k}" for k in range(40)]), "occur again"),
    (lambda: infer_rows("age", "words", np.ones((3, 2))), "expected vector"),
    (lambda: infer_rows("age", None, np.full(3, math.nan)), "leave it out"),
    (lambda: infer_rows("note", "number", ["a", "b"]), "expected class"),
    (lambda: open_data("moons", condition=["age"]), "leave condition out"),
    (lambda: conditioned(open_data("moons", n=5), age=np.ones(4)), "expected one each"),
])
def test_nonsense_gets_a_sentence(wrong, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        wrong()
    assert "\n" not in str(caught.value)


def test_a_column_that_is_not_there_and_a_table_of_nothing_else_are_refused(table: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'age'"):
        open_data(table, condition=["agee"])
    with pytest.raises(InputError, match="expected one that is learned"):
        open_data(table, condition=["height", "age", "sex", "note", "code"])
