"""What happens in a run, as server-sent events: only what is durable."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

from exoflow.web.gateway import Gateway
from exoflow.web.standing import happenings

LOOK_S = (0.05, 1.0)
"""Between two looks at a run in which nothing happens: at first, and at most."""
_COMMENT_LOOKS = 15
"""So many looks in vain, and a comment tells proxies that the stream lives."""


async def stream(gateway: Gateway, run_id: str, after: int) -> AsyncIterator[bytes]:
    """The events behind number ``after``, until the run has ended, or nobody works on it and nobody will by itself."""
    pause_s, most_s = LOOK_S
    vain = 0
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
        pause_s, vain = (LOOK_S[0], 0) if told else (min(2 * pause_s, most_s), vain + 1)
        if vain and vain % _COMMENT_LOOKS == 0:
            yield b": nothing new\n\n"
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(gateway.stopping.wait(), pause_s)
