"""Sentences of the page: its title, summary and warning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from undiffuse.data import Dataset
from undiffuse.report import picture_findings
from undiffuse.report.formats import factor, percent, plus_minus, short

NEAR = 0.9
"""Ratio of nearest-neighbour distances below which the page warns of memorisation."""
_COPIES = 0.05

_NOUNS = {"points": ("point", "points"), "table": ("row", "rows"), "image": ("image", "images"),
          "array": ("sample", "samples")}


@dataclass(frozen=True)
class Verdict:
    """The title of the page, the sentences below it, and a warning or ""."""

    title: str
    summary: str
    warning: str = ""


def nouns(data: Dataset) -> tuple[str, str]:
    """Singular and plural noun for samples of the data."""
    digits = data.kind == "image" and data.name.lower() in ("digits", "mnist")
    return ("digit", "digits") if digits else _NOUNS[data.kind]


def verdict(numbers: dict[str, Any], data: Dataset, seconds: float | None = None) -> Verdict:
    """The title, summary and warning for the metrics of a run; the title is the weakest finding.

    Args:
        numbers: metrics of the run.
        data: training rows.
        seconds: duration of the training; None if it is unknown.
    """
    plural = nouns(data)[1]
    if numbers.get("class_agreement") is not None:
        first = _classifier_accuracy(numbers, plural)
    else:
        first = _distance(numbers, plural)
    defects = picture_findings.findings(numbers, plural) if data.kind == "image" else []
    title, *others = [*(defect.sentence for defect in defects), _title(numbers, plural)]
    further = picture_findings.advice(defects, seconds)
    sentences = (first, _curve_distance(numbers), memorisation(numbers, plural), *(f"{o}." for o in others), further)
    return Verdict(title, " ".join(filter(None, sentences)), warning(numbers, plural))


def _title(numbers: dict[str, Any], plural: str) -> str:
    if numbers.get("class_agreement") is not None:
        return f"{percent(numbers['class_agreement'])} of the generated {plural} are classified as the requested class"
    ratio = numbers["sliced_w2_ratio"]
    if ratio is None:
        return f"{numbers['n']:,} generated {plural}, without real data to compare with"
    if numbers["sliced_w2"] <= numbers["sliced_w2_floor"] + 2 * numbers["sliced_w2_floor_std"]:
        return (f"Generated {plural} are as close to real {plural} as other real {plural} are: "
                f"{factor(ratio)} the distance")
    return (f"The distance from generated to real {plural} is {factor(ratio)} the distance between two sets of "
            f"real {plural}")


def memorisation(numbers: dict[str, Any], plural: str) -> str:
    """A sentence on the distance of samples to the training rows, or "" if it was not measured."""
    ratio = numbers.get("nearest_ratio")
    if ratio is None:
        return ""
    row = "image" if numbers["kind"] == "image" else "row"
    return (f"The distance from generated {plural} to the nearest training {row} is {factor(ratio)} as "
            f"large as for held-out real {plural}.")


def warning(numbers: dict[str, Any], plural: str) -> str:
    """A warning of memorisation, or ""."""
    identical, ratio = numbers.get("identical") or 0, numbers.get("nearest_ratio")
    row = "image" if numbers["kind"] == "image" else "row"
    if identical > (numbers.get("identical_held_out") or 0):
        return (f"{identical:,} of {numbers['n']:,} generated {plural} equal a training {row}: the model memorises "
                "training data.")
    if ratio is not None and ratio < NEAR:
        return (f"Generated {plural} are nearer to the training data than held-out real {plural} are: the model "
                "memorises training data.")
    if (numbers.get("copied_fraction") or 0) > _COPIES:
        return (f"{percent(numbers['copied_fraction'])} of the generated {plural} are nearer to a training {row} than "
                f"99 % of held-out real {plural} are: the model memorises some training data.")
    return ""


def _classifier_accuracy(numbers: dict[str, Any], plural: str) -> str:
    accuracy = numbers.get("classifier_accuracy")
    if accuracy is None:
        return _nothing_held_out(plural)
    return (f"The classifier is trained on the real training {plural} only; its accuracy on held-out real {plural} is "
            f"{percent(accuracy)}.")


def _nothing_held_out(plural: str) -> str:
    return f"No {plural} were held out of the training, so there is no real data to compare with."


def _distance(numbers: dict[str, Any], plural: str) -> str:
    if numbers["sliced_w2_ratio"] is None:
        return _nothing_held_out(plural)
    return (f"The sliced Wasserstein distance to {numbers['held_out_rows']:,} held-out {plural} is "
            f"{short(numbers['sliced_w2'])}; between two sets of real {plural} it is "
            f"{plus_minus(numbers['sliced_w2_floor'], numbers['sliced_w2_floor_std'])}.")


def _curve_distance(numbers: dict[str, Any]) -> str:
    distance = numbers.get("curve_distance")
    return "" if distance is None else f"The mean distance of generated points from the curve is {short(distance)}."
