"""The tasks by which an engine's answers are recorded. They run here, on the event loop, and wait for the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from exoflow.llm.durable.host import Named, Prompted
from exoflow.llm.durable.seats import seat_of
from exoflow.llm.engine.prompts import Prompt
from exoflow.llm.engine.request import AdapterRef, Output, SamplingParams, used_by
from exoflow.model import Bill
from exoflow.paid import tell_bill
from exoflow.tasks import task

if TYPE_CHECKING:
    from exoflow.llm.durable.spec import EngineSpec


@task(executor="local", checkpoint="sync", name="adapter", version="1")
async def looked_up(engine: EngineSpec, name: str) -> AdapterRef:
    """Which content of the adapter the flow uses, from here to its end."""
    seat = await seat_of(engine.how.setup)
    return cast(AdapterRef, await seat.answer(Named(name, engine.how.path(name))))


@task(executor="local", checkpoint="sync", name="generate", version="1")
async def generated(
    engine: EngineSpec, prompt: Prompt, params: SamplingParams, adapter: AdapterRef | None
) -> list[Output]:
    """The answers to one prompt. Many of these calls are in the engine's batches together."""
    seat = await seat_of(engine.how.setup)
    path = engine.how.path(adapter.name) if adapter else None
    outputs = cast("list[Output]", await seat.answer(Prompted(prompt, params, adapter, path)))
    used = used_by(outputs)
    tell_bill(Bill(used.prompt_tokens, used.completion_tokens, used.cached_tokens, charged=False))
    return outputs
