"""Bundles plain ES modules into one script: every module becomes a function scope, dependencies first.

The page, its worker, the widget and the tests all run this script, `function explorer() { ...; return main; }`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files

_IMPORT = re.compile(r'^import (?:\{(?P<names>[^}]*)\}|\* as (?P<all>\w+)) from "\./(?P<file>[\w./]+)";\n', re.M)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:const|let|class|function)\*? *(\w+))", re.M)
_NAME = re.compile(r"^export (?:async )?(?:const|let|class|function\*?) +(\w+)", re.M)


def sources() -> dict[str, str]:
    """Text of the page's ES modules, by file name."""
    folder = files("undiffuse.explorer") / "static" / "js"
    return {file.name: file.read_text("utf-8") for file in folder.iterdir() if file.name.endswith(".js")}


def bundle(modules: Mapping[str, str], entry: str = "main.js") -> str:
    """One script with every module that `entry` imports, each once.

    Args:
        modules: source text by file name.
        entry: the module whose exports the script returns.

    Raises:
        ValueError: if modules import each other in a circle.
    """
    scopes = (f"const {_scope(name)} = (() => {{\n{_inner(modules[name])}}})();\n" for name in order(modules, entry))
    return f'function explorer() {{\n"use strict";\n{"".join(scopes)}return {_scope(entry)};\n}}\n'


def order(modules: Mapping[str, str], entry: str) -> list[str]:
    """Names of `entry` and the modules it imports, dependencies first; raises ValueError for a circular import."""
    done: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(f"modules import each other in a circle: {' -> '.join((*above, name))}")
        for match in _IMPORT.finditer(modules[name]):
            visit(match["file"], (*above, name))
        if name not in done:
            done.append(name)

    visit(entry, ())
    return done


def _scope(name: str) -> str:
    return "$" + re.sub(r"\W", "_", name.removesuffix(".js"))


def _inner(text: str) -> str:
    """A module as a function body: imports become constants, exports the return value; comment lines are dropped."""
    body = _EXPORT.sub("", _IMPORT.sub(_constants, text))
    code = "\n".join(line.lstrip() for line in body.splitlines() if line.strip() and not line.lstrip().startswith("//"))
    return f"{code}\nreturn {{{', '.join(_NAME.findall(text))}}};\n"


def _constants(match: re.Match[str]) -> str:
    scope = _scope(match["file"])
    if match["all"]:
        return f"const {match['all']} = {scope};\n"
    return f"const {{{match['names'].replace(' as ', ': ')}}} = {scope};\n"
