"""Effects: what is recorded before one, asking whether it happened, and undoing it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from exoflow import codec, conversion
from exoflow.driver import records
from exoflow.driver.attempt import key_of
from exoflow.driver.handle import Handle
from exoflow.driver.outcomes import forget_value, take_value
from exoflow.driver.spec import Backoff
from exoflow.driver.values import ValueLost
from exoflow.errors import DidNotHappen, ExoFlowError, InDoubt, RunError
from exoflow.journal.records import Kind as Code
from exoflow.kernel import commands as do
from exoflow.model import CallId, Happened, Version
from exoflow.protocols import Attempt, Computed, Outcome, Raised

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution

logger = logging.getLogger(__name__)

TRIES = 5
BACKOFF = Backoff(initial_s=0.1, max_s=10.0, jitter=0.0)


def intend(execution: Execution, command: do.Intend) -> None:
    """Record that an effect may happen from now on (L4)."""
    handle = execution.handles[command.call]
    note = handle.spec.note
    intent = records.Intent(
        Code.INTENT,
        execution.index,
        command.call,
        command.version,
        handle.spec.effect,
        list(command.names),
        list(command.releases),
        _undo_payload(execution, handle) if note.rollback else None,
        execution.clock.now(),
        key_of(execution, command.call, command.version if note.rollback else None),
        handle.call.reads_at,
    )
    execution.history.intents[command.call] = intent
    execution.append(intent)


def _undo_payload(execution: Execution, handle: Handle) -> bytes | None:
    """The undo and its arguments by value, for another process (L4). None: one is lost, and nothing will start."""
    try:
        args, kwargs = _arguments_by_value(execution, handle)
    except ValueLost:
        return None
    return codec.to_bytes(codec.encode((handle.spec.undo, args, dict(kwargs)), what=f"the undo of {handle.spec.name}"))


def lost_input(execution: Execution, handle: Handle) -> tuple[CallId, ...]:
    """Which value the arguments lack, however deep in them it stands; nothing if it is there again."""
    try:
        _arguments_by_value(execution, handle)
    except ValueLost as lost:
        return (lost.args[0],)
    return ()


def _arguments_by_value(execution: Execution, handle: Handle) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    args, kwargs = handle.args, handle.kwargs
    passed = {call.id for call in handle.call.passes}

    def lookup(id: CallId) -> object:
        return codec.make_reference(id) if id in passed else execution.values.value_of_ref(id)

    if handle.encoded is not None:
        assert isinstance(handle.encoded, codec.Encoded)
        args, kwargs = codec.decode(handle.encoded, lookup=lookup)
        return args, kwargs
    return codec.substitute(args, kwargs, lookup)


def undo(execution: Execution, command: do.Undo) -> None:
    """Run the undo of one attempt on the default executor, again and again until it is done."""
    payload = execution.history.intents[command.call].inputs
    if payload is None:  # nothing was started under this intent
        execution.kernel.undone(command.call, command.version)
        return
    assert isinstance(payload, bytes)
    function, args, kwargs = codec.decode(codec.from_bytes(payload), lookup=codec.make_reference)
    key = key_of(execution, command.call, command.version)
    _Look(execution, command.call, command.version, function, (key, *args), kwargs, _undone).begin()


def record_undone(execution: Execution, command: do.RecordUndone) -> None:
    """Record that the effect is gone."""
    execution.append(records.Undone(Code.UNDONE, execution.index, command.call, command.version, execution.clock.now()))


def was_answered(execution: Execution, command: do.Doubt | do.Probe) -> bool:
    """Whether an operator has said if the effect happened; then that counts.

    Raises:
        InDoubt: it did, but what it returned cannot be what was said.
    """
    answer = execution.inbox.answer(command.call, command.version)
    if answer is None:
        return False
    if answer.what == "did not happen":
        _probed(execution, command.call, command.version, DidNotHappen())
        return True
    assert answer.payload is not None
    value = codec.decode(codec.from_bytes(answer.payload))
    try:
        value = conversion.converted(value, _returns(execution.handles[command.call]))
    except ValueError as error:
        raise InDoubt(
            f"{command.call} was resolved by a value that it cannot have returned: {error}. Resolve it again."
        ) from error
    _probed(execution, command.call, command.version, Happened(value))
    return True


def _returns(handle: Handle) -> object:
    return conversion.parameters_of(handle.spec.function).hints.get("return", object)


def probe(execution: Execution, command: do.Probe) -> None:
    """Ask the task's probe whether the effect happened."""
    if was_answered(execution, command):
        return
    handle = execution.handles[command.call]
    assert handle.spec.probe is not None
    try:
        args, kwargs = _arguments_by_value(execution, handle)
    except ValueLost as lost:
        forget_value(execution, lost.args[0])
        execution.kernel.doubt_again(command.call)
        return
    key = key_of(execution, command.call, None)
    _Look(execution, command.call, command.version, handle.spec.probe, (key, *args), kwargs, _probed).begin()


class _Look:
    """A function that looks back at an effect: called until it has not failed, at most ``TRIES`` times."""

    def __init__(
        self, execution: Execution, call: CallId, version: Version, function: Callable[..., Any], args: tuple[Any, ...],
        kwargs: Mapping[str, Any], ended: Callable[[Execution, CallId, Version, object], None],
    ) -> None:  # fmt: skip
        self.execution = execution
        self.call = call
        self.version = version
        self.function = function
        self.args = args
        """The key is the first."""
        self.kwargs = kwargs
        self.ended = ended
        self.number = 1

    def begin(self) -> None:
        """Start the n-th try. Under the lock."""
        execution, function, args, kwargs = self.execution, self.function, self.args, self.kwargs
        attempt = Attempt(
            execution.run_id, self.call, self.version, self.number, args[0], f"{function.__name__} of {self.call}",
            function, args, kwargs, {},
            encoded=None if codec.all_immutable(args, kwargs) else codec.encode((args, dict(kwargs))),
        )  # fmt: skip
        local = "local" in execution.executors and not inspect.iscoroutinefunction(function)
        execution.executors["local" if local else execution.default].start(attempt, self._report)

    def _report(self, outcome: Outcome) -> None:
        with self.execution.lock:
            if self.execution.fatal is None:
                self.execution.event(self._looked, outcome)

    def _looked(self, outcome: Outcome) -> None:
        execution = self.execution
        if isinstance(outcome, Computed):
            self.ended(execution, self.call, self.version, codec.decode(execution.values.fetch(outcome.value)))
            return
        if isinstance(outcome, Raised) and outcome.did_not_happen:
            self.ended(execution, self.call, self.version, DidNotHappen())
            return
        why = codec.decode_error(outcome.error) if isinstance(outcome, Raised) else ExoFlowError(outcome.reason)
        name, number = self.function.__name__, self.number
        logger.warning("%s of %s failed (try %d): %s", name, self.call, number, why)
        if number >= TRIES:
            raise RunError(
                f"{name} of {self.call} failed {number} times: {why!r}. The run stopped with this effect in "
                f"place; `exoflow resume {execution.run_id}` tries again."
            ) from why
        delay_s = min(BACKOFF.max_s, BACKOFF.initial_s * BACKOFF.factor ** (number - 1))
        self.number += 1
        execution.clock.call_at(execution.clock.now() + delay_s, self._again)

    def _again(self) -> None:
        with self.execution.lock:
            if self.execution.fatal is None:
                self.execution.event(self.begin)


def _undone(execution: Execution, call: CallId, version: Version, _: object) -> None:
    execution.kernel.undone(call, version)


def _probed(execution: Execution, call: CallId, _: Version, answer: object) -> None:
    if isinstance(answer, Happened):
        version = execution.kernel.resolved(call, happened=True)
        if version:
            value = execution.values.keep(codec.encode(answer.value))
            take_value(execution, execution.handles[call], version, Computed(value, 0.0))
    elif isinstance(answer, DidNotHappen):
        execution.kernel.resolved(call, happened=False)
    else:
        raise InDoubt(f"the probe of {call} returned {answer!r}; it must return Happened(value) or DidNotHappen()")
