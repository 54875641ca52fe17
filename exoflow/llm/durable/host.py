"""An engine as those see it that share it: they say which content of an adapter they mean, not what to load."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from exoflow.codec import encode_error
from exoflow.errors import AdapterError
from exoflow.llm.engine.prompts import Prompt
from exoflow.llm.engine.queues import Queue
from exoflow.llm.engine.request import AdapterRef, Output, SamplingParams
from exoflow.tasks import task

if TYPE_CHECKING:
    from exoflow.llm.engine.engine import Engine
    from exoflow.llm.engine.generation import Generation


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages, which the model's own template makes a prompt of."""

    messages: Sequence[Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Named:
    """Which content does an adapter have?"""

    name: str
    path: str | None
    """None: as the engine has it under this name."""


@dataclass(frozen=True, slots=True)
class Prompted:
    """What follows this prompt?"""

    prompt: Prompt | Chat
    params: SamplingParams
    adapter: AdapterRef | None
    path: str | None
    labels: Mapping[str, str] = field(default_factory=dict)
    """Who is charged."""
    fills: bool = False
    """The answer may be as long as there is room, whatever ``params`` says."""


Question = Named | Prompted
Answer = AdapterRef | list[Output]


class Host:
    """Answers questions to one engine; from any thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._loaded: dict[str, AdapterRef] = {}
        self._loading = threading.Lock()

    def look_up(self, named: Named) -> AdapterRef:
        """What the adapter holds now; its directory is read.

        Raises:
            AdapterError: it is unknown, or broken.
        """
        if named.path is None:
            return self.engine.adapter(named.name)
        return replace(self._load(named.path), name=named.name)

    def submit(self, asked: Prompted) -> Generation:
        """Ask the engine.

        Raises:
            AdapterError: the adapter has other content by now.
        """
        if asked.adapter is None:
            return self._submit(asked, None)
        if asked.path is None:
            generation = self._submit(asked, asked.adapter.name)
        else:
            known = self._loaded.get(asked.path)
            if known is None or known.version != asked.adapter.version:
                self._load(asked.path)
            generation = self._submit(asked, asked.path)
        assert generation.adapter is not None
        if generation.adapter.version != asked.adapter.version:
            self.engine.abort(generation)
            place = f"{asked.path} holds" if asked.path else "the engine has"
            raise AdapterError(
                f"the flow has begun with the adapter {asked.adapter.name} of version {asked.adapter.version[:12]}, and"
                f" {place} {generation.adapter.version[:12]} now. Put the old content back, or start another run; a"
                " flow that trains gives each content a place of its own"
            )
        return generation

    def _submit(self, asked: Prompted, adapter: str | None) -> Generation:
        prompt, params = asked.prompt, asked.params
        if isinstance(prompt, Chat):
            prompt = self.engine.model.tokenizer.chat([dict(message) for message in prompt.messages])
        if asked.fills:
            tokens = self.engine.model.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
            params = replace(params, max_tokens=max(1, self.engine.room(tokens, adapter)))
        return self.engine.submit(prompt, params, adapter, labels=asked.labels)

    def _load(self, path: str) -> AdapterRef:
        with self._loading:
            found = self._loaded[path] = self.engine.load_adapter(path, path)
            return found


def named_as_asked(outputs: list[Output], asked: Prompted) -> list[Output]:
    """Under the adapter's name, not by its place."""
    return [replace(output, adapter=asked.adapter) for output in outputs]


class EngineActor:
    """An engine in a worker of an executor, as an actor: made by its arguments, and in no snapshot.

    Weights are no state, and what is under way is asked again by whoever needs it.
    """

    def __init__(self, model: str, settings: Mapping[str, object], queue_of: Callable[[], Queue] | None) -> None:
        from exoflow.llm import Engine

        self._host = Host(Engine(model, queue=queue_of() if queue_of else None, **settings))
        self._running: dict[int, tuple[Prompted, Generation]] = {}
        self._ended: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    @task(name="engine")
    def exchange(
        self, questions: list[tuple[int, Question]], dropped: list[int], wait_s: float
    ) -> list[tuple[int, Answer | bytes]]:
        """Take these questions in, forget those that are dropped, and give the answers that there are.

        Args:
            questions: By numbers of the caller's.
            dropped: Numbers of earlier ones.
            wait_s: At most, for a first answer.

        Returns:
            Answers by number; bytes: an error of ``codec.encode_error``.

        Raises:
            LLMError: the engine has stopped. What it had is lost, as with a worker that has died.
        """
        answers: list[tuple[int, Answer | bytes]] = []
        for number in dropped:
            if number in self._running:
                self._host.engine.abort(self._running.pop(number)[1])
        for number, question in questions:
            try:
                if isinstance(question, Named):
                    answers.append((number, self._host.look_up(question)))
                else:
                    self._begin(number, question)
            except Exception as error:  # noqa: BLE001 -- it is told to whoever asked
                answers.append((number, encode_error(error)))
        answers += self._finished(0 if answers else wait_s)
        if self._host.engine.error is not None:
            raise self._host.engine.error
        return answers

    def _begin(self, number: int, asked: Prompted) -> None:
        generation = self._host.submit(asked)
        self._running[number] = asked, generation
        generation.when_ended(lambda: self._ended.put(number))

    def _finished(self, wait_s: float) -> list[tuple[int, Answer | bytes]]:
        answers: list[tuple[int, Answer | bytes]] = []
        try:
            number = self._ended.get(timeout=wait_s) if wait_s else self._ended.get_nowait()
            while True:
                if number in self._running:
                    asked, generation = self._running.pop(number)
                    try:
                        answers.append((number, named_as_asked(generation.outputs(), asked)))
                    except Exception as error:  # noqa: BLE001 -- as above
                        answers.append((number, encode_error(error)))
                number = self._ended.get_nowait()
        except queue.Empty:
            return answers
