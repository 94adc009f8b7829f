"""Dates and times as texts: their pattern, the number of steps that each is, and the way back to such texts."""

from __future__ import annotations

import calendar
import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any

_MONTHS = list(calendar.month_name)[1:]
_SHORT = [m[:3] for m in _MONTHS]
_DAYS = list(calendar.day_name)
_PARTS = {
    "%Y": r"(?P<Y>[12]\d{3})", "%y": r"(?P<y>\d{2})", "%m": r"(?P<m>\d{1,2})", "%d": r"(?P<d>\d{1,2})",
    "%H": r"(?P<H>\d{1,2})", "%I": r"(?P<I>\d{1,2})", "%M": r"(?P<M>\d{2})", "%S": r"(?P<S>\d{2})",
    "%f": r"(?P<f>\d{1,9})", "%q": r"(?P<q>[1-4])", "%p": r"(?P<p>[AaPp][Mm])",
    "%B": rf"(?P<B>{'|'.join(_MONTHS)})", "%b": rf"(?P<b>{'|'.join(_SHORT)})",
    "%A": rf"(?P<A>{'|'.join(_DAYS)})", "%a": rf"(?P<a>{'|'.join(d[:3] for d in _DAYS)})",
}
_DATES = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%m-%d-%Y", "%d-%m-%Y", "%m/%d/%y",
    "%d/%m/%y", "%d.%m.%y", "%m-%d-%y", "%d-%m-%y", "%b %d %Y", "%b %d, %Y", "%B %d, %Y", "%B %d %Y", "%d %b %Y",
    "%d %B %Y", "%d. %B %Y", "%d-%b-%Y", "%d-%b-%y", "%d %b %y", "%d/%b/%Y", "%a %b %d %Y", "%a, %d %b %Y",
    "%A, %B %d, %Y", "%Y-%b-%d", "%Y%m%d", "%Y-%m", "%Y/%m", "%m/%Y", "%b %Y", "%B %Y", "%b-%Y", "%b-%y", "%Y-%b",
    "%b-%d-%Y", "%b-%d-%y", "%B-%d-%Y", "%d-%B-%Y", "%d%b%Y", "%d%b%y", "%d.%b.%Y", "%d %b, %Y", "%a %d %b %Y",
    "%A %d %B %Y", "%Y %b", "%YM%m", "%Y M%m", "%YQ%q", "%Y-Q%q", "%Y Q%q", "Q%q %Y", "Q%q-%Y")
_TIME = re.compile(r"(?P<date>.*?\S)??(?P<between>T|,? +)?(?P<hour>\d{1,2})(?P<minute>:\d{2})(?P<second>:\d{2})?"
                   r"(?P<fraction>[.,]\d{1,9})?(?P<half>\s*[AaPp][Mm])?(?P<zone>Z|\s*(?:UTC|GMT)|[+-]\d{2}:?\d{2})?")
_MAX_OTHER = 0.15  # fraction of the texts that need not have the pattern
_DAY, _EPOCH = 86_400_000_000, datetime(1970, 1, 1)  # microseconds


@dataclass(frozen=True)
class DateFormat:
    """The text of a column's dates and times, and the steps in which they are counted.

    Args:
        pattern: directives of `strftime`, with %q for the quarter.
        unit: "month", "day" or "microsecond".
        step: units per step.
        origin: units from 1970-01-01 (or 0:00) to the first step after it.
        unpadded: directives that are written without leading zeros, such as "md".
        letters: "title", "upper" or "lower" names of months.
        day: day of the month of dates that are counted in months; 31 is the last day.
        fraction: digits of fractions of a second.
    """

    pattern: str
    unit: str
    step: int
    origin: int
    unpadded: str = ""
    letters: str = "title"
    day: int = 1
    fraction: int = 6

    def value(self, text: str) -> float | None:
        """The number of steps of a text; None if it is not of this pattern."""
        moment = _parse(text, self.pattern)
        return None if moment is None else (_units(moment, self.unit) - self.origin) / self.step

    def text(self, value: float) -> str:
        """The text of a number of steps, which is rounded."""
        moment = self.moment(value)
        return re.sub("%.", lambda match: self._part(match[0], moment), self.pattern)

    def moment(self, value: float) -> datetime:
        """The moment of a number of steps, which is rounded."""
        return self._moment(self.origin + self.step * round(value))

    def config(self) -> dict[str, Any]:
        """The JSON-compatible description."""
        return dataclasses.asdict(self)

    def _moment(self, units: int) -> datetime:
        """The moment of a number of units, within the years 1 to 9999."""
        first, last = (datetime(1, 1, 1), datetime(9999, 12, 31)) if "%" in re.sub("%[HIMSfp]", "", self.pattern) else (
            _EPOCH, datetime(1970, 1, 1, 23, 59, 59, 999_999))
        units = max(_units(first, self.unit), min(units, _units(last, self.unit)))
        if self.unit == "month":
            year, month = divmod(units + 12 * 1970, 12)
            return datetime(year, month + 1, min(self.day, calendar.monthrange(year, month + 1)[1]))
        return _EPOCH + (timedelta(units) if self.unit == "day" else timedelta(microseconds=units))

    def _part(self, directive: str, moment: datetime) -> str:
        """The text of one directive."""
        key, twelve = directive[1], moment.hour % 12 or 12
        if key in "BbAap":
            names = {"B": _MONTHS[moment.month - 1], "b": _SHORT[moment.month - 1], "A": _DAYS[moment.weekday()],
                     "a": _DAYS[moment.weekday()][:3], "p": "PM" if moment.hour >= 12 else "AM"}
            text = names[key]
            return text.upper() if self.letters == "upper" else text.lower() if self.letters == "lower" else text
        if key == "f":
            return f"{moment.microsecond:06d}".ljust(9, "0")[: self.fraction]
        number = {"Y": moment.year, "y": moment.year % 100, "m": moment.month, "d": moment.day, "H": moment.hour,
                  "I": twelve,
                  "M": moment.minute, "S": moment.second, "q": (moment.month + 2) // 3}[key]
        return f"{number:04d}" if key == "Y" else str(number) if key in self.unpadded + "q" else f"{number:02d}"


def infer_date_format(counts: Mapping[str, int]) -> DateFormat | None:
    """The pattern that most texts (85 %) have; None if there is none.

    Of two patterns that fit equally well month/day/year goes before day/month/year, and day.month.year is the only one
    with points.

    Args:
        counts: how often every text occurs.
    """
    total = sum(counts.values())
    texts = sorted(counts, key=lambda text: -counts[text])
    best, allowed, best_moments = "", _MAX_OTHER * total, dict[str, datetime]()
    for pattern in dict.fromkeys(p for text in texts[:3] for p in _patterns(text)):
        moments, left = dict[str, datetime](), allowed
        for text in texts:
            if (moment := _parse(text, pattern)) is None:
                left -= counts[text]
                if left < 0:
                    break
            else:
                moments[text] = moment
        if left >= (0 if not best else 1) and (pattern != "%Y%m%d" or _plausible(moments.values())):
            best, allowed, best_moments = pattern, allowed - left, moments
    return _fit(best, best_moments) if best else None


def _patterns(text: str) -> list[str]:
    """The patterns that a text has."""
    if len(text) > 40 or not any(c.isdigit() for c in text):
        return []
    candidates = list(_DATES)
    if (m := _TIME.fullmatch(text)) is not None:
        hour = ("%I" if m["half"] else "%H") + ":%M" + ":%S" * bool(m["second"])
        fraction = m["fraction"][0] + "%f" if m["fraction"] else ""
        half = re.sub("[AaPp][Mm]", "%p", m["half"] or "")
        time = hour + fraction + half + (m["zone"] or "")
        candidates = [d + (m["between"] or "") + time for d in _DATES] if m["date"] else [time]
    return [pattern for pattern in candidates if _parse(text, pattern) is not None]


@lru_cache(maxsize=1024)
def _expression(pattern: str) -> re.Pattern[str]:
    pieces = re.split("(%.)", pattern)
    return re.compile("".join(_PARTS.get(piece) or re.escape(piece) for piece in pieces), re.IGNORECASE)


def _parse(text: str, pattern: str) -> datetime | None:
    """The moment in a text; None if it is not of this pattern."""
    match = _expression(pattern).fullmatch(text)
    if match is None:
        return None
    get = match.groupdict().get
    year = int(get("Y") or 0) or (1970 if get("y") is None else int(get("y") or 0)
                                  + (1900 if int(get("y") or 0) >= 69 else 2000))
    month = int(get("m") or 0) or (3 * int(get("q") or 0) - 2 if get("q") else 0) or _month(get("b") or get("B")
                                                                                            or "jan")
    hour = int(get("H") or 0)
    if (half := get("p")) is not None:
        if not 1 <= int(get("I") or 0) <= 12:
            return None
        hour = int(get("I") or 0) % 12 + (12 if half.lower() == "pm" else 0)
    try:
        return datetime(year, month, int(get("d") or 1), hour, int(get("M") or 0), int(get("S") or 0),
                        int((get("f") or "0").ljust(6, "0")[:6]))
    except ValueError:
        return None


def _month(name: str) -> int:
    return [m.lower() for m in _SHORT].index(name[:3].lower()) + 1


def _units(moment: datetime, unit: str) -> int:
    if unit == "month":
        return 12 * (moment.year - 1970) + moment.month - 1
    days = (moment.date() - date(1970, 1, 1)).days
    seconds = 3600 * moment.hour + 60 * moment.minute + moment.second
    return days if unit == "day" else days * _DAY + 1_000_000 * seconds + moment.microsecond


def _plausible(moments: Iterable[datetime]) -> bool:
    """Whether numbers of eight digits are dates: of at least ten days, all from 1900 to 2100."""
    days = {moment.date() for moment in moments}
    return len(days) >= 10 and all(1900 <= day.year <= 2100 for day in days)


def _fit(pattern: str, moments: Mapping[str, datetime]) -> DateFormat:
    """The format of moments by text, with the largest step that reaches all of them."""
    unit, day = _unit(pattern, list(moments.values()))
    units = [_units(moment, unit) for moment in moments.values()]
    step = math.gcd(*(u - units[0] for u in units)) or 1
    matches = [_expression(pattern).fullmatch(text) for text in moments]
    parts = [m.groupdict() for m in matches if m]
    unpadded = "".join(key for key in "mdHI" if any(len(p.get(key) or "00") == 1 for p in parts))
    names = "".join(p.get(key) or "" for p in parts[:50] for key in "BbAap")
    upper = names.isupper() and len(names) > 2 * len(parts[:50])
    letters = "upper" if upper else "lower" if names.islower() else "title"
    fraction = max((len(p.get("f") or "") for p in parts), default=0) or 6
    return DateFormat(pattern, unit, step, units[0] % step, unpadded, letters, day, fraction)


def _unit(pattern: str, moments: Sequence[datetime]) -> tuple[str, int]:
    """The unit of the steps, and the day of the month if it is the month."""
    timed = any(m.hour or m.minute or m.second or m.microsecond for m in moments)
    if timed:
        return "microsecond", 1
    if "%d" not in pattern and re.search("%[mbBq]", pattern):
        return "month", 1
    several = len({(m.year, m.month) for m in moments}) > 2
    if several and all(m.day == 1 for m in moments):
        return "month", 1
    if several and all(m.day == calendar.monthrange(m.year, m.month)[1] for m in moments):
        return "month", 31
    return ("day", 1) if "%d" in pattern else ("microsecond", 1)
