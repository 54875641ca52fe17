"""Calls of whoever votes: ``parse``, ``judge``, ``weight``, ``score``. What models they ask is recorded as the flow's.

A sync function is called in the vote's body. If it turns out to make calls, which a sync function cannot do on an event
loop, it is called again in a child flow, with a thread; so many at once would be so many threads, hence one after
another. Async functions are child flows at once, all together.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from exoflow.driver.strands import Strand, current
from exoflow.flows import flow
from exoflow.gathering import gather
from exoflow.llm.calls.answer import Answer
from exoflow.llm.calls.metering import Meter, metered
from exoflow.llm.voting.equivalence import is_hashable
from exoflow.llm.voting.results import NOTHING, Outcome, spent
from exoflow.model import Bill, Spent

_UNPARSED = (
    ValueError, LookupError, ArithmeticError, TypeError, AttributeError, AssertionError, SyntaxError, RecursionError
)  # fmt: skip
"""What a parser raises at a text that is not as it expects: the sample abstains. Errors of calls are none of these."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a function has said of one sample."""

    value: Any
    why: str = ""
    """Why there is no value."""
    cost: Spent = NOTHING


_OPTIONAL = ("parse", "weight")


def check_functions(**functions: object) -> None:
    """Refuse what cannot be called, before a model is asked whose answers nobody could read.

    Raises:
        TypeError: it names the one.
    """
    for role, function in functions.items():
        if not callable(function) and not (function is None and role in _OPTIONAL):
            raise TypeError(f"{role}={function!r} must be a function")


async def consult(
    role: str, function: Callable[..., Any], asked: Sequence[tuple[int, tuple[Any, ...]]], *, abstains: bool = False
) -> list[Opinion]:
    """What the function says of each sample, given its index and the arguments.

    Args:
        role: stands in the keys of its calls.
        abstains: an error such as parsers raise is an opinion without a value.

    Raises:
        Exception: the first error, once all have ended.
    """
    opinions: list[Opinion] = []
    if not _is_async(function):
        try:
            for _, args in asked:
                opinions.append(_in_place(function, args, abstains))
            return opinions
        except _MakesCalls:
            pass
    begun = len(opinions)  # as far as it came without a call
    keyed = [(f"{role}-{index}", args) for index, args in asked[begun:]]
    if _is_async(function):
        calls = [opinion_async.options(key=key).submit(function, args, abstains) for key, args in keyed]
        ended: list[Opinion | Exception] = await gather(calls, return_exceptions=True)
    else:
        ended = []
        for key, args in keyed:
            ended += await gather([opinion.options(key=key).submit(function, args, abstains)], return_exceptions=True)
    for each in ended:
        if isinstance(each, Exception):
            raise each
    return opinions + cast("list[Opinion]", ended)


@flow(version="1")
def opinion(function: Callable[..., Any], args: tuple[Any, ...], abstains: bool) -> Opinion:
    with metered() as meter:
        said = _said(function, args, abstains)
    ended = gather(meter.refs, return_exceptions=True).result()
    return Opinion(said.value, said.why, _cost(meter, ended))


@flow(version="1")
async def opinion_async(function: Callable[..., Any], args: tuple[Any, ...], abstains: bool) -> Opinion:
    with metered() as meter:
        try:
            said = Opinion(await function(*args))
        except _UNPARSED as error:
            said = _abstention(error, abstains)
    ended = await gather(meter.refs, return_exceptions=True)
    return Opinion(said.value, said.why, _cost(meter, ended))


def _cost(meter: Meter, ended: Sequence[Any]) -> Spent:
    results = [*meter.results, *(each for each in ended if not isinstance(each, Exception))]
    failed = meter.failed + sum(isinstance(each, Exception) for each in ended)
    of_votes = [_spent_on(each) for each in results if isinstance(each, Outcome)]
    answers = [each for each in results if isinstance(each, Answer)]
    return sum(of_votes, spent(answers) + Spent(failed))


def _spent_on(vote: Outcome) -> Spent:
    usage = vote.usage
    return Spent(vote.n_calls, Bill(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, vote.nano_usd))


def _in_place(function: Callable[..., Any], args: tuple[Any, ...], abstains: bool) -> Opinion:
    token = current.set(cast(Strand, _NOWHERE))
    try:
        return _said(function, args, abstains)
    finally:
        current.reset(token)


def _said(function: Callable[..., Any], args: tuple[Any, ...], abstains: bool) -> Opinion:
    try:
        value = function(*args)
    except _UNPARSED as error:
        return _abstention(error, abstains)
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError(f"{function!r} gave {value!r}: write it as `async def`, so that it is awaited")
    return Opinion(value)


def _abstention(error: Exception, abstains: bool) -> Opinion:
    if not abstains:
        raise error
    return Opinion(None, f"{type(error).__name__}: {error}")


def verdict(value: object) -> bool:
    """What a judge has said: True or False, or what is equal to one, as numpy's are, and 1 and 0.

    Raises:
        TypeError: it is neither.
    """
    if not is_hashable(value) or value not in (True, False):
        raise TypeError(f"judge gave {value!r}: it must give True or False")
    return bool(value)


def without_calls(function: Callable[..., Any], *args: Any) -> Opinion | None:
    """What it says, an error such as parsers raise being an opinion without a value; None if it would have to ask."""
    if _is_async(function):
        return None
    try:
        return _in_place(function, args, abstains=True)
    except _MakesCalls:
        return None


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


class _MakesCalls(BaseException):
    """Ends a function at its first call. Not an ``Exception``: the function must not swallow it."""


class _Nowhere:
    """In place of a strand: whoever asks which flow it is in is stopped before anything is recorded."""

    def __getattr__(self, name: str) -> NoReturn:
        raise _MakesCalls


_NOWHERE = _Nowhere()
