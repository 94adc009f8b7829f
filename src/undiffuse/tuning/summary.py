"""What a tuning says of itself: errors before and after on held-out noises, and what it cost."""

from __future__ import annotations

from collections.abc import Iterator

from undiffuse.samplers.tuned import Tuning


def lines(tuning: Tuning) -> Iterator[str]:
    """A table, a row for each number of evaluations, and the cost of all."""
    yield "error on held-out noises, in deviations of the data: to the end of the model's own exact path"
    yield f"{'given':8}{'evaluations':>12}{'median before':>15}{'after':>9}{'RMSE before':>13}{'after':>9}  before is"
    for row in tuning.rows:
        before, after = row["before"], row["after"]
        verdict = "" if row["kept"] else "; it is not worse, and stays in use"
        yield (f"{row['given'] or '-':8}{row['evaluations']:12}{before['median']:15.5f}{after['median']:9.5f}"
               f"{before['rmse']:13.5f}{after['rmse']:9.5f}  {row['untuned']}{verdict}")
    calls, seconds = (sum(row[key] for row in tuning.rows) for key in ("calls", "seconds"))
    yield f"cost: {calls:,} model evaluations, {seconds:.0f} seconds"


def guided_lines(tuning: Tuning) -> Iterator[str]:
    """The same of the members of a family."""
    for scale, member in tuning.family:
        yield from (f"at guidance scale {scale:g}", *lines(member))
