"""Writes the chapters as notebooks with the outputs of a solved run; what has not changed is not run again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import undiffuse
from undiffuse.learn import chapters


def write(out: Path) -> None:
    """`course/*.ipynb`, and the list of chapters."""
    out.mkdir(exist_ok=True)
    source = _digest(Path(undiffuse.__file__).parent)
    for file in chapters.chapters().values():
        target, mark = out / f"{file.stem}.ipynb", out / f".{file.stem}.done"
        state = hashlib.sha256(source + file.read_bytes()).hexdigest()
        if not target.exists() or not mark.exists() or mark.read_text() != state:
            from render import execute

            target.write_text(execute(file, solutions=True).notebook(), "utf-8")
            mark.write_text(state)


def _digest(package: Path) -> bytes:
    """What the outputs depend on besides the chapter: the package."""
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.digest()
