"""From an answer's text to what is voted for. What cannot be parsed abstains: these raise ValueError."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

_SIGN = r"(?:(?<![\w)])[-+−])?"
"""Behind a digit, a word or brackets it is none: a dash, as in 10-15, or minus."""
_NUMBER = re.compile(
    rf"{_SIGN}(?:\d+ )?(?<![\d/])\d+/\d+(?![\d/]|[.,]\d)"  # 1/2, 3 1/2, and no date
    rf"|{_SIGN}(?:\d{{1,3}}(?:,\d{{3}})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|{_SIGN}\.\d+"
)
_FRAC = re.compile(r"(\d?)\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_BOXED = r"\\boxed(?=\s*\{)"
_AROUND = r"(?:[(*\[{$\s'\"]|\\[(\[]|\\(?:boxed|text|textbf|mathrm|mathbf)(?=\s*\{))*"
"""What may stand before an option that is the answer: space, brackets, bold, LaTeX."""
_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)


def whole(text: str) -> str:
    """All of the text, without space around it."""
    if not (stripped := text.strip()):
        raise ValueError("the answer is empty")
    return stripped


def first_line(text: str) -> str:
    """The first line that is not empty."""
    return whole(text).splitlines()[0].strip()


def number(text: str) -> int | Decimal | Fraction:
    """The last number in the text, where models say what they came to: 42, 1,234.50, 6e23, 1/2, LaTeX's fractions."""
    found = _NUMBER.findall(_FRAC.sub(lambda frac: f"{frac[1] and frac[1] + ' '}{frac[2]}/{frac[3]}", text))
    if not found:
        raise ValueError("there is no number in it")
    last: str = found[-1].replace(",", "").replace("−", "-")
    if "/" in last:
        return _fraction(last)
    return int(last) if last.lstrip("+-").isdecimal() else Decimal(last)


def _fraction(text: str) -> Fraction:
    try:
        value = sum(map(Fraction, text.lstrip("+-").split()), Fraction(0))
    except ZeroDivisionError:
        raise ValueError(f"{text} is no number") from None
    return -value if text.startswith("-") else value


@dataclass(frozen=True, slots=True)
class Choice:
    """What ``choice`` makes."""

    options: tuple[str, ...]

    def __call__(self, text: str) -> str:
        exactly = text.strip().strip("()[]*.:'\"` \n")
        for option in self.options:
            if exactly.casefold() == option.casefold():
                return option
        for cased in (re.NOFLAG, re.IGNORECASE):  # "a" is a word before it is option A
            if named := _last_named(self.options, text, cased):
                return named
        raise ValueError(f"it names none of {', '.join(self.options)}")


def choice(options: Iterable[str]) -> Choice:
    """One of these: the whole text, or the last that stands in it as a word; ``choice("ABCD")``.

    After "answer" or "answer is", also in bold or parentheses, or in LaTeX's box, it counts before any that only stands
    there.
    """
    given: object = options
    found = tuple(given) if isinstance(given, Iterable) else ()
    if not found or not all(isinstance(option, str) and option.strip() for option in found):
        raise ValueError(f'choice({options!r}): give the options, as "ABCD" or ["yes", "no"]')
    if len({option.casefold() for option in found}) < len(found):
        raise ValueError(f"choice({options!r}): two options are the same")
    return Choice(found)


def _last_named(options: tuple[str, ...], text: str, flags: re.RegexFlag) -> str | None:
    words = "|".join(re.escape(option) for option in sorted(options, key=len, reverse=True))
    told = re.findall(rf"(?:(?i:answer(?:\s+is)?)\s*:?|{_BOXED}){_AROUND}({words})(?!\w)", text, flags)
    found = told or re.findall(rf"(?<![\w'])({words})(?![\w'])", text, flags)
    if not found:
        return None
    last: str = found[-1]
    return next(option for option in options if option == last or option.casefold() == last.casefold())


@dataclass(frozen=True, slots=True)
class Regex:
    """What ``regex`` makes."""

    pattern: str

    def __call__(self, text: str) -> str:
        found: list[re.Match[str]] = list(re.finditer(self.pattern, text))
        if not found:
            raise ValueError(f"nothing in it matches {self.pattern!r}")
        groups = found[-1].groups() or (found[-1][0],)
        return whole(next((group for group in groups if group is not None), ""))


def regex(pattern: str) -> Regex:
    """The last match: the first of its groups that has matched, or all of it where there is none."""
    re.compile(pattern)
    return Regex(pattern)


@dataclass(frozen=True, slots=True)
class JsonField:
    """What ``json_field`` makes."""

    path: tuple[str, ...]

    def __call__(self, text: str) -> object:
        try:
            found: object = _json_in(text)
        except (RecursionError, ArithmeticError) as error:  # brackets or exponents without end
            raise ValueError(f"its JSON cannot be read: {error}") from error
        for name in self.path:
            if not isinstance(found, dict) or name not in found:
                raise ValueError(f"it has no field {'.'.join(self.path)!r}")
            found = found[name]
        if found is None:
            raise ValueError(f"its field {'.'.join(self.path)!r} is null")
        return found


def json_field(path: str) -> JsonField:
    """A field of the JSON object that the text is, or holds; ``json_field("result.name")`` is one inside another."""
    if not path:
        raise ValueError("json_field(''): name the field")
    return JsonField(tuple(path.split(".")))


def _json_in(text: str) -> object:
    """The text as JSON; else a block of it; else the last object that begins in it and is whole."""
    decoder = json.JSONDecoder(parse_float=Decimal)
    for candidate in (text, *reversed(_FENCE.findall(text))):
        try:
            return decoder.decode(candidate.strip())
        except ValueError:
            continue
    found: object = None
    at = text.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(text, at)
        except ValueError:
            end = at + 1
        at = text.find("{", end)
    if found is None:
        raise ValueError("there is no JSON object in it")
    return found
