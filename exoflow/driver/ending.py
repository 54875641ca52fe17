"""How bodies and runs end."""

from __future__ import annotations

import logging
import shlex
from typing import TYPE_CHECKING

from exoflow import codec
from exoflow.driver import records
from exoflow.driver.attempt import key_of
from exoflow.driver.life import settle
from exoflow.driver.undo import was_answered
from exoflow.errors import InDoubt
from exoflow.journal.records import Kind as Code
from exoflow.kernel import commands as do
from exoflow.model import Held, Inline, Status, Stored

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution

logger = logging.getLogger(__name__)


def end_scope(execution: Execution, command: do.EndScope) -> None:
    """All calls of a body have ended."""
    settle(execution.bodies[command.scope], command.error)


def replay(execution: Execution, command: do.Replay) -> None:
    """What a body has read is not true any more: it begins anew, and so do its children."""
    for path, body in list(execution.bodies.items()):
        if path.startswith(command.scope):
            body.set_aside()


def stop_in_doubt(execution: Execution, command: do.Doubt) -> None:
    """Nobody knows whether an effect happened, and no guess is right."""
    if was_answered(execution, command):
        return
    key = key_of(execution, command.call, None)
    raised = execution.values.errors.get(command.call)
    why = None if raised is None else codec.decode_error(raised)
    error = InDoubt(
        f"the effect of {command.call} may or may not have happened (key {key}){f': {why!r}' if why else ''}. "
        f"Look at the service that it speaks to and say what you found, by "
        f"`{shlex.join(['exoflow', 'resolve', execution.run_id, command.call])}` with --did-not, or with "
        f"--happened JSON, which is what the call would have returned; then resume. A probe, or on_doubt='retry', "
        f"would save you that."
    )
    error.run_id = execution.run_id
    error.__cause__ = why
    logger.info("%s stopped: %s", execution.run_id, error, extra={"run": execution.run_id, "call": command.call})
    execution.stop(error)


def finish(execution: Execution, _: do.Finish) -> None:
    """Append the end. It is the run's output commit: nobody sees the result before it is durable (G7)."""
    given_up = execution.given_up
    if given_up is not None:
        execution.root_error = given_up.error
        status: Status = Status.FAILED
        payload: records.Payload = given_up.error
    elif execution.kernel.cancelling:
        status, payload = Status.CANCELLED, None
    elif execution.root_error is not None:
        status, payload = Status.FAILED, execution.root_error
    else:
        status, payload = Status.DONE, _result_payload(execution)
    now = execution.clock.now()
    ended = records.Ended(Code.ENDED, execution.index, str(status), payload, now, given_up is not None)
    position = execution.log.append(ended)
    execution.end_status = status
    execution.end_position = position
    execution.wake_bodies()
    root = execution.bodies.get("")  # none where a run is cancelled whose body was not replayed
    if root is None or root.dead or not root.waits_for_end:
        execution.log.notify(position, execution.end)
    _come_apart(execution)


def _result_payload(execution: Execution) -> records.Payload:
    value = execution.outcome
    assert isinstance(value, Inline | Held)
    if isinstance(value, Held):
        assert isinstance(value.handle, codec.Encoded)
        name = f"values/{execution.values_prefix}/{execution.index:x}/result-{execution.epoch:x}"
        execution.values.store.create(name, *codec.to_parts(value.handle))
        execution.outcome = Stored(name, value.size)
        return ["@", name, value.size]
    return value


def _come_apart(execution: Execution) -> None:
    """Let go of all but the outcome, and cut the cycles: runs may be many that wait for their ends to be durable."""
    execution.values.release_all()
    execution.values.at.clear()
    for body in execution.bodies.values():
        body.dead = True  # a strand that outlives its flow does nothing any more
    execution.bodies.clear()
    execution.handles.clear()
    for scope in execution.kernel.scopes.values():
        scope.calls.clear()
        scope.reads.clear()
