"""Helpers of the data tests: a refusal is one InputError of one line, and nothing else; a cache for a test alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from undiffuse.data import open_data
from undiffuse.errors import InputError


@pytest.fixture
def refused() -> Callable[..., str]:
    """Open a source that must be refused in one line that holds all of `words`; returns the line."""

    def check(source: Any, *words: str, **options: Any) -> str:
        with pytest.raises(InputError) as caught:
            open_data(source, **options)
        line = str(caught.value)
        assert "\n" not in line and len(line) < 700
        assert all(word in line for word in words), line
        return line

    return check


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the package datasets."""
    import datasets

    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    datasets.disable_progress_bars()
    return folder
