"""Write the chapters as notebooks with the outputs of a solved run; unchanged chapters are not run again.

UNDIFFUSE_CHAPTERS=unrun omits the outputs, for quick builds.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import undiffuse
from undiffuse.course import chapters


def write(out: Path) -> None:
    """Write `course/*.ipynb`."""
    out.mkdir(exist_ok=True)
    if os.environ.get("UNDIFFUSE_CHAPTERS") == "unrun":
        for file in chapters.chapters().values():
            content = chapters.cells(file.read_text("utf-8"))
            (out / f"{file.stem}.ipynb").write_text(_linked(chapters.notebook(content)), "utf-8")
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
    """The notebook with links relative to `course/` instead of `tutorials/`."""
    return notebook.replace("](../docs/", "](../").replace('href=\\"explorer.html', 'href=\\"../scenes/explorer.html')


def _digest(package: Path) -> bytes:
    """Digest of the package, on which the outputs depend in addition to the chapter."""
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.digest()
