"""`undiffuse learn [list | open | run | check] [CHAPTER]`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def learn(action: Literal["list", "open", "run", "check"] = "list", chapter: str = "", /, *, out: Path = Path("."),
          solutions: bool = False) -> int:
    """The course: list its chapters, open one (a copy to work in), run it, or check a file with your answers.

    Args:
        action: What to do.
        chapter: A chapter such as c04, or your own copy c04_reverse_time.py.
        out: Folder for the copy (open) or for the pictures (run).
        solutions: Run or check the chapter with its solutions filled in.
    """
    from undiffuse.learn import chapters

    if action == "list":
        for key, file in chapters.chapters().items():
            print(f"{key}  {chapters.title(file.read_text('utf-8'))}")
        return 0
    if action == "open":
        print(*chapters.write(chapter, out), sep="\n")
        return 0
    outcome = chapters.run(chapter, out if action == "run" else None, solutions)
    marks = ("✓", "✗") if action == "check" and not outcome.code else ""
    print(*(line for line in outcome.text.splitlines() if line.startswith(marks)), sep="\n")
    print(f"{len(outcome.passed)} right, {len(outcome.failed)} to do")
    return 1 if outcome.failed or outcome.code else 0
