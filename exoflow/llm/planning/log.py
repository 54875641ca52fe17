"""What was answered, one line a sample; and what of it the estimates need, one item a question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cached_property
from math import inf
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Self

from exoflow.model import NANO_USD_PER_USD


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


@dataclass(frozen=True, slots=True)
class Item:
    """A question's samples, counted by option: the unit that is sampled."""

    id: str
    n: int
    votes: dict[str, int]
    passed: dict[str, int]
    correct: frozenset[str]
    """The options that are right, of those that were answered."""
    usd: float
    """Of all n samples."""


class Log(Sequence[Sample]):
    """Samples, in the order in which they were given. ``Log(rows)`` takes samples, or mappings with their fields.

    Raises:
        ValueError: a row lacks a field, has one that makes no sense, or is there twice.
    """

    def __init__(self, rows: Iterable[Sample | Mapping[str, object]]) -> None:
        self.samples = tuple(
            row if isinstance(row, Sample) else sample_of(row, f"row {number} of the log")
            for number, row in enumerate(rows, start=1)
        )
        for (item, index), count in Counter((each.id, each.index) for each in self.samples).items():
            if count > 1:
                raise ValueError(f"the log has sample {index} of item {item!r} {count} times: keep one of each")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, at):  # type: ignore[no-untyped-def]  # an index or a slice, as of the tuple
        return self.samples[at]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Log) and self.samples == other.samples

    def __reduce__(self) -> tuple[object, ...]:
        return Log, (self.samples,)  # without what it has counted

    __hash__ = None  # type: ignore[assignment]  # a sequence of any length

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Log:
        """Of a jsonl or parquet file; of another's only ``id``, ``index`` and ``answer`` or ``abstained`` are needed.

        Raises:
            ValueError: it is of no known format, or a row makes no sense; the message says which.
        """
        from exoflow.llm.planning.files import read_rows

        return cls(sample_of(row, f"{path}, row {n}") for n, row in enumerate(read_rows(fspath(path)), start=1))

    def write(self, path: str | PathLike[str]) -> None:
        """A line a sample, as jsonl or parquet by the ending of the name.

        What was in the file is replaced, once all is written. Half of a surrogate pair is U+FFFD in parquet.

        Raises:
            ValueError: the name ends with no known format.
        """
        from exoflow.llm.planning.files import write_rows

        write_rows([sample.as_row() for sample in self.samples], fspath(path))

    if TYPE_CHECKING:  # in an async flow, ``await collect(...)`` is what ``collect(...)`` is in a sync one

        def __await__(self) -> Generator[Any, None, Self]: ...

    def __repr__(self) -> str:
        return f"Log({len(self)} samples of {len(self.items)} items, ${self.usd})"

    @property
    def usd(self) -> Decimal:
        """Of all samples, exactly."""
        return Decimal(sum(each.nano_usd for each in self.samples)).scaleb(-9)

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """In the order of their first sample."""
        of: dict[str, list[Sample]] = {}
        for each in self.samples:
            of.setdefault(each.id, []).append(each)
        return tuple(_counted(samples) for samples in of.values())

    @cached_property
    def unlabelled(self) -> tuple[str, ...]:
        """Items of which a sample that does not abstain is neither right nor wrong."""
        return tuple(dict.fromkeys(each.id for each in self.samples if each.correct is None and not each.abstained))

    @cached_property
    def unjudged(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each.id for each in self.samples if each.passed is None and not each.abstained))


def as_log(log: Log | Iterable[Sample | Mapping[str, object]]) -> Log:
    return log if isinstance(log, Log) else Log(log)


def _counted(samples: Sequence[Sample]) -> Item:
    said = [(each, each.answer) for each in samples if each.answer is not None]
    right = frozenset(answer for each, answer in said if each.correct)
    for each, answer in said:
        if answer in right and each.correct is False:
            raise ValueError(f"item {each.id!r} has the answer {answer!r} both as correct and as wrong")
    return Item(
        id=samples[0].id,
        n=len(samples),
        votes=dict(Counter(answer for _, answer in said)),
        passed=dict(Counter(answer for each, answer in said if each.passed)),
        correct=right,
        usd=sum(each.nano_usd for each in samples) / NANO_USD_PER_USD,
    )


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
