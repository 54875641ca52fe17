"""Tell a run something from outside, from any process: an event, a cancel, what became of an effect in doubt."""

from __future__ import annotations

import logging
import shlex
import time
from typing import TYPE_CHECKING

from exoflow import codec, settings
from exoflow.driver.bells import look
from exoflow.driver.body import current_body
from exoflow.driver.history import in_doubt, open_doubts
from exoflow.driver.inbox import check_event_name
from exoflow.driver.runtime import Runtime
from exoflow.errors import DidNotHappen, InDoubt, RunError, RunIsLive, StorageError
from exoflow.journal.inbox import Message, messages_after, post, ring
from exoflow.model import CallId, Happened

if TYPE_CHECKING:
    from exoflow.journal.takeover import Found
    from exoflow.protocols import Store

__all__ = ["cancel", "resolve", "send"]

logger = logging.getLogger(__name__)


def send(
    run_id: str,
    event: str,
    data: object = None,
    *,
    id: str | None = None,
    store: settings.StoreSpec | None = None,
) -> None:
    """Send a run an event, whichever process it is in, or in none. It is durable when this returns.

    Args:
        run_id: Of the run.
        event: The name under which the flow waits for it.
        data: What it gets.
        id: Of this sending: with the same one again, after an error, say, it is taken once.
        store: Where the run is; the default one if None.

    Raises:
        RunNotFound: there is no such run; the message names the nearest id.
        RunError: the run has ended: nobody will take it.
        ValueError: the flow waits for other data; the message names the field. Only a run of this process says so.
        RuntimeError: in a flow, where a replay would send it again.
    """
    if current_body() is not None:
        raise RuntimeError(f"exoflow.send({run_id!r}, ...) in a flow: a replay would send it again. Send it in a task")
    check_event_name(event)
    if id is not None and not isinstance(id, str):
        raise TypeError(f"the id of a sending must be text, not {id!r}")
    opened = settings.store_of(store)
    live = Runtime.of(opened).executions.get(run_id)
    if live is None:
        found = _known(opened, run_id, listens=False)
        if found.state == "ended":
            if id is not None and any(
                each.id == id and each.name == event for each in messages_after(opened, run_id, 0)
            ):
                return  # it was taken: who did not hear that sends it again
            raise _has_ended(run_id, "send it an event")
    else:
        with live.lock:
            if live.over():
                raise _has_ended(run_id, "send it an event")
            live.inbox.check(event, data)
        live.secure()
    payload = codec.to_bytes(codec.encode(data, what=f"the data of the event {event!r}"))
    _tell(opened, run_id, Message("event", time.time(), event, bytes(payload), id))


def cancel(run_id: str, store: Store) -> None:
    """Have whoever owns the run, now or later, cancel it. Durable when it returns; one that has ended stays as it is.

    Raises:
        RunNotFound: there is no such run; the message names the nearest id.
        InDoubt: it stopped because nobody knows whether an effect happened: a cancel would have that forgotten.
    """
    found = _known(store, run_id)
    if found.state != "ended":
        check_doubts(store, found)
        _tell(store, run_id, Message("cancel", time.time()))


def check_doubts(store: Store, found: Found) -> None:
    """Refuse to cancel a run that no process works on while nobody has said what became of an effect.

    Raises:
        InDoubt: the message names the calls.
    """
    if found.state != "broken_off":
        return
    left = open_doubts(found.records, messages_after(store, found.run_id, 0))
    if left:
        resolve_it = shlex.join(["exoflow", "resolve", found.run_id, left[0]])
        error = InDoubt(
            f"the run {found.run_id} cannot be cancelled: nobody knows whether the effect of {' and '.join(left)} "
            f"happened. Say it first: {resolve_it} --happened JSON | --did-not"
        )
        error.run_id = found.run_id
        raise error


def resolve(
    run_id: str, call: str, answer: Happened | DidNotHappen, *, store: settings.StoreSpec | None = None
) -> None:
    """Say whether an effect in doubt happened. Durable when it returns; then ``resume`` goes on.

    Args:
        run_id: Of the run.
        call: The call whose effect is in doubt.
        answer: ``Happened(value)``, with what the call would have returned, or ``DidNotHappen()``.
        store: Where the run is; the default one if None.

    Raises:
        RunNotFound: there is no such run; the message names the nearest id.
        RunIsLive: a process is at work on it: the effect may be under way.
        RunError: the call is not in doubt; the message names those that are.
    """
    opened = settings.store_of(store)
    found = _open(opened, run_id, "resolve anything in it")
    if found.state == "live":
        error = RunIsLive(f"the run {run_id} is live, and the effect may be under way: wait until the run has stopped")
        error.run_id, error.processes = run_id, found.processes
        raise error
    doubts = in_doubt(found.records)
    version = doubts.get(CallId(call))
    if version is None:
        those = f"these are: {', '.join(doubts)}" if doubts else "nothing in it is"
        raise _about(run_id, f"{call} is not in doubt in the run {run_id}; {those}")
    message = Message("did not happen", time.time(), call, version=version)
    if isinstance(answer, Happened):
        payload = codec.to_bytes(codec.encode(answer.value, what=f"the value of {call}"))
        message = message._replace(what="happened", payload=bytes(payload))
    _tell(opened, run_id, message)


def _tell(store: Store, run_id: str, message: Message) -> None:
    """Post it, then tell the owner that there is something: in this order, so that a new owner finds it."""
    runtime = Runtime.of(store)
    number = post(store, run_id, message)
    live = runtime.executions.get(run_id)
    if live is not None:
        look(live)
        return
    try:
        owner = runtime.journal.find(run_id, listens=False)
        if owner.state == "live":
            ring(store, owner.claim.journal if owner.claim is not None else owner.journal, run_id, number)
    except StorageError as error:  # the message is durable: its owner finds it later, too
        logger.debug("the owner of %s was not told of message %d: %s", run_id, number, error)


def _open(store: Store, run_id: str, what: str) -> Found:
    found = _known(store, run_id)
    if found.state == "ended":
        raise _has_ended(run_id, what)
    return found


def _has_ended(run_id: str, what: str) -> RunError:
    return _about(run_id, f"the run {run_id} has ended: one cannot {what} any more")


def _known(store: Store, run_id: str, *, listens: bool = True) -> Found:
    journal = Runtime.of(store).journal
    journal.flush()  # it may have broken off in this very process, a moment ago
    found = journal.find(run_id, listens=listens)
    if found.state == "absent":
        raise journal.not_found(run_id)
    return found


def _about(run_id: str, text: str) -> RunError:
    error = RunError(text)
    error.run_id = run_id
    return error
