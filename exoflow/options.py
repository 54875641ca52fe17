"""The options of tasks, flows, calls and runs, and what their values may be."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Literal, TypedDict, TypeVar

from exoflow.driver.spec import Backoff
from exoflow.errors import DidNotHappen
from exoflow.model import Checkpoint, Effect, Happened
from exoflow.protocols import Executor, Store

if TYPE_CHECKING:
    from exoflow.transactions import Transaction

OnFailure = Literal["keep", "rollback"]
Answer = Happened | DidNotHappen
T = TypeVar("T")


class AttemptOptions(TypedDict, total=False):
    """Options that a task has for all its calls, and that one call may have instead."""

    checkpoint: Checkpoint
    """When the result is saved: ``"auto"``, ``"sync"``, ``"async"``, ``"never"``."""
    retries: int
    """How often an error of the body is tried again; 0."""
    losses: int
    """How often an attempt that vanished or timed out is made again; 3."""
    backoff: Backoff
    """How long to wait before a retry."""
    timeout: float | None
    """Seconds after which an attempt is given up."""
    executor: str | Executor | None
    """Who runs it; None: as the run has it."""
    resources: Mapping[str, float]
    """What the executor must have for it."""


class CallOptions(AttemptOptions, total=False):
    """What ``task.options`` takes."""

    key: str | int
    """Names the call, instead of its being the n-th of its task."""


class TaskOptions(AttemptOptions, total=False):
    """What ``@task`` takes."""

    deterministic: bool
    """The same inputs give the same result, bit for bit; False."""
    effect: Effect | Transaction | None
    """It is seen from outside: ``"idempotent"``, ``"irrevocable"`` or ``exoflow.transaction(engine)``."""
    rollback: Callable[..., object] | None
    """Undoes it: ``undo(key, *inputs)``. Not together with ``effect``."""
    undo_retries: int
    """How often a rollback, or a probe, that fails is tried again, by ``backoff`` and each for ``timeout``; 9."""
    on_doubt: Literal["stop", "retry"] | Callable[..., Answer | Awaitable[Answer]]
    """What to do if nobody knows whether an irrevocable effect happened; a probe is called with ``(key, *inputs)``."""
    name: str
    version: str
    """Stands for the code: as long as it stays the same, recorded results of older code are used."""


class FlowOptions(TypedDict, total=False):
    """What ``@flow`` takes."""

    name: str
    version: str
    executor: str | Executor | None
    on_failure: OnFailure
    """``"rollback"`` undoes what can be undone when the flow fails; ``"keep"``, so that it can be resumed."""
    strict: bool
    """Stop rather than save a result of ``checkpoint="never"`` because an effect stands on it."""


class RunOptions(TypedDict, total=False):
    """What ``flow.options`` takes."""

    run_id: str | None
    store: str | os.PathLike[str] | Store | None
    executor: str | Executor | None
    labels: Mapping[str, str]
    key: str | int
    """Of a child flow: names the call, instead of its being the n-th of its flow."""


def known(options: Mapping[str, object], kind: type, what: str) -> None:
    """Refuse options that there are not.

    Raises:
        TypeError: with the nearest name.
    """
    names = list(kind.__annotations__)
    for name in options:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise TypeError(f"{what} has no option {name!r}; {hint}It takes {', '.join(names)}")


def check_run_options(flow: str, options: RunOptions) -> None:
    """Refuse what no run can have.

    Raises:
        TypeError, ValueError: with what it must be.
    """
    known(options, RunOptions, f"{flow}.options")
    run_id: object = options.get("run_id")
    if run_id is not None and (not isinstance(run_id, str) or not run_id or not run_id.isprintable()):
        raise ValueError(f"run_id={run_id!r} must be printable text, and not empty")
    labels: object = options.get("labels", {})
    if not isinstance(labels, Mapping):
        raise TypeError(f"labels={labels!r} must be a mapping of text to text")
    for name, value in labels.items():
        if not isinstance(name, str) or not isinstance(value, str) or not name:
            raise TypeError(f"labels must be text: {name!r}: {value!r} is not")
        if any("\ud800" <= letter <= "\udfff" for letter in name + value):
            raise ValueError(f"labels must be text: {name!r}: {value!r} holds half of a character, and is no UTF-8")


def check_executor(executor: object) -> None:
    if executor is not None and not isinstance(executor, str) and not callable(getattr(executor, "start", None)):
        raise TypeError(f"executor={executor!r} must be a name, as 'local' or 'processes', or an Executor")


def check_backoff(backoff: object) -> None:
    if not isinstance(backoff, Backoff):
        raise TypeError(
            f"backoff={backoff!r} must be an exoflow.Backoff(initial_s=..., factor=..., max_s=..., jitter=...)"
        )
    for name, least in (("initial_s", 0.0), ("factor", 1.0), ("max_s", 0.0), ("jitter", 0.0)):
        number(f"backoff.{name}", getattr(backoff, name), least=least)
    if backoff.jitter > 1:
        raise ValueError(f"backoff.jitter={backoff.jitter} must be at most 1: waits would be negative")


def one_of(option: str, value: object, allowed: tuple[object, ...], also: str = "") -> None:
    if not any(value is each or (isinstance(value, str) and value == each) for each in allowed):
        listed = ", ".join(map(repr, allowed))
        raise ValueError(f"{option}={shown(value)} must be one of {listed}{f' {also}' if also else ''}")


def boolean(option: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{option}={value!r} must be True or False")


def count(option: str, value: T) -> T:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{option}={value!r} must be a whole number")
    if value < 0:
        raise ValueError(f"{option}={value} must not be negative")
    return value


def number(option: str, value: object, *, least: float = 0.0, above: float | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{option}={value!r} must be a number (of seconds, for times)")
    if math.isnan(value) or value < least or (above is not None and value <= above):
        raise ValueError(f"{option}={value} must be {f'above {above}' if above is not None else f'at least {least}'}")


def shown(value: object) -> str:
    return str(getattr(value, "__qualname__", None) or repr(value))
