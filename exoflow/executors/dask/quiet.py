"""What Dask logs in this process of a worker that died in a cluster of our own: the executor tells it, in one line."""

from __future__ import annotations

import logging

_BEGINNINGS = ("Restarting worker", "Worker process still alive", "Removing worker", "broadcast to")
_LOGGERS = ("distributed.nanny", "distributed.scheduler")


def begin() -> None:
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_is_news)


def end() -> None:
    for name in _LOGGERS:
        logging.getLogger(name).removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_BEGINNINGS)
