"""The command `likelihood`: a table of scores with their errors and ranks, a figure, and one sentence for a mistake."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from undiffuse.cli import main
from undiffuse.data import open_data, tables
from undiffuse.errors import InputError
from undiffuse.experiment import Experiment
from undiffuse.likelihood import log_likelihood
from undiffuse.training import load, train
from undiffuse.transforms.column_format import ColumnFormat
from undiffuse.transforms.table_schema import TableSchema

EXPERIMENT = Experiment(data="moons", held_out=50, steps=6, save_every=3, warmup=2, batch_size=32, eval_batch_size=16,
                        net_args={"width": 16, "depth": 1})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("likelihood")
    file = folder / "recipe.json"
    file.write_text(json.dumps(EXPERIMENT.to_dict()))
    assert main(["train", str(file), "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_a_table_has_every_rows_score_error_and_rank(run: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "scores.csv"
    assert main(["likelihood", str(run), "moons", "--n", "20", "--out", str(out)]) == 0
    table = list(csv.DictReader(out.open()))
    found = torch.tensor([float(row["log_prob"]) for row in table], dtype=torch.float64)
    expected = log_likelihood(load(run), open_data("moons").x[:20], rtol=1e-4, atol=1e-4)
    assert torch.equal(found, expected.log_prob)
    assert [int(float(row["rank"])) for row in table] == (found.argsort().argsort() + 1).tolist()
    assert {"stderr", "solver", "truncation", "truncation_error", "prior", "nfe", "log_det"} <= set(table[0])
    said = capsys.readouterr().out
    assert f"most unusual rows: {int(found.argmin()) + 1}," in said and "20 rows" in said
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("data, flags, words", [
    ("digits", (), "rows of that kind"), ("moons", ("--out", "scores.txt"), ".csv"),
    ("moons", ("--n", "0"), "at least"),
    ("moons", ("--dequantise", "uniform", "--n", "3"), "not grey levels"),
])
def test_a_mistake_is_one_sentence_and_writes_nothing(run: Path, data: str, flags: tuple[str, ...], words: str,
                                                      capsys) -> None:
    before = sorted(run.iterdir())
    assert main(["likelihood", str(run), data, *flags]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and sorted(run.iterdir()) == before


@pytest.mark.slow
@pytest.mark.parametrize("asked", [{"label": "cl"}, {"condition": ("cl", "k")}, {"label": "cl", "condition": ("k",)}])
def test_the_runs_own_table_is_scored_with_its_class_and_conditions_or_without(asked: dict[str, Any],
                                                                              tmp_path: Path,
                                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """The columns that a run takes for class and conditions may be in the file or not, or some of them; the scores are
    the same, and the file is read once."""
    taken = [*asked.get("condition", ()), *filter(None, [asked.get("label")])]
    kept = [c for c in ("a", "b", "cl", "k") if c not in taken]
    rows = [{"a": f"{i % 7}.5", "b": f"{i % 5}", "cl": "xy"[i % 2], "k": f"{i % 4}"} for i in range(60)]
    for name, columns in (("whole", ["a", "b", "cl", "k"]), ("bare", kept), ("some", [*kept, taken[0]])):
        lines = [",".join(columns), *(",".join(row[c] for c in columns) for row in rows)]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    e = Experiment(data=str(tmp_path / "whole.csv"), steps=2, save_every=2, warmup=1, batch_size=8, eval_batch_size=16,
                   net_args={"width": 8, "depth": 1}, **asked)
    train(e, tmp_path / "run", progress=False)
    scores, read = [], []
    cells = tables.read_cells
    monkeypatch.setattr(tables, "read_cells", lambda path, *how: read.append(path.stem) or cells(path, *how))
    for name in ("whole", "bare", "some"):
        out = tmp_path / f"{name}-scores.csv"
        code = main(["likelihood", str(tmp_path / "run"), str(tmp_path / f"{name}.csv"), "--n", "4", "--out", str(out)])
        scores.append(out.read_text() if code == 0 else code)
    assert scores[0] == scores[1] == scores[2] != 2 and read == ["whole", "bare", "some"]


def test_categories_that_the_run_does_not_have_are_named(tmp_path: Path) -> None:
    """Categories are encoded by those of the run, not by those of the file."""
    (tmp_path / "t.csv").write_text("x,y\n1,here\n2,there\n3,here\n4,there\n")
    cells = tables.read_cells(tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"row 1 \(line 2\), column 'y' holds 'here'; expected a number"):
        TableSchema((ColumnFormat("x"), ColumnFormat("y"))).encode(cells)
    with pytest.raises(InputError, match=r"row 2 .* holds 'there'.* expected one of 'here', 'then'; did you mean"):
        TableSchema((ColumnFormat("x"), ColumnFormat("y", ("here", "then")))).encode(cells)
    rows = TableSchema((ColumnFormat("y", ("there", "here")), ColumnFormat("x"))).encode(cells)
    assert rows.x.tolist() == [[1, 1], [0, 2], [1, 3], [0, 4]]


@pytest.mark.slow
def test_one_row_an_outlier_and_an_impossible_row_are_scored_and_ranked(tmp_path: Path) -> None:
    """A single row is enough; the far row, and the row with another value in a constant column, have rank 1."""
    rows = [(2020, (i * 37 % 101) / 50 - 1, (i * 53 % 97) / 48 - 1, "uv"[i % 3 == 0]) for i in range(150)]

    def write(name: str, lines: list[tuple[object, ...]]) -> str:
        (tmp_path / name).write_text("\n".join(["year,a,b,word", *(",".join(map(str, line)) for line in lines)]))
        return str(tmp_path / name)

    e = Experiment(data=write("t.csv", rows), steps=40, save_every=40, batch_size=32, eval_batch_size=16,
                   net_args={"width": 16, "depth": 1})
    train(e, tmp_path / "run", progress=False)

    def ranks(name: str, lines: list[tuple[object, ...]]) -> list[tuple[float, float]]:
        out = tmp_path / f"{name}-scores.csv"
        assert main(["likelihood", str(tmp_path / "run"), write(name, lines), "--out", str(out)]) == 0
        return [(float(row["rank"]), float(row["log_prob"])) for row in csv.DictReader(out.open())]

    assert ranks("one.csv", rows[:1])[0][0] == 1
    assert ranks("far.csv", [*rows[:2], (2020, 0.3, 300, "u"), (2020, "", 0.1, "v")])[2][0] == 1
    scores = ranks("other.csv", [*rows[:3], (2021, 0.1, 0.1, "u"), *rows[3:9]])
    assert scores[3] == (1, float("-inf")) and sum(score == float("-inf") for _, score in scores) == 1


@pytest.mark.slow
def test_rank_sorts_the_rows_and_names_the_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row with one wrong number is first, and that column has the largest surprise in the file and the summary."""
    lines = ["a,b,word"] + [f"{i % 7}.5,{i % 5 - 2.25},{'xy'[i % 2]}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    e = Experiment(data=str(tmp_path / "t.csv"), steps=2, save_every=2, warmup=1, batch_size=8, eval_batch_size=16,
                   net_args={"width": 8, "depth": 1}, prediction_type="wiener")
    train(e, tmp_path / "run", progress=False)
    (tmp_path / "new.csv").write_text("a,b,word\n3.5,-2.25,x\n3.5,40.5,y\n2.5,-1.25,x")
    out = tmp_path / "s.csv"
    assert main(["likelihood", str(tmp_path / "run"), str(tmp_path / "new.csv"), "--rank", "--out", str(out)]) == 0
    table = list(csv.DictReader(out.open()))
    assert [row["rank"] for row in table] == ["1.0", "2.0", "3.0"] and table[0]["row"] == "2.0"
    surprise = {name: float(table[0][f"surprise_{name}"]) for name in ("a", "b", "word")}
    assert max(surprise, key=lambda name: surprise[name]) == "b"
    assert f"row 2: b {surprise['b']:+.1f}" in capsys.readouterr().out
