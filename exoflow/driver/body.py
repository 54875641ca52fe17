"""What sync and async flow bodies have in common: they make calls, and read them, in a first run and a replay alike."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from exoflow import codec
from exoflow.driver.calling import called
from exoflow.driver.damage import forsake
from exoflow.driver.handle import PLAIN, Handle
from exoflow.driver.identity import check_error
from exoflow.driver.outcomes import forget_value
from exoflow.driver.signals import at_a_time
from exoflow.driver.spec import FlowSpec, TaskSpec
from exoflow.driver.strands import current
from exoflow.driver.values import ValueLost
from exoflow.errors import Cancelled, Corrupt, RunMismatch, StorageError, Superseded
from exoflow.kernel.call import Call, State
from exoflow.model import CallId, Inline, Kind

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution

NESTED_COST = 4
"""A child flow inside others counts as so many frames, also where it has a stack of its own: each costs memory."""

reference_factory: Callable[[CallId, Handle], object] | None = None
"""Set by ``exoflow.refs``: makes the Ref that a body gets for a call."""


def current_body() -> Body | None:
    """The flow body that this thread or asyncio task belongs to."""
    strand = current.get()
    return None if strand is None else strand.body


class Body:
    """One incarnation of a flow body. A sync one has one strand, an async one has one for each asyncio task.

    How it waits for what it has called is all that differs: ``SyncBody`` and ``AsyncBody`` are this one's two forms.
    """

    is_async: ClassVar[bool]

    def __init__(self, execution: Execution, flow: FlowSpec, path: str = "", owner: Handle | None = None) -> None:
        self.execution = execution
        self.flow = flow
        self.owner = owner
        self.dead = False
        self.waits_for_end = False
        self.strands = 1
        self.nested: int = 0 if owner is None else owner.body.nested + 1
        self.lock = execution.lock
        self.scope = execution.kernel.opened(path, None if owner is None else owner.call.id)
        self.result: codec.Encoded | None = None
        self.value_with_refs: object = None
        self.error: bytes | None = None
        self.thread = 0
        self._condition: threading.Condition | None = None
        """Where its thread waits; most calls run in that thread, and none is needed."""
        self._parked = False
        self._lent = False
        """Whether its thread is a child flow's for now."""
        self._delivered = 0
        execution.bodies[path] = self

    @property
    def run_id(self) -> str:
        return self.execution.run_id

    def over(self) -> bool:
        """Whether what it does counts no more."""
        return self.dead or self.execution.fatal is not None or self.execution.kernel.cancelling

    def leave(self) -> None:
        """The user's code has ended."""

    def check(self) -> None:
        """Raise why the body can go no further, if so."""
        execution = self.execution
        if execution.fatal is not None:
            raise execution.fatal
        if execution.kernel.cancelling:
            raise Cancelled
        if self.dead:
            raise Superseded

    # -- making calls ----------------------------------------------------------------------------------------------

    def submit(self, spec: TaskSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Handle:
        """Start a call; its value stays where it is made."""
        with self.lock:
            handle = self.make(spec, args, kwargs)
            self.execution.advance()
            return handle

    def submit_child(self, flow: FlowSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Handle:
        """The same for a child flow: a call whose attempts are bodies of their own."""
        with self.lock:
            handle = self.make_child(flow, args, kwargs)
            self.execution.advance()
            return handle

    def make_child(self, flow: FlowSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Handle:
        """``make`` for a child flow.

        Raises:
            RecursionError: flows are too deep inside each other.
        """
        assert flow.task is not None
        if NESTED_COST * self.nested >= sys.getrecursionlimit():
            raise RecursionError(f"maximum recursion depth exceeded: {self.nested} child flows inside each other")
        handle = self.make(flow.task, args, kwargs)
        handle.flow = flow
        return handle

    def make(
        self,
        spec: TaskSpec,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        choose: Callable[[], object] | None = None,
    ) -> Handle:
        """Give the call its id and tell the kernel. Under the lock; commands are not carried out yet.

        Raises:
            RecursionError: the body has recursed too deep to make a call.
        """
        return called(self, spec, args, kwargs, choose)

    def _runs_here(self, spec: TaskSpec) -> bool:
        """Whether attempts run in the thread, or asyncio task, that waits for them. No thread can be ended in time."""
        if spec.actor is not None:
            return False  # an executor has its state
        executor = self.execution.default if spec.executor is None else spec.executor
        return executor == "local" and spec.is_async is self.is_async and (self.is_async or spec.timeout_s is None)

    # -- reading what is there ---------------------------------------------------------------------------------------

    def read(self, handle: Handle) -> object:
        """Give the body the value, or raise the error; under the lock.

        Raises:
            ValueLost: it is being made again.
        """
        execution = self.execution
        call = handle.call
        if call.failed:
            cause = cause_of(call)
            try:
                check_error(cause, execution)
            except RunMismatch as mismatch:
                execution.stop(mismatch)
                raise
            if self.strands > 1:
                self._record(call)
            self._is_given(call)
            raise execution.values.error(cause.id)
        value = execution.values.at[call.id]
        try:
            encoded = execution.values.fetch(value)
            if encoded.checksums is not None:
                encoded.checksums.verify()
        except KeyError as error:  # its executor lost it without a word
            execution.event(execution.kernel.lost, call.id)
            execution.event(execution.kernel.wants, call)
            raise ValueLost(call.id) from error
        except StorageError as error:  # the store's fault is not the flow's own: the run stops, and can be resumed
            if not isinstance(error, Corrupt):
                execution.stop(error)
                raise
            execution.event(forsake, execution, call.id, error)
            self.check()  # the run may stop for it, or this body begin anew
            execution.event(execution.kernel.wants, call)
            raise ValueLost(call.id) from error
        result = self._decoded(call, encoded)
        if self.strands > 1:
            self._record(call)
        self._is_given(call)
        alone = handle.order == PLAIN and not call.note.actor
        if alone and call.saved and type(value) is Inline and not encoded.refs:
            execution.handles.pop(call.id, None)  # no Ref stands for it, and whatever makes it again calls it again
        return result

    def _decoded(self, call: Call, encoded: codec.Encoded) -> object:
        execution = self.execution
        try:
            return codec.decode(encoded, lookup=self.reference, bring=execution.values.show)
        except ValueLost as lost:  # what an engine's object in it stands for
            execution.event(forget_value, execution, lost.args[0])
            self.check()
            execution.event(execution.kernel.wants, call)
            raise

    def _is_given(self, call: Call) -> None:
        execution, kernel, before = self.execution, self.execution.kernel, self.scope.stamp
        execution.event(kernel.read, self.scope, call)
        if kernel.unattached and self.scope.stamp != before and execution.has_waited_for_events:
            execution.event(execution.inbox.serve)  # what was taken in a life before may be there again

    def _record(self, call: Call) -> None:
        """Several strands: the order in which they are given values is recorded."""

    def reference(self, id: CallId) -> object:
        """The Ref that stands in a value that the body reads."""
        call = self.execution.kernel.reference(CallId(id.partition("!")[0]))
        handle = self.execution.handles.get(call.id)
        if reference_factory is None or handle is None:
            return codec.make_reference(id)
        return reference_factory(id, handle)

    # -- waiting in its thread ---------------------------------------------------------------------------------------

    def wait(self, handle: Handle) -> object:
        """Wait for one call in this thread, under the lock, and read it.

        An async body waits so for its readings of the world only: they are there at once, unless an undo is under way.
        """
        execution = self.execution
        call = handle.call
        execution.turn(execution.kernel.wants, call)
        while True:
            self._until_there(call)
            try:
                return self.read(handle)
            except ValueLost:
                continue  # it is being made again

    def _until_there(self, call: Call) -> None:
        execution = self.execution
        kernel = execution.kernel
        idle = False
        while not self.there(call):
            self.check()
            if self._worked(call) or self._committed():
                continue
            if not idle:
                idle = True
                execution.turn(kernel.waits, self.scope)
            else:
                self.still_wants(call)
                self.park()
        self.check()

    def there(self, call: Call) -> bool:
        """Whether it may be read. An event that has come for the call is taken now: until then another could have it.

        Under the lock.
        """
        execution = self.execution
        if execution.kernel.deliverable(call):
            return True
        if call.note.kind is not Kind.EVENT or not execution.inbox.keeps(call):
            return False
        execution.event(execution.inbox.take, call)
        return execution.kernel.deliverable(call)

    def still_wants(self, call: Call) -> None:
        """Before it waits on: what another has left runs for it, and it is told of what another body has called.

        Under the lock.
        """
        if call.note.may_be_left and call.state is State.IDLE:
            self.execution.event(self.execution.kernel.wants, call)
        if call.scope is not self.scope:
            self.execution.onlookers.setdefault(call.id, {})[self] = None

    def _worked(self, call: Call) -> bool:
        """Whether this thread could itself do something for the call."""
        return False

    def _committed(self) -> bool:
        """If the run waits for records to be durable, make them so in this thread."""
        execution = self.execution
        position = execution.urgent_position()
        if position is None:
            return False
        self.lock.release()
        try:
            execution.log.wait(position)
        except BaseException as error:
            execution.stop(error)
            raise
        finally:
            self.lock.acquire()
        execution.event(execution.catch_up)
        return True

    def park(self, timeout_s: float | None = None) -> None:
        """Wait in the body's thread until something has happened, or it is time to look; under the lock, which is free
        meanwhile.
        """
        if self._condition is None:
            self._condition = threading.Condition(self.lock)
        self._parked = True
        try:
            self._condition.wait(at_a_time(timeout_s))
        finally:
            self._parked = False

    # -- waking ------------------------------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether it is at a place where it waits, or has ended; of an async body: whether one of its strands waits.

        Not if there is news that it has not seen yet.
        """
        return self._parked or self._lent or self.scope.returned

    def deliver(self, handle: Handle) -> None:
        """A value is there. Under the lock."""
        if not handle.order:
            self._delivered += 1
            handle.order = self._delivered
        self.wake_for(handle)

    def wake_for(self, handle: Handle) -> None:
        """Let those look again who wait for this call."""
        self._notify()

    def wake(self) -> None:
        """Something about the run has changed: everybody who waits looks again."""
        self._notify()

    def _notify(self) -> None:
        if self._condition is not None:
            self._parked = False
            self._condition.notify_all()

    def set_aside(self) -> None:
        """What it has read is not true any more."""
        self.dead = True
        self.wake()


def cause_of(call: Call) -> Call:
    """The call whose own error is this one's."""
    while call.propagated and call.refs:
        call = call.refs[0]
    return call
