"""Chapters: Python files in the percent format, which are listed, copied for a student, solved and run here.

An exercise is a code cell whose title begins with "exercise" and that contains blanks (`...`). Its solution is the
code block of the first folded "Solution" below it, which replaces the cell when a chapter is run with solutions.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from undiffuse.atomic_files import atomic_set
from undiffuse.errors import InputError

_MARK = re.compile(r"^# %%(?P<head>.*)$", re.M)
_SOLUTION = re.compile(r"<summary>Solution[^<]*</summary>\s*```python\n(?P<code>.*?)```", re.S)
_RESULT = re.compile(r"^([✓✗]) (c\d+\.\d+)", re.M)


@dataclass(frozen=True)
class NotebookCell:
    """A cell: its kind ("markdown" or "code"), the title after `# %%`, and its text without comment signs."""

    kind: str
    title: str
    text: str

    @property
    def exercise(self) -> bool:
        """Whether the cell is an exercise."""
        return self.title.startswith("exercise")


def folder() -> Path:
    """The folder of the chapters: `tutorials` of a checkout, else the copy inside the installed package."""
    checkout = Path(__file__).parents[3] / "tutorials"
    return checkout if checkout.is_dir() else Path(__file__).parent / "tutorials"


def chapters() -> dict[str, Path]:
    """The chapter files by short name (c00, c01, ...)."""
    return {file.stem[:3]: file for file in sorted(folder().glob("c[0-9][0-9]_*.py"))}


def find(name: str) -> Path:
    """The file of a chapter.

    Args:
        name: a chapter ("c4", "c04", "4"), or the path of a student's .py file.

    Raises:
        InputError: if there is no such chapter or file.
    """
    if Path(name).suffix == ".py" and Path(name).is_file():
        return Path(name)
    files = chapters()
    number = re.fullmatch(r"[cC]?(\d{1,2})", name)
    key = f"c{int(number[1]):02d}" if number else name
    if key not in files:
        raise InputError(f"got {name!r}; expected a chapter ({', '.join(files)}) or the path of a .py file")
    return files[key]


def title(text: str) -> str:
    """The heading of a chapter."""
    heading = re.search(r"^# # (.*)$", text, re.M)
    return heading[1] if heading else ""


def cells(text: str) -> list[NotebookCell]:
    """The cells of a file in the percent format."""
    headers = list(_MARK.finditer(text))
    ends = [m.start() for m in headers[1:]] + [len(text)]
    return [_cell(m["head"].strip(), text[m.end():end].strip("\n")) for m, end in zip(headers, ends, strict=True)]


def _cell(head: str, body: str) -> NotebookCell:
    if head.startswith("[markdown]"):
        lines = (line.removeprefix("#").removeprefix(" ") for line in body.split("\n"))
        return NotebookCell("markdown", "", "\n".join(lines))
    return NotebookCell("code", head, body)


def with_solutions(content: list[NotebookCell]) -> list[NotebookCell]:
    """The cells with every exercise replaced by its solution; raises InputError for an exercise without one."""
    out = list(content)
    for i, cell in enumerate(content):
        if cell.exercise:
            below = "\n".join(c.text for c in content[i + 1:] if c.kind == "markdown")
            solution = _SOLUTION.search(below)
            if solution is None:
                raise InputError(f"got {cell.title!r} without a solution; expected a folded Solution below it")
            out[i] = replace(cell, text=solution["code"].rstrip())
    return out


def script(content: list[NotebookCell]) -> str:
    """The code of the cells as a plain script."""
    return "\n\n".join(cell.text for cell in content if cell.kind == "code") + "\n"


def notebook(content: list[NotebookCell], outputs: dict[int, list[dict[str, Any]]] | None = None) -> str:
    """The cells as a Jupyter notebook (format 4.5); outputs: notebook outputs by cell number."""
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"}}, "cells": [
            _entry(i, cell, (outputs or {}).get(i, [])) for i, cell in enumerate(content)]},
        indent=1, ensure_ascii=False)


def _entry(number: int, cell: NotebookCell, outputs: list[dict[str, Any]]) -> dict[str, Any]:
    common = {"cell_type": cell.kind, "id": f"cell-{number}", "metadata": {},
              "source": cell.text.splitlines(keepends=True)}
    return common if cell.kind == "markdown" else {**common, "execution_count": None, "outputs": outputs}


def rewrite_links(text: str, out: Path) -> str:
    """The text with links to docs/ made relative to the folder `out`, or replaced by plain text if docs/ is missing."""
    docs = Path(__file__).parents[3] / "docs"
    if not docs.is_dir():
        return re.sub(r"\[([^\]]*)\]\(\.\./docs/[^)]*\)", r"\1", text)
    relative = os.path.relpath(docs, out.resolve()).replace(os.sep, "/")
    return text.replace("](../docs/", f"]({relative}/")


def write(name: str, out: Path) -> list[Path]:
    """Copy a chapter into a folder as .py and .ipynb, together with explorer.html, to which its last cell links.

    Args:
        name: the chapter, as in `find`.
        out: the folder.

    Returns:
        The two files of the chapter.

    Raises:
        InputError: if one of them exists already.
    """
    from undiffuse.explorer import write_page

    source = find(name)
    text = rewrite_links(source.read_text("utf-8"), out)
    files = {out / source.name: text, out / f"{source.stem}.ipynb": notebook(cells(text))}
    if existing := [str(file) for file in files if file.exists()]:
        raise InputError(f"{' and '.join(existing)} already exist; choose another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    with atomic_set(list(files)) as streams:
        for stream, content in zip(streams, files.values(), strict=True):
            stream.write(content.encode())
    if not (out / "explorer.html").exists():
        write_page(out / "explorer.html")
    return list(files)


@dataclass(frozen=True)
class ChapterResult:
    """Printed text, names of the passed and failed exercises, and exit code of a run."""

    text: str
    passed: tuple[str, ...]
    failed: tuple[str, ...]
    code: int


def run(name: str, figures: Path | None = None, solutions: bool = False) -> ChapterResult:
    """Run a chapter or a student's file in a separate process.

    Args:
        name: chapter or file, as in `find`.
        figures: folder for the figures; None: figures are not saved.
        solutions: replace every exercise by its solution.
    """
    content = cells(find(name).read_text("utf-8"))
    code = script(with_solutions(content) if solutions else content)
    env = {**os.environ, "PYTHONIOENCODING": "utf-8", "MPLBACKEND": "Agg"}
    if figures is not None:
        figures.mkdir(parents=True, exist_ok=True)
        env["UNDIFFUSE_FIGURES"] = str(figures.resolve())
    process = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, encoding="utf-8", check=False)
    results = _RESULT.findall(process.stdout)
    return ChapterResult(process.stdout + process.stderr, tuple(k for mark, k in results if mark == "✓"),
                   tuple(k for mark, k in results if mark == "✗"), process.returncode)
