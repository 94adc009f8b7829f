"""Plain ES modules to one script: every module becomes a function's scope, in the order in which they need each other.

The page, its worker, the widget and the tests all run this one text, `function explorer() { ...; return main; }`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files

_IMPORT = re.compile(r'^import (?:\{(?P<names>[^}]*)\}|\* as (?P<all>\w+)) from "\./(?P<file>[\w./]+)";\n', re.M)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:const|let|class|function)\*? *(\w+))", re.M)
_NAME = re.compile(r"^export (?:async )?(?:const|let|class|function\*?) +(\w+)", re.M)


def sources() -> dict[str, str]:
    """The modules of the page by file name."""
    folder = files("undiffuse.explorer") / "static" / "js"
    return {file.name: file.read_text("utf-8") for file in folder.iterdir() if file.name.endswith(".js")}


def bundle(modules: Mapping[str, str], entry: str = "main.js") -> str:
    """The script that has every module that `entry` needs, each once, and returns what `entry` exports."""
    scopes = (f"const {_scope(name)} = (() => {{\n{_inner(modules[name])}}})();\n" for name in order(modules, entry))
    return f'function explorer() {{\n"use strict";\n{"".join(scopes)}return {_scope(entry)};\n}}\n'


def order(modules: Mapping[str, str], entry: str) -> list[str]:
    """The modules that `entry` needs, each after those that it imports; ValueError for a circle."""
    done: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(f"modules import each other in a circle: {' -> '.join((*above, name))}")
        for found in _IMPORT.finditer(modules[name]):
            visit(found["file"], (*above, name))
        if name not in done:
            done.append(name)

    visit(entry, ())
    return done


def _scope(name: str) -> str:
    return "$" + re.sub(r"\W", "_", name.removesuffix(".js"))


def _inner(text: str) -> str:
    """A module as the body of a function: imports become constants, exports what it returns; comment lines go."""
    body = _EXPORT.sub("", _IMPORT.sub(_constants, text))
    kept = "\n".join(line.lstrip() for line in body.splitlines() if line.strip() and not line.lstrip().startswith("//"))
    return f"{kept}\nreturn {{{', '.join(_NAME.findall(text))}}};\n"


def _constants(found: re.Match[str]) -> str:
    scope = _scope(found["file"])
    if found["all"]:
        return f"const {found['all']} = {scope};\n"
    return f"const {{{found['names'].replace(' as ', ': ')}}} = {scope};\n"
