"""What was answered, one line a sample; and what of it the estimates need, one item a question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Self

from exoflow.llm.planning.sample import Sample, sample_of
from exoflow.model import NANO_USD_PER_USD


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
