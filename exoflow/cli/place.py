"""The store that a command is about."""

from __future__ import annotations

import os

from exoflow.catalogue import Catalogue
from exoflow.cli.terminal import Terminal
from exoflow.cli.words import count
from exoflow.protocols import Store
from exoflow.storage import open_store


def store_of(url: str | None) -> Store:
    """The store at a url, or the default one."""
    return open_store(url or os.environ.get("EXOFLOW_STORE") or "./.exoflow")


def catalogue_of(store: Store, terminal: Terminal) -> Catalogue:
    """The store's catalogue, up to date."""
    catalogue = Catalogue(store)
    with terminal.waiting(f"reading the journals in {store.url}"):
        catalogue.refresh()
    return catalogue


def runs_in(number: int, store: Store) -> str:
    return f"{count(number, 'run')} in {store.url}"
