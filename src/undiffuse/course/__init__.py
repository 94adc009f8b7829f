"""The course's own tools: chapters as files, checks that say what went wrong, and its pictures."""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "check": "exercises", "compare": "checking",
    **dict.fromkeys(("PlotImage", "panels", "animation", "plot_image", "river", "clouds", "curves", "arrows", "histograms",
                     "images", "trajectories", "animate_samples"), "plots"),
    **dict.fromkeys(("randn", "scene", "captions", "fit"), "helpers"),
    "chapters": "chapters",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """The name, imported from the file that owns it."""
    if name not in _HOME:
        raise AttributeError(f"module 'undiffuse.course' has no attribute {name!r}")
    module = importlib.import_module(f"undiffuse.course.{_HOME[name]}")
    return module if name == "chapters" else getattr(module, name)
