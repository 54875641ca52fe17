"""The sources of tasks, kept in the store so that a later change can be shown."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from exoflow import codec
from exoflow.driver.identity import code_name
from exoflow.errors import StorageError
from exoflow.protocols import Store

logger = logging.getLogger(__name__)


class Sources:
    """Those that this process has kept in a store. Best effort, each once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: set[bytes] = set()

    def keep(self, code: bytes, function: Callable[..., Any]) -> None:
        """Keep the source of a task's code; a thread writes it."""
        if code in self._kept or not code:
            return
        self._kept.add(code)
        source = codec.source_of(function)
        if source:
            threading.Thread(
                target=self._write, args=(code_name(code), source), name="exoflow-source", daemon=True
            ).start()

    def _write(self, name: str, source: str) -> None:
        try:
            self._store.create(name, source.encode(errors="surrogatepass"))
        except StorageError as error:
            logger.debug("the source %s was not kept: %s", name, error)
