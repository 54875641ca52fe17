"""Around the kernel of one run: events go in, commands are carried out, under one lock."""

from __future__ import annotations

import asyncio
import logging
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from exoflow import codec
from exoflow.driver import dispatching, ending, launching, records, saving, undo, waiting
from exoflow.driver.attempt import key_prefix
from exoflow.driver.body import Body
from exoflow.driver.dispatching import Dispatching
from exoflow.driver.handle import Handle
from exoflow.driver.history import History
from exoflow.driver.inbox import Inbox
from exoflow.driver.latch import Latch
from exoflow.driver.rate import Rate
from exoflow.driver.spec import FlowSpec
from exoflow.driver.values import Values
from exoflow.errors import InDoubt, Interruption
from exoflow.hooks import reach
from exoflow.kernel import commands as do
from exoflow.kernel.kernel import Kernel
from exoflow.model import CallId, RunId, Status, Value, Version
from exoflow.protocols import Clock, Executor, Log, Store

logger = logging.getLogger(__name__)

LAG_MAX = 512
"""Records that may be durable for a while before the kernel is told."""


class Shell:
    """The state of a run in this process and epoch. What it does to itself is here; what others ask, in ``Execution``.

    The modules beside this one are its parts: functions that carry out a command of the kernel, each given the
    execution. Public methods may be called from any thread, those excepted that say "under the lock".
    """

    kernel_type: type[Kernel] = Kernel
    """The zoo of broken kernels puts its animals here."""
    carry_out: Mapping[type[do.Command], Callable[[Any, Any], None]]
    """A table, since a chain of comparisons would be paid for at every step of every run."""

    encoded_inputs: codec.Encoded | None = None
    status = Status.RUNNING
    fatal: BaseException | None = None
    accepted: frozenset[str] = frozenset()
    runtime_sources: Callable[[bytes, Callable[..., Any]], None] | None = None
    outcome: Value | None = None
    """The encoded result."""
    root_error: bytes | None = None
    """The encoded error."""
    given_up: undo.GivenUp | None = None
    """The undo that has failed for good: the run ends with it."""
    undo_tries = 0
    """How often the undo was tried whose record is about to be appended."""
    end_status = Status.RUNNING
    """What ``status`` will be when the end is durable, at ``end_position``."""
    end_position = 0
    looking = 0
    """So many undos and probes are under way."""
    taken = False
    """Whether somebody runs its body."""
    on_end: tuple[Callable[[], None], ...] = ()
    forget: Callable[[Any], None] | None = None
    """Tells whoever keeps the execution that it has ended here."""
    idle: waiting.Idle | None = None
    """What the last look at it found, whether it only waits."""
    _known = 0
    """So many records are known to be durable."""
    _asked = 0
    """Highest seq that the journal was asked to tell us of."""

    def __init__(
        self,
        *,
        run_id: RunId,
        epoch: int,
        index: int,
        flow: FlowSpec,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        log: Log,
        store: Store,
        clock: Clock,
        executors: Mapping[str, Executor],
        default: str,
        seed: int,
        history: History | None = None,
        values_prefix: str = "",
        labels: Mapping[str, str] | None = None,
        rate: Rate | None = None,
    ) -> None:
        self.run_id = run_id
        self.key_prefix = key_prefix(run_id)
        self.epoch = epoch
        self.index = index
        self.flow = flow
        self.args = args
        self.kwargs = kwargs
        self.log = log
        self.clock = clock
        self.executors = executors
        self.default = default
        self.seed = seed
        self.labels = dict(labels) if labels else {}
        self.history = history if history is not None else History()
        self.values_prefix = values_prefix
        self.lock = threading.RLock()
        self.kernel = self.kernel_type(epoch, undo_on_failure=flow.undo_on_failure, strict=flow.strict)
        self.values = Values(store, executors)
        self.rate = rate or Rate()
        self.handles: dict[CallId, Handle] = {}
        self.bodies: dict[str, Body] = {}
        self.ended = Latch()
        self.offers: dict[CallId, None] = {}
        """Calls whose attempts are left to the thread or asyncio task that waits for them. (The collector has to walk a
        set, and not a dict of strings.)"""
        self.stash: dict[CallId, tuple[Handle, Version]] = {}
        """Those attempts. One that a body has not begun before it was set aside waits here for the next body."""
        self.delayed: dict[Version, Callable[[], object]] = {}
        """Attempts whose backoff has not passed, and timers, and what has the clock forget them."""
        self.inner: dict[Version, asyncio.Task[Any]] = {}
        """Attempts that run in asyncio tasks of the flow itself."""
        self.dispatching: dict[CallId, Dispatching] = {}
        """Attempts at paid calls, from their beginning until there is a record of what became of them."""
        self.save_tries: dict[CallId, int] = {}
        self.unreferenced: deque[Handle] = deque()
        """Calls to which the last Ref has gone, and whose value may go, too."""
        self.onlookers: dict[CallId, dict[Body, None]] = {}
        """Calls that other bodies wait for than the one that made them, and which."""
        self._positions: list[int] = []
        """Where in the journal the records are that are not known to be durable."""
        if history is not None:
            history.tell(self.kernel, self.values)

    # -- events ------------------------------------------------------------------------------------------------------

    def begun(self, start: records.Start | None) -> None:
        """Append the Start record of a new run; an adopted one has its own already."""
        with self.lock:
            if start is not None:
                self.append(start)
                self.kernel.started()
            self.advance()

    def event(self, event: Callable[..., object], *args: Any) -> None:
        """Bring the kernel an event and do what it says; an error of either stops the run, and loses nothing.

        Under the lock.
        """
        self.turn(event, *args)
        if self.kernel.urgent > self._asked:
            self.ask()

    def turn(self, event: Callable[..., object], *args: Any) -> None:
        """The same for a thread that makes durable itself what the run waits for, or asks later that it be made."""
        if self.end_position:
            return  # nothing counts any more, and no run again: a timer that nobody read, say
        kernel = self.kernel
        try:
            event(*args)
            while commands := kernel.take():
                for command in commands:
                    self.carry_out[type(command)](self, command)
            if len(self._positions) > LAG_MAX and self._positions[LAG_MAX] <= self.log.durable:
                self.catch_up()  # nobody asked; but what is durable need not be remembered
                self._carry_out_all()
            reach("driver.turned")
        except (Exception, Interruption) as error:  # Fenced: somebody took over, and whoever waits here is to be told
            logger.debug("run %s stopped: %s", self.run_id, error, exc_info=True)
            self.stop(error)

    def stop(self, error: BaseException) -> None:
        """End the run in this process without an end in the journal: it can be resumed."""
        with self.lock:
            if self.fatal is None and not self.ended.is_set():
                self.fatal = error
                self.status = Status.IN_DOUBT if isinstance(error, InDoubt) else Status.BROKEN_OFF
                self.wake_bodies()
                self.close()
                launching.abandon(self)  # type: ignore[arg-type]  # an Execution, which is this class's other half

    def end(self, error: BaseException | None) -> None:
        """The end is durable; or ``error`` says why it cannot be."""
        with self.lock:
            if error is not None:
                self.stop(error)
            elif not self.ended.is_set():
                self.status = self.end_status
                self.close()

    def close(self) -> None:
        """Tell everybody that the run has ended here. Under the lock."""
        self.values.release_all()
        dispatching.end_all(self)  # type: ignore[arg-type]  # as below
        for version in list(self.delayed):
            self.forget_timer(version)
        if self.forget is not None:  # first: who waits for the end finds no live run any more
            self.forget(self)
        self.ended.set()
        self.wake_bodies()
        callbacks, self.on_end = self.on_end, ()
        for callback in callbacks:
            callback()

    def forget_timer(self, version: Version) -> bool:
        """Whether the clock was to call back for this attempt. It does not any more. Under the lock."""
        forget = self.delayed.pop(version, None)
        if forget is not None:
            forget()
        return forget is not None

    @cached_property
    def inbox(self) -> Inbox:
        """What it was told from outside. Most runs are never told anything."""
        return Inbox(self)  # type: ignore[arg-type]  # an Execution, which is this class's other half

    @property
    def has_waited_for_events(self) -> bool:
        """Whether any call has, or somebody has told the run something."""
        return "inbox" in self.__dict__

    def over(self) -> bool:
        """Whether no body has anything to do any more: the run has ended here, or its end is on its way to the disk."""
        return bool(self.end_position) or self.ended.is_set()

    def wake_onlookers(self, handle: Handle) -> None:
        """Bodies that wait for what another body has called look again. Under the lock."""
        if self.onlookers:
            for body in self.onlookers.pop(handle.call.id, ()):
                body.wake_for(handle)

    def wake_bodies(self) -> None:
        """Everybody who waits looks again. Under the lock."""
        for body in list(self.bodies.values()):
            body.wake()

    # -- commands ----------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Carry out whatever the kernel wants done; an error stops the run, and is not the body's. Under the lock."""
        try:
            self._carry_out_all()
        except (Exception, Interruption) as error:
            logger.debug("run %s stopped: %s", self.run_id, error, exc_info=True)
            self.stop(error)
        if self.kernel.urgent > self._asked:
            self.ask()

    def _carry_out_all(self) -> None:
        kernel = self.kernel
        while commands := kernel.take():
            for command in commands:
                self.carry_out[type(command)](self, command)

    # -- records -----------------------------------------------------------------------------------------------------

    def append(self, record: tuple[Any, ...]) -> int:
        """Append a record that the kernel has counted; its position. Under the lock."""
        position = self.log.append(record)
        self._positions.append(position)
        return position

    def append_own(self, record: tuple[Any, ...]) -> None:
        """Append a record that the kernel has not ordered; an effect after it waits for it. Under the lock."""
        assert self._known + len(self._positions) == self.kernel.seq, "a record of the kernel's is still to be appended"
        self.append(record)
        self.kernel.counted()

    def catch_up(self) -> None:
        """Tell the kernel how far the journal is durable."""
        count = bisect_right(self._positions, self.log.durable)
        if count:
            del self._positions[:count]
            self._known += count
            self.kernel.durable(self._known)

    def ask(self) -> None:
        """Have the journal tell when what the run waits for is durable."""
        seq = self.kernel.urgent
        if seq > self._asked and self.fatal is None:
            position = self.urgent_position()
            if position is not None:
                self._asked = seq
                self.log.notify(position, self._on_durable)

    def urgent_position(self) -> int | None:
        """The journal position up to which the run waits for its records to be durable; None: it does not."""
        kernel = self.kernel
        return self.position_of(kernel.urgent) if kernel.urgent > kernel.durable_seq else None

    def position_of(self, seq: int) -> int | None:
        """The journal position of this run's seq-th record, while it is not known to be durable."""
        place = seq - self._known - 1
        return self._positions[place] if 0 <= place < len(self._positions) else None

    def is_accepted(self) -> bool:
        """Whether the run durably exists."""
        with self.lock:
            position = self.position_of(1)
        return position is None or position <= self.log.durable

    def when_accepted(self, callback: Callable[[BaseException | None], None]) -> None:
        """Call back when the run is durably known to exist, so that somebody may be told so; at once, if it is."""
        with self.lock:
            position = self.position_of(1)
        if position is None:
            callback(None)
        else:
            self.log.notify(position, callback)

    def _on_durable(self, error: BaseException | None) -> None:
        with self.lock:
            if error is not None:
                self.stop(error)
            elif self.fatal is None:
                self.event(self.catch_up)


def _deliver(execution: Shell, command: do.Deliver) -> None:
    handle = execution.handles.get(command.call)
    if handle is not None:
        handle.body.deliver(handle)
        execution.wake_onlookers(handle)


Shell.carry_out = {
    do.Run: launching.run,
    do.Stop: launching.stop,
    do.Save: saving.save,
    do.Make: saving.make,
    do.Upload: saving.upload,
    do.Snapshot: saving.snapshot,
    do.RecordSnapshot: saving.record_snapshot,
    do.Intend: undo.intend,
    do.Dispatch: dispatching.grant,
    do.Undo: undo.undo,
    do.RecordUndone: undo.record_undone,
    do.RecordUndoFailed: undo.record_undo_failed,
    do.RecordFailing: undo.record_failing,
    do.Probe: undo.probe,
    do.Deliver: _deliver,
    do.Replay: ending.replay,
    do.Doubt: ending.stop_in_doubt,
    do.EndScope: ending.end_scope,
    do.Finish: ending.finish,
}
