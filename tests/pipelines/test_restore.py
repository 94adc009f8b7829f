"""Restoring images: samples against the posterior, and the contents of the files."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import f64
from PIL import Image

from undiffuse.cli import main
from undiffuse.data.pixel_units import PixelUnits
from undiffuse.errors import InputError
from undiffuse.experiment import Experiment
from undiffuse.inverse import (
    Downsample,
    box,
)
from undiffuse.inverse.observation import Observation
from undiffuse.mixture import Mixture
from undiffuse.pipelines.restore import Restored, operator, restore, sample_labels
from undiffuse.processes import VP
from undiffuse.random import normal
from undiffuse.training import train

SHAPE = (1, 6, 6)


@pytest.mark.slow
def test_rounds_over_classes_leave_the_posterior_as_it_is() -> None:
    """Gibbs' sampler of p(x, class | y) from draws of p(x | y): the weight, mean and deviations of a mode."""
    law = Mixture([0.3, 0.7], [[[[-0.6, 0.1]]], [[[0.6, -0.1]]]], 0.04, labels=[0, 1])
    y, n = f64(0.0, 0.05).reshape(1, 1, 1, 2), 700
    truth = Mixture([0.3, 0.7], [[-0.6, 0.1], [0.6, -0.1]], 0.04).posterior([[0.0, 1.0]], [0.05], 0.2)
    for rounds in (0, 2):
        x = restore(law.denoiser(VP()), box((1, 1, 2), 0, 0, 1, 1), y.expand(n, 1, 1, 2), 0.2, 1, steps=60,
                    rounds=rounds, class_counts=(3, 7), units=PixelUnits(levels=2)).draws.flatten(1)
        share, right = float(truth.weights[1]), x[x[:, 0] > 0]
        assert abs(len(right) / n - share) < 3 * (share * (1 - share) / n) ** 0.5
        error = (right.mean(0) - truth.means.flatten(1)[1]) / (truth.covariances[1].diagonal() / len(right)).sqrt()
        assert float(error.abs().max()) < 3.5
        wide = right.var(0) / truth.covariances[1].diagonal()
        assert float((wide - 1).abs().max()) < 4 * (2 / len(right)) ** 0.5


def test_a_class_determined_by_the_image_is_sampled() -> None:
    law = Mixture([0.5, 0.5], [[[[-0.6, 0.1]]], [[[0.6, -0.1]]]], 0.01, labels=[0, 1])
    assert sample_labels(law.denoiser(VP()), law.means[[1, 0, 0, 1]]).tolist() == [1, 0, 0, 1]
    one, hidden = torch.zeros(1, 1, 1, 2), box((1, 1, 2), 0, 0, 1, 1)
    told, bare = {"label": torch.tensor([1])}, Mixture([1.0], [[[[0.0, 0.1]]]], 0.01)
    for made, rounds, more, why in ((law, 1, {"exact": True}, "particles"), (law, 1, told, "a label was passed"),
                                    (bare, 1, {}, "no classes"), (law, -1, {}, "0 or more")):
        with pytest.raises(InputError, match=f"got {rounds} rounds; expected .*{why}"):
            restore(made.denoiser(VP()), hidden, one, 0.1, rounds=rounds, **more)


@pytest.mark.parametrize("wrong", [
    lambda: operator("sharpen", SHAPE), lambda: operator("inpaint", SHAPE),
    lambda: operator("downsample", SHAPE, amount=2.5), lambda: operator("motion", SHAPE, amount=float("inf")),
])
def test_nonsense_gets_a_sentence(wrong: object) -> None:
    with pytest.raises(InputError, match=r"got .*; expected"):
        wrong()  # type: ignore[operator]


def test_draws_mean_and_deviation_are_those_of_the_posterior(tmp_path: Path) -> None:
    means = 3 + normal(1, 0, 0, 0, 1, (1, 4, 4), torch.float64)
    i = torch.arange(16, dtype=torch.float64)
    law = Mixture([1.0], means, (0.8 ** (i[:, None] - i).abs())[None])
    y = law.sample(2)
    seen = box((1, 4, 4), 2, 0, 2, 4)
    found = restore(law.denoiser(VP()), seen, y, 0.2, 256, units=PixelUnits("uint8", 0, 7, 8))
    for row, draws in zip(y, found.draws, strict=True):
        truth = law.posterior(torch.eye(16)[:8], row.flatten()[:8], 0.2)
        sd = truth.covariance.diagonal().sqrt()
        assert ((draws.mean(0).flatten() - truth.mean.flatten()).abs() < 4 * sd / 16).all()
        assert ((draws.std(0).flatten() / sd - 1).abs() < 4 / 512**0.5).all()
    paths = found.write(tmp_path / "out")
    assert np.array_equal(np.load(paths[0]), found.draws.float().numpy())
    assert Image.open(paths[1]).size == (9 * 8, 4 * 8)  # two pictures with a line between, eight times enlarged


def test_conditions_are_those_of_the_image_that_is_drawn_for() -> None:
    law = Mixture([0.5, 0.5], torch.tensor([-5.0, 5.0]).reshape(2, 1, 1, 1).expand(2, 1, 4, 4), 0.01, labels=[0, 1])
    y, seen = torch.zeros(3, 1, 4, 4), box((1, 4, 4), 0, 0, 4, 4)  # nothing is seen: all is said by the class
    found = restore(law.denoiser(VP()), seen, y, 1.0, 2, steps=4, label=torch.tensor([1, 0, 1]))
    assert torch.equal(found.draws.mean((2, 3, 4)).sign(), torch.tensor([[1, 1], [-1, -1], [1, 1]]).to(found.draws))


def test_particles_restore_several_images_each_from_its_observation() -> None:
    """x and y independent N(0, 1) of which the upper half is seen without noise: the draws have these values there."""
    law, y = Mixture([1.0], torch.zeros(1, 1, 2, 2), 1.0), torch.arange(3.0).reshape(3, 1, 1, 1).expand(3, 1, 2, 2)
    found = restore(law.denoiser(VP()), box((1, 2, 2), 1, 0, 1, 2), y, 0.01, 70, exact=True, steps=10)
    assert (found.draws[:, :, 0, 0].mean(1) - y[:, 0, 0]).abs().max() < 0.05
    assert found.draws.shape[:2] == (3, 70) and found.draws[:, :, 0, 1].std(1).mean() == pytest.approx(1, abs=0.2)


class Screen(io.StringIO):
    """A terminal, or not."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.isatty = lambda: terminal  # type: ignore[method-assign]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_goes_from_nothing_to_all_on_a_terminal_only(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    law, screen, told = Mixture([0.5, 0.5], torch.zeros(2, 1, 2, 2), 1.0, labels=[0, 1]), Screen(terminal), []
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(
        "undiffuse.pipelines.restore.part", lambda *place: lambda *done: told.append((*place[1:], *done))
    )
    restore(law.denoiser(VP()), box((1, 2, 2), 0, 0, 1, 1), torch.zeros(1, 1, 2, 2), 0.1, 2, steps=3, rounds=1)
    assert ("restoring" in screen.getvalue()) is terminal and (screen.getvalue() == "") is not terminal
    assert told == [(k, 2, done, 3) for k in (0, 1) for done in (1, 2, 3)]


def test_an_observation_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Observation] = []
    monkeypatch.setattr(sys.modules["undiffuse.inverse.observe"], "Observation",
                        lambda *parts: made.append(Observation(*parts)) or made[-1])
    law = Mixture([1.0], torch.zeros(1, 1, 2, 2), 1.0)
    restore(law.denoiser(VP()), Downsample(2), torch.zeros(1, 1, 1, 1), 0.1, 1, steps=2)
    assert len(made) == 1


@pytest.mark.parametrize("simulate, shape, words", [
    (True, (1, 5, 5), r"\(1, 4, 4\)$"), (False, (3, 4, 4), r"\(1, 2, 2\)$"),
    (False, (1, 4, 4), r".*for clean ones use simulate$"),
])
def test_images_of_another_size_are_refused(simulate: bool, shape: tuple[int, ...], words: str) -> None:
    model = Mixture([1.0], torch.zeros(1, 1, 4, 4), 1.0).denoiser(VP())
    with pytest.raises(InputError, match="got images of shape .*; expected " + words):
        restore(model, Downsample(2), torch.zeros(2, *shape), simulate=simulate)


@pytest.mark.parametrize("values", [(0, 255), (0, 1), (3, 7), (0, 200)])
def test_a_mask_of_two_values_hides_the_larger(tmp_path: Path, values: tuple[int, int]) -> None:
    mask = np.full(SHAPE[1:], values[0], np.uint8)
    mask[:2] = values[1]
    Image.fromarray(mask).save(tmp_path / "m.png")
    image = torch.ones(1, *SHAPE)
    observed = operator("inpaint", SHAPE, tmp_path / "m.png").mask_unobserved(image)
    assert torch.equal(observed.isnan()[0, 0], torch.from_numpy(mask == values[1]))


@pytest.mark.parametrize(("value", "word"), [(0, "no"), (255, "every")])
def test_a_mask_that_hides_everything_or_nothing_is_refused(tmp_path: Path, value: int, word: str) -> None:
    Image.fromarray(np.full(SHAPE[1:], value, np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(InputError, match=f"hides {word} pixel; expected"):
        operator("inpaint", SHAPE, tmp_path / "m.png")


def test_draws_are_written_in_the_units_of_the_training_data(tmp_path: Path) -> None:
    units, levels = PixelUnits("int16", -1000, 2000, 3001), torch.tensor([[[[[0.0, 1500.5], [3000.0, 20.0]]]]])
    paths = Restored(levels[:, 0], levels, units).write(tmp_path)
    assert np.load(paths[0]).tolist() == [[[[[-1000.0, 500.5], [2000.0, -980.0]]]]]


def test_simulated_damage_is_the_operators_with_that_noise() -> None:
    law = Mixture([1.0], torch.zeros(1, 1, 4, 4), 1.0)
    whole = law.sample(200)
    found = restore(law.denoiser(VP()), Downsample(2), whole, 0.3, 1, simulate=True, steps=2)
    assert (found.y - Downsample(2)(whole)).std() == pytest.approx(0.3, abs=3 * 0.3 / 40)
    still = restore(law.denoiser(VP()), Downsample(2), Downsample(2)(whole), 0.3, 1, steps=2)
    assert torch.equal(still.y, Downsample(2)(whole))


@pytest.mark.slow
def test_the_command_reproduces_observed_pixels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, small = tmp_path / "run", {"width": 32, "depth": 1}
    train(Experiment(data="digits", steps=40, save_every=20, warmup=2, net_args=small, eval_batch_size=64), run)
    picture = (normal(0, 0, 0, 0, 1, (8, 8))[0] * 3 + 8).clamp(0, 16).round().to(torch.uint8)
    np.save(tmp_path / "x.npy", picture[None, None].numpy())
    mask = np.zeros((8, 8), np.uint8)
    mask[4:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    words = ["restore", str(run), str(tmp_path / "x.npy"), "--mask", str(tmp_path / "mask.png"), "--draws", "3"]
    assert main([*words, "--noise", "0.1"]) == 0
    draws = np.load(run / "restored" / "draws.npy")
    assert draws.shape == (1, 3, 1, 8, 8)
    assert np.abs(draws[0, :, 0, :4] - picture[:4].numpy()).max() < 1 < draws[0, :, 0, 4:].std(0).max()
    assert {p.name for p in (run / "restored").iterdir()} == {"draws.npy", "mean.png", "std.png", "restored.png"}
    again = tmp_path / "again"
    assert main([*words, "--noise", "0.1", "--out", str(again)]) == 0
    assert np.array_equal(np.load(again / "draws.npy"), draws)
    np.save(tmp_path / "x.npy", picture[None, None].repeat(2, 1, 1, 1).numpy())
    told = {}
    for label in ("4", "4,5"):
        assert main([*words, "--label", label, "--out", str(tmp_path / label)]) == 0
        told[label] = np.load(tmp_path / label / "draws.npy")
    assert np.array_equal(told["4"][0], told["4,5"][0]) and not np.array_equal(told["4"][1], told["4,5"][1])
    for more in (["--operator", "blur"], ["--method", "best"], ["--noise", "-1"], ["--draws", "0"], ["--label", "cat"]):
        assert main([*words, *more]) == 2
    capsys.readouterr()
    assert main(["sample", str(run), "--guidance-scale", "2", "--n", "2"]) == 2
    assert "label" in capsys.readouterr().err
    assert main(["sample", str(run), "--guidance-scale", "2", "--label", "4", "--n", "2"]) == 0
