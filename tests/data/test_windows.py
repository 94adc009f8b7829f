"""Series: times on a grid, windows, a split by time, and what is refused."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from undiffuse.data import open_data
from undiffuse.data.sources import series_cells
from undiffuse.data.windows import SeriesOptions, series_schema, series_table, windows_of
from undiffuse.errors import InputError
from undiffuse.transforms.series_schema import SeriesSchema

START = datetime(2024, 2, 27, 22)


def table(path: Path, hours: list[int], group: str = "", names: bool = True) -> Path:
    """A file with a row per hour: the time, the hour, its square."""
    lines = ["when,a,b" + ",unit" * bool(group)] * names
    lines += [f"{START + timedelta(hours=h):%Y-%m-%d %H:%M},{h % 7}.5,{h * h % 11}.25" + f",{group}" * bool(group)
              for h in hours]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_windows_are_consecutive_steps(tmp_path: Path) -> None:
    data = open_data(table(tmp_path / "s.csv", list(range(60))), time="when", window=8, stride=4)
    assert data.kind == "array" and data.array is not None and data.array.layout == "NTC"
    assert data.x.shape == (14, 8, 2) and data.columns == ("a", "b")
    assert repr(data) == "Dataset(14 windows of 8 steps of 2 channels (s.csv))"
    expected = torch.tensor([[h % 7 + 0.5, h * h % 11 + 0.25] for h in range(60)])
    for k in range(14):
        assert torch.equal(data.x[k], expected[4 * k:4 * k + 8])
    assert data.starts is not None
    assert (data.starts[:, 1] - data.starts[0, 1]).tolist() == [4 * k for k in range(14)]


def test_a_step_without_a_row_is_missing_and_order_does_not_matter(tmp_path: Path) -> None:
    hours = [h for h in range(60) if h not in (10, 11, 40)]
    data = open_data(table(tmp_path / "s.csv", hours[20:] + hours[:20]), time="when", window=8)
    whole = open_data(table(tmp_path / "whole.csv", list(range(60))), time="when", window=8)
    gone = torch.zeros(60, dtype=torch.bool)
    gone[[10, 11, 40]] = True
    missing = torch.stack([gone[k:k + 8] for k in range(53)])
    assert torch.equal(data.x.isnan().any(2), missing)
    assert torch.equal(data.x.nan_to_num(-1), torch.where(missing[..., None], -1.0, whole.x))
    assert any("3 steps without a row" in note for note in data.notes)
    assert any("order of their times" in note for note in data.notes)


def test_series_are_cut_at_long_holes_and_not_mixed(tmp_path: Path) -> None:
    a = table(tmp_path / "a.csv", list(range(20)), "north").read_text()
    b = table(tmp_path / "b.csv", [*range(5, 20), *range(40, 60)], "south", names=False).read_text()
    (tmp_path / "s.csv").write_text(a + b)
    data = open_data(tmp_path / "s.csv", time="when", window=8, group="unit")
    assert data.starts is not None and not data.x.isnan().any()
    starts = data.starts - data.starts[0]
    assert starts[:, 0].tolist() == [0] * 13 + [1] * 21
    assert starts[:, 1].tolist() == [*range(13), *range(5, 13), *range(40, 53)]


def test_the_split_is_by_time_and_no_window_is_on_both_sides(tmp_path: Path) -> None:
    data = open_data(table(tmp_path / "s.csv", list(range(100))), time="when", window=8)
    train, test = data.split(20)
    assert train.starts is not None and test.starts is not None and len(test) == 20
    assert int(train.starts[:, 1].max()) + 8 == int(test.starts[:, 1].min())
    with pytest.raises(InputError, match="no other ends before"):
        data.split(90)


@pytest.mark.parametrize(("pattern", "period", "count"), [("%Y-%m-%d", 7, 40), ("%Y-%m", 12, 30), ("%d.%m.%Y", 7, 40)])
def test_dates_of_other_steps(tmp_path: Path, pattern: str, period: int, count: int) -> None:
    """Days have a period of a week and months one of a year; times are written as they were."""
    dates = [(datetime(2020, 1, 1) + timedelta(days=k)).strftime(pattern) if period == 7 else
             f"{2020 + k // 12}-{k % 12 + 1:02d}" for k in range(count)]
    (tmp_path / "s.csv").write_text("t,y\n" + "".join(f"{d},{k * 37 % 11}.5\n" for k, d in enumerate(dates)))
    data = open_data(tmp_path / "s.csv", time="t", window=6)
    assert data.array is not None and data.array.windows is not None and data.starts is not None
    schema = SeriesSchema.from_config(data.array.windows)
    assert schema.period == period
    first = int(data.starts[0, 1])
    assert [schema.time_text(first + k) for k in range(count)] == dates


def test_numbers_and_rows_are_times_too(tmp_path: Path) -> None:
    x = np.sin(np.arange(50) / 3)[:, None] + np.arange(50)[:, None] % 3
    data = open_data(x, window=10)
    assert data.x.shape == (41, 10, 1)
    (tmp_path / "s.csv").write_text("t,y\n" + "".join(f"{0.5 + 0.25 * k},{v[0]!r}\n".replace("np.float64(", "").replace(
        ")", "") for k, v in enumerate(x) if k != 7))
    same = open_data(tmp_path / "s.csv", time="t", window=10)
    assert same.x.shape == (41, 10, 1) and int(same.x[0].isnan().sum()) == 1


def test_a_frame_with_times_as_its_index_is_read_like_one_with_a_column(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(table(tmp_path / "s.csv", list(range(40))), parse_dates=["when"])
    column, index = open_data(frame, time="when", window=8), open_data(frame.set_index("when"), time="when", window=8)
    assert torch.equal(column.x, index.x) and column.starts is not None and index.starts is not None
    assert torch.equal(column.starts, index.starts)
    unnamed = frame.set_index("when").rename_axis(None)
    assert torch.equal(open_data(unnamed, time="time", window=8).x, column.x)


@pytest.mark.parametrize(("edit", "message"), [
    (lambda rows: [*rows, rows[3]], "have the time of another row"),
    (lambda rows: [*rows[:9], rows[9].replace("2024", "soon"), *rows[10:]], "holds 'soon|row 9|'soon"),
    (lambda rows: [*rows[:9], "," + rows[9].split(",", 1)[1], *rows[10:]], "holds no time"),
])
def test_what_cannot_be_put_on_a_grid_is_refused(tmp_path: Path, edit, message: str) -> None:  # type: ignore[no-untyped-def]
    rows = table(tmp_path / "s.csv", list(range(40))).read_text().splitlines()
    (tmp_path / "s.csv").write_text("\n".join(edit(rows)) + "\n")
    with pytest.raises(InputError, match=message):
        open_data(tmp_path / "s.csv", time="when", window=8)


def test_irregular_times_are_refused_and_few_of_them_moved(tmp_path: Path) -> None:
    rows = table(tmp_path / "s.csv", list(range(60))).read_text().splitlines()
    late = [*rows[:20], rows[20].replace(":00", ":10"), *rows[21:]]
    (tmp_path / "late.csv").write_text("\n".join(late) + "\n")
    data = open_data(tmp_path / "late.csv", time="when", window=8)
    assert any("1 times are not on the grid" in note for note in data.notes) and not data.x.isnan().any()
    wild = [rows[0], *(row.replace(":00", f":{k * 7 % 60:02d}") for k, row in enumerate(rows[1:]))]
    (tmp_path / "wild.csv").write_text("\n".join(wild) + "\n")
    with pytest.raises(InputError, match="resample"):
        open_data(tmp_path / "wild.csv", time="when", window=8)


@pytest.mark.parametrize(("options", "message"), [
    ({"time": "when"}, "without window"), ({"window": 8, "time": "then"}, "no column 'then'"),
    ({"window": 100, "time": "when"}, "choose a shorter window"), ({"window": 1}, "at least 2"),
    ({"window": 8, "time": "when", "label": "a"}, "for a series"), ({"window": 8, "group": "x"}, "no column 'x'"),
])
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_data(table(tmp_path / "s.csv", list(range(60))), **options)  # type: ignore[arg-type]


def test_words_are_left_out_and_the_schema_comes_back(tmp_path: Path) -> None:
    rows = table(tmp_path / "s.csv", list(range(60)), "north").read_text()
    (tmp_path / "s.csv").write_text(rows)
    cells = series_cells(tmp_path / "s.csv")
    schema, notes = series_schema(cells, SeriesOptions("when", 8))
    assert schema.table.columns == ("a", "b") and any("unit" in note for note in notes)
    again = SeriesSchema.from_config(schema.config())
    assert again.config() == schema.config() and again.time_text(5) == schema.time_text(5)
    x, starts = windows_of(series_table(cells, again), 8)
    assert x.shape == (7, 8, 2) and len(starts) == 7
