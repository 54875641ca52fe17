"""Calls that somebody charges for (ADR 0024): what ``exoflow.llm`` declares, asks the core and tells it.

A paid call begins when every choice behind it is committed. Its body asks for its intent when it is about to send; its
result is durable before anybody sees it. So one that has a record is never made again, and one that has an intent alone
may have been paid for; one that only waits for its turn, and whose turn is not near, has none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Unpack

from exoflow.attempts import current_attempt
from exoflow.declaration import task_spec
from exoflow.driver.body import current_body
from exoflow.driver.history import path_of
from exoflow.driver.loops import mailbox
from exoflow.model import Bill, CallId
from exoflow.options import TaskOptions
from exoflow.tasks import TaskDecorator, task_of

_FIXED = ("checkpoint", "deterministic", "effect", "executor", "on_doubt", "resources", "rollback")


def paid_task(**options: Unpack[TaskOptions]) -> TaskDecorator:
    """``@task`` for calls that somebody charges for. They run in the process that controls the run.

    Raises:
        TypeError, ValueError: an option is wrong, or one that is fixed for such calls.
    """
    given = [name for name in _FIXED if name in options]
    if given:
        raise TypeError(f"a paid task has no option {given[0]!r}: it is fixed")

    def made(function: Any) -> Any:
        spec = task_spec(function, {**options, "checkpoint": "sync", "executor": "local"})
        return task_of(replace(spec, note=replace(spec.note, paid=True)))

    return made


def may_be_paid_twice() -> bool:
    """In the body of a paid call: whether an earlier attempt at it was dispatched, and nothing tells how it ended."""
    attempt = current_attempt()
    return attempt is not None and attempt.attempt.paid is not None and attempt.attempt.paid.in_doubt


async def dispatching() -> None:
    """In the ``async def`` body of a paid call, when it is about to send: returns when its intent is durable.

    Again in the same attempt it returns at once. A body that never asks has sent nothing, as far as anybody knows.

    Raises:
        TaskFailed: the attempt is wanted no more; nothing is to be sent.
    """
    attempt = current_attempt()
    if attempt is None or attempt.attempt.paid is None:
        return
    loop = asyncio.get_running_loop()
    mail, durable = mailbox(loop), loop.create_future()
    refused: list[BaseException] = []

    def told(error: BaseException | None) -> None:
        if error is not None:
            refused.append(error)
        mail.post((durable,))

    attempt.attempt.paid.run.ask(told)
    await durable
    if refused:
        raise refused[0]


def dispatching_here() -> None:
    """The same in a ``def`` body."""
    attempt = current_attempt()
    if attempt is not None and attempt.attempt.paid is not None:
        attempt.attempt.paid.run.wait()


def when_recorded(callback: Callable[[], None]) -> None:
    """In the body of a paid call: call back, from any thread, when what becomes of this attempt is durable.

    At once outside, and where nothing will be recorded of it any more.
    """
    attempt = current_attempt()
    if attempt is None or attempt.attempt.paid is None:
        callback()
    else:
        attempt.attempt.paid.run.when_recorded(callback)


def tell_bill(bill: Bill) -> None:
    """In the body of a call: what it costs, in all. It is recorded beside the result, or the error."""
    attempt = current_attempt()
    if attempt is not None:
        attempt.bill = bill


def bills_before() -> Mapping[CallId, Bill]:
    """In a flow, or in the body of a paid call: what the run's calls had cost when this process took it over.

    By their ids; those of child flows too, and those that the body has not made again yet.
    """
    attempt, body = current_attempt(), current_body()
    if attempt is not None:
        return {} if attempt.attempt.paid is None else attempt.attempt.paid.bills
    return {} if body is None else body.execution.history.bills


def labels() -> Mapping[str, str]:
    """In a flow, or in the body of a paid call: the labels of the run; child flows have those of their parents."""
    attempt, body = current_attempt(), current_body()
    if attempt is not None:
        return {} if attempt.attempt.paid is None else attempt.attempt.paid.labels
    return {} if body is None else body.execution.labels


def job() -> str:
    """In a flow, or in a call: the path of the flow whose body made the call; empty for a run's own, and outside."""
    attempt, body = current_attempt(), current_body()
    if attempt is not None:
        return path_of(attempt.call)
    return "" if body is None else body.scope.path


__all__ = [
    "Bill",
    "bills_before",
    "dispatching",
    "dispatching_here",
    "job",
    "labels",
    "may_be_paid_twice",
    "paid_task",
    "tell_bill",
    "when_recorded",
]
