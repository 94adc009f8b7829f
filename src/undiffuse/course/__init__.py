"""Tools of the course whose chapters are in tutorials/.

chapters: list, copy, solve and run the chapter files; exercises, exercises_noise, exercises_score, exercises_use:
the checks of the answers, built on checking; plots: the figures; helpers: random numbers, a small training loop,
image captions, links to the explorer; pipeline_anatomy: the parts of a text-to-image pipeline.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "check": "exercises", "compare": "checking",
    **dict.fromkeys(("PlotImage", "panels", "animation", "plot_image", "river", "clouds", "curves", "arrows",
                     "histograms", "images", "trajectories", "animate_samples"), "plots"),
    **dict.fromkeys(("randn", "scene", "captions", "fit"), "helpers"),
    "chapters": "chapters",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import an attribute on first access."""
    if name not in _HOME:
        raise AttributeError(f"module 'undiffuse.course' has no attribute {name!r}")
    module = importlib.import_module(f"undiffuse.course.{_HOME[name]}")
    return module if name == "chapters" else getattr(module, name)
