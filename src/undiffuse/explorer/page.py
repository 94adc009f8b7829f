"""The page as one self-contained HTML file, and links to its scenes."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from undiffuse.atomic_files import atomic
from undiffuse.errors import InputError
from undiffuse.explorer.bundle import bundle, sources
from undiffuse.explorer.mixtures import digits_data, mixtures, training_data

VIEWS = ("river", "cloud", "compare", "lab", "guidance", "question", "digits", "latent", "proof")


def page() -> str:
    """The page as HTML with style, data and script inside; it makes no network requests."""
    return Template(read("explorer.html")).substitute(css=read("explorer.css"), data=data(), script=script())


@cache
def script() -> str:
    """The script of the page."""
    return bundle(sources())


@cache
def data() -> str:
    """Mixtures, digits and scenes as JSON without "<", so that it cannot close its script element."""
    content = {"laws": mixtures(), "digits": digits_data(), "training": training_data(), "scenes": scenes()}
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")


def scenes() -> list[dict[str, str]]:
    """The ten scenes: name, summary and hash (the part of the address from # on)."""
    entries: list[dict[str, str]] = json.loads(read("scenes.json"))
    return entries


def scene_hash(text: str) -> str:
    """The part of the page's address from # on.

    Args:
        text: a scene number, a view, or the part of an address from # on.

    Raises:
        InputError: for any other text.
    """
    if text.isdecimal() and 1 <= int(text) <= len(scenes()):
        return scenes()[int(text) - 1]["hash"]
    if text in VIEWS:
        return f"#v=1&view={text}"
    if re.fullmatch(r"#?v=1&[\w=&.,:;|~%-]*", text, re.ASCII):
        return "#" + text.removeprefix("#")
    raise InputError(f"got scene {text[:60]!r}; expected a number from 1 to {len(scenes())}, a view "
                     f"({', '.join(VIEWS)}) or the part of a link from # on")


def read(name: str) -> str:
    """Text of a file in the folder `static`."""
    return (files("undiffuse.explorer") / "static" / name).read_text("utf-8")


def write_page(path: Path) -> Path:
    """Write the page to a file atomically and return its path; InputError unless its name ends in .html."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"got {path} for the page; expected a name that ends in .html")
    with atomic(path) as file:
        file.write(page().encode())
    return path


def url(view: str = "river", page: str = "explorer.html", **settings: Any) -> str:
    """The address of a scene, such as url("cloud", law="swiss", sde="vp:0.1,20", n=64).

    Args:
        view: a name in `VIEWS`.
        page: path of the page.
        settings: keys of the page's address; lists are joined by commas, booleans become 1 or 0.
    """
    pairs = (f"{key}={quote(_as_text(value), safe=',:;|~')}" for key, value in settings.items())
    return f"{page}#{'&'.join(('v=1', f'view={view}', *pairs))}"


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.5g}"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
