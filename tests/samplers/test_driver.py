"""The driver: a sample is the same bytes however it is asked for, every call is counted, nonsense gets a sentence."""

from __future__ import annotations

import math
from inspect import signature
from itertools import product

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracles import correlated_gaussian, f64, random_mixture

from undiffuse.errors import InputError
from undiffuse.mixture import Gaussian
from undiffuse.model import Denoiser, FixedConditions, Model
from undiffuse.processes import EDM, VP, Cosine, RectifiedFlow
from undiffuse.random import Purpose, normal
from undiffuse.samplers import ALL, default_sampler
from undiffuse.samplers.default import IMAGES, PLAIN, SDE_PLAIN, SDE_WITH_MOMENTS, WITH_MOMENTS
from undiffuse.samplers.driver import block_sizes, blocks, sample
from undiffuse.samplers.method import Method, SamplerContext, Step
from undiffuse.samplers.registry import as_method
from undiffuse.score_model import ScoreModel
from undiffuse.sde import NonlinearSDE, Time, as_time
from undiffuse.transforms.conditions import RESERVED

METHODS_SEEN = ("auto", "deis_3", "dpmpp_2m_sde", "heun", "seeds_2", "wiener_2m")


def small(labels: bool = False) -> Model:
    """An exact model in small blocks."""
    model = random_mixture(4, 2, labels=labels).denoiser(VP())
    model.block = 5
    return model


@settings(max_examples=25)
@given(method=st.sampled_from(METHODS_SEEN), n=st.integers(1, 13), first=st.integers(0, 20), seed=st.integers(0, 3))
@example(method="dpmpp_2m_sde", n=11, first=4, seed=0)
def test_sample_i_is_the_same_bytes_in_every_request(method: str, n: int, first: int, seed: int) -> None:
    whole = sample(small(), 33, as_method(method), 3, seed=seed).x
    assert torch.equal(sample(small(), n, as_method(method), 3, seed=seed, first_index=first).x, whole[first:first + n])


def test_seeds_indices_and_methods_give_different_samples() -> None:
    a, b, c = (sample(small(), 4, "ancestral", 4, seed=s, first_index=i).x for s, i in ((0, 0), (1, 0), (0, 4)))
    assert not torch.isclose(a, b).any() and not torch.isclose(a, c).any()


@pytest.mark.parametrize("method", ["deis_3", "dpmpp_2m_sde"])
def test_labels_go_with_their_samples(method: str) -> None:
    labels = torch.arange(11) % 3
    whole = sample(small(True), 11, as_method(method), 4, label=labels).x
    assert torch.equal(sample(small(True), 4, as_method(method), 4, label=labels[7:], first_index=7).x, whole[7:])
    assert torch.equal(sample(small(True), 2, as_method(method), 4, label=1, first_index=1).x[:1], whole[1:2])
    unconditional = sample(small(True), 3, as_method(method), 4, label=2, first_index=2).x[:1]
    assert torch.equal(unconditional, whole[2:3])
    assert torch.equal(sample(small(True).given(label=0), 1, as_method(method), 4).x, whole[:1])
    assert torch.equal(sample(small(True), 11, as_method(method), 4, label=labels.tolist()).x, whole)
    assert torch.equal(sample(small(True), 11, as_method(method), 4, label=labels.to(torch.uint8)).x, whole)


class Counting(Model):
    """An exact model that counts."""

    dtype = torch.float64

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = small(), 0
        self.sde, self.shape, self.block = self.inner.sde, (2,), 4
        self.sigma_data, self.moments = self.inner.sigma_data, self.inner.moments

    def denoise(self, x: torch.Tensor, t: Time, **cond: object) -> torch.Tensor:
        """E[x_0 | x_t]."""
        self.calls += 1
        return self.inner.denoise(x, t)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("method", ["auto", *(name for name, m in ALL.items() if not m.adaptive)])
def test_every_model_call_is_counted(method: str, last: bool) -> None:
    model = Counting()
    assert sample(model, 4, as_method(method), 6, denoise_last=last).nfe == model.calls


@pytest.mark.parametrize("steps", [1, 2, 5, 8, 13, 20, 35, 50, 100])
def test_the_default_spends_as_many_evaluations_as_it_is_given_and_says_how(steps: int) -> None:
    for model, kind in product((small(), FixedConditions(small(), {})), ("auto", "sde")):
        out = sample(model, 2, kind, steps, denoise_last=False)
        assert out.nfe == steps
        assert ALL[out.method].stochastic == (kind == "sde")


@pytest.mark.parametrize(("label", "said"), [("cat", "got label=cat"), (["cat"], "the number of a class"),
                                             (torch.tensor([0.0, 1.7, 2.0]), "the number of a class"),
                                             ([0, 1], "got 2 values of label for 3 samples")])
def test_labels_that_are_no_numbers_or_too_few_are_a_sentence(label: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        sample(small(True), 3, "ddim", 4, label=label)


def test_the_default_starts_from_moments_only_where_they_are_the_models_own() -> None:
    law, model = random_mixture(3, 2, labels=True), random_mixture(3, 2, labels=True).denoiser(VP())
    from_moments, plain = WITH_MOMENTS[10], PLAIN[10]
    assert default_sampler(model, 10) is from_moments
    assert default_sampler(model, 10, conditional=True) is plain
    assert default_sampler(model.given(label=1), 10) is plain
    low = float(model.sde.time_of(f64(0.0)))
    assert default_sampler(model, 10, (low, None)) is plain  # the start is not far above the data
    assert default_sampler(model, 10, (None, 0.9)) is plain
    assert default_sampler(model, 10, kind="sde") is SDE_WITH_MOMENTS[10]
    model.moments = None
    assert default_sampler(model, 10) is plain
    assert default_sampler(model, 10, kind="sde") is SDE_PLAIN[1]
    assert law.classes == 2


def test_networks_for_images_have_defaults_of_their_own_and_keep_them_when_wrapped() -> None:
    model = Denoiser(torch.nn.Identity(), VP(), shape=(1, 4, 4))
    for used in (model, model.given(label=1)):
        for kind, table in IMAGES.items():
            defaults = [default_sampler(used, steps, kind=kind) for steps in (3, 10, 20)]
            rows = [max(n for n in table if n <= steps) for steps in (3, 10, 20)]
            assert defaults == [table[n] for n in rows] and len(set(defaults)) == len(table)
    assert default_sampler(model, 10, images=False) is PLAIN[10]
    exact = random_mixture(3, 2).denoiser(VP())
    assert default_sampler(exact, 10) is WITH_MOMENTS[10]


def test_the_default_is_exact_on_gaussian_data_above_the_data_and_close_below() -> None:
    """At 10 evaluations on N(μ, C): the whole flow in closed form, against ours."""
    law = correlated_gaussian()
    model = law.denoiser(EDM())
    x = 80 * normal(0, 0, 0, 0, 16, (3,), torch.float64)
    spectrum, basis = torch.linalg.eigh(law.covariance)
    gain = ((spectrum + 1e-4) / (spectrum + 80**2)).sqrt()
    truth = law.mean + (x - law.mean) @ basis * gain @ basis.T
    out = sample(model, method="auto", steps=10, x_T=x, t_end=0.01, denoise_last=False)
    assert float((out.x - truth).abs().max()) < 0.02


def test_samples_say_how_they_were_drawn() -> None:
    """Method, grid, start and start level as fields, for every way to a sampler."""

    def summary(model: Model, *args: object, **request: object) -> tuple[object, ...]:
        out = sample(model, 2, *args, **request)  # type: ignore[arg-type]
        return out.method, out.grid, out.start, out.start_level, out.tuned_for

    x_T, grid = normal(0, 0, 0, 0, 2, (2,), torch.float64), f64(0.9, 0.5, 0.1)
    assert summary(small(), steps=8) == ("deis_3", "karras(12)", "moments", 14, "")
    assert summary(small().given(), steps=8) == ("deis_3", "karras(12)", "prior", 12, "")
    assert summary(small(), "heun", 4) == ("heun", "karras", "prior", None, "")
    assert summary(small(), "ddim", x_T=x_T, grid=grid) == ("ddim", "custom", "x_T", None, "")
    assert summary(small(), ALL["seeds_2"], 4)[0] == "custom"
    assert sample(small(), 2, steps=8).sampler == "deis_3 on karras(12) from 14 data std"


def test_the_step_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[torch.Tensor] = []

    def make(context: SamplerContext, **options: object) -> Step:
        built.append(context.template)
        return ALL["ddim"].step(context, {})

    method = Method(make, 1)
    x = sample(small(), 11, method, 4).x  # three blocks
    assert len(built) == 1 and built[0].shape == (0, 2) and built[0].dtype == torch.float64
    assert torch.equal(x, sample(small(), 11, "ddim", 4).x)
    with pytest.raises(InputError, match="this method has"):
        sample(small(), 0, "ddim", 4, options={"eta": 1.0})


def test_reserved_names_of_conditions_are_the_arguments_of_sample() -> None:
    arguments = set(signature(sample).parameters) - {"cond"}
    assert arguments <= set(RESERVED) and set(RESERVED) - arguments == {"self", "x", "t", "label"}


def test_a_trajectory_goes_from_the_start_to_the_sample() -> None:
    x_T = normal(0, 0, 0, 0, 7, (2,), torch.float64)
    seen: list[tuple[int, float]] = []
    told: list[tuple[int, int]] = []
    out = sample(small(), method="ddim", steps=6, x_T=x_T, trajectory=True,
                 callback=lambda i, t, x: seen.append((i, t)), progress=lambda *done: told.append(done))
    assert torch.equal(out.trajectory[0][1], x_T) and torch.equal(out.trajectory[-1][1], out.x)
    assert [t for t, _ in out.trajectory] == [*out.t.tolist(), 0.0]
    assert seen == [(i, float(out.t[i])) for _ in range(2) for i in range(1, 7)]  # two blocks
    assert told == [(i, 12) for i in range(1, 13)]
    short = sample(small(), method="ddim", steps=6, x_T=x_T, trajectory=True, denoise_last=False)
    assert len(short.trajectory) == 7 and torch.equal(short.trajectory[6][1], out.trajectory[6][1])
    assert torch.equal(small().denoise(short.x[:5], short.t[-1]), out.x[:5])


def test_a_run_in_two_halves_is_the_run() -> None:
    """A first-order method has no memory: from T to t, then from t on."""
    whole = sample(small(), 5, "ddim", grid=f64(1.0, 0.7, 0.4, 0.1), trajectory=True)
    again = sample(small(), method="ddim", x_T=whole.trajectory[2][1], grid=f64(0.4, 0.1))
    assert torch.equal(again.x, whole.x)


def test_t_start_and_t_end_are_the_ends_of_the_grid() -> None:
    x = normal(0, 0, 0, 0, 3, (2,), torch.float64)
    out = sample(small(), method="dpmpp_2m", steps=5, x_T=x, t_start=0.6, t_end=0.05)
    assert (float(out.t[0]), float(out.t[-1]), len(out.t)) == (0.6, 0.05, 6)
    grid = f64(0.8, 0.3, 0.2)
    assert torch.equal(sample(small(), method="dpmpp_2m", x_T=x, grid=grid).t, grid)


def test_more_steps_come_closer_to_the_law() -> None:
    """The covariance of 4,000 samples, within five standard errors."""
    law = Gaussian([1.0, -2.0], [[1.0, 0.6], [0.6, 0.5]])
    x = sample(law.denoiser(Cosine()), 4000, "dpmpp_2m", 40).x
    assert torch.allclose(x.mean(0), law.mean, atol=5 / 4000**0.5)
    assert torch.allclose(x.T.cov(), law.covariance, atol=5 * (2 / 4000) ** 0.5)


def test_where_alpha_is_zero_at_the_start() -> None:
    """Rectified flow starts at α = 0; after one first-order step every sampler follows the same flow."""
    law = random_mixture(3, 2)
    x = normal(0, 0, 0, 0, 6, (2,), torch.float64)
    truth = sample(law.denoiser(RectifiedFlow()), method="rk4_log_snr", steps=300, x_T=x, t_end=0.01).x
    for name in ("deis_3", "dpmpp_3m", "unipc_3", "dpm_solver_3s", "wiener_3m"):
        endpoints = sample(law.denoiser(RectifiedFlow()), method=as_method(name), steps=300, x_T=x, t_end=0.01).x
        assert float((endpoints - truth).abs().max()) < 2e-3, name


def test_no_samples_are_no_samples() -> None:
    assert sample(small(), 0).x.shape == (0, 2)


def test_a_process_that_is_not_gaussian_can_be_sampled_with_what_needs_only_a_drift() -> None:
    sde = NonlinearSDE(lambda x, t: -x, lambda x, t: math.sqrt(2.0), T=2.0)
    model = ScoreModel(lambda x, t: -x, sde, shape=(2,))
    assert sample(model, 3, steps=5).method == "heun"
    assert bool(sample(model, 3, "euler_maruyama", 5).x.isfinite().all())
    with pytest.raises(InputError, match="expected one of euler"):
        sample(model, 3, "ddim", 5)


@pytest.mark.parametrize(("arguments", "words"), [
    ({"n": -1}, "number of samples"), ({"method": "nope"}, "expected auto, sde, tuned or a name"),
    ({"steps": 0}, "at least 1 step"), ({"t_start": 2.0}, "t_start"),
    ({"t_end": 0.0, "method": "dpmpp_2m", "grid": "time"}, "t_end"),
    ({"x_T": torch.zeros(3, 5)}, "x_T of shape"), ({"label": 1}, "without classes"),
    ({"label": torch.zeros(7).long(), "n": 3}, "one each"), ({"noise": "white"}, "step or path"),
    ({"grid": f64(0.1, 0.2)}, "strictly decreasing"), ({"t_start": 0.1, "t_end": 0.5}, "t_end < t_start"),
])
def test_a_request_without_sense_gets_a_sentence(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        sample(small(), **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_model_that_gives_nan_is_named() -> None:
    model = Counting()
    model.denoise = lambda x, t, **cond: x / 0 if float(as_time(t)) < 0.5 else x  # type: ignore[method-assign]
    with pytest.raises(InputError, match="non-finite"):
        sample(model, 3, "ddim", 5)


@pytest.mark.parametrize("method", ["ancestral", "seeds_2", "edm_churn", "predictor_corrector"])
def test_noise_drawn_for_many_steps_at_once_is_the_noise_of_every_step(method: str, monkeypatch: pytest.MonkeyPatch
                                                                      ) -> None:
    together = sample(small(), 5, as_method(method), 9, seed=4).x
    monkeypatch.setattr("undiffuse.samplers.driver.NORMALS_PER_CALL", 1)
    assert torch.equal(together, sample(small(), 5, as_method(method), 9, seed=4).x)


@pytest.mark.parametrize("denoise_last, strength, calls", [(True, 1.0, 11), (True, 0.5, 5), (True, 0.1, 1),
                                                           (False, 0.5, 5), (False, 0.1, 1)])
def test_data_noised_to_the_last_part_of_the_grid(denoise_last: bool, strength: float, calls: int) -> None:
    """x0 with a strength is x_T = α x_0 + σ ε at the node where that part of the grid begins."""
    model = correlated_gaussian(2).denoiser(VP())
    whole = sample(model, 1, "ddim", 10, grid="time").t
    x0 = normal(1, 0, 0, 0, 3, (2,), torch.float64)
    out = sample(model, x0=x0, strength=strength, method="ddim", steps=10, grid="time", denoise_last=denoise_last)
    assert out.nfe == calls and torch.equal(out.t, whole[-len(out.t):])
    x_T = model.sde.perturb(x0, out.t[0], normal(0, Purpose.INIT, 0, 0, 3, (2,), torch.float64))
    if len(out.t) > 1:
        by_hand = sample(model, x_T=x_T, method="ddim", grid=out.t, denoise_last=denoise_last)
        assert torch.equal(out.x, by_hand.x)
    else:
        torch.testing.assert_close(out.x, model.denoise(x_T, out.t[0]))
    alone = sample(model, x0=x0[1:2], strength=strength, method="ddim", steps=10, grid="time", first_index=1,
                   denoise_last=denoise_last)
    torch.testing.assert_close(alone.x, out.x[1:2])


def test_a_strength_that_leaves_no_step_is_refused() -> None:
    model = correlated_gaussian(2).denoiser(VP())
    for strength in (0.0, -1.0, 1.5, 0.05, math.nan):
        with pytest.raises(InputError, match="strength"):
            sample(model, x0=torch.zeros(1, 2), strength=strength, steps=10)


@pytest.mark.parametrize("n, sizes", [(1, [1]), (7, [4, 2, 1]), (8, [8]), (21, [8, 8, 4, 1])])
def test_blocks_of_powers_of_two(n: int, sizes: list[int]) -> None:
    assert block_sizes(n, 8, split=True) == sizes
    assert block_sizes(n, 8) == [8] * math.ceil(n / 8)
    x = torch.arange(n)
    parts = list(blocks(n, 5, sizes, x, {"label": x, "other": 1}))
    assert torch.equal(torch.cat([rows for *_, rows, _ in parts]), x)
    assert [first for first, *_ in parts] == [5 + sum(sizes[:i]) for i in range(len(sizes))]


def test_samples_hold_states_in_model_units() -> None:
    out = sample(Gaussian([1.0], 4.0).denoiser(VP()), 3, "ddim", 4, trajectory=True)
    assert torch.equal(out.z, out.x) and torch.equal(out.trajectory[-1][1], out.x)
