"""What a user's editor knows: mypy sees the signatures of the public names, and the mistakes in a script."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import undiffuse as ud

mypy = pytest.importorskip("mypy.api")
ROOT = Path(__file__).resolve().parent.parent

HEAD = """import numpy as np
import torch
import undiffuse as ud
mixture = ud.Mixture([1, 2], [[-1.0, 0.0], [1.0, 0.5]], 0.1, labels=[0, 1])
model: ud.Model = mixture.denoiser(ud.VP())
"""
MISTAKES = """ud.sampel(model, 5)
ud.sample(model, "five")
ud.sample("model", 5)
ud.sample(model, 5).samples
ud.VP(beta_maximum=20.0)
ud.Experiment(data="digits", step=100)
ud.log_likelihood(model, "points.npy")
ud.Mixture([1.0], [0.0], 1.0).log_probability([[0.0]])
ud.train("digits").smaple()
ud.log_likelihood(model, [[0.0, 0.0]]).bits
ud.sample(model, 5, label=object())
ud.observe(model, np.eye(2), [0.0, 0.0], 0.1, units="pixels")
"""
RIGHT = """reveal_type(ud.sample(model, 5, label=[0, 1, 1, 0, 0], steps=8))
reveal_type(ud.log_likelihood(model, np.zeros((3, 2)), label=np.array([0, 1, 0])).log_prob)
reveal_type(ud.encode(model, [[0.0, 0.0]]))
reveal_type(ud.VP(beta_max=10.0).alpha(0.5))
reveal_type(mixture)
reveal_type(ud.classifier_free(model, 2.0))
reveal_type(ud.observe(model, np.eye(2), [0.0, 0.0], 0.1))
reveal_type(ud.open_data(torch.zeros(3, 2)))
reveal_type(ud.train(np.zeros((8, 2)), steps=3))
reveal_type(ud.recipes.for_data("digits").experiment)
"""
REVEALED = ("samples.Samples", "Tensor", "Tensor", "Tensor", "mixture.Mixture", "model.Model",
            "guides.Guided | undiffuse.inverse.samplers.Posterior", "dataset.Dataset", "model.Denoiser",
            "experiment.Experiment")


def check(scripts: dict[str, str], folder: Path) -> dict[str, list[str]]:
    """The lines that `mypy --strict` prints for scripts, by their names."""
    for name, code in scripts.items():
        (folder / f"{name}.py").write_text(code)
    printed, _, _ = mypy.run(["--strict", "--config-file=", f"--cache-dir={folder / 'cache'}", "--no-error-summary",
                              "--ignore-missing-imports", "--follow-imports=silent", "--allow-redefinition-new",
                              "--local-partial-types", *(str(folder / f"{name}.py") for name in scripts)])
    lines = printed.splitlines()
    return {name: [line.partition(f"/{name}.py:")[2] for line in lines if f"/{name}.py:" in line] for name in scripts}


@pytest.mark.slow
def test_mypy_sees_the_mistakes_of_a_user_and_none_in_a_right_script(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MYPYPATH", str(ROOT / "src"))
    printed = check({"wrong": HEAD + MISTAKES, "right": HEAD + RIGHT}, tmp_path)
    first, wrong = HEAD.count("\n") + 1, {int(line.split(":")[0]) for line in printed["wrong"] if "error:" in line}
    assert wrong <= set(range(first, first + 12)) and len(wrong) >= 11, printed["wrong"]
    assert [line for line in printed["right"] if "error:" in line] == []
    kinds = [re.findall(r'"([^"]*)"', line)[0] for line in printed["right"] if "Revealed" in line]
    assert len(kinds) == 10 and all(kind.endswith(end) for kind, end in zip(kinds, REVEALED, strict=True)), kinds


@pytest.mark.slow
def test_mypy_finds_nothing_in_the_code_of_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every page as one script, and a page with a planted mistake, which it has to find."""
    monkeypatch.setenv("MYPYPATH", str(ROOT / "src"))
    block = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
    pages = {f"page_{page.stem}": HEAD + "x = mixture.sample(6)\n" + "\n".join(block.findall(text))
             for page in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
             if "```python" in (text := page.read_text("utf-8"))}
    assert len(pages) >= 8
    printed = check({**pages, "planted": pages["page_README"] + "ud.sample(exact, 5).y\n"}, tmp_path)
    assert printed.pop("planted") and {name: lines for name, lines in printed.items() if lines} == {}


def test_the_names_that_mypy_sees_are_those_that_there_are_at_run_time() -> None:
    tree = ast.parse((ROOT / "src" / "undiffuse" / "__init__.py").read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    owners = {alias.asname: node.module for node in imports for alias in node.names}
    assert set(owners) | {"__version__"} == set(ud.__all__)
    assert {name: module for name, module in owners.items() if module != "undiffuse"} == {
        name: f"undiffuse.{module}" for name, module in ud._OWNER.items()}
    for name in ud.__all__:
        getattr(ud, name)
    with pytest.raises(AttributeError, match="no attribute 'sampel'"):
        ud.sampel  # noqa: B018
