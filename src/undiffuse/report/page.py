"""The page: one HTML file that needs no other, with every number, figure and sentence about a run."""

from __future__ import annotations

import json
import shlex
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from undiffuse.data import Dataset, describe
from undiffuse.data.writers import atomic
from undiffuse.errors import InputError
from undiffuse.model import Model
from undiffuse.report import html
from undiffuse.report.evaluate import Metrics, ReportData, gather, measure
from undiffuse.report.sections import asked, learning, new, side_by_side, trajectory_section
from undiffuse.report.wording import duration, percent, short, spread, verdict
from undiffuse.training import open_run
from undiffuse.training.early_stopping import stopping_summary


def write_report(run: Path | str, out: Path | None = None, *, n: int | None = None, seed: int = 0,
                 model: Model | None = None, data: Dataset | None = None) -> Path:
    """Writes the report of a run and returns its path, by default RUN/report.html, with its numbers beside it as .json.

    n: how many samples; see `evaluate`. `model` and `data` take the place of those that the run names. Deterministic:
    the same run, n and seed give the same bytes. Raises InputError for a folder that holds no run.
    """
    open_run(run)  # what is wrong with the run is said before what is wrong with the place
    path = Path(out) if out is not None else Path(run) / "report.html"
    if path.suffix not in (".html", ".htm") or not path.absolute().parent.is_dir():
        raise InputError(f"got {path} for the report; expected a name that ends in .html, in a folder that exists")
    seen = gather(Path(run), n, seed, model=model, data=data)
    found = measure(seen)
    text = page(seen, found)
    for file, content in ((path.with_suffix(".json"), json.dumps(found.numbers, indent=1) + "\n"), (path, text)):
        with atomic(file) as stream:
            stream.write(content.encode())
    return path


def page(seen: ReportData, found: Metrics) -> str:
    """The whole page."""
    said = verdict(found.numbers, seen.train)
    name = seen.run.folder.resolve().name
    body = html.tag("header", html.words("p", f"{name} · {describe(seen.train)}", "over"), html.words("h1", said.title),
                    html.words("p", said.deck, "deck"),
                    html.words("p", said.warning, "deck warning") if said.warning else "", _numbers(found.numbers))
    main = html.tag(
        "main",
        side_by_side(seen, found),
        asked(seen, found),
        new(seen, found),
        trajectory_section(seen),
        learning(seen),
        _repeat(seen),
        _everything(found.numbers),
    )
    made = seen.run.config.get("versions", {}).get("undiffuse", "")
    text = resources.files("undiffuse.report").joinpath("page.html").read_text("utf-8")
    style = resources.files("undiffuse.report").joinpath("page.css").read_text("utf-8")
    footer = html.words("footer", f"Written by undiffuse {made}.")
    return Template(text).substitute(title=html.plain(f"{name}: {said.title}"), style=style, body=body + main + footer)


def _numbers(n: dict[str, Any]) -> str:
    """The few numbers that matter most, large."""
    cards = []
    if n.get("class_agreement") is not None:
        real = n["classifier_accuracy"]
        cards.append(html.number(percent(n["class_agreement"]), "read as the class asked for",
                                 "" if real is None else f"held-out real data: {percent(real)}"))
    if n.get("nearest_ratio") is not None:
        cards.append(html.number(f"{n['nearest_ratio']:.2f}", "distance to the training data, held-out real = 1",
                                 f"median {n['nearest_made']:.3f} against {n['nearest_held_out']:.3f}"))
    if n["ratio"] is not None:
        floor = spread(n["floor"], n["floor_spread"])
        cards.append(html.number(f"{n['ratio']:.2f}", "distance to real data, noise floor = 1",
                                 f"sliced W₂ {short(n['sliced_w2'])} against {floor}"))
    if n.get("mmd") is not None:
        cards.append(html.number(f"{n['mmd']:.4f}".replace("-", "−"), "squared MMD to held-out data",
                                 f"two real sets: {spread(n['mmd_floor'], n['mmd_spread'])}"))
    if n.get("off_curve") is not None:
        cards.append(html.number(short(n["off_curve"]), "mean distance off the curve",
                                 f"held-out real data: {short(n['off_curve_real'])}"))
    if n.get("ks"):
        worst = max(n["ks"], key=lambda name: n["ks"][name])
        cards.append(html.number(short(n["ks"][worst]), f"largest Kolmogorov-Smirnov distance of a column ({worst})",
                                 f"below {short(n['ks_by_chance'])} for 95 % of equal laws"))
    cards.append(html.number(str(n["nfe"]), "network evaluations a sample", f"{n['method']}, {n['steps']} steps"))
    return html.tag("dl", *cards, class_="numbers")


def _repeat(seen: ReportData) -> str:
    """The command that repeats the run, what it was, and what was done to the data."""
    folder = seen.run.folder
    command = shlex.join(["undiffuse", "train", str(folder / "experiment.json"), "--out", str(folder) + "-again"])
    settings = {**seen.run.experiment.to_dict(), **_outcome(seen)}
    notes = " ".join(f"{note[:1].upper()}{note[1:]}." for note in seen.train.notes)
    return html.section(
        "How to repeat it", "On one machine this gives the same weights bit for bit.",
        html.tag("pre", html.words("code", command)), html.definitions({k: _value(v) for k, v in settings.items()}),
        html.words("p", notes) if notes else "",
        _folded("experiment.json", json.dumps(seen.run.experiment.to_dict(), indent=1)))


def _outcome(seen: ReportData) -> dict[str, Any]:
    """What is known of the run beyond its experiment."""
    seconds = [e["seconds"] for e in seen.run.metrics() if "seconds" in e]
    return {"outcome": stopping_summary(seen.run.metrics(), seen.run.experiment),
            "parameters": f"{sum(p.numel() for p in seen.model.parameters()):,}",
            "training rows": f"{len(seen.train):,}",
            **({"time of training": duration(seconds[-1])} if seconds else {}), **seen.run.config.get("versions", {})}


def _everything(numbers: dict[str, Any]) -> str:
    return _folded("Every number of this page, as report.json", json.dumps(numbers, indent=1))


def _folded(title: str, text: str) -> str:
    return html.tag("details", html.words("summary", title), html.tag("pre", html.words("code", text)))


def _value(value: Any) -> str:
    """A setting as it is written on the page."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(each)}" for key, each in value.items()) or "–"
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
