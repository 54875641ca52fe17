"""Connections to endpoints: they live with the event loop on which they were made, and end with it."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
from weakref import WeakKeyDictionary

import aiohttp

_KEPT_S = 30.0
"""Idle connections: less than the 60 s of most servers, so that none is used that the other side has just closed."""

_sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, aiohttp.ClientSession] = WeakKeyDictionary()
_keepers: dict[asyncio.Task[None], asyncio.AbstractEventLoop] = {}
_PATIENCE_S = 1.0


def session() -> aiohttp.ClientSession:
    """The one of the running loop."""
    loop = asyncio.get_running_loop()
    found = _sessions.get(loop)
    if found is None or found.closed:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEPT_S)  # whoever calls limits itself
        found = _sessions[loop] = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        # Loops cancel their tasks before they close. In a context of its own: it is no strand of a flow's.
        keeper = loop.create_task(_keep(found), context=contextvars.Context())
        _keepers[keeper] = loop
        keeper.add_done_callback(_keepers.pop)
    return found


@atexit.register  # behind the executors' own, and so before it: their loops still run
def _close() -> None:
    for keeper, loop in list(_keepers.items()):
        if loop.is_running():
            with contextlib.suppress(TimeoutError, RuntimeError):  # the program ends in any case
                asyncio.run_coroutine_threadsafe(_ended(keeper), loop).result(_PATIENCE_S)


async def _ended(keeper: asyncio.Task[None]) -> None:
    keeper.cancel()
    await asyncio.wait([keeper])


async def _keep(session: aiohttp.ClientSession) -> None:
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await session.close()
