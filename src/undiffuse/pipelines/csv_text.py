"""The text of a table with some cells replaced; quotes, spaces and line ends stay as they are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from undiffuse.data.text_files import open_text
from undiffuse.errors import InputError, quote
from undiffuse.transforms.table_cells import Cells


@dataclass(frozen=True)
class Text:
    """The text of a table.

    Args:
        separator: separator of the cells.
        lines: raw cells of every line.
        ends: what follows each cell: the separator, or the end of the line.
        rows: number of the line of every row.
        header: number of the line of the header; None without one.
        encoding: encoding of the file.
    """

    separator: str
    lines: list[list[str]]
    ends: list[list[str]]
    rows: list[int]
    header: int | None
    encoding: str = "utf-8"

    @classmethod
    def of(cls, cells: Cells) -> Text:
        """The text of the file of these cells, or of a .csv with them; InputError if its lines are not those read."""
        if not cells.separator:
            texts = cells.texts(range(len(cells.columns)))
            rows = zip(*(texts[j] for j in range(len(cells.columns))), strict=True)
            lines = [[cell(text, ",") for text in row] for row in (cells.columns, *rows)]
            ends = [[*[","] * (len(line) - 1), "\n"] for line in lines]
            return cls(",", lines, ends, list(range(1, len(lines))), 0)
        encoding = cells.encoding.removesuffix("-sig")
        with open_text(cells.path, encoding) as file:
            lines, ends = split(file.read(), cells.separator)
        number = dict(zip(accumulate(map(_line_ends, lines)), range(len(lines)),
                          strict=True))
        numbers = [number.get(line, -1) for line in cells.lines]
        if any(k < 0 or len(lines[k]) != len(cells.columns) for k in numbers):
            raise InputError(f"{quote(cells.path)} has unusually quoted cells; save it again from a "
                             "spreadsheet")
        return cls(cells.separator, lines, ends, numbers, number[cells.header_line] if cells.header_line else None,
                   encoding)

    def filled(self, cells: Mapping[tuple[int, int], str], columns: Sequence[str] = (),
               values: Mapping[tuple[int, str], str] | None = None) -> bytes:
        """The text with other cells, encoded like the file.

        Args:
            cells: new text of cells, by row and column.
            columns: names of additional columns on the right.
            values: text of their cells, by row and name; others are empty.
        """
        lines, ends = [list(line) for line in self.lines], [list(end) for end in self.ends]
        for (row, column), text in cells.items():
            lines[self.rows[row]][column] = text
        more = {line: [(values or {}).get((row, name), "") for name in columns] for row, line in enumerate(self.rows)}
        if self.header is not None:
            more[self.header] = [cell(name, self.separator) for name in columns]
        for line, added in more.items():
            lines[line] += added
            ends[line][-1:-1] = [self.separator] * len(added)
        return "".join(c + after for line, end in zip(lines, ends, strict=True)
                       for c, after in zip(line, end, strict=True)).encode(self.encoding)


def split(text: str, separator: str) -> tuple[list[list[str]], list[list[str]]]:
    """The raw cells of every line, and what follows each.

    The separator " " is any number of spaces and tabs, "  " at least two spaces or a tab.
    """
    blank = not separator.strip(" ")
    start = tail = r"[ \t]*" if blank else ""
    blanks = {" ": (r"[^ \t\r\n]", r"[ \t]+"), "  ": (r"(?:[^ \t\r\n]| (?! |\t|\r|\n))", r"(?:\t *| {2,})")}
    other, between = blanks.get(separator, (rf"[^{re.escape(separator)}\r\n]", re.escape(separator)))
    field = re.compile(rf'({start}(?:"(?:[^"]|"")*"{other}*|{other}*))({tail}(?:\r\n|\n|\r|\Z)|{between})')
    lines, ends, line, following = list[list[str]](), list[list[str]](), list[str](), list[str]()
    for match in field.finditer(text):
        if match.start() == len(text) and not line:
            break
        line.append(match[1])
        following.append(match[2])
        if match[2][-1:] in ("\r", "\n") or (match.end() == len(text) and (blank or not match[2])):
            lines.append(line)
            ends.append(following)
            line, following = [], []
    return lines, ends


def cell(text: str, separator: str) -> str:
    """A text as a cell, quoted if necessary."""
    special = any(c in text for c in (separator, '"', "\n", "\r")) or text != text.strip()
    return '"' + text.replace('"', '""') + '"' if special else text


def _line_ends(line: Sequence[str]) -> int:
    """How many lines of the file a line of cells takes."""
    text = "".join(line)
    return text.count("\n") + text.count("\r") - text.count("\r\n") + 1
