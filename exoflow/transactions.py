"""Transactional tasks: what the body writes and the marker that says so are one transaction of the user's database.

So there is never a doubt: after a crash the marker is there, with what the body returned, or nothing is.
"""

from __future__ import annotations

import functools
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from exoflow import codec
from exoflow.attempts import AttemptContext, current_attempt
from exoflow.context import idempotency_key
from exoflow.errors import CodecError, DidNotHappen, InDoubt
from exoflow.hooks import reach
from exoflow.model import Happened

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

_DATABASES = ("sqlite", "postgresql")
_SQLITE_LOCK_TIMEOUT_S = 60.0  # its own five seconds are over soon where many processes write

_engines: dict[object, Engine] = {}
"""By process and URL or function."""
_opening = threading.RLock()
_open: ContextVar[Connection | None] = ContextVar("exoflow_connection", default=None)


def transaction(engine: Engine | URL | str | Callable[[], Engine]) -> Transaction:
    """For ``@task(effect=...)``: the body's writes through ``exoflow.connection()`` happen once, for ever.

    Args:
        engine: A SQLAlchemy engine of SQLite or PostgreSQL; or its URL, or a function that returns it, which is
            called once in each process: an Engine cannot go to another one, as the executor ``processes`` needs.

    Raises:
        ImportError: SQLAlchemy is not installed.
        TypeError, ValueError: it is none of these, or an engine of another database.
    """
    return Transaction(engine)


def connection() -> Connection:
    """In a transactional task: the connection whose transaction is committed when the body returns.

    Raises:
        RuntimeError: not in such a task.
    """
    current = _open.get()
    if current is None:
        raise RuntimeError(
            "exoflow.connection() is for the body of a transactional task, in its own thread: "
            "write @task(effect=exoflow.transaction(engine))"
        )
    return current


class Transaction:
    """What ``transaction`` returns."""

    def __init__(self, source: Engine | URL | str | Callable[[], Engine]) -> None:
        sqlalchemy = _sqlalchemy()
        if isinstance(source, sqlalchemy.URL):
            source = source.render_as_string(hide_password=False)
        if isinstance(source, str):
            _check_database(sqlalchemy.make_url(source).get_backend_name())
        elif isinstance(source, sqlalchemy.Engine):
            _check_database(source.dialect.name)
        elif not callable(source) or hasattr(source, "sync_engine"):
            raise TypeError(f"exoflow.transaction({source!r}): {_WANTED}")
        self._source: Engine | str | Callable[[], Engine] = source

    @property
    def engine(self) -> Engine:
        """The engine; one in each process."""
        if not isinstance(self._source, str) and not callable(self._source):
            return self._source
        name = (os.getpid(), self._source)
        with _opening:
            if name not in _engines:
                _engines[name] = _opened(self._source)
            return _engines[name]

    def prune(self, *, older_than_s: float) -> int:
        """Delete markers that are older; how many. A run that stands on one of them must never be resumed again.

        Raises:
            ValueError: ``older_than_s`` is no length of time.
        """
        from exoflow import markers

        given: object = older_than_s
        if not isinstance(given, int | float) or math.isnan(given) or given < 0:
            raise ValueError(f"prune(older_than_s={older_than_s!r}): it must be a number of seconds, at least 0")
        return markers.prune(self.engine, time.time() - older_than_s)

    def __reduce__(self) -> tuple[Any, ...]:
        source = self._source
        if isinstance(source, str) and _in_memory(source):
            raise CodecError(f"{self!r} is in this process's memory: another process has no way to it. Give it a file")
        if not isinstance(source, str) and not callable(source):
            raise CodecError(
                f"{self!r} cannot go to another process, for an Engine cannot: give exoflow.transaction(...) the URL, "
                "or a function that returns the engine"
            )
        return transaction, (source,)

    def __repr__(self) -> str:
        shown = getattr(self._source, "__qualname__", None) or getattr(self._source, "url", self._source)
        return f"transaction({_sqlalchemy().make_url(shown) if isinstance(self._source, str) else shown!s})"


class Transacted:
    """A task's function in a transaction of its own, begun by the marker and ended by the commit."""

    def __init__(self, transaction: Transaction, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self._transaction = transaction
        self._function = function

    def __reduce__(self) -> tuple[Any, ...]:
        return Transacted, (self._transaction, self._function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from exoflow import markers

        if _open.get() is not None:
            raise RuntimeError(
                f"{self._function.__qualname__} is called in the transaction of another task: write "
                f"{self._function.__name__}.function(...) to make it a part of that one"
            )
        attempt, key = current_attempt(), idempotency_key()
        if attempt is not None:
            attempt.rolled_back = True  # as long as no COMMIT is on its way
        reach("transaction.begin")
        try:
            begun = markers.begin(self._transaction.engine, key)
        except InDoubt:
            _may_have_happened(attempt)
            raise
        if isinstance(begun, bytes):
            _may_have_happened(attempt)
            return codec.decode(codec.from_bytes(begun))
        with markers.closing(begun):
            reach("transaction.marked")
            result = self._result(begun, key, attempt, args, kwargs)
        reach("transaction.committed")
        return result

    def _result(
        self, connection: Connection, key: str, attempt: AttemptContext | None, args: Any, kwargs: Mapping[str, Any]
    ) -> object:
        """Run the body, and commit."""
        from exoflow import markers

        ours = _Ours(connection, self._function.__qualname__)
        token = _open.set(connection)
        try:
            result = self._function(*args, **kwargs)
        finally:
            _open.reset(token)
        reach("transaction.ran")
        ours.check()
        markers.fill(connection, key, self._encoded(result, attempt))
        reach("transaction.commit")
        ours.commit(attempt)
        return result

    def _encoded(self, result: object, attempt: AttemptContext | None) -> bytes:
        """The result as the marker keeps it."""
        encoded = codec.encode_result(result, task=self._function.__qualname__)
        if encoded.refs or (attempt is not None and attempt.puts):
            raise CodecError(
                f"{self._function.__qualname__} returned a Ref, and its marker keeps what a transaction returned: "
                "return the value itself, or a row's id"
            )
        return codec.to_bytes(encoded)

    def probe(self, key: str, /, *_args: object, **_kwargs: object) -> Happened | DidNotHappen:
        """Whether it happened; what is still on its way will meet the next attempt at the marker."""
        from exoflow import markers

        stored = markers.find(self._transaction.engine, key)
        return DidNotHappen() if stored is None else Happened(codec.decode(codec.from_bytes(stored)))


class _Ours:
    """The transaction of one attempt, that its body must not end."""

    def __init__(self, connection: Connection, task: str) -> None:
        from sqlalchemy import event

        self._connection = connection
        self._task = task
        self._transaction = connection.get_transaction()
        self._is_over = False
        event.listen(connection, "commit", self._refuse)

    def _refuse(self, _: Connection) -> None:
        if not self._is_over:
            raise RuntimeError(self._message("commits"))

    def _message(self, does: str) -> str:
        return (
            f"the body of {self._task} {does} the transaction that exoflow.connection() is in: that is done when the "
            "body has returned. For a part that may fail, write `with exoflow.connection().begin_nested():`"
        )

    def check(self) -> None:
        """Refuse a body that has ended the transaction, or has swallowed that it must not."""
        current = self._connection.get_transaction()
        if current is None or current is not self._transaction or not current.is_active:
            raise RuntimeError(self._message("ends"))

    def commit(self, attempt: AttemptContext | None) -> None:
        """Commit. Only a connection that is lost meanwhile leaves it open whether that was done."""
        from sqlalchemy.exc import DBAPIError

        self._is_over = True
        _may_have_happened(attempt)
        try:
            self._connection.commit()
        except DBAPIError as error:
            if attempt is not None:
                attempt.rolled_back = not error.connection_invalidated  # the database has answered: no
            raise


def _may_have_happened(attempt: AttemptContext | None) -> None:
    if attempt is not None:
        attempt.rolled_back = False


_WANTED = (
    "give it a SQLAlchemy Engine of SQLite or PostgreSQL, its URL, or a function that returns it. For an AsyncEngine: "
    "one made by create_engine, and a task that is no coroutine"
)


def _sqlalchemy() -> Any:
    try:
        import sqlalchemy
    except ImportError as error:
        raise ImportError("exoflow.transaction needs SQLAlchemy 2: pip install 'exoflow[sql]'") from error
    return sqlalchemy


def _check_database(name: str) -> None:
    if name not in _DATABASES:
        raise ValueError(f"exoflow.transaction is for {' and '.join(_DATABASES)}: it was not tried with {name}")


def _opened(source: str | Callable[[], Engine]) -> Engine:
    sqlalchemy = _sqlalchemy()
    if not isinstance(source, str):
        given: object = source()
        if not isinstance(given, sqlalchemy.Engine):
            raise TypeError(f"{source!r}, given to exoflow.transaction, returned {given!r}: {_WANTED}")
        engine: Engine = given
        _check_database(engine.dialect.name)
        return engine
    url = sqlalchemy.make_url(source)
    sets_timeout = url.get_backend_name() == "sqlite" and "timeout" not in url.query
    arguments = {"timeout": _SQLITE_LOCK_TIMEOUT_S} if sets_timeout else {}
    created: Engine = sqlalchemy.create_engine(url, connect_args=arguments)
    return created


def _in_memory(url: str) -> bool:
    parsed = _sqlalchemy().make_url(url)
    return parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:")


__all__ = ["Transacted", "Transaction", "connection", "transaction"]
