"""Which tables of some folders are read, which are refused and why, and what was decided about their columns."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from undiffuse.data import Dataset, open_data
from undiffuse.data.dataset import column_lines
from undiffuse.data.tables import is_table
from undiffuse.errors import InputError, UndiffuseError


def table(*words: str) -> Iterator[str]:
    """A line for every table under the folders, and counts at the end.

    words: folders (or files); `--verbose` prints the columns and the notes of every table.
    """
    folders = [Path(word) for word in words if word != "--verbose"]
    if not folders or any(not folder.exists() for folder in folders):
        raise InputError(f"got {' '.join(words)!r}; expected folders of tables")
    outcomes: Counter[str] = Counter()
    for file in sorted(file for folder in folders for file in _files(folder)):
        start = time.process_time()
        try:
            data = open_data(file)
            outcomes["read"] += 1
            yield f"read     {file}: {len(data):,} rows of {data.shape[0]}, {time.process_time() - start:.1f} s"
            if "--verbose" in words:
                yield from _decisions(data)
        except UndiffuseError as error:
            outcomes["refused"] += 1
            yield f"refused  {file}: {error}"
        except Exception as error:  # what this command looks for
            outcomes["error"] += 1
            yield f"ERROR    {file}: {type(error).__name__}: {error}"
    total = outcomes.total()
    yield f"{total} files: " + ", ".join(f"{n} {name} ({n / total:.1%})" for name, n in outcomes.most_common())


def _files(folder: Path) -> list[Path]:
    """The tables under a folder: hidden files, and text files, most of which hold prose, are left out."""
    return [folder] if folder.is_file() else [file for file in folder.rglob("*") if file.is_file() and is_table(file)
                                              and ".txt" not in file.suffixes and not file.name.startswith(".")]


def _decisions(data: Dataset) -> Iterator[str]:
    yield from (f"    {line}" for line in column_lines(data))
    yield from (f"  - {note}" for note in data.notes)
