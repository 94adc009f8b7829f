"""The page: one self-contained HTML file with the metrics and figures of a run, rendered from templates/page.html."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from undiffuse.atomic_files import atomic_set, check_places
from undiffuse.data import Dataset, describe
from undiffuse.errors import InputError
from undiffuse.model import Model
from undiffuse.progress import duration
from undiffuse.report import sections, table_sections
from undiffuse.report.evaluate import Metrics, ReportData, gather, measure
from undiffuse.report.formats import percent, plus_minus, short
from undiffuse.report.wording import verdict
from undiffuse.training import open_run
from undiffuse.training.early_stopping import stopping_summary
from undiffuse.training.metrics_log import training_seconds


def write_report(run: Path | str, out: Path | None = None, *, n: int | None = None, seed: int = 0,
                 model: Model | None = None, data: Dataset | None = None) -> Path:
    """Write the report of a run as HTML and its metrics as .json next to it; same run, n and seed: same bytes.

    Args:
        run: folder of the run.
        out: file to write; None: RUN/report.html.
        n: number of samples, see `evaluate`.
        seed: seed of the samples.
        model, data: replace the model and the data of the run.

    Returns:
        The path of the page.

    Raises:
        InputError: for a folder without a run, or a path that is not an .html file in an existing folder.
    """
    open_run(run)  # report errors of the run before errors of the path
    path = Path(out) if out is not None else Path(run) / "report.html"
    if path.suffix not in (".html", ".htm") or not path.absolute().parent.is_dir():
        raise InputError(f"got {path} for the report; expected a name that ends in .html, in a folder that exists")
    check_places([path, path.with_suffix(".json")], [])
    report = gather(Path(run), n, seed, model=model, data=data)
    metrics = measure(report)
    text = page(report, metrics)
    with atomic_set([path.with_suffix(".json"), path]) as (numbers, html):
        numbers.write((json.dumps(metrics.numbers, indent=1) + "\n").encode())
        html.write(text.encode())
    return path


def environment() -> Environment:
    """The templates of pages."""
    return Environment(loader=PackageLoader("undiffuse.report"), autoescape=True, undefined=StrictUndefined,
                       trim_blocks=True, lstrip_blocks=True)


def page(data: ReportData, metrics: Metrics) -> str:
    """The HTML text of the page."""
    candidates = (sections.samples_section(data, metrics), table_sections.scores_section(data, metrics),
                  table_sections.unusual_section(data), sections.class_agreement_section(data, metrics),
                  sections.memorisation_section(data, metrics), sections.trajectory_section(data),
                  sections.training_section(data))
    folder = data.run.folder
    notes = " ".join(f"{note[:1].upper()}{note[1:]}." for note in data.train.notes)
    return environment().get_template("page.html").render(
        name=folder.resolve().name, description=describe(data.train),
        verdict=verdict(metrics.numbers, data.train, training_seconds(data.entries)),
        cards=_cards(metrics.numbers), sections=[section for section in candidates if section is not None],
        command=shlex.join(["undiffuse", "train", str(folder / "experiment.json"), "--out", str(folder) + "-again"]),
        settings={key: _format(value) for key, value in _settings(data).items()}, notes=notes,
        experiment=json.dumps(data.run.experiment.to_dict(), indent=1),
        numbers=json.dumps(metrics.numbers, indent=1),
        version=data.run.config.get("versions", {}).get("undiffuse", "")) + "\n"


class Card(NamedTuple):
    """A large number of the page, its label, and a value to compare it with, or ""."""

    value: str
    label: str
    reference: str = ""


def _cards(n: dict[str, Any]) -> list[Card]:
    """The most important metrics."""
    cards = []
    if n.get("class_agreement") is not None:
        accuracy = n["classifier_accuracy"]
        cards.append(Card(percent(n["class_agreement"]), "classified as the requested class",
                          "" if accuracy is None else f"held-out real data: {percent(accuracy)}"))
    if n.get("nearest_ratio") is not None:
        cards.append(Card(f"{n['nearest_ratio']:.2f}", "distance to the training data, held-out real = 1",
                          f"median {n['nearest_generated']:.3f} against {n['nearest_held_out']:.3f}"))
    if n["sliced_w2_ratio"] is not None:
        floor = plus_minus(n["sliced_w2_floor"], n["sliced_w2_floor_std"])
        cards.append(Card(f"{n['sliced_w2_ratio']:.2f}", "distance to real data, noise floor = 1",
                          f"sliced W₂ {short(n['sliced_w2'])} against {floor}"))
    if n.get("mmd") is not None:
        cards.append(Card(f"{n['mmd']:z.4f}".replace("-", "−"), "squared MMD to held-out data",
                          f"two real sets: {plus_minus(n['mmd_floor'], n['mmd_floor_std'])}"))
    if n.get("curve_distance") is not None:
        cards.append(Card(short(n["curve_distance"]), "mean distance from the curve",
                          f"held-out real data: {short(n['curve_distance_real'])}"))
    if n.get("c2st_forest") is not None:
        cards.append(Card(f"{n['c2st_forest']:.2f}", "area under ROC, generated against real, ½ is perfect",
                          f"two real sets: {plus_minus(n['c2st_forest_floor'], n['c2st_forest_floor_std'])}"))
    if n.get("impossible"):
        cards.append(Card(percent(n["impossible"]), "of the rows hold a pair of words that no real row has",
                          f"held-out against training rows: {percent(n['impossible_floor'])}"))
    if n.get("ks"):
        worst = max(n["ks"], key=lambda name: n["ks"][name])
        cards.append(Card(short(n["ks"][worst]), f"largest Kolmogorov-Smirnov distance, {worst}",
                          "" if n["ks_critical"] is None else
                          f"95 % of equal distributions: below {short(n['ks_critical'])}"))
    if n.get("spectrum_factor") is not None:
        cards.append(Card(short(n["spectrum_factor"]), "largest factor between generated and real spectra",
                          f"two real sets: {short(n['spectrum_factor_real'])}"))
    return [*cards, Card(str(n["nfe"]), "model evaluations per sample", f"{n['method']}, {n['steps']} steps")]


def _settings(data: ReportData) -> dict[str, Any]:
    """The experiment, the outcome of the training, and the versions of packages."""
    seconds = training_seconds(data.entries)
    return {**data.run.experiment.to_dict(), "outcome": stopping_summary(data.entries, data.run.experiment),
            "parameters": f"{sum(p.numel() for p in data.model.parameters()):,}",
            "training rows": f"{len(data.train):,}",
            **({} if seconds is None else {"training time": duration(seconds)}), **data.run.config.get("versions", {})}


def _format(value: Any) -> str:
    """The text of a setting."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_format(item)}" for key, item in value.items()) or "–"
    if isinstance(value, list):
        return ", ".join(map(_format, value))
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
