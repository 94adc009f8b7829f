"""The title of a page of pictures is the weakest finding: planted defects are named, real pictures have none."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from report.conftest import Tiny
from torch import Tensor

from undiffuse.random import normal
from undiffuse.report.evaluate import ReportData, gather, measure
from undiffuse.report.picture_findings import findings
from undiffuse.report.wording import verdict


@pytest.fixture(scope="module")
def real(images: Tiny, tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    """A report whose generated images are 100 held-out ones, with their own classes, without losses."""
    report = gather(images.folder, 100, data=images.data)
    assert report.held_out is not None
    empty = replace(report.run, folder=tmp_path_factory.mktemp("empty"))
    return replace(report, run=empty, generated=report.held_out.x[:100].float(), labels=report.held_out.y[:100])


def titles(report: ReportData) -> list[str]:
    """The defects, without their numbers; the first is the title of the page."""
    numbers = measure(report).numbers
    defects = findings(numbers, "digits")
    assert verdict(numbers, report.train).title == defects[0].sentence if defects else True
    return [defect.sentence.split(":")[0] for defect in defects]


def noise(x: Tensor, std: float) -> Tensor:
    return x + std * normal(0, 0, 0, 0, len(x), tuple(x.shape[1:]))


def test_real_images_have_no_defect(real: ReportData) -> None:
    assert titles(real) == []
    assert "classified as the requested class" in verdict(measure(real).numbers, real.train).title


def test_noise_is_named_with_its_power(real: ReportData) -> None:
    noisy = replace(real, generated=noise(real.generated, 4.0))
    assert titles(noisy)[0] == "Noise remains in the generated digits"


def test_blur_is_named(real: ReportData) -> None:
    blurred = torch.nn.functional.avg_pool2d(real.generated, 3, 1, 1).round()
    assert "The generated digits are blurred" in titles(replace(real, generated=blurred))


def test_blank_images_and_a_drift_are_named_the_larger_first(real: ReportData) -> None:
    blank = real.generated.clone()
    blank[:2] = 7
    assert titles(replace(real, generated=blank)) == ["2.0\u00a0% of the generated digits are blank"]
    drifting = titles(replace(real, generated=(blank + 6).clamp(0, 16)))
    assert len(drifting) > 1 and drifting[0].startswith("The mean colour of the generated digits differs")


def test_wrong_classes_are_named_beside_the_accuracy_on_real_images(real: ReportData) -> None:
    assert real.labels is not None
    wrong = replace(real, labels=torch.where(torch.arange(100) % 2 == 0, (real.labels + 1) % 10, real.labels))
    assert titles(wrong)[0].startswith("Only ") and "of real ones as theirs" in titles(wrong)[0]


def test_a_network_that_is_no_better_than_a_linear_one_is_named(real: ReportData, images: Tiny) -> None:
    untrained = replace(real, run=replace(real.run, folder=images.folder))
    assert titles(untrained) == ["The network has learned little about digits"]


def test_more_updates_are_advised_with_their_time_only_for_defects(real: ReportData) -> None:
    noisy = measure(replace(real, generated=noise(real.generated, 4.0))).numbers
    assert "as many again take about 5 min" in verdict(noisy, real.train, 300.0).summary
    assert "More updates" not in verdict(measure(real).numbers, real.train, 300.0).summary
