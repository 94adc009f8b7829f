"""The wheel, built from the sdist and installed without the repository, does what the README's first commands do."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import undiffuse as ud

ROOT = Path(__file__).resolve().parent.parent
FIRST = (  # a command, and what its output or the file that it names has to hold
    (["--version"], ud.__version__),
    (["learn"], "C11"),
    (["learn", "open", "c00", "--out", "mine"], "undiffuse learn check"),
    (["explore", "--out", "page.html"], "page.html"),
    (["train", "swiss_roll", "--out", "run", "--steps", "3", "--batch-size", "16", "--device", "cpu"],
     "undiffuse sample run"),
    (["sample", "run", "--n", "4", "--out", "x.csv"], "x.csv"),
    (["report", "run"], "report.html"),
)


def run(words: list[str], folder: Path, **env: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=folder, env={**os.environ, **env}, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_wheel_works_without_the_repository(tmp_path: Path) -> None:
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    # build makes the sdist and, from it, the wheel
    run(["-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)], tmp_path)
    (wheel,) = tmp_path.glob(f"undiffuse-{ud.__version__}-py3-none-any.whl")
    assert len(list(tmp_path.glob(f"undiffuse-{ud.__version__}.tar.gz"))) == 1
    home, site = tmp_path / "elsewhere", tmp_path / "site"
    home.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    where = run(["-c", "import undiffuse; print(undiffuse.__file__)"], home, PYTHONPATH=str(site))
    assert Path(where.strip()).is_relative_to(site)
    for words, expected in FIRST:
        assert expected in run(["-m", "undiffuse", *words], home, PYTHONPATH=str(site)), words
    assert len((home / "x.csv").read_text("utf-8").splitlines()) == 5
    assert "undiffuse.page(" in (home / "page.html").read_text("utf-8")
    assert "<style>" in (home / "run" / "report.html").read_text("utf-8")
