"""A tuning on disk: the same bytes come back, for the model that it was made for and for no other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import THREE, small

from undiffuse.errors import InputError
from undiffuse.mixture import Mixture
from undiffuse.processes import EDM, VP
from undiffuse.report.plots import tuning_figure
from undiffuse.samplers.driver import sample
from undiffuse.tuning import NAME, Tuned, attach, lines, load, save, tune, tuning_of


@pytest.fixture(scope="module")
def model() -> Tuned:
    return tune(small(), [3, 4], rounds=0, trajectories=8)


def test_what_is_loaded_samples_the_same(model: Tuned, tmp_path: Path) -> None:
    again = load(small(), save(model, tmp_path / NAME))
    for n in (3, 4):
        assert torch.equal(sample(again, 5, steps=n).x, sample(model, 5, steps=n).x)
    assert again.tuning.rows == model.tuning.rows


@pytest.mark.parametrize("change", ["weight", "process", "scale"])
def test_it_is_refused_when_the_model_changed(model: Tuned, tmp_path: Path, change: str) -> None:
    path, other = save(model, tmp_path / NAME), small()
    if change == "weight":
        other.net.weight.add_(1e-7)
    elif change == "process":
        other.sde = EDM()
    else:
        other.sigma_data = 0.51
    with pytest.raises(InputError, match="another model"):
        load(other, path)
    said: list[str] = []
    assert attach(other, tmp_path, said.append) is other and "untuned" in said[0]


@pytest.mark.slow
def test_laws_are_told_apart_by_what_they_give(tmp_path: Path) -> None:
    law = THREE.denoiser(VP())
    path = save(tune(law, [3], rounds=0, trajectories=8), tmp_path / NAME)
    other = THREE.denoiser(VP())
    other.mixture = Mixture(THREE.weights, THREE.means + 0.1, THREE.covariances, labels=[0, 1, 1])
    with pytest.raises(InputError, match="another model"):
        load(other, path)


@pytest.mark.parametrize("place", [0, 9, -200, -9])
def test_a_damaged_file_is_a_sentence(model: Tuned, tmp_path: Path, place: int) -> None:
    path = save(model, tmp_path / NAME)
    content = bytearray(path.read_bytes())
    content[place] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(InputError):
        load(small(), path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot read a tuning"):
        load(small(), path)


def test_a_figure_that_was_changed_is_noticed(model: Tuned, tmp_path: Path) -> None:
    """The header of the file, which holds the end of the paths and what was measured, is sealed as well."""
    path = save(model, tmp_path / NAME)
    content = path.read_bytes()
    end = f'{model.tuning.t_end!r}'.encode()
    assert content.count(end) == 1
    path.write_bytes(content.replace(end, end[:-1] + bytes([end[-1] ^ 1])))
    with pytest.raises(InputError, match="SHA-256"):
        load(small(), path)


def test_what_is_not_tuned_is_not_stored(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has not been tuned"):
        save(small(), tmp_path / NAME)
    assert not (tmp_path / NAME).exists() and tuning_of(attach(small(), tmp_path, print)) is None


def test_the_table_and_the_figure_show_every_row(model: Tuned, tmp_path: Path) -> None:
    text = list(lines(model.tuning))
    assert [row.split()[1] for row in text[2:-1]] == ["3", "4"] and text[-1].startswith("cost: ")
    assert tuning_figure(model.tuning, tmp_path / "tuning.png").read_bytes()[:4] == b"\x89PNG"
