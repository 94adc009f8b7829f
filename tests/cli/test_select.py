"""Indices and labels on the command line mean the same samples however they are asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undiffuse.cli.select import cycled, labels_of, stretches
from undiffuse.errors import InputError


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 9)), min_size=1, max_size=5))
def test_stretches_are_the_indices_that_were_written(ranges: list[tuple[int, int]]) -> None:
    text = ", ".join(f"{first}-{first + more}" if more else f"{first}" for first, more in ranges)
    listed = [index for first, count in stretches(text) for index in range(first, first + count)]
    assert listed == [first + k for first, more in ranges for k in range(more + 1)]


@pytest.mark.parametrize("text", ["", "a", "1,,2", "1-", "-1", "5-4", "1.5", "0x1", "١", "1" * 19, "1-2-3"])
def test_other_words_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"expected numbers or ranges") as caught:
        stretches(text)
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
    ("10", DIGITS, '"10", expected 0, 1'), ("4", (), "without labels"), ("dogs", ANIMALS, "did you mean dog?"),
    ("0-999999999999999999", DIGITS, '"10"'), ("5-4", DIGITS, "ranges"), ("", DIGITS, '""'), ("0,,1", DIGITS, '""'),
])
def test_labels_that_do_not_exist_are_refused(text: str, classes: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError) as caught:
        labels_of(text, classes)
    assert words in str(caught.value)


@given(labels=st.lists(st.integers(0, 9), min_size=1, max_size=4), first=st.integers(0, 50), count=st.integers(0, 20))
def test_the_label_of_an_index_does_not_depend_on_the_rest(labels: list[int], first: int, count: int) -> None:
    assert cycled(labels, first, count) == cycled(labels, 0, first + count)[first:]
