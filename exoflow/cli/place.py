"""The store that a command is about."""

from __future__ import annotations

import os
import shlex

from exoflow import settings
from exoflow.catalogue import Catalogue
from exoflow.cli.failures import WrongUsage
from exoflow.cli.terminal import Terminal
from exoflow.cli.words import count
from exoflow.errors import UnsupportedStore
from exoflow.protocols import Store
from exoflow.storage import LocalStore


def store_of(url: str | None) -> Store:
    """The store at a url, or the default one."""
    try:
        store = settings.store_of(url)
    except (ValueError, UnsupportedStore) as error:  # of [tool.exoflow] in pyproject.toml; a scheme that is no store
        raise WrongUsage(str(error)) from error
    if isinstance(store, LocalStore) and os.path.exists(store.root) and not os.path.isdir(store.root):
        raise WrongUsage(f"{store.root} is a file: a store is a folder, or the name of one that is to be made")
    return store


def catalogue_of(store: Store, terminal: Terminal) -> Catalogue:
    """The store's catalogue, up to date."""
    catalogue = Catalogue(store)
    with terminal.waiting(f"reading the journals in {store.url}"):
        catalogue.refresh()
    return catalogue


def runs_in(number: int, store: Store) -> str:
    """How many runs, and in which store."""
    there = not isinstance(store, LocalStore) or os.path.isdir(store.root)
    return f"{count(number, 'run')} in {store.url}{'' if there else ', which does not exist yet'}"


def resolve_command(run_id: str, call: str, store: str | None) -> str:
    """What to type, and to add an answer to, where an effect is in doubt."""
    return shlex.join(["exoflow", "resolve", run_id, call, *_given(store=store)])


def resume_command(run_id: str, store: str | None, executor: str | None = None) -> str:
    """What to type to go on with a run, with the options that were given."""
    return shlex.join(["exoflow", "resume", run_id, *_given(store=store, executor=executor)])


def _given(**options: str | None) -> list[str]:
    return [word for name, value in options.items() if value for word in (f"--{name}", value)]
