"""The markers in the user's database: one row for each transaction that happened there, with what its task returned.

Imported where an engine is used, and not before: it needs SQLAlchemy.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Column, Connection, Engine, Float, LargeBinary, MetaData, Row, Table, Text, bindparam, inspect
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.schema import CreateTable

from exoflow.errors import ExoFlowError, InDoubt

TABLE = Table(
    "exoflow_marker",
    MetaData(),
    Column("key", Text, primary_key=True),
    Column("value", LargeBinary),  # encoded; NULL while the body runs, and so for nobody else to see
    Column("marked_s", Float, nullable=False),  # seconds since the epoch
)
_INSERT = TABLE.insert()
_FILL = TABLE.update().where(TABLE.c.key == bindparam("of")).values(value=bindparam("what"))
_FIND = TABLE.select().where(TABLE.c.key == bindparam("of"))


def begin(engine: Engine, key: str) -> Connection | bytes:
    """A connection whose open transaction holds the marker; or what is stored, if that transaction happened before.

    Waits for a transaction that has the same marker and is still open: of the two one is rolled back.

    Raises:
        ExoFlowError: there is no table, and it cannot be made; or the engine commits each statement.
        InDoubt: the marker is there, and has no value.
        sqlalchemy.exc.SQLAlchemyError: the database failed. Nothing is left open.
    """
    for last in (False, False, True):
        try:
            return _marked(engine, key)
        except DBAPIError as error:
            is_stale = error.connection_invalidated  # the pool may have kept it over a restart of the database
            if _lacks_table(error):
                _create_missing(engine)
            elif not is_stale and (stored := find(engine, key)) is not None:
                return stored
            if last or not (is_stale or _lacks_table(error)):
                raise
    raise AssertionError("the last try returns or raises")


def _marked(engine: Engine, key: str) -> Connection:
    connection = engine.connect()
    try:
        connection.begin()
        raw = connection.connection.dbapi_connection
        if getattr(raw, "autocommit", False) is True:
            raise ExoFlowError(
                f"{engine!r} commits each statement by itself (AUTOCOMMIT), so that nothing is a transaction: "
                "give exoflow.transaction(...) an engine with another isolation level"
            )
        if engine.dialect.name == "sqlite" and not getattr(raw, "in_transaction", True):
            # The write lock at once, however the driver thinks of transactions: it never has to be got in between.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        connection.execute(_INSERT, {"key": key, "marked_s": time.time()})
    except BaseException:
        connection.close()  # which rolls back
        raise
    return connection


@contextmanager
def closing(connection: Connection) -> Iterator[None]:
    """A block after which the connection is closed; an error in it rolls back, whatever was done to the transaction."""
    try:
        yield
    except BaseException:
        if not connection.closed and not connection.invalidated:
            # After a COMMIT that failed SQLAlchemy thinks it over, and would hand it open to whoever connects next.
            try:
                connection.connection.rollback()
            except connection.dialect.loaded_dbapi.Error:
                connection.invalidate()
        raise
    finally:
        connection.close()


def fill(connection: Connection, key: str, value: bytes) -> None:
    """Store in the marker what the body returned."""
    if connection.execute(_FILL, {"of": key, "what": value}).rowcount != 1:
        raise RuntimeError(f"the marker of {key} is gone from {TABLE.name}: the body has deleted it, or rolled back")


def find(engine: Engine, key: str) -> bytes | None:
    """What is stored for a transaction that happened; None: no such one was committed.

    Raises:
        InDoubt: the marker has no value.
        sqlalchemy.exc.SQLAlchemyError: the database failed.
    """
    try:
        row = _found(engine, key)
    except DBAPIError as error:
        if _lacks_table(error) and not exists(engine):
            return None
        row = _found(engine, key)
    if row is not None and row.value is None:
        raise InDoubt(
            f"the marker of {key} in {TABLE.name} has no value: the task's body has sent a COMMIT of its own, and died "
            "before its end. Look at what it wrote; then delete the marker, so that the task runs again"
        )
    return None if row is None else bytes(row.value)


def _found(engine: Engine, key: str) -> Row[Any] | None:
    with engine.connect() as connection:
        return connection.execute(_FIND, {"of": key}).first()


def _lacks_table(error: DBAPIError) -> bool:
    """Whether the database may have said that there is no such table."""
    return isinstance(error, ProgrammingError) or "no such table" in str(error.orig)


def exists(engine: Engine) -> bool:
    """Whether there is the table."""
    return inspect(engine).has_table(TABLE.name)


def _create_missing(engine: Engine) -> None:
    """Make the table if there is none. Processes that race for it all win."""
    if exists(engine):
        return
    try:
        with engine.begin() as connection:
            connection.execute(CreateTable(TABLE, if_not_exists=True))
    except DBAPIError as error:
        if not exists(engine):
            sql = str(CreateTable(TABLE, if_not_exists=True).compile(dialect=engine.dialect)).strip()
            raise ExoFlowError(
                f"the table {TABLE.name}, where transactional tasks mark what has happened, could not be made: "
                f"{error.orig}. Have somebody run this who may:\n{sql};\n"
                f"The tasks' own user needs SELECT, INSERT, UPDATE and DELETE on it"
            ) from error


def prune(engine: Engine, before_s: float) -> int:
    """Delete what was marked before that; how many that were."""
    if not exists(engine):
        return 0
    with engine.begin() as connection:
        return connection.execute(TABLE.delete().where(TABLE.c.marked_s < before_s)).rowcount
