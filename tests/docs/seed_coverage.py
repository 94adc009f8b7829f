"""Checks coverage.md: every item of the source documents is listed once, and every place that it names exists."""

from __future__ import annotations

import contextlib
import importlib
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DOCS = ROOT / "docs"
COUNTS = {"S0": 48, "S1": 41, "S2": 47, "S3": 35, "S4": 20}
ITEMS = [f"{source}.{k}" for source, n in COUNTS.items() for k in range(1, n + 1)]


def table() -> dict[str, list[str]]:
    """The places of every item."""
    rows = re.findall(r"^\| (S\d\.\d+) \| [^|]+ \| ([^|]+) \|$", (HERE / "coverage.md").read_text("utf-8"), re.M)
    twice = {item for item, _ in rows if [other for other, _ in rows].count(item) > 1}
    if twice:
        raise SystemExit(f"listed twice: {', '.join(sorted(twice))}")
    return {item: places.split() for item, places in rows}


def complaint(place: str) -> str | None:
    """What is wrong with a place of an item."""
    if re.fullmatch(r"C\d+", place):
        return None if list((ROOT / "tutorials").glob(f"c{int(place[1:]):02d}_*.py")) else "no such chapter"
    if re.fullmatch(r"P\d+", place):
        pages = "".join(page.read_text("utf-8") for page in (DOCS / "theory").glob("*.md"))
        return None if f"\n## {place} · " in pages and f"({place.lower()})=" in pages else "no such statement"
    if re.fullmatch(r"D\d+", place):
        return None if f"\n### {place} · " in (DOCS / "museum.md").read_text("utf-8") else "no such exhibit"
    if place.startswith("page:"):
        return None if (DOCS / place[5:]).is_file() else "no such page"
    if place.startswith("tests/"):
        return _test(*place.partition("::")[::2])
    return _name(place)


def _test(file: str, name: str) -> str | None:
    path = ROOT / file
    if not path.is_file():
        return "no such test file"
    return None if not name or f"def {name}(" in path.read_text("utf-8") else "no such test"


def _name(place: str) -> str | None:
    """A name of the library, `ud.x` or `undiffuse.module.x`."""
    parts = place.replace("ud.", "undiffuse.", 1).split(".") if place.startswith("ud.") else place.split(".")
    if parts[0] != "undiffuse":
        return "this is no place"
    for k in range(len(parts), 0, -1):  # the longest part that is a module, then what is in it
        with contextlib.suppress(ImportError, AttributeError):
            thing: Any = importlib.import_module(".".join(parts[:k]))
            for part in parts[k:]:
                thing = getattr(thing, part)
            return None
    return "no such name"


def problems() -> list[str]:
    """Everything that is wrong, a line each."""
    found = table()
    lines = [f"{item}: missing" for item in ITEMS if item not in found]
    lines += [f"{item}: no such item" for item in found if item not in ITEMS]
    for item, places in found.items():
        lines += [f"{item}: {place}: {wrong}" for place in places if (wrong := complaint(place))]
    return lines
