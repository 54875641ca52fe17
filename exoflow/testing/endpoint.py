"""A model that is none: an OpenAI-compatible endpoint on loopback. It counts what it is asked, and fails as it is told.

It lives in a thread of this process, or in a process of its own, which outlives a flow that is killed::

    with FakeEndpoint(answer=lambda asked: "yes" if asked.nth else Reply(status=500)) as endpoint:
        llm = LLM(endpoint.url, model="fake")
        ...
        assert endpoint.billed() == Counter(...)
"""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

from exoflow.testing.endpoint_replies import Asked, Reply
from exoflow.testing.endpoint_server import Answering, Server, importable, said

__all__ = ["Asked", "FakeEndpoint", "Reply", "said"]


class FakeEndpoint:
    """Answers chats and completions, streamed or not, models, files and batches. Use it in a ``with``.

    Args:
        answer: What it says to a request: text, or a ``Reply``. A function of what was asked, ``said`` by default: each
            prompt has answers of its own, another one each time. As ``"module:function"`` where it has its own process.
        delay_s: How long each answer takes, unless its ``Reply`` says.
        own_process: It is a process of its own; its ``Asked`` are fetched from there.
        port: Of loopback; any by default.
        remembers_keys: As a provider with idempotency keys: a key that was answered is answered the same, and not
            billed again.
    """

    def __init__(
        self,
        answer: Answering | str = said,
        *,
        delay_s: float = 0.0,
        own_process: bool = False,
        port: int = 0,
        remembers_keys: bool = False,
    ) -> None:
        if own_process and not isinstance(answer, str):
            answer = f"{answer.__module__}:{answer.__qualname__}"
        self._arguments = (answer, delay_s, remembers_keys)
        self._own_process = own_process
        self._port = port
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] = lambda: None

    def __enter__(self) -> Self:
        self._port = self._start_process() if self._own_process else self._start_thread()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it; who waits for an answer loses the connection."""
        if self._process is not None:
            with self._process:
                assert self._process.stdin is not None
                self._process.stdin.close()  # it ends with it
            self._process = None
        if self._thread is not None:
            self._stop()
            self._thread.join()
            self._thread = None

    @property
    def url(self) -> str:
        """For ``LLM(url, ...)`` and any other client: it ends with ``/v1``."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def asked(self) -> list[Asked]:
        """All requests for answers that have come, in their order, those that were refused too."""
        found: list[Asked] = pickle.loads(self._get("/asked"))
        return found

    def billed(self) -> Counter[str]:
        """How often a whole answer was made for each idempotency key."""
        return Counter(asked.key for asked in self.asked if asked.billed)

    @property
    def in_flight(self) -> int:
        """Requests that have come, and are neither answered nor given up."""
        return int(self._get("/in-flight"))

    @property
    def most_in_flight(self) -> int:
        """At one time."""
        return int(self._get("/most-in-flight"))

    def forget(self) -> None:
        """Count from nothing again."""
        self._get("/forget")

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}") as answer:
            body: bytes = answer.read()
        return body

    def _start_thread(self) -> int:
        answer, delay_s, remembers = self._arguments
        found = importable(answer) if isinstance(answer, str) else answer
        started, ports = threading.Event(), [0]

        async def live() -> None:
            server = Server(found, delay_s, remembers)
            ports[0] = await server.start(self._port)
            stopping, loop = asyncio.Event(), asyncio.get_running_loop()
            self._stop = partial(loop.call_soon_threadsafe, stopping.set)
            started.set()
            await stopping.wait()
            await server.stop()

        self._thread = threading.Thread(target=lambda: asyncio.run(live()), name="exoflow-fake-endpoint", daemon=True)
        self._thread.start()
        if not started.wait(30):
            raise RuntimeError(f"no fake endpoint came up on port {self._port}")
        return ports[0]

    def _start_process(self) -> int:
        answer, delay_s, remembers = self._arguments
        asked = json.dumps({"answer": answer, "delay_s": delay_s, "remembers": remembers, "port": self._port})
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", "exoflow.testing.endpoint_server", asked, json.dumps(sys.path)]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.strip().isdecimal():
            raise RuntimeError("the process of the fake endpoint has ended: what it printed says why")
        return int(line)
