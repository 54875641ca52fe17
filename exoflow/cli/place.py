"""The store that a command is about."""

from __future__ import annotations

from exoflow import settings
from exoflow.catalogue import Catalogue
from exoflow.cli.failures import WrongUsage
from exoflow.cli.terminal import Terminal
from exoflow.cli.words import count
from exoflow.protocols import Store


def store_of(url: str | None) -> Store:
    """The store at a url, or the default one."""
    try:
        return settings.store_of(url)
    except ValueError as error:  # of [tool.exoflow] in pyproject.toml
        raise WrongUsage(str(error)) from error


def catalogue_of(store: Store, terminal: Terminal) -> Catalogue:
    """The store's catalogue, up to date."""
    catalogue = Catalogue(store)
    with terminal.waiting(f"reading the journals in {store.url}"):
        catalogue.refresh()
    return catalogue


def runs_in(number: int, store: Store) -> str:
    return f"{count(number, 'run')} in {store.url}"
