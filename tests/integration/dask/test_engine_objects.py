"""Dask's own objects in results: tracked, pinned to the value that they had, saved, restored."""

import os
import signal
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, Future, LocalCluster, get_client, get_worker

import exoflow
from exoflow import flow, task
from exoflow.errors import CodecError
from exoflow.testing.executors import WAIT_S, lines


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Client]:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        yield client


def chance(log: str, size: int) -> bytes:
    with open(log, "a") as file:
        file.write(f"{os.getpid()}\n")
    return os.urandom(size)


@task
def spreads(log: str) -> dict[str, Any]:
    """Futures that the user's own code made: Dask could make another value of each."""
    client = get_client()
    return {"parts": [client.submit(chance, log, 10, pure=False, key=f"chance-{n}") for n in range(3)], "name": "x"}


@task
def joins(made: dict[str, Any]) -> list[bytes]:
    client: Client = get_client()
    return list(client.gather(made["parts"]))


def test_futures_in_a_result_reach_their_consumer_as_futures_of_the_same_values(
    cluster: Client, tmp_path: Path
) -> None:
    log = str(tmp_path / "log")

    @flow(executor="dask")
    def both() -> list[list[bytes]]:
        made = spreads.submit(log)
        return [joins(made), joins(made)]

    first, second = both.options(store=tmp_path / "store").run()
    assert first == second
    assert len(lines(tmp_path / "log")) == 3


def test_a_result_that_is_saved_waits_for_its_futures_without_their_thread(tmp_path: Path) -> None:
    log = str(tmp_path / "log")

    @flow(executor="dask")
    def saved() -> list[bytes]:
        return list(joins(spreads.options(checkpoint="sync").submit(log)))

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster):
        assert [len(part) for part in saved.options(store=tmp_path / "store").run()] == [10, 10, 10]
    assert len(lines(tmp_path / "log")) == 3


def test_a_flow_sees_a_future_that_it_can_ask(cluster: Client, tmp_path: Path) -> None:
    @flow(executor="dask")
    def asks() -> int:
        made = spreads(str(tmp_path / "log"))
        assert isinstance(made["parts"][0], Future)
        return len(made["parts"][0].result())

    assert asks.options(store=tmp_path / "store").run() == 10


def test_dask_makes_no_other_value_of_what_a_result_was_committed_with(cluster: Client, tmp_path: Path) -> None:
    log = tmp_path / "log"
    gate = tmp_path / "gate"

    @task(checkpoint="sync")
    def made_once(log: str) -> dict[str, Any]:
        return dict(spreads(log))

    @task
    def passes(made: dict[str, Any]) -> list[bytes]:
        if not gate.exists():
            gate.touch()
            for pid in lines(log):
                if int(pid) != os.getpid():
                    os.kill(int(pid), signal.SIGKILL)
        return list(joins(made))

    @flow(executor="dask")
    def kept() -> list[list[bytes]]:
        made = made_once.submit(str(log))
        return [joins(made), passes(made), joins(made)]

    first, second, third = kept.options(store=tmp_path / "store").run()
    assert first == second == third
    assert gate.exists()


def test_a_persisted_collection_is_saved_with_its_result_and_restored_on_another_cluster(tmp_path: Path) -> None:
    pytest.importorskip("dask.bag")
    gate = tmp_path / "gate"

    @task(checkpoint="sync")
    def reads() -> Any:
        import dask.bag as bag

        with open(tmp_path / "log", "a") as file:
            file.write("read\n")
        return get_client().persist(bag.from_sequence(range(10), npartitions=2).map(_square))

    @task
    def sums(squares: Any) -> int:
        assert gate.exists(), "not yet"
        with get_client().as_current():
            return int(squares.sum().compute())

    @flow(name="squares", executor="dask")
    def squares() -> int:
        return sums(reads.submit())

    for attempt in range(2):
        with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=":0") as cluster, Client(cluster):
            if attempt == 0:
                with pytest.raises(AssertionError, match="not yet"):
                    squares.options(store=tmp_path / "store", run_id="r").run()
                gate.touch()
            else:
                assert exoflow.resume("r", store=tmp_path / "store", executor="dask") == 285
    assert lines(tmp_path / "log") == ["read"]


@pytest.mark.big
def test_nothing_keeps_a_persisted_collection_under_its_own_keys_when_it_was_returned(
    cluster: Client, tmp_path: Path
) -> None:
    """They are to stand for what was pinned: Dask warns, and may fail, where a key means two things."""
    bag = pytest.importorskip("dask.bag")

    @task
    def reads() -> Any:
        return get_client().persist(bag.from_sequence(range(2), npartitions=1))

    @task
    def sums(numbers: Any) -> int:
        deadline = time.monotonic() + WAIT_S
        while get_client().run_on_scheduler(_keys_of_bags):
            assert time.monotonic() < deadline
        with get_client().as_current():
            return int(numbers.sum().compute())

    @flow(executor="dask")
    def numbers() -> int:
        return sums(reads.submit())

    assert numbers.options(store=tmp_path / "store").run() == 1


def _keys_of_bags(dask_scheduler: Any) -> list[str]:
    return [str(key) for key in dask_scheduler.tasks if "from_sequence" in str(key)]


class Counter:
    count = 0


def test_an_actor_of_dask_is_refused_with_what_to_do(cluster: Client, tmp_path: Path) -> None:
    @task
    def creates() -> Any:
        return get_client().submit(Counter, actor=True).result()

    @flow(executor="dask")
    def one() -> int:
        return len([creates()])

    with pytest.raises(CodecError, match=r"distributed.Actor is lost with its worker, .*@exoflow.actor"):
        one.options(store=tmp_path / "store").run()


@pytest.mark.big
def test_a_persisted_collection_that_is_lost_in_mid_body_is_made_again(cluster: Client, tmp_path: Path) -> None:
    """What the body sees is an error of the sum, which Dask has forgotten because of what it stood on."""
    bag = pytest.importorskip("dask.bag")
    log, gate = tmp_path / "log", tmp_path / "gate"

    @task(checkpoint="never")
    def reads() -> list[Any]:
        with open(log, "a") as file:
            file.write("read\n")
        client = get_client()
        bags = [bag.from_sequence(numbers).map(_square) for numbers in (range(5), range(5, 10))]
        places = cycle(client.nthreads())
        return [client.persist(each, workers=[next(places)], allow_other_workers=True) for each in bags]

    @task
    def sums(halves: list[Any]) -> int:
        client = get_client()
        if not gate.exists():
            gate.touch()
            _kill_the_other(client)
        with client.as_current():
            return sum(int(half.sum().compute()) for half in halves)

    @flow(executor="dask")
    def squares() -> list[int]:
        halves = reads.submit()
        return [sums(halves), sums(halves)]

    assert squares.options(store=tmp_path / "store").run() == [285, 285]
    assert lines(log) == ["read", "read"]


def _kill_the_other(client: Client) -> None:
    """Until the scheduler has seen it."""
    (address,) = set(client.nthreads()) - {get_worker().address}
    os.kill(client.run(os.getpid, workers=[address])[address], signal.SIGKILL)
    while address in client.nthreads():
        pass


def _square(number: int) -> int:
    return number * number


def test_what_is_lazy_is_an_ordinary_value(cluster: Client, tmp_path: Path) -> None:
    @task
    def plans() -> Any:
        return dask.delayed(sum)([1, 2, dask.delayed(len)("abc")])

    @task
    def computes(plan: Any) -> int:
        return int(get_client().compute(plan).result())

    @flow(executor="dask")
    def lazy() -> int:
        return computes(plans())

    assert lazy.options(store=tmp_path / "store").run() == 6
