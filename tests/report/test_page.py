"""The page: self-contained, escaped, deterministic, with the measured numbers."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report.conftest import EVIL, Tiny

from undiffuse.errors import InputError
from undiffuse.report import evaluate, table_sections, write_report
from undiffuse.report.evaluate import gather
from undiffuse.report.formats import factor, short
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
    """One page per kind of data, with its metrics as JSON next to it."""
    folder = tmp_path_factory.mktemp("pages")
    paths = {}
    for kind in KINDS:
        run: Tiny = request.getfixturevalue(kind)
        paths[kind] = write_report(run.folder, folder / f"{kind}.html", n=60, data=run.data)
    return paths


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_fetched_from_anywhere(pages: dict[str, Path], kind: str) -> None:
    text = pages[kind].read_text()
    reader = Reader(text)
    sources = [value or "" for _, attributes in reader.elements for name, value in attributes.items()
               if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster")]
    assert len(sources) > 10
    assert [s[:60] for s in sources if not s.startswith(("data:", "#"))] == []
    assert [u for u in re.findall(r"url\(([^)]*)\)", text) if not u.startswith("#")] == []
    assert re.findall(r"https?:|@import|<script", text) == []
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_well_formed_and_every_figure_has_an_alternative_text(pages: dict[str, Path], kind: str) -> None:
    reader = Reader(pages[kind].read_text())
    assert (reader.open, reader.wrong) == ([], [])
    assert all(attributes.get("alt") for tag, attributes in reader.elements if tag == "img")
    assert all(attributes.get("aria-label") for tag, attributes in reader.elements if tag == "svg")
    count = [tag for tag, _ in reader.elements].count
    assert count("figure") == count("figcaption") >= 6
    assert sum(str(attributes.get("src", "")).startswith("data:image/gif") for _, attributes in reader.elements) == 1


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
            "none", *(f"var(--{name})" for name in ("ink", "muted", "rule", "real", "generated", "paper"))}
    style = pages[kind].read_text().split("</style>")[0]
    assert style.count("--generated:") == style.count("--real:") == 2  # a light page and a dark one


@pytest.mark.parametrize("kind", KINDS)
def test_the_json_next_to_the_page_equals_evaluate(
        pages: dict[str, Path], kind: str, request: pytest.FixtureRequest) -> None:
    run: Tiny = request.getfixturevalue(kind)
    numbers = evaluate(run.folder, n=60, data=run.data)
    assert json.loads(pages[kind].with_suffix(".json").read_text()) == numbers
    headline = {"images": f"Only {100 * numbers.get('class_agreement', 0):.1f}\u00a0% of the generated",
                "points": factor(numbers["sliced_w2_ratio"]), "table": factor(numbers["sliced_w2_ratio"])}
    assert headline[kind] in re.findall(r"<h1>(.*?)</h1>", pages[kind].read_text())[0]


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(pages: dict[str, Path], table: Tiny, tmp_path: Path) -> None:
    again = write_report(table.folder, tmp_path / "table.html", n=60, data=table.data)
    assert again.read_bytes() == pages["table"].read_bytes()


def test_the_averages_of_the_weights_equal_those_of_compare_ema(pages: dict[str, Path], images: Tiny) -> None:
    running, *others = compare_ema(images.folder, data=images.data)
    best = min(others, key=lambda row: row.held_out)
    assert best.sigma_rel is not None
    assert (f"on 100 held-out rows: σ_rel {short(best.sigma_rel)} has the lowest loss, {short(best.held_out)}; "
            f"the running average has {short(running.held_out)}. This report uses the running average."
            ) in pages["images"].read_text("utf-8")


def test_a_run_without_held_out_rows_says_so(alone: Tiny) -> None:
    path = write_report(alone.folder, n=40, data=alone.data)
    assert path == alone.folder / "report.html"
    numbers = json.loads((alone.folder / "report.json").read_text())
    undefined = ("sliced_w2_ratio", "sliced_w2", "classifier_accuracy", "nearest_ratio", "copied_fraction")
    assert {numbers[name] for name in undefined} == {None}
    assert "No digits were held out of the training" in path.read_text()


def test_the_command_that_repeats_the_run_is_quoted_for_the_shell(pages: dict[str, Path], points: Tiny) -> None:
    command = re.findall(r"<pre><code>(undiffuse train .*?)</code>", pages["points"].read_text())[0]
    assert command == f"undiffuse train {points.folder}/experiment.json --out {points.folder}-again"


def test_the_page_states_how_the_training_ended(pages: dict[str, Path]) -> None:
    assert "All 12 updates made." in pages["points"].read_text()


@pytest.mark.parametrize("name", ["report.json", "report", "nowhere/report.html"])
def test_an_invalid_path_of_the_page_is_refused_first(images: Tiny, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"ends in \.html"):
        write_report(images.folder, tmp_path / name, data=images.data)


def test_a_folder_without_a_run_is_refused_before_the_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not the folder of a run"):
        write_report(tmp_path / "nowhere")


def test_unusual_rows_are_those_of_largest_surprise(table: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(table_sections, "column_surprise", lambda model, x, seed: x.square())
    monkeypatch.setattr(table_sections, "surprises", lambda alt, *parts: seen.update(zip(
        ("names", "texts", "values", "totals"), parts, strict=True)))
    data = gather(table.folder, 60, data=table.data)
    section = table_sections.unusual_section(data)
    squares = data.real.x.double().square()
    best = squares.sum(1).sort(descending=True)
    assert section is not None and "8 most unusual of 60 held-out rows" in section.blocks[0].caption  # type: ignore
    assert seen["totals"].tolist() == pytest.approx(best.values[:8].tolist(), rel=1e-6)
    assert seen["names"] == list(table.data.columns) and float(seen["values"][0].sum()) == pytest.approx(
        float(best.values[0]), rel=1e-6)
    first = float(data.real.x[best.indices[0], 0])
    assert float(seen["texts"][0][0]) == pytest.approx(first, rel=1e-2)
