"""Layouts of arrays: inferred, checked, and undone."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from undiffuse.errors import InputError
from undiffuse.transforms.array_schema import ArraySchema, channels_first, check_layout, infer_layout, original

LAYOUTS = ["NT", "NHW", "NDHW", *(f"N{''.join(p)}" for space in ("T", "HW", "DHW") for p in permutations("C" + space))]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_order_of_the_axes_is_undone(layout: str) -> None:
    x = torch.arange(2 * 3 * 4 * 5 * 6.0)[: 2 * int(np.prod([3, 4, 5, 6][: len(layout) - 1]))]
    x = x.reshape(2, *[3, 4, 5, 6][: len(layout) - 1])
    first = channels_first(x, layout)
    sizes = dict(zip(layout, x.shape, strict=True))
    assert first.shape == (2, sizes.get("C", 1), *(sizes[a] for a in layout[1:] if a != "C"))
    assert torch.equal(original(first, layout), x)
    letters = "".join(a for a in layout if a not in "NC")
    assert torch.equal(first, torch.einsum(f"{layout}->N{'C' * ('C' in layout)}{letters}", x).reshape(first.shape))


@pytest.mark.parametrize(("shape", "layout"), [
    ((90, 48, 7), "NTC"), ((90, 7, 48), "NCT"), ((90, 24, 6), "NTC"), ((90, 64, 64), "NHW"), ((90, 128, 64), "NHW"),
    ((90, 64, 64, 5), "NHWC"), ((90, 5, 64, 64), "NCHW"), ((90, 16, 16, 16), "NDHW"), ((90, 3, 4, 5), "NCHW"),
    ((90, 2, 8, 8, 8), "NCDHW"), ((90, 8, 8, 8, 2), "NDHWC")])
def test_the_channels_are_the_axis_that_is_much_shorter(shape: tuple[int, ...], layout: str) -> None:
    assert infer_layout(shape) == layout


@pytest.mark.parametrize("layout", ["", "NC", "TNC", "NXT", "NTT", "NCTDHW", "NDHWT"])
def test_other_letters_are_refused_in_a_sentence(layout: str) -> None:
    with pytest.raises(InputError, match="expected N, then C"):
        check_layout(layout, (3,) * len(layout), "x.npy")
    with pytest.raises(InputError, match="one letter per axis"):
        check_layout("ntc", (3, 4), "x.npy")


def test_whole_numbers_are_rounded_and_limited() -> None:
    schema = ArraySchema("NT", ("c1",), "int16")
    assert schema.array(torch.tensor([[1.6, -40_000.0, 5e4]])).tolist() == [[2, -32768, 32767]]
    assert ArraySchema.from_config(schema.config()) == schema
