"""The text of a table with some cells replaced, every other character as it was: quotes, spaces and line ends too."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from undiffuse.data.tables import Cells
from undiffuse.errors import InputError, quote


@dataclass(frozen=True)
class Text:
    """The text of a table: lines of raw cells, each line with its end, and the number of the line of every row."""

    separator: str
    lines: list[list[str]]
    ends: list[str]
    rows: list[int]
    header: int | None

    @classmethod
    def read(cls, path: Path, cells: Cells) -> Text:
        """The text of the file that gave these cells; InputError if its lines are not theirs."""
        lines, ends = split(path.read_bytes().decode(), cells.separator)
        full = [i for i, line in enumerate(lines) if len(line) > 1 or line[0].strip("\ufeff \t")]
        header, rows = (full[0], full[1:]) if cells.header else (None, full)
        if len(rows) != len(cells.lines) or any(len(lines[i]) != len(cells.columns) for i in rows):
            raise InputError(f"{quote(path)} quotes its cells in an unusual way; save it again from a spreadsheet")
        return cls(cells.separator, lines, ends, rows, header)

    @classmethod
    def of(cls, cells: Cells) -> Text:
        """The text of a .csv with these cells, which are of no text."""
        texts = cells.texts(range(len(cells.columns)))
        rows = zip(*(texts[j] for j in range(len(cells.columns))), strict=True)
        lines = [[cell(word, ",") for word in row] for row in (cells.columns, *rows)]
        return cls(",", lines, ["\n"] * len(lines), list(range(1, len(lines))), 0)

    def filled(self, cells: Mapping[tuple[int, int], str], more: Sequence[str] = (),
               beside: Mapping[tuple[int, str], str] | None = None) -> str:
        """The text with cells (row, column) replaced, and with columns `more` on the right, empty but for `beside`."""
        lines = [list(line) for line in self.lines]
        for (row, column), text in cells.items():
            lines[self.rows[row]][column] = text
        for row, line in enumerate(self.rows):
            lines[line] += [(beside or {}).get((row, name), "") for name in more]
        if self.header is not None:
            lines[self.header] += [cell(name, self.separator) for name in more]
        return "".join(self.separator.join(line) + end for line, end in zip(lines, self.ends, strict=True))


def split(text: str, separator: str) -> tuple[list[list[str]], list[str]]:
    """The raw cells of every line, and the ends of the lines."""
    field = re.compile(rf'("(?:[^"]|"")*"[^{separator}\r\n]*|[^{separator}\r\n]*)({separator}|\r\n|\n|\r|\Z)')
    lines, ends, line = list[list[str]](), list[str](), list[str]()
    for found in field.finditer(text):
        if found.start() == len(text) and not line:
            break
        line.append(found[1])
        if found[2] != separator:
            lines.append(line)
            ends.append(found[2])
            line = []
    return lines, ends


def cell(text: str, separator: str) -> str:
    """A cell of that text, in quotes if it has to be."""
    special = any(c in text for c in (separator, '"', "\n", "\r")) or text != text.strip()
    return '"' + text.replace('"', '""') + '"' if special else text
