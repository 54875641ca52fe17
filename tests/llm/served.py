"""A real server on loopback, in a thread, around an engine that the test can look into."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
from openai import AsyncOpenAI

from exoflow.http.server import Server, bind, listen
from exoflow.http.tokens import Tokens
from exoflow.llm import Engine
from exoflow.llm.server.app import Service, make_app
from exoflow.llm.server.library import Library

BASE = "tiny"


class Served:
    def __init__(self, engine: Engine, folder: Path | None = None, named: Any = None, **settings: Any) -> None:
        self.engine = engine
        self.library = Library(engine, BASE, folder=folder, named=named)
        self.service = Service(engine, BASE, self.library, **settings)
        self.server = Server(make_app(self.service), self.service.drain, "answers", grace_s=20, tell=lambda line: None)
        bound = bind("127.0.0.1", 0)
        self.url = listen(bound)
        self._thread = threading.Thread(target=lambda: asyncio.run(self.server.serve([bound])))
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
            if not busy and stats.free_pages + stats.reclaimable_pages == stats.pages and not self.service._open:
                return

    def close(self) -> None:
        self.server.should_exit = True
        self._thread.join()
        self.library.close()


def tokens(**secrets: str) -> Tokens:
    return Tokens(secrets)
