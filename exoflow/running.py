"""Runs, seen from outside: ask for the result, wait, cancel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from exoflow import codec
from exoflow.driver.runtime import Runtime
from exoflow.driver.values import Values, value_of
from exoflow.errors import InDoubt, RunCancelled, RunError, RunNotFound
from exoflow.journal import Kind
from exoflow.journal.following import Following
from exoflow.journal.numbered import in_bucket
from exoflow.journal.owners import Claim
from exoflow.model import Status
from exoflow.protocols import Store
from exoflow.sending import cancel

if TYPE_CHECKING:
    from exoflow.catalogue import RunSummary
    from exoflow.driver.execution import Execution

R = TypeVar("R")

_LOOK_S = (0.05, 1.0)
"""How long between two looks at a run of another process: at first, and at most."""


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that is durably known to have happened in a run."""

    time_s: float
    """Seconds since the epoch."""
    what: str
    """started, done, failed, made (done, and not saved), undone, undo failed, or how the run ended: done, failed,
    cancelled."""
    call: str | None = None
    """None: it is about the run itself."""
    attempt: int = 0
    """The n-th try at the call; 0 where it left no result, and was undone."""
    why: str | None = None
    """Why the call was made again."""


class Run(Generic[R]):
    """A run of a flow, in this process or in any other. It can be awaited: ``await run`` is its result."""

    def __init__(
        self, run_id: str, store: Store, execution: Execution | None = None, summary: RunSummary | None = None
    ) -> None:
        self._id = run_id
        self._store = store
        self._execution = execution
        self._summary = summary

    def __repr__(self) -> str:
        return f"<Run {self._id} in {self._store.url}>"

    @property
    def id(self) -> str:
        return self._id

    @property
    def flow(self) -> str:
        """The name of its flow."""
        return self._execution.flow.name if self._execution is not None else self._known().flow

    @property
    def labels(self) -> Mapping[str, str]:
        return self._execution.labels if self._execution is not None else self._known().labels

    @property
    def status(self) -> Status:
        """How it stands now."""
        if self._execution is not None:
            return self._execution.standing()
        if self._summary is None or self._summary.ended_s is None:
            self._summary = None
        summary = self._known()
        if summary.status in (Status.RUNNING, Status.WAITING):
            runtime = Runtime.of(self._store)
            if summary.journal == runtime.journal.name:
                live = runtime.executions.get(self._id)
                return Status.BROKEN_OFF if live is None else live.standing()  # it stopped, and this process lives
        return summary.status

    def result(self, timeout: float | None = None) -> R:
        """What the flow returned, once that is durable; waits for it, whichever process the run is in.

        Raises:
            TimeoutError: it is not there in time; the run goes on.
            RunCancelled: the run was cancelled.
            InDoubt: nobody knows whether an effect happened.
            RunError: the run broke off; ``exoflow.resume`` goes on with it.
            Exception: the flow's own error.
        """
        if self._execution is not None:
            self._refuse_on_loop(self._execution)
            return cast(R, self._execution.result(timeout))
        until = None if timeout is None else time.monotonic() + timeout
        pause_s, most_s = _LOOK_S
        following: Following | None = None
        while True:
            found = Runtime.of(self._store).journal.find(self._id)
            if found.state == "ended":
                return cast(R, self._recorded(found.records))
            self._refuse_unless_live(found.state)
            followed = _followed(self._store, found.claim, following)
            if followed is not following:
                following = followed
                continue  # what has come before it began to follow, it does not tell
            moved = False
            while not moved:
                left_s = most_s if until is None else until - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError(f"{self._id} is still {self.status} after {timeout} s")
                time.sleep(min(pause_s, left_s))
                pause_s = min(2 * pause_s, most_s)
                moved = following is None or found.claim is None or following.look().concerns(found.claim.run)

    def __await__(self) -> Generator[Any, None, R]:
        if self._execution is not None:
            return cast(Generator[Any, None, R], self._execution.result_async().__await__())
        return asyncio.to_thread(self.result).__await__()

    def cancel(self) -> None:
        """Cancel the run: what can be undone is undone, unless an effect stands on it. Durable when it returns.

        Whichever process has the run carries it out; of one that broke off, ``resume`` does, and raises RunCancelled.

        Raises:
            InDoubt: it stopped so, and nobody has said yet what happened.
        """
        if self._execution is not None:
            self._execution.cancel()
        else:
            cancel(self._id, self._store)

    def events(self) -> Iterator[RunEvent]:
        """What is durably known to have happened until now, in the order of time."""
        from exoflow.catalogue import Catalogue

        with Catalogue(self._store) as catalogue:
            catalogue.refresh()
            description = catalogue.describe(self._id)
        run = description.run
        events = [RunEvent(run.started_s, "started")]
        for call in description.calls:
            for seen in call.attempts:
                what = {"not saved": "made", "error": "failed"}.get(seen.saved, "done")
                ended_s = seen.started_s + seen.seconds
                events.append(RunEvent(seen.started_s, "started", call.id, seen.number, seen.why))
                events.append(RunEvent(ended_s, what, call.id, seen.number, seen.why))
            numbers = {seen.version: seen.number for seen in call.attempts}
            for undo in call.undoings:
                what = "undone" if undo.error is None else "undo failed"
                events.append(RunEvent(undo.time_s, what, call.id, numbers.get(undo.version, 0)))
        if run.ended_s is not None:
            events.append(RunEvent(run.ended_s, str(run.status)))
        yield from sorted(events, key=lambda event: event.time_s)

    def _refuse_on_loop(self, execution: Execution) -> None:
        if execution.flow.is_async and not execution.ended.is_set():
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                return
            raise RuntimeError(f"result() would block the event loop that the run {self._id} needs: write `await run`")

    def _known(self) -> RunSummary:
        if self._summary is None:
            from exoflow.catalogue import Catalogue  # SQLite: a program that only runs flows need not load it

            with Catalogue(self._store) as catalogue:
                catalogue.refresh()
                self._summary = catalogue.run(self._id)
        return self._summary

    def _refuse_unless_live(self, state: str) -> None:
        if state == "live":
            return
        error: RunError
        if state == "absent":
            error = RunNotFound(f"no run {self._id!r} in {self._store.url}")
        elif self.status is Status.IN_DOUBT:
            error = InDoubt(
                f"the run {self._id} stopped: it is unknown whether an effect happened; `exoflow show` says which"
            )
        else:
            error = RunError(f"the run {self._id} broke off: go on with it by exoflow.resume({self._id!r})")
        error.run_id = self._id
        raise error

    def _recorded(self, records: tuple[tuple[Any, ...], ...]) -> object:
        """The result that stands in the journal."""
        ended = next(record for record in reversed(records) if record[0] == Kind.ENDED)
        status, payload = ended[2], ended[3]
        if status == Status.CANCELLED:
            error = RunCancelled(f"the run {self._id} was cancelled")
            error.run_id = self._id
            raise error
        if status == Status.FAILED:
            raise codec.decode_error(payload)
        value = value_of(payload)
        assert value is not None
        return codec.decode(Values(self._store, {}).fetch(value))


def _followed(store: Store, claim: Claim | None, known: Following | None) -> Following | None:
    """Who tells when to look again at a run in a bucket: there, that is to read its whole journal."""
    if claim is None or not in_bucket(store):
        return None
    return known if known is not None and known.journal == claim.journal else Following(store, claim.journal)
