"""Streams of Hugging Face: their first rows are written once to an Arrow file, whose rows can be read by number.

Exact resuming needs that: the data order is a function of (seed, step, slot). The rows pass through memory a few at a
time, and the file is renamed to its final name when it is complete.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from undiffuse.atomic_files import atomic, remove_stale
from undiffuse.data.validation import first_line
from undiffuse.errors import InputError, MachineError, quote
from undiffuse.progress import bar
from undiffuse.storage import waited_for

BATCH = 100  # rows in memory at a time


def cache() -> Path:
    """The folder of streams inside the cache of `datasets`."""
    import datasets

    return Path(datasets.config.HF_DATASETS_CACHE) / "undiffuse"


def stored(stream: Callable[[], Any], name: str, first: int | None, folder: Path) -> Any:
    """The first rows of a stream, a `datasets.Dataset` on the file FIRST.arrow of a folder.

    Args:
        stream: opens the stream; called only if the file is missing, by one of several processes.
        name: name of the data.
        first: number of rows; None: all.
        folder: folder of the file.

    Raises:
        InputError: for less than two rows and for a damaged file.
        MachineError: if the stream breaks off or writing fails; no partial file is kept.
    """
    import datasets

    file = folder / f"{first or 'all'}.arrow"
    if not file.is_file():
        with _exclusive(folder):
            if not file.is_file():
                remove_stale(folder)
                with atomic(file) as out:
                    _write(stream(), name, first, out)
    try:
        return datasets.Dataset.from_file(str(file))
    except (OSError, ValueError) as error:
        raise InputError(f"{quote(file)} is damaged ({first_line(error)}); remove it, and the rows are streamed "
                         "again") from error


def stored_temporarily(rows: Any, name: str, first: int | None) -> Any:
    """The first rows of a stream as by `stored`, on an unlinked file that ends with the process.

    Args:
        rows: the stream, an iterable of rows.
        name: name of the source in error messages.
        first: number of rows to read from the start; None: all.
    """
    folder = cache() / f"temporary-{uuid.uuid4()}"
    try:
        return stored(lambda: rows, name, first, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the mapping holds the file until the process ends


def _write(rows: Any, name: str, first: int | None, out: IO[bytes]) -> None:
    from datasets.arrow_writer import ArrowWriter
    from datasets.table import embed_table_storage

    writer, count = ArrowWriter(stream=out), 0
    with bar("streaming") as progress:
        for table in _checked(_tables(rows, first), name):
            writer.write_table(embed_table_storage(table))
            count += table.num_rows
            progress(count, first)
            if count == first:
                break
    if count < 2:
        raise InputError(f"{quote(name)} holds {count} row{'s' * (count != 1)}; expected at least 2")
    writer.finalize(close_stream=False)


def _tables(rows: Any, first: int | None) -> Iterable[Any]:
    """The rows as Arrow tables, images still encoded; unknown types are inferred from the first values."""
    import datasets

    rows = rows if first is None else rows.take(first)
    if rows.features is not None:
        tables: Iterable[Any] = rows.with_format("arrow").iter(BATCH)
        return tables
    return (datasets.Dataset.from_dict(batch).with_format("arrow")[:] for batch in rows.iter(BATCH))


def _checked(tables: Iterable[Any], name: str) -> Iterator[Any]:
    """The tables; MachineError if the stream fails before its end."""
    count = 0
    try:
        for table in tables:
            count += table.num_rows
            yield table
    except (ValueError, TypeError, LookupError, MemoryError):  # the rows themselves
        raise
    except Exception as error:
        raise MachineError(f"{quote(name)} broke off after {count:,} rows ({first_line(error)}); none of them were "
                           "kept; run the same command again") from error


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Wait until no other process holds the lock of the folder."""
    with ExitStack() as opened:
        try:
            opened.enter_context(waited_for(folder))
        except OSError as error:
            raise MachineError(f"{quote(folder)}, where streams are stored, cannot be written ({error.strerror}); set "
                               "HF_DATASETS_CACHE to another folder") from None
        yield
