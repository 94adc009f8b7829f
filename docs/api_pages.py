"""Writes one page per public module with the signatures and docstrings of its names, and their table of contents."""

from __future__ import annotations

import ast
from pathlib import Path

import undiffuse

SRC = Path(undiffuse.__file__).parent
GROUPS = {
    "Processes and exact distributions": ("sde", "processes", "mixture", "moments", "random", "ode"),
    "Models": ("model", "predictions", "guidance", "nets", "loss"),
    "Sampling": ("samplers", "samplers.registry", "samplers.exponential", "samplers.grid", "samplers.combinators",
                 "tuning"),
    "Likelihood and inverse problems": ("likelihood", "inverse", "inverse.operators", "metrics"),
    "Data": ("data", "transforms.base", "transforms.conditions", "tensors"),
    "Estimators": ("estimators",),
    "Training": ("experiment", "recipes", "training", "progress", "errors"),
    "Files, pages and the course": ("pipelines.impute", "pipelines.restore", "pipelines.score", "pipelines.verify",
                                    "report", "explorer", "course", "course.chapters", "course.plots"),
}


def write(out: Path) -> None:
    """`api/index.md` and a page per module."""
    out.mkdir(exist_ok=True)
    lines = ["# Python interface\n", "Everything below is typed; `import undiffuse as ud` gives the common names.\n"]
    for group, modules in GROUPS.items():
        lines += [f"## {group}\n", "| module | contents |\n|---|---|"]
        lines += [f"| [`undiffuse.{name}`]({name}.md) | {summary(name)} |" for name in modules]
        lines += ["", "```{toctree}\n:hidden:\n", *modules, "```\n"]
        for name in modules:
            (out / f"{name}.md").write_text(page(name), "utf-8")
    (out / "index.md").write_text("\n".join(lines), "utf-8")


def page(name: str) -> str:
    """The page of a module; a package shows the names that it exports."""
    options = ":members:\n   :show-inheritance:" + ("\n   :imported-members:" if is_package(name) else "")
    return f"# undiffuse.{name}\n\n```{{eval-rst}}\n.. automodule:: undiffuse.{name}\n   {options}\n```\n"


def is_package(name: str) -> bool:
    """Whether a module is a folder."""
    return (SRC / name.replace(".", "/")).is_dir()


def summary(name: str) -> str:
    """The first sentence of a module's docstring."""
    path = SRC / name.replace(".", "/")
    text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8")
    first = " ".join((ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0].split())
    return first.replace("|", "\\|")
