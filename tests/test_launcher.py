"""The first of several processes speaks; variables without a launcher do not silence anything."""

from __future__ import annotations

import pytest

from undiffuse.launcher import is_first, launched


@pytest.mark.parametrize(("variables", "first", "number"), [
    ({}, True, 1), ({"RANK": "1"}, True, 1), ({"RANK": "abc"}, True, 1), ({"WORLD_SIZE": "abc", "RANK": "3"}, True, 1),
    ({"WORLD_SIZE": "1", "RANK": "7"}, True, 1), ({"WORLD_SIZE": "2", "RANK": "0"}, True, 2),
    ({"WORLD_SIZE": "2", "RANK": "1"}, False, 2), ({"WORLD_SIZE": "0"}, True, 1)])
def test_the_variables_of_a_launcher(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], first: bool,
                                     number: int) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (is_first(), launched()) == (first, number)
