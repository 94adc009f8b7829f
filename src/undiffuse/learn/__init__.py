"""The course's own tools: chapters as files, checks that say what went wrong, and its pictures."""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "check": "exercises", "verdict": "checking",
    "normals": "draws",
    "Picture": "picture", "panels": "picture", "film": "picture", "finished": "picture",
    "river": "pictures", "clouds": "pictures", "curves": "pictures", "arrows": "pictures", "histograms": "pictures",
    "images": "pictures", "paths": "pictures", "journey": "pictures",
    "scene": "scenes", "captions": "words", "fit": "fitting", "chapters": "chapters",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """The name, imported from the file that owns it."""
    if name not in _HOME:
        raise AttributeError(f"module 'undiffuse.learn' has no attribute {name!r}")
    module = importlib.import_module(f"undiffuse.learn.{_HOME[name]}")
    return module if name == "chapters" else getattr(module, name)
