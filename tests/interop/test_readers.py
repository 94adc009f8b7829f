"""Checkpoints of other libraries: their weights, what their networks mean, and pickles that never run."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import undiffuse as ud
from undiffuse.errors import InputError
from undiffuse.interop.readers import FAMILIES, metadata, read_weights
from undiffuse.random import normal

S = 0.6  # the data are N(0, S²)


class Scale(nn.Module):
    """F = weight · factor(c) x: with weight 1 the exact output for N(0, S²), as each library defines it."""

    def __init__(self, factor: Any, weight: float = 0.0) -> None:
        super().__init__()
        self.weight, self.factor = nn.Parameter(torch.tensor(weight)), factor

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.weight * self.factor(c.double()).to(x)[:, None] * x


def vp(sde: Any, t: Tensor) -> Tensor:
    """ε of x_t: σ/(α² S² + σ²)."""
    return sde.sigma(t) / (sde.alpha(t) ** 2 * S**2 + sde.variance(t))


def edm(sigma: Tensor) -> Tensor:
    """F of c_in x with σ_data = ½: (D − c_skip x)/(c_out c_in), D = S²/(S² + σ²) x."""
    total = sigma**2 + 0.25
    return (S**2 / (S**2 + sigma**2) - 0.25 / total) / (0.5 * sigma / total.sqrt() / total.sqrt())


def vdiff(sigma: Tensor) -> Tensor:
    """VDenoiser: D = x/(σ² + 1) − σ/√(σ² + 1) F(x/√(σ² + 1))."""
    total = sigma**2 + 1
    return (1 / total - S**2 / (S**2 + sigma**2)) / (sigma / total.sqrt() / total.sqrt())


CHAIN = ud.DDPM(tuple(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float32).double().tolist()))
NETS = {
    "guided_diffusion": lambda c: vp(CHAIN, (c + 1) / 1000), "score_sde_vp": lambda c: vp(ud.VP(), c / 999),
    "score_sde_subvp": lambda c: vp(ud.SubVP(), c / 999), "score_sde_ve": lambda c: -1 / (S**2 + c**2),
    "k_diffusion": lambda c: edm(torch.exp(4 * c)), "v_diffusion": lambda c: vdiff(torch.tan(c * math.pi / 2))}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_denoiser_of_each_family_is_exact(family: str, tmp_path: Path) -> None:
    net = Scale(NETS[family])
    state = {"weight": torch.tensor(1.0)}
    torch.save({"model": {"module.weight": torch.tensor(7.0)}, "ema": {"shadow_params": [torch.tensor(1.0)]}}
               if family.startswith("score_sde") else state, tmp_path / "w.pt")
    model = ud.from_checkpoint(tmp_path / "w.pt", net, family, shape=(3,))
    assert float(net.weight) == 1
    t = model.sde.time_of(-torch.tensor([0.05, 0.3, 1.0, 8.0]).double().log())
    x, alpha = normal(0, 0, 0, 0, 4, (3,), torch.float64), model.sde.alpha(t)
    expected = (alpha * S**2 / (alpha**2 * S**2 + model.sde.variance(t)))[:, None] * x
    torch.testing.assert_close(model.denoise(x, t), expected, rtol=2e-4, atol=2e-4)
    assert family in model.source and ud.sample(model, 2, steps=5).x.isfinite().all()


def test_safetensors_are_read_with_their_configuration(tmp_path: Path) -> None:
    save_file({"weight": torch.tensor(1.0)}, tmp_path / "w.safetensors", {"config": '{"sigma_data": 0.5}'})
    assert metadata(tmp_path / "w.safetensors") == {"sigma_data": 0.5}
    net = Scale(NETS["k_diffusion"])
    ud.from_checkpoint(tmp_path / "w.safetensors", net, "k_diffusion", shape=(3,), sigma_data=0.5)
    assert float(net.weight) == 1


class Payload:
    """A pickle that would write a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return (Path.touch, (self.place,))


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.pkl"])
def test_a_pickle_with_code_is_refused_and_never_runs(name: str, tmp_path: Path) -> None:
    victim = tmp_path / "ran"
    if name.endswith("pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(Payload(victim)))
    else:
        torch.save({"model": Payload(victim)}, tmp_path / name)
    with pytest.raises(InputError, match="code"):
        read_weights(tmp_path / name)
    assert not victim.exists()


@pytest.mark.parametrize("family, options, content, words", [
    ("adm", {}, {"weight": torch.tensor(1.0)}, "expected one of guided_diffusion"),
    ("k_diffusion", {"sigma": 1.0}, {"weight": torch.tensor(1.0)}, "option sigma"),
    ("k_diffusion", {}, {"bias": torch.tensor(1.0)}, "not of this network"),
    ("k_diffusion", {}, {"weight": torch.zeros(3)}, "not of this network"),
    ("k_diffusion", {}, [torch.tensor(1.0)], "tensors by name"),
    ("score_sde_vp", {}, {"model": {"weight": torch.tensor(1.0)}, "ema": {"shadow_params": [torch.zeros(1)] * 3}}, "3"),
    ("guided_diffusion", {"beta_schedule": "cosine"}, {"weight": torch.tensor(1.0)}, "beta_schedule")])
def test_what_does_not_fit_is_refused(family: str, options: dict[str, Any], content: Any, words: str,
                                      tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(InputError, match=words):
        ud.from_checkpoint(tmp_path / "w.pt", Scale(lambda c: c), family, shape=(3,), **options)


def test_files_that_are_missing_or_damaged_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"12345678")
    (tmp_path / "w.pt").write_bytes(b"12345678")
    for name in ("w.safetensors", "w.pt", "absent.pt", "absent.safetensors"):
        with pytest.raises(InputError):
            read_weights(tmp_path / name)
