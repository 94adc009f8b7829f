"""Data sets of Hugging Face: OWNER/NAME of the hub, parquet files and folders of them, folders of `save_to_disk`.

The package datasets turns each of them into memory-mapped Arrow files, whose rows can be read by number. For streams,
whose rows cannot, see `hf_streaming`.
"""

from __future__ import annotations

import glob
import io
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import torch

from undiffuse.data import hf_streaming, images
from undiffuse.data.dataset import Dataset, with_conditions
from undiffuse.data.lazy import LARGE
from undiffuse.data.tables import from_cells
from undiffuse.data.validation import check_first, first_line
from undiffuse.errors import InputError, MachineError, UndiffuseError, did_you_mean, quote
from undiffuse.transforms import conditions
from undiffuse.transforms.table_cells import DEFAULT_OPTIONS, Cells, Row, TableOptions
from undiffuse.transforms.table_schema import condition_column

_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*(:[\w][\w.-]*)?")
_FILES = (".npy", ".npz", ".csv", ".tsv", ".h5ad", ".parquet", ".json", ".gz", ".zip", ".png", ".jpg", ".jpeg", ".webp",
          ".bmp", ".txt")  # what a mistyped path ends in
_LABELS = ("label", "labels")
_IMAGES = ("image", "img")
_BATCH = 1000


def is_name(text: str) -> bool:
    """Whether a text can name a data set of the hub: OWNER/NAME or OWNER/NAME:CONFIGURATION."""
    return _NAME.fullmatch(text) is not None and Path(text).suffix.lower() not in _FILES


def is_source(name: str, path: Path) -> bool:
    """Whether a name or path is read by this module: a parquet file, a folder of them or of `save_to_disk`, the hub."""
    if not os.path.exists(path):
        return is_name(name)
    if not path.is_dir():
        return path.suffix.lower() == ".parquet"
    return _is_saved(path) or any(True for folder in (path, path / "data") for _ in folder.glob("*.parquet"))


def load_rows(name: str, part: str = "train", first: int | None = None) -> Any:
    """The rows of a part, a `datasets.Dataset`; of the hub the `first` rows alone are streamed, once.

    Args:
        name: local path, or owner/name[:configuration] on the hub.
        part: "train" or "test".
        first: number of rows to read from the start; None: all.

    Raises:
        MachineError: if the package is missing or the hub cannot be reached.
    """
    path = _local(name)
    owner_name, _, configuration = name.partition(":")
    with _errors_of(path if path.exists() else name) as datasets:
        if path.is_file():
            return _split(_parquet(datasets, path), part, path.name)
        if path.is_dir():
            load = datasets.load_from_disk if _is_saved(path) else datasets.load_dataset
            return _split(load(str(path)), part, path.name)

        def split(**how: bool) -> Any:
            return _split(datasets.load_dataset(owner_name, configuration or None, **how), part, name)

        return split() if first is None else hf_streaming.stored(lambda: split(streaming=True), name, first,
                                                                 hf_streaming.cache() / name / part)


def read(name: str, size: int | None = None, label: str | None = None, part: str = "train",
         condition: Sequence[str] = (), first: int | None = None, options: TableOptions = DEFAULT_OPTIONS) -> Dataset:
    """The Dataset of a source that `is_source` accepts; see `load_rows` and `from_datasets`.

    Args:
        name: local path, or owner/name[:configuration] on the hub.
        size: side in pixels of the resampled images; None: unchanged.
        label: name of the column of class labels; None: no labels.
        part: "train" or "test".
        condition: specifications of the columns that become conditions.
        first: number of rows to read from the start; None: all.
        options: how a table is read.
    """
    path = _local(name)
    return from_datasets(load_rows(name, part, first), path.name if path.exists() else name, size, label, condition,
                         first, options=options)


def read_cells(name: str, part: str = "train", first: int | None = None,
               options: TableOptions = DEFAULT_OPTIONS) -> Cells:
    """The cells of a table.

    Args:
        name: local path, or owner/name[:configuration] on the hub.
        part: "train" or "test".
        first: number of rows to read from the start; None: all.
        options: how the table is read.
    """
    path = _local(name)
    return _cells(_indexed(load_rows(name, part, first), name, first, None), path.name if path.exists() else name,
                  options)


def from_datasets(rows: Any, name: str = "the data set", size: int | None = None, label: str | None = None,
                  condition: Sequence[str] = (), first: int | None = None, keep: str | Path | None = None,
                  options: TableOptions = DEFAULT_OPTIONS) -> Dataset:
    """The Dataset of a `datasets.Dataset`: images if a column holds images, else a table of its numbers and words.

    Images are decoded as in a folder of images; more than 1 GiB stay encoded on the disk. The rows of a
    `datasets.IterableDataset`, a stream, are read once, in constant memory, into a file.

    Args:
        rows: the rows.
        name: name of the data.
        size: side of square images in pixels.
        label: column of the classes; of images by default the column label or labels, or the only one of class labels.
        condition: columns that are conditions, as NAME or NAME:KIND.
        first: number of rows from the start on; None: all.
        keep: folder in which the file of a stream stays and is reused; None: it is removed with the process.
        options: how a table is read.

    Raises:
        InputError: for unknown columns, and if no column can be learned.
        MachineError: if the stream breaks off; no partial file is kept.
    """
    check_first(first)
    rows = _indexed(rows, name, first, keep)
    pictures = [column for column, feature in rows.features.items() if type(feature).__name__ == "Image"]
    for column in [*filter(None, [label]), *(key for key, _ in map(conditions.parse_spec, condition))]:
        if column not in rows.features:
            columns = list(rows.features)
            raise InputError(f"{quote(name)} has no column {quote(column)}; it has "
                             f"{', '.join(map(quote, columns[:8]))}{did_you_mean(column, columns)}")
    if not pictures:
        return from_cells(_cells(rows, name, options), name, label, condition).head(first)
    if len(pictures) > 1 and not any(column in _IMAGES for column in pictures):
        raise InputError(f"{quote(name)} has the columns of images {', '.join(map(quote, pictures))}; expected one, or "
                         "one of them called image, so remove the others")
    column = next((column for column in pictures if column in _IMAGES), pictures[0])
    return _images(rows, name, column, size, label, condition).head(first)


def _indexed(rows: Any, name: str, first: int | None, keep: str | Path | None) -> Any:
    """The first rows, or all, each of which can be read by its number."""
    if hasattr(rows, "num_rows"):
        return rows if first is None else rows.select(range(min(first, rows.num_rows)))
    with _errors_of(name):
        if keep is None:
            return hf_streaming.stored_temporarily(rows, name, first)
        return hf_streaming.stored(lambda: rows, name, first, Path(keep))


class Encoded(images.Pictures):
    """The images of a column of Arrow files."""

    def __init__(self, rows: Any, column: str, name: str, size: int | None) -> None:
        self.rows, self.column, self.name = rows.select_columns([column]).with_format("arrow"), column, name
        super().__init__(len(rows), size)

    def source(self, number: int) -> Path | IO[bytes]:
        """The bytes of the file, or the file that the row names."""
        cell = self._cells([number])[0]
        if cell is None:
            raise InputError(f"{self.label(number)} has no image; remove the row")
        return Path(cell["path"]) if cell["bytes"] is None else io.BytesIO(cell["bytes"])

    def label(self, number: int) -> Path:
        """Column and row."""
        return Path(f"{self.column} of row {number + 1} of {self.name}")

    def identity(self) -> bytes:
        """The numbers of the rows, and the content of 1,024 of them."""
        spread = self.numbers[torch.linspace(0, len(self) - 1, min(len(self), 1024)).long()].tolist()
        return self.numbers.numpy().tobytes() + b"".join(self._content(cell) for cell in self._cells(spread))

    def _content(self, cell: dict[str, Any] | None) -> bytes:
        return b"" if cell is None else cell["bytes"] or Path(cell["path"]).read_bytes()

    def _cells(self, numbers: Sequence[int]) -> list[dict[str, Any] | None]:
        return cast(list[dict[str, Any] | None], self.rows[numbers].column(self.column).to_pylist())


def _images(rows: Any, name: str, column: str, size: int | None, label: str | None,
            condition: Sequence[str]) -> Dataset:
    if rows.num_rows == 0:
        raise InputError(f"{quote(name)} holds no rows; expected 2 images or more")
    at = label or _label_column(rows)
    notes = [f"the images are the column {column!r}" + (f", the classes the column {at!r}" if at else "")]
    data = images.read_pictures(Encoded(rows, column, name, size), name,
                                lambda: None if at is None else _label_texts(rows, at, name), notes)
    if not condition:
        return data
    specs = dict(map(conditions.parse_spec, condition))
    cells = _cells(rows.select_columns(list(specs)), name)
    return with_conditions(data, [condition_column(cells, cells.columns.index(key), key, kind or _class_kind(
        rows.features[key])) for key, kind in specs.items()])


def _class_kind(feature: Any) -> str | None:
    return "class" if type(feature).__name__ == "ClassLabel" else None


def _label_column(rows: Any) -> str | None:
    """The column of the classes if none is named: label, labels, or the only column of class labels."""
    usual = [column for column in _LABELS if _is_cell(rows.features.get(column))]
    classes = [column for column, feature in rows.features.items() if type(feature).__name__ == "ClassLabel"]
    return usual[0] if usual else classes[0] if len(classes) == 1 else None


def _label_texts(rows: Any, column: str, name: str) -> list[str]:
    texts = _texts(rows, [column])[0]
    if empty := [i for i, text in enumerate(texts) if not text]:
        raise InputError(f"{quote(name)}, row {empty[0] + 1}, column {quote(column)}: the label is missing; fill it in "
                         "or remove the row")
    return texts


def _cells(rows: Any, name: str, options: TableOptions = DEFAULT_OPTIONS) -> Cells:
    """The cells of the columns of numbers, words and classes."""
    columns = [column for column, feature in rows.features.items() if _is_cell(feature)]
    others = [column for column in rows.features if column not in columns]
    if not columns or rows.num_rows == 0:
        raise InputError(f"{quote(name)} holds {rows.num_rows} rows of columns {', '.join(map(quote, rows.features))}; "
                         "expected a column of images, numbers or words")
    notes = [f"columns that hold neither numbers nor words were left out ({', '.join(others[:8])})"] if others else []
    cells = Cells(Path(name), "", columns, True, lambda wanted: dict(
        zip(wanted, _texts(rows, [columns[j] for j in wanted]), strict=True)), notes, options, typed=True)
    return cells.fill(_rows(rows, columns))


def _texts(rows: Any, columns: Sequence[str]) -> list[list[str]]:
    """The texts of some columns."""
    return [list(texts) for texts in zip(*(row for _, row in _rows(rows, columns)), strict=True)] if columns else []


def _rows(rows: Any, columns: Sequence[str]) -> Iterator[Row]:
    """Numbers of rows and the texts of some columns, "" where missing."""
    names = [getattr(rows.features[column], "names", None) for column in columns]
    count = 0
    for batch in rows.select_columns(list(columns)).with_format("arrow").iter(_BATCH):
        values = [batch.column(column).to_pylist() for column in columns]
        for row in zip(*values, strict=True):
            count += 1
            yield count, [_text(value, classes) for value, classes in zip(row, names, strict=True)]


def _text(value: Any, names: Sequence[str] | None) -> str:
    if value is None or value != value or (names and value < 0):
        return ""
    return (names[value] if names else repr(value) if isinstance(value, float) else str(value)).strip()


def _is_cell(feature: Any) -> bool:
    """Whether a feature holds numbers, words or classes."""
    kind = type(feature).__name__
    return kind == "ClassLabel" or (kind == "Value" and "binary" not in feature.dtype)


def _parquet(datasets: Any, path: Path) -> Any:
    """The rows of a parquet file: from memory, of large files from a file that ends with the process.

    `datasets` takes names for patterns, and reads files that it has read before from a cache, by name and time.
    """
    from pyarrow import parquet

    if path.stat().st_size <= LARGE:
        return datasets.Dataset(datasets.table.InMemoryTable(parquet.read_table(path, partitioning=None)))
    rows = datasets.load_dataset("parquet", data_files=glob.escape(str(path)), split="train", streaming=True)
    return hf_streaming.stored_temporarily(rows, path.name, None)


def _split(splits: Any, part: str, name: str) -> Any:
    """The rows of a part: split "train", or "test" or "validation"; a single split is the training part."""
    if not isinstance(splits, dict):
        splits = {"train": splits}
    wanted = ("train",) if part == "train" else ("test", "validation")
    single = list(splits) if part == "train" and len(splits) == 1 else []
    present = [split for split in wanted if split in splits] or single
    if not present:
        raise InputError(f"{quote(name)} has the splits {', '.join(map(quote, splits))}; expected "
                         f"{' or '.join(wanted)}")
    return splits[present[0]]


def _local(name: str) -> Path:
    return Path(os.path.expanduser(name))


def _is_saved(path: Path) -> bool:
    return any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))


@contextmanager
def _errors_of(name: str | Path) -> Iterator[Any]:
    """The package datasets, without progress bars outside a terminal; its errors become one of ours."""
    try:
        import datasets
    except ImportError:
        remote = " does not exist locally; loading it from the Hugging Face hub" * isinstance(name, str)
        raise MachineError(f"{quote(name)}{remote} needs the package datasets; install it with pip install "
                           "'undiffuse[data]'") from None
    if not (sys.stderr and sys.stderr.isatty()):
        datasets.disable_progress_bars()
    try:
        with _without_retry_lines():
            yield datasets
    except (UndiffuseError, MemoryError):
        raise
    except datasets.exceptions.DatasetNotFoundError:
        raise InputError(f"got {quote(name)}, which is neither a path that exists nor a data set of the Hugging Face "
                         "hub that is accessible; check the name, or log in if it is private") from None
    except ConnectionError as error:
        raise MachineError(f"{quote(name)} does not exist locally, and the Hugging Face hub cannot be reached "
                           f"({first_line(error)})") from None
    except Exception as error:
        raise InputError(f"{quote(name)} cannot be read by the package datasets ({first_line(error)}); check that it "
                         "is complete and of a known type") from error


@contextmanager
def _without_retry_lines() -> Iterator[None]:
    """huggingface_hub without a log line per retry, which our error sums up."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
