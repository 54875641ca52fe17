"""One answer, as a line of a log says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from math import inf


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer to one question."""

    id: str
    index: int
    text: str
    answer: str | None
    """What was parsed from it; answers that are the same are spelled the same. None: it abstains."""
    why: str = ""
    """Why it abstains."""
    correct: bool | None = None
    """None: the question has no label. An abstention is never correct."""
    tokens: int = 0
    """Of prompt and answer, those of a judge too."""
    nano_usd: int = 0
    """Billionths of a dollar, those of a judge too."""
    seconds: float = 0.0
    passed: bool | None = None
    """What a judge said; None: it was not asked."""
    maybe_rebilled: bool = False
    """It may have been paid for more than once: the process died while it was under way."""

    def __reduce__(self) -> tuple[object, ...]:
        """Without the looking-up that a frozen dataclass does: a log has many."""
        return Sample, (
            self.id, self.index, self.text, self.answer, self.why, self.correct, self.tokens, self.nano_usd,
            self.seconds, self.passed, self.maybe_rebilled,
        )  # fmt: skip

    @property
    def abstained(self) -> bool:
        return self.answer is None

    @property
    def usd(self) -> Decimal:
        """Exactly."""
        return Decimal(self.nano_usd).scaleb(-9)

    def as_row(self) -> dict[str, object]:
        """As a line of a log says it."""
        row: dict[str, object] = {"id": self.id, "index": self.index, "text": self.text}
        row |= {"abstained": True, "why": self.why} if self.abstained else {"answer": self.answer}
        row |= {"correct": self.correct, "tokens": self.tokens, "usd": float(self.usd), "seconds": self.seconds}
        if self.passed is not None:
            row["passed"] = self.passed
        return {**row, "maybe_rebilled": True} if self.maybe_rebilled else row


def sample_of(row: Mapping[str, object], place: str) -> Sample:
    """Of a line of a log; ``place`` says in an error which one it was."""
    if not isinstance(row, Mapping):
        raise TypeError(f"{place} is no mapping of fields: {row!r}")
    row = {name: None if is_missing(value) else value for name, value in row.items()}
    missing = [name for name in ("id", "index") if row.get(name) is None]
    if "answer" not in row and not row.get("abstained"):
        missing.append("answer")
    if missing:
        raise ValueError(f"{place} has no {', '.join(missing)}; it has {', '.join(map(str, row)) or 'nothing'}")
    answer = None if row.get("abstained") else row.get("answer")
    if answer is None and row.get("correct"):
        raise ValueError(f"{place} abstained and is correct: an abstention never is")
    return Sample(
        id=str(row["id"]),
        index=_number(row["index"], "index", place),
        text=str(row.get("text") or ""),
        answer=None if answer is None else str(answer),
        correct=_truth(row.get("correct"), "correct", place),
        tokens=_number(row.get("tokens") or 0, "tokens", place),
        why=str(row.get("why") or ""),
        nano_usd=_nano_usd(row.get("usd"), place),
        seconds=_seconds(row.get("seconds"), place),
        passed=_truth(row.get("passed"), "passed", place),
        maybe_rebilled=bool(_truth(row.get("maybe_rebilled"), "maybe_rebilled", place)),
    )


def is_missing(value: object) -> bool:
    """Whether it is None, or what tables have in its place: NaN, pandas' NA and NaT."""
    if value is None:
        return True
    try:
        return bool(value != value)  # NaN and NaT are not themselves
    except TypeError:  # NA is neither the same nor another
        return True
    except ValueError:  # an array
        return False


def _truth(value: object, name: str, place: str) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise ValueError(f"{place}: {name} is {value!r}, neither true nor false nor null")


def _number(value: object, name: str, place: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError(f"{place}: {name} is {value!r}, no whole number from 0")


def _seconds(value: object, place: str) -> float:
    try:
        seconds = float(str(value or 0))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < inf:
        raise ValueError(f"{place}: seconds is {value!r}, no number from 0")
    return seconds


def _nano_usd(usd: object, place: str) -> int:
    try:
        return round(_not_negative(Decimal(str(usd or 0))).scaleb(9))
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise ValueError(f"{place}: usd is {usd!r}, no amount of dollars") from error


def _not_negative(amount: Decimal) -> Decimal:
    if amount < 0:
        raise ValueError
    return amount
