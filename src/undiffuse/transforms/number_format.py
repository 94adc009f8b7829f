"""Numbers as texts: decimals, thousands separators, currencies, percent and units, and the way back to such texts."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

_MAX_DECIMALS = 12  # beyond which numbers are written with the digits that restore them
_EXACT = 1 << 53  # whole numbers below are exact in float64
_CURRENCY = r"(?:US|A|C|R|HK|NZ|S)?\$|[€£¥₹₽₩₺₪฿]|USD|EUR|GBP|CHF|JPY|CNY|INR|Rs\.?|kr\.?|zł"
_UNITS = (r"[%‰°′″]|°[CF]|km/h|km/s|m/s|mph|kmph|kmpl|kph|mpg|km|cm|mm|nm|µm|um|mi|ft|in|yd|kg|mg|µg|ug|lbs?|oz|tons?|"
          r"ml|dl|gal|cc|CC|ms|ns|µs|us|secs?|mins?|hrs?|hours?|days?|weeks?|months?|yrs?|years?|kWh?|MWh?|GWh?|Wh|kHz|"
          r"MHz|GHz|Hz|[KMGT]i?B|bp|bps|pts?|px|hp|bhp|Nm|ppm|ppb|mmHg|kPa|hPa|Pa|kcal|cal|kJ|mAh|dB")
_BODY = r"\d+(?:[.,'’\u00a0\u202f\u2009 ]\d+)*[.,]?(?:[eE][+-]?\d+)?|[.,]\d+(?:[eE][+-]?\d+)?"
_DRESSED = re.compile(
    rf"(?P<open>\()?(?P<minus>[-+−–])?(?P<prefix>(?:{_CURRENCY})\s*)?(?P<minus2>[-+−–])?(?P<body>{_BODY})"
    rf"(?P<suffix>\s*(?:{_CURRENCY}|{_UNITS})|\s+[^\d\s.,;:()/+-][^\d;:()]{{0,20}})?(?P<close>\))?")
_BRACKETED = re.compile(r"(.*\d)\(\d{1,4}\)(\D{0,20})")
_KNOWN = re.compile(rf"\s*(?:{_CURRENCY}|{_UNITS}|)")
_FEW = 3  # different numbers from which any word behind them may be their unit
_MINUS = "-−–"


@dataclass(frozen=True)
class NumberFormat:
    """The text of a column's numbers.

    Args:
        decimals: the smallest and the largest number of decimals; empty: the digits that restore a number.
        decimal: decimal sign.
        thousands: separator of groups of three digits.
        prefix: text in front of a number, such as "$".
        suffix: text behind it, such as "%" or " km".
        minus: sign of negative numbers; "(" writes (5).
        uncertain: numbers may have an uncertainty of their last digits, as in 66.44(7), which is read and not written.
    """

    decimals: tuple[int, ...] = ()
    decimal: str = "."
    thousands: str = ""
    prefix: str = ""
    suffix: str = ""
    minus: str = "-"
    uncertain: bool = False

    @property
    def plain(self) -> bool:
        """Whether Python's `float` reads the texts."""
        dress = (self.decimal, self.thousands, self.prefix, self.suffix, self.minus)
        return dress == (".", "", "", "", "-") and not self.uncertain

    def value(self, text: str) -> float | None:
        """The number in a text, None if there is none; prefix and suffix may be absent."""
        match = self._pattern.fullmatch(text)
        if match is None:
            return None
        body = match["body"].replace(self.thousands, "") if self.thousands else match["body"]
        number = float(body.replace(self.decimal, "."))
        if math.isinf(number):
            return None
        negative = match["open"] or (match["minus"] or match["minus2"] or "+") in _MINUS
        return -number if negative else number

    def text(self, value: float) -> str:
        """The text of a number."""
        digits = self._digits(abs(value))
        negative = value < 0 and any(c in "123456789" for c in digits)
        if self.thousands and "e" not in digits:
            integer, dot, fraction = digits.partition(".")
            digits = f"{int(integer):,}".replace(",", self.thousands) + dot.replace(".", self.decimal) + fraction
        else:
            digits = digits.replace(".", self.decimal)
        if self.minus == "(":
            return f"({self.prefix}{digits}{self.suffix})" if negative else f"{self.prefix}{digits}{self.suffix}"
        return f"{self.minus if negative else ''}{self.prefix}{digits}{self.suffix}"

    def config(self) -> dict[str, Any]:
        """The JSON-compatible description, without defaults."""
        return {f.name: list(v) if isinstance(v, tuple) else v for f in dataclasses.fields(self)
                if (v := getattr(self, f.name)) != f.default}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> NumberFormat:
        """The inverse of `config`."""
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in config.items()}
        return cls(**values)

    def _digits(self, value: float) -> str:
        """A number ≥ 0 with a decimal point."""
        if not self.decimals:
            return repr(float(value))
        low, high = self.decimals
        digits = f"{value:.{high}f}"
        extra = min(high - low, len(digits) - len(digits.rstrip("0"))) if high else 0
        return digits[: len(digits) - extra].rstrip(".") if extra else digits

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        group = rf"\d+(?:{re.escape(self.thousands)}\d+)*" if self.thousands else r"\d+"
        point = re.escape(self.decimal)
        body = rf"{group}(?:{point}\d*)?(?:[eE][+-]?\d+)?|{point}\d+(?:[eE][+-]?\d+)?"
        prefix, suffix = (rf"(?:{re.escape(p.strip())})?" for p in (self.prefix, self.suffix))
        brackets = r"(?:\(\d+\))?" if self.uncertain else ""
        return re.compile(rf"(?P<open>\()?(?P<minus>[-+−–])?\s*{prefix}\s*(?P<minus2>[-+−–])?(?P<body>{body})"
                          rf"{brackets}\s*{suffix}(?(open)\))")


def decimals_of(low: int, high: int, exponent: bool) -> tuple[int, ...]:
    """The field `decimals` of numbers with `low` to `high` decimals, some of them with an exponent."""
    return () if exponent or high > _MAX_DECIMALS else (low, high)


def too_large(value: float) -> bool:
    """Whether a whole number has digits that float64 does not hold."""
    return abs(value) >= _EXACT


def infer_number_format(counts: Mapping[str, int], comma: bool | None = None) -> NumberFormat | None:
    """The format of texts that are numbers for Python or in another notation; None if fewer than nine tenths are.

    Args:
        counts: how often every text occurs.
        comma: whether a comma is the decimal sign; None: decided from the texts, thousands where both are possible.
    """
    if 2 * sum(n for text, n in counts.items() if _BRACKETED.fullmatch(text)) > sum(counts.values()):
        form = infer_number_format(_without_brackets(counts), comma)
        return form and dataclasses.replace(form, uncertain=True)
    matches = {text: m for text in counts if (m := _DRESSED.fullmatch(text)) and bool(m["open"]) == bool(m["close"])}
    dress = Counter[tuple[str, str]]()
    for text, m in matches.items():
        dress[m["prefix"] or "", m["suffix"] or ""] += counts[text]
    total = sum(counts.values())
    if not dress:
        return None
    prefix, suffix = max((pair for pair in dress if any(pair)), key=dress.__getitem__, default=("", ""))
    same = {t: m for t, m in matches.items() if (m["prefix"] or "", m["suffix"] or "") in ((prefix, suffix), ("", ""))}
    if sum(counts[t] for t in same) < 0.9 * total or 2 * dress[prefix, suffix] < total:
        return None
    bodies = {m["body"] for m in same.values()}
    if not _KNOWN.fullmatch(suffix) and (len(bodies) < _FEW or any(body.endswith(".") for body in bodies)):
        return None  # "1. White" is a word
    separators = _separators([m["body"] for m in same.values()], comma)
    if separators is None:
        return None
    decimal, thousands = separators
    minus = next(("(" if m["open"] else sign for m in same.values()
                  if m["open"] or (sign := m["minus"] or m["minus2"] or "+") in _MINUS), "-")
    return _with_decimals(NumberFormat((), decimal, thousands, prefix, suffix, minus),
                          [m["body"] for m in same.values()])


def _without_brackets(counts: Mapping[str, int]) -> Counter[str]:
    """The texts without the uncertainty of their last digits."""
    out = Counter[str]()
    for text, n in counts.items():
        match = _BRACKETED.fullmatch(text)
        out[match[1] + match[2] if match else text] += n
    return out


def _with_decimals(form: NumberFormat, bodies: list[str]) -> NumberFormat:
    counts = [len(body.rpartition(form.decimal)[2]) if form.decimal in body else 0 for body in bodies]
    exponent = any("e" in body.lower() for body in bodies)
    return dataclasses.replace(form, decimals=decimals_of(min(counts), max(counts), exponent))


def _separators(bodies: list[str], comma: bool | None) -> tuple[str, str] | None:
    """Decimal sign and separator of thousands; None if the numbers contradict each other."""
    for decimal, thousands in _candidates(bodies, comma):
        group = re.escape(thousands)
        whole = rf"\d{{1,3}}(?:{group}\d{{3}})+|\d+" if thousands else r"\d+"
        pattern = re.compile(rf"(?:{whole})?(?:{re.escape(decimal)}\d*)?(?:[eE][+-]?\d+)?")
        if all(pattern.fullmatch(body) for body in bodies):
            return decimal, thousands
    return None


def _candidates(bodies: list[str], comma: bool | None) -> list[tuple[str, str]]:
    """Pairs (decimal sign, separator of thousands) in the order of preference."""
    used = {c for body in bodies for c in body if not c.isdigit() and c not in "eE+-"}
    spaces = [c for c in used if c not in ".,"]
    if len(spaces) > 1:
        return []
    if spaces:
        return [(",", spaces[0])] if "," in used else [(".", spaces[0])]
    if used == {","}:
        return [(",", ""), (".", ",")] if comma else [(".", ","), (",", "")]
    if used == {"."}:
        return [(",", "."), (".", "")] if comma else [(".", ""), (",", ".")]
    if used == {".", ","}:
        return [(",", "."), (".", ",")] if comma else [(".", ","), (",", ".")]
    return [(".", "")]
