"""The page's script in a browser or in Node, for tests; skipped with a reason where a machine has neither."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from undiffuse.explorer.page import data, script

HERE = Path(__file__).parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def browser() -> Iterator[Any]:
    """Headless Chromium of the system, by Playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("this machine has no Chromium")
    with sync_api.sync_playwright() as playwright:
        sandbox = [] if os.geteuid() else ["--no-sandbox"]
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield opened
        opened.close()


def evaluated(expression: str, argument: Any) -> Any:
    """The value of a JavaScript function of (model, argument), in Node where there is one, else in Chromium."""
    harness = (HERE / "parity.js").read_text("utf-8").replace("export ", "")
    setup = f"{script()}\n{harness}\nconst data = {data()};\nconst whole = explorer();\n"
    setup += "whole.carry(data);\n"
    if node := shutil.which("node"):
        tail = (
            'const given = JSON.parse(require("fs").readFileSync(0, "utf8"));\n'
            f"process.stdout.write(JSON.stringify(({expression})(whole.model, given)));"
        )
        return json.loads(_node(node, setup + tail, argument))
    with browser() as opened:
        page = opened.new_page()
        page.add_script_tag(content=f"{setup}\nwindow.evaluated = (given) => ({expression})(whole.model, given);")
        return page.evaluate("given => window.evaluated(given)", argument)


def _node(node: str, text: str, argument: Any) -> str:
    file = _script_file(text)
    done = subprocess.run([node, file], input=json.dumps(argument), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@functools.cache
def _script_file(text: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".cjs", delete=False, encoding="utf-8") as file:
        file.write(text)
    return file.name
