"""Actors in one process: what they are in a flow and elsewhere, how they fail, and what is refused."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

import exoflow
from exoflow import flow, task


@exoflow.actor(snapshot_every=2)
class Account:
    def __init__(self, balance: int = 0, *, owner: str = "nobody") -> None:
        if balance < 0:
            raise ValueError("no account begins with debts")
        self.balance = balance
        self.owner = owner

    @task
    def add(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    @task
    def overdraw(self, amount: int) -> int:
        self.balance -= amount
        raise OverflowError(f"{self.balance} is too little")

    @task
    async def add_later(self, amount: int) -> int:
        await asyncio.sleep(0)
        self.balance += amount
        return self.balance

    @task(deterministic=True)
    def read(self) -> tuple[str, int]:
        return self.owner, self.balance


@pytest.fixture
def run(tmp_path: Path) -> Any:
    def run(body: Any, *args: Any) -> Any:
        return exoflow.flow(name="f")(body).options(store=tmp_path / "s", executor="local").run(*args)

    return run


def test_outside_a_flow_the_class_is_any_class() -> None:
    account = Account(5, owner="Ann")
    assert account.add(3) == 8
    assert account.balance == 8
    assert isinstance(account, Account)
    assert Account.__name__ == "Account"
    assert asyncio.run(account.add_later(1)) == 9


def test_calls_come_in_the_order_in_which_they_are_written(run: Any) -> None:
    def body() -> object:
        account = Account(1, owner="Ann")
        first = account.add.submit(1)
        second = account.add.submit(first)
        refs = account.add.map([10, 20])
        return [second.result(), refs.result(), account.read()]

    assert run(body) == [4, [14, 34], ("Ann", 34)]


def test_an_async_flow_awaits_them(tmp_path: Path) -> None:
    async def body() -> object:
        account = Account()
        first, second = await asyncio.gather(account.add_later(1), account.add.submit(2))
        return [first, second, await account.add_later(3)]

    made = exoflow.flow(name="g")(body).options(store=tmp_path / "s", executor="local")
    assert asyncio.run(made.run()) == [1, 3, 6]


def test_an_error_is_the_calls_and_the_state_is_as_the_body_left_it(run: Any) -> None:
    def body() -> object:
        account = Account(10)
        with pytest.raises(OverflowError, match="7 is too little"):
            account.overdraw(3)
        return account.read()

    assert run(body) == ("nobody", 7)


def test_a_retry_begins_with_the_state_before_the_call(run: Any) -> None:
    @exoflow.actor
    class Flaky:
        def __init__(self) -> None:
            self.n = 0

        @task(retries=1, backoff=exoflow.Backoff(initial_s=0.0))
        def step(self) -> int:
            self.n += 1
            if exoflow.attempt() == 1:
                raise ConnectionError
            return self.n

    def body() -> object:
        flaky = Flaky()
        return [flaky.step(), flaky.step()]

    assert run(body) == [1, 2]


def test_an_argument_that_failed_is_the_calls_error_and_the_actor_goes_on(run: Any) -> None:
    @task
    def fails() -> int:
        raise KeyError("gone")

    def body() -> object:
        account = Account(1)
        lost = account.add.submit(fails.submit())
        kept = account.add.submit(5)
        with pytest.raises(KeyError, match="gone"):
            lost.result()
        return kept.result()

    assert run(body) == 6


def test_an_actor_that_cannot_be_created_fails_its_calls_with_that(run: Any) -> None:
    def body() -> object:
        account = Account(-1)
        with pytest.raises(ValueError, match="no account begins with debts"):
            account.add(1)
        return "told"

    assert run(body) == "told"


def test_actors_do_not_wait_for_each_other(run: Any) -> None:
    both = threading.Barrier(2, timeout=30)

    @exoflow.actor
    class Meets:
        @task
        def meet(self) -> bool:
            both.wait()
            return True

        def __getstate__(self) -> object:
            return None

    def body() -> object:
        first, second = Meets(), Meets()
        return exoflow.gather(first.meet.submit(), second.meet.submit()).result()

    assert run(body) == [True, True]


def test_large_arrays_of_a_restored_state_can_be_changed(run: Any, tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")

    @exoflow.actor
    class Weights:
        def __init__(self) -> None:
            self.w = np.zeros(100_000)

        @task(retries=1, backoff=exoflow.Backoff(initial_s=0.0))
        def step(self) -> float:
            self.w += 1
            if exoflow.attempt() == 1:
                raise ConnectionError
            return float(self.w.sum())

    def body() -> object:
        weights = Weights()
        return [weights.step(), weights.step()]

    assert run(body) == [100_000.0, 200_000.0]


# -- what is refused ---------------------------------------------------------------------------------------------------


def refused(run: Any, body: Any, match: str, kind: type[BaseException] = Exception) -> None:
    with pytest.raises(kind, match=match):
        run(body)


def test_its_attributes_are_had_by_tasks_alone(run: Any) -> None:
    refused(run, lambda: Account().balance, r"method that returns it, with @task", AttributeError)

    def sets() -> None:
        Account().balance = 7

    refused(run, sets, r"method that sets it, with @task", AttributeError)


def test_it_cannot_be_passed_on(run: Any) -> None:
    @task
    def takes(account: object) -> None: ...

    refused(run, lambda: takes(Account()), r"cannot be passed to a task")

    def returns() -> object:
        return Account()

    refused(run, returns, r"cannot be passed to a task")


def test_only_the_flow_that_created_it_calls_it(run: Any) -> None:
    @flow
    def child(n: int) -> int:
        return accounts[0].add(n)

    accounts: list[Account] = []

    def body() -> object:
        accounts.append(Account())
        return child(1)

    refused(run, body, r"called by another flow than the one that created it", RuntimeError)


def test_arguments_that_do_not_fit_are_refused_at_once(run: Any) -> None:
    refused(run, lambda: Account(1, 2, 3), r"Account\(balance: 'int' = 0, \*, owner", TypeError)  # type: ignore[call-arg]
    refused(run, lambda: Account().add(), r"missing a required argument: 'amount'", TypeError)  # type: ignore[call-arg]


def test_a_state_that_cannot_be_pickled_is_named(run: Any) -> None:
    @exoflow.actor
    class Locked:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        @task
        def step(self) -> int:
            return 1

    refused(
        run,
        lambda: Locked().step(),
        r"the state of Locked\['lock'\].*__getstate__.*__init__ runs again",
        exoflow.CodecError,
    )


def test_a_method_of_a_plain_object_is_refused_in_a_flow(run: Any) -> None:
    class Plain:
        @task
        def step(self) -> int:
            return 1

    plain = Plain()
    assert plain.step() == 1

    def calls() -> int:
        return plain.step()

    refused(run, calls, r"put @exoflow.actor on the class", TypeError)
    refused(run, lambda: Plain.step(plain), r"put @exoflow.actor on the class", TypeError)


def test_classes_that_cannot_be_actors_are_refused_where_they_are_written() -> None:
    with pytest.raises(TypeError, match=r"has no method that is a task"):
        exoflow.actor(type("Idle", (), {}))
    with pytest.raises(ValueError, match="snapshot_every=0"):
        exoflow.actor(snapshot_every=0)
    with pytest.raises(TypeError, match="goes on a class"):
        exoflow.actor(len)  # type: ignore[call-overload]

    class Charges:
        @task(effect="irrevocable")
        def charge(self) -> None: ...

    with pytest.raises(ValueError, match=r"Charges.charge has an irrevocable effect"):
        exoflow.actor(Charges)

    class Reduces:
        @task
        def step(self) -> None: ...

        def __reduce__(self) -> Any: ...

    with pytest.raises(TypeError, match="__getstate__ and __setstate__ instead"):
        exoflow.actor(Reduces)

    class Placed:
        @task(executor="local")
        def step(self) -> None: ...

    with pytest.raises(ValueError, match=r"write @exoflow.actor\(executor=...\)"):
        exoflow.actor(Placed)

    class Begins:
        @task
        def __init__(self) -> None: ...

    with pytest.raises(TypeError, match="must not be a task"):
        exoflow.actor(Begins)
