"""Streams of Hugging Face: their first rows are written once to an Arrow file, whose rows can be read by their numbers.

That is what exact resuming needs: the data order is a function of (seed, step, slot), and a stream has no rows by
number. The rows pass through memory a few at a time, and the file takes its name when all of them are in it.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from undiffuse.data.checks import first_line
from undiffuse.data.locks import waited_for
from undiffuse.data.writers import atomic, remove_stale_files
from undiffuse.errors import InputError, MachineError, quote
from undiffuse.progress import bar

BATCH = 100  # rows that are in memory at a time


def cache() -> Path:
    """The folder of streams beside the data sets that `datasets` has fetched."""
    import datasets

    return Path(datasets.config.HF_DATASETS_CACHE) / "undiffuse"


def stored(stream: Callable[[], Any], name: str, first: int | None, folder: Path) -> Any:
    """The first rows (None: all) of a stream, a `datasets.Dataset` on the file FIRST.arrow of a folder.

    `stream` is called only where that file is missing; of several processes one writes it, and the others wait.
    Raises InputError for less than two rows and for a file that is damaged, MachineError if the stream breaks off or
    the disk refuses; nothing that was begun is kept then.
    """
    import datasets

    file = folder / f"{first or 'all'}.arrow"
    if not file.is_file():
        with _alone(folder):
            if not file.is_file():
                remove_stale_files(folder)
                with atomic(file) as out:
                    _write(stream(), name, first, out)
    try:
        return datasets.Dataset.from_file(str(file))
    except (OSError, ValueError) as error:
        raise InputError(f"{quote(file)} is damaged ({first_line(error)}); remove it, and the rows are streamed "
                         "again") from error


def passing(rows: Any, name: str, first: int | None) -> Any:
    """The same on a file that has no name and goes with the process."""
    folder = cache() / f"passing-{uuid.uuid4()}"
    try:
        return stored(lambda: rows, name, first, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # what is mapped into memory stays there


def _write(rows: Any, name: str, first: int | None, out: IO[bytes]) -> None:
    from datasets.arrow_writer import ArrowWriter
    from datasets.table import embed_table_storage

    writer, count = ArrowWriter(stream=out), 0
    with bar("streaming") as progress:
        for table in _unbroken(_tables(rows, first), name):
            writer.write_table(embed_table_storage(table))
            count += table.num_rows
            progress(count, first)
            if count == first:
                break
    if count < 2:
        raise InputError(f"{quote(name)} holds {count} row{'s' * (count != 1)}; expected at least 2")
    writer.finalize(close_stream=False)


def _tables(rows: Any, first: int | None) -> Iterable[Any]:
    """The rows as Arrow tables, images still encoded; types that are not known are those of the first values."""
    import datasets

    rows = rows if first is None else rows.take(first)
    if rows.features is not None:
        tables: Iterable[Any] = rows.with_format("arrow").iter(BATCH)
        return tables
    return (datasets.Dataset.from_dict(batch).with_format("arrow")[:] for batch in rows.iter(BATCH))


def _unbroken(tables: Iterable[Any], name: str) -> Iterator[Any]:
    """The tables; a MachineError where there should be a next one, and what brings them fails."""
    count = 0
    try:
        for table in tables:
            count += table.num_rows
            yield table
    except (ValueError, TypeError, LookupError, MemoryError):  # the rows themselves
        raise
    except Exception as error:
        raise MachineError(f"{quote(name)} broke off after {count:,} rows ({first_line(error)}); none of them were "
                           "kept, and the same command begins again") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits until no other process has the folder."""
    with ExitStack() as opened:
        try:
            opened.enter_context(waited_for(folder))
        except OSError as error:
            raise MachineError(f"{quote(folder)} cannot be written ({error.strerror}), and a stream is kept there; let "
                               "HF_DATASETS_CACHE name another folder") from None
        yield
