"""The public face takes numbers as users have them: a right result or one sentence, never a raw error."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import undiffuse as ud
from undiffuse import training
from undiffuse.cli import main
from undiffuse.data import arrays, from_arrays, sources
from undiffuse.data.dataset import fit_transform
from undiffuse.errors import InputError
from undiffuse.pipelines.impute import impute

pd = pytest.importorskip("pandas")

ROWS = torch.tensor([[-1.0, 0.0], [1.0, 2.0], [0.0, -1.0]])  # whole, so that every type holds them
LAW = ud.Mixture([1, 2], [[-1.0, 0.0], [1.0, 0.5]], [0.1, 0.4], labels=[0, 1])
EXACT = LAW.denoiser(ud.VP())


class Small(nn.Module):
    """A network of three numbers a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.layer.weight.data = torch.tensor([[0.3, -0.2, 0.1], [0.2, 0.4, -0.3]])
        self.layer.bias.data = torch.tensor([0.1, -0.1])

    def forward(self, x: Tensor, c: Tensor, label: Tensor | None) -> Tensor:
        """F."""
        out: Tensor = self.layer(torch.cat([x, c[:, None]], 1))
        return out


def trained() -> ud.Denoiser:
    return ud.Denoiser(Small(), ud.VP(), shape=(2,))


NET = trained()
DOORS: dict[str, Callable[[Any], Any]] = {
    "sample": lambda x: ud.sample(EXACT, method="ddim", steps=4, x_T=x).x,
    "sample, network": lambda x: ud.sample(NET, method="ddim", steps=4, x_T=x).x,
    "log_likelihood": lambda x: ud.log_likelihood(EXACT, x).log_prob,
    "log_likelihood, network": lambda x: ud.log_likelihood(NET, x, rtol=1e-3, atol=1e-3).log_prob,
    "encode": lambda x: ud.encode(EXACT, x),
    "decode": lambda x: ud.decode(EXACT, x),
    "interpolate": lambda x: ud.interpolate(EXACT, x, x, 3),
    "elbo": lambda x: ud.elbo(EXACT, x, 8).value,
    "label_posterior": lambda x: ud.label_posterior(EXACT, x, 8),
    "path_log_likelihood": lambda x: ud.path_log_likelihood(EXACT, x, 4, 2).value,
    "observe, y": lambda x: ud.sample(ud.observe(EXACT, np.eye(2), None, 0.5), 3, steps=4, y=x).x,
    "observe, operator": lambda x: ud.sample(ud.observe(EXACT, x, [0.0, 0.0, 0.0], 0.5), 3, steps=4).x,
    "simulate": lambda x: ud.simulate(ud.VP(), x, 4),
    "denoise": lambda x: EXACT.denoise(x, 0.5),
    "denoise, network": lambda x: NET.denoise(x, 0.5),
    "score": lambda x: NET.score(x, 0.5),
    "noise": lambda x: EXACT.noise(x, 0.5),
    "velocity": lambda x: NET.velocity(x, 0.5),
    "reverse_drift": lambda x: NET.reverse_drift(x, 0.5),
    "guided": lambda x: ud.classifier_free(EXACT, 2.0).denoise(x, 0.5, label=1),
    "given": lambda x: EXACT.given(label=1).score(x, 0.5),
    "posterior": lambda x: ud.observe(EXACT, np.eye(2), [0.0, 1.0], 0.5).denoise(x, 0.5),
    "score model": lambda x: ud.ScoreModel(lambda x, t: -x, ud.VP(), shape=(2,)).score(x, 0.5),
    "Mixture": lambda x: ud.Mixture([1, 1, 2], x, 0.5).covariance,
    "Mixture.log_prob": LAW.log_prob,
    "Mixture.score": LAW.score,
    "Mixture.posterior": lambda x: LAW.posterior(x, [0.0, 0.0, 0.0], 0.5).mean,
    "Mixture.fit": lambda x: ud.Mixture.fit(x).mean,
    "open_data": lambda x: ud.open_data(x).x,
    "impute": lambda x: impute(EXACT, x, 2),
}
KINDS: dict[str, Callable[[Tensor], Any]] = {
    "numpy": lambda x: x.double().numpy(), "float32 numpy": lambda x: x.numpy(), "list": lambda x: x.tolist(),
    "tuple": lambda x: tuple(map(tuple, x.tolist())), "tensors": list, "float64": lambda x: x.double(),
    "float16": lambda x: x.half(), "bfloat16": lambda x: x.bfloat16(), "int64": lambda x: x.long(),
    "int8 numpy": lambda x: x.numpy().astype(np.int8), "uint16 numpy": lambda x: abs(x).numpy().astype(np.uint16),
    "backwards": lambda x: x.flip(0).numpy()[::-1], "big-endian": lambda x: x.numpy().astype(">f8"),
    "DataFrame": lambda x: pd.DataFrame(x.numpy(), columns=["a", "b"]), "Int64": lambda x: pd.DataFrame(
        {"a": pd.array(x[:, 0].long().tolist(), "Int64"), "b": x[:, 1].numpy()}),
}
WRONG: dict[str, Any] = {
    "word": "points.csv that are not there", "None": object(), "one number": 3.0, "row": [1.0, 2.0],
    "wide": torch.zeros(3, 5), "deep": np.zeros((3, 2, 2, 2, 2)), "ragged": [[1.0, 2.0], [3.0]],
    "words": [["a", "b"], ["c", "d"]],
    "objects": np.array([[object(), 1]], dtype=object), "complex": torch.zeros(3, 2, dtype=torch.complex64),
    "dict": {"x": [1.0]}, "sparse": torch.eye(2).to_sparse(),
    "words in a frame": pd.DataFrame({"a": ["x"], "b": [1.0]}),
    "ragged tensors": [torch.zeros(2), torch.zeros(3)],
}


COMMON = ("numpy", "list", "float16", "int64", "DataFrame")  # the others only where slow tests run


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[] if kind in COMMON else [pytest.mark.slow])
                                  for kind in KINDS])
@pytest.mark.parametrize("door", DOORS)
def test_a_door_gives_the_same_for_every_kind_of_numbers(door: str, kind: str) -> None:
    rows = ROWS.abs() if kind.startswith("uint") else ROWS
    from_tensor, from_kind = DOORS[door](rows), DOORS[door](KINDS[kind](rows))
    torch.testing.assert_close(from_kind.double(), from_tensor.double(), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("door", DOORS)
def test_a_door_refuses_the_rest_in_a_sentence(door: str, kind: str) -> None:
    try:
        result = DOORS[door](WRONG[kind])
    except InputError as error:
        assert "\n" not in str(error) and str(error)
    else:  # what one door refuses another may take: simulate has events of any shape, open_data rows of any width
        assert door in ("simulate", "open_data", "Mixture", "Mixture.fit"), door
        assert bool(result.double().isfinite().all())


@pytest.mark.parametrize(("word", "said"), [
    ("stepss", "did you mean 'steps'"), ("labl", "did you mean 'label'"), ("eta", r"options=\{'eta'"),
    ("guidance_scale", r"ud.classifier_free\(model, 2.0\)"), ("num_inference_steps", "steps="),
    ("device", r"model.to\("),
])
@pytest.mark.parametrize("model", [EXACT, NET, EXACT.given(label=0), ud.classifier_free(EXACT, 2.0)])
def test_an_unknown_keyword_gets_a_hint(model: ud.Model, word: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ud.sample(model, 2, **{word: 1})
    for call in (ud.log_likelihood, ud.encode, ud.elbo, ud.decode, ud.path_log_likelihood):
        with pytest.raises(InputError, match=r"did you mean|options|classifier_free|steps=|model.to|argument"):
            call(model, ROWS, **{word: 1})
    with pytest.raises(InputError, match="has only"):
        model.denoise(ROWS, 0.5, **{word: 1})


def test_a_score_model_has_no_conditions() -> None:
    with pytest.raises(InputError, match="labl"):
        ud.sample(ud.ScoreModel(lambda x, t: -x, ud.VP(), shape=(2,)), 2, "euler_maruyama", labl=1)


def test_a_misspelt_sampler_gets_the_closest_one_and_no_list() -> None:
    with pytest.raises(InputError) as caught:
        ud.sample(EXACT, 2, "dpmpp2m")
    assert "did you mean 'dpmpp_2m'" in str(caught.value) and len(str(caught.value)) < 150


@pytest.mark.parametrize("name", ["vp", "subvp", "ve", "power_ve", "edm", "cosine", "rectified_flow", "ou"])
def test_a_process_takes_floats(name: str) -> None:
    sde, at = ud.make_sde(name), torch.tensor(0.5, dtype=torch.float64)
    for function in (sde.alpha, sde.variance, sde.sigma, sde.log_snr, sde.f, sde.g2):
        assert float(function(0.5)) == float(function(at))
    chain = ud.DDPM(ud.linear_betas(40))
    assert float(chain.alpha(0.5)) == float(chain.alpha(at)) and float(chain.variance(0.5)) == float(chain.variance(at))


def test_the_dtype_is_that_of_the_parameters() -> None:
    model = trained()
    assert model.dtype == torch.float32 and EXACT.dtype == torch.float64 and EXACT.given(label=0).dtype == torch.float64
    single = ud.sample(model, 3, steps=5).x
    model.double()
    double = ud.sample(model.given(), 3, steps=5).x
    assert model.dtype == model.given().dtype == double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)
    half = ud.sample(model.half(), 3, steps=5).x  # the states stay in float32
    assert model.dtype == half.dtype == torch.float32
    torch.testing.assert_close(single, half, rtol=2e-2, atol=2e-2)


def test_reprs_say_in_one_line_what_things_are() -> None:
    out = ud.sample(EXACT, 5, "ddim", steps=4)
    shown = {repr(v) for v in (EXACT, EXACT.given(label=0), NET, LAW, ud.Gaussian([0.0, 0.0], 1.0), out,
                               ud.open_data(ROWS), ud.log_likelihood(EXACT, ROWS))}
    assert all("\n" not in line and len(line) < 120 for line in shown)
    assert {"Samples(x=(5, 2), nfe=5, method='ddim', grid='log_snr')", "ExactDenoiser(VP, shape=(2,), classes=2)",
            "FixedConditions(ExactDenoiser(VP, shape=(2,), classes=2))", "Mixture(2 components, shape=(2,), classes=2)",
            "Denoiser(VP, shape=(2,), prediction_type='edm', Small, 8 parameters)", "Gaussian(shape=(2,))",
            "Dataset(3 points in 2-D (the array))"} <= shown
    assert len(out) == 5 and np.array_equal(np.asarray(out), out.x.numpy())


def frame() -> Any:
    rng = LAW.sample(60)
    return pd.DataFrame({"a": rng[:, 0], "kind": ["x", "y", None] * 20, "b": [float("nan"), *rng[1:, 1].tolist()],
                         "class": pd.Categorical(["u", "v"] * 30)})


def test_a_frame_is_read_as_the_file_of_it(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "the table", index=False)
    (tmp_path / "the table").rename(tmp_path / "t.csv")
    read, direct = ud.open_data(tmp_path / "t.csv", label="class"), ud.open_data(frame(), label="class")
    assert read.columns == direct.columns == ("a", "kind", "b") and read.categories == direct.categories
    assert read.classes == direct.classes == ("u", "v") and torch.equal(read.x.isnan(), direct.x.isnan())
    torch.testing.assert_close(read.x, direct.x, equal_nan=True)
    assert ud.open_data(pd.DataFrame([[1.5, 2], [2, 3], [3, 5]], columns=["a", "a"])).columns == ("a", "a-1")
    with pytest.raises(InputError, match="did you mean 'class'"):
        ud.open_data(frame(), label="clas")


def test_train_takes_anything_and_needs_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    x = LAW.sample(64).float()
    small = {"steps": 3, "batch_size": 8, "device": "cpu", "progress": False, "held_out": 8}
    models = [ud.train(v, **small) for v in (x, x.numpy(), x.tolist(), from_arrays(x.numpy()))]
    folders = {model.folder for model in models}
    assert len(folders) == 4 and all(folder is not None and folder.parent == tmp_path for folder in folders)
    weights = [torch.cat([p.flatten() for p in model.parameters()]) for model in models]
    assert all(torch.equal(weights[0], other) for other in weights)
    ud.train(x, tmp_path / "run", **small)
    again = ud.train(x.numpy(), tmp_path / "run", **small)  # goes on where it was: it is done
    assert torch.equal(torch.cat([p.flatten() for p in again.parameters()]), weights[0])
    with pytest.raises(InputError, match="other data"):
        ud.train(x + 1, tmp_path / "run", **small)
    with pytest.raises(InputError, match="in memory"):
        training.load_data(tmp_path / "run")
    recipe = ud.recipes.for_data(frame(), label="class", steps=3, batch_size=8, device="cpu")
    model = ud.train(recipe, progress=False)
    assert model.classes == 2 and ud.sample(model, 2, label=1, steps=3).x.shape == (2, 3)
    with pytest.raises(InputError, match="with a Recipe"):
        ud.train(recipe, steps=4)
    for wrong in (object(), [[1.0], [2.0, 3.0]], 3.0, "nothing.npy", {"x": 1}):
        with pytest.raises(InputError):
            ud.train(wrong, **small)  # type: ignore[arg-type]


@pytest.mark.parametrize("more", [[], ["--minutes", "1"]])
def test_a_command_opens_and_measures_its_data_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                    more: list[str]) -> None:
    calls: list[str] = []

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **options: (calls.append(name), function(*args, **options))[1]

    np.save(tmp_path / "x.npy", LAW.sample(40).numpy())
    monkeypatch.setattr(sources, "read_npy", counted("read", arrays.read_npy))
    for user in (ud.recipes, training.model_config):
        monkeypatch.setattr(user, "fit_transform", counted("fit", fit_transform))
    monkeypatch.setattr(ud.recipes, "measure", lambda recipe: training.timing.StepTiming(20.0, 1.0))
    words = ["train", str(tmp_path / "x.npy"), "--out", str(tmp_path / "run"), "--batch-size", "8", "--device", "cpu"]
    assert main([*words, *(more or ["--steps", "2"])]) == 0
    assert sorted(calls) == ["fit", "read"]
