"""Which store and which executor a process uses where none is named, and the ones that are open."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Hashable
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import TypedDict, cast

from exoflow.codec import Encoded, Live
from exoflow.errors import ExecutorError
from exoflow.model import Held, Stored
from exoflow.protocols import Executor, Store, place_of

DEFAULT_STORE = "./.exoflow"
DEFAULT_EXECUTOR = "local"

THROUGH_HERE_MAX_BYTES = 1 << 20
"""Of a value that goes from one cluster to another: what is larger goes by way of the store, which the value needs
anyway to be durable, and costs this process neither memory nor network."""

_STORES_MAX = 256

StoreSpec = str | os.PathLike[str] | Store
ExecutorSpec = str | Executor


class _Settings(TypedDict, total=False):
    store: StoreSpec
    executor: ExecutorSpec


_configured: _Settings = {}
_lock = threading.Lock()


def configure(*, store: StoreSpec | None = None, executor: ExecutorSpec | None = None) -> None:
    """Set what this process uses where a run names nothing else; what is not given stays as it was.

    Before it come ``flow.options(...)`` and ``@flow(executor=...)``; after it the variables EXOFLOW_STORE and
    EXOFLOW_EXECUTOR, then ``[tool.exoflow]`` in a pyproject.toml here or above, then ``./.exoflow`` and ``"local"``.

    Raises:
        UnsupportedStore: the store cannot be one.
        ExecutorError: there is no such executor.
    """
    if store is not None:
        _configured["store"] = open_store(store)
    if executor is not None:
        _check_executor(executor)
        _configured["executor"] = executor


def store_of(spec: StoreSpec | None = None) -> Store:
    """The store that is meant; ``None``: the default one.

    Raises:
        UnsupportedStore: it cannot be a store.
    """
    if spec is not None:
        return open_store(spec)
    found = _configured.get("store") or os.environ.get("EXOFLOW_STORE") or _project().get("store") or DEFAULT_STORE
    return open_store(found)


def executor_of(spec: ExecutorSpec | None = None, cwd: str | None = None) -> ExecutorSpec:
    """The executor that is meant; ``None``: the default one. ``cwd``: for who has asked the system already."""
    return (
        spec
        or _configured.get("executor")
        or os.environ.get("EXOFLOW_EXECUTOR")
        or _project_at(cwd or os.getcwd()).get("executor")
        or DEFAULT_EXECUTOR
    )


def open_store(spec: StoreSpec) -> Store:
    """A store by its url or path, as seen from here.

    Raises:
        TypeError: it is neither, nor a store.
        UnsupportedStore: it cannot be a store.
    """
    if not isinstance(spec, str):
        if callable(getattr(spec, "create", None)):
            return cast(Store, spec)
        if not isinstance(spec, os.PathLike):
            raise TypeError(f"store={spec!r} must be a path, a url, or a Store")
    return _opened(os.fspath(spec), os.getcwd())


@lru_cache(_STORES_MAX)
def _opened(url: str, _cwd: str) -> Store:
    from exoflow import storage

    return storage.open_store(url)


class Executors:
    """The executors that work for one store, each opened when it is first asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: dict[str, Executor] = {}
        self._lock = threading.Lock()

    def __call__(self, spec: ExecutorSpec) -> Executor:
        """The executor of this name.

        Raises:
            ExecutorError: there is none, or it cannot work for this store.
        """
        if not isinstance(spec, str):
            return spec
        executor = self._open.get(spec)
        if executor is None:
            with self._lock:
                executor = self._open.get(spec) or self._opened(spec)
                self._open[spec] = executor
        return executor

    def _opened(self, spec: str) -> Executor:
        from exoflow.executors import open_executor

        executor = open_executor(spec, store=self._store, elsewhere=self._fetch)
        if not self._store.shared and executor.name != "local":
            executor.close()
            raise ExecutorError(
                f"executor={spec!r} has other processes, and the store {self._store.url} is this one's alone: use a "
                "path as the store, or executor='local'"
            )
        return executor

    def _fetch(self, value: Held, name: str | None) -> Encoded | Live | Stored:
        """Get a value for another executor; a large one from another cluster by way of the store, under the name."""
        if isinstance(value.handle, Encoded):
            return value.handle  # the driver's own: the result of a child flow
        for executor in list(self._open.values()):
            if executor.name == value.executor:
                large = not value.size or value.size > THROUGH_HERE_MAX_BYTES
                if name is not None and executor.remote and large:
                    return _saved(executor, value, name)
                found = executor.fetch(value)
                assert isinstance(found, Encoded | Live)
                return found
        raise KeyError(f"no executor {value.executor!r} is open here")

    def close(self) -> None:
        """End their workers."""
        with self._lock:
            executors, self._open = self._open, {}
        for executor in executors.values():
            executor.close()


def _saved(executor: Executor, value: Held, name: str) -> Stored:
    saved: SimpleQueue[Stored | BaseException] = SimpleQueue()
    executor.save(value, name, saved.put)
    found = saved.get()
    if isinstance(found, BaseException):
        raise found
    return found


_executors: dict[Hashable, Executors] = {}


def executors_of(store: Store) -> Executors:
    """The executors of a store in this process."""
    place = place_of(store)
    found = _executors.get(place)
    if found is None:
        with _lock:
            found = _executors.setdefault(place, Executors(store))
    return found


@atexit.register
def _close() -> None:
    for executors in list(_executors.values()):
        executors.close()


def _check_executor(spec: ExecutorSpec) -> None:
    """Whether there is such an executor. It is not opened: it works for one store, and none is known yet."""
    if isinstance(spec, str):
        from exoflow.executors import open_executor

        open_executor(spec).close()
    elif not callable(getattr(spec, "start", None)):
        raise TypeError(f"executor={spec!r} must be a name, as 'local' or 'processes', or an Executor")


def _project() -> _Settings:
    return _project_at(os.getcwd())


@lru_cache(_STORES_MAX)
def _project_at(cwd: str) -> _Settings:
    """``[tool.exoflow]`` of the nearest pyproject.toml that has it; a relative store lies beside that file.

    Raises:
        ValueError: something else stands there.
    """
    for folder in [Path(cwd), *Path(cwd).parents]:
        path = folder / "pyproject.toml"
        found = _read_project(path) if path.is_file() else None
        if found:
            return found
    return {}


def _read_project(path: Path) -> _Settings:
    import tomllib

    table = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("exoflow", {})
    found: _Settings = {}
    for name, value in table.items():
        if name not in ("store", "executor") or not isinstance(value, str) or not value:
            raise ValueError(
                f"{path}: [tool.exoflow] may say store = '...' and executor = '...', not {name} = {value!r}"
            )
    if "store" in table:
        store = table["store"]
        found["store"] = store if "://" in store else os.path.join(path.parent, store)
    if "executor" in table:
        found["executor"] = table["executor"]
    return found
