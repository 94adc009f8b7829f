"""Randomness is a pure function of its address, and has the laws that it claims."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from undiffuse.errors import InputError
from undiffuse.random import Purpose, brownian, normal, normals, permutation, raw_words, uniform

MASK = (1 << 64) - 1


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64-10 as the paper has it, in whole numbers: Salmon et al. (2011), section 4.3."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (p1 >> 64) ^ c1 ^ k0, p1 & MASK, (p0 >> 64) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
    return [c0, c1, c2, c3]


# The three vectors that come with Random123 (kat_vectors): zeros, ones, and the digits of π.
KNOWN = [
    ([0] * 4, [0] * 2, "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"),
    ([MASK] * 4, [MASK] * 2, "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0"),
    ([0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89],
     [0x452821E638D01377, 0xBE5466CF34E90C6C],
     "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6"),
]


@pytest.mark.parametrize("counter, key, answer", KNOWN)
def test_the_oracle_gives_the_known_answers(counter: list[int], key: list[int], answer: str) -> None:
    assert [f"{w:016x}" for w in philox(counter, key)] == answer.split()


def test_the_stream_of_address_zero_starts_with_the_known_answer() -> None:
    assert [f"{w:016x}" for w in raw_words(0, 0, 0, 0, 4)] == KNOWN[0][2].split()


@given(seed=st.integers(0, MASK), step=st.integers(0, (1 << 56) - 1), purpose=st.sampled_from(Purpose),
       first=st.integers(0, MASK - 9), count=st.integers(0, 9))
def test_any_stretch_of_the_stream_is_philox(seed: int, step: int, purpose: Purpose, first: int, count: int) -> None:
    expected = []
    for i in range(first, first + count):
        expected.append(philox([i // 4, 0, 0, 0], [seed, step * 256 + purpose])[i % 4])
    assert raw_words(seed, purpose, step, first, count).tolist() == expected


def test_the_purposes_are_part_of_the_file_format() -> None:
    names = "INIT STEP ORDER TIME NOISE AUGMENT DROPOUT PROBE WEIGHTS DATA PATH CONDITION"
    assert " ".join(p.name for p in Purpose) == names and [p.value for p in Purpose] == list(range(12))


SHAPES = st.sampled_from([(), (1,), (2,), (3,), (2, 3), (5, 1)])
REAL = st.sampled_from([torch.float32, torch.float64])


@given(first=st.integers(0, 1 << 40), n=st.integers(0, 7), cut=st.integers(0, 7), shape=SHAPES, dtype=REAL,
       draw=st.sampled_from([normal, uniform]))
def test_a_sample_is_the_same_in_every_batch(first, n, cut, shape, dtype, draw) -> None:  # type: ignore[no-untyped-def]
    whole = draw(7, Purpose.STEP, 3, first, n, shape, dtype)
    cut = min(cut, n)
    parts = [draw(7, Purpose.STEP, 3, at, k, shape, dtype) for at, k in ((first, cut), (first + cut, n - cut))]
    assert whole.dtype == dtype and whole.shape == (n, *shape)
    assert torch.equal(whole, torch.cat(parts))


def test_float32_and_float64_are_the_same_numbers() -> None:
    a, b = (normal(1, Purpose.NOISE, 2, 0, 50_000, (2,), dtype) for dtype in (torch.float32, torch.float64))
    # √(−2 log u) amplifies the rounding of a u near 1 (|z| near 0), never beyond the float32 step of u itself.
    assert (a - b).abs().max() < 4 * math.sqrt(2**-23)
    assert (a - b).abs().median() < 1e-7
    u32, u64 = (uniform(1, Purpose.TIME, 2, 0, 50_000, (), dtype) for dtype in (torch.float32, torch.float64))
    assert (u64 - u32).min() >= 0 and (u64 - u32).max() < 2**-24


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normals_are_normal(dtype: torch.dtype) -> None:
    z = normal(0, Purpose.INIT, 0, 0, 100_000, (2,), dtype).double().numpy()
    assert stats.kstest(z.ravel(), "norm").pvalue > 0.001
    for k, expected in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15)):
        power = z.ravel() ** k
        assert abs(power.mean() - expected) < 4 * power.std() / math.sqrt(z.size)
    # the two of a pair are independent, and so are their sizes
    for a, b in ((z[:, 0], z[:, 1]), (z[:, 0] ** 2, z[:, 1] ** 2), (z[1:, 0], z[:-1, 0])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(len(a))
    assert abs(z).max() <= 6.67


def test_uniforms_are_uniform_and_stay_below_one() -> None:
    for dtype in (torch.float32, torch.float64):
        u = uniform(0, Purpose.TIME, 0, 0, 200_000, (), dtype).double().numpy()
        assert stats.kstest(u, "uniform").pvalue > 0.001 and u.min() >= 0 and u.max() < 1


def test_streams_of_different_addresses_are_different_numbers() -> None:
    base = normal(0, Purpose.INIT, 0, 0, 2000)
    others = [normal(1, Purpose.INIT, 0, 0, 2000), normal(0, Purpose.STEP, 0, 0, 2000),
              normal(0, Purpose.INIT, 1, 0, 2000), normal(0, Purpose.INIT, 0, 2000, 2000)]
    for other in others:
        assert abs(torch.corrcoef(torch.stack([base, other]))[0, 1]) < 4 / math.sqrt(2000)


def test_a_permutation_is_one_and_every_order_is_as_likely() -> None:
    assert permutation(0, Purpose.ORDER, 5, 1000).sort().values.tolist() == list(range(1000))
    orders = [tuple(permutation(0, Purpose.ORDER, step, 3).tolist()) for step in range(3000)]
    counts = [orders.count(o) for o in sorted(set(orders))]
    assert len(counts) == 6 and stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("bad", [
    lambda: normal(-1, 0, 0, 0, 1), lambda: normal(1 << 64, 0, 0, 0, 1), lambda: normal(0, 0, 1 << 56, 0, 1),
    lambda: normal(0, 0, 0, -1, 1), lambda: raw_words(0, 0, 0, MASK + 1, 1),
    lambda: normal(0, 0, 0, 0, -1), lambda: normal(0, 0, 0, 0, 1, (), torch.float16),
    lambda: brownian(steps=0), lambda: brownian(T=0.0), lambda: brownian(refine=-1), lambda: brownian(-1),
])
def test_impossible_requests_are_refused(bad) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="expected"):
        bad()


def chi2_interval(n: int) -> tuple[float, float]:
    """Where a sample variance of n normals with variance 1 lies, except once in 10,000 times."""
    low, high = stats.chi2(n).ppf([5e-5, 1 - 5e-5]) / n
    return float(low), float(high)


def test_brownian_motion_has_its_four_properties() -> None:
    n, steps, T = 4000, 16, 2.0
    t, w = brownian(n, steps, T, seed=3)
    dw = w.diff(dim=1)
    assert torch.equal(t, torch.linspace(0, T, steps + 1, dtype=torch.float64))
    assert torch.equal(w[:, 0], torch.zeros(n, dtype=torch.float64))  # 1: starts at 0
    corr = torch.corrcoef(dw.mT) - torch.eye(steps)  # 2: independent increments ...
    assert corr.abs().max() < 4.5 / math.sqrt(n)
    assert abs(torch.corrcoef(torch.stack([dw[:, 0] ** 2, dw[:, 1] ** 2]))[0, 1]) < 4 / math.sqrt(n)
    low, high = chi2_interval(n)  # 3: ... that are N(0, t − s), for every pair s < t
    for i in range(steps):
        for j in range(i + 1, steps + 1):
            assert low < ((w[:, j] - w[:, i]) ** 2).mean() / (t[j] - t[i]) < high
    assert stats.kstest((dw / math.sqrt(T / steps)).numpy().ravel(), "norm").pvalue > 0.001
    # 4: continuous, with quadratic variation T and a total variation that grows like √steps
    fine = brownian(200, steps, T, seed=3, refine=8).w.diff(dim=1)
    assert fine.abs().max() < 6.67 * math.sqrt(T / steps / 2**8) * 2
    low, high = chi2_interval(fine.shape[1])
    assert ((fine**2).sum(1) / T).min() > 0.8 * low and ((fine**2).sum(1) / T).max() < 1.2 * high
    ratio = fine.abs().sum(1).mean() / brownian(200, steps, T, seed=3, refine=4).w.diff(dim=1).abs().sum(1).mean()
    assert ratio == pytest.approx(4.0, rel=0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_refinement_keeps_every_point_of_a_path_to_the_bit(dtype: torch.dtype) -> None:
    coarse = brownian(5, 3, 1.7, shape=(2,), seed=1, dtype=dtype)
    for k in (1, 2, 5):
        fine = brownian(5, 3, 1.7, shape=(2,), seed=1, refine=k, dtype=dtype)
        assert torch.equal(fine.w[:, :: 2**k], coarse.w)
        assert torch.allclose(fine.t[:: 2**k], coarse.t, rtol=1e-15)


def test_the_bridge_has_the_conditional_law() -> None:
    n, T = 20_000, 3.0
    fine = brownian(n, 1, T, seed=5, refine=1).w
    z = (fine[:, 1] - fine[:, 2] / 2) / math.sqrt(T / 4)
    assert stats.kstest(z.numpy(), "norm").pvalue > 0.001
    assert abs(torch.corrcoef(torch.stack([z, fine[:, 2]]))[0, 1]) < 4 / math.sqrt(n)


def test_a_path_is_the_same_in_every_batch() -> None:
    whole = brownian(6, 4, shape=(3,), refine=3, seed=2).w
    assert torch.equal(whole[4:5], brownian(1, 4, shape=(3,), refine=3, seed=2, first_index=4).w)


def test_threads_do_not_disturb_each_other() -> None:
    addresses = [(seed, first) for seed in range(4) for first in range(100)]
    with ThreadPoolExecutor(4) as pool:
        words = list(pool.map(lambda a: raw_words(a[0], 0, 0, a[1], 50).tolist(), addresses))
    assert words == [raw_words(seed, 0, 0, first, 50).tolist() for seed, first in addresses]


def test_many_steps_in_one_call_are_the_same_bytes() -> None:
    together = normals(3, Purpose.STEP, [5, 1 << 40, 0], 7, 4, (3,))
    for one, step in zip(together, (5, 1 << 40, 0), strict=True):
        assert torch.equal(one, normal(3, Purpose.STEP, step, 7, 4, (3,)))
