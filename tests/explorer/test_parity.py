"""The page computes what the library computes: 500 random cases, relative error below 1e-10, integers equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from explorer.engine import evaluated

import undiffuse as ud
from undiffuse import random
from undiffuse.mixture import Mixture
from undiffuse.processes import PROCESSES
from undiffuse.random import BrownianPath
from undiffuse.samplers.grid import GRIDS, time_grid
from undiffuse.sde import GaussianSDE, simulate

Case = dict[str, Any]
RNG = np.random.default_rng(20)
SDES = {
    "vp": (0.1, 20.0),
    "subvp": (0.1, 12.0),
    "ve": (0.01, 50.0),
    "power_ve": (25.0,),
    "edm": (80.0,),
    "cosine": (0.008,),
    "rectified_flow": (),
    "ou": (1.0, 1.3),
}
METHODS = {
    "euler_maruyama": {"eta": 0.7},
    "reverse_diffusion": {},
    "ancestral": {"eta": 1.0},
    "dpmpp_2m_sde": {"eta": 0.6},
    "predictor_corrector": {"r": 0.1, "corrections": 2},
    "annealed_langevin": {},
    "ddim": {},
    "euler": {},
    "heun": {},
    "midpoint": {},
    "rk4": {},
    "dpmpp_2m": {},
    "dpmpp_3m": {},
}
COUNTS = {
    "words": 60,
    "normal": 30,
    "uniform": 20,
    "brownian": 20,
    "motion": 20,
    "process": 60,
    "law": 80,
    "draws": 30,
    "posterior": 40,
    "grid": 20,
    "forward": 10,
    "run": 110,
}


def seed() -> int:
    return int(RNG.integers(0, 1 << 50))


def process() -> str:
    name = list(SDES)[int(RNG.integers(len(SDES)))]
    args = ",".join(repr(float(a * RNG.uniform(0.8, 1.2))) for a in SDES[name])
    return f"{name}:{args}" if args else name


def sde_of(text: str) -> GaussianSDE:
    name, _, tail = text.partition(":")
    return PROCESSES[name](*(float(a) for a in tail.split(",") if a))


def random_law(d: int | None = None) -> Case:
    d, k = d or int(RNG.integers(1, 4)), int(RNG.integers(1, 5))
    roots = RNG.normal(0, 0.6, (k, d, d))
    return {
        "weights": RNG.uniform(0.2, 1, k).tolist(),
        "means": RNG.normal(0, 2, (k, d)).tolist(),
        "labels": [i % 2 for i in range(k)],
        "covariances": (roots @ roots.transpose(0, 2, 1) + 0.05 * np.eye(d)).tolist(),
    }


def law_of(case: Case) -> Mixture:
    return ud.Mixture(case["weights"], case["means"], case["covariances"], labels=case["labels"])


def stream() -> Case:
    return {
        "seed": seed(),
        "purpose": int(RNG.integers(12)),
        "step": int(RNG.integers(1 << 44)),
        "first": int(RNG.integers(1 << 40)),
    }


def random_run() -> Case:
    method = list(METHODS)[int(RNG.integers(len(METHODS)))]
    sde = process()
    if method in (
        "reverse_diffusion",
        "predictor_corrector",
    ):  # their coefficients are those of a process with α(T) > 0
        sde = sde if sde.split(":")[0] not in ("rectified_flow", "cosine") else "vp:0.1,20.0"
    return {
        "law": random_law(),
        "sde": sde,
        "method": method,
        "options": METHODS[method],
        "n": 3,
        "first": int(RNG.integers(1000)),
        "steps": int(RNG.integers(1, 25)),
        "grid": GRIDS[int(RNG.integers(len(GRIDS)))],
        "seed": seed(),
        "path": bool(RNG.integers(6) == 0),
        "label": None if RNG.random() < 0.7 else 0,
    }


MAKE = {
    "words": lambda: {**stream(), "count": int(RNG.integers(1, 40))},
    "normal": lambda: {**stream(), "n": int(RNG.integers(1, 5)), "size": int(RNG.integers(1, 8))},
    "uniform": lambda: {**stream(), "n": int(RNG.integers(1, 5)), "size": int(RNG.integers(1, 8))},
    "brownian": lambda: {
        "seed": seed(),
        "n": 2,
        "steps": int(RNG.integers(1, 9)),
        "T": float(RNG.uniform(0.5, 3)),
        "refine": int(RNG.integers(4)),
        "first": int(RNG.integers(100)),
    },
    "motion": lambda: {
        "seed": seed(),
        "first": int(RNG.integers(100)),
        "n": 3,
        "size": 2,
        "start": 0.01,
        "end": 1.0,
        "pairs": [[b, a] for a, b in np.sort(RNG.uniform(0.01, 1, (3, 2)), 1).tolist()],
    },
    "process": lambda: {"sde": process(), "times": RNG.uniform(0.01, 0.99, 4).tolist()},
    "law": lambda: {"law": random_law(), "sde": process(), "t": float(RNG.uniform(0.01, 0.99)), "label": 0, "count": 4},
    "draws": lambda: {"law": random_law(), "n": 6, "seed": seed(), "first": int(RNG.integers(1000))},
    "posterior": lambda: {"law": random_law(), "std": float(RNG.uniform(0.1, 1)), "rows": int(RNG.integers(1, 3))},
    "grid": lambda: {
        "sde": process(),
        "steps": int(RNG.integers(1, 30)),
        "grid": GRIDS[int(RNG.integers(len(GRIDS)))],
        "end": 0.01,
        "deviation": 0.5,
    },
    "forward": lambda: {
        "law": random_law(),
        "sde": f"vp:0.1,{RNG.uniform(5, 20)!r}",
        "n": 3,
        "steps": 20,
        "seed": seed(),
    },
    "run": random_run,
}


def cases() -> list[Case]:
    made = [{"kind": kind, **MAKE[kind]()} for kind, count in COUNTS.items() for _ in range(count)]
    for case in made:
        d = len(case["law"]["means"][0]) if "law" in case else 0
        if case["kind"] == "law":
            case["x"] = RNG.normal(0, 2, (case["count"], d)).tolist()
        if case["kind"] == "posterior":
            case |= {"A": RNG.normal(0, 1, (case["rows"], d)).tolist(), "y": RNG.normal(0, 1, case["rows"]).tolist()}
    return made


def coefficients(case: Case) -> list[Any]:
    sde, out = sde_of(case["sde"]), []
    for t in map(torch.tensor, np.float64(case["times"])):
        out += [sde.alpha(t), sde.variance(t), sde.sigma(t), sde.f(t), sde.g2(t), sde.log_snr(t), *sde.rates(t), t]
    return out


def seen(case: Case) -> list[Any]:
    law, sde, x = law_of(case["law"]), sde_of(case["sde"]), torch.tensor(case["x"], dtype=torch.float64)
    model, t = law.denoiser(sde), case["t"]
    diffused = law.diffused(sde, t)
    return [
        diffused.log_prob(x),
        diffused.responsibilities(x),
        model.score(x, t),
        model.denoise(x, t),
        model.denoise(x, t, label=0),
        model.divergence(x, t),
        model.covariance(x, t),
        law.mean,
        model.sigma_data,
    ]


def ran(case: Case) -> list[Any]:
    model = law_of(case["law"]).denoiser(sde_of(case["sde"]))
    out = ud.sample(
        model,
        case["n"],
        case["method"],
        case["steps"],
        grid=case["grid"],
        seed=case["seed"],
        first_index=case["first"],
        noise="path" if case["path"] else "step",
        options=case["options"],
        block=4,
        **({} if case["label"] is None else {"label": case["label"]}),
    )
    return [out.x, out.nfe]


def conditioned(case: Case) -> list[Any]:
    law = law_of(case["law"]).posterior(case["A"], case["y"], case["std"])
    return [law.weights, law.means, law.covariances]


def moved(case: Case) -> list[Any]:
    motion = BrownianPath(
        case["seed"], case["first"], case["n"], (case["size"],), torch.float64, case["start"], case["end"]
    )
    return [motion.increment(*(torch.tensor(v, dtype=torch.float64) for v in pair)) for pair in case["pairs"]]


def address(case: Case) -> tuple[Any, ...]:
    return case["seed"], case["purpose"], case["step"], case["first"]


TRUTH = {
    "normal": lambda c: [random.normal(*address(c), c["n"], (c["size"],), torch.float64)],
    "uniform": lambda c: [random.uniform(*address(c), c["n"], (c["size"],))],
    "brownian": lambda c: [
        random.brownian(c["n"], c["steps"], c["T"], seed=c["seed"], refine=c["refine"], first_index=c["first"]).w
    ],
    "motion": moved,
    "process": coefficients,
    "law": seen,
    "posterior": conditioned,
    "run": ran,
    "draws": lambda c: [law_of(c["law"]).sample(c["n"], c["seed"], c["first"])],
    "grid": lambda c: [time_grid(sde_of(c["sde"]), c["steps"], c["grid"], t_end=c["end"], sigma_data=c["deviation"])],
    "forward": lambda c: [
        simulate(sde_of(c["sde"]), law_of(c["law"]).sample(c["n"], c["seed"]), c["steps"], seed=c["seed"])
    ],
}


def numbers(values: list[Any]) -> np.ndarray:
    return np.concatenate([np.asarray(v, np.float64).ravel() for v in values])


@pytest.fixture(scope="module")
def answered() -> list[tuple[Case, list[Any]]]:
    made = cases()
    assert len(made) == 500
    return list(zip(made, evaluated("answers", made), strict=True))


LONG = ("run", "motion")


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.slow) if k in LONG else k for k in COUNTS])
def test_the_page_computes_what_the_library_computes(kind: str, answered: list[tuple[Case, list[Any]]]) -> None:
    for case, answer in (pair for pair in answered if pair[0]["kind"] == kind):
        if kind == "words":
            assert answer == [str(w) for w in random.raw_words(*address(case), case["count"])]
            continue
        got, wanted = np.array(answer, np.float64), numbers(TRUTH[kind](case))
        assert got.shape == wanted.shape
        error = np.abs(got - wanted) / np.maximum(np.abs(wanted), 1e-3 * np.abs(wanted).max())
        assert error.max() < 1e-10, (case, error.max())
