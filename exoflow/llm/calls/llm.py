"""``LLM``: a model, written down. In a flow its calls are recorded, and what is recorded is never paid for again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import TYPE_CHECKING, Any, Self, cast

from exoflow.context import calling_body
from exoflow.driver.body import Body
from exoflow.driver.loops import waited
from exoflow.driver.spec import Backoff, TaskSpec
from exoflow.errors import CallFailed
from exoflow.llm.calls.answer import Answer
from exoflow.llm.calls.how import BACKOFF, Binding, CallOptions, How, Listener, Model, Secrets, check_parts
from exoflow.llm.calls.metering import job_of, noted
from exoflow.llm.calls.places import address_of, engine_of
from exoflow.llm.calls.prices import Prices
from exoflow.llm.calls.question import Messages, Question, check_asked, check_params
from exoflow.llm.calls.recorded import asked, called, unrecorded
from exoflow.llm.durable import EngineSpec
from exoflow.naming import key_text
from exoflow.options import check_backoff, check_run_options, count, number
from exoflow.paid import labels as labels_of_run
from exoflow.refs import Ref, Refs
from exoflow.tasks import AsyncTask

if TYPE_CHECKING:
    from exoflow.llm.calls.streaming import Stream
    from exoflow.llm.engine.engine import Engine
    from exoflow.llm.fair.scheduler import FairScheduler


class _Described:
    """What an ``LLM`` has besides its fields: it is no part of what a call's arguments are compared by."""

    how: How
    call: CallOptions


@dataclass(frozen=True, init=False, repr=False, eq=False)
class LLM(_Described):
    """A model: any OpenAI-compatible endpoint, or the built-in engine. A description: nothing is connected yet.

    In a flow ``llm(messages)`` is one recorded call, ``await llm(messages)`` in an async one; ``llm.submit`` gives a
    Ref, ``llm.map`` many. Outside of any flow, and in a task, it simply calls: on an event loop, to be awaited.

    As an argument of a recorded call or a run it is its endpoint and its model: other prices, another scheduler or
    another key are no other call.

    Args:
        endpoint: The base address, which mostly ends with ``/v1``; or an ``Engine`` or ``EngineSpec``.
        model: As the endpoint knows it; of an engine, an adapter, or None for the base.
        max_tokens: Of each answer. Where a budget is kept it is needed.
        scheduler: Whose call is next, and what it may cost. An engine has its own queue.
        prices: Without them, nothing costs anything.
        rpm: Requests that the endpoint takes in a minute.
        tpm: Tokens, of prompts and answers together.
        api_key: It is shown nowhere and stored nowhere: who resumes a run gives it again.
        api_key_env: The environment variable that holds it, where ``api_key`` is not given.
        headers: More of them, kept like the key.
        timeout_s: Of one try.
        retries: After 408, 409, 429, 5xx, timeouts and lost connections.
        backoff: Before a retry; at least what Retry-After says.
        max_in_flight: Calls at once, on one event loop, where no scheduler has slots.
        params: Of each call that does not say otherwise: ``temperature=0.7``.

    Raises:
        TypeError, ValueError: with what to write.
    """

    endpoint: str
    model: str

    def __init__(
        self,
        endpoint: str | Engine | EngineSpec,
        *,
        model: str | None = None,
        max_tokens: int | None = None,
        scheduler: FairScheduler | None = None,
        prices: Prices | None = None,
        rpm: int | None = None,
        tpm: int | None = None,
        api_key: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 600.0,
        retries: int = 5,
        backoff: Backoff | None = None,
        max_in_flight: int = 64,
        **params: Any,
    ) -> None:
        if max_tokens is not None:
            params = {"max_tokens": max_tokens, **params}
        check_params(params)
        backoff = backoff or BACKOFF
        check_backoff(backoff)
        number("timeout_s", timeout_s, above=0)
        count("retries", retries)
        if count("max_in_flight", max_in_flight) < 1:
            raise ValueError("max_in_flight=0: nothing would ever be called")
        if model is not None and not isinstance(model, str):
            raise TypeError(f"model={model!r} must be text: the name by which the endpoint knows it")
        engine = None
        if isinstance(endpoint, str):
            address = address_of(endpoint)
            if not model:
                raise TypeError(f"LLM({endpoint!r}): model= is missing: the name by which the endpoint knows it")
        else:
            engine, address = engine_of(endpoint)
            if scheduler is not None:
                raise TypeError("LLM(engine, scheduler=...): an engine has a queue of its own, Engine(..., queue=...)")
        check_parts(prices, scheduler, api_key, api_key_env, headers)
        secrets = None
        if api_key is not None or headers:
            secrets = Secrets(api_key, tuple((headers or {}).items()))
        how = How(
            address, engine, params, prices, scheduler, rpm, tpm, api_key_env, timeout_s, retries, backoff,
            max_in_flight, secrets,
        )  # fmt: skip
        _ = how.pace  # limits that are none are told now
        self._have(address, model or address, how, CallOptions())

    @property
    def _spec(self) -> TaskSpec:
        """Of the task by which its calls are recorded, as a task's own: `explain` reads it in a flow's source."""
        return called._spec

    def _have(self, endpoint: str, model: str, how: How, call: CallOptions) -> None:
        for name, value in (("endpoint", endpoint), ("model", model), ("how", how), ("call", call)):
            object.__setattr__(self, name, value)

    def options(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        key: str | int | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Self:
        """The same model, for one call.

        Args:
            labels: Who is charged; they override the run's.
            key: Names the call in its flow, instead of its being the n-th.
            on_text: Is told all of the text so far, as often as it grows, in the process that calls. After a connection
                that was lost the text begins anew.

        Raises:
            TypeError, ValueError: with what it must be.
        """
        call = self.call
        if labels is not None:
            check_run_options("llm", {"labels": labels})
            call = replace(call, labels={**call.labels, **labels})
        if key is not None:
            key_text(key)
            call = replace(call, key=key)
        if on_text is not None:
            if not callable(on_text):
                raise TypeError(f"on_text={on_text!r} must be a function of the text so far")
            call = replace(call, on_text=Listener(on_text))
        return self._with(call)

    def __call__(self, messages: Messages | None = None, /, *, prompt: str | None = None, **params: Any) -> Answer:
        """Ask, and give the answer; in an async flow, and on an event loop, ``await`` it.

        Args:
            messages: A chat; text alone is one message of the user's.
            prompt: Plain text that is to be completed, instead.
            params: ``temperature``, ``max_tokens``, ``tools``, ``response_format``, ``logprobs`` …, as endpoints know
                them. ``response_format`` may be a dataclass, a msgspec or pydantic class, or a JSON Schema.

        Raises:
            CallFailed: there is no answer.
            BudgetExceeded, Overloaded: the scheduler refuses it.
        """
        body = calling_body()
        params = {**self.how.params, **params}
        if body is None:
            answer = asked(self, Question.of(messages, prompt, params), unrecorded(), None)
            if asyncio._get_running_loop() is not None:
                return cast(Answer, answer)
            return waited(answer)
        if not body.is_async:
            return self.submit(messages, prompt=prompt, **params).result()
        check_asked(messages, prompt, params)
        return cast(Answer, noted(self._task()(self._in(body), messages, prompt, params, self._adapter())))

    def submit(
        self, messages: Messages | Ref[Any] | None = None, /, *, prompt: str | Ref[str] | None = None, **params: Any
    ) -> Ref[Answer]:
        """In a flow: ask, and go on."""
        params = {**self.how.params, **params}
        check_asked(messages, prompt, params)
        return noted(self._task().submit(self._in(calling_body()), messages, prompt, params, self._adapter()))

    def map(
        self,
        messages: Iterable[Messages | Ref[Any]] | None = None,
        /,
        *,
        prompt: Iterable[str | Ref[str]] | None = None,
        **params: Any,
    ) -> Refs[Answer]:
        """In a flow: ``submit`` for each chat, or each prompt."""
        if (messages is None) == (prompt is None):
            raise TypeError("give a list of chats, or prompt=[...] of plain prompts, and not both")
        if isinstance(messages, str) or isinstance(prompt, str):
            raise TypeError(f"llm.map({messages or prompt!r}) would ask each letter: give a list of texts")
        params = {**self.how.params, **params}
        each: list[tuple[Any, Any]] = (
            [(None, text) for text in prompt] if prompt is not None else [(chat, None) for chat in messages or ()]
        )
        for one in each:
            check_asked(*one, params)
        chats, prompts = [chat for chat, _ in each], [text for _, text in each]
        llm, adapter = self._in(calling_body()), self._adapter() if each else None
        refs = self._task().map(repeat(llm), chats, prompts, repeat(params), repeat(adapter))
        for ref in refs:
            noted(ref)
        return refs

    def batch(
        self,
        messages: Sequence[Messages] | None = None,
        /,
        *,
        prompt: Sequence[str] | None = None,
        window: str = "24h",
        poll_s: float = 30.0,
        **params: Any,
    ) -> Ref[list[Answer | CallFailed]]:
        """In a flow: all of them as one of OpenAI's batches, which costs half and may take a day.

        Its id is recorded; if the process dies before that, the batch is found again by its mark. What was not answered
        stands in the list as its error. ``cost`` is by this LLM's prices: give one with those of batches.

        Args:
            messages: Chats, as of ``llm(...)``.
            prompt: Plain prompts, instead.
            window: Within which it is to be done.
            poll_s: How often to look.
            params: For all of them.
        """
        from exoflow.llm.calls.batch import begun

        if self.how.engine is not None:
            raise TypeError("llm.batch(...): an engine has no batches; llm.map(...) fills its own")
        if self.how.scheduler is not None:
            raise TypeError("llm.batch(...) goes past a scheduler and its budgets: use an LLM without one")
        llm, params = self._in(calling_body()), {**self.how.params, **params}
        return begun(llm, messages, prompt, params, window=window, poll_s=poll_s, key=self.call.key)

    def stream(self, messages: Messages | None = None, /, *, prompt: str | None = None, **params: Any) -> Stream:
        """Outside of a flow: the text in pieces, with ``for`` or ``async for``; ``.answer`` at the end.

        Half an answer is an error: once a piece was told, nothing is tried again.
        """
        from exoflow.llm.calls.streaming import Stream

        if calling_body() is not None:
            raise RuntimeError(
                "llm.stream(...) in a flow would not be recorded: llm.options(on_text=...)(...) is one recorded call, "
                "which tells its text as it comes"
            )
        return Stream(self, Question.of(messages, prompt, {**self.how.params, **params}))

    def _in(self, body: Body | None) -> Model:
        """For a recorded call, with what the run and the flow say of it. One for all calls of a body that are alike."""
        if body is None:
            return Model(self.endpoint, self.model)  # the task refuses it, and says what to write
        call, known = self.call, vars(body).setdefault("_llm_models", {})
        alike = self.how, self.model, tuple(call.labels.items()), call.on_text
        if alike not in known:
            whose = replace(call, labels={**labels_of_run(), **call.labels}, job=job_of(body))
            binding = Binding(self.how, whose)
            known[alike] = binding, Model(self.endpoint, self.model, binding.token)
        found: Model = known[alike][1]
        return found

    def _task(self) -> AsyncTask[..., Answer]:
        return called if self.call.key is None else called.options(key=self.call.key)

    def _with(self, call: CallOptions) -> Self:
        other = type(self).__new__(type(self))
        other._have(self.endpoint, self.model, self.how, call)
        return other

    def _adapter(self) -> Any:
        """What stands for an engine's adapter in a flow: its content is looked up once, and recorded."""
        engine = self.how.engine
        if engine is None or self.model == self.endpoint or calling_body() is None:
            return None
        return engine.adapter_ref(self.model)

    def __repr__(self) -> str:
        return f"LLM({self.endpoint!r}, model={self.model!r})"
