"""Indices and labels on the command line mean the same samples however they are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undiffuse.cli import main
from undiffuse.cli.parsing import budgets_of, cycle_labels, index_ranges, labels_of, parse_conditions, scale_of
from undiffuse.errors import InputError


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 9)), min_size=1, max_size=5))
def test_stretches_are_the_indices_that_were_written(ranges: list[tuple[int, int]]) -> None:
    text = ", ".join(f"{first}-{first + more}" if more else f"{first}" for first, more in ranges)
    listed = [index for first, count in index_ranges(text) for index in range(first, first + count)]
    assert listed == [first + k for first, more in ranges for k in range(more + 1)]


def test_evaluations_are_numbers_and_ranges_and_a_huge_one_is_cut() -> None:
    assert budgets_of("4-6, 10") == [4, 5, 6, 10]
    assert len(budgets_of("1-999999999")) == 101  # enough for the refusal of what is above 100


@pytest.mark.parametrize("text", ["", "a", "1,,2", "1-", "-1", "5-4", "1.5", "0x1", "١", "1" * 19, "1-2-3"])
def test_other_words_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"expected numbers or ranges") as caught:
        index_ranges(text)
    assert "\n" not in str(caught.value)


DIGITS = tuple("0123456789")
ANIMALS = ("cat", "dog", "cat, wild", "7")


@pytest.mark.parametrize("text, classes, numbers", [
    ("4", DIGITS, [4]), ("0,3, 5-7", DIGITS, [0, 3, 5, 6, 7]), ("all", DIGITS, list(range(10))),
    ("dog", ANIMALS, [1]), ("7,cat", ANIMALS, [3, 0]), ("cat, wild", ANIMALS, [2]), ("all", ("all", "none"), [0]),
])
def test_labels_are_the_names_of_classes(text: str, classes: tuple[str, ...], numbers: list[int]) -> None:
    assert labels_of(text, classes) == numbers


@pytest.mark.parametrize("text, classes, words", [
    ("10", DIGITS, '"10"; expected 0, 1'), ("4", (), "without labels"), ("dogs", ANIMALS, "did you mean 'dog'?"),
    ("0-999999999999999999", DIGITS, '"10"'), ("5-4", DIGITS, "ranges"), ("", DIGITS, '""'), ("0,,1", DIGITS, '""'),
])
def test_labels_that_do_not_exist_are_refused(text: str, classes: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError) as caught:
        labels_of(text, classes)
    assert words in str(caught.value)


@given(labels=st.lists(st.integers(0, 9), min_size=1, max_size=4), first=st.integers(0, 50), count=st.integers(0, 20))
def test_the_label_of_an_index_does_not_depend_on_the_rest(labels: list[int], first: int, count: int) -> None:
    assert cycle_labels(labels, first, count) == cycle_labels(labels, 0, first + count)[first:]


def test_conditions_are_pairs_and_scales_are_one_or_one_each() -> None:
    assert (
        parse_conditions(["age=40", "note=a=b c"], ["age", "note"]) == {"age": "40", "note": "a=b c"}
        and parse_conditions(None, []) == {}
    )
    assert scale_of(None) == 1.0 and scale_of(["2.5"]) == 2.5
    assert scale_of(["age=2", "sex=-1"]) == {"age": 2.0, "sex": -1.0}


@pytest.mark.parametrize(
    "ask, words",
    [
        (lambda: parse_conditions(["age"], ["age"]), "NAME=VALUE"),
        (lambda: parse_conditions(["age="], ["age"]), "NAME=VALUE"),
        (lambda: parse_conditions(["agee=4"], ["age"]), "did you mean 'age'?"),
        (lambda: parse_conditions(["age=4"], []), "none"),
        (lambda: scale_of(["two"]), "expected a number"),
        (lambda: scale_of(["age=two"]), "NAME=NUMBER"),
        (lambda: scale_of(["2", "age=2"]), "twice"),
    ],
)
def test_other_forms_are_refused_in_a_sentence(ask, words: str) -> None:
    with pytest.raises(InputError) as caught:
        ask()
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_is_learned_and_sampled_given_its_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{k % 7}.50000001,{(k * k) % 11}.25,{20 + k},{'fm'[k % 2]},{('red circle', 'blue square')[k % 3 > 0]}"
            for k in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,age,sex,note", *rows]))
    run, asked = str(tmp_path / "run"), ["--condition", "age,sex,note:words", "--steps", "40"]
    assert main(["train", str(tmp_path / "t.csv"), *asked, "--out", run]) == 0
    told_all = ["--condition", "age=30", "--condition", "sex=f", "--condition", "note=a blue circle"]
    files = {}
    ways = {"all": told_all, "age": told_all[:2], "none": [], "led": [*told_all, "--guidance-scale", "age=2"],
            "past": [*told_all, "--guidance-scale", "3"]}
    for name, words in ways.items():
        files[name] = tmp_path / f"{name}.csv"
        assert main(["sample", run, "--n", "3", "--steps", "3", "--out", str(files[name]), *words]) == 0
    texts = [file.read_text() for file in files.values()]
    assert len(set(texts)) == len(texts) and all(text.startswith("a,b") for text in texts)
    capsys.readouterr()
    assert main(["sample", run, "--condition", "sex=x"]) == 2 and "expected one of f, m" in capsys.readouterr().err
    assert main(["sample", run, "--guidance-scale", "age=2"]) == 2
    assert "add a label or a condition" in capsys.readouterr().err
