"""From papers to code: an index built from the references in the docstrings."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import undiffuse

SRC = Path(undiffuse.__file__).parent
HEAD = """# From papers to code

The docstring of every function names its paper and equation. This page lists the functions by paper.

| paper | where it is used |
|---|---|
"""
_CITATION = re.compile(r"Reference: (.*?)(?:\n\s*\n|\Z)", re.S)
_LETTERS = "\\w'’\\-áàçéèëíñóôöøüřćčžšń"
_KEY = re.compile(rf"(?P<who>[A-ZÀ-Þ][{_LETTERS}]*(?:(?:, | and | et al\.?)[ .{_LETTERS}]*?)?) \((?P<year>\d{{4}})")
_DETAIL = re.compile(r"(?:eqs?\.|algorithms?|sections?|appendix|tables?|theorems?) "
                     r"[A-Z\d][\w.]*(?:(?:, | and |-|–)\d[\w.]*)*")


def write(page: Path) -> None:
    """Write the page."""
    rows = ["| {} | {} |\n".format(paper, "<br>".join(places)) for paper, places in sorted(index().items())]
    page.write_text(HEAD + "".join(rows), "utf-8")


def index() -> dict[str, list[str]]:
    """Names of code by paper, "Song et al. (2021)"."""
    places: dict[str, list[str]] = defaultdict(list)
    for file in sorted(SRC.rglob("*.py")):
        module = ".".join(file.relative_to(SRC.parent).with_suffix("").parts).removesuffix(".__init__")
        for name, reference in references(ast.parse(file.read_text("utf-8"))):
            where = f"`{module}{'.' + name if name else ''}`"
            keys = list(_KEY.finditer(reference))
            ends = [*(key.start() for key in keys[1:]), len(reference)][-len(keys):] if keys else []
            for match, end in zip(keys, ends, strict=True):
                detail = _DETAIL.search(reference, match.end(), end)
                entry = where + (f" ({detail[0].rstrip('.')})" if detail else "")
                key = f"{match['who'].strip()} ({match['year']})"
                if entry not in places[key]:
                    places[key].append(entry)
    return dict(places)


def references(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The references of a file by qualified name; "" is the module."""
    todo: list[tuple[str, ast.AST]] = [("", tree)]
    while todo:
        name, node = todo.pop()
        for match in _CITATION.finditer(ast.get_docstring(node) or ""):  # type: ignore[arg-type]
            yield name, " ".join(match[1].split())
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
                todo.append((f"{name}.{child.name}".strip("."), child))
