"""The built-in engine instead of an endpoint: its own queue says whose turn it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from exoflow.llm.calls.answer import Answer, TokenLogprob
from exoflow.llm.calls.forms import response_format_of
from exoflow.llm.calls.how import CallOptions, How
from exoflow.llm.calls.question import Question
from exoflow.llm.durable.host import Chat, Named, Prompted
from exoflow.llm.durable.seats import seat_of
from exoflow.llm.engine.request import AdapterRef, Output, SamplingParams, TokenLogprobs, WrongRequest
from exoflow.paid import dispatching


async def generated(how: How, model: str, question: Question, who: CallOptions, adapter: AdapterRef | None) -> Answer:
    """Ask it.

    Raises:
        WrongRequest: something is asked for that an engine cannot do.
        AdapterError: the adapter is unknown, or has other content than when the run began to use it.
    """
    assert how.engine is not None
    begun = time.monotonic()
    setup, path = how.engine.how.setup, None
    params = sampling_params(question)
    seat = await seat_of(setup)
    if model != how.endpoint:
        path = how.engine.how.path(model)
        adapter = adapter or cast(AdapterRef, await seat.answer(Named(model, path)))
    prompt = Chat(question.messages) if question.messages is not None else question.prompt or ""
    fills = question.max_output_tokens is None and question.messages is not None
    labels = {"job": who.job, **who.labels} if who.job else who.labels  # those of a vote keep together in its queue
    asked = Prompted(prompt, params, adapter, path, labels, fills)
    await dispatching()
    [output] = cast("list[Output]", await seat.answer(asked))
    if who.on_text is not None:
        who.on_text.hears(output.text)
    nano_usd = how.prices.nano_usd(output.usage) if how.prices is not None else 0
    return Answer(
        output.text,
        finish_reason=output.finish_reason,
        usage=output.usage,
        nano_usd=nano_usd,
        logprobs=_logprobs(output.logprobs),
        seconds=time.monotonic() - begun,
        model=model,
        form=question.params.get("response_format"),
    )


def sampling_params(question: Question) -> SamplingParams:
    """As the engine has it: what it cannot do is refused, and never left out.

    Raises:
        WrongRequest: with the name of it.
    """
    from exoflow.llm.server.asked import ChatRequest, CompletionRequest
    from exoflow.llm.server.refusals import Refusal

    params: dict[str, Any] = {name: value for name, value in question.params.items() if value is not None}
    if "response_format" in params:
        params["response_format"] = response_format_of(params["response_format"])
    try:
        if question.messages is not None:
            chat = msgspec.convert({"model": "", "messages": question.messages, **params}, ChatRequest)
            chat.check()
            return chat.params(question.max_output_tokens or 1, chat.counted_logprobs)
        plain = msgspec.convert({"model": "", "prompt": question.prompt, **params}, CompletionRequest)
        plain.check()
        return plain.params(plain.max_tokens or 16, plain.logprobs)
    except (Refusal, msgspec.ValidationError) as error:
        raise WrongRequest(f"the built-in engine cannot answer this: {error}") from error


def _logprobs(found: Sequence[TokenLogprobs] | None) -> tuple[TokenLogprob, ...] | None:
    """Tokens by their numbers: their texts are with the engine, wherever it is."""
    if found is None:
        return None
    return tuple(
        TokenLogprob(f"token_id:{each.token_id}", each.logprob, tuple((f"token_id:{id}", p) for id, p in each.top))
        for each in found
    )
