"""The table of a tuning: errors before and after on held-out noise samples, and the cost."""

from __future__ import annotations

from collections.abc import Iterator

from undiffuse.samplers.tuned import Tuning


def lines(tuning: Tuning) -> Iterator[str]:
    """A table with a row for each number of evaluations, and the cost."""
    yield "error on held-out noise, in standard deviations of the data: distance to the end of the exact trajectory"
    yield f"{'given':8}{'evaluations':>12}{'median before':>15}{'after':>9}{'RMSE before':>13}{'after':>9}  before is"
    for row in tuning.rows:
        before, after = row["before"], row["after"]
        verdict = "" if row["kept"] else "; tuned sampler rejected"
        yield (f"{row['given'] or '-':8}{row['evaluations']:12}{before['median']:15.5f}{after['median']:9.5f}"
               f"{before['rmse']:13.5f}{after['rmse']:9.5f}  {row['untuned']}{verdict}")
    calls, seconds = (sum(row[key] for row in tuning.rows) for key in ("calls", "seconds"))
    yield f"cost: {calls:,} model evaluations, {seconds:.0f} seconds"


def guided_lines(tuning: Tuning) -> Iterator[str]:
    """The tables of all guidance scales."""
    for scale, member in tuning.family:
        yield from (f"at guidance scale {scale:g}", *lines(member))
