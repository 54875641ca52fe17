"""Dask's objects inside values: a ``Future``, also where it stands in the graph of a persisted collection."""

from __future__ import annotations

from typing import Any

from exoflow.errors import CodecError

FUTURE = "distributed.Future"


def kind_of(thing: type) -> str | None:
    """See ``engines.EngineObjects``."""
    from distributed import Future

    return FUTURE if issubclass(thing, Future) else None


def changes(kind: str) -> bool:
    """See ``engines.EngineObjects``."""
    return False


def load(thing: Any) -> object:
    """See ``engines.EngineObjects``."""
    if is_lost(thing):
        raise KeyError(f"the future {thing.key} is {thing.status}")
    return thing.result()


def is_lost(thing: Any) -> bool:
    """See ``engines.EngineObjects``."""
    return thing.status in ("cancelled", "lost")


def make(kind: str, content: object) -> object:
    """See ``engines.EngineObjects``."""
    from distributed import get_client

    try:
        client = get_client()
    except ValueError as error:
        raise CodecError(f"the value holds a {kind}, and this process has no Dask client: make one") from error
    return client.scatter(content, hash=False)
