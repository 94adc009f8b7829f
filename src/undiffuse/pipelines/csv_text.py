"""The text of a table with some cells replaced; quotes, spaces and line ends stay as they are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from undiffuse.errors import InputError, quote
from undiffuse.transforms.table_schema import Cells


@dataclass(frozen=True)
class Text:
    """The text of a table.

    Args:
        separator: separator of the cells.
        lines: raw cells of every line.
        ends: end of every line.
        rows: number of the line of every row.
        header: number of the line of the header; None without one.
    """

    separator: str
    lines: list[list[str]]
    ends: list[str]
    rows: list[int]
    header: int | None

    @classmethod
    def of(cls, cells: Cells) -> Text:
        """The text of the file of these cells, or of a .csv with them; InputError if its lines are not those read."""
        if not cells.separator:
            texts = cells.texts(range(len(cells.columns)))
            rows = zip(*(texts[j] for j in range(len(cells.columns))), strict=True)
            lines = [[cell(text, ",") for text in row] for row in (cells.columns, *rows)]
            return cls(",", lines, ["\n"] * len(lines), list(range(1, len(lines))), 0)
        lines, ends = split(cells.path.read_bytes().decode(), cells.separator)
        full = [i for i, line in enumerate(lines) if len(line) > 1 or line[0].strip("\ufeff \t")]
        header, numbers = (full[0], full[1:]) if cells.header else (None, full)
        if len(numbers) != len(cells.lines) or any(len(lines[i]) != len(cells.columns) for i in numbers):
            raise InputError(f"{quote(cells.path)} has unusually quoted cells; save it again from a "
                             "spreadsheet")
        return cls(cells.separator, lines, ends, numbers, header)

    def filled(self, cells: Mapping[tuple[int, int], str], columns: Sequence[str] = (),
               values: Mapping[tuple[int, str], str] | None = None) -> str:
        """The text with other cells.

        Args:
            cells: new text of cells, by row and column.
            columns: names of additional columns on the right.
            values: text of their cells, by row and name; others are empty.
        """
        lines = [list(line) for line in self.lines]
        for (row, column), text in cells.items():
            lines[self.rows[row]][column] = text
        for row, line in enumerate(self.rows):
            lines[line] += [(values or {}).get((row, name), "") for name in columns]
        if self.header is not None:
            lines[self.header] += [cell(name, self.separator) for name in columns]
        return "".join(self.separator.join(line) + end for line, end in zip(lines, self.ends, strict=True))


def split(text: str, separator: str) -> tuple[list[list[str]], list[str]]:
    """The raw cells of every line, and the ends of the lines."""
    field = re.compile(rf'("(?:[^"]|"")*"[^{separator}\r\n]*|[^{separator}\r\n]*)({separator}|\r\n|\n|\r|\Z)')
    lines, ends, line = list[list[str]](), list[str](), list[str]()
    for match in field.finditer(text):
        if match.start() == len(text) and not line:
            break
        line.append(match[1])
        if match[2] != separator:
            lines.append(line)
            ends.append(match[2])
            line = []
    return lines, ends


def cell(text: str, separator: str) -> str:
    """A text as a cell, quoted if necessary."""
    special = any(c in text for c in (separator, '"', "\n", "\r")) or text != text.strip()
    return '"' + text.replace('"', '""') + '"' if special else text
