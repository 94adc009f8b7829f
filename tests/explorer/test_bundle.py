"""The bundle has every module once, after those it needs; laws, commands and the widget say what they should."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from undiffuse.cli import main
from undiffuse.data.toys import digits
from undiffuse.errors import InputError
from undiffuse.explorer import mixture, scene_hash, scenes, widget
from undiffuse.explorer.bundle import bundle, order, sources
from undiffuse.explorer.mixtures import MIXTURES
from undiffuse.metrics import agreement, classifier


def test_every_module_comes_once_and_after_what_it_needs() -> None:
    modules = sources()
    found = order(modules, "main.js")
    assert sorted(found) == sorted(modules)
    for name in found:
        needed = re.findall(r'from "\./([\w.]+)"', modules[name])
        assert all(found.index(other) < found.index(name) for other in needed)
    text = bundle(modules)
    assert "import " not in re.sub(r'"[^"\n]*"|`[^`]*`', "", text) and not re.search(r"^export ", text, re.M)


def test_a_circle_of_modules_is_named() -> None:
    circle = {"a.js": 'import {b} from "./b.js";\n', "b.js": 'import {a} from "./a.js";\n'}
    with pytest.raises(ValueError, match=r"a\.js -> b\.js -> a\.js"):
        order(circle, "a.js")


def test_no_module_is_long() -> None:
    assert {name: text.count("\n") for name, text in sources().items() if text.count("\n") > 400} == {}


def test_mixtures_are_normalised_and_their_names_are_checked() -> None:
    for name in MIXTURES:
        assert float(mixture(name).weights.sum()) == pytest.approx(1)
    with pytest.raises(InputError, match="got mixture 'no'; expected one of bimodal"):
        mixture("no")


def test_the_digits_are_the_moments_of_the_real_ones_to_half_precision() -> None:
    data, fitted = digits(), mixture("digits")
    assert data.y is not None
    x = data.x.double().flatten(1) / 8 - 1
    for k in range(10):
        rows = x[data.y == k]
        cov = torch.from_numpy(np.cov(rows.numpy().T, bias=True)) + 0.01 * x.var(0).mean() * torch.eye(64)
        assert (fitted.means[k].flatten() - rows.mean(0)).abs().max() < 2**-11
        assert (fitted.covariances[k] - cov).abs().max() < 2**-11


@pytest.mark.slow
def test_drawn_digits_are_read_as_the_class_asked_for() -> None:
    data = digits()
    assert data.y is not None
    read = classifier(data.x.double() / 8 - 1, data.y)
    images, labels = mixture("digits").sample(1000, labels=True)
    accuracy = agreement(read(images), labels)
    assert accuracy.value > 0.97


def test_scenes_are_found_by_number_view_and_link() -> None:
    assert len(scenes()) == 10 and scene_hash("3") == scenes()[2]["hash"]
    assert scene_hash("cloud") == "#v=1&view=cloud"
    assert scene_hash("v=1&view=lab&n=4") == scene_hash("#v=1&view=lab&n=4")
    for wrong in ("0", "11", "rivers", "#v=1&law=<script>", ""):
        with pytest.raises(InputError, match="got scene"):
            scene_hash(wrong)


def test_explore_writes_the_page_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "page.html"
    assert main(["explore", "cloud", "--out", str(file), "--no-open"]) == 0
    assert capsys.readouterr().out.strip() == str(file)
    assert file.read_text("utf-8").startswith("<!doctype html>")


def test_explore_refuses_what_it_does_not_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "page.html"
    assert main(["explore", "rivers", "--out", str(file), "--no-open"]) == 2 and not file.exists()
    assert main(["explore", "--run", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("undiffuse: ") == 2


def test_the_widget_runs_the_same_script() -> None:
    pytest.importorskip("anywidget", reason="anywidget is not installed")
    made = widget("cloud", "400px")
    assert made.scene == "#v=1&view=cloud" and made.height == "400px"
    assert "function explorer()" in made._esm and "export default {render}" in made._esm
    with pytest.raises(InputError, match="got scene"):
        widget("nothing")
