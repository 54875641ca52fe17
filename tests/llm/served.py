"""A real server on loopback, in a thread, around an engine that the test can look into."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any, Self

import httpx
from openai import AsyncOpenAI

from exoflow.http.server import Server, bind, listen
from exoflow.http.tokens import Tokens
from exoflow.llm import Engine
from exoflow.llm.engine.queues import Fcfs
from exoflow.llm.engine.request import Request
from exoflow.llm.server.app import Service, make_app
from exoflow.llm.server.library import Library

BASE = "tiny"


class Gate(Fcfs):
    """A queue that can stop the engine, so that what happens meanwhile surely happens meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self._steps_left: int | None = None
        self._opened = threading.Event()

    def close_after(self, steps: int) -> None:
        """So many more, or somewhat fewer."""
        self._opened.clear()
        self._steps_left = steps

    def open(self) -> None:
        self._steps_left = None
        self._opened.set()

    def peek(self, now_s: float) -> Request | None:
        if self._steps_left is not None:
            if self._steps_left <= 0:
                self._opened.wait()
            else:
                self._steps_left -= 1
        return super().peek(now_s)


class Served:
    def __init__(self, engine: Engine, folder: Path | None = None, gate: Gate | None = None, **settings: Any) -> None:
        self.engine = engine
        self.gate = gate or Gate()
        self.library = Library(engine, BASE, folder=folder, named=settings.pop("named", None))
        self.service = Service(engine, BASE, self.library, **settings)
        self.server = Server(make_app(self.service), self.service.drain, "answers", grace_s=20, tell=lambda line: None)
        bound = bind("127.0.0.1", 0)
        self.url = listen(bound)
        self._thread = threading.Thread(target=lambda: asyncio.run(self.server.serve([bound])), daemon=True)
        self._thread.start()

    def openai(self, key: str = "none") -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=60)

    async def is_idle(self) -> None:
        """Returns when the engine has nothing to do, and nobody owns pages but what may be dropped."""
        while True:
            stats = await asyncio.to_thread(self.engine.stats)
            busy = sum(map(sum, (stats.running.values(), stats.waiting.values(), stats.loading.values())))
            if (
                not busy
                and stats.free_pages + stats.reclaimable_pages == stats.pages
                and not self.service.under_way.generations
            ):
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.gate.open()
        self.server.should_exit = True
        self._thread.join()
        self.library.close()


def tokens(**secrets: str) -> Tokens:
    return Tokens(secrets)
