"""Recipes: every kind of data gets an experiment that can be trained, chosen from the data and explained."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons

from undiffuse import nets, recipes
from undiffuse.data import distance_to_curve, open_data
from undiffuse.data.dataset import fit_transform
from undiffuse.errors import InputError
from undiffuse.metrics import noise_floor, sliced_w2
from undiffuse.processes import make_sde
from undiffuse.random import normal
from undiffuse.recipes import for_data
from undiffuse.training.model_config import describe, rebuild

TOYS = ("swiss_roll", "moons", "8gaussians", "checkerboard", "spiral", "digits")


def table(folder: Path, columns: int) -> str:
    """A CSV file of 300 rows with so many random columns, a constant one, and a class."""
    x = normal(0, 0, 0, 0, 300, (columns,)).numpy()
    lines = [",".join([*map(str, row), "1.5", "01"[i % 2]]) for i, row in enumerate(x)]
    path = folder / "table.csv"
    path.write_text(",".join([*(f"c{j}" for j in range(columns)), "fixed", "kind"]) + "\n" + "\n".join(lines))
    return str(path)


def images(folder: Path, n: int, *shape: int) -> str:
    """A file of random images (n, H, W) or (n, H, W, 3)."""
    path = folder / "images.npy"
    np.save(path, (normal(1, 0, 0, 0, n, shape).sigmoid() * 255).to(torch.uint8).numpy())
    return str(path)


def trainable(source: str, **overrides: object) -> None:
    """The experiment builds a model that takes its data, and every choice has its sentence."""
    recipe = for_data(source, **overrides)
    experiment, reasons = recipe.experiment, recipe.reasons
    data = open_data(source, size=experiment.image_size, label=experiment.label)
    assert 0 <= experiment.held_out < len(data)
    train = data.split(experiment.held_out)[0] if experiment.held_out else data
    model = rebuild(describe(experiment, train, ""))
    x = model.transform.forward(train.x[:3]).to(model.dtype)
    assert model(x, torch.tensor(1.0), label=0 if model.classes else None).shape == x.shape
    assert experiment.batch_size <= len(train)
    assert all(reason[0].isupper() or reason[0].isdigit() or "as set" in reason for reason in reasons)
    assert all(reason.endswith(".") for reason in reasons)


@pytest.mark.parametrize("source", TOYS)
def test_built_in_sets(source: str) -> None:
    """All of them."""
    trainable(source)


@pytest.mark.parametrize("sde", ["vp", "ve", "edm", "cosine", "rectified_flow"])
@pytest.mark.parametrize("net", nets.NETS)
def test_any_process_and_network_for_images(sde: str, net: str) -> None:
    """What is asked for by hand gets arguments that fit it."""
    trainable("digits", sde=sde, net=net)


def test_a_transformer_is_told_to_be_slower() -> None:
    """--net dit has patches that leave at most 8 x 8, and the sentence stays although the network was asked for."""
    recipe = for_data("digits", net="dit")
    experiment, reasons = recipe.experiment, recipe.reasons
    assert experiment.net_args["patch"] == 2 and experiment.prediction_type == "edm"
    assert any("in minutes on a CPU a U-Net" in reason for reason in reasons)


@pytest.mark.parametrize("columns", [5, 20])
def test_tables(tmp_path: Path, columns: int) -> None:
    """With and without a class, and with a constant column; few rows and fixed updates get a small network."""
    source = table(tmp_path, columns)
    trainable(source)
    trainable(source, label="kind")
    experiment = for_data(source, label="kind").experiment
    assert experiment.prediction_type == "wiener" and experiment.net_args["width"] == 128
    assert for_data(source, label="kind", steps=9).experiment.net_args["width"] == 64


def test_tables_end_by_the_held_out_loss(tmp_path: Path) -> None:
    """Unless the number of updates is given, or no rows are held out; the reasons say so."""
    source = table(tmp_path, 5)
    recipe, fixed, whole = for_data(source), for_data(source, steps=300), for_data(source, held_out=0)
    e = recipe.experiment
    assert (e.patience, e.schedule, e.save_every, e.steps) == (10, "constant", 100, 10_000)
    assert sum("has not improved" in reason for reason in recipe.reasons) == 1
    for other in (fixed, whole):
        assert other.experiment.patience == 0 and other.experiment.schedule == "cosine"
        assert not any("has not improved" in reason for reason in other.reasons)
    assert whole.experiment.steps * whole.experiment.batch_size <= 100 * 300


@pytest.mark.parametrize("shape", [(20, 16), (17, 33), (16, 16), (32, 32, 3), (9, 9)])
def test_images_of_any_size(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Large ones go to a U-Net whose coarsest level has at most 8 x 8 pixels, small ones to an MLP."""
    source = images(tmp_path, 30, *shape)
    trainable(source)
    experiment = for_data(source).experiment
    args = experiment.net_args
    assert experiment.net == ("unet" if math.prod(shape) > 200 else "mlp")
    assert experiment.prediction_type == ("linear" if experiment.net == "unet" else "wiener")
    if experiment.net == "unet":
        assert max(shape[:2]) / args["stem"] / 2 ** (len(args["widths"]) - 1) <= 9
        assert args["attention"] == [len(args["widths"]) - 1]


def test_few_pictures_are_advised_to_be_mirrored_and_moved(tmp_path: Path) -> None:
    advised = [any("--flip and --shift" in reason for reason in for_data(images(tmp_path, n, 9, 9)).reasons)
               for n in (100, 1300)]
    assert advised == [True, False]


@pytest.mark.parametrize(("shape", "kind"), [((17, 17), "edm"), ((17, 17, 3), "linear")])
def test_many_small_grey_images_do_not_start_from_the_linear_denoiser(tmp_path: Path, shape: tuple[int, ...],
                                                                      kind: str) -> None:
    """2,560 images of 289 pixels have principal directions, 867 values a pixel in colour do not."""
    recipe = for_data(images(tmp_path, 3200, *shape))
    assert recipe.experiment.prediction_type == kind
    assert any("best linear denoiser" in reason for reason in recipe.reasons) == (kind == "linear")


def test_noise_reaches_as_far_as_the_data(tmp_path: Path) -> None:
    """sigma_max is the largest distance between rows in model units, rounded up to one digit."""
    x = np.zeros((100, 2), np.float32)
    x[0], x[1:, 1] = (30, 0), np.linspace(0, 30, 99)
    np.save(tmp_path / "x.npy", x)
    data = open_data(tmp_path / "x.npy")
    z = fit_transform(data).forward(data.x).double()
    largest = float(torch.cdist(z, z).max())
    sigma_max = for_data(tmp_path / "x.npy", held_out=0).experiment.sde_args["sigma_max"]
    assert largest <= sigma_max <= 2 * largest
    assert f"{sigma_max:.0e}" == f"{sigma_max:.6e}".replace(".000000", "")
    sde = make_sde(**{"name": "edm", "sigma_max": sigma_max})
    assert sde.prior_std() == sigma_max


def test_few_rows_are_not_learned_by_heart(tmp_path: Path) -> None:
    """The number of updates falls with the rows, so that none is seen more than 100 times, down to 250 updates.

    Without the linear denoiser to start from they are twice as many.
    """
    few, more = (for_data(images(tmp_path, n, 8, 8)).experiment for n in (400, 800))
    assert few.steps * few.batch_size <= 100 * 320 and more.steps * more.batch_size <= 100 * 640
    assert few.steps < more.steps < recipes.digits().steps
    assert for_data(images(tmp_path, 20, 8, 8)).experiment.steps == 250
    plain, full = for_data("digits", prediction_type="edm").experiment, recipes.digits()
    assert (plain.prediction_type, full.prediction_type) == ("edm", "wiener") and plain.steps > 1.7 * full.steps


def test_what_is_asked_for_is_done_and_the_rest_follows() -> None:
    """An overridden field has its value, a sentence that says so, and no reason for what it replaced."""
    recipe = for_data("digits", steps=7, held_out=100, lr=1e-4)
    experiment, reasons = recipe.experiment, recipe.reasons
    assert (experiment.steps, experiment.held_out, experiment.lr) == (7, 100, 1e-4)
    assert sum("steps = 7, as set" in reason for reason in reasons) == 1
    assert not any("updates" in reason or "AdamW" in reason or "held out to" in reason for reason in reasons)
    half, full = for_data("digits", batch_size=64).experiment, for_data("digits").experiment
    assert half.steps == 2 * full.steps


def test_the_sentence_of_the_optimiser_says_what_is_asked_for() -> None:
    reasons = for_data("moons", optimizer="muon", batch_size=32, schedule="constant").reasons
    assert "Muon on 32 rows per update, with a learning rate of 0.005 that is constant." in reasons


def test_named_recipes_are_those_of_their_data() -> None:
    """`digits()` and `swiss_roll()` are what `undiffuse train` would take."""
    assert recipes.digits() == for_data("digits").experiment
    assert recipes.swiss_roll(seed=3) == for_data("swiss_roll", seed=3).experiment


def test_errors_say_what_to_do() -> None:
    """Unknown data and fields, values outside their domain, and nothing left to learn."""
    with pytest.raises(InputError, match="neither a path"):
        for_data("swissroll")
    with pytest.raises(InputError, match="did you mean 'steps'"):
        for_data("digits", step=3)
    with pytest.raises(InputError, match="batch_size=0"):
        for_data("digits", batch_size=0)
    for net in ("unet", "dit"):
        with pytest.raises(InputError, match=f"net={net} for points"):
            for_data("moons", net=net)
    with pytest.raises(InputError, match="hold out fewer"):
        for_data("swiss_roll", held_out=9999)


@pytest.mark.slow
def test_the_swiss_roll_is_learned_in_less_than_half_of_its_recipe(tmp_path: Path) -> None:
    """800 of the 2,000 updates: within twice the sampling noise of real data, and .03 off the curve."""
    import undiffuse as ud
    from undiffuse import training

    model = training.train(recipes.swiss_roll(steps=800), tmp_path / "run", progress=False)
    held = open_data("swiss_roll", n=8000, part="test").x.double()
    drawn = ud.sample(model, 4000).x
    floor = noise_floor(sliced_w2, held[:4000], held[4000:])
    assert sliced_w2(drawn, held[:4000]) < 2 * floor.value
    assert distance_to_curve("swiss_roll", drawn).mean() < 0.03


def write_csv(path: Path, columns: dict[str, np.ndarray]) -> Path:  # type: ignore[type-arg]
    rows = zip(*columns.values(), strict=True)
    path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]))
    return path


def trained_cells(folder: Path, columns: dict[str, np.ndarray], n: int) -> dict[str, np.ndarray]:  # type: ignore
    """Columns of n samples of the default recipe's model of a table."""
    import undiffuse as ud

    model = recipes.train(write_csv(folder / "table.csv", columns), folder / "run", progress=False)
    head, rows = model.schema.cells(ud.sample(model, n).x)
    return dict(zip(head, np.array(rows).T, strict=True))


@pytest.mark.slow
def test_pairs_of_words_that_never_occur_are_not_sampled(tmp_path: Path) -> None:
    """Species on islands as in the penguins: the second only on island i1, the third only on i0."""
    rng = np.random.default_rng(3)
    kind = rng.choice(3, 340, p=[0.44, 0.2, 0.36])
    island = np.where(kind == 2, 0, np.where(kind == 1, 1, rng.integers(0, 3, 340)))
    flipper = (190 + np.array([0, 6, 27])[kind] + rng.normal(0, 6.5, 340)).astype(int)
    drawn = trained_cells(tmp_path, {
        "species": np.array(["s0", "s1", "s2"])[kind], "island": np.array(["i0", "i1", "i2"])[island],
        "bill": (38.8 + np.array([0, 10, 8.7])[kind] + rng.normal(0, 2.7, 340)).round(1), "flipper": flipper}, 2000)
    impossible = ((drawn["species"] == "s1") & (drawn["island"] != "i1")) | (
        (drawn["species"] == "s2") & (drawn["island"] != "i0"))
    assert impossible.mean() < 0.005
    third = drawn["flipper"][drawn["species"] == "s2"].astype(float)
    assert abs(third.mean() - flipper[kind == 2].mean()) < 4 * 6.5 * (1 / np.sqrt(len(third)) + 1 / np.sqrt(122))


@pytest.mark.slow
def test_columns_that_say_the_same_agree(tmp_path: Path) -> None:
    """A class as number and as word, of 900 passengers with fares by class."""
    rng = np.random.default_rng(4)
    number = rng.choice(3, 900, p=[0.24, 0.21, 0.55])
    sibs, parents = rng.choice(4, 900, p=[0.68, 0.2, 0.07, 0.05]), rng.choice(3, 900, p=[0.76, 0.13, 0.11])
    drawn = trained_cells(tmp_path, {
        "pclass": number + 1, "fare": np.exp(rng.normal(np.array([4.1, 2.9, 2.4])[number], 0.6)).round(4),
        "sex": rng.choice(["male", "female"], 900), "sibsp": sibs, "parch": parents,
        "class": np.array(["First", "Second", "Third"])[number], "alone": sibs + parents == 0}, 2000)
    names = np.array(["", "First", "Second", "Third"])
    assert (names[drawn["pclass"].astype(int)] == drawn["class"]).mean() > 0.95
    alone = drawn["sibsp"].astype(int) + drawn["parch"].astype(int) == 0
    assert ((drawn["alone"] == "True") == alone).mean() > 0.9


@pytest.mark.slow
def test_two_moons_with_gaps_are_a_curve(tmp_path: Path) -> None:
    """One column missing in half of the rows: within twice the distance of the data to the curve."""
    import undiffuse as ud

    x = torch.tensor(make_moons(800, noise=0.05, random_state=0)[0])
    gaps = x.clone()
    gaps[torch.randperm(800, generator=torch.Generator().manual_seed(0))[:400], 1] = torch.nan
    model = recipes.train(gaps.numpy(), tmp_path / "run", progress=False)
    curve = torch.tensor(make_moons(4000)[0])
    drawn, real = (torch.cdist(rows.double(), curve).amin(1).mean() for rows in (ud.sample(model, 2000).x, x))
    assert drawn < 2 * real
