"""The house: which file may import which, how long things are, what they are called, what is documented and tested.

Each rule is a function from a module to its complaints. It is run on every file of src, and on a small wrong one that
it has to catch.
"""

from __future__ import annotations

import ast
import os
import re
import resource
import statistics
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "undiffuse"

# Lowest first; a module imports from the floors below its own.
FLOORS = (
    "errors launcher",
    "regular_files",
    "random progress tensors hashing delegation atomic_files",
    "ode nets transforms quadrature storage cosines linear_solvers",
    "data sde",
    "chains",
    "processes moments predictions experiment",
    "model",
    "mixture loss metrics score_model wrappers",
    "guidance picture_statistics",
    "samplers",
    "inverse",
    "tuning likelihood",
    "training",
    "simulation_recipe",
    "interop recipe_networks",
    "recipes report",
    "pipelines",
    "estimators simulators",
    "explorer",
    "course",
    "cli",
    "__main__",
)
FLOOR = {module: number for number, row in enumerate(FLOORS) for module in row.split()}

CORE = {"torch", "numpy", "scipy", "sklearn", "PIL", "matplotlib", "safetensors", "filelock", "cyclopts", "rich",
        "jinja2"}
OPTIONAL = {"accelerate", "datasets", "diffusers", "transformers", "anndata", "scanpy", "tensorboard", "pandas",
            "anywidget", "traitlets", "huggingface_hub", "pyarrow"}
LIGHT = {"__init__", "__main__", "errors", "hashing", "experiment", "cli"}  # torch and numpy only inside functions
LINES = 27_900
LONG_FUNCTIONS = {("nets", "forward"), ("training", "train")}  # a network, the training loop

FORBIDDEN = re.compile(
    r"(pickle|cPickle|dill|cloudpickle|joblib|marshal|shelve|yaml|random)(\..*)?|eval|exec|compile|__import__|os\.(system|popen)"
    r"|builtins\.(eval|exec|compile)|torch\.(load|hub\..*|seed|manual_seed|Generator|default_generator|get_rng_state|set_rng_state)"
    r"|torch\.(rand|randn|randint|randperm|rand_like|randn_like|randint_like|normal|bernoulli|multinomial|poisson)"
    r"|torch\.(random|serialization)(\..*)?|torch\.(cuda|mps)\.(manual_seed\w*|seed\w*)"
    r"|torch\.nn\.(init\.\w+|\w*Dropout\w*|functional\.\w*dropout\w*)|numpy\.random\..*"
    r"|\.(normal_|uniform_|bernoulli_|random_|exponential_|log_normal_|cauchy_|geometric_|rsample|rvs)\(\)"
    r"|(allow_pickle|shell)=True"
)

BANNED = {"found", "told", "heard", "led", "owed", "likeness", "together", "journey", "leap", "quiet", "loudness",
          "shelf", "gaps", "marks", "Words"}
VAGUE = {"given", "seen", "known", "held", "made", "asked", "kept", "there", "here", "said", "whole"}
VAGUE_USES = 3  # of one of them in a file
SAME_CLASS = {"Identity", "Linear"}  # a transform and an operator; a process and an operator
SAME_FILE = {"__init__", "images", "page", "plots"}  # and the commands, which are called like the module that they call
# Modules that are tested in a file of another name.
TESTED_IN = {
    "__main__": "cli/test_main", "chains": "test_processes", "delegation": "test_front_door",
    "errors": "test_front_door", "linear_solvers": "inverse/test_guides",
    "recipe_networks": "test_recipes", "hashing": "data/test_dataset",
    "model": "test_front_door",
    "ode": "samplers/test_adaptive", "progress": "training/test_run",
    "quadrature": "test_processes", "score_model": "theory/test_reversal", "sde": "test_processes",
    "storage": "training/test_checkpoint", "tensors": "test_front_door",
    "data.sources": "test_front_door", "data.text_files": "data/test_delimited_text",
    "data.validation": "data/test_malformed",
    "nets.mlp": "nets/test_nets", "nets.unet": "nets/test_nets",
    "estimators.table_encoder": "estimators/test_detector", "inverse.row_imputer": "estimators/test_imputer",
    "transforms.column_fitting": "transforms/test_columns", "transforms.table_cells": "transforms/test_table_schema",
    "transforms.yeo_johnson": "transforms/test_columns",
    "samplers.coefficients": "samplers/test_exponential", "samplers.default": "samplers/test_driver",
    "samplers.method": "samplers/test_driver", "samplers.registry": "samplers/test_orders",
    "samplers.runge_kutta": "samplers/test_orders", "samplers.select": "samplers/test_driver",
    "samplers.tuned": "tuning/test_tune",
    "samplers.samples": "samplers/test_driver", "transforms.codec": "interop/test_pretrained",
    "interop.networks": "interop/test_pretrained", "interop.prompts": "interop/test_pretrained",
    "interop.autoencoder": "interop/test_pretrained", "interop.checks": "interop/test_imported",
    "interop.diffusers_package": "interop/test_export",
    "cli.check": "simulators/test_command", "simulation_recipe": "simulators/test_command",
    "simulators.calibration_page": "simulators/test_command", "simulators.posterior": "simulators/test_inference",
    "simulators.priors": "simulators/test_inference", "transforms.column_kinds": "transforms/test_bounded",
    "wrappers": "test_guidance",
    "cli.import_": "interop/test_imported", "cli.compare": "interop/test_comparison",
    "cli.export": "interop/test_export",
    "tuning.grid_search": "tuning/test_fit", "tuning.reference": "tuning/test_fit",
    "training.ema_sweep": "training/test_ema", "training.loop": "training/test_exact",
    "training.linear_loss": "report/test_linear_loss", "training.model_config": "training/test_run",
    "pipelines.csv_text": "pipelines/test_impute", "pipelines.score": "cli/test_likelihood",
    "report.figures": "report/test_page", "report.plots": "report/test_page",
    "report.sections": "report/test_page", "report.trajectory": "report/test_images",
    "report.wording": "report/test_page", "report.formats": "report/test_page", "report.blocks": "report/test_page",
    "report.table_sections": "report/test_page",
    "explorer.mixtures": "explorer/test_parity", "explorer.run_model": "explorer/test_server",
    "explorer.widget": "explorer/test_bundle",
    "course.checking": "course/test_chapters", "course.exercises": "course/test_chapters",
    "course.exercises_noise": "course/test_chapters", "course.exercises_score": "course/test_chapters",
    "course.exercises_use": "course/test_chapters", "course.plots": "course/test_chapters",
    "cli.ema": "training/test_run", "cli.evaluate": "cli/test_commands", "cli.explore": "explorer/test_bundle",
    "cli.impute": "pipelines/test_impute", "cli.learn": "course/test_chapters", "cli.replay": "training/test_replay",
    "cli.report": "cli/test_commands", "cli.restore": "pipelines/test_restore", "cli.sample": "cli/test_commands",
    "cli.show": "cli/test_main", "cli.train": "cli/test_commands", "cli.tune": "cli/test_commands",
    "cli.verify": "cli/test_commands",
    "transforms.series_schema": "data/test_windows", "inverse.window_correction": "inverse/test_window_law",
    "inverse.series_imputer": "inverse/test_window_law", "training.series_fills": "pipelines/test_series",
    "pipelines.series_files": "pipelines/test_series", "report.series_plots": "pipelines/test_series",
    "cli.forecast": "pipelines/test_series",
}


@dataclass(frozen=True)
class Module:
    """A file of the package: its dotted name below `undiffuse` and its text."""

    name: str
    text: str
    package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def top(self) -> str:
        return self.name.split(".")[0]


@cache
def modules() -> list[Module]:
    """Every module of src."""
    found = []
    for file in sorted(SRC.rglob("*.py")):
        parts = list(file.relative_to(SRC).with_suffix("").parts)
        package = parts[-1] == "__init__" and len(parts) > 1
        found.append(Module(".".join(parts[:-1] if package else parts), file.read_text("utf-8"), package))
    return found


def imports(module: Module) -> Iterator[tuple[str, ast.stmt]]:
    """The absolute dotted names that a module imports, wherever the statement stands."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = ["undiffuse", *module.name.split(".")]
                kept = here[: len(here) - node.level + module.package]
                base = ".".join([*kept, base] if base else kept)
            yield from ((f"{base}.{alias.name}", node) for alias in node.names)


def lazy(module: Module) -> set[ast.AST]:
    """All nodes inside functions: they run later, or never."""
    return {inner for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for inner in ast.walk(node)}


def functions(module: Module) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef)]


def lines_without_docstring(node: ast.FunctionDef, signature: bool) -> int:
    """Lines of a function from its `def`, or from its first statement, to its end."""
    documented = ast.get_docstring(node, clean=False) is not None
    first = node.body[0]
    own = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    start = node.lineno if signature else first.lineno
    return (node.end_lineno or 0) - start + 1 - own


def floors(module: Module) -> list[str]:
    """Imports that go up, or sideways."""
    if module.name == "__init__":
        return []
    if module.top not in FLOOR:
        return [f"{module.top} has no floor: add it to the floor table in tests/test_house.py"]
    found = []
    for name, _ in imports(module):
        package, _, rest = name.partition(".")
        target = rest.split(".")[0]
        if package != "undiffuse" or target in (module.top, "__version__"):
            continue
        if target not in FLOOR:
            found.append(f"imports {name}, which is no module of the floor table")
        elif FLOOR[target] >= FLOOR[module.top]:
            found.append(f"imports {name}, which is not on a lower floor")
    return found


def third_parties(module: Module) -> list[str]:
    """Imports of packages that need not be there, or that have no business on this floor."""
    found, later = [], lazy(module)
    for name, node in imports(module):
        package = name.split(".")[0]
        if package == "undiffuse" or package in sys.stdlib_module_names:
            continue
        if package not in CORE | OPTIONAL:
            found.append(f"imports {package}, which is no dependency of pyproject.toml")
        if package in OPTIONAL and node not in later:
            found.append(f"imports the optional {package} outside a function")
        if module.top in LIGHT and package not in ("cyclopts", "rich") and node not in later:
            found.append(f"imports {package} outside a function, but it has to load without")
        if module.top == "nets" and package != "torch":
            found.append(f"imports {package}; networks know torch only")
    return found


def docstrings(module: Module) -> list[str]:
    """Public names without a docstring."""
    found = [] if ast.get_docstring(module.tree) else ["the module has no docstring"]
    todo: list[ast.AST] = [module.tree]
    while todo:
        for node in ast.iter_child_nodes(todo.pop()):
            if isinstance(node, ast.If | ast.Try):
                todo.append(node)
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                overload = any(isinstance(d, ast.Name) and d.id == "overload" for d in node.decorator_list)
                if not overload and not ast.get_docstring(node):
                    found.append(f"{node.name} (line {node.lineno}) has no docstring")
                if isinstance(node, ast.ClassDef):
                    todo.append(node)
    return found


def lengths(module: Module) -> list[str]:
    """Functions over 40 lines (30 on the command line) and files over 400."""
    found, most = [], 30 if module.top == "cli" else 40
    if (n := module.text.count("\n")) > 400:
        found.append(f"has {n} lines, at most 400 are allowed")
    for node in functions(module):
        n = lines_without_docstring(node, signature=True)
        if n > most and (module.top, node.name) not in LONG_FUNCTIONS:
            found.append(f"{node.name} has {n} lines, at most {most} are allowed")
    return found


def forbidden(module: Module) -> list[str]:
    """Names through which a file could run code, or chance could enter by the back door."""
    alias = {"np": "numpy", "F": "torch.nn.functional", "nn": "torch.nn"}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            alias |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            alias |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    used = {(name, node.lineno) for name, node in imports(module)}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute | ast.Name) and not isinstance(node.ctx, ast.Store):
            used.add((dotted(node, alias), node.lineno))
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "shell") and not is_false(node.value):
            used.add((f"{node.arg}=True", node.value.lineno))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            used.add((f".{node.func.attr}()", node.lineno))
    allowed = {"random": {"numpy.random.Philox"}, "interop.readers": {"torch.load"}}.get(module.name, set())
    return [f"line {line}: {name} is not used here" for name, line in sorted(used)
            if FORBIDDEN.fullmatch(name) and name not in allowed]


def identifiers(module: Module) -> Iterator[str]:
    """Names of functions, classes, arguments, attributes and variables, once per use, without leading underscores."""
    for node in ast.walk(module.tree):
        name = (node.name if isinstance(node, ast.FunctionDef | ast.ClassDef) else node.arg if isinstance(node, ast.arg)
                else node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else "")
        yield name.lstrip("_")


def words(module: Module) -> list[str]:
    """Identifiers that say nothing, or are metaphors."""
    uses = Counter(identifiers(module))
    return [f"uses {name} as an identifier; say what it is" for name in sorted(BANNED & set(uses))] + [
        f"uses {name} {uses[name]} times, at most {VAGUE_USES} are allowed" for name in sorted(VAGUE)
        if uses[name] > VAGUE_USES]


def dotted(node: ast.AST, alias: dict[str, str]) -> str:
    """`torch.nn.init.normal_` of such an expression, with aliases undone; "" for any other."""
    if isinstance(node, ast.Name):
        return alias.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (base := dotted(node.value, alias)):
        return f"{base}.{node.attr}"
    return ""


def is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


RULES: tuple[Callable[[Module], list[str]], ...] = (floors, third_parties, docstrings, lengths, forbidden, words)
LONG = "def f():\n    '''It is long.'''\n" + "    x = 1\n" * 40
WRONG = [
    (floors, "sde", "from undiffuse.model import Model"),
    (floors, "sde", "def f():\n    from .model import Model"),
    (floors, "nets.mlp", "from ..data import open_data"),
    (floors, "moments", "import undiffuse.processes"),
    (floors, "model", "from . import samplers"),
    (floors, "model", "from undiffuse import Mixture"),
    (floors, "cellar", ""),
    (third_parties, "sde", "import pandas"),
    (third_parties, "sde", "def f():\n    import torchvision"),
    (third_parties, "experiment", "import numpy as np"),
    (third_parties, "cli.train", "from torch import Tensor"),
    (third_parties, "nets.mlp", "import numpy"),
    (docstrings, "sde", "x = 1"),
    (docstrings, "sde", "'''It is.'''\nclass SDE:\n    '''It is.'''\n    def drift(self): ..."),
    (docstrings, "sde", "'''It is.'''\nif True:\n    def f(): ..."),
    (lengths, "sde", LONG),
    (lengths, "sde", "x = 1\n" * 401),
    (lengths, "cli.show", "def show():\n" + "    x = 1\n" * 30),
    (forbidden, "sde", "import pickle"),
    (forbidden, "sde", "from torch import load as l"),
    (forbidden, "sde", "import torch as t\nt.load('x')"),
    (forbidden, "sde", "f = torch.randn"),
    (forbidden, "sde", "torch.nn.init.normal_(w)"),
    (forbidden, "sde", "from torch import nn\nnn.Dropout(.1)"),
    (forbidden, "sde", "from torch.nn import functional as G\nG.dropout(x)"),
    (forbidden, "sde", "x.normal_()"),
    (forbidden, "sde", "np.random.Philox(key=1)"),
    (forbidden, "random", "from numpy.random import default_rng"),
    (forbidden, "random", "np.random.default_rng()"),
    (forbidden, "sde", "import random"),
    (forbidden, "sde", "eval('1')"),
    (forbidden, "sde", "exec('1')"),
    (forbidden, "sde", "import yaml\nyaml.load(f)"),
    (forbidden, "sde", "np.load(f, allow_pickle=True)"),
    (forbidden, "sde", "subprocess.run(c, shell=True)"),
    (forbidden, "sde", "os.system('ls')"),
    (words, "sde", "def told(x): ..."),
    (words, "sde", "class Words: ..."),
    (words, "sde", "def f(*, heard): ..."),
    (words, "sde", "_found = 1"),
    (words, "sde", "state.owed += 1"),
    (words, "sde", "seen = 1\nprint(seen, seen, seen)"),
]
RIGHT = [
    (floors, "model", "from undiffuse.sde import SDE\nfrom . import errors"),
    (floors, "data.readers", "from undiffuse.transforms import base\nfrom .dataset import Dataset\nfrom . import x"),
    (third_parties, "data.hub", "def f():\n    import datasets"),
    (lengths, "nets.unet", LONG.replace("def f", "def forward")),
    (lengths, "sde", LONG.replace("    x = 1\n", "", 1)),
    (forbidden, "random", "np.random.Philox(key=1)"),
    (words, "sde", "model.given(label=4)\nseen = seen + seen\nmarked = 'found'\nx = f(found=1)"),
    (forbidden, "sde", "model.eval()\nnp.load(f, allow_pickle=False)\nnoise.normal(0, 1)"),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_file_keeps_the_rule(rule: Callable[[Module], list[str]]) -> None:
    assert [f"undiffuse.{module.name}: {line}" for module in modules() for line in rule(module)] == []


@pytest.mark.parametrize("rule, name, text", WRONG)
def test_the_rule_catches_a_wrong_file(rule: Callable[[Module], list[str]], name: str, text: str) -> None:
    assert rule(Module(name, text))


@pytest.mark.parametrize("rule, name, text", RIGHT)
def test_the_rule_lets_a_right_file_pass(rule: Callable[[Module], list[str]], name: str, text: str) -> None:
    assert rule(Module(name, text)) == []


def same_names(files: list[Module]) -> list[str]:
    """Classes, and files, of one name."""
    classes = Counter(node.name for module in files for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef))
    names = Counter(module.name.rpartition(".")[2] for module in files if not module.package and module.top != "cli")
    return sorted([name for name, n in classes.items() if n > 1 and name not in SAME_CLASS]
                  + [name for name, n in names.items() if n > 1 and name not in SAME_FILE])


def test_no_two_classes_and_no_two_files_have_one_name() -> None:
    assert same_names(modules()) == []
    assert same_names([Module("loss", "class Levels: ..."), Module("data", "class Levels: ...")]) == ["Levels"]
    assert same_names([Module("tuning.state", ""), Module("training.state", "")]) == ["state"]
    assert same_names([Module("cli.ema", ""), Module("training.ema", "class Linear: ..."),
                       Module("ode", "class Linear: ...")]) == []


def untested(names: list[str], tests: set[str], elsewhere: dict[str, str]) -> list[str]:
    """Modules without a test file of their name or an entry in the list, and entries without a use."""
    mirrored = {name for name in names for folder, _, base in [name.rpartition(".")]
                if any(re.fullmatch(f"{f'{folder}/' if folder else ''}test_{base}(_\\w+)?", test) for test in tests)}
    listed = {name for name, test in elsewhere.items() if test in tests}
    return sorted((set(names) - mirrored - listed) | (set(elsewhere) - listed) | (set(elsewhere) & mirrored)
                  | (set(elsewhere) - set(names)))


def test_every_module_has_a_file_of_tests() -> None:
    names = [module.name for module in modules() if not module.package and module.name != "__init__"]
    folder = ROOT / "tests"
    files = {file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("test_*.py")}
    assert untested(names, files, TESTED_IN) == []
    tests = {"test_ode", "nets/test_mlp_wide"}
    assert untested(["ode", "nets.mlp"], tests, {}) == [] and untested(["sde"], tests, {"sde": "test_ode"}) == []
    assert untested(["sde", "nets.ode"], tests, {}) == ["nets.ode", "sde"]
    assert untested(["ode"], tests, {"ode": "test_ode"}) == ["ode"]       # a needless entry
    assert untested(["sde"], tests, {"sde": "test_sde"}) == ["sde"]       # an entry without a file
    assert untested([], tests, {"sde": "test_ode"}) == ["sde"]            # an entry without a module


def graph(files: list[Module]) -> dict[str, set[str]]:
    """The modules that each module imports, wherever the statement stands, also for type checkers only."""
    names = {module.name for module in files}
    edges: dict[str, set[str]] = {module.name: set() for module in files}
    for module in files:
        for name, _ in imports(module):
            target = name.removeprefix("undiffuse.") if name.startswith("undiffuse.") else ""
            while target and target not in names:
                target = target.rpartition(".")[0]
            edges[module.name] |= {target} - {"", module.name}
    return edges


def test_no_imports_run_in_a_circle() -> None:
    TopologicalSorter(graph(modules())).prepare()
    circle = [Module("a", "def f():\n    from undiffuse.b import g"), Module("b", "from undiffuse import a")]
    with pytest.raises(CycleError):
        TopologicalSorter(graph(circle)).prepare()


def docstring_lines(module: Module) -> int:
    """Number of lines of a file that belong to docstrings."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    documented = [node.body[0] for node in ast.walk(module.tree)
                  if isinstance(node, kinds) and ast.get_docstring(node, clean=False)]
    return sum((first.end_lineno or 0) - first.lineno + 1 for first in documented)


def test_the_house_stays_small() -> None:
    """Files, files per folder, and lines outside docstrings, without the answers of the course's exercises."""
    files = modules()
    folders = Counter(module.name.partition(".")[0] for module in files if "." in module.name)
    lines = sum(module.text.count("\n") - docstring_lines(module) for module in files
                if not module.name.startswith("course.exercises_"))
    assert len(files) <= 236 and max(n for name, n in folders.items() if name != "cli") <= 20 and lines <= LINES


def test_the_typical_function_fits_in_eight_lines() -> None:
    bodies = [lines_without_docstring(node, signature=False) for module in modules() for node in functions(module)]
    assert statistics.median(bodies) <= 8


def test_no_file_names_a_place_on_someones_machine() -> None:
    place = re.compile("(?<![\\w.)}])/(" + "|".join(("ro" + "ot", "ho" + "me", "wo" + "rk", "Us" + "ers")) + r")/\w")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    files = [ROOT / name for name in listed.split("\0") if name] or [*SRC.rglob("*.py"), *ROOT.glob("*.*")]
    texts = {file: file.read_bytes().decode("utf-8", "replace") for file in files if file.is_file()}
    assert [str(file.relative_to(ROOT)) for file, text in texts.items() if place.search(text)] == []


def test_names_versions_and_licence_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    licence = (ROOT / "LICENSE").read_text("utf-8")
    assert project["license"] == "Apache-2.0" and "Apache License" in licence and len(licence) > 11_000
    assert f"\nversion: {project['version']}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert f'__version__ = "{project["version"]}"' in (SRC / "__init__.py").read_text("utf-8")
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    needed = {re.split(r"[<>=]", line)[0] for line in project["dependencies"]}
    assert needed == {{"sklearn": "scikit-learn", "PIL": "pillow"}.get(name, name) for name in CORE}


def test_constraints_fit_every_machine() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []  # no +cpu, no places, no hosts
    assert "torch==2.13.0" in lines


@pytest.mark.parametrize("code", [
    "import undiffuse",
    *(f"from undiffuse.cli import main; main({arguments})" for arguments in (
        "['--help']", "['--version']",
        *(f"['{name}', '--help']" for name in ("train", "sample", "report", "show", "evaluate", "verify",
                                                         "tune", "replay", "ema", "learn", "likelihood", "explore",
                                                         "restore", "impute", "import", "export", "compare")))),
])
def test_help_answers_at_once_and_without_torch(code: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code += "\nimport sys; sys.exit(bool({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=os.environ, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stderr) == (0, b"")
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_every_command_is_tried_without_torch() -> None:
    from undiffuse.cli import COMMANDS

    tried = {"train", "sample", "report", "show", "evaluate", "verify", "learn", "likelihood", "replay", "ema",
             "tune", "explore", "restore", "impute", "forecast", "import", "export", "compare", "check"}
    assert {command.__name__.rstrip("_") for command in COMMANDS} == tried
