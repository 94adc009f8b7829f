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


def test_labels() -> None:
    assert labels_of("4", 10) == [4]
    assert labels_of("0,3,5-7", 10) == [0, 3, 5, 6, 7]
    assert labels_of("all", 3) == [0, 1, 2]


@pytest.mark.parametrize("text, classes, words", [
    ("10", 10, "0 to 9"), ("4", 0, "without labels"), ("cat", 10, "ranges"), ("0-999999999999999999", 10, "0 to 9"),
])
def test_labels_that_do_not_exist_are_refused(text: str, classes: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        labels_of(text, classes)


@given(labels=st.lists(st.integers(0, 9), min_size=1, max_size=4), first=st.integers(0, 50), count=st.integers(0, 20))
def test_the_label_of_an_index_does_not_depend_on_the_rest(labels: list[int], first: int, count: int) -> None:
    assert cycled(labels, first, count) == cycled(labels, 0, first + count)[first:]
