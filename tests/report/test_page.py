"""The page: it needs no other file, escapes what it is given, is the same twice, and says what was measured."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report.conftest import EVIL, Tiny

from undiffuse.errors import InputError
from undiffuse.report import evaluate, write_report
from undiffuse.report.wording import short
from undiffuse.training.ema_sweep import compare_ema

KINDS = ("images", "points", "table")
VOID = {"meta", "link", "img", "br", "path", "use", "rect"}


class Reader(HTMLParser):
    """The elements of a page, and the tags that were not closed in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)


@pytest.fixture(scope="module")
def pages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One page of every kind, each with its numbers beside it."""
    folder = tmp_path_factory.mktemp("pages")
    made = {}
    for kind in KINDS:
        run: Tiny = request.getfixturevalue(kind)
        made[kind] = write_report(run.folder, folder / f"{kind}.html", n=60, data=run.data)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_fetched_from_anywhere(pages: dict[str, Path], kind: str) -> None:
    text = pages[kind].read_text()
    reader = Reader(text)
    sources = [value or "" for _, given in reader.elements for name, value in given.items()
               if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster")]
    assert len(sources) > 10
    assert [s[:60] for s in sources if not s.startswith(("data:", "#"))] == []
    assert [u for u in re.findall(r"url\(([^)]*)\)", text) if not u.startswith("#")] == []
    assert re.findall(r"https?:|@import|<script", text) == []
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_whole_and_every_figure_is_told_in_words(pages: dict[str, Path], kind: str) -> None:
    reader = Reader(pages[kind].read_text())
    assert (reader.open, reader.wrong) == ([], [])
    assert all(given.get("alt") for tag, given in reader.elements if tag == "img")
    assert all(given.get("aria-label") for tag, given in reader.elements if tag == "svg")
    count = [tag for tag, _ in reader.elements].count
    assert count("figure") == count("figcaption") >= 6
    assert sum(str(given.get("src", "")).startswith("data:image/gif") for _, given in reader.elements) == 1


@pytest.mark.parametrize("kind", ["images", "table"])
def test_names_that_come_with_the_data_are_text(pages: dict[str, Path], kind: str) -> None:
    text = pages[kind].read_text()
    assert EVIL not in text and "&lt;script&gt;alert" in text


@pytest.mark.parametrize("kind", KINDS)
def test_charts_take_their_colours_from_the_page(pages: dict[str, Path], kind: str) -> None:
    drawn = re.findall(r'<svg class="chart".*?</svg>', pages[kind].read_text(), re.S)
    assert len(drawn) >= 4
    for svg in drawn:
        assert set(re.findall(r"(?:fill|stroke): ?([^;\"]*)", svg)) <= {
            "none", *(f"var(--{name})" for name in ("ink", "muted", "rule", "real", "made", "paper"))}
    style = pages[kind].read_text().split("</style>")[0]
    assert style.count("--made:") == style.count("--real:") == 2  # a light page and a dark one


@pytest.mark.parametrize("kind", KINDS)
def test_the_numbers_beside_the_page_are_those_of_evaluate(
        pages: dict[str, Path], kind: str, request: pytest.FixtureRequest) -> None:
    run: Tiny = request.getfixturevalue(kind)
    numbers = evaluate(run.folder, n=60, data=run.data)
    assert json.loads(pages[kind].with_suffix(".json").read_text()) == numbers
    headline = {"images": f"{100 * numbers.get('class_agreement', 0):.1f}\u00a0% of the generated",
                "points": f"{numbers['ratio']:.{2 if numbers['ratio'] < 2 else 1}f}\u00a0times",
                "table": f"{numbers['ratio']:.{2 if numbers['ratio'] < 2 else 1}f}\u00a0times"}
    assert headline[kind] in re.findall(r"<h1>(.*?)</h1>", pages[kind].read_text())[0]


def test_the_same_run_gives_the_same_bytes(pages: dict[str, Path], table: Tiny, tmp_path: Path) -> None:
    again = write_report(table.folder, tmp_path / "table.html", n=60, data=table.data)
    assert again.read_bytes() == pages["table"].read_bytes()


def test_averages_of_the_weights_are_compared_as_the_sweep_compares_them(pages: dict[str, Path], images: Tiny) -> None:
    running, *others = compare_ema(images.folder, data=images.data)
    best = min(others, key=lambda row: row.held_out)
    assert best.sigma_rel is not None
    assert (f"on 100 held-out rows: that of σ_rel {short(best.sigma_rel)} has the least loss, {short(best.held_out)}, "
            f"the running average {short(running.held_out)}. This page is about the running average."
            ) in pages["images"].read_text("utf-8")


def test_a_run_without_held_out_rows_says_so(alone: Tiny) -> None:
    path = write_report(alone.folder, n=40, data=alone.data)
    assert path == alone.folder / "report.html"
    numbers = json.loads((alone.folder / "report.json").read_text())
    assert {numbers[k] for k in ("ratio", "sliced_w2", "classifier_accuracy", "nearest_ratio", "copies")} == {None}
    assert "No digits were held out of the training" in path.read_text()


def test_the_command_that_repeats_the_run_is_quoted_for_the_shell(pages: dict[str, Path], points: Tiny) -> None:
    command = re.findall(r"<pre><code>(undiffuse train .*?)</code>", pages["points"].read_text())[0]
    assert command == f"undiffuse train {points.folder}/experiment.json --out {points.folder}-again"


def test_how_the_training_ended_stands_on_the_page(pages: dict[str, Path]) -> None:
    assert "All 12 updates made." in pages["points"].read_text()


@pytest.mark.parametrize("name", ["report.json", "report", "nowhere/report.html"])
def test_a_place_where_no_page_can_be_is_refused_first(images: Tiny, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"ends in \.html"):
        write_report(images.folder, tmp_path / name, data=images.data)


def test_a_folder_without_a_run_is_named_before_the_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not the folder of a run"):
        write_report(tmp_path / "nowhere")
