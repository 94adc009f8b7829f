"""The documentation: every block of code runs, every link leads somewhere, every item and statement is covered."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from cyclopts import CycloptsError

import undiffuse as ud
from undiffuse.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), *sorted((DOCS / "theory").glob("*.md")), ROOT / "README.md"]
BLOCK = re.compile(r"^```(python|sh|bash)\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(#[^)\s]*)?\)")
SLOW = ("quickstart.md", "series.md", "simulators.md", "README.md", "tuned_sampling.md", "conditioning.md")
TOOLS = {"undiffuse", "pip", "uvx", "python", "python3", "git", "cd", "torchrun", "accelerate", "srun", "export"}
MADE = {"papers.md", "explorer.html", "api/index.md"}  # when the pages are built


@pytest.fixture(autouse=True)
def _docs_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def blocks(page: Path, language: str) -> list[str]:
    found = [(kind.replace("bash", "sh"), code) for kind, code in BLOCK.findall(page.read_text("utf-8"))]
    return [code.replace("\\\n", " ") for kind, code in found if kind == language]


def pages_with_code() -> list[object]:
    found = [page for page in PAGES if blocks(page, "python")]
    return [pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.name in SLOW else []) for page in found]


def needs_what_is_not_there(code: str) -> bool:
    """Whether a block imports a package that is not installed."""
    nodes = [node for node in ast.parse(code).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [alias.name if isinstance(node, ast.Import) else str(node.module) for node in nodes for alias in node.names]
    return any(importlib.util.find_spec(name.split(".")[0]) is None for name in names)


@pytest.mark.parametrize("page", pages_with_code())
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = ud.recipes.for_data
    monkeypatch.setattr("undiffuse.recipes.for_data", lambda source, **asked: recipe(source, **{"steps": 20, **asked}))
    mixture = ud.Mixture([1, 2], [[-1.0, 0.0], [1.0, 0.5]], 0.1, labels=[0, 1])
    space = {"ud": ud, "mixture": mixture, "model": mixture.denoiser(ud.VP()), "x": mixture.sample(6)}
    for number, code in enumerate(blocks(page, "python")):
        block = compile(code, f"{page.name}[{number}]", "exec")
        if not needs_what_is_not_there(code):
            exec(block, space)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "sh")], ids=lambda p: p.name)
def test_the_commands_of_a_page_exist(page: Path) -> None:
    lines = [shlex.split(line, comments=True) for code in blocks(page, "sh") for line in code.splitlines()]
    for words in filter(None, lines):
        tool = words[0].rsplit("/", 1)[-1]
        if tool == "undiffuse" and words[1:2] != ["COMMAND"]:
            try:
                app.parse_args(words[1:], exit_on_error=False, print_error=False)
            except CycloptsError as error:
                raise AssertionError(f"{' '.join(words)}: {error}") from None
        elif tool == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text("utf-8"), re.M)
        else:
            assert tool in TOOLS, words


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_inside_leads_somewhere(page: Path) -> None:
    for target, _ in LINK.findall(page.read_text("utf-8")):
        if not re.match(r"[a-z]+:", target) and target not in MADE:
            place = page.parent / target
            chapter = ROOT / "tutorials" / f"{Path(target).name}.py"
            assert place.exists() or (target.startswith("course/") and chapter.exists()), target


def test_every_entry_of_a_table_of_contents_exists() -> None:
    for page in PAGES:
        for tree in re.findall(r"^```\{toctree\}\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S):
            entries = [line for line in tree.splitlines() if line and not line.startswith(":")]
            for entry in (e for e in entries if "*" not in e and f"{e}.md" not in MADE):
                text = (page.parent / f"{entry}.md").read_text("utf-8")
                assert re.search(r"^# \S", text, re.M), entry


def test_every_page_is_in_a_table_of_contents() -> None:
    trees = "\n".join(re.findall(r"^```\{toctree\}\n(.*?)^```$", (DOCS / "index.md").read_text("utf-8"), re.M | re.S))
    assert [page.stem for page in DOCS.glob("*.md") if page.stem != "index" and page.stem not in trees.split()] == []


def test_every_statement_is_proved_and_checked_by_tests_that_exist() -> None:
    text = "\n".join((DOCS / "theory" / f"{name}.md").read_text("utf-8")
                     for name in ("score", "reversal", "likelihood", "conditioning"))
    parts = re.split(r"^\(p(\d+)\)=$", text, flags=re.M)[1:]
    found = dict(zip(map(int, parts[::2]), parts[1::2], strict=True))
    assert sorted(found) == list(range(1, 19))
    for number, part in found.items():
        tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", part)
        assert tests and "∎" in part and f"## P{number} · " in part
        for file, name in tests:
            assert f"def {name}(" in (ROOT / file).read_text("utf-8"), name


def test_every_exhibit_has_a_symptom_a_cause_a_formula_and_a_test() -> None:
    parts = re.split(r"^### D(\d+) · ", (DOCS / "museum.md").read_text("utf-8"), flags=re.M)[1:]
    found = dict(zip(map(int, parts[::2]), parts[1::2], strict=True))
    assert sorted(found) == list(range(1, 29))
    tests = (ROOT / "tests" / "test_museum.py").read_text("utf-8")
    for number, part in found.items():
        names = re.findall(r"`(test_d\d+_\w+)`", part)
        assert all(f"*{word}.*" in part for word in ("Symptom", "Cause", "Right", "Test"))
        assert names and all(name.startswith(f"test_d{number}_") and f"def {name}(" in tests for name in names)


def test_the_items_of_the_seeds_are_covered() -> None:
    coverage = importlib.import_module("seed_coverage")
    assert len(coverage.ITEMS) == 191 and coverage.problems() == []
    for place in ("P19", "D29", "page:none.md", "tests/none.py", "ud.nothing", "C12"):
        assert coverage.complaint(place), place  # and a dead link is found


def test_the_index_of_papers_names_code_that_exists() -> None:
    papers = importlib.import_module("papers")
    index = papers.index()
    assert len(index) > 60 and any("eq. 17" in place for place in index["Nichol and Dhariwal (2021)"])
    coverage = importlib.import_module("seed_coverage")
    names = {place.split("`")[1] for places in index.values() for place in places}
    assert [name for name in names if coverage.complaint(name)] == []


def test_every_module_of_the_interface_has_a_page(tmp_path: Path) -> None:
    pages = importlib.import_module("api_pages")
    pages.write(tmp_path)
    names = [name for group in pages.GROUPS.values() for name in group]
    assert {page.stem for page in tmp_path.glob("*.md")} == {*names, "index"}
    for name in names:
        assert importlib.import_module(f"undiffuse.{name}").__doc__ and f"[`undiffuse.{name}`]" in (
            tmp_path / "index.md").read_text("utf-8")


def test_formulas_become_mathml() -> None:
    pytest.importorskip("latex2mathml")
    pytest.importorskip("docutils")
    from latex2mathml.converter import convert

    wrong = []
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.S)
        for formula in re.findall(r"\$\$(.+?)\$\$", text, re.S) + re.findall(r"(?<!\$)\$([^$\n]+)\$(?!\$)", text):
            made = convert(formula)
            if "\\" in re.sub(r"<[^>]*>", "", made):
                wrong.append(formula)
    assert wrong == []
