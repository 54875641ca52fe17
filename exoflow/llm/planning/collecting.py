"""``collect``: n samples of each question of a data set, each paid for once however often the run dies."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Literal

from exoflow.errors import CallRefused
from exoflow.flows import flow
from exoflow.gathering import gather
from exoflow.llm.calls import Answer
from exoflow.llm.calls.forms import in_form, is_parsed
from exoflow.llm.library_flow import library_flow
from exoflow.llm.planning.files import Row, checked, read_rows
from exoflow.llm.planning.log import Log
from exoflow.llm.planning.progress import shown
from exoflow.llm.planning.sample import Sample
from exoflow.llm.voting.asking import Model, Question, answered, check_words, judged, parsed
from exoflow.llm.voting.consulting import check_functions, without_calls
from exoflow.llm.voting.deciding import check_count
from exoflow.llm.voting.equivalence import canonical, verbatim
from exoflow.llm.voting.results import NOTHING, Sample as Voted, by_first_said, spent
from exoflow.tasks import task

if TYPE_CHECKING:
    from exoflow.refs import Ref

Refused = Literal["fail", "abstain"]

AHEAD = 1024
"""Calls that are begun before the first of them has to have ended: more than an endpoint takes at once."""

_OF_THE_QUESTION = frozenset([400, 413, 422])
"""What an endpoint refuses for what it is asked; other refusals are of whoever asks."""

_REFUSED = "refused"
"""Why such a sample ends."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How each question is asked, and its answers read."""

    llm: Model
    n: int
    parse: Callable[[str], Any] | None
    judge: Callable[[Any, Any], Any] | None
    equivalence: Callable[[Any], Hashable]
    refused: Refused
    params: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_count("n", self.n)
        if self.refused not in ("fail", "abstain"):
            raise ValueError(f"refused={self.refused!r} must be 'fail' or 'abstain'")
        check_words(self.params)
        judge = {} if self.judge is None else {"judge": self.judge}
        check_functions(parse=self.parse, equivalence=self.equivalence, **judge)

    @property
    def form(self) -> object:
        """What answers without ``parse`` are, as ``response_format`` says."""
        return self.params.get("response_format", self.llm.how.params.get("response_format"))


@library_flow
async def collect(
    llm: Model,
    dataset: Sequence[Mapping[str, Any]] | str | PathLike[str],
    n: int = 20,
    *,
    parse: Callable[[str], Any] | None = None,
    judge: Callable[[Any, Any], Any] | None = None,
    equivalence: Callable[[Any], Hashable] = canonical,
    refused: Refused = "fail",
    **params: Any,
) -> Log:
    """Ask each question n times, and log the answers: what ``curve``, ``fit_scaling`` and ``plan`` estimate from.

    It is a flow: under a ``run_id`` the same line makes only the calls that are missing after a crash. How far it is,
    and what it has cost, is shown on a terminal, and logged.

    Args:
        llm: whom.
        dataset: rows, or a jsonl or parquet file of them: ``id``, ``prompt`` or ``messages``, and ``answer``, the
            label, where there is one. Other fields are ignored.
        n: samples of each question.
        parse: from the text to what is voted for, as of ``vote``; labels that are text are parsed too.
        judge: ``judge(question, answer) -> bool``, as of ``filter_vote``: ``passed`` in the log.
        equivalence: as of ``vote``.
        refused: what the endpoint will not answer, however often it is asked, fails, or is a sample that abstains.
        params: of each call. A ``seed`` is the first sample's, and one more for each after it.

    Raises:
        TypeError, ValueError: the data set lacks a field, has an id twice, or is of no known format.
        Exception: a call's, once all others have ended. ``collect.resume(run_id)`` makes those that failed again.
    """
    asking = Asking(llm, n, parse, judge, equivalence, refused, params)
    rows = checked(await read_dataset.submit(fspath(dataset)) if isinstance(dataset, str | PathLike) else dataset)
    _check_labels(rows, asking)
    samples, failed = list[Sample](), list[Exception]()
    begun: deque[Ref[list[Sample]]] = deque()
    with shown(len(rows) * n) as progress:
        for number, row in enumerate(rows, start=1):
            begun.append(asked_often.options(key=row["id"]).submit(asking, row))
            while begun and (len(begun) * n >= AHEAD or number == len(rows)):
                try:
                    samples += await begun.popleft()
                    progress.add(samples[-n:])
                except Exception as error:  # noqa: BLE001 -- told once all have ended
                    failed.append(error)
    if failed:
        failed[0].add_note(f"{len(failed)} of {len(rows)} questions lack samples: collect.resume(run_id) asks for them")
        raise failed[0]
    return Log(samples)


@task(executor="local", name="exoflow.llm.planning.read_dataset", version="1")
def read_dataset(path: str) -> list[Row]:
    """Recorded: a file that has changed since does not change a run that goes on."""
    return read_rows(path)


@flow(name="exoflow.llm.planning.asked_often", version="1")
async def asked_often(how: Asking, row: Row) -> list[Sample]:
    """The samples of one question."""
    question = Question(how.llm, row.get("messages"), row.get("prompt"), how.params)
    calls = [question.ask(index) for index in range(how.n)]
    replies = await (answered(calls) if how.refused == "fail" else _answered_or_refused(calls))
    votes, of_parsing = await parsed(how.parse, replies)
    votes = [replace(vote, answer=None, why=vote.reply.refusal or "") if _was_refused(vote) else vote for vote in votes]
    of_judging = [NOTHING] * how.n
    if how.judge is not None:
        votes, of_judging = await judged(question, how.judge, votes)
    said, right = by_first_said(votes, how.equivalence), _right(row.get("answer"), how)
    samples = []
    for vote, *of_both in zip(votes, of_parsing, of_judging, strict=True):
        option = None if vote.answer is None else how.equivalence(vote.answer)
        cost = sum(of_both, spent([vote.reply]))
        samples.append(
            Sample(
                id=row["id"],
                index=vote.index,
                text=vote.text,
                answer=None if option is None else str(said[option]),
                why=vote.why,
                correct=None if right is None else option in right,
                tokens=cost.bill.input_tokens + cost.bill.output_tokens,
                nano_usd=cost.bill.nano_usd,
                seconds=vote.reply.seconds,
                passed=vote.passed,
                maybe_rebilled=vote.reply.maybe_rebilled,
            )
        )
    return samples


def _was_refused(vote: Voted) -> bool:
    return vote.reply.finish_reason == _REFUSED


async def _answered_or_refused(calls: Sequence[Ref[Answer]]) -> list[Answer]:
    """The same as ``answered``, an empty answer for what is refused for what it asks."""
    ended: list[Answer | Exception] = await gather(calls, return_exceptions=True)
    replies = []
    for each in ended:
        if isinstance(each, CallRefused) and each.status in _OF_THE_QUESTION:
            each = Answer("", finish_reason=_REFUSED, refusal=str(each))
        if isinstance(each, Exception):
            raise each
        replies.append(each)
    return replies


def _check_labels(rows: Sequence[Row], how: Asking) -> None:
    """Before anything is asked that could not be compared with them.

    Raises:
        ValueError: it names the row.
    """
    for number, row in enumerate(rows, start=1):
        try:
            _right(row.get("answer"), how)
        except Exception as error:
            raise ValueError(
                f"row {number} of the data set, id {row['id']!r}: its answer {row['answer']!r} cannot be compared with "
                f"a model's: {type(error).__name__}: {error}. Give it as parse or response_format makes theirs"
            ) from error


def _right(label: object, how: Asking) -> frozenset[Hashable] | None:
    """The options that are correct; None: nobody says which."""
    if label is None:
        return None
    if how.parse is None and is_parsed(how.form):
        return frozenset([how.equivalence(_in_form(label, how))])
    right = {how.equivalence(label)}
    if isinstance(label, str) and how.parse is not None:
        read = without_calls(how.parse, label)
        if read is not None and read.value is not None:
            right.add(how.equivalence(read.value))
    return frozenset(right)


def _in_form(label: object, how: Asking) -> object:
    """As answers are: it may be JSON, too. An equivalence of whoever collects may know what to do with another.

    Raises:
        ValueError: it is not of the form, so that no answer would be right.
    """
    try:
        return in_form(label, how.form)
    except ValueError as error:
        why = error
    try:
        return in_form(json.loads(label) if isinstance(label, str) else label, how.form)
    except ValueError:
        if how.equivalence in (canonical, verbatim):
            raise why from None
        return label
