"""What happens in a run, as server-sent events: only what is durable."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from exoflow.journal.numbered import in_bucket
from exoflow.web.elsewhere import Waiting
from exoflow.web.gateway import Gateway
from exoflow.web.standing import happenings

LOOK_S = (0.05, 1.0)
"""Between two looks at a run in which nothing happens: at first, and at most."""
COMMENT_S = 15.0
"""So long without a word, and a comment tells proxies that the stream lives."""


async def stream(gateway: Gateway, run_id: str, after: int) -> AsyncIterator[bytes]:
    """The events behind number ``after``, until the run has ended, or nobody works on it and nobody will by itself."""
    pause_s, most_s = LOOK_S
    loop = asyncio.get_running_loop()
    said_s = loop.time()
    news: Waiting | None = None
    try:
        while True:
            found = await asyncio.to_thread(gateway.runtime.journal.find, run_id)
            told = False
            for each in happenings(found.records, after):
                after, told = each.number, True
                data = json.dumps(each.data, ensure_ascii=False, separators=(",", ":"))
                yield f"id: {each.number}\nevent: {each.what}\ndata: {data}\n\n".encode()
            if found.state in ("ended", "absent") or gateway.stopping.is_set():
                return
            if found.history.in_doubt and found.state == "broken_off":
                yield b"event: in_doubt\ndata: {}\n\n"
                return
            if told:
                pause_s, said_s = LOOK_S[0], loop.time()
            if in_bucket(gateway.store) and found.state == "live" and found.claim is not None:
                if news is not None and news.journal == found.claim.journal:
                    while not await _comes(gateway, news.come, COMMENT_S):
                        yield b": nothing new\n\n"
                news = await gateway.elsewhere.news(found.claim.journal, found.claim.run, None)
                continue
            pause_s = min(2 * pause_s, most_s)
            if loop.time() > said_s + COMMENT_S:
                said_s = loop.time()
                yield b": nothing new\n\n"
            await _comes(gateway, loop.create_future(), pause_s)
    finally:
        if news is not None:
            news.come.cancel()


async def _comes(gateway: Gateway, news: asyncio.Future[None], most_s: float) -> bool:
    """Whether there is a reason to look again: news, or that this process stops."""
    stopping = asyncio.create_task(gateway.stopping.wait())
    either: list[asyncio.Future[Any]] = [news, stopping]
    done, _ = await asyncio.wait(either, timeout=most_s, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    return bool(done)
