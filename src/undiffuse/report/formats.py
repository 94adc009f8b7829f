"""Number formats of the page, and plain texts of figures."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def percent(fraction: float) -> str:
    """A fraction as "98.3 %"."""
    return f"{100 * fraction:.1f}\u00a0%"


def short(value: float | None) -> str:
    """A number with three significant digits, 0 below 10⁻⁶; a dash for None."""
    if value is None or abs(value) < 1e-6:
        return "–" if value is None else "0"
    return f"{value:.3g}".replace("-", "−")


def plus_minus(value: float, error: float) -> str:
    """A value ± its error, both rounded to the precision of the error."""
    places = max(0, -math.floor(math.log10(error / 3))) if error > 0 else 3
    return f"{value:z.{places}f}\u00a0±\u00a0{error:.{places}f}".replace("-", "−")


def factor(ratio: float) -> str:
    """A factor as "1.3 times"."""
    return f"{ratio:.2f}\u00a0times" if ratio < 2 else f"{ratio:.1f}\u00a0times"


@contextmanager
def plain_text() -> Iterator[None]:
    """Figures in this block show names of the data as they are: $ starts no formula, and no font warns of a glyph."""
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        yield
