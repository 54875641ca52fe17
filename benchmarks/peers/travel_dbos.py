"""The travel agency on DBOS: the trip is a workflow, each of its calls a step, the key of the request its id."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from dbos import DBOS, SetWorkflowID
from travel_front import parse, serve

import travel_desk as desk  # isort: skip  # on the path since the line above
from travel_tables import reader, writer
from travel_trip import Steps, Trip, in_turn


def key() -> str:
    return f"{DBOS.workflow_id}/{DBOS.step_id}"


@DBOS.step()
def identify(guest: str, password: str) -> bool:
    with reader().connect() as connection:
        return desk.identify(connection, guest, password)


@DBOS.step()
def search(kind: str, city: str) -> list[str]:
    with reader().connect() as connection:
        return desk.search(connection, kind, city)


@DBOS.step()
def acquire(kind: str, items: list[str]) -> desk.Acquired | None:
    with writer().begin() as connection:
        return desk.acquire(connection, key(), kind, items)


@DBOS.step()
def release(acquired: desk.Acquired) -> None:
    with writer().begin() as connection:
        desk.release(connection, acquired.key)


@DBOS.step()
def reserve(guest: str, acquired: desk.Acquired) -> desk.Booked:
    with writer().begin() as connection:
        return desk.reserve(connection, key(), guest, acquired)


@DBOS.step()
def order(guest: str, room: desk.Booked, seat: desk.Booked) -> desk.Receipt:
    with writer().begin() as connection:
        return desk.order(connection, key(), guest, room, seat)


body = in_turn(Steps(identify, search, acquire, reserve, order, release))


@DBOS.workflow()
def trip(guest: str, password: str, city: str) -> Trip:
    return body(guest, password, city)


def launch(url: str) -> None:
    """Start DBOS on its own database; on SQLite without an fsync for each commit, which is faster than its default."""
    config: dict[str, Any] = {
        "name": "travel",
        "system_database_url": url,
        "log_level": "ERROR",
        "application_version": "1",
        "executor_id": "local",
    }
    if url.startswith("sqlite"):
        config["system_database_engine"] = engine = sqlalchemy.create_engine(url, pool_size=20)

        @sqlalchemy.event.listens_for(engine, "connect")
        def set_pragmas(connection: Any, _: object) -> None:
            connection.isolation_level = "IMMEDIATE"
            for pragma in ("busy_timeout=30000", "foreign_keys=ON", "journal_mode=WAL", "synchronous=NORMAL"):
                connection.execute(f"PRAGMA {pragma}")

    DBOS(config=config)
    DBOS.launch()


def ask(run_id: str, guest: str, password: str, city: str) -> Trip:
    with SetWorkflowID(run_id):
        return trip(guest, password, city)


words = parse()
launch(words.system)
serve(ask, words.port, words.threads)
