"""One call of a model: its turn, its tries, what it cost."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

from exoflow.llm.calls import endpoint
from exoflow.llm.calls.answer import Answer
from exoflow.llm.calls.how import Call, CallOptions, How
from exoflow.llm.calls.in_flight import flights_of
from exoflow.llm.calls.question import Question
from exoflow.llm.calls.reading import Reading
from exoflow.llm.calls.retrying import Retries
from exoflow.llm.calls.usage import usage_of
from exoflow.llm.engine.request import Usage
from exoflow.llm.fair.asks import Ask
from exoflow.paid import dispatching, when_recorded

if TYPE_CHECKING:
    from exoflow.llm.fair.pace import Pace

logger = logging.getLogger(__name__)


class Turn(Protocol):
    """What ``FairScheduler.admit`` gives."""

    def charge(self, tokens: int) -> None: ...

    def settle(self, usage: Usage, nano_usd: int, *, keeps_slot: bool) -> None: ...

    def release(self) -> None: ...


async def answered(how: How, model: str, question: Question, who: CallOptions, call: Call) -> Answer:
    """Wait for its turn, ask until there is an answer, and charge for it.

    It is in flight until its answer is durable: a crash costs no more calls than may be in flight.

    Raises:
        CallFailed: there is none.
        BudgetExceeded, Overloaded, WrongRequest: the scheduler refuses it.
    """
    turn = await _turn(how, question, who, call)
    begun = time.monotonic()
    try:
        tries = _Tries(how, model, question, who, call, turn)
        reading = await tries.reading()
        seconds, maybe_rebilled = time.monotonic() - begun, tries.lost or call.was_dispatched
        answer = answer_of(how, question, reading, seconds=seconds, maybe_rebilled=maybe_rebilled)
        how.pace.correct(_likely(question), answer.usage.prompt_tokens + answer.usage.completion_tokens)
    except Exception:
        when_recorded(turn.release)
        raise
    except BaseException:  # who is cancelled may have nobody to record it
        turn.release()
        raise
    turn.settle(answer.usage, answer.nano_usd, keeps_slot=True)
    when_recorded(turn.release)
    return answer


def answer_of(
    how: How, question: Question, reading: Reading, *, seconds: float = 0.0, maybe_rebilled: bool = False
) -> Answer:
    """What was read, with what it cost."""
    usage, is_estimated = usage_of(reading.usage, question, _all_text(reading))
    nano_usd = how.prices.nano_usd(usage) if how.prices is not None else 0
    if is_estimated:
        logger.debug("%s: usage %r cannot be true, and is estimated", how.endpoint, reading.usage)
    for field in reading.unread:
        _warn_unread(how.endpoint, field)
    return Answer(
        reading.text,
        reading.tool_calls,
        reading.finish_reason or "stop",
        usage,
        nano_usd,
        reading.logprobs,
        seconds,
        maybe_rebilled,
        is_estimated,
        reading.refusal,
        reading.model,
        question.params.get("response_format"),
    )


@lru_cache(maxsize=1000)
def _warn_unread(endpoint: str, field: str) -> None:
    """Once: an endpoint that says something in a way of its own does so in each answer."""
    logger.warning(
        "%s: %s of an answer cannot be read; the rest of it is kept, since it was paid for. Said once", endpoint, field
    )


def _all_text(reading: Reading) -> str:
    return reading.text + (reading.refusal or "") + "".join(call.name + call.arguments for call in reading.tool_calls)


def _likely(question: Question) -> int:
    return question.likely_input_tokens + (question.max_output_tokens or 0)


async def _turn(how: How, question: Question, who: CallOptions, call: Call) -> Turn:
    if how.scheduler is None:
        return await flights_of(how.token, how.max_in_flight).begin(lambda: _ready(how, question))
    most = question.max_output_tokens
    usd = None
    if how.prices is not None and most is not None:
        usd = how.prices.nano_usd(Usage(question.most_input_tokens, most))
    ask = Ask(call.id, call.run, who.job, who.labels, question.likely_input_tokens, most, usd, pace=how.pace)
    return await how.scheduler.admit(ask)


async def _ready(how: How, question: Question) -> None:
    await _paced(how.pace, _likely(question))
    await dispatching()


class _Tries:
    """At one call."""

    def __init__(self, how: How, model: str, question: Question, who: CallOptions, call: Call, turn: Turn) -> None:
        self._how = how
        self._turn = turn
        self._listener = who.on_text if who.on_text is not None and who.on_text.function is not None else None
        self._question = question
        asked = question.body(model)
        if self._listener is not None:
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
        self._body = endpoint.body_of(asked)
        self._url = f"{how.endpoint}/{'completions' if question.messages is None else 'chat/completions'}"
        self._headers = how.headers() | endpoint.key_header(call.key)
        self._told = 0
        self._retries = Retries(how, self._url, may_go_on=self._may_go_on, before_again=self._pace)

    async def reading(self) -> Reading:
        """Of the first one that is answered.

        Raises:
            CallFailed: none is, or none would be.
        """
        return await self._retries.answered(self._try)

    @property
    def lost(self) -> bool:
        """One of them was sent, and what became of it is unknown."""
        return self._retries.lost

    def _may_go_on(self) -> bool:
        return not self._told or self._listener is None or self._listener.begins_anew

    async def _pace(self) -> None:
        await _paced(self._how.pace, _likely(self._question))

    async def _try(self) -> Reading:
        await dispatching()
        arguments = self._url, self._body, self._headers, self._how.timeout_s
        if self._listener is None:
            return await endpoint.asked(*arguments)
        return await endpoint.streamed(*arguments, self._piece)

    def _piece(self, text: str, count: int) -> None:
        if count > self._told:
            self._turn.charge(count - self._told)
            self._told = count
        if self._listener is not None:
            self._listener.hears(text)


_queues: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Pace, asyncio.Lock]] = WeakKeyDictionary()


async def _paced(pace: Pace, tokens: int) -> None:
    """Wait for room in the endpoint's minute, in the order of arrival."""
    queue = _queues.setdefault(asyncio.get_running_loop(), {}).setdefault(pace, asyncio.Lock())
    if not queue.locked() and not pace.take(tokens):
        return
    async with queue:
        while wait_s := pace.take(tokens):  # noqa: ASYNC110 -- a minute goes by, and nothing tells of it
            await asyncio.sleep(wait_s)
