"""Text files of rows: encoding, separator, lines before the table, and the names in the first line."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from undiffuse.data.text_files import OPENERS, SUFFIXES, encoding_of, open_text
from undiffuse.data.validation import decoding
from undiffuse.errors import InputError, quote
from undiffuse.transforms.table_cells import (
    DEFAULT_OPTIONS,
    Cells,
    Row,
    TableOptions,
    default_columns,
    is_number,
    unique_names,
)

_BLANK, _WIDE = " ", "  "  # any number of spaces and tabs; at least two spaces, or a tab
_SEPARATORS = ("\t", ";", "|", ",", _BLANK, _WIDE)  # in the order of preference
_NUMBERS = re.compile(r"\s*[+-]?[\d.]+(?:\s+[+-]?[\d.]+)+\s*")
_DRAWN = "-=+_*~:|"
_RULE = re.compile(f"[{_DRAWN}]{{4,}}")
_MAX_LINE = 1 << 20
_SAMPLE = 200  # rows from which the layout is decided
_MAX_PREAMBLE, _MAX_FOOTER = 40, 10  # lines before and after a table


@dataclass(frozen=True)
class Layout:
    """How the rows of a file are written.

    Args:
        encoding: encoding of the text.
        separator: separator of the cells; a space stands for any number of spaces and tabs.
        width: cells per row.
        skipped: lines that are not rows of the table.
        names: the names in the header; None without one.
        header_line: the line of the header; 0 without one.
        notes: remarks for the user.
    """

    encoding: str
    separator: str
    width: int = 0
    skipped: frozenset[int] = frozenset()
    names: tuple[str, ...] | None = None
    header_line: int = 0
    notes: tuple[str, ...] = ()


def is_table(path: Path) -> bool:
    """Whether the name of a file is that of a table in a text file, compressed or not, or of a .zip archive."""
    name = path.name.lower()
    return name.endswith((*SUFFIXES, ".zip", *(s + packed for s in SUFFIXES for packed in OPENERS)))


def unpacked_suffix(path: Path) -> str:
    """The ending of a file without that of its compression."""
    suffix = path.suffix.lower()
    return (Path(path.stem).suffix or ".csv") if suffix in OPENERS else suffix


def read_cells(path: Path, options: TableOptions = DEFAULT_OPTIONS, names: Collection[str] = ()) -> Cells:
    """The cells of a text file.

    Args:
        path: the file.
        options: what the user says about it.
        names: names of columns by which a header is recognised.
    """
    with decoding(path, "a table"):
        layout = layout_of(path, options, names)
        cells = _named_cells(path, layout, partial(_read_columns, path, layout), options)
        return cells.fill(_rows(path, layout, cells.notes))


def cells_of_rows(path: Path, rows: Sequence[Row], options: TableOptions, names: Collection[str] = (),
                  notes: Sequence[str] = ()) -> Cells:
    """The cells of a workbook, whose rows of texts are numbered from 1; see `read_cells` for the other arguments."""
    rows = [row for row in rows if any(row[1])]
    if not rows:
        raise InputError(f"{quote(path)} is empty; expected one line for each row")
    layout = _skip_preamble(Layout("", "", notes=tuple(notes)), rows[:_SAMPLE])
    head = [row for row in rows[:_SAMPLE] if not _skips(layout, row)]
    layout = _read_header(layout, head, path, options.header, names)
    body = [row for row in rows if not _skips(layout, row)]
    cells = _named_cells(path, layout, lambda wanted: {j: [row[j] for _, row in body] for j in wanted}, options)
    cells.typed = True
    return cells.fill(body)


def _named_cells(path: Path, layout: Layout, read: Callable[[Sequence[int]], dict[int, list[str]]],
                 options: TableOptions) -> Cells:
    """Cells that are not filled yet, with names x1, x2, ... where the header has none."""
    default = default_columns(layout.width)
    clash = {*(layout.names or ())} & {*default}
    columns, notes = unique_names([name or (f"column{j + 1}" if default[j] in clash else default[j])
                                   for j, name in enumerate(layout.names or default)], quote(path))
    unnamed = frozenset(j for j, name in enumerate(layout.names or ()) if not name)
    return Cells(path, layout.separator, columns, layout.names is not None, read, [*layout.notes, *notes], options,
                 False, unnamed, layout.encoding, layout.header_line)


def layout_of(path: Path, options: TableOptions, names: Collection[str] = ()) -> Layout:
    """The layout of a file; see `read_cells` for the arguments."""
    encoding, notes = (options.encoding, []) if options.encoding else encoding_of(path)
    separator = {"tab": "\t", "space": _BLANK}.get(options.sep, options.sep)
    lines = list(islice(_lines(path, encoding), _SAMPLE))
    separator = separator or _separator([line for line in lines if line.strip()], path)
    head = list(islice(_parse(iter(lines), separator), _SAMPLE))
    if not head:
        raise InputError(f"{quote(path)} is empty; expected one line for each row")
    layout = _skip_preamble(Layout(encoding, separator, notes=tuple(notes)), head)
    return _read_header(layout, [row for row in head if not _skips(layout, row)], path, options.header, names)


def _read_columns(path: Path, layout: Layout, columns: Sequence[int]) -> dict[int, list[str]]:
    """The texts of some columns, by number, without the header."""
    with decoding(path, "a table"):
        rows = [[cells[j] for j in columns] for _, cells in _rows(path, layout)]
    return {j: [cells[k] for cells in rows] for k, j in enumerate(columns)}


def _rows(path: Path, layout: Layout, notes: list[str] | None = None) -> Iterator[Row]:
    """The rows of the table; text and empty rows at the end of the file are left out, with a note."""
    footer: list[Row] = []
    last = max([layout.header_line, *layout.skipped])
    for row in _parse(_lines(path, layout.encoding), layout.separator):
        if row[0] <= last and _skips(layout, row):
            continue
        below = any(not any(cells) for _, cells in footer) and _filled(row[1]) == 1 and _is_word("".join(row[1]))
        if layout.width > 1 and (below or not any(row[1])):
            footer.append(row)
            continue
        if len(row[1]) < layout.width or layout.width == 1:
            if _skips(layout, row):
                continue
            filled = [cell for cell in row[1] if cell]
            if layout.width > 1 and len(filled) == 1 and _is_word(filled[0]) and (
                    sum(any(cells) for _, cells in footer) < _MAX_FOOTER):
                footer.append(row)
                continue
        yield from footer
        footer = []
        yield row
    texts = [text for _, cells in footer for text in cells if text]
    if footer and notes is not None:
        notes.append(f"text below the table was left out ({texts[0][:40]!r})" if texts else
                     f"empty rows below the table were left out ({len(footer)})")


def _skips(layout: Layout, row: Row) -> bool:
    line, cells = row
    comment = cells[0].startswith("#") and (len(cells) != layout.width or layout.width == 1)
    return line in layout.skipped or line == layout.header_line or comment


def _lines(path: Path, encoding: str) -> Iterator[str]:
    try:
        file = open_text(path, encoding)
    except LookupError:
        raise InputError(f"got encoding={encoding!r}; expected one that Python knows, such as utf-8, cp1252 or "
                         f"mac_roman"
                         ) from None
    with file:
        while line := file.readline(_MAX_LINE + 1):
            if len(line) > _MAX_LINE:
                raise InputError(f"{quote(path)} has a line of over {_MAX_LINE:,} characters; expected one line for "
                                 f"each "
                                 "row, so save wide data as .npy")
            yield line


def _parse(lines: Iterator[str], separator: str) -> Iterator[Row]:
    """The rows that are not blank."""
    if separator == _BLANK:
        lines = (line.replace("\t", " ").strip(" ") for line in lines)
    if separator == _WIDE:
        lines = (re.sub(r"\t *| {2,}", "\x1f", line.strip(" ")) for line in lines)
        separator = "\x1f"
    strip = False

    def raw_lines() -> Iterator[str]:
        nonlocal strip
        for line in lines:
            strip |= " " in line or "\t" in line or not line.isascii()
            yield line

    reader = csv.reader(raw_lines(), delimiter=separator, strict=separator != _BLANK,
                        skipinitialspace=separator == _BLANK)
    for cells in reader:
        if (len(cells) > 1 or "".join(cells).strip()) and not (
                cells[0][:1] in _DRAWN and all(map(_RULE.fullmatch, cells))):
            yield reader.line_num, [cell.strip() for cell in cells] if strip else cells
        strip = False


def _separator(lines: Sequence[str], path: Path) -> str:
    """The separator that gives most lines the same number of cells, more than one."""
    if path.name.lower().split(".")[1:2] == ["tsv"] and any("\t" in line for line in lines):
        return "\t"
    scores = {separator: _agreement(lines, separator) for separator in _SEPARATORS}
    best = max(_SEPARATORS, key=scores.__getitem__)
    blanks = sum(any(map(_NUMBERS.fullmatch, line.split("\t"))) for line in lines)
    if best == "\t" and scores[_BLANK] > 0.49 and blanks > 0.5 * len(lines):
        return _BLANK
    return best if scores[best] > 0 else ","


def _agreement(lines: Sequence[str], separator: str) -> float:
    """The fraction of the lines that have the most frequent number of cells, 0 if that is one."""
    try:
        rows = [cells for _, cells in _parse(iter(lines), separator) if not cells[0].startswith("#")]
    except csv.Error:
        return 0.0
    counts = Counter(map(len, rows))
    width, times = max(counts.items(), key=lambda item: (item[1], item[0]), default=(0, 0))
    if width < 2:
        return 0.0
    if separator in (_BLANK, _WIDE) and not any(is_number(cell) for row in rows[1:] or rows for cell in row
                                       if len(row) == width):
        return 0.0
    return times / len(rows) * (0.5 if separator in (_BLANK, _WIDE) else 1.0)


def _skip_preamble(layout: Layout, head: Sequence[Row]) -> Layout:
    """The layout with the number of cells per row, without the lines before the table."""
    rows = [cells for _, cells in head if len(cells) > 1]
    counts = Counter(map(len, [cells for cells in rows if not cells[0].startswith("#")] or rows))
    width = max(counts, key=lambda n: (counts[n], n), default=1)
    start = next(k for k, (_, cells) in enumerate(head) if len(cells) in (width, width - 1) or width == 1
                 or (len(cells) == width + 1 and not cells[-1]))
    while start < min(len(head) - 1, _MAX_PREAMBLE) and width > 1 and len(head[start][1]) == width - 1 and (
            len(head[start + 1][1]) != width):
        start += 1
    if width > 2:
        full = next((k for k in range(start, min(len(head), _MAX_PREAMBLE)) if _filled(head[k][1]) > 1), start)
        start = full if _filled(head[full][1]) >= width - 1 and any(map(_is_word, head[full][1])) else start
    start, comments = _named_comment(head, start, width)
    skipped = [line for line, _ in head[:start]]
    others = len(skipped) - comments
    note = (f"lines before the table were left out ({others})",) if others else ()
    return replace(layout, width=width, skipped=frozenset(skipped), notes=(*layout.notes, *note))


def _filled(cells: Sequence[str]) -> int:
    return sum(map(bool, cells))


def _named_comment(head: Sequence[Row], start: int, width: int) -> tuple[int, int]:
    """The first line of the table and the number of comments before it; a comment above numbers may be the header."""
    while start < len(head) - 1 and head[start][1][0].startswith("#"):
        names = len(head[start][1]) == width > 1 and not head[start + 1][1][0].startswith("#")
        if names and any(map(is_number, head[start + 1][1])) and not any(map(is_number, head[start][1])):
            break
        start += 1
    return start, sum(cells[0].startswith("#") for _, cells in head[:start])


def _read_header(layout: Layout, head: Sequence[Row], path: Path, choice: str, names: Collection[str]) -> Layout:
    """The layout with the names in the first line, if it has names, and without a line of units."""
    line, first = head[0]
    first = first[:-1] if len(first) == layout.width + 1 else first
    below = [cells for _, cells in head[1:] if len(cells) == layout.width]
    if len(first) == layout.width - 1 and below:  # names of rows, as R writes them, or an empty last cell
        first = [*first, ""] if not any(row[-1] for row in below) else ["", *first]
        names = names or first
    if len(first) != layout.width:  # the reader of rows names it
        return layout
    expected = choice == "auto" and bool(names) and 2 * sum(cell in names for cell in first) >= len(first)
    why = "" if expected or choice != "auto" else _why_data(first, below, quote(path))
    if choice == "no" or (choice == "auto" and why):
        return replace(layout, notes=(*layout.notes, *([why] if why else [])))
    notes, skipped = _header_notes(first, below) if choice == "auto" and not expected else [], layout.skipped
    first[0] = first[0].removeprefix("#").strip() if len(first) > 1 else first[0]
    if len(below) > 2 and (units := _units(below)):
        notes.append(f"the line below the names was left out ({', '.join(units[:4])})")
        skipped |= {head[1][0]}
    return replace(layout, names=tuple(first), header_line=line, skipped=skipped, notes=(*layout.notes, *notes))


def _why_data(first: Sequence[str], below: Sequence[Sequence[str]], name: str) -> str:
    """Why the first line is a row and not a header; "" if it is a header."""
    columns = [{cell for cell in column if cell} for column in zip(*below, strict=True)] or [set()] * len(first)
    numeric = [bool(column) and sum(map(is_number, column)) > 0.5 * len(column) for column in columns]
    names = [cell for cell, number in zip(first, numeric, strict=True) if number and not is_number(cell)
             and _is_word(cell)]
    numbers = [cell for cell in first if is_number(cell)]
    if not numbers:
        again = [cell for cell, column in zip(first, columns, strict=True) if cell and cell in column]
        return f"the first line is a row of the table ({again[0]!r} occurs again below)" if again and not names else ""
    if _are_names(first, columns) or (not first[0] and all(map(str.isdigit, first[1:]))):
        return ""
    if names and len(numbers) >= len(names):
        values = sum(is_number(cell) for cell, number in zip(first, numeric, strict=True) if number)
        if len(below) > 2 and values > 2 * len(names):
            return "the first line is a row of the table"
        raise InputError(f"the first line of {name} mixes numbers such as {quote(numbers[0])} with words such as "
                         f"{quote(names[0])}; expected a header of names or a row of numbers, so give header=yes or "
                         f"header=no")
    return "" if names else "the first line is a row of the table"


def _are_names(first: Sequence[str], columns: Sequence[Collection[str]]) -> bool:
    """Whether numbers in a first line are names: counted, or rising years with words that do not occur below."""
    rising = [float(cell) for cell in first[1:] if is_number(cell)]
    if not first[0] and columns[0] and len(rising) == len(first) - 1 > 3 and np.diff(rising).min() > 0:
        return True  # rising numbers above columns, and no name above those of the rows
    if len(first) > 2 and list(first) in ([str(j + k) for j in range(len(first))] for k in (0, 1)):
        return True
    numbers = [cell for cell in first if is_number(cell)]
    words = [(cell, column) for cell, column in zip(first, columns, strict=True) if not is_number(cell)]
    if len(numbers) < 2 or not words or not all(map(str.isdigit, numbers)) or any(cell in column for cell,
                                                                                  column in words):
        return False
    steps = set(np.diff([int(cell) for cell in numbers]).tolist())
    years = all(1000 <= int(cell) <= 2200 for cell in numbers)
    counted = steps == {1} and int(numbers[0]) in (0, 1)
    return min(steps) > 0 and (years or counted)


def _header_notes(first: Sequence[str], below: Sequence[Sequence[str]]) -> list[str]:
    """A note if the first line was not obviously the header."""
    if len(first) > 2 and all(map(is_number, first)):
        return ["the first line counts the columns and was read as a header"]
    if any(map(is_number, first)):
        return ["the first line was read as names, numbers among them"]
    numeric = any(is_number(cell) for row in below[:20] for cell in row)
    return [] if numeric or not below else ["the first line was read as names, because none of its words occurs again "
                                            "below"]


def _is_word(cell: str) -> bool:
    return any(c.isalpha() for c in cell) and cell.lower() not in ("na", "nan", "null", "none", "n/a")


def _units(below: Sequence[Sequence[str]]) -> list[str]:
    """The cells of a first row that holds words in every column of numbers, such as units; empty for other rows."""
    first, others = below[0], list(zip(*below[1:], strict=True))
    numeric = [j for j, column in enumerate(others) if any(column) and all(is_number(c) for c in column if c)]
    words = [first[j] for j in numeric]
    return words if words and all(map(_unlike_number, words)) and any(map(_is_word, words)) else []


def _unlike_number(cell: str) -> bool:
    return not any(c.isdigit() for c in cell)

