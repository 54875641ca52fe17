"""Effects: what is recorded before one, asking whether it happened, and undoing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from exoflow import codec, conversion
from exoflow.driver import records
from exoflow.driver.attempt import key_of, value_name
from exoflow.driver.handle import Handle
from exoflow.driver.looking import Look, Target, Terms, name_of, terms_of
from exoflow.driver.outcomes import forget_value, take_value
from exoflow.driver.spec import TaskSpec
from exoflow.driver.values import ValueLost, value_of
from exoflow.errors import DidNotHappen, InDoubt, UndoFailed
from exoflow.journal.records import Kind as Code
from exoflow.kernel import commands as do
from exoflow.model import INLINE_MAX_BYTES, CallId, Happened, Version, show_version
from exoflow.protocols import Computed

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution


class GivenUp(NamedTuple):
    """An undo that failed for good, and with it the run."""

    tries: int
    why: bytes
    """The undo's own error, encoded."""
    error: bytes
    """An ``UndoFailed``, encoded."""


def intend(execution: Execution, command: do.Intend) -> None:
    """Record that an effect may happen from now on (L4)."""
    handle = execution.handles[command.call]
    note = handle.spec.note
    intent = records.Intent(
        Code.INTENT,
        execution.index,
        command.call,
        command.version,
        records.REPEATABLE if note.effect and note.on_doubt == "retry" else handle.spec.effect,
        list(command.names),
        list(command.releases),
        _undo_payload(execution, handle, command.version) if note.rollback else None,
        execution.clock.now(),
        key_of(execution, command.call, command.version if note.rollback else None),
        handle.call.reads_at,
    )
    execution.history.intents[command.call] = intent
    execution.append(intent)


def _undo_payload(execution: Execution, handle: Handle, version: Version) -> records.Payload:
    """The undo and its arguments by value, for another process (L4). None: one is lost, and nothing will start."""
    try:
        args, kwargs = _arguments_by_value(execution, handle)
    except ValueLost:
        return None
    spec = handle.spec
    encoded = codec.encode((spec.undo, args, dict(kwargs), terms_of(spec)), what=f"the undo of {spec.name}")
    if encoded.size <= INLINE_MAX_BYTES:
        return codec.to_bytes(encoded)
    name = f"{value_name(execution, handle.call.id, version)}.undo"
    execution.values.store.create(name, *codec.to_parts(encoded))
    return ["@", name, encoded.size]


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
        args, kwargs = codec.decode(handle.encoded, lookup=lookup, bring=execution.values.engine_object)
        return args, kwargs
    return codec.substitute(args, kwargs, lookup)


def undo(execution: Execution, command: do.Undo) -> None:
    """Undo what one attempt did, in this process."""
    call, version = command.call, command.version
    payload = value_of(execution.history.intents[call].inputs)
    if payload is None:  # nothing was started under this intent
        execution.kernel.undone(call, version)
        return
    target = Target(call, version, key_of(execution, call, version))
    try:
        encoded = execution.values.fetch(payload)
        if encoded.checksums is not None:
            encoded.checksums.verify()
        function, args, kwargs, *recorded = codec.decode(encoded, lookup=codec.make_reference)
    except Exception as error:  # noqa: BLE001 -- the user's module is imported here: anything can come
        _give_up(execution, target, "its undo", error, 1)
        return
    terms: Terms = recorded[0] if recorded else terms_of(TaskSpec("", function))
    handle = execution.handles.get(call)
    if handle is not None and handle.spec.undo is not None:  # as the code has it now: it may have been mended
        function, terms = handle.spec.undo, terms_of(handle.spec)
    given_up = partial(_give_up, execution, target, name_of(function))
    Look(
        execution, target, function, args, kwargs, terms, ended=partial(_undone, execution, target), given_up=given_up
    ).begin()


def _undone(execution: Execution, target: Target, _: object, tries: int) -> None:
    execution.undo_tries = tries
    execution.kernel.undone(target.call, target.version)


def _give_up(execution: Execution, target: Target, undo: str, why: Exception, tries: int) -> None:
    """The run has failed, once what still runs has ended: whatever waits for the body to begin it begins now."""
    error = UndoFailed(_what_stands(execution, target, undo, why, tries))
    error.run_id, error.call, error.key, error.attempt = (
        execution.run_id, str(target.call), target.key, show_version(target.version)
    )  # fmt: skip
    error.__cause__ = why
    execution.given_up = GivenUp(tries, codec.encode_error(why), codec.encode_error(error))
    execution.kernel.undo_failed(target.call, target.version)
    for id, (handle, version) in list(execution.stash.items()):
        execution.offers.pop(id, None)
        del execution.stash[id]
        execution.carry_out[do.Run](execution, do.Run(id, version, handle.number, handle.why or "first"))


def _what_stands(execution: Execution, target: Target, undo: str, why: Exception, tries: int) -> str:
    times = "once" if tries == 1 else f"{tries} times"
    kernel = execution.kernel
    before = ""
    if kernel.cancelling:
        before = " The run was being cancelled."
    elif kernel.failing and execution.root_error is not None:
        before = f" The run was being rolled back: it had failed with {codec.decode_error(execution.root_error)!r}."
    return (
        f"{undo} of {target.call} failed {times}, at last with {why!r}: the effect of attempt "
        f"{show_version(target.version)} (key {target.key}) is still in place, and nothing older was undone.{before} "
        f"Mend what makes it fail, or undo the effect by hand so that {undo} finds nothing to do; then `exoflow resume "
        f"{execution.run_id}` tries again, and goes on with what the run was doing"
    )


def record_undone(execution: Execution, command: do.RecordUndone) -> None:
    """Record that the effect is gone."""
    tries, execution.undo_tries = execution.undo_tries, 0
    now = execution.clock.now()
    taken: list[str] | None = list(command.takes_back) or None
    execution.append(records.Undone(Code.UNDONE, execution.index, command.call, command.version, now, tries, taken))


def record_undo_failed(execution: Execution, command: do.RecordUndoFailed) -> None:
    """Record that the effect is in place."""
    given_up = execution.given_up
    assert given_up is not None
    failed = records.UndoFailed(
        Code.NOTE, execution.index, records.UNDO_FAILED, command.call, command.version, given_up.tries, given_up.why,
        execution.clock.now(),
    )  # fmt: skip
    execution.append(failed)


def record_failing(execution: Execution, _: do.RecordFailing) -> None:
    """Record what the run has failed with, before anything is undone for it."""
    assert execution.root_error is not None
    now = execution.clock.now()
    execution.append(records.Failing(Code.NOTE, execution.index, records.FAILING, execution.root_error, now))


def was_answered(execution: Execution, command: do.Doubt | do.Probe) -> bool:
    """Whether an operator has said if the effect happened; then that counts.

    Raises:
        InDoubt: it did, but what it returned cannot be what was said.
    """
    answer = execution.inbox.answer(command.call, command.version)
    if answer is None:
        return False
    if answer.what == "did not happen":
        _probed(execution, command.call, DidNotHappen())
        return True
    assert answer.payload is not None
    value = codec.decode(codec.from_bytes(answer.payload))
    try:
        value = conversion.converted(value, _returns(execution.handles[command.call]))
    except ValueError as error:
        raise InDoubt(
            f"{command.call} was resolved by a value that it cannot have returned: {error}. Resolve it again."
        ) from error
    _probed(execution, command.call, Happened(value))
    return True


def _returns(handle: Handle) -> object:
    return conversion.parameters_of(handle.spec.function).hints.get("return", object)


def probe(execution: Execution, command: do.Probe) -> None:
    """Ask the task's probe whether the effect happened."""
    if was_answered(execution, command):
        return
    handle = execution.handles[command.call]
    function: Callable[..., Any] | None = handle.spec.probe
    assert function is not None
    try:
        args, kwargs = _arguments_by_value(execution, handle)
    except ValueLost as lost:
        forget_value(execution, lost.args[0])
        execution.kernel.doubt_again(command.call)
        return
    target = Target(command.call, command.version, key_of(execution, command.call, None))
    given_up = partial(_unanswered, execution, target, name_of(function))
    Look(
        execution, target, function, args, kwargs, terms_of(handle.spec),
        ended=partial(_probed, execution, command.call), given_up=given_up,
    ).begin()  # fmt: skip


def _probed(execution: Execution, call: CallId, answer: object, _: int = 0) -> None:
    if isinstance(answer, Happened):
        version = execution.kernel.resolved(call, happened=True)
        if version:
            value = execution.values.keep(codec.encode(answer.value))
            take_value(execution, execution.handles[call], version, Computed(value, 0.0))
    elif isinstance(answer, DidNotHappen):
        execution.kernel.resolved(call, happened=False)
    else:
        raise _in_doubt(
            execution, f"the probe of {call} returned {answer!r}; it must return Happened(value) or DidNotHappen()"
        )


def _unanswered(execution: Execution, target: Target, probe: str, why: Exception, tries: int) -> None:
    raise _in_doubt(
        execution,
        f"the effect of {target.call} may or may not have happened (key {target.key}), and {probe}, which was to tell, "
        f"failed {'once' if tries == 1 else f'{tries} times'}, at last with {why!r}. Mend what makes it fail, then "
        f"`exoflow resume {execution.run_id}` asks again",
    ) from why


def _in_doubt(execution: Execution, message: str) -> InDoubt:
    error = InDoubt(message)
    error.run_id = execution.run_id
    return error
