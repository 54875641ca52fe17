"""Wrong uses: each line with an ``ignore`` must be an error, and the checkers tell where an ignore is needless."""

from user import Table, charge, classify, crawl, daily, fetch, publish, read, reserve, shop, week

import exoflow
from exoflow import Ref, flow, task

table: Ref[Table] = read.submit("monday")
number: Ref[int] = week.submit(3)

read(1)  # type: ignore[call-overload]
read()  # type: ignore[call-overload]
read("monday", "x")  # type: ignore[call-overload]
read("monday", 1, 2)  # type: ignore[call-overload]
read("monday", parts=2)  # type: ignore[call-overload]
read(number)  # type: ignore[arg-type]
read("monday", table)  # type: ignore[arg-type]
read("monday", part="x")  # type: ignore[call-overload]
read.submit(1)  # type: ignore[call-overload]
read.submit("monday", table)  # type: ignore[arg-type]
read.submit(part=1)  # type: ignore[call-overload]
classify(number)  # type: ignore[arg-type]
classify.submit([table])  # type: ignore[call-overload]
classify.map(table)  # type: ignore[call-overload]
classify.map([number])  # type: ignore[list-item]
classify.map([1])  # type: ignore[list-item]
read.map(["a"], ["b"])  # type: ignore[list-item]
read.map(3)  # type: ignore[call-overload]
publish(classify.submit(table))  # type: ignore[arg-type]
publish([], titel="x")  # type: ignore[call-overload]
charge("x")  # type: ignore[call-overload]
week("x")  # type: ignore[call-overload]
week.run("x")  # type: ignore[arg-type]
week.run(number)  # type: ignore[arg-type]
week.start()  # type: ignore[call-arg]
daily.options(run="x")  # type: ignore[call-arg]
read.options(retry=3)  # type: ignore[call-arg]
read.options(effect="idempotent")  # type: ignore[call-arg]
read.options(timeout="1")  # type: ignore[arg-type]

text: str = read("monday")  # type: ignore[assignment]
ref: Ref[str] = read.submit("monday")  # type: ignore[assignment]
value: Table = read.submit("monday")  # type: ignore[assignment]
length = len(table)  # type: ignore[arg-type]
first = table[0]  # type: ignore[index]
same = table == number  # type: ignore[operator]
rows = table.rows  # type: ignore[attr-defined]
nights: int = reserve.submit("Adler").result() + ""  # type: ignore[operator]
exoflow.gather(1, 2)  # type: ignore[call-overload]
exoflow.as_completed(table)  # type: ignore[arg-type]


@task(effect="often")  # type: ignore[call-overload, untyped-decorator]
def wrong_effect() -> None: ...


@task(effect=exoflow.transaction)  # type: ignore[call-overload, untyped-decorator]
def wrong_transaction() -> None: ...


exoflow.transaction(3)  # type: ignore[arg-type]
exoflow.transaction(shop).prune(older_than_s="1")  # type: ignore[arg-type]


@task(determinstic=True)  # type: ignore[call-overload, untyped-decorator]
def wrong_option() -> None: ...


@task(rollback="undo")  # type: ignore[call-overload, untyped-decorator]
def wrong_rollback() -> None: ...


@flow(on_failure="undo")  # type: ignore[call-overload, untyped-decorator]
def wrong_flow() -> None: ...


@flow
def iterates() -> None:
    for _ in table:  # type: ignore[attr-defined]
        pass


@exoflow.actor
class Counter:
    @task
    def count(self, by: int) -> int:
        return by


@flow
def misuses_an_actor() -> None:
    counter = Counter()
    counter.count("x")  # type: ignore[call-overload]
    counter.count.submit()  # type: ignore[call-overload]
    counter.missing()  # type: ignore[attr-defined]
    Counter(1)  # type: ignore[call-arg]


@flow
async def forgets_to_await() -> None:
    fetch("x")  # type: ignore[unused-coroutine]
    await fetch(1)  # type: ignore[call-overload]
    number: int = crawl(["x"])  # type: ignore[assignment]
    await fetch.submit(number)  # type: ignore[call-overload]
