"""The task by which a model's answers are recorded."""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from exoflow.attempts import current_attempt
from exoflow.context import idempotency_key
from exoflow.llm.calls.answer import Answer
from exoflow.llm.calls.calling import Call, answered
from exoflow.llm.calls.how import Model
from exoflow.llm.calls.question import Messages, Question
from exoflow.llm.engine.request import AdapterRef
from exoflow.tasks import task

if TYPE_CHECKING:
    from exoflow.llm.calls.llm import LLM


@task(executor="local", checkpoint="sync", name="llm", version="1")
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
    call = Call(attempt.call, attempt.run_id, idempotency_key())
    return await asked(llm, Question.of(messages, prompt, params), call, adapter)


async def asked(llm: Model | LLM, question: Question, call: Call, adapter: AdapterRef | None = None) -> Answer:
    """One call, wherever it is made from."""
    if llm.how.engine is not None:
        from exoflow.llm.calls.on_engine import generated

        return await generated(llm.how, llm.model, _by_its_own_chance(question, call), llm.call, adapter)
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
