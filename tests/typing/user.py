"""Typed as a user would: mypy --strict and pyright must infer exactly this. Never run."""

from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, assert_type

import sqlalchemy as sa

import exoflow
from exoflow import AsyncFlow, AsyncTask, Flow, Ref, Refs, Run, Status, Task, flow, task


@dataclass
class Table:
    rows: int


@task(deterministic=True)
def read(day: str, part: int = 0) -> Table:
    return Table(part)


@task
def classify(table: Table) -> list[str]:
    return []


@task(effect="idempotent", retries=2, timeout=1.5, executor="processes", resources={"gpu": 1})
def publish(labels: Sequence[list[str]], *, title: str = "") -> str:
    return exoflow.idempotency_key()


def release(key: str, hotel: str) -> None: ...


@task(rollback=release, backoff=exoflow.Backoff(initial_s=1.0), checkpoint="sync", losses=1)
def reserve(hotel: str) -> int:
    return exoflow.attempt()


def asked(key: str, amount: int) -> exoflow.Happened | exoflow.DidNotHappen:
    return exoflow.DidNotHappen()


@task(effect="irrevocable", on_doubt=asked, name="charge", version="2")
def charge(amount: int) -> None: ...


def shop() -> sa.Engine:
    return sa.create_engine("sqlite://")


@task(effect=exoflow.transaction(shop), retries=3)
def book(hotel: str) -> int:
    assert_type(exoflow.connection(), sa.Connection)
    return 1


@task(effect=exoflow.transaction(shop()))
def book_by_engine(hotel: str) -> None: ...


@task(effect=exoflow.transaction("sqlite://"))
def book_by_url(hotel: str) -> None: ...


assert_type(exoflow.transaction(sa.make_url("sqlite://")).prune(older_than_s=1), int)
assert_type(book("Adler"), int)
assert_type(book.function("Adler"), int)
assert_type(book.submit("Adler"), Ref[int])


@task
async def fetch(url: str) -> bytes:
    return b""


@task(retries=1)
async def fetch_again(url: str, tries: int) -> bytes:
    return b""


@task
def split(rows: int) -> list[Ref[int]]:
    return [exoflow.put(row) for row in range(rows)]


@task
def late(table: Ref[Table]) -> Ref[Table]:
    return table


assert_type(read("monday"), Table)
assert_type(read.function("monday", 1), Table)
assert_type([fetch("x")], list[Coroutine[Any, Any, bytes]])
assert_type(reserve.options(retries=2)("Adler"), int)


@flow
def week(days: int) -> int:
    return days


@flow(name="daily", on_failure="rollback", strict=True, version="1", executor="local")
def daily(day: str, parts: int = 32) -> str:
    tables = [read.submit(day, part) for part in range(parts)]
    assert_type(tables, list[Ref[Table]])
    labels = classify.map(tables)
    assert_type(labels, Refs[list[str]])
    assert_type(labels[0], Ref[list[str]])
    assert_type(labels[1:], Refs[list[str]])
    assert_type(labels.result(), list[list[str]])
    for label in labels:
        assert_type(label, Ref[list[str]])
    assert_type(publish(labels), str)
    assert_type(publish(labels, title="x"), str)
    assert_type(publish.submit(labels), Ref[str])
    assert_type(publish.submit(labels.arg, title="x"), Ref[str])
    assert_type(publish([label.arg for label in labels]), str)
    assert_type(publish.options(retries=3, key=day).submit(labels, title=day), Ref[str])

    part = week.submit(3)
    assert_type(part, Ref[int])
    assert_type(read(day, part), Table)
    assert_type(read.submit(day, part), Ref[Table])
    assert_type(read.submit(publish.submit(labels), part), Ref[Table])
    assert_type(read.submit(day, part=part.arg), Ref[Table])
    assert_type(read.map(["a", "b"]), Refs[Table])
    assert_type(read.map(["a", "b"], [1, part]), Refs[Table])
    assert_type(read.map(repeat("a"), range(3)), Refs[Table])
    assert_type(read.map(["a", "b"], part=3), Refs[Table])
    assert_type(read(day, week(2)), Table)

    assert_type(charge.submit(part), Ref[None])
    assert_type(reserve("Adler"), int)
    assert_type(split(3), list[Ref[int]])
    assert_type(fetch.submit("x").result(), bytes)
    assert_type(fetch.map(["x"]), Refs[bytes])

    assert_type(part.result(timeout=3), int)
    assert_type(part.done(), bool)
    assert_type(part.exception(), Exception | None)
    assert_type(exoflow.gather(part, part), Refs[int])
    assert_type(exoflow.gather(tables), Refs[Table])
    assert_type(exoflow.gather(tables, return_exceptions=True), Refs[Table | Exception])
    assert_type(exoflow.gather(part, return_exceptions=True).result(), list[int | Exception])
    for table in exoflow.as_completed(tables):
        assert_type(table, Ref[Table])
    by_ref = dict.fromkeys(tables, day)
    assert_type(by_ref, dict[Ref[Table], str])

    assert_type(exoflow.timer(3), Ref[None])
    assert_type(exoflow.now(), float)
    assert_type(exoflow.rng().random(), float)
    assert_type(week(1), int)
    assert_type(week.map([1, 2]), Refs[int])
    assert_type(week(part), int)
    return day


@flow
async def crawl(urls: list[str]) -> int:
    assert_type(await fetch(urls[0]), bytes)
    assert_type(await fetch.submit(urls[0]), bytes)
    assert_type(await fetch.map(urls), list[bytes])
    assert_type(await read.submit("monday"), Table)
    assert_type(await fetch_again(read_name.submit(), 1), bytes)
    async for ref in exoflow.as_completed(fetch.map(urls)):
        assert_type(await ref, bytes)
    await exoflow.timer(1)
    return 1


@task
def read_name() -> str:
    return ""


async def serve() -> AsyncIterator[int]:
    assert_type(await crawl(["x"]), int)
    assert_type(await crawl.run(["x"]), int)
    assert_type(await crawl.start(["x"]), int)
    assert_type(await crawl.resume("x"), int)
    yield 1


assert_type(daily("monday"), str)
assert_type(daily.run("monday", parts=2), str)
assert_type(daily.start("monday"), Run[str])
assert_type(daily.start("monday").result(), str)
assert_type(daily.start("monday").status, Status)
assert_type(daily.options(run_id="x", store="memory://", executor="processes", labels={"a": "b"})("monday"), str)
assert_type(daily.resume("x"), str)
assert_type(daily.function("monday"), str)
assert_type(crawl.start([]).result(), int)
assert_type(exoflow.resume("x", store="memory://"), object)
assert_type(exoflow.runs(status="failed"), list[Run[object]])
assert_type(exoflow.get("x").labels, Mapping[str, str])
exoflow.configure(store="memory://", executor="local")


@exoflow.actor(snapshot_every=3, executor="processes", resources={"gpu": 1})
class Trainer:
    def __init__(self, rate: float) -> None:
        self.rate = rate

    @task(deterministic=True)
    def step(self, batch: int, scale: float = 1.0) -> float:
        return batch * scale

    @task
    async def fetch(self, url: str) -> bytes:
        return b""

    @task
    def weights(self) -> list[float]:
        return []


@exoflow.actor
class Plain:
    @task
    def go(self) -> int:
        return 1


@flow
def trains() -> list[float]:
    trainer = Trainer(0.1)
    assert_type(trainer, Trainer)
    assert_type(trainer.step(1), float)
    assert_type(trainer.step.submit(1, 2.0), Ref[float])
    assert_type(trainer.step.submit(number.submit()), Ref[float])
    assert_type(trainer.step.map([1, 2]), Refs[float])
    assert_type(trainer.fetch.submit("x"), Ref[bytes])
    assert_type(Plain().go(), int)
    return trainer.weights()


@task
def number() -> int:
    return 1


@flow
async def trains_async() -> bytes:
    return await Trainer(0.1).fetch("x")


assert_type(Trainer(0.1).step(1), float)

a_flow: Flow[[int], int] = week
an_async_flow: AsyncFlow[[list[str]], int] = crawl
a_task: Task[[str], int] = reserve
an_async_task: AsyncTask[[str], bytes] = fetch
