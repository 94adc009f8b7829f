"""From a file of simulations to a checked posterior on the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import undiffuse as ud
from undiffuse.cli import main
from undiffuse.errors import InputError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("simulations"), np.random.default_rng(0)
    theta = rng.uniform(0, 2, (600, 2))
    np.savez(folder / "sims.npz", x=theta, obs=theta + 0.2 * rng.normal(size=theta.shape), prior_low=0.0,
             prior_high=[2.0, 2.0])
    assert main(["train", str(folder / "sims.npz"), "--condition", "obs", "--out", str(folder / "run"), "--steps", "60"]
                ) == 0
    return folder / "run"


def test_the_recipe_holds_few_simulations_out_and_never_hides_the_output(run: Path) -> None:
    experiment = ud.Experiment.from_dict(json.loads((run / "experiment.json").read_text()))
    assert (experiment.held_out, experiment.label_dropout, experiment.conditional_mean) == (100, 0.0, True)


def test_samples_stay_inside_the_prior_and_the_check_writes_a_page(run: Path, capsys: pytest.CaptureFixture[str]
                                                                   ) -> None:
    model = ud.load(run)
    x = ud.sample(model.given(obs=np.array([0.0, 2.0])), 500).x
    assert bool(((x >= 0) & (x <= 2)).all())
    code = main(["check", str(run), "--simulations", "40", "--draws", "39"])
    numbers = json.loads((run / "calibration.json").read_text())
    assert code == (0 if numbers["verdict"].startswith("No deviation") else 1)
    assert numbers["verdict"] in capsys.readouterr().out
    # 39 draws: the 90 % interval of 40 true values has a standard error of 4.7 points.
    assert all(abs(values[2] - 0.9) < 4 * math.sqrt(0.09 / 40) for values in numbers["coverage"].values())
    page = (run / "calibration.html").read_text()
    assert numbers["verdict"] in page and page.count("<svg") == 3


def test_parameters_outside_and_runs_of_other_kinds_are_refused(tmp_path: Path, run: Path,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    theta = np.linspace(0, 2, 60).reshape(30, 2)
    np.savez(tmp_path / "sims.npz", x=theta, obs=theta, prior_low=0.0, prior_high=1.0)
    with pytest.raises(InputError, match=r"outside of the bounds 0 to 1, the first in row 16"):
        ud.open_data(tmp_path / "sims.npz", condition=["obs"])
    np.savez(tmp_path / "sims.npz", x=theta, obs=theta, prior_low=-1.0)
    assert ud.open_data(tmp_path / "sims.npz", condition=["obs"]).bounds == ((-1.0, math.inf),) * 2
    np.savez(tmp_path / "sims.npz", x=theta, obs=theta, prior_low=[0.0] * 3, prior_high=1.0)
    with pytest.raises(InputError, match="for 2 columns"):
        ud.open_data(tmp_path / "sims.npz", condition=["obs"])
    ud.train(theta, tmp_path / "table", steps=1, progress=False)
    assert main(["check", str(tmp_path / "table")]) == 2
    assert "expected the numbers that a simulator returns" in capsys.readouterr().err
    assert main(["check", str(run), "--simulations", "5"]) == 2
