"""`undiffuse learn [list | open | run | check] [CHAPTER]`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from undiffuse.errors import InputError


def learn(action: Literal["list", "open", "run", "check"] = "list", chapter: str = "", /, *, out: Path | None = None,
          solutions: bool = False, model: Path | None = None) -> int:
    """The course: list its chapters, open one (a copy to work in), run it, or check a file with your answers.

    Args:
        action: list, open, run or check.
        chapter: A chapter such as c04, or your own copy c04_reverse.py.
        out: Folder for the copy (open; this folder by default) or for the figures (run; named after the chapter by
            default).
        solutions: Run or check the chapter with its solutions filled in.
        model: Folder of a text-to-image pipeline of diffusers, for the chapter on latents.
    """
    from undiffuse.course import chapters

    if model is not None:
        if not (model / "model_index.json").is_file():
            raise InputError(f"got {model}; expected a folder with a pipeline (model_index.json)")
        os.environ["UNDIFFUSE_SD"] = str(model.resolve())
    if action == "list":
        return _list()
    if action == "open":
        source, notebook = chapters.write(chapter, out or Path("."))
        print(f"{source}\n{notebook}\nOpen one of them in an editor or in Jupyter, replace every ... by your answer,"
              f" and run:\nundiffuse learn check {source}")
        return 0
    place = (out or Path(chapters.find(chapter).stem)) if action == "run" else None
    outcome = chapters.run(chapter, place, solutions)
    prefixes = ("✓", "✗") if action == "check" and not outcome.code else ""
    print(*(line for line in outcome.text.splitlines() if line.startswith(prefixes)), sep="\n")
    if place is not None:
        print(f"figures: {', '.join(sorted(map(str, place.iterdir())))}")
    print(f"{len(outcome.passed)} right, {len(outcome.failed)} to do")
    return 1 if outcome.failed or outcome.code else 0


def _list() -> int:
    """Print the chapters and the first command."""
    from undiffuse.course import chapters

    for key, file in chapters.chapters().items():
        print(f"{key}  {chapters.title(file.read_text('utf-8'))}")
    print("\nStart with: undiffuse learn open c00 --out mine")
    return 0
