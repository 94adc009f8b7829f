"""Data sets of Hugging Face: OWNER/NAME of the hub, parquet files and folders of them, and what `save_to_disk` wrote.

The package datasets turns any of them into Arrow files that are mapped into memory, so that a row is read by its
number. Of a stream, whose rows have no numbers, see `streams`.
"""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor

from undiffuse.data import hf_streaming, images
from undiffuse.data.checks import check_first, first_line
from undiffuse.data.dataset import Dataset, with_conditions
from undiffuse.data.tables import Cells, Row, filled, from_cells
from undiffuse.errors import InputError, MachineError, UndiffuseError, did_you_mean, quote
from undiffuse.transforms import conditions

_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*(:[\w][\w.-]*)?")
_FILES = (".npy", ".npz", ".csv", ".tsv", ".h5ad", ".parquet", ".json", ".gz", ".zip", ".png", ".jpg", ".jpeg", ".webp",
          ".bmp", ".txt")  # what a mistyped path ends in
_LABELS = ("label", "labels")
_IMAGES = ("image", "img")
_BATCH = 1000


def is_name(text: str) -> bool:
    """Whether a text can name a data set of the hub: OWNER/NAME or OWNER/NAME:CONFIGURATION."""
    return _NAME.fullmatch(text) is not None and Path(text).suffix.lower() not in _FILES


def is_here(path: Path) -> bool:
    """Whether a path is a parquet file, a folder of them, or a folder that `save_to_disk` wrote."""
    if not path.is_dir():
        return path.suffix.lower() == ".parquet"
    return _saved(path) or any(True for folder in (path, path / "data") for _ in folder.glob("*.parquet"))


def read_hub(name: str, size: int | None = None, label: str | None = None, part: str = "train",
             condition: Sequence[str] = (), first: int | None = None) -> Dataset:
    """The Dataset of OWNER/NAME[:CONFIGURATION], fetched once by `datasets.load_dataset`; the `first` rows alone are
    streamed, once.

    Raises MachineError where the package is missing or the hub cannot be reached; else as `from_datasets`.
    """
    owner_name, _, configuration = name.partition(":")
    with _fetching(name) as datasets:
        def split(**how: bool) -> Any:
            return _split(datasets.load_dataset(owner_name, configuration or None, **how), part, name)

        rows = split() if first is None else hf_streaming.stored(lambda: split(streaming=True), name, first,
                                                            hf_streaming.cache() / name / part)
    return from_datasets(rows, name, size, label, condition, first)


def read_here(path: Path, size: int | None = None, label: str | None = None, part: str = "train",
              condition: Sequence[str] = (), first: int | None = None) -> Dataset:
    """The Dataset of a parquet file, of a folder of them, or of what `save_to_disk` wrote; as `from_datasets`."""
    return from_datasets(_rows_here(path, part), path.name, size, label, condition, first)


def read_cells(path: Path) -> Cells:
    """The cells of a parquet file; InputError for one of which some columns hold neither numbers nor words."""
    cells = _cells(_rows_here(path), path.name)
    if cells.note:
        raise InputError(f"{quote(path)}: {cells.note[0]}; remove them")
    return cells


def _rows_here(path: Path, part: str = "train") -> Any:
    """The rows of a part of what lies here."""
    with _fetching(path) as datasets:
        if path.is_file():
            found = datasets.load_dataset("parquet", data_files=str(path))
        else:
            found = datasets.load_from_disk(str(path)) if _saved(path) else datasets.load_dataset(str(path))
    return _split(found, part, path.name)


def from_datasets(rows: Any, name: str = "the data set", size: int | None = None, label: str | None = None,
                  condition: Sequence[str] = (), first: int | None = None, keep: str | Path | None = None) -> Dataset:
    """The Dataset of a `datasets.Dataset`: images if a column holds images, else a table of its numbers and words.

    The classes are the column `label`; of images by default the column called label or labels, or the only one of
    class labels. Images are decoded as in a folder of images, and stay encoded on the disk if they are more than 1 GiB.
    first: so many rows, from the start on; None: all. The rows of a `datasets.IterableDataset`, a stream, are read
    once, in constant memory, into a file that goes with the process, or that stays in the folder `keep` and is taken
    from there the next time.
    Raises InputError for columns that are unknown and rows of which no column can be learned; MachineError for a stream
    that breaks off, of which nothing is kept.
    """
    check_first(first)
    rows = _numbered(rows, name, first, keep)
    pictures = [column for column, feature in rows.features.items() if type(feature).__name__ == "Image"]
    for column in [*filter(None, [label]), *(key for key, _ in map(conditions.named, condition))]:
        if column not in rows.features:
            known = list(rows.features)
            raise InputError(f"{quote(name)} has no column {quote(column)}; it has "
                             f"{', '.join(map(quote, known[:8]))}{did_you_mean(column, known)}")
    if not pictures:
        return from_cells(_cells(rows, name), name, label, condition).head(first)
    if len(pictures) > 1 and not any(column in _IMAGES for column in pictures):
        raise InputError(f"{quote(name)} has the columns of images {', '.join(map(quote, pictures))}; expected one, or "
                         "one of them called image, so remove the others")
    column = next((column for column in pictures if column in _IMAGES), pictures[0])
    return _images(rows, name, column, size, label, condition).head(first)


def _numbered(rows: Any, name: str, first: int | None, keep: str | Path | None) -> Any:
    """The first rows, or all, of which each can be read by its number."""
    if hasattr(rows, "num_rows"):
        return rows if first is None else rows.select(range(min(first, rows.num_rows)))
    with _fetching(name):
        if keep is None:
            return hf_streaming.passing(rows, name, first)
        return hf_streaming.stored(lambda: rows, name, first, Path(keep))


class Encoded(images.Pictures):
    """The images of a column, in Arrow files."""

    def __init__(self, rows: Any, column: str, name: str, size: int | None) -> None:
        self.rows, self.column, self.name = rows.select_columns([column]).with_format("arrow"), column, name
        super().__init__(len(rows), size)

    def opened(self, number: int) -> Path | IO[bytes]:
        """The bytes of the file, or the file that the row names."""
        cell = self._cells([number])[0]
        if cell is None:
            raise InputError(f"{self.called(number)} has no image; remove the row")
        return Path(cell["path"]) if cell["bytes"] is None else io.BytesIO(cell["bytes"])

    def called(self, number: int) -> Path:
        """The row."""
        return Path(f"{self.column} of row {number + 1} of {self.name}")

    def identity(self) -> bytes:
        """The numbers of the rows, and what 1,024 of them hold."""
        spread = self.numbers[torch.linspace(0, len(self) - 1, min(len(self), 1024)).long()].tolist()
        return self.numbers.numpy().tobytes() + b"".join(self._content(cell) for cell in self._cells(spread))

    def _content(self, cell: dict[str, Any] | None) -> bytes:
        return b"" if cell is None else cell["bytes"] or Path(cell["path"]).read_bytes()

    def _cells(self, numbers: Sequence[int]) -> list[dict[str, Any] | None]:
        return cast(list[dict[str, Any] | None], self.rows[numbers].column(self.column).to_pylist())


def _images(rows: Any, name: str, column: str, size: int | None, label: str | None,
            condition: Sequence[str]) -> Dataset:
    at = label or _label_column(rows)
    notes = [f"the images are the column {column!r}" + (f", the classes the column {at!r}" if at else "")]
    if rows.num_rows == 0:
        raise InputError(f"{quote(name)} holds no rows; expected 2 images or more")
    data = images.gathered(Encoded(rows, column, name, size), name,
                           lambda: None if at is None else _marks(rows, at, name), notes)
    return with_conditions(data, [_condition(rows, *conditions.named(spec)) for spec in condition])


def _label_column(rows: Any) -> str | None:
    """The column of the classes that nobody named, if there is one."""
    called = [column for column in _LABELS if _kind(rows.features.get(column)) is not None]
    classes = [column for column, feature in rows.features.items() if type(feature).__name__ == "ClassLabel"]
    return called[0] if called else classes[0] if len(classes) == 1 else None


def _marks(rows: Any, column: str, name: str) -> list[str]:
    texts = _texts(rows, [column])[0]
    if empty := [i for i, text in enumerate(texts) if not text]:
        raise InputError(f"{quote(name)}, row {empty[0] + 1}, column {quote(column)}: the label is missing; fill it in "
                         "or remove the row")
    return texts


def _condition(rows: Any, name: str, kind: str | None) -> tuple[conditions.Condition, Tensor]:
    texts = _texts(rows, [name])[0]
    if _kind(rows.features[name]) != "number":
        return conditions.read(name, kind, texts)
    return conditions.read(name, kind, np.array([float(text or "nan") for text in texts]))


def _cells(rows: Any, name: str) -> Cells:
    """The columns of numbers, words and classes, as those of a .csv are read."""
    columns = [column for column, feature in rows.features.items() if _kind(feature) is not None]
    others = [column for column in rows.features if column not in columns]
    if not columns or rows.num_rows == 0:
        raise InputError(f"{quote(name)} holds {rows.num_rows} rows of columns {', '.join(map(quote, rows.features))}; "
                         "expected a column of images, numbers or words")
    note = [f"columns that hold neither numbers nor words were left out ({', '.join(others[:8])})"] if others else []
    cells = Cells(Path(name), "", columns, True, [], np.empty(0), [{} for _ in columns],
                  lambda wanted: dict(zip(wanted, _texts(rows, [columns[j] for j in wanted]), strict=True)), note)
    return filled(cells, _rows(rows, columns))


def _texts(rows: Any, columns: Sequence[str]) -> list[list[str]]:
    """The texts of some columns."""
    return [list(texts) for texts in zip(*(row for _, row in _rows(rows, columns)), strict=True)] if columns else []


def _rows(rows: Any, columns: Sequence[str]) -> Iterator[Row]:
    """Numbers of rows and the texts of some columns; "" where there is none."""
    names = [getattr(rows.features[column], "names", None) for column in columns]
    count = 0
    for batch in rows.select_columns(list(columns)).with_format("arrow").iter(_BATCH):
        values = [batch.column(column).to_pylist() for column in columns]
        for row in zip(*values, strict=True):
            count += 1
            yield count, [_text(value, known) for value, known in zip(row, names, strict=True)]


def _text(value: Any, names: Sequence[str] | None) -> str:
    if value is None or (names and value < 0):
        return ""
    return (names[value] if names else repr(value) if isinstance(value, float) else str(value)).strip()


def _kind(feature: Any) -> str | None:
    """"number", "word", or None for what is neither."""
    if type(feature).__name__ == "ClassLabel":
        return "word"
    if type(feature).__name__ != "Value" or "binary" in feature.dtype:
        return None
    return "number" if feature.dtype.startswith(("int", "uint", "float", "decimal")) else "word"


def _split(found: Any, part: str, name: str) -> Any:
    """The rows of a part: of several splits "train", or "test" or "validation"; one alone is the training part."""
    if not isinstance(found, dict):
        found = {"train": found}
    wanted = ("train",) if part == "train" else ("test", "validation")
    alone = list(found) if part == "train" and len(found) == 1 else []
    there = [split for split in wanted if split in found] or alone
    if not there:
        raise InputError(f"{quote(name)} has the splits {', '.join(map(quote, found))}; expected {' or '.join(wanted)}")
    return found[there[0]]


def _saved(path: Path) -> bool:
    return any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))


@contextmanager
def _fetching(name: str | Path) -> Iterator[Any]:
    """The package datasets, silent unless someone watches; what it raises becomes one sentence."""
    try:
        import datasets
    except ImportError:
        far = " is no path that exists, and to be looked for on the Hugging Face hub it" * isinstance(name, str)
        raise MachineError(f"{quote(name)}{far} needs the package datasets, which is not here; pip install "
                           "'undiffuse[data]' brings it") from None
    if not (sys.stderr and sys.stderr.isatty()):
        datasets.disable_progress_bars()
    try:
        with _hushed():
            yield datasets
    except (UndiffuseError, MemoryError):
        raise
    except datasets.exceptions.DatasetNotFoundError:
        raise InputError(f"got {quote(name)}, which is neither a path that exists nor a data set of the Hugging Face "
                         "hub that can be seen from here; check the name, or log in if it is private") from None
    except ConnectionError as error:
        raise MachineError(f"got {quote(name)}, which is no path that exists, and the Hugging Face hub cannot be "
                           f"reached to look for it there ({first_line(error)})") from None
    except Exception as error:
        raise InputError(f"{quote(name)} cannot be read by the package datasets ({first_line(error)}); check that it "
                         "is whole and of a known type") from error


@contextmanager
def _hushed() -> Iterator[None]:
    """huggingface_hub without a line for each of its retries, which our sentence sums up."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
