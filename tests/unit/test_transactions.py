import multiprocessing
import pickle
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

import exoflow
from exoflow import Happened, codec, flow, hooks, markers, task
from exoflow.declaration import task_spec
from exoflow.driver.spec import TaskSpec
from exoflow.errors import CodecError, DidNotHappen, ExoFlowError, InDoubt
from exoflow.transactions import Transacted, Transaction

INSERT = sa.text("INSERT INTO orders VALUES (:n)")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/shop.db"


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE orders (n INTEGER)"))
    yield engine
    engine.dispose()


def rows(engine: sa.Engine, what: str = "n FROM orders") -> list[object]:
    with engine.connect() as connection:
        return list(connection.execute(sa.text(f"SELECT {what} ORDER BY 1")).scalars())


def keys(engine: sa.Engine) -> list[object]:
    return rows(engine, "key FROM exoflow_marker")


def ordering(engine: sa.Engine | str | Callable[[], sa.Engine], **options):
    @task(effect=exoflow.transaction(engine), **options)
    def order(n: int) -> int:
        exoflow.connection().execute(INSERT, {"n": n})
        return n * 10

    return order


def run(call: Callable[[], object], store: str = "memory://") -> object:
    @flow
    def body() -> object:
        return call()

    return body.options(store=store).run()


def test_the_writes_and_the_marker_are_there_together(engine):
    order = ordering(engine)
    assert run(lambda: order(1)) == 10
    assert rows(engine) == [1]
    (key,) = keys(engine)
    assert str(key).endswith("/order#0")
    assert markers.find(engine, str(key)) == codec.to_bytes(codec.encode(10))


def test_outside_a_flow_it_is_a_transaction_too(engine):
    order = ordering(engine)
    assert [order(1), order(2)] == [10, 20]
    assert rows(engine) == [1, 2]
    assert all(str(key).startswith("plain/") for key in keys(engine))


def test_the_plain_function_takes_part_in_the_transaction_of_another_task(engine):
    order = ordering(engine)

    @task(effect=exoflow.transaction(engine))
    def both() -> None:
        order.function(1)
        order.function(2)

    both()
    assert rows(engine) == [1, 2]
    assert len(keys(engine)) == 1


def test_a_task_called_in_the_transaction_of_another_is_refused(engine):
    order = ordering(engine)

    @task(effect=exoflow.transaction(engine))
    def outer() -> None:
        order(1)

    with pytest.raises(RuntimeError, match=r"order\.function\(\.\.\.\)"):
        outer()


def test_a_connection_is_for_the_body_of_such_a_task(engine):
    with pytest.raises(RuntimeError, match=r"effect=exoflow\.transaction\(engine\)"):
        exoflow.connection()
    with pytest.raises(RuntimeError, match="transactional task"):
        ordering(engine).function(1)


def test_no_other_thread_has_the_connection(engine):
    seen: list[BaseException] = []

    def steal() -> None:
        try:
            exoflow.connection()
        except RuntimeError as error:
            seen.append(error)

    @task(effect=exoflow.transaction(engine))
    def lends() -> None:
        thread = threading.Thread(target=steal)
        thread.start()
        thread.join()

    lends()
    assert len(seen) == 1


# -- errors of the body ------------------------------------------------------------------------------------------------


def test_an_error_rolls_everything_back_and_is_the_user_s_own(engine):
    @task(effect=exoflow.transaction(engine))
    def order() -> None:
        exoflow.connection().execute(INSERT, {"n": 1})
        raise ZeroDivisionError("oh")

    with pytest.raises(ZeroDivisionError, match="oh"):
        run(order)
    assert rows(engine) == keys(engine) == []


def test_an_error_before_the_commit_leaves_no_doubt_to_ask_about(engine, monkeypatch):
    @task(effect=exoflow.transaction(engine))
    def order() -> None:
        raise ZeroDivisionError("oh")

    def asked(*_: object) -> None:
        raise AssertionError("a database that is away could not answer")

    monkeypatch.setattr(markers, "find", asked)
    with pytest.raises(ZeroDivisionError, match="oh"):
        run(order)


def test_a_retry_is_a_new_transaction(engine):
    tries: list[int] = []

    @task(effect=exoflow.transaction(engine), retries=1, backoff=exoflow.Backoff(initial_s=0))
    def order() -> int:
        tries.append(exoflow.attempt())
        exoflow.connection().execute(INSERT, {"n": len(tries)})
        return 7 // (len(tries) - 1)

    assert run(order) == 7
    assert rows(engine) == [2]
    assert tries == [1, 2]


def test_a_flow_can_go_on_after_an_error(engine):
    @task(effect=exoflow.transaction(engine))
    def order(n: int) -> int:
        exoflow.connection().execute(INSERT, {"n": n})
        return 10 // n

    @flow
    def body() -> int:
        try:
            return order(0)
        except ZeroDivisionError:
            return order(5)

    assert body.options(store="memory://").run() == 2
    assert rows(engine) == [5]


def test_what_the_database_refuses_is_an_error_of_the_body(engine):
    @task(effect=exoflow.transaction(engine))
    def order() -> None:
        exoflow.connection().execute(sa.text("INSERT INTO nowhere VALUES (1)"))

    with pytest.raises(sa.exc.OperationalError, match="nowhere"):
        run(order)
    assert keys(engine) == []


def test_a_result_that_cannot_be_kept_is_rolled_back(engine):
    @task(effect=exoflow.transaction(engine))
    def order() -> object:
        exoflow.connection().execute(INSERT, {"n": 1})
        return threading.Lock()

    with pytest.raises(CodecError, match="the result of"):
        run(order)
    assert rows(engine) == []


def test_a_ref_in_the_result_is_refused_and_rolled_back(engine):
    @task(effect=exoflow.transaction(engine))
    def order() -> object:
        exoflow.connection().execute(INSERT, {"n": 1})
        return [exoflow.put("x")]

    with pytest.raises(CodecError, match="returned a Ref"):
        run(order)
    assert rows(engine) == []


# -- bodies that touch the transaction ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", ["commit", "rollback", "close", "get_transaction().commit", "get_transaction().rollback"]
)
@pytest.mark.parametrize("goes_on", [True, False])
def test_a_body_that_ends_the_transaction_is_refused_and_nothing_stays(engine, how, goes_on):
    @task(effect=exoflow.transaction(engine))
    def order() -> None:
        connection = exoflow.connection()
        connection.execute(INSERT, {"n": 1})
        try:
            eval(f"connection.{how}()", {"connection": connection})
            if goes_on:
                connection.execute(INSERT, {"n": 2})
        except Exception:
            if not goes_on:
                raise

    with pytest.raises(RuntimeError, match=r"the body of .*order (commits|ends) the transaction"):
        run(order)
    assert rows(engine) == keys(engine) == []


def test_a_body_that_deletes_its_marker_is_refused(engine):
    @task(effect=exoflow.transaction(engine))
    def order() -> None:
        exoflow.connection().execute(markers.TABLE.delete())

    with pytest.raises(RuntimeError, match="is gone"):
        run(order)


def test_a_part_that_fails_is_a_savepoint(engine):
    @task(effect=exoflow.transaction(engine))
    def order() -> None:
        connection = exoflow.connection()
        connection.execute(INSERT, {"n": 1})
        part = connection.begin_nested()
        connection.execute(INSERT, {"n": 2})
        part.rollback()
        with connection.begin_nested():
            connection.execute(INSERT, {"n": 3})

    run(order)
    assert rows(engine) == [1, 3]


class Model(DeclarativeBase): ...


class Guest(Model):
    __tablename__ = "guests"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def test_a_session_of_the_orm_takes_part(engine):
    Model.metadata.create_all(engine)

    @task(effect=exoflow.transaction(engine))
    def check_in(name: str, fails: bool) -> int:
        with Session(exoflow.connection()) as session:
            guest = Guest(name=name)
            session.add(guest)
            session.commit()
            if fails:
                raise ZeroDivisionError
            return guest.id

    with pytest.raises(ZeroDivisionError):
        run(lambda: check_in("Anna", True))
    assert run(lambda: check_in("Berta", False)) == 1
    assert rows(engine, "name FROM guests") == ["Berta"]


# -- the marker answers ------------------------------------------------------------------------------------------------


def probe_of(order) -> Callable[..., object]:
    return order._spec.probe


def marked(engine: sa.Engine, key: str, value: bytes | None) -> None:
    assert markers.begin(engine, "other").close() is None  # makes the table
    with engine.begin() as connection:
        connection.execute(markers.TABLE.insert(), {"key": key, "value": value, "marked_s": time.time()})


def test_the_probe_tells_what_was_returned(engine):
    order = ordering(engine)
    assert isinstance(probe_of(order)("k", 1), DidNotHappen), "there is no table even"
    marked(engine, "k", codec.to_bytes(codec.encode([1, "x"])))
    assert probe_of(order)("k", 1) == Happened([1, "x"])
    assert isinstance(probe_of(order)("l", 1, key=3), DidNotHappen)


def test_where_the_marker_is_the_body_does_not_run(engine):
    order = ordering(engine)
    done = flow(lambda: order(1))
    marked(engine, "again/order#0", codec.to_bytes(codec.encode("before")))
    assert done.options(store="memory://", run_id="again").run() == "before"
    assert rows(engine) == []


def test_a_marker_without_a_value_stops_the_run_and_says_what_to_do(engine):
    order = ordering(engine)
    marked(engine, "half/order#0", None)
    with pytest.raises(exoflow.RunError, match="no value: the task's body has sent a COMMIT of its own") as raised:
        flow(lambda: order(1)).options(store="memory://", run_id="half").run()
    assert isinstance(raised.value.__cause__, InDoubt)


def test_the_second_of_two_attempts_waits_for_the_first_and_has_its_outcome(engine):
    """A zombie that has not committed yet, and the attempt that was made in its place."""
    order = ordering(engine)
    body = order._spec.function
    arrived, leave = threading.Event(), threading.Event()
    outcomes: dict[str, object] = {}

    def hold(point: str) -> None:
        if point == "transaction.commit" and threading.current_thread().name == "zombie":
            arrived.set()
            assert leave.wait(60)
        if point == "transaction.begin" and threading.current_thread().name == "second":
            leave.set()

    def attempt() -> None:
        token = exoflow.context.plain_call.set(call)
        outcomes[threading.current_thread().name] = body(int(threading.current_thread().name == "zombie"))
        exoflow.context.plain_call.reset(token)

    call = exoflow.context.PlainCall()
    with hooks.armed(hold):
        zombie, second = (threading.Thread(target=attempt, name=name) for name in ("zombie", "second"))
        zombie.start()
        assert arrived.wait(60)
        assert isinstance(probe_of(order)(call.key, 1), DidNotHappen), "not yet"
        second.start()
        zombie.join()
        second.join()
    assert outcomes == {"zombie": 10, "second": 10}
    assert rows(engine) == [1]


def test_an_error_while_the_commit_was_sent_leaves_it_to_the_probe(engine, monkeypatch):
    """The connection is lost after the database has committed: the body does not run again."""
    order = ordering(engine)
    commit = engine.dialect.do_commit
    lost: list[int] = []

    def commits_and_is_lost(connection) -> None:
        commit(connection)
        if not lost and keys(engine):
            lost.append(1)
            raise sqlite3.OperationalError("gone")

    monkeypatch.setattr(engine.dialect, "do_commit", commits_and_is_lost)
    monkeypatch.setattr(engine.dialect, "is_disconnect", lambda error, *_: "gone" in str(error))
    assert run(lambda: order(1)) == 10
    assert rows(engine) == [1]
    assert lost


def test_a_commit_that_the_database_refuses_is_told(engine):
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE guests (id INTEGER PRIMARY KEY)"))
        connection.execute(
            sa.text("CREATE TABLE rooms (guest INTEGER REFERENCES guests DEFERRABLE INITIALLY DEFERRED)")
        )

    @sa.event.listens_for(engine, "connect")
    def checked(raw, _) -> None:
        raw.execute("PRAGMA foreign_keys = ON")

    engine.dispose()

    @task(effect=exoflow.transaction(engine))
    def book() -> None:
        exoflow.connection().execute(sa.text("INSERT INTO rooms VALUES (1)"))

    with pytest.raises(sa.exc.IntegrityError, match="FOREIGN KEY"):
        run(book)
    assert rows(engine, "guest FROM rooms") == keys(engine) == []


# -- the table ---------------------------------------------------------------------------------------------------------


def make_at_once(url: str, go) -> None:
    order = ordering(url)
    go.wait()
    assert order(1) == 10


def test_processes_that_race_for_the_table_all_win(engine, url):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    processes = [context.Process(target=make_at_once, args=(url, barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert rows(engine) == [1] * 4


def test_where_the_table_may_not_be_made_the_message_has_the_sql(engine, url):
    reader = sa.create_engine(f"{url.replace('sqlite:///', 'sqlite:///file:')}?mode=ro&uri=true")
    with pytest.raises(ExoFlowError, match=r"CREATE TABLE IF NOT EXISTS exoflow_marker \(\n"):
        run(lambda: ordering(reader)(1))
    reader.dispose()


def test_a_table_that_was_dropped_is_made_again(engine):
    order = ordering(engine)
    order(1)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE exoflow_marker"))
    order(2)
    assert rows(engine) == [1, 2]


def test_old_markers_can_be_pruned(engine):
    shop = exoflow.transaction(engine)
    assert shop.prune(older_than_s=0) == 0, "there is no table"
    order = ordering(engine)
    order(1)
    assert shop.prune(older_than_s=3600) == 0
    assert shop.prune(older_than_s=0) == 1
    assert keys(engine) == []
    for wrong in (-1, float("nan"), "1"):
        with pytest.raises(ValueError, match="number of seconds"):
            shop.prune(older_than_s=wrong)  # type: ignore[arg-type]


# -- engines -----------------------------------------------------------------------------------------------------------


def memory_engine() -> sa.Engine:
    return sa.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})


def shop_engine() -> sa.Engine:
    raise AssertionError("nobody opens it")


def test_a_url_is_opened_when_it_is_first_used_and_once_in_a_process(engine, url):
    first, second = exoflow.transaction(url), exoflow.transaction(sa.make_url(url))
    assert first.engine is second.engine
    assert ordering(url)(1) == 10
    with first.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000
    first.engine.dispose()


def test_a_function_is_called_when_the_engine_is_first_used_and_once(engine):
    opened: list[int] = []

    def shop() -> sa.Engine:
        opened.append(1)
        return engine

    order = ordering(shop)
    assert not opened
    order(1)
    ordering(shop)(2)
    assert opened == [1]
    assert rows(engine) == [1, 2]


def test_a_function_that_returns_no_engine_is_named(engine):
    with pytest.raises(TypeError, match=r"returned 3: give it a SQLAlchemy Engine"):
        ordering(lambda: 3)(1)  # type: ignore[arg-type, return-value]


def test_another_process_gets_the_url_or_the_function(url):
    for source in (url, shop_engine):
        transacted = codec.decode(codec.encode(Transacted(exoflow.transaction(source), ordering)))
        assert transacted._transaction._source == source
        assert transacted.__name__ == "ordering"


def test_an_engine_does_not_go_to_another_process(engine):
    with pytest.raises(CodecError, match=r"give exoflow\.transaction"):
        codec.encode(exoflow.transaction(engine))
    with pytest.raises(CodecError, match="in this process's memory"):
        codec.encode(exoflow.transaction("sqlite://"))


def test_a_database_in_memory_will_do_for_a_test():
    engine = memory_engine()
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE orders (n INTEGER)"))
    order = ordering(engine)
    assert run(lambda: order(1)) == 10
    assert rows(engine) == [1]
    engine.dispose()


def test_a_password_is_not_shown():
    assert "secret" not in repr(exoflow.transaction("postgresql+psycopg://me:secret@localhost/shop"))
    assert repr(exoflow.transaction(shop_engine)) == "transaction(shop_engine)"


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "SERIALIZABLE"])
def test_on_sqlite_it_is_a_transaction_at_every_isolation_level(engine, url, level):
    other = sa.create_engine(url, isolation_level=level)

    @task(effect=exoflow.transaction(other))
    def order() -> None:
        exoflow.connection().execute(INSERT, {"n": 1})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(order)
    assert rows(engine) == keys(engine) == []
    ordering(other)(2)
    assert rows(engine) == [2]
    other.dispose()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has it since 3.12")
def test_a_driver_that_commits_each_statement_is_refused(engine, url):
    other = sa.create_engine(url, connect_args={"autocommit": True})
    with pytest.raises(ExoFlowError, match="AUTOCOMMIT"):
        ordering(other)(1)
    other.dispose()


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (3, TypeError, "give it a SQLAlchemy Engine"),
        (None, TypeError, "give it a SQLAlchemy Engine"),
        ("mysql://localhost/shop", ValueError, "sqlite and postgresql"),
        ("no url", sa.exc.ArgumentError, "Could not parse"),
    ],
)
def test_what_is_no_engine_is_refused_at_once(source, error, message):
    with pytest.raises(error, match=message):
        exoflow.transaction(source)


def test_without_sqlalchemy_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(ImportError, match=r"pip install 'exoflow\[sql\]'"):
        exoflow.transaction("sqlite://")


# -- declaration -------------------------------------------------------------------------------------------------------


def body(n: int) -> int:
    return n


async def async_body(n: int) -> int:
    return n


def spec_of(function: Callable[..., object], **options) -> TaskSpec:
    return task_spec(function, {"effect": Transaction("sqlite://"), **options})


def test_for_the_kernel_it_is_irrevocable_with_a_probe():
    spec = spec_of(body)
    assert (spec.note.effect, spec.note.on_doubt, spec.note.saves) == ("irrevocable", "probe", "sync")
    assert spec.effect == "transaction"
    assert spec.code == task_spec(body, {}).code, "records of the same code stay valid"


@pytest.mark.parametrize(
    "option", [{"rollback": lambda key, n: None}, {"on_doubt": "retry"}, {"on_doubt": body}, {"deterministic": True}]
)
def test_options_that_make_no_sense_beside_it_are_refused(option):
    with pytest.raises(ValueError, match=rf"{next(iter(option))}=.* does not go with effect=transaction"):
        spec_of(body, **option)


def test_a_coroutine_is_refused():
    with pytest.raises(TypeError, match=r"write it as `def`.*await async_body\.submit"):
        spec_of(async_body)


def test_the_transaction_itself_is_no_call_of_it():
    with pytest.raises(ValueError, match=r"or exoflow\.transaction\(engine\)"):
        task_spec(body, {"effect": exoflow.transaction})  # type: ignore[typeddict-item]


def test_a_task_looks_like_its_function(engine):
    order = ordering(engine)
    assert (order.__name__, order.name, order.function.__name__) == ("order", "order", "order")
    assert not isinstance(order.function, Transacted)
    with pytest.raises(TypeError, match="order"):
        run(lambda: order("too", "many"))


def test_nobody_pickles_a_connection(engine):
    @task(effect=exoflow.transaction(engine))
    def leaks() -> object:
        return exoflow.connection()

    with pytest.raises((CodecError, pickle.PicklingError)):
        run(leaks)
