"""Imputation: the closed form on Gaussian rows, files that come back to the character, and refusals."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from undiffuse.cli import main
from undiffuse.data import open_data
from undiffuse.data.tables import read_cells
from undiffuse.inverse.guides import MomentGuide
from undiffuse.mixture import Gaussian
from undiffuse.moments import Moments
from undiffuse.pipelines import csv_text, impute
from undiffuse.processes import VP
from undiffuse.random import Purpose, normal, uniform
from undiffuse.transforms.table_schema import TableSchema

COV = torch.tensor([[2.0, 1.2, -0.4], [1.2, 1.5, 0.3], [-0.4, 0.3, 1.0]], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def model():  # type: ignore[no-untyped-def]
    exact = Gaussian(MEAN, COV).denoiser(VP())
    values, basis = torch.linalg.eigh(COV)
    exact.moments = Moments((3,), MEAN, values, "pca", basis)
    return exact


@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_the_guided_denoiser_is_the_closed_form(t: float) -> None:
    """E[x_0 | x_t, y] of a Gaussian, x_t = α x_0 + σ ε and cells of x_0 seen exactly, by one joint conditioning."""
    exact = model()
    alpha, sigma = float(exact.sde.alpha(torch.tensor(t))), float(exact.sde.sigma(torch.tensor(t)))
    x_t = torch.tensor([[0.3, -1.0, 0.8]], dtype=torch.float64)
    y = torch.tensor([[2.0, math.nan, -0.5]], dtype=torch.float64)
    A = torch.cat([alpha * torch.eye(3), torch.eye(3)[[0, 2]]]).double()
    noise = torch.diag(torch.tensor([sigma**2] * 3 + [0.0, 0.0], dtype=torch.float64))
    seen = torch.cat([x_t[0], y[0, [0, 2]]])
    expected = MEAN + COV @ A.mT @ torch.linalg.solve(A @ COV @ A.mT + noise, seen - A @ MEAN)
    guided = MomentGuide(exact).denoise(x_t, t, y=y)[0]
    assert torch.allclose(guided, expected, atol=1e-6)


@pytest.mark.parametrize(("method", "n"), [("linear", 4000), ("mmps", 1000), ("twisted", 500)])
def test_draws_have_the_conditional_mean_and_variance(method: str, n: int) -> None:
    """Of a Gaussian row with one gap, within five standard errors of n draws and the sampler's 2 %."""
    row = torch.tensor([[2.0, math.nan, 0.0]], dtype=torch.float64)
    samples = impute.impute(model(), row, n, steps=20, method=method)
    gain = COV[1, [0, 2]] @ torch.linalg.inv(COV[[0, 2]][:, [0, 2]])
    mean, var = float(MEAN[1] + gain @ (row[0, [0, 2]] - MEAN[[0, 2]])), float(COV[1, 1] - gain @ COV[[0, 2], 1])
    assert float(samples[:, 0, 1].mean()) == pytest.approx(mean, abs=5 * math.sqrt(var / n) + 0.02)
    assert float(samples[:, 0, 1].var()) == pytest.approx(var, rel=5 * math.sqrt(2 / n) + 0.04)
    assert torch.equal(samples[:, 0, [0, 2]], row[:, [0, 2]].expand(n, 2))


def test_many_rows_are_imputed_from_one_another() -> None:
    """y = x² with half of y missing, under a model that knows mean and covariance only: rows follow the curve."""
    x = normal(0, Purpose.DATA, 90, 0, 300, (2,), torch.float64)
    rows = torch.stack([x[:, 0], x[:, 0] ** 2 + 0.1 * x[:, 1], x[:, 1]], 1)
    gone = rows.clone()
    gone[::2, 1] = math.nan
    linear, exact = model(), model()
    exact.schema = TableSchema.of_numbers(["a", "b", "c"], rows.numpy())
    error = [float((impute.impute(m, gone, 5)[:, ::2, 1] - rows[::2, 1]).abs().median()) for m in (exact, linear)]
    assert error[0] < 0.3 < 0.8 < error[1]
    assert torch.equal(impute.impute(exact, gone, 2), impute.impute(exact, gone, 2, method="rows"))
    few = gone[:40]
    assert torch.equal(impute.impute(exact, few, 2), impute.impute(linear, few, 2, method="linear"))


CELL = st.sampled_from(["1", " 2.50", "", "NA", '"a b"', '"say ""x"", y"', "0001", "1e3 "])


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=5), st.sampled_from(["\n", "\r\n"]), st.booleans(),
       st.sampled_from(["", "\ufeff"]))
def test_a_text_comes_back_but_for_the_cells_that_are_filled(rows: list[tuple[str, ...]], end: str, last: bool,
                                                              mark: str) -> None:
    lines = [",".join(row) for row in rows]
    text = mark + end.join(["u,v,w", *lines]) + (end if last else "")
    cells, ends = csv_text.split(text, ",")
    again = csv_text.Text(",", cells, ends, list(range(1, len(cells))), 0)
    assert again.filled({}).decode() == text
    at = len(rows) // 2
    expected = [list(row) for row in rows]
    expected[at][1] = "7"
    assert again.filled({(at, 1): "7"}).decode() == mark + end.join(["u,v,w", *map(",".join, expected)]) + (end if last
                                                                                                            else "")


def table(n: int = 80) -> list[list[str]]:
    """Rows of a number, a word, a count and a constant; every seventh cell is empty, in up to three spellings."""
    z, u = normal(0, Purpose.DATA, 70, 0, n, (3,)).tolist(), uniform(0, Purpose.DATA, 71, 0, n, (4,)).tolist()
    rows = [[f"{a:.4f}", "New York" if b > 0.3 else '"Paris, FR"', str(int(abs(3 * c))), "5.0"] for a, b, c in z]
    return [[("", "nan" if j == 1 else "NA", "nan")[i % 3] if v < 1 / 7 else cell
             for j, (cell, v) in enumerate(zip(row, gone, strict=True))]
            for i, (row, gone) in enumerate(zip(rows, u, strict=True))]


def write(path: Path, rows: list[list[str]], head: str = "size,city,count,same") -> Path:
    path.write_text("\r\n".join([head, *map(",".join, rows)]) + "\r\n", newline="")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imputation")
    source = write(folder / "t.csv", table())
    assert main(["train", str(source), "--out", str(folder / "run"), "--steps", "4", "--save-every", "2"]) == 0
    return folder / "run"


def cells(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_the_command_fills_the_gaps_and_nothing_else(run: Path, tmp_path: Path) -> None:
    source = run.parent / "t.csv"
    assert main(["impute", str(run), str(source), "--draws", "3", "--out", str(tmp_path / "out")]) == 0
    before = [line.split(",") for line in source.read_text().replace('"Paris, FR"', "PARIS").splitlines()]
    for k in range(3):
        file = tmp_path / "out" / f"draw-{k + 1}.csv"
        assert file.read_bytes().count(b"\r\n") == 81
        after = [line.split(",") for line in file.read_text().replace('"Paris, FR"', "PARIS").splitlines()]
        for old, new in zip(before, after, strict=True):
            for name, was, now in zip(before[0], old, new, strict=True):
                if was in ("", "NA", "nan"):
                    assert now in ("New York", "PARIS") if name == "city" else math.isfinite(float(now))
                    assert name != "count" or now.lstrip("-").isdigit()
                    assert name != "same" or now == "5.0"
                else:
                    assert now == was
    data = open_data(tmp_path / "out" / "draw-1.csv")
    assert not data.x.isnan().any() and data.categories[1] == ("New York", "Paris, FR") and (data.x[:, 3] == 5).all()


def test_a_parquet_file_is_filled_as_the_csv_of_its_rows(run: Path, tmp_path: Path,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    hf = pytest.importorskip("datasets", reason="the extra undiffuse[data] is not installed")
    rows = [[None if word in ("", "NA", "nan") else word.strip('"') for word in row] for row in table()]
    kinds = {"size": float, "city": str, "count": int, "same": float}
    values = {name: [v if v is None else kind(v) for v in column]
              for (name, kind), column in zip(kinds.items(), zip(*rows, strict=True), strict=True)}
    hf.Dataset.from_dict(values).to_parquet(tmp_path / "t.parquet")
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([list(values), *zip(*values.values(), strict=True)])
    for kind in ("csv", "parquet"):
        asked = ["impute", str(run), str(tmp_path / f"t.{kind}"), "--draws", "2", "--out", str(tmp_path / kind)]
        assert main(asked) == 0
    for name in ("draw-1.csv", "draw-2.csv", "summary.csv"):
        assert (tmp_path / "parquet" / name).read_text() == (tmp_path / "csv" / name).read_text()
    hf.Dataset.from_dict({**values, "tokens": [[1]] * len(rows)}).to_parquet(tmp_path / "u.parquet")
    assert main(["impute", str(run), str(tmp_path / "u.parquet")]) == 0 and "(tokens)" in capsys.readouterr().err


def test_the_summary_is_that_of_the_draws(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["impute", str(run), str(run.parent / "t.csv"), "--draws", "19", "--out", str(out)]) == 0
    head, *body = cells(out / "summary.csv")
    assert head == ["size", "city", "count", "same", "size_low", "size_high", "city_share", "count_low", "count_high",
                    "same_low", "same_high"]
    draws, original = [cells(out / f"draw-{k + 1}.csv")[1:] for k in range(19)], cells(run.parent / "t.csv")[1:]
    for i, (row, was) in enumerate(zip(body, original, strict=True)):
        here, there = [d[i][0] for d in draws], [d[i][1] for d in draws]
        if was[0] in ("", "NA", "nan"):
            values = np.array(here, float)
            # Of 19 draws the ends of the 90 % interval are the lowest and the highest: 1/20 to 19/20.
            expected = [values.mean(), values.min(), values.max()]
            assert np.allclose([float(row[0]), float(row[4]), float(row[5])], expected, atol=6e-5)  # four decimals
        else:
            assert row[0] == was[0] and row[4] == row[5] == ""
        if was[1] in ("", "NA", "nan"):
            assert there.count(row[1]) == max(map(there.count, there))
            assert float(row[6]) == pytest.approx(there.count(row[1]) / 19, abs=1e-4)


def test_samples_have_the_columns_and_types_of_the_table(run: Path, tmp_path: Path) -> None:
    assert main(["sample", str(run), "--n", "30", "--out", str(tmp_path / "s.csv")]) == 0
    head, *body = cells(tmp_path / "s.csv")
    assert head == ["size", "city", "count", "same"] and {row[1] for row in body} <= {"New York", "Paris, FR"}
    assert all(row[2].isdigit() and row[3] == "5.0" for row in body)


def test_samples_without_a_requested_class_report_the_sampled_class(run: Path, tmp_path: Path) -> None:
    """Classes as frequent as in the data: Paris in 4 of 5 rows of 400, within four standard errors."""
    rows = [[f"{i % 9}.5", f"{i % 4}", "Paris" if i % 5 else "Rome"] for i in range(50)]
    source = tmp_path / "t.csv"
    source.write_text("\n".join(",".join(row) for row in [["a", "b", "city"], *rows]))
    assert main(["train", str(source), "--out", str(tmp_path / "run"), "--steps", "2", "--label", "city"]) == 0
    assert main(["sample", str(tmp_path / "run"), "--n", "400", "--out", str(tmp_path / "s.csv")]) == 0
    head, *body = cells(tmp_path / "s.csv")
    assert head == ["a", "b", "city"] and abs(sum(row[2] == "Paris" for row in body) / 400 - 0.8) < 4 * 0.02


CASES = [("other columns", [["1", "x", "2", "5"]], "a,b,c,d", "no column 'size'"),
         ("a new word", [["", "Rome", "2", "5"]], "size,city,count,same", "'Rome', which is not in the training data"),
         ("a word for a number", [["big", "New York", "", "5"]], "size,city,count,same", "'big'; expected a number"),
         ("an infinity", [["inf", "New York", "", "5"]], "size,city,count,same", "holds 'inf'"),
         ("no gap", [["1", "New York", "2", "5"]], "size,city,count,same", "no empty cell")]


@pytest.mark.parametrize(("rows", "head", "words"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_does_not_fit_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                      rows: list[list[str]], head: str, words: str) -> None:
    source = write(tmp_path / "bad.csv", rows, head)
    assert main(["impute", str(run), str(source)]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not (tmp_path / "bad-imputed").exists()


def test_other_columns_are_copied_and_absent_ones_are_added(run: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "t.csv", [["7", "New York", "", "5"], ["8", "Paris", "2", "5"]], "id,town,count,same")
    assert main(["impute", str(run), str(source), "--draws", "1", "--out", str(tmp_path / "out")]) == 0
    head, *body = cells(tmp_path / "out" / "draw-1.csv")
    assert head == ["id", "town", "count", "same", "size", "city"]
    assert [row[:2] for row in body] == [["7", "New York"], ["8", "Paris"]] and body[0][2].isdigit()
    assert all(math.isfinite(float(row[4])) and row[5] in ("New York", "Paris, FR") for row in body)


def test_a_folder_that_holds_something_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    assert main(["impute", str(run), str(run.parent / "t.csv"), "--out", str(tmp_path)]) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_the_columns_may_stand_in_another_order(run: Path, tmp_path: Path) -> None:
    """The same rows, columns turned round, get the same draws."""
    turned = [row[::-1] for row in table()]
    source = write(tmp_path / "turned.csv", turned, "same,count,city,size")
    for path, out in ((source, "a"), (run.parent / "t.csv", "b")):
        assert main(["impute", str(run), str(path), "--draws", "1", "--out", str(tmp_path / out)]) == 0
    a, b = cells(tmp_path / "a" / "draw-1.csv"), cells(tmp_path / "b" / "draw-1.csv")
    assert [row[::-1] for row in a] == b and len(read_cells(source).lines) == 80


@pytest.mark.parametrize("method", ["mmps", "twisted"])
def test_other_methods_and_tables_with_conditions(method: str, tmp_path: Path) -> None:
    """A run that was given two of the columns takes them from the table, or does without."""
    source = write(tmp_path / "t.csv", table())
    told = ["--condition", "city,count", "--steps", "4", "--save-every", "2"]
    assert main(["train", str(source), "--out", str(tmp_path / "run"), *told]) == 0
    without = write(tmp_path / "without.csv", [[row[3], row[0]] for row in table()[:7]], "same,size")
    for name, file in (("a", write(tmp_path / "some.csv", table()[:7])), ("b", without)):
        asked = ["--draws", "3", "--steps", "4", "--method", method, "--out", str(tmp_path / name)]
        assert main(["impute", str(tmp_path / "run"), str(file), *asked]) == 0
        for row, new in zip(cells(file), cells(tmp_path / name / "draw-2.csv"), strict=True):
            assert [b for a, b in zip(row, new, strict=True) if a not in ("", "NA", "nan")] == [
                a for a in row if a not in ("", "NA", "nan")]
    assert cells(tmp_path / "a" / "draw-1.csv")[4][0] not in ("", "NA", "nan")
