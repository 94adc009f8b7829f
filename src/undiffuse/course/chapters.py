"""Chapters are files in the percent format: what a student opens, what solves them, and how they are run.

An exercise is a code cell whose title begins with "exercise"; where the student writes stands `...`. The solution is
the code block of the first folded "Solution" below it, and takes the cell's place when the chapter is run solved.
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

from undiffuse.errors import InputError

_MARK = re.compile(r"^# %%(?P<head>.*)$", re.M)
_SOLUTION = re.compile(r"<summary>Solution[^<]*</summary>\s*```python\n(?P<code>.*?)```", re.S)
_RESULT = re.compile(r"^([✓✗]) (c\d+\.\d+)", re.M)


@dataclass(frozen=True)
class NotebookCell:
    """A cell: kind "markdown" or "code", the title behind `# %%`, and its text without comment signs."""

    kind: str
    title: str
    text: str

    @property
    def exercise(self) -> bool:
        """Whether a student writes here."""
        return self.title.startswith("exercise")


def folder() -> Path:
    """Where the chapters are: beside the package in a checkout, inside it where it was installed."""
    beside = Path(__file__).parents[3] / "tutorials"
    return beside if beside.is_dir() else Path(__file__).parent / "tutorials"


def chapters() -> dict[str, Path]:
    """The files of the course by their short names c00, c01, ..."""
    return {file.stem[:3]: file for file in sorted(folder().glob("c[0-9][0-9]_*.py"))}


def find(name: str) -> Path:
    """The chapter of that name ("c4", "c04", "4"), or a file of the student's own; InputError if there is none."""
    if Path(name).suffix == ".py" and Path(name).is_file():
        return Path(name)
    known = chapters()
    number = re.fullmatch(r"[cC]?(\d{1,2})", name)
    key = f"c{int(number[1]):02d}" if number else name
    if key not in known:
        raise InputError(f"got {name!r}; expected a chapter ({', '.join(known)}) or a .py file of yours")
    return known[key]


def title(text: str) -> str:
    """The heading of a chapter."""
    found = re.search(r"^# # (.*)$", text, re.M)
    return found[1] if found else ""


def cells(text: str) -> list[NotebookCell]:
    """The cells of a file in the percent format."""
    marks = list(_MARK.finditer(text))
    ends = [m.start() for m in marks[1:]] + [len(text)]
    return [_cell(m["head"].strip(), text[m.end():end].strip("\n")) for m, end in zip(marks, ends, strict=True)]


def _cell(head: str, body: str) -> NotebookCell:
    if head.startswith("[markdown]"):
        return NotebookCell("markdown", "", "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.split("\n")))
    return NotebookCell("code", head, body)


def with_solutions(found: list[NotebookCell]) -> list[NotebookCell]:
    """The cells with every exercise replaced by the solution that is folded away below it."""
    out = list(found)
    for i, cell in enumerate(found):
        if cell.exercise:
            below = "\n".join(c.text for c in found[i + 1:] if c.kind == "markdown")
            solution = _SOLUTION.search(below)
            if solution is None:
                raise InputError(f"got an exercise without a solution below it: {cell.title}")
            out[i] = replace(cell, text=solution["code"].rstrip())
    return out


def script(found: list[NotebookCell]) -> str:
    """The code of the cells as a plain script."""
    return "\n\n".join(cell.text for cell in found if cell.kind == "code") + "\n"


def notebook(found: list[NotebookCell], outputs: dict[int, list[dict[str, Any]]] | None = None) -> str:
    """The cells as a Jupyter notebook (format 4.5), with the outputs of some of them."""
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"}}, "cells": [
            _entry(i, cell, (outputs or {}).get(i, [])) for i, cell in enumerate(found)]}, indent=1, ensure_ascii=False)


def _entry(number: int, cell: NotebookCell, outputs: list[dict[str, Any]]) -> dict[str, Any]:
    common = {"cell_type": cell.kind, "id": f"cell-{number}", "metadata": {},
              "source": cell.text.splitlines(keepends=True)}
    return common if cell.kind == "markdown" else {**common, "execution_count": None, "outputs": outputs}


def rewrite_links(text: str, out: Path) -> str:
    """A chapter whose links to the documentation lead there from the folder `out`, or are plain text without one."""
    docs = Path(__file__).parents[3] / "docs"
    if not docs.is_dir():
        return re.sub(r"\[([^\]]*)\]\(\.\./docs/[^)]*\)", r"\1", text)
    way = os.path.relpath(docs, out.resolve()).replace(os.sep, "/")
    return text.replace("](../docs/", f"]({way}/")


def write(name: str, out: Path) -> list[Path]:
    """Copies a chapter into a folder as .py and .ipynb for a student to work in; InputError rather than overwrite.

    The explorer, to which its last cell links, is written beside them.
    """
    from undiffuse.explorer import write_page

    source = find(name)
    text = rewrite_links(source.read_text("utf-8"), out)
    files = {out / source.name: text, out / f"{source.stem}.ipynb": notebook(cells(text))}
    if taken := [str(file) for file in files if file.exists()]:
        raise InputError(f"{' and '.join(taken)} are there already; choose another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        file.write_text(content, "utf-8")
    if not (out / "explorer.html").exists():
        write_page(out / "explorer.html")
    return list(files)


@dataclass(frozen=True)
class ChapterResult:
    """What a run printed, the checks that passed and failed, and its exit code."""

    text: str
    passed: tuple[str, ...]
    failed: tuple[str, ...]
    code: int


def run(name: str, figures: Path | None = None, solutions: bool = False) -> ChapterResult:
    """Runs a chapter or a student's file in a process of its own; its pictures go to `figures`."""
    found = cells(find(name).read_text("utf-8"))
    code = script(with_solutions(content) if solutions else found)
    env = {**os.environ, "PYTHONIOENCODING": "utf-8", "MPLBACKEND": "Agg"}
    if figures is not None:
        figures.mkdir(parents=True, exist_ok=True)
        env["UNDIFFUSE_FIGURES"] = str(figures.resolve())
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, encoding="utf-8", check=False)
    marks = _RESULT.findall(done.stdout)
    return ChapterResult(done.stdout + done.stderr, tuple(k for mark, k in marks if mark == "✓"),
                   tuple(k for mark, k in marks if mark == "✗"), done.returncode)
