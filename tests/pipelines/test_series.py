"""Imputation and forecasts of series by a run: files to the character, draws by index, times, and refusals."""

from __future__ import annotations

import csv
import math
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

import undiffuse as ud
from undiffuse.cli import main
from undiffuse.errors import InputError
from undiffuse.inverse import series_imputer
from undiffuse.inverse.window_law import WindowLaw
from undiffuse.pipelines import series, series_files

pandas = pytest.importorskip("pandas")
COLUMNS = ("load", "heat")


def rows(n: int, seed: int = 0) -> list[list[str]]:
    """Hourly rows of a noisy daily curve with two decimals and with gaps."""
    noise = np.cumsum(ud.random.normal(seed, 9, 3, 0, n, (2,)).double().numpy(), 0) * 0.1
    table = []
    for k in range(n):
        curve = math.sin(2 * math.pi * k / 24)
        values = [f"{5 + curve + noise[k, 0] % 1:.2f}", f"{20 - 2 * curve + noise[k, 1] % 1:.2f}"]
        if k % 11 == 5:
            values[k % 2] = ""
        table.append([f"{datetime(2023, 5, 1) + timedelta(hours=k):%d.%m.%Y %H:%M}", *values])
    return table


def write(path: Path, table: list[list[str]]) -> Path:
    path.write_text("".join(";".join(row) + "\r\n" for row in [["when", *COLUMNS], *table]), newline="")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 400 hours, with a short training and a small correction."""
    folder = tmp_path_factory.mktemp("series")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(series_imputer, "PAIRS", 128)
        patch.setattr(series_imputer, "TESTED", 32)
        patch.setattr(series_imputer, "_CHOICE", 16)
        ud.train(str(write(folder / "s.csv", rows(400))), folder / "run", time="when", window=16, steps=4, held_out=60,
                 progress=False)
    return folder


def test_files_change_only_in_empty_cells(run: Path) -> None:
    source, out = write(run / "gaps.csv", rows(90, 1)), run / "filled"
    assert main(["impute", str(run / "run"), str(source), "--out", str(out), "--draws", "3"]) == 0
    before = source.read_bytes().decode().split("\r\n")
    for k in (1, 2, 3):
        after = (out / f"draw-{k}.csv").read_bytes().decode().split("\r\n")
        assert len(after) == len(before)
        for old, new in zip(before[:-1], after, strict=False):
            for a, b in zip(old.split(";"), new.split(";"), strict=True):
                assert a == b if a else len(b.split(".")[1]) == 2
    summary = list(csv.DictReader((out / "summary.csv").open(), delimiter=";"))
    gap = next(row for k, row in enumerate(summary) if k % 11 == 5 and k % 2 == 0)
    assert float(gap["load_low"]) <= float(gap["load"]) <= float(gap["load_high"])


def test_draws_do_not_depend_on_their_number_and_agree_with_frames(run: Path) -> None:
    model, frame = ud.load(run / "run"), pandas.read_csv(run / "s.csv", sep=";")
    few, many = ud.impute(model, frame, 2, seed=4), ud.impute(model, frame, 5, seed=4)
    assert torch.equal(few, many[:2]) and not torch.equal(many[0], many[1])
    copies = ud.impute_frames(model, frame, 2, seed=4)
    assert np.array_equal(copies[1][list(COLUMNS)].to_numpy(float), few[1].numpy())
    observed = frame[list(COLUMNS)].notna().to_numpy()
    assert np.array_equal(copies[0][list(COLUMNS)].to_numpy()[observed], frame[list(COLUMNS)].to_numpy()[observed])
    assert list(copies[0]["when"]) == list(frame["when"])


def test_a_forecast_goes_on_in_time(run: Path) -> None:
    model, frame = ud.load(run / "run"), pandas.read_csv(run / "s.csv", sep=";")
    future = ud.forecast(model, frame, 30, draws=40, seed=2)
    assert future.x.shape == (40, 30, 2) and future.columns == COLUMNS
    assert future.times[0] == "17.05.2023 16:00" and future.times[-1] == "18.05.2023 21:00"
    assert torch.equal(ud.forecast(model, frame, 30, draws=5, seed=2).x, future.x[:5])
    table = future.frame(0.8)
    assert list(table) == ["when", "load", "load_low", "load_high", "heat", "heat_low", "heat_high"]
    assert (table["load_low"] <= table["load"]).all() and (table["load"] <= table["load_high"]).all()
    assert torch.allclose(future.quantile(0.5)[:, 0], torch.tensor(table["load"].to_numpy()), rtol=1e-8)
    assert torch.allclose(future.mean, future.x.mean(0))


def test_what_is_known_of_the_future_is_kept_and_used(run: Path) -> None:
    """A known heat of the steps to come is copied, and moves the draws of the load."""
    model, frame = ud.load(run / "run"), pandas.read_csv(run / "s.csv", sep=";")
    ahead = ud.forecast(model, frame, 6, draws=50)
    known = pandas.DataFrame({"when": ahead.times, "load": [None] * 6, "heat": [25.0] * 6})
    future = ud.forecast(model, frame, 6, draws=50, future=known)
    assert (future.x[:, :, 1] == 25.0).all() and not torch.equal(future.x[:, :, 0], ahead.x[:, :, 0])


def test_the_files_of_a_forecast(run: Path) -> None:
    out = run / "ahead"
    arguments = ["forecast", str(run / "run"), str(run / "s.csv"), "--horizon", "5", "--draws", "7", "--out", str(out)]
    assert main(arguments) == 0
    assert (out / "forecast.png").read_bytes().startswith(b"\x89PNG")
    table = list(csv.DictReader((out / "draws.csv").open(), delimiter=";"))
    assert len(table) == 35 and table[0]["draw"] == "1" and table[5]["draw"] == "2"
    assert all(len(row["load"].split(".")[1]) == 2 for row in table)
    assert main(arguments) == 2  # the folder is not empty
    assert series_files.forecast_file is not None


def test_an_unusual_step_has_the_first_rank(run: Path) -> None:
    """A value far from its neighbours, in windows and steps; log-densities are in data units."""
    table = rows(100, 2)
    table[61][1] = "19.00"
    source, out = write(run / "odd.csv", table), run / "odd-scores.csv"
    assert main(["likelihood", str(run / "run"), str(source), "--out", str(out), "--rank"]) == 0
    steps = list(csv.DictReader((run / "odd-scores-steps.csv").open(), delimiter=";"))
    assert steps[0]["row"] == "62" and steps[0]["rank"] == "1" and len(steps) == 100
    windows = list(csv.DictReader(out.open(), delimiter=";"))
    assert windows[0]["when"] in ("03.05.2023 00:00", "03.05.2023 08:00") and len(windows) == 12
    model = ud.load(run / "run")
    frame = pandas.read_csv(source, sep=";")
    scaled = frame.assign(load=frame["load"].astype(float))
    scores, law = series.score_series(model, scaled), series.imputer_of(model).law
    first = torch.tensor(scaled[list(COLUMNS)].to_numpy(float)[:16])
    z = model.transform.forward(first[None])[0].double()
    begin = int(scores.windows[0, 1])
    expected = law.step_scores(z, begin)[0].sum() + model.transform.log_det(first[None])[0]
    assert scores.windows[0, 3] == pytest.approx(float(expected), rel=1e-6)


def test_samples_are_windows_in_the_notation_of_the_table(run: Path) -> None:
    out = run / "new.csv"
    assert main(["sample", str(run / "run"), "--n", "3", "--out", str(out)]) == 0
    table = list(csv.DictReader(out.open(), delimiter=";"))
    assert [row["window"] for row in table] == [str(1 + k // 16) for k in range(48)]
    assert all(len(row["heat"].split(".")[1]) == 2 for row in table)
    x = ud.sample(ud.load(run / "run"), 3).x
    assert float(table[17]["load"]) == pytest.approx(float(x[1, 1, 0]), abs=0.006)


def test_a_gaussian_imputer_gives_the_closed_form(run: Path) -> None:
    """The posterior of a window by the law of the run: mean and variance within 4 standard errors of 4,000 draws."""
    model, n = ud.load(run / "run"), 4000
    imputer = series.imputer_of(model)
    begin = 24 * 19_000  # midnight
    mean, cov = imputer.law.moments(begin)
    window = mean.reshape(2, 16).clone()
    window[:, 6:9] = math.nan
    window[0, 2] += 1.0
    x, g = window.flatten(), window.flatten().isnan()
    gain = torch.linalg.solve(cov[~g][:, ~g], cov[~g][:, g]).T
    expected, var = mean[g] + gain @ (x - mean)[~g], (cov[g][:, g] - gain @ cov[~g][:, g]).diag()
    draws = imputer.series(window, begin, n, corrected=False).flatten(1)[:, g]
    assert float(((draws.mean(0) - expected) / (var / n).sqrt()).abs().max()) < 4
    assert float((draws.var(0) / var - 1).abs().max()) < 4 * math.sqrt(2 / n)
    assert isinstance(imputer.law, WindowLaw)


@pytest.mark.parametrize(("change", "message"), [
    (lambda f: f.rename(columns={"when": "time"}), "no column 'when'"),
    (lambda f: f[["when"]], "only the column"),
    (lambda f: f.assign(load="much"), "much"),
])
def test_tables_of_another_form_are_refused(run: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    frame = pandas.read_csv(run / "s.csv", sep=";")
    with pytest.raises(InputError, match=message):
        ud.forecast(ud.load(run / "run"), change(frame), 4)


def test_wrong_numbers_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, frame = ud.load(run / "run"), pandas.read_csv(run / "s.csv", sep=";")
    for call in (lambda: ud.forecast(model, frame, 0), lambda: ud.forecast(model, frame, 4, draws=0),
                 lambda: ud.forecast(model, frame, 4, method="magic")):
        with pytest.raises(InputError):
            call()
    whole = write(run / "whole.csv", [row for row in rows(60) if all(row)])
    assert main(["impute", str(run / "run"), str(whole), "--out", str(run / "none")]) == 2
    assert "forecast" in capsys.readouterr().err
