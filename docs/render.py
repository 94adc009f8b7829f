"""Run chapters cell by cell and collect printed text and figures as notebook outputs."""

from __future__ import annotations

import ast
import contextlib
import io
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from undiffuse.course import chapters
from undiffuse.course.helpers import SceneLink
from undiffuse.course.plots import PlotImage


@dataclass
class Executed:
    """A chapter after a run: cells, outputs by cell number, figures, scenes, printed text, CPU seconds."""

    cells: list[chapters.NotebookCell]
    outputs: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    pictures: list[PlotImage] = field(default_factory=list)
    scenes: list[str] = field(default_factory=list)
    printed: str = ""
    seconds: float = 0.0

    def notebook(self) -> str:
        """The student's cells with the outputs of this run."""
        return chapters.notebook(self.cells, self.outputs)


def execute(path: Path, solutions: bool) -> Executed:
    """Run a chapter in a new namespace, with blanks or solved; an error in a cell is raised."""
    content = chapters.cells(path.read_text("utf-8"))
    done, space, start = Executed(content), {"__name__": "__main__"}, time.process_time()
    for number, cell in enumerate(chapters.with_solutions(content) if solutions else content):
        if cell.kind == "code":
            printed, value = run_cell(cell.text, space, f"{path.name}[{number}]")
            done.printed += printed
            done.outputs[number] = list(outputs(printed, value, done))
    done.seconds = time.process_time() - start
    return done


def run_cell(text: str, space: dict[str, Any], name: str) -> tuple[str, Any]:
    """Printed text of a cell, and the value of its last line if it is an expression."""
    tree, value, stream = ast.parse(text, name), None, io.StringIO()
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(stream):
        exec(compile(tree, name, "exec"), space)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval"), space)
    return stream.getvalue(), value


def outputs(printed: str, value: Any, done: Executed):  # type: ignore[no-untyped-def]
    """Notebook outputs: a stream, and the figure or link."""
    if printed:
        yield {"output_type": "stream", "name": "stdout", "text": printed.splitlines(keepends=True)}
    if isinstance(value, SceneLink):
        done.scenes.append(value.url)
    if isinstance(value, PlotImage):
        done.pictures.append(value)
    if isinstance(value, PlotImage | SceneLink):
        yield {"output_type": "display_data", "metadata": {}, "data": value._repr_mimebundle_()}
