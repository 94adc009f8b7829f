"""Writes the chapters as notebooks with the outputs of a solved run; what has not changed is not run again.

UNDIFFUSE_CHAPTERS=unrun leaves the outputs out, for those who work on the text.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import undiffuse
from undiffuse.course import chapters


def write(out: Path) -> None:
    """`course/*.ipynb`, and the list of chapters."""
    out.mkdir(exist_ok=True)
    if os.environ.get("UNDIFFUSE_CHAPTERS") == "unrun":
        for file in chapters.chapters().values():
            found = chapters.cells(file.read_text("utf-8"))
            (out / f"{file.stem}.ipynb").write_text(_linked(chapters.notebook(found)), "utf-8")
        return
    source = _digest(Path(undiffuse.__file__).parent)
    for file in chapters.chapters().values():
        target, mark = out / f"{file.stem}.ipynb", out / f".{file.stem}.done"
        state = hashlib.sha256(source + file.read_bytes()).hexdigest()
        if not target.exists() or not mark.exists() or mark.read_text() != state:
            from render import execute

            target.write_text(_linked(execute(file, solutions=True).notebook()), "utf-8")
            mark.write_text(state)


def _linked(notebook: str) -> str:
    """With links that lead from `course/`, where the chapter itself is in `tutorials/`."""
    return notebook.replace("](../docs/", "](../").replace('href=\\"explorer.html', 'href=\\"../scenes/explorer.html')


def _digest(package: Path) -> bytes:
    """What the outputs depend on besides the chapter: the package."""
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.digest()
