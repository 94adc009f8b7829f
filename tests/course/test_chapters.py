"""The chapters: solved they are right, with blanks they say so; short, with pictures; and the command learn."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from explorer.engine import evaluated
from torch import Tensor

from undiffuse import course
from undiffuse.cli import main
from undiffuse.course import chapters
from undiffuse.course.checking import BLANK
from undiffuse.course.exercises import CHECKS
from undiffuse.errors import InputError
from undiffuse.explorer.page import scene_hash

FILES = chapters.chapters()
ROOT = Path(__file__).resolve().parents[2]
PNG = b"\x89PNG"


def render() -> ModuleType:
    """docs/render.py, which runs chapters for the pages too."""
    spec = importlib.util.spec_from_file_location("render", ROOT / "docs" / "render.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["render"] = module
    spec.loader.exec_module(module)
    return module


def exercises(file: Path) -> list[str]:
    return [cell.title.split()[1] for cell in chapters.cells(file.read_text("utf-8")) if cell.exercise]


def code_lines(text: str) -> int:
    return sum(1 for line in text.splitlines() if line.strip() and not line.strip().startswith("#"))


def test_there_are_twelve_and_every_check_belongs_to_one() -> None:
    assert list(FILES) == [f"c{k:02d}" for k in range(12)]
    assert sorted(k for file in FILES.values() for k in exercises(file)) == sorted(CHECKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FILES))
def test_a_solved_chapter_is_right_and_quick_and_shows_something(name: str) -> None:
    done = render().execute(FILES[name], solutions=True)
    marks = [line.split(":")[0] for line in done.printed.splitlines() if line[:1] in ("✓", "✗")]
    assert marks == [f"✓ {k}" for k in exercises(FILES[name])]
    assert done.seconds < 90
    assert done.pictures and all(p.data[:4] in (PNG, b"GIF8") and len(p.data) > 4000 for p in done.pictures)
    assert all(p.alt for p in done.pictures)


@pytest.mark.parametrize("name", list(FILES))
def test_blanks_are_noticed_with_a_sentence_that_helps(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for cell in chapters.cells(FILES[name].read_text("utf-8")):
        if cell.exercise:
            space: dict[str, object] = {}
            exec("import torch\nimport undiffuse as ud\nfrom undiffuse import course\n" + cell.text, space)
            said = capsys.readouterr().out
            blank = any(isinstance(node, ast.Constant) and node.value is ... for node in ast.walk(ast.parse(cell.text)))
            assert said.startswith(f"✗ {cell.title.split()[1]}: ") and (f": {BLANK}\n" in said) is blank, said


@pytest.mark.parametrize("name", list(FILES))
def test_a_chapter_is_short_public_and_has_a_goal(name: str) -> None:
    text = FILES[name].read_text("utf-8")
    found = chapters.cells(text)
    shown = [cell for cell in found if cell.kind == "code" and not cell.exercise]
    assert sum(code_lines(cell.text) for cell in shown) <= 40
    assert all(code_lines(cell.text) <= 12 for cell in chapters.with_solutions(found) if cell.exercise)
    prose = "\n".join(cell.text for cell in found if cell.kind == "markdown")
    assert "**Goal.**" in prose and "<summary>" in prose and "minutes" in prose
    for node in ast.walk(ast.parse(chapters.script(found))):
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_") or node.attr.endswith("__"), node.attr
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("undiffuse"):
            assert "._" not in str(node.module)


def test_a_notebook_has_the_same_cells() -> None:
    for file in FILES.values():
        found = chapters.cells(file.read_text("utf-8"))
        made = json.loads(chapters.notebook(found))
        assert made["nbformat"] == 4 and len(made["cells"]) == len(found)
        assert ["".join(cell["source"]) for cell in made["cells"]] == [cell.text for cell in found]


@pytest.mark.slow
def test_a_chapter_is_opened_once_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["learn", "open", "c00", "--out", str(tmp_path)]) == 0
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["c00_start.ipynb", "c00_start.py", "explorer.html"]
    assert "undiffuse learn check" in capsys.readouterr().out
    assert main(["learn", "open", "0", "--out", str(tmp_path)]) == 2  # not over a student's work
    mine = tmp_path / "mine.py"
    mine.write_text("# %%\nfrom undiffuse import course\n\n# %% exercise c0.1\ncourse.check('c0.1', 1.36)\n"
                    "course.check('c2.3', lambda B: 0.5)\n", "utf-8")
    capsys.readouterr()
    assert main(["learn", "check", str(mine)]) == 1
    said = capsys.readouterr().out
    assert "✓ c0.1" in said and "✗ c2.3: got 0.5" in said and "1 right, 1 to do" in said
    assert main(["learn", "check", "c77"]) == 2
    assert main(["learn"]) == 0 and capsys.readouterr().out.count("C1") >= 2


def test_links_of_a_copy_lead_to_the_documentation(tmp_path: Path) -> None:
    copies = chapters.write("c04", tmp_path / "mine")
    links = re.findall(r"\]\(([^)]*docs/[^)]*)\)", copies[0].read_text("utf-8"))
    assert len(links) >= 3 and all((tmp_path / "mine" / link).exists() for link in links)
    assert chapters.rewrite_links("see [P1](../docs/theory/score.md), now", tmp_path).startswith("see [P1](")


def test_a_chapter_that_was_installed_without_the_documentation_has_no_dead_links(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chapters, "__file__", str(tmp_path / "a" / "b" / "c" / "d.py"))
    assert chapters.rewrite_links("see [P1](../docs/theory/score.md), now", tmp_path) == "see P1, now"


@pytest.mark.parametrize("name", list(FILES))
def test_the_last_cell_opens_a_scene_that_the_explorer_knows(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    last = chapters.cells(FILES[name].read_text("utf-8"))[-1]
    shown = eval(last.text, {"course": course})
    command = capsys.readouterr().out
    hash = shown.url.removeprefix("explorer.html")
    assert f"undiffuse explore '{hash[1:]}'" in command and scene_hash(hash[1:]) == hash
    bundle = shown._repr_mimebundle_()
    assert "Open this scene" in bundle["text/html"] and bundle["text/plain"] == shown.url
    parsed = evaluated("(model, hash) => model.parse(hash)", hash)
    assert parsed["ignored"] == [] and f"view={parsed['state']['view']}" in hash


@pytest.mark.slow
def test_pictures_go_where_a_script_is_told_to_put_them(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("# %%\nfrom undiffuse import course\ncourse.curves({'a': ([0, 1], [0, 1])})\n", "utf-8")
    outcome = chapters.run(str(mine), tmp_path / "out")
    assert outcome.code == 0 and (tmp_path / "out" / "01.png").read_bytes().startswith(PNG)


@pytest.mark.slow
def test_the_command_says_where_the_pictures_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    code = "# %%\nfrom undiffuse import course\ncourse.curves({'a': ([0, 1], [0, 1])})\n"
    (tmp_path / "mine.py").write_text(code, "utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["learn", "run", "mine.py"]) == 0
    assert str(Path("mine") / "01.png") in capsys.readouterr().out and (tmp_path / "mine" / "01.png").exists()


def over_a_small_number(x: Tensor, w: Tensor, mu: Tensor, var: float) -> Tensor:
    """The mistake of exhibit D4."""
    p = w * torch.exp(-0.5 * (x[:, None] - mu) ** 2 / var)
    return (p * (mu - x[:, None]) / var).sum(1) / (p.sum(1) + 1e-8)


@pytest.mark.parametrize("exercise, answer, hint", [
    ("c0.1", 2.0, "multiplies the variance"), ("c2.3", lambda B: (1 - 2.718281828**-B) ** 0.5, "VP"),
    ("c4.2", lambda f, g, s: f - 0.5 * g**2 * s, "ODE"), ("c4.1", (1, 1), "pushes away"),
    ("c4.3", lambda f, g, s, e: f - 0.5 * (1 + e) * g**2 * s, "squared"),
    ("c6.1", lambda v, x, t, s: x + (s - t) * v(x, t), "order is 1"),
    ("c6.2", lambda r, z, s, a: 2 * a * (r / s) ** 2, "d times"), ("c7.3", lambda a, b: a - b, "sign"),
    ("c8.3", lambda e, bar: -e / (1 - bar), "σ²"), ("c8.4", lambda b: b / 2, "limit"),
    ("c9.2", lambda u, c, w: c + w * (c - u), "plain conditional"),
    ("c10.2", lambda J, A, e, s, C: J.T @ A.T @ e / s**2, "DPS"), ("c11.3", lambda x, t: 1 / 0, "ZeroDivisionError"),
    ("c0.1", "1.36", "expected a number"), ("c0.1", 1.7, "square each factor"), ("c1.1", lambda *a: None, "return"),
    ("c1.2", lambda b, dt: -b, "expected 2 numbers"), ("c2.2", lambda t: (0.6296, 1.0), "got [0.6296"),
    ("c2.4", lambda t: 1 - t, "infinite"), ("c3.2", lambda p, f, g2, dx, dt: p, "derivative of f p is missing"),
    ("c3.1", lambda x, w, mu, var: over_a_small_number(x, w, mu, var), "underflow"),
    ("c4.1", ("+", "-"), "expected 2 numbers"), ("c9.3", lambda y: torch.bincount(y)[y], "divide"),
    ("c10.3", lambda row, seen, mean, cov: (mean[~seen], cov.diagonal()[~seen].sqrt()), "use the observed values"),
    ("c11.1", lambda q, k, v: (k @ q).softmax(0) @ v, "√d"), ("c11.4", torch.zeros(8), "decode"),
    ("c11.4", -1.5 * (torch.arange(60) < 6), "minus untreated"),
    ("c2.1", lambda f, g2, t: (torch.ones(3), 1), "shapes"),
])
def test_the_usual_mistakes_are_named(exercise: str, answer: object, hint: str,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    assert not course.check(exercise, answer)
    assert hint in capsys.readouterr().out


def test_an_exercise_that_does_not_exist() -> None:
    with pytest.raises(InputError, match=r"c99\.9"):
        course.check("c99.9", 1)
