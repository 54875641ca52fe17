"""The runs of one process in one store: begun, joined, gone on with."""

from __future__ import annotations

import atexit
import logging
import random
import sys
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from exoflow import codec
from exoflow.driver import records
from exoflow.driver.bells import look
from exoflow.driver.clock import clock_in_use
from exoflow.driver.execution import Execution
from exoflow.driver.history import History, recorded_results
from exoflow.driver.hold import Hold
from exoflow.driver.identity import check_accepted, check_inputs
from exoflow.driver.opened import Executors, Opened
from exoflow.driver.rate import Rate
from exoflow.driver.sources import Sources
from exoflow.driver.spec import FlowSpec
from exoflow.driver.values import value_of
from exoflow.errors import Corrupt, Fenced, RunCancelled, RunIsLive, RunMismatch, StorageError
from exoflow.journal import Journal, Kind
from exoflow.journal.collector import at_rest
from exoflow.journal.takeover import Found
from exoflow.model import INLINE_MAX_BYTES, Inline, RunId, Status, Stored, Value
from exoflow.protocols import Executor, Store, place_of

logger = logging.getLogger(__name__)

_runtimes: dict[Hashable, Runtime] = {}
_lock = threading.Lock()


class Runtime(Hold):
    """What begins runs in a store, and goes on with them."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._chance = random.Random()  # no secret; seeded by the system
        self._opened: Opened | None = None
        self._keeps_source = Sources(store).keep
        self.rate = Rate()

    @staticmethod
    def of(store: Store) -> Runtime:
        """The runtime of a store in this process."""
        place = place_of(store)
        runtime = _runtimes.get(place)
        if runtime is None:
            with _lock:
                runtime = _runtimes.get(place)
                if runtime is None:
                    runtime = _runtimes[place] = Runtime(store)
        return runtime

    # -- beginning ---------------------------------------------------------------------------------------------------

    def begin(
        self,
        flow: FlowSpec,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        run_id: str | None,
        labels: Mapping[str, str],
        executor: Executor,
        executors: Executors,
        cwd: str,
    ) -> Execution:
        """A run of a flow: a new one, or the one of this id, wherever it stands.

        Raises:
            RunIsLive: another process has it.
            RunMismatch: it has other inputs, or is one of another flow.
        """
        inputs = codec.encode_arguments(args, kwargs, task=flow.name, function=flow.function, own=True)
        if run_id is None:
            journal, (id, epoch, index) = self._in_journal(lambda journal: (journal, journal.new_run(flow.name)))
            return self._begun(flow, args, kwargs, inputs, journal, id, epoch, index, labels, executor, executors, cwd)
        with self._turn(run_id):
            live = self._live(run_id)
            if live is not None:
                check_inputs(run_id, live.flow.name, live.encoded_inputs or (live.args, live.kwargs), flow, inputs)
                return live
            journal, claimed = self._in_journal(lambda journal: (journal, journal.claim(run_id)))
            if claimed.ours:
                epoch, index = claimed.epoch, claimed.run
                return self._begun(
                    flow, args, kwargs, inputs, journal, run_id, epoch, index, labels, executor, executors, cwd
                )
            assert claimed.found is not None
            return self._known(claimed.found, flow, inputs, executor, executors)

    def _begun(
        self,
        flow: FlowSpec,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        inputs: codec.Encoded,
        journal: Journal,
        run_id: str,
        epoch: int,
        index: int,
        labels: Mapping[str, str],
        executor: Executor,
        executors: Executors,
        cwd: str,
    ) -> Execution:
        seed = self._chance.getrandbits(62)
        execution = Execution(
            run_id=RunId(run_id),
            epoch=epoch,
            index=index,
            flow=flow,
            args=args,
            kwargs=kwargs,
            log=journal,
            store=self.store,
            clock=clock_in_use(),
            executors=self._executors(executors, executor),
            default=executor.name,
            seed=seed,
            values_prefix=journal.name,
            labels=labels,
            rate=self.rate,
        )
        execution.encoded_inputs = inputs if not codec.all_immutable(args, kwargs) else None
        execution.runtime_sources = self._keeps_source
        start = records.Start(
            Kind.START,
            index,
            run_id,
            epoch,
            execution.clock.now(),
            flow.name,
            flow.module,
            flow.file,
            flow.qualname,
            flow.version,
            flow.code,
            self._inputs_payload(inputs, journal.name, index),
            dict(labels),
            seed,
            cwd,
            executor.name,
        )
        self._keep(execution)
        try:
            execution.begun(start)
        except (Fenced, StorageError):  # the journal is over: the run never was, and can begin in the next one
            self._forget(execution)
            raise
        if epoch > 1:
            look(execution)  # somebody may have sent something when its first Start was not durable yet
        return execution

    def _executors(self, executors: Executors, default: Executor) -> Opened:
        """Those of the last run, if they are the same: a thousand runs at once need no thousand tables of one."""
        opened = self._opened
        if opened is None or opened.default is not default or opened.executors is not executors:
            opened = self._opened = Opened(executors, default)
        return opened

    def _inputs_payload(self, inputs: codec.Encoded, journal: str, index: int) -> records.Payload:
        if inputs.size <= INLINE_MAX_BYTES:
            return codec.to_bytes(inputs)
        name = f"values/{journal}/{index:x}/inputs"
        self.store.create(name, *codec.to_parts(inputs))
        return ["@", name, inputs.size]

    # -- going on ------------------------------------------------------------------------------------------------------

    def _known(
        self, found: Found, flow: FlowSpec, inputs: codec.Encoded, executor: Executor, executors: Executors
    ) -> Execution:
        """The run of a chosen id exists: live elsewhere, broken off, or ended."""
        history = History(found.records)
        if history.start is not None:
            recorded = self._encoded(history.start.inputs)
            check_inputs(found.run_id, history.start.flow, recorded, flow, inputs)
        if found.state == "live":
            error = RunIsLive(
                f"the run {found.run_id} is live in process {', '.join(map(str, found.processes))}: wait for it there, "
                f"or choose another run_id"
            )
            error.run_id, error.processes = found.run_id, found.processes
            raise error
        if history.start is None:
            raise _no_start(found.run_id)
        if found.state == "ended":
            return self._stored(found.run_id, flow, history, executor, executors)
        return self.adopt(found.run_id, lambda _: flow, executor=executor, executors=executors, given=inputs)

    def _encoded(self, payload: records.Payload) -> codec.Encoded | None:
        value: Value | None = value_of(payload)
        if isinstance(value, Inline):
            return codec.from_bytes(value)
        if isinstance(value, Stored):
            return codec.read_stored(self.store, value)
        return None

    def _stored(
        self, run_id: str, flow: FlowSpec, history: History, executor: Executor, executors: Executors
    ) -> Execution:
        """An ended run: its result or error, without a body."""
        ended = history.ended
        assert ended is not None
        assert history.start is not None
        execution = Execution(
            run_id=RunId(run_id),
            epoch=1,
            index=0,
            flow=flow,
            args=(),
            kwargs={},
            log=self.journal,
            store=self.store,
            clock=clock_in_use(),
            executors=Opened(executors, executor),
            default=executor.name,
            seed=0,
            labels=history.start.labels,
        )
        execution.had_ended(Status(ended.status), ended.payload)
        return execution

    def adopt(
        self,
        run_id: str,
        flow_of: Callable[[records.Start], FlowSpec],
        *,
        executor: Executor | None = None,
        executors: Executors,
        takeover: bool = False,
        accept: Sequence[str] = (),
        given: codec.Encoded | None = None,
    ) -> Execution:
        """Go on with a run that broke off or failed; a run that is done gives its result.

        ``given``: its inputs, once more. They are the recorded ones' equals, and the body gets them: what does not
        count as an input in them (an API's key, a scheduler, a queue) is what the program says today.

        Raises:
            RunNotFound: there is none; the message names the nearest.
            RunIsLive: its owner lives.
            RunCancelled: it was cancelled.
            RunError: it has no such call as is to be accepted.
        """
        with self._turn(run_id):
            live = self._live(run_id)
            if live is not None:
                return live
            return self._adopted(run_id, flow_of, executor, executors, takeover, accept, given)

    def _adopted(
        self,
        run_id: str,
        flow_of: Callable[[records.Start], FlowSpec],
        executor: Executor | None,
        executors: Executors,
        takeover: bool,
        accept: Sequence[str],
        given: codec.Encoded | None,
    ) -> Execution:
        self.journal.flush()  # it may have broken off in this very process, a moment ago
        found = self.journal.find(run_id, listens=not takeover)
        if accept and (found.state in ("ended", "broken_off") or (takeover and found.state == "live")):
            check_accepted(run_id, accept, recorded_results(found.records))
        if found.state == "ended":
            history = History(found.records)
            if history.start is None or history.ended is None:
                raise _no_start(run_id)
            if history.ended.status == Status.CANCELLED:
                error = RunCancelled(f"the run {run_id} was cancelled: start a new one")
                error.run_id = run_id
                raise error
            if history.ended.status == Status.DONE:
                default = executor or executors(history.start.executor)
                return self._stored(run_id, _code_or_name(flow_of, history.start), history, default, executors)
        with at_rest(len(found.history.entries)):
            journal, adopted = self._in_journal(lambda journal: (journal, journal.adopt(run_id, takeover)))
            history = History(adopted.records, damaged=bool(adopted.damaged))
        start = history.start
        if start is None:
            raise _no_start(run_id)
        flow = flow_of(start)
        default = executor or executors(start.executor)
        inputs = given or self._encoded(start.inputs)
        args, kwargs = codec.decode(inputs) if inputs is not None else ((), {})
        execution = Execution(
            run_id=RunId(run_id),
            epoch=adopted.epoch,
            index=adopted.run,
            flow=flow,
            args=args,
            kwargs=kwargs,
            log=journal,
            store=self.store,
            clock=clock_in_use(),
            executors=Opened(executors, default),
            default=default.name,
            seed=start.seed,
            history=history,
            values_prefix=journal.name,
            labels=start.labels,
            rate=self.rate,
        )
        execution.encoded_inputs = inputs
        execution.accepted = frozenset(accept)
        execution.runtime_sources = self._keeps_source
        self._keep(execution)
        execution.begun(None)
        if history.cancelled:
            execution.cancel()
        elif history.failing is not None:
            execution.go_on_failing(history.failing)
        look(execution)
        return execution


def live_executions() -> list[Execution]:
    """Every run that is live in this process, whatever its store."""
    return [execution for runtime in list(_runtimes.values()) for execution in list(runtime.executions.values())]


def _code_or_name(flow_of: Callable[[records.Start], FlowSpec], start: records.Start) -> FlowSpec:
    """The flow of a run that is done; its code may be gone, for nothing of it is run."""
    try:
        return flow_of(start)
    except RunMismatch:
        raise
    except Exception as error:  # noqa: BLE001 -- the user's module is imported here: anything can come
        logger.debug("the code of %s was not found, and is not needed: %s", start.flow, error)
        return FlowSpec(start.flow, lambda: None, version=start.version, qualname=start.qualname)


def _no_start(run_id: str) -> Corrupt:
    return Corrupt(
        f"the Start record of the run {run_id}, with its flow and inputs, is damaged: it cannot be resumed. Put the "
        f"journal back from a copy of the store, or start a new run under another id"
    )


@atexit.register
def _close() -> None:
    for runtime in list(_runtimes.values()):
        try:
            runtime.close()
        except Exception as error:  # noqa: BLE001 -- the interpreter is on its way out: say it, and go
            sys.stderr.write(f"exoflow: closing the journal of {runtime.store.url} failed: {error}\n")
