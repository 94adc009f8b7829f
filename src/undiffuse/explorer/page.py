"""The page as one file that needs no other, and addresses of its scenes."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from undiffuse.data.writers import atomic
from undiffuse.errors import InputError
from undiffuse.explorer.bundle import bundle, sources
from undiffuse.explorer.laws import digits_data, laws, training_data

VIEWS = ("river", "cloud", "compare", "lab", "guidance", "question", "digits", "latent", "proof")


def page() -> str:
    """The whole page as HTML: style, laws, digits and script inside, no request to anywhere."""
    return Template(read("explorer.html")).substitute(css=read("explorer.css"), data=data(), script=script())


@cache
def script() -> str:
    """The script of the page."""
    return bundle(sources())


@cache
def data() -> str:
    """What the page knows of laws and digits, as JSON that cannot close its element."""
    known = {"laws": laws(), "digits": digits_data(), "training": training_data(), "scenes": scenes()}
    return json.dumps(known, separators=(",", ":")).replace("<", "\\u003c")


def scenes() -> list[dict[str, str]]:
    """The ten scenes: name, words, and the part of the address from # on."""
    found: list[dict[str, str]] = json.loads(read("scenes.json"))
    return found


def scene_hash(text: str) -> str:
    """The part of an address from # on, for a scene's number, a view, or such a part itself."""
    if text.isdecimal() and 1 <= int(text) <= len(scenes()):
        return scenes()[int(text) - 1]["hash"]
    if text in VIEWS:
        return f"#v=1&view={text}"
    if re.fullmatch(r"#?v=1&[\w=&.,:;|~%-]*", text, re.ASCII):
        return "#" + text.removeprefix("#")
    raise InputError(f"got scene {text[:60]!r}; expected a number from 1 to {len(scenes())}, a view "
                     f"({', '.join(VIEWS)}) or the part of a link from # on")


def read(name: str) -> str:
    """A file of the page's folder."""
    return (files("undiffuse.explorer") / "static" / name).read_text("utf-8")


def write_page(path: Path) -> Path:
    """Write the page to a file, whole or not at all, and return its path."""
    with atomic(path) as file:
        file.write(page().encode())
    return path


def url(view: str = "river", page: str = "explorer.html", **settings: Any) -> str:
    """The address of a scene, such as url("cloud", law="swiss", sde="vp:0.1,20", n=64).

    settings: the keys that the page shows in its address; lists are joined by commas, truth is 1 or 0.
    """
    written = (f"{key}={quote(_written(value), safe=',:;|~')}" for key, value in settings.items())
    return f"{page}#{'&'.join(('v=1', f'view={view}', *written))}"


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.5g}"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
