"""Which attempts an executor may run together: those that can vanish with others and harm nobody."""

import os

import pytest
import sqlalchemy as sa

import exoflow
from exoflow import flow, task
from exoflow.executors import LocalExecutor


class Noting(LocalExecutor):
    """Keeps what it was told of each attempt."""

    def __init__(self):
        super().__init__()
        self.told = []

    def start(self, attempt, report):
        self.told.append((attempt.task, attempt.number, attempt.batchable))
        super().start(attempt, report)


def body():
    if exoflow.attempt() == 1 and os.environ.get("FAILS"):
        raise LookupError("the first try")
    return 1


def undo(_):
    return None


@pytest.fixture
def told(tmp_path):
    executor = Noting()

    def run(**options):
        made = task(**options)(body)

        @flow(executor=executor)
        def trial():
            return made.submit().result()

        assert trial.options(store=tmp_path).run() == 1
        return [(number, batchable) for _, number, batchable in executor.told]

    yield run
    executor.close()


def test_the_first_try_of_a_pure_task_is_batchable_and_a_retry_is_not(told, monkeypatch):
    monkeypatch.setenv("FAILS", "1")
    assert told(retries=1, backoff=exoflow.Backoff(initial_s=0.0)) == [(1, True), (2, False)]


@pytest.mark.parametrize(
    "options",
    [
        {"effect": "idempotent"},
        {"effect": "irrevocable"},
        {"rollback": undo},
        {"timeout": 60.0},
        {"losses": 0},
    ],
    ids=["idempotent", "irrevocable", "rollback", "timeout", "losses"],
)
def test_effects_and_what_may_not_be_lost_or_has_a_time_limit_is_never_batchable(told, options):
    assert told(**options) == [(1, False)]


def test_a_transaction_is_never_batchable(told, tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/shop.db")
    assert told(effect=exoflow.transaction(engine)) == [(1, False)]
    engine.dispose()


def test_the_calls_of_an_actor_are_never_batchable(tmp_path):
    executor = Noting()

    @exoflow.actor(executor=executor)
    class Counter:
        def __init__(self):
            self.count = 0

        @task
        def add(self):
            self.count += 1
            return self.count

    @flow
    def trial():
        return Counter().add()

    assert trial.options(store=tmp_path).run() == 1
    assert {batchable for _, _, batchable in executor.told} == {False}
    executor.close()
