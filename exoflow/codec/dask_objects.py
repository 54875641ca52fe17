"""Dask's objects inside values: a ``Future``, also where it stands in the graph of a persisted collection."""

from __future__ import annotations

import contextlib
from concurrent.futures import CancelledError
from typing import Any

from exoflow.errors import CodecError

FUTURE = "distributed.Future"
_GONE = ("cancelled", "lost")


def kind_of(thing: type) -> str | None:
    """See ``engines.EngineObjects``."""
    from distributed import Actor, Future

    if issubclass(thing, Actor):
        raise CodecError(
            "a distributed.Actor is lost with its worker, and nothing could restore it: declare the class with "
            "@exoflow.actor, whose state is saved, or keep it within one task"
        )
    return FUTURE if issubclass(thing, Future) else None


def changes(kind: str) -> bool:
    """See ``engines.EngineObjects``."""
    return False


def load(thing: Any) -> object:
    """See ``engines.EngineObjects``."""
    until_done(thing)
    if thing.status in _GONE:
        raise KeyError(f"the future {thing.key} is {thing.status}")
    return thing.result()


def until_done(future: Any) -> None:
    """Wait for it. What makes it may need this thread, where that is one of a Dask worker, and gets it meanwhile."""
    from distributed import rejoin, secede, wait
    from distributed.worker import thread_state

    if future.done():
        return
    is_needed = hasattr(thread_state, "key")
    if is_needed:
        secede()
    try:
        with contextlib.suppress(CancelledError):  # it is lost, which its status says
            wait([future])
    finally:
        if is_needed:
            rejoin()


def is_lost(thing: Any) -> bool:
    """See ``engines.EngineObjects``. The scheduler is asked: it tells a client only of keys that this has asked for."""
    try:
        return thing.status in _GONE or thing.status == "finished" and not any(thing.client.who_has([thing]).values())
    except (CancelledError, OSError):  # it is gone meanwhile, or the cluster
        return True


def make(kind: str, content: object) -> object:
    """See ``engines.EngineObjects``."""
    from distributed import get_client

    try:
        client = get_client()
    except ValueError as error:
        raise CodecError(f"the value holds a {kind}, and this process has no Dask client: make one") from error
    return client.scatter(content, hash=False)
