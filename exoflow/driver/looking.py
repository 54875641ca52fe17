"""A function that looks back at an effect, an undo or a probe: called until it has not failed, or no try is left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from exoflow import codec
from exoflow.driver.spec import Backoff, TaskSpec, pause_s
from exoflow.errors import DidNotHappen, ExoFlowError, InDoubt
from exoflow.model import CallId, Version
from exoflow.protocols import Attempt, Computed, Outcome, Raised

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution

logger = logging.getLogger(__name__)

Terms = tuple[int, float, float, float, float, float | None]
"""Retries, the four numbers of a Backoff, the timeout: plain, for they stand in the journal."""


def terms_of(spec: TaskSpec) -> Terms:
    """How patient the task is with its undo, or its probe."""
    backoff = spec.backoff
    return spec.undo_retries, backoff.initial_s, backoff.factor, backoff.max_s, backoff.jitter, spec.timeout_s


class Target(NamedTuple):
    """The attempt that is looked back at."""

    call: CallId
    version: Version
    key: str


class Look:
    """One undo or one answer of a probe, however many tries it takes. It runs in this process, beside the flow.

    Args:
        args: Behind the key, which comes first.
        ended: Gets what the function returned, and how many tries it took.
        given_up: Gets its last error, and how many tries there were.
    """

    def __init__(
        self, execution: Execution, target: Target, function: Callable[..., Any], args: tuple[Any, ...],
        kwargs: Mapping[str, Any], terms: Terms, *, ended: Callable[[object, int], None],
        given_up: Callable[[Exception, int], None],
    ) -> None:  # fmt: skip
        self.execution = execution
        self.target = target
        self.function = function
        self.args = (target.key, *args)
        self.kwargs = kwargs
        self.retries, *numbers, self.timeout_s = terms
        self.backoff = Backoff(*numbers)
        self.ended = ended
        self.given_up = given_up
        self.number = 1

    def begin(self) -> None:
        """Start the n-th try. Under the lock."""
        self.execution.looking += 1
        execution, (call, version, key), args, kwargs = self.execution, self.target, self.args, self.kwargs
        attempt = Attempt(
            execution.run_id, call, version, self.number, key, f"{name_of(self.function)} of {call}", self.function,
            args, kwargs, {}, self.timeout_s,
            encoded=None if codec.all_immutable(args, kwargs) else codec.encode((args, dict(kwargs))),
        )  # fmt: skip
        name = "local" if "local" in execution.executors else execution.default
        execution.executors[name].start(attempt, self._report)

    def _report(self, outcome: Outcome) -> None:
        with self.execution.lock:
            self.execution.looking -= 1
            if self.execution.fatal is None:
                self.execution.event(self._looked, outcome)

    def _looked(self, outcome: Outcome) -> None:
        execution = self.execution
        if isinstance(outcome, Computed):
            self.ended(codec.decode(execution.values.fetch(outcome.value)), self.number)
            return
        if isinstance(outcome, Raised) and outcome.did_not_happen:
            self.ended(DidNotHappen(), self.number)
            return
        name, call = name_of(self.function), self.target.call
        why = _error(outcome, f"{name} of {call}")
        logger.warning(
            "%s of %s failed (try %d of %d): %r", name, call, self.number, self.retries + 1, why,
            extra={"run": execution.run_id, "call": call, "version": self.target.version},
        )  # fmt: skip
        if self.number > self.retries or isinstance(why, InDoubt):  # it was asked, and says that nobody knows
            self.given_up(why, self.number)
            return
        delay_s = pause_s(self.backoff, self.number, f"{execution.seed}/{self.target.key}")
        self.number += 1
        execution.clock.call_at(execution.clock.now() + delay_s, self._again)

    def _again(self) -> None:
        with self.execution.lock:
            if self.execution.fatal is None:
                self.execution.event(self.begin)


def _error(outcome: Outcome, what: str) -> Exception:
    if isinstance(outcome, Raised):
        error = codec.decode_error(outcome.error)
        assert isinstance(error, Exception)
        return error
    assert not isinstance(outcome, Computed)
    kind = TimeoutError if outcome.reason.startswith("timed out") else ExoFlowError
    return kind(f"{what} {outcome.reason}")


def name_of(function: Callable[..., Any]) -> str:
    """Of a function; a partial, or an object that can be called, has none."""
    return str(getattr(function, "__name__", None) or repr(function))
