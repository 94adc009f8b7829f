"""What is wrong with generated pictures, the weakest point first: grain, blur, colours, blank pictures, classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from undiffuse.progress import duration
from undiffuse.report.formats import factor, percent
from undiffuse.training.linear_loss import LITTLE

GRAIN = 1.5
"""Ratio of the power of fine details, generated to real, above which grain is seen; below its inverse, blur."""
_DRIFT, _FLOORS = 0.02, 3.0  # of the range of grey levels, and of noise floors, that a drift of colour exceeds
_BLANK, _MISREAD = 0.005, 0.05  # shares beyond those of real pictures


class Finding(NamedTuple):
    """A defect: its size in units of what is tolerated, and a sentence without full stop."""

    size: float
    sentence: str


def findings(numbers: dict[str, Any], plural: str) -> list[Finding]:
    """The defects that the metrics of a run show, the largest first.

    Args:
        numbers: metrics of the run.
        plural: noun for the pictures.
    """
    measured = [measure(numbers, plural) for measure in (_grain, _drift, _blank, _misread, _untrained)]
    return sorted((defect for defect in measured if defect.size > 1), reverse=True)


def advice(defects: Sequence[Finding], seconds: float | None) -> str:
    """What helps against defects: as many updates again, with the time that they take; "" if there is none."""
    if not defects or not seconds:
        return ""
    return f"More updates help: as many again take about {duration(seconds)} on the same machine."


def _grain(n: dict[str, Any], plural: str) -> Finding:
    ratio = n["fine_power_ratio"]
    if ratio is None:
        return Finding(0.0, "")
    power = f"their finest details have {factor(ratio)} the power of those of real {plural}"
    if ratio >= 1:
        return Finding(ratio / GRAIN, f"Noise remains in the generated {plural}: {power}")
    return Finding(1 / (GRAIN * max(ratio, 1e-9)), f"The generated {plural} are blurred: {power}")


def _drift(n: dict[str, Any], plural: str) -> Finding:
    drift, tolerated = n["colour_drift"], max(_DRIFT, _FLOORS * n["colour_drift_floor"])
    return Finding(drift / tolerated, f"The mean colour of the generated {plural} differs from that of real {plural} "
                                      f"by {percent(drift)} of the range")


def _blank(n: dict[str, Any], plural: str) -> Finding:
    excess = n["blank"] - n["blank_real"]
    return Finding(excess / _BLANK, f"{percent(n['blank'])} of the generated {plural} are blank")


def _misread(n: dict[str, Any], plural: str) -> Finding:
    accuracy = n.get("classifier_accuracy")
    if accuracy is None:
        return Finding(0.0, "")
    agreement = n["class_agreement"]
    return Finding((accuracy - agreement - 2 * n["class_agreement_stderr"]) / _MISREAD,
                   f"Only {percent(agreement)} of the generated {plural} are classified as the requested class, and "
                   f"{percent(accuracy)} of real ones as theirs")


def _untrained(n: dict[str, Any], plural: str) -> Finding:
    ratio = n["linear_loss_ratio"] or 0.0
    return Finding(ratio / LITTLE, f"The network has learned little about {plural}: its held-out loss is "
                                   f"{factor(ratio)} that of the best linear denoiser")
