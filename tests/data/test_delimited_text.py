"""Text files of the world: encodings, separators, lines around the table, and the first line."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from undiffuse.data import Dataset, open_data
from undiffuse.data.delimited_text import cells_of_rows
from undiffuse.data.tables import read_cells
from undiffuse.errors import InputError, MachineError
from undiffuse.transforms.table_cells import TableOptions

CITIES = "city,v\n" + "Köln,1\nZürich,2\nAix’s,4\n" * 20
NUMBERS = "a,b\n" + "1.5,2\n2,4\n3,1\n" * 20


def write(path: Path, text: str | bytes, encoding: str = "utf-8") -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def note(data: Dataset, text: str) -> bool:
    return any(text in line for line in data.notes)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "mac_roman", "utf-16", "utf-16-le"])
def test_the_encoding_is_that_of_the_bytes(tmp_path: Path, encoding: str) -> None:
    data = open_data(write(tmp_path / "t.csv", CITIES, encoding))
    assert data.categories[0] == ("Aix’s", "Köln", "Zürich") and data.columns == ("city", "v")
    assert note(data, encoding) == (encoding in ("cp1252", "mac_roman")) and note(data,
                                                                                  "UTF-16") == (encoding == "utf-16-le")


def test_an_encoding_can_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "city,v\n" + "Łódź,1\nGdańsk,2\n" * 9, "cp1250")
    assert open_data(path, encoding="cp1250").categories[0] == ("Gdańsk", "Łódź")
    with pytest.raises(InputError, match="expected one that Python knows"):
        open_data(path, encoding="utf-99")


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_compressed_tables(tmp_path: Path, ending: str, pack: Callable[[bytes], bytes]) -> None:
    plain = open_data(write(tmp_path / "t.csv", NUMBERS))
    assert torch.equal(open_data(write(tmp_path / f"t.csv{ending}", pack(NUMBERS.encode()))).x, plain.x)


def test_archives_of_one_table(tmp_path: Path) -> None:
    plain = open_data(write(tmp_path / "t.csv", NUMBERS))
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("readme.md", "hello")
        archive.writestr("data/t.csv", NUMBERS)
    assert torch.equal(open_data(tmp_path / "t.zip").x, plain.x)
    with zipfile.ZipFile(tmp_path / "t.zip", "a") as archive:
        archive.writestr("u.csv", NUMBERS)
    with pytest.raises(InputError, match=r"holds 2 tables .*; expected one"):
        open_data(tmp_path / "t.zip")


@pytest.mark.parametrize(("separator", "name"), [(",", "t.csv"), (";", "t.csv"), ("\t", "t.tsv"), ("\t", "t.txt"),
                                                 ("|", "t.dat"),
                                                 (" ", "t.data"), ("   ", "t.txt"), (" \t ", "t.dat")])
def test_the_separator_is_the_one_on_which_the_lines_agree(tmp_path: Path, separator: str, name: str) -> None:
    rows = [["x", "word", "y"], *([f"{k % 7}.5", f"w{k % 3}", f"{-k}"] for k in range(40))]
    data = open_data(write(tmp_path / name, "\n".join(map(separator.join, rows)) + "\n"))
    assert data.columns == ("x", "word", "y") and data.x[3].tolist() == [3.5, 0, -3]


def test_separators_inside_of_cells_and_names(tmp_path: Path) -> None:
    text = "Größe, cm;Gewicht, kg;Art, lat\n" + "170.1;70.2;A\n171.3;68.9;B\n" * 30
    assert open_data(write(tmp_path / "t.csv", text)).columns == ("Größe, cm", "Gewicht, kg", "Art, lat")
    text = 'a,b\n"x; y",1.5\n"z; w",2.5\n' * 1 + '"x; y",1.5\n"z; w",2.5\n' * 9
    assert open_data(write(tmp_path / "t.csv", text), sep=",").categories[0] == ("x; y", "z; w")


def test_comments_preambles_units_and_footers(tmp_path: Path) -> None:
    data = open_data(write(tmp_path / "t.csv", "# logger\n# unit 7\n" + NUMBERS.replace("2,4\n", "# pause\n2,4\n", 1)))
    assert data.columns == ("a", "b") and len(data) == 60 and data.notes == ()
    rows = "".join(f"{k / 2},{20 + k % 7},{'AB'[k % 2]}\n" for k in range(40))
    text = f"Station 7\nReport of May\n\nt,T,place\ns,degC,-\n{rows}Source: the station\n"
    data = open_data(write(tmp_path / "t.csv", text))
    assert data.columns == ("t", "T", "place") and len(data) == 40
    assert note(data, "before the table") and note(data, "s, degC") and note(data, "Source: the station")
    data = open_data(write(tmp_path / "t.csv", "#x y z\n" + "".join(f"{k}.5 {k % 3} {-k}\n" for k in range(30)),
                           "utf-8"), sep=" ")
    assert data.columns == ("x", "y", "z") and len(data) == 30
    colours = open_data(write(tmp_path / "t.csv", "colour,v\n" + "#FF0000,1\n#00FF00,2\n" * 9))
    assert colours.categories[0] == ("#00FF00", "#FF0000") and len(colours) == 18


LAYOUTS: list[tuple[str, tuple[str, ...], int, list[float]]] = [
    ("id  educ         years  div\n 9  12-15 years  10.5   No\n11  < 12 years   34.9   Yes\n" * 1
     + "11  < 12 years   34.9   Yes\n 9  12-15 years  10.5   No\n" * 9, ("id", "educ", "years", "div"), 20,
     [9, 0, 10.5, 0]),
    ("mpg\tcyl\tweight name\n" + '18.0   8   3504.\t"chevrolet chevelle"\n15.0   6   3693.\t"buick skylark"\n' * 9,
     ("mpg", "cyl", "weight", "name"), 18, [18, 8, 3504, 1]),
    ("name    | v\n--------+-----\n one    | 1.5\n two    | 2\n" + " one    | 3\n two    | 7\n" * 9, ("name", "v"), 20,
     [0, 1.5]),
    ("Sales of May;;\n;;\nzip;price;n\n" + "0101;1,5;3\n0202;2,5;4\n" * 9, ("zip", "price", "n"), 18, [0, 1.5, 3]),
    ("a,b,\n" + "1.5,2\n3,4\n" * 9, ("a", "b"), 18, [1.5, 2]),
    (",1.5,2.5,4,8\n" + "a,1,2,3,4\nb,5,6,7,8\nb,5,6,7,9\na,5,6,7,9\n" * 5, ("x1", "1.5", "2.5", "4", "8"), 20,
     [0, 1, 2, 3, 4]),
    (",x1,x2\n" + "u,1.5,2\nu,3,4\nv,1,3\n" * 5, ("column1", "x1", "x2"), 15, [0, 1.5, 2]),
    (",a,b\n" + "".join(f"n{-k},{k % 3}.5,{k % 7}.25\n" for k in range(5)), ("a", "b"), 5, [0.5, 0.25]),
]


@pytest.mark.parametrize(("text", "columns", "rows", "first"), LAYOUTS)
def test_layouts_of_real_files(tmp_path: Path, text: str, columns: tuple[str, ...], rows: int,
                               first: list[float]) -> None:
    data = open_data(write(tmp_path / "t.csv", text))
    assert (data.columns, len(data), data.x[0].tolist()) == (columns, rows, first)


def test_rows_of_a_workbook_are_typed_and_may_have_a_title_above_the_names() -> None:
    body = [["1", "NA", "1.5"], ["2", "ok", ""], ["3", "NA", "2.5"]] * 3
    rows = [(k + 1, row) for k, row in enumerate([["Sales", "", ""], ["", "", ""], ["n", "w", "x"], *body])]
    cells = cells_of_rows(Path("t.xlsx"), rows, TableOptions())
    assert cells.columns == ["n", "w", "x"] and cells.values[:, 2].tolist()[2:3] == [2.5]
    assert cells.missing(1, False) == {""} and cells.notes == ["lines before the table were left out (1)"]


def test_empty_rows_are_rows_unless_they_end_the_file(tmp_path: Path) -> None:
    data = open_data(write(tmp_path / "t.csv", "a;b\n1,5;2\n;\n2,5;3\n1;4\n;\n;\nMade by hand;\n"))
    assert len(data) == 4 and bool(data.x[1].isnan().all()) and note(data, "Made by hand")
    data = open_data(write(tmp_path / "t.csv", "a;b\n1,5;2\n2,5;3\n;\n;\n"))
    assert len(data) == 2 and note(data, "empty rows below the table were left out (2)")


def test_prose_with_numbers_is_refused_by_row_and_line(tmp_path: Path) -> None:
    text = "the 3 stations of 1958 were moved in 7 steps\n" + "*** 12 values in each of the 90 lines below ***\n" * 3
    rows = "".join(f"{k} {k % 7} {k % 3}.5\n" for k in range(30))
    with pytest.raises(InputError, match=r"row \d+ \(line \d+\) has \d+ cells; expected|has no column"):
        open_data(write(tmp_path / "t.dat", text + "a b c d\n" + rows + "1 2 3 4 5 6 7 8 9 10\n"))


def test_a_workbook_names_the_packages_that_it_needs(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    with pytest.raises((MachineError, InputError), match=r"needs the packages pandas and|cannot be read as a work"):
        open_data(tmp_path / "t.xlsx")


def test_a_gap_below_the_names_is_no_line_of_units(tmp_path: Path) -> None:
    data = open_data(write(tmp_path / "t.csv", "a,b\nNA,-\n" + "1.5,2\n3,4\n" * 9))
    assert len(data) == 19 and bool(data.x[0].isnan().all())


FIRST_LINES: list[tuple[str, tuple[str, ...], int, dict[str, Any]]] = [
    ("region,2000,2001,2002\n" + "N,51.2,48.1,50.5\nS,44.2,40.5,47.1\n" * 20, ("region", "2000", "2001", "2002"), 40,
     {}),
    ("e,x,y\n" + "p,b,n\ne,s,y\n" * 20, ("x1", "x2", "x3"), 41, {}),
    ("kind,shape,ring\n" + "p,b,n\ne,s,y\n" * 20, ("kind", "shape", "ring"), 40, {}),
    ("5.1,3.5,setosa\n" + "4.9,3.0,setosa\n6.3,3.3,virginica\n" * 20, ("x1", "x2", "x3"), 41, {}),
    (",a,b\n" + "".join(f"{k},{k % 3}.5,{k % 7}.25\n" for k in range(20)), ("a", "b"), 20, {}),
    ("e,x,y\n" + "p,b,n\ne,s,y\n" * 20, ("e", "x", "y"), 40, {"header": "yes"}),
    ("a,b,c\n" + "p,b,n\ne,s,y\n" * 20, ("x1", "x2", "x3"), 41, {"header": "no"}),
    ("a b c\n" + "".join(f"r{k} {k % 3}.5 {k % 7} {-k}.25\n" for k in range(30)), ("a", "b", "c"), 30, {}),
    # names of rows
]


@pytest.mark.parametrize(("text", "columns", "rows", "options"), FIRST_LINES)
def test_the_first_line(tmp_path: Path, text: str, columns: tuple[str, ...], rows: int,
                        options: dict[str, Any]) -> None:
    data = open_data(write(tmp_path / "t.txt", text), **options)
    assert data.columns == columns and len(data) == rows
    if columns[0] == "x1" and not options:
        assert note(data, "the first line is a row")


def test_names_by_which_a_header_is_recognised(tmp_path: Path) -> None:
    """One row with a header of words: only the schema can tell."""
    path = write(tmp_path / "t.csv", "e,x,y\np,b,n\ne,s,y\n")
    assert not read_cells(path).header and read_cells(path, names=("x", "y", "z")).header


def test_a_file_of_zero_bytes_and_an_unknown_option_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="zero bytes"):
        open_data(write(tmp_path / "t.csv", b"a,b\n1,2\n\0\0\0,2\n3,4\n"))
    with pytest.raises(InputError, match="got the option 'colour'"):
        open_data(write(tmp_path / "t.csv", NUMBERS), colour="red")
    with pytest.raises(InputError, match="ignore"):
        open_data("moons", ignore=["x1"])
