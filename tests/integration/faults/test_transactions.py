"""Transactional tasks on real databases: the process is killed at each step, the database crashes, zombies commit."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import exoflow
from exoflow import flow, hooks, task
from exoflow.markers import TABLE

Place = Any
Postgres = Any

SHOP = """
import json, os, signal, sys
import sqlalchemy as sa
import exoflow
from exoflow import flow, hooks, task

kill, _, count = os.environ.get("KILL", "").partition(":")
left = int(count or 1)


def strike(point):
    global left
    if point == kill and not os.path.exists("killed"):
        left -= 1
        if left == 0:
            open("killed", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)


hooks._armed = strike


@task
def choose(n):
    return f"{n}-{os.urandom(4).hex()}"


@task(effect=exoflow.transaction(os.environ["SHOP"]))
def order(choice):
    receipt = os.urandom(4).hex()
    values = {"key": exoflow.idempotency_key(), "choice": choice, "receipt": receipt}
    exoflow.connection().execute(sa.text("INSERT INTO orders VALUES (:key, :choice, :receipt)"), values)
    return [choice, receipt]


@flow
def buy(n):
    choice = choose(n)
    first = order(choice)
    return [first, order(first[1] + choice)]


if __name__ == "__main__":
    common = {"store": "store", "executor": os.environ["EXECUTOR"]}
    runs = [buy.options(run_id=f"buy-{n}", **common).start(n) for n in range(int(sys.argv[1]))]
    print(json.dumps([run.result() for run in runs]), flush=True)
"""

STEPS = [
    "transaction.begin",
    "transaction.marked",
    "transaction.ran",
    "transaction.commit",
    "transaction.committed",
    "transaction.begin:2",  # the first one's record is durable
]


@pytest.fixture
def engine(database: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database, connect_args={"timeout": 60} if database.startswith("sqlite") else {})
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE orders (id TEXT, choice TEXT, receipt TEXT)"))
    yield engine
    engine.dispose()


def orders(engine: sa.Engine) -> list[list[str]]:
    with engine.connect() as connection:
        return [list(row) for row in connection.execute(sa.text("SELECT choice, receipt FROM orders ORDER BY id"))]


def markers(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(TABLE)).scalar_one()


def check(out: str, engine: sa.Engine, runs: int) -> None:
    """Each run made its two orders, once, and its result says what is in the table."""
    results = json.loads(out)
    assert len(results) == runs
    assert sorted(orders(engine)) == sorted(row for result in results for row in result)
    assert all(second[0] == first[1] + first[0] for first, second in results)
    assert markers(engine) == 2 * runs


@pytest.mark.parametrize("executor", ["local", pytest.param("processes", marks=pytest.mark.big)])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_of_the_transaction_it_happens_once(
    place: Callable[..., Place], database: str, engine: sa.Engine, step: str, executor: str
) -> None:
    here = place("here", SHOP)
    environment = {"SHOP": database, "KILL": step, "EXECUTOR": executor}
    life = here.live("1", **environment)
    assert (here.folder / "killed").exists()
    assert life.killed == (executor == "local"), life.err  # elsewhere it was a worker, and the run went on
    if life.killed:
        assert len(orders(engine)) == (step in ("transaction.committed", "transaction.begin:2"))
        life = here.live("1", **environment)
    assert life.code == 0, life.err
    check(life.out, engine, 1)


@pytest.mark.parametrize("executor", ["local", "processes"])
def test_thirty_flows_at_once(place: Callable[..., Place], database: str, engine: sa.Engine, executor: str) -> None:
    life = place("here", SHOP).live("30", SHOP=database, EXECUTOR=executor)
    assert life.code == 0, life.err
    check(life.out, engine, 30)


def test_thirty_flows_killed_in_the_middle_go_on(place: Callable[..., Place], database: str, engine: sa.Engine) -> None:
    here = place("here", SHOP)
    environment = {"SHOP": database, "KILL": "transaction.commit:20", "EXECUTOR": "local"}
    assert here.live("30", **environment).killed
    life = here.live("30", **environment)
    assert life.code == 0, life.err
    check(life.out, engine, 30)


def test_an_engine_does_not_go_to_a_worker_process_and_the_run_says_so(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/shop.db")

    @task(effect=exoflow.transaction(engine), executor="processes")
    def order() -> int:
        return 1

    @flow
    def buy() -> int:
        return order()

    with pytest.raises(exoflow.CodecError, match="cannot go to another process, for an Engine cannot"):
        buy.options(store=str(tmp_path / "store")).run()
    engine.dispose()


# -- zombies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["commits", "rolls back"])
def test_an_attempt_that_was_given_up_and_the_next_one_have_one_outcome(engine: sa.Engine, ending: str) -> None:
    """The first attempt times out before its COMMIT, which a thread cannot be kept from, and sends it all the same."""
    arrived: list[int] = []
    second_began, first_ended = threading.Event(), threading.Event()

    @task(effect=exoflow.transaction(engine), timeout=1.0, losses=50)
    def order() -> str:
        receipt = f"of attempt {exoflow.attempt()}"
        exoflow.connection().execute(sa.text("INSERT INTO orders VALUES ('', '', :receipt)"), {"receipt": receipt})
        return receipt

    @flow
    def buy() -> str:
        return order()

    def hold(point: str) -> None:
        if point == "transaction.begin":
            arrived.append(threading.get_ident())
            if len(arrived) > 1:
                second_began.set()
        if not arrived or threading.get_ident() != arrived[0] or first_ended.is_set():
            return
        if point == "transaction.commit":
            assert second_began.wait(100)
            if ending == "rolls back":
                first_ended.set()
                raise ZeroDivisionError
        if point == "transaction.committed":
            first_ended.set()

    with hooks.armed(hold):
        result = buy.options(store="memory://").run()
        assert first_ended.wait(100)
    assert [receipt for _, receipt in orders(engine)] == [result]
    assert (result == "of attempt 1") == (ending == "commits")
    assert markers(engine) == 1


# -- the database crashes ----------------------------------------------------------------------------------------------


@pytest.fixture
def shop(postgres: Postgres) -> Iterator[sa.Engine]:
    engine = sa.create_engine(postgres.emptied())
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE orders (id TEXT, choice TEXT, receipt TEXT)"))
    yield engine
    engine.dispose()


def buying(engine: sa.Engine, folder: Path, **options: Any) -> Callable[[], list[str]]:
    """A run that goes on until it ends, as somebody would have it who resumes it."""
    bodies: list[str] = []

    @task(effect=exoflow.transaction(engine), **options)
    def order(choice: str) -> str:
        bodies.append(f"{choice}, body {len(bodies)}")
        values = {"choice": choice, "receipt": bodies[-1]}
        exoflow.connection().execute(sa.text("INSERT INTO orders VALUES ('', :choice, :receipt)"), values)
        return bodies[-1]

    @flow
    def buy() -> list[str]:
        return [order("a"), order("b")]

    def run() -> list[str]:
        shop = buy.options(run_id="buy", store=str(folder / "store"))
        go_on: Callable[[], list[str]] = shop.run
        for _ in range(20):
            try:
                return go_on()
            except (exoflow.RunError, sa.exc.OperationalError):
                go_on = partial(shop.resume, "buy")
        raise AssertionError("it does not end")

    return run


@pytest.mark.parametrize("retries", [0, 5])
@pytest.mark.parametrize("step", ["begin", "marked", "ran", "commit", "committed"])
def test_the_database_crashes_at_any_step_and_it_happens_once(
    postgres: Postgres, shop: sa.Engine, tmp_path: Path, step: str, retries: int
) -> None:
    run = buying(shop, tmp_path, retries=retries)
    reached: list[str] = []

    def crash(point: str) -> None:
        reached.append(point)
        if reached.count(f"transaction.{step}") == 1 and point == f"transaction.{step}":
            postgres.crash()

    with hooks.armed(crash):
        result = run()
    assert [receipt for _, receipt in orders(shop)] == result
    assert markers(shop) == 2


def test_a_commit_that_was_made_and_not_acknowledged_is_found(
    postgres: Postgres, shop: sa.Engine, tmp_path: Path
) -> None:
    """The server has made the COMMIT durable, waits for a standby that never comes, and crashes before it answers."""
    run = buying(shop, tmp_path)
    reached: list[str] = []
    results: list[object] = []

    def never_acknowledge(point: str) -> None:
        reached.append(point)
        if reached.count("transaction.commit") == 1 and point == "transaction.commit":
            postgres.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
            wait_for(postgres, "SELECT 1 FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting != ''")

    with hooks.armed(never_acknowledge):
        thread = threading.Thread(target=lambda: results.extend(run()))
        thread.start()
        wait_for(postgres, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        postgres.run("ALTER SYSTEM RESET synchronous_standby_names")
        postgres.crash()
        thread.join()
    assert results == ["a, body 0", "b, body 1"], "no body ran twice"
    assert [receipt for _, receipt in orders(shop)] == results


def in_a_flow(order: Callable[[], object]) -> object:
    @flow
    def buy() -> object:
        return order()

    return buy.options(store="memory://").run()


def wait_for(postgres: Postgres, query: str) -> None:
    while not postgres.run(query):
        pass


# -- what only PostgreSQL has ------------------------------------------------------------------------------------------


def test_a_serialization_failure_is_retried(postgres: Postgres, shop: sa.Engine) -> None:
    """Two that each read what the other writes: the database lets one of them win, and the other try again."""
    serializable = shop.execution_options(isolation_level="SERIALIZABLE")
    both_read = threading.Barrier(2)
    tries: list[int] = []

    @task(effect=exoflow.transaction(serializable), retries=5, backoff=exoflow.Backoff(initial_s=0))
    def order() -> int:
        connection = exoflow.connection()
        seen = connection.execute(sa.text("SELECT count(*) FROM orders")).scalar_one()
        tries.append(seen)
        if exoflow.attempt() == 1:
            both_read.wait(100)
        connection.execute(sa.text("INSERT INTO orders VALUES ('', '', :seen)"), {"seen": str(seen)})
        return int(seen)

    @flow
    def buy() -> int:
        return order()

    runs = [buy.options(store="memory://").start() for _ in range(2)]
    assert sorted(run.result() for run in runs) == [0, 1]
    assert sorted(receipt for _, receipt in orders(shop)) == ["0", "1"]
    assert len(tries) > 2


def test_a_constraint_that_is_checked_at_the_commit_is_told(shop: sa.Engine) -> None:
    with shop.begin() as connection:
        connection.execute(sa.text("CREATE TABLE guests (id INT PRIMARY KEY)"))
        connection.execute(sa.text("CREATE TABLE rooms (g INT REFERENCES guests DEFERRABLE INITIALLY DEFERRED)"))

    @task(effect=exoflow.transaction(shop))
    def book() -> None:
        exoflow.connection().execute(sa.text("INSERT INTO rooms VALUES (1)"))

    with pytest.raises(sa.exc.IntegrityError, match="foreign key"):
        in_a_flow(book)
    assert markers(shop) == 0


def test_an_error_that_the_body_swallows_rolls_back_all_the_same(shop: sa.Engine) -> None:
    @task(effect=exoflow.transaction(shop))
    def order() -> None:
        connection = exoflow.connection()
        connection.execute(sa.text("INSERT INTO orders VALUES ('', '', '')"))
        with pytest.raises(sa.exc.ProgrammingError):
            connection.execute(sa.text("INSERT INTO nowhere VALUES (1)"))

    with pytest.raises(sa.exc.InternalError, match="transaction is aborted"):
        in_a_flow(order)
    assert orders(shop) == []


def test_a_user_who_may_make_no_table_is_told_what_to_run(postgres: Postgres, shop: sa.Engine) -> None:
    postgres.run("DROP ROLE IF EXISTS clerk", "CREATE ROLE clerk LOGIN")
    clerk = sa.create_engine(shop.url.set(username="clerk"))

    @task(effect=exoflow.transaction(clerk))
    def order() -> int:
        return 1

    with pytest.raises(exoflow.ExoFlowError, match="permission denied") as raised:
        order()
    sql = str(raised.value).partition("who may:\n")[2].rpartition(";")[0]
    with shop.begin() as connection:
        connection.execute(sa.text(sql))
        connection.execute(sa.text("GRANT SELECT, INSERT, UPDATE, DELETE ON exoflow_marker TO clerk"))
    assert order() == 1
    clerk.dispose()


def test_an_engine_that_commits_each_statement_is_refused(shop: sa.Engine) -> None:
    @task(effect=exoflow.transaction(shop.execution_options(isolation_level="AUTOCOMMIT")))
    def order() -> None: ...

    with pytest.raises(exoflow.ExoFlowError, match="AUTOCOMMIT"):
        in_a_flow(order)


def test_threads_that_race_for_the_table_all_win(shop: sa.Engine) -> None:
    @task(effect=exoflow.transaction(shop))
    def order() -> int:
        return 1

    @flow
    def buy() -> int:
        return order()

    runs = [buy.options(store="memory://").start() for _ in range(10)]
    assert [run.result() for run in runs] == [1] * 10
    assert markers(shop) == 10
