"""Captions that are measured from pixels, and the loop that a chapter's own network is trained with."""

from __future__ import annotations

import torch

from undiffuse.course import captions, fit, randn
from undiffuse.course.helpers import hide_labels, ink_and_slant
from undiffuse.loss import NoiseLevelDistribution, denoising_loss
from undiffuse.nets import build


def strokes() -> torch.Tensor:
    """A vertical stroke, one that leans a column to the right for every row upwards, and a faint one to the left."""
    upright = (torch.arange(8) == 3).float().expand(8, 8)
    return torch.stack([upright, torch.eye(8).flip(1), 0.5 * torch.eye(8)])[:, None]


def test_ink_is_a_sum_and_slant_the_columns_a_stroke_leans_per_row() -> None:
    ink, slant = ink_and_slant(strokes())
    assert torch.allclose(ink, torch.tensor([8.0, 8.0, 4.0], dtype=torch.float64))
    assert torch.allclose(slant, torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64), atol=1e-12)


def test_a_caption_compares_with_the_same_digit() -> None:
    images = strokes()[[1, 0, 2]].repeat(10, 1, 1, 1)
    labels = torch.arange(10).repeat_interleave(3)
    prompt, words, names = captions(images, labels)
    assert tuple(words.shape) == (41, 3) and words[40].tolist() == [14] * 3 and len(set(names)) == 40
    assert [names[k] for k in prompt[21:24]] == ["thin slanted seven", "thin upright seven", "thin upright seven"]
    darker = torch.cat([images, 3 * strokes()[:1]])
    assert names[captions(darker, torch.cat([labels, labels[-1:]]))[0][-1]] == "thick upright nine"


def test_labels_are_hidden_from_fifteen_of_a_hundred() -> None:
    gone = torch.cat([hide_labels(torch.zeros(256, dtype=torch.long), k, 3) for k in range(40)])
    share = float((gone == 3).double().mean())
    assert set(gone.tolist()) == {0, 3} and abs(share - 0.15) < 4 * (0.15 * 0.85 / len(gone)) ** 0.5


def test_a_fitted_network_knows_a_single_point() -> None:
    x = torch.tensor([[0.5, -1.0]], dtype=torch.float64)
    model, losses = fit(build("mlp", (2,), 2, width=16, depth=1), x, 200, torch.zeros(1, dtype=torch.long), classes=2)
    t = NoiseLevelDistribution("time", sigma_data=1.0, low=0.02).times(model.sde, 1, 0, 0, 64, 64)
    with torch.no_grad():
        left = denoising_loss(model, x.expand(64, 2).float(), t, randn(64, 2, seed=9).float(), label=0).mean()
    assert losses[0] > 0.5 and float(left) < 0.1 * losses[0]  # the floor of one point is 0
