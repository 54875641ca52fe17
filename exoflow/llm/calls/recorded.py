"""The task by which a model's answers are recorded."""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from exoflow.attempts import current_attempt
from exoflow.context import idempotency_key
from exoflow.errors import CallFailed
from exoflow.extras import needed
from exoflow.llm.calls.answer import Answer, bill_of
from exoflow.llm.calls.how import Call, Model
from exoflow.llm.calls.question import Messages, Question
from exoflow.llm.engine.request import AdapterRef, Usage
from exoflow.model import CallId
from exoflow.paid import Bill, bills_before, labels, may_be_paid_twice, paid_task, tell_bill

if TYPE_CHECKING:
    from exoflow.llm.calls.llm import LLM
    from exoflow.llm.fair.scheduler import FairScheduler


@paid_task(name="llm", version="1")
async def called(
    llm: Model,
    messages: Messages | None,
    prompt: str | None,
    params: Mapping[str, Any],
    adapter: AdapterRef | None = None,
) -> Answer:
    """One call, recorded."""
    attempt = current_attempt()
    assert attempt is not None
    if llm.how.scheduler is not None:
        _tell_what_was_spent(llm.how.scheduler, attempt.run_id)
    call = Call(attempt.call, attempt.run_id, idempotency_key(), may_be_paid_twice())
    try:
        answer = await asked(llm, Question.of(messages, prompt, params), call, adapter)
    except CallFailed as error:
        tell_bill(Bill(maybe_rebilled=error.maybe_billed or call.was_dispatched))
        raise
    tell_bill(replace(bill_of(answer), labels=own_labels(llm), charged=llm.how.engine is None))
    return answer


def own_labels(llm: Model) -> tuple[tuple[str, str], ...]:
    """Those that the run has not."""
    of_run = labels()
    return tuple((name, value) for name, value in llm.call.labels.items() if of_run.get(name) != value)


_told: dict[tuple[str, str], Mapping[CallId, Bill]] = {}
"""By scheduler and run, what was spent before and is told."""
_TOLD_MAX = 1000


def _tell_what_was_spent(scheduler: FairScheduler, run: str) -> None:
    """Before a resumed run spends more. To be told twice does nothing; this spares it."""
    bills, key = bills_before(), (scheduler.name, run)
    if not bills or _told.get(key) is bills:
        return
    if len(_told) >= _TOLD_MAX:
        _told.clear()
    _told[key] = bills
    of_run = labels()
    for call, bill in bills.items():
        if not bill.charged:
            continue
        usage = Usage(bill.input_tokens, bill.output_tokens, bill.cached_tokens)
        if bill.nano_usd or usage != Usage(0, 0):  # one that failed is made again: it is not settled yet
            scheduler.fold(run, call, {**of_run, **dict(bill.labels)}, usage, bill.nano_usd)


async def asked(llm: Model | LLM, question: Question, call: Call, adapter: AdapterRef | None = None) -> Answer:
    """One call, wherever it is made from."""
    if llm.how.engine is not None:
        from exoflow.llm.calls.on_engine import generated

        return await generated(llm.how, llm.model, _by_its_own_chance(question, call), llm.call, adapter)
    with needed("a call of an endpoint", "calls"):
        from exoflow.llm.calls.calling import answered
    return await answered(llm.how, llm.model, question, llm.call, call)


def _by_its_own_chance(question: Question, call: Call) -> Question:
    """With a seed of this call, where none is given: an engine's own begin anew in each process, and two samples of one
    vote would be the same one if a crash lies between them.
    """
    if question.params.get("seed") is not None:
        return question
    return replace(question, params={**question.params, "seed": zlib.crc32(call.key.encode())})


def unrecorded() -> Call:
    """A call that no flow makes."""
    key = f"plain/{uuid.uuid4()}"
    return Call(key, "", key)
