"""How a run stands, for clients: only what is durable (G7), and only their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from exoflow import codec
from exoflow.driver.history import History, in_doubt
from exoflow.driver.records import only_waits
from exoflow.driver.values import Values, value_of
from exoflow.errors import RunCancelled
from exoflow.journal.records import Kind
from exoflow.model import Status
from exoflow.protocols import Record
from exoflow.web.elsewhere import look
from exoflow.web.gateway import OWNER, Gateway
from exoflow.web.problems import Problem

if TYPE_CHECKING:
    from exoflow.catalogue import RunSummary
    from exoflow.journal.takeover import Found


class Standing(NamedTuple):
    """A run at one moment."""

    run_id: str
    flow: str
    status: Status
    started_s: float | None = None
    """None: it is live here, and nobody has looked into the journal."""
    ended_s: float | None = None
    outcome: object = None
    """The result of one that is done."""
    error: BaseException | None = None


def standing(gateway: Gateway, run_id: str, token: str) -> Standing:
    """Blocks: reads the journal, unless the run is live here.

    Raises:
        Problem: 404, there is no such run of this token.
    """
    live = gateway.runtime.executions.get(run_id)
    if live is not None and may_see(token, live.labels) and live.is_accepted():
        status = live.standing()
        if status in (Status.RUNNING, Status.WAITING):
            return Standing(run_id, live.flow.name, status)
    found = look(gateway.runtime, run_id)
    history = History(found.records)
    start = history.start
    if start is None or not may_see(token, start.labels):
        raise no_run(run_id)
    status = _status(gateway, found, history)
    ended = history.ended if found.state == "ended" else None
    outcome: object = None
    error: BaseException | None = None
    if ended is not None and status is Status.DONE:
        value = value_of(ended.payload)
        assert value is not None
        outcome = codec.decode(Values(gateway.store, {}).fetch(value))
    elif ended is not None and status is Status.FAILED:
        assert isinstance(ended.payload, bytes)
        error = codec.decode_error(ended.payload)
    elif status is Status.CANCELLED:
        error = RunCancelled(f"the run {run_id} was cancelled")
    return Standing(run_id, start.flow, status, start.time_s, ended.time_s if ended else None, outcome, error)


def _status(gateway: Gateway, found: Found, history: History) -> Status:
    if found.state == "ended":
        assert history.ended is not None
        return Status(history.ended.status)
    execution = gateway.runtime.executions.get(found.run_id)
    if execution is not None and not execution.ended.is_set():
        status = execution.standing()
        return status if status in (Status.RUNNING, Status.WAITING) else Status.RUNNING  # its end is not durable yet
    if found.state == "live":
        return Status.WAITING if only_waits(found.records) else Status.RUNNING
    return Status.IN_DOUBT if in_doubt(found.records) else Status.BROKEN_OFF


def may_see(token: str, labels: Mapping[str, str]) -> bool:
    """Whether a run is of a token. Who serves without tokens sees all."""
    return not token or labels.get(OWNER) == token


def no_run(run_id: str) -> Problem:
    """The same whether there is none or it is somebody else's."""
    return Problem(404, f"there is no run {run_id!r}")


def summary_json(run: RunSummary, gateway: Gateway) -> dict[str, object]:
    """A run in the listing."""
    live = gateway.runtime.executions.get(run.run_id)
    status = live.standing() if live is not None and run.ended_s is None else run.status
    return {
        "id": run.run_id,
        "flow": run.flow,
        "status": str(status),
        "started_s": run.started_s,
        "ended_s": run.ended_s,
    }


class Happening(NamedTuple):
    """Something durable in a run's history."""

    number: int
    """Its place in the history: the id of the event, in this process and in those that go on with the run."""
    what: str
    data: dict[str, object]


_CALLS = {Kind.SAVED: "done", Kind.MADE: "made", Kind.FAILED: "failed", Kind.INTENT: "begun", Kind.UNDONE: "undone"}


def happenings(records: tuple[Record, ...], after: int) -> Iterator[Happening]:
    """Those behind the one of this number."""
    for number, record in enumerate(records, 1):
        if number > after:
            found = _happening(record)
            if found is not None:
                yield Happening(number, *found)


def _happening(record: Record) -> tuple[str, dict[str, Any]] | None:
    kind = record[0]
    if kind == Kind.START:
        return "started", {"time_s": record[4], "flow": record[5]}
    if kind in _CALLS:
        return _CALLS[Kind(kind)], {"call": record[2], **_when(record)}
    if kind == Kind.CANCEL:
        return "cancelling", {"time_s": record[2]}
    if kind == Kind.ENDED:
        return str(record[2]), {"time_s": record[4]}
    return None


def _when(record: Record) -> dict[str, Any]:
    if record[0] == Kind.INTENT:
        return {"time_s": record[8], "effect": record[4]}
    if record[0] == Kind.UNDONE:
        return {"time_s": record[4]}
    return {"time_s": record[12] + record[13], "seconds": record[13], "attempt": record[14], "why": record[15]}
