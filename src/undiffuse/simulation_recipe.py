"""The recipe for simulations: parameters in a table whose conditions are what a simulator returned."""

from __future__ import annotations

from typing import Any

from undiffuse.data import Dataset

_LARGE = 3000  # simulations from which the network is larger
_SHARE, _FEWEST, _MOST = 20, 100, 2000  # one in 20 is held out, but 100 to 2,000


def is_simulation(data: Dataset) -> bool:
    """Whether the rows are parameters given a vector of numbers, and no labels."""
    kinds = {c.kind for c in data.conditions}
    return data.kind == "table" and data.y is None and "vector" in kinds <= {"number", "vector"}


def held_out(n: int) -> int:
    """The number of n simulations that are held out: few, because they cost time."""
    return min(_MOST, max(n // _SHARE, min(_FEWEST, n // 5)))


def network(data: Dataset) -> tuple[dict[str, Any], str]:
    """The fields of the network for training rows, and the reason."""
    width, depth = (256, 4) if len(data) >= _LARGE else (128, 3)
    fields = {"net": "mlp", "net_args": {"width": width, "depth": depth, "condition": width}, "eval_batch_size": 256,
              "prediction_type": "wiener", "conditional_mean": True, "label_dropout": 0.0}
    return fields, (f"A residual MLP of {depth} x {width} that corrects the best linear prediction of the parameters "
                    "from the output of the simulator, which is never hidden.")
