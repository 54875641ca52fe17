"""A flow body at work: makes calls, waits for them, reads them. The same for its first run and for a replay."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import random
import threading
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exoflow import codec
from exoflow.driver import records
from exoflow.driver.damage import forsake
from exoflow.driver.handle import Handle
from exoflow.driver.identity import check_error, check_same
from exoflow.driver.loops import Mailbox, background_loop, mailbox
from exoflow.driver.spec import FlowSpec, TaskSpec
from exoflow.driver.strands import Strand, current, hook
from exoflow.driver.undo import ValueLost
from exoflow.errors import Cancelled, Corrupt, ExoFlowError, RunError, RunMismatch, StorageError, Superseded
from exoflow.journal.records import Kind as Code
from exoflow.kernel.state import Call, State
from exoflow.model import Annotations, CallId, Kind, Version
from exoflow.protocols import Computed, Outcome

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution

logger = logging.getLogger(__name__)

_NOTE = Annotations(kind=Kind.NOTE)
_TIMER = Annotations(deterministic=True, checkpoint="never", kind=Kind.TIMER)

IDLE_CYCLES = 3  # of the event loop without a call, before an async body counts as waiting

reference_factory: Callable[[CallId, Handle], object] | None = None
"""Set by ``exoflow.refs``: makes the Ref that a body gets for a call."""


def current_body() -> Body | None:
    """The flow body that this thread or asyncio task belongs to."""
    strand = current.get()
    return None if strand is None else strand.body


def live_bodies() -> int:
    """Flow bodies at work in this process."""
    return _live[0]


_live = [0]


class Body:
    """One incarnation of a flow body. Sync bodies have one strand; async ones one for each asyncio task."""

    def __init__(self, execution: Execution, flow: FlowSpec, path: str = "", owner: Handle | None = None) -> None:
        self.execution = execution
        self.flow = flow
        self.owner = owner
        self.is_async = flow.is_async
        self.dead = False
        self.waits_for_end = False
        self.strands = 1
        self.lock = execution.lock
        self.scope = execution.kernel.opened(path, None if owner is None else owner.call.id)
        self.order = execution.history.reads.pop(path, None)
        self._pending: set[Call] = set()
        self._futures: dict[Call, list[asyncio.Future[None]]] = {}
        self._watchers: list[asyncio.Future[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._mail: Mailbox | None = None
        self._parked = False
        self._condition: threading.Condition | None = None
        """Where a sync body waits; most calls run in its own thread, and none is needed."""
        self._delivered = 0
        self._activity = 0
        self._result: codec.Encoded | None = None
        self._value: object = None
        self._error: bytes | None = None
        execution.bodies[path] = self

    @property
    def run_id(self) -> str:
        return self.execution.run_id

    # -- making calls ----------------------------------------------------------------------------------------------

    def _make(
        self,
        spec: TaskSpec,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        choose: Callable[[], object] | None = None,
    ) -> Handle:
        """Give the call its id and tell the kernel. Under the lock; commands are not carried out yet."""
        execution = self.execution
        kernel = execution.kernel
        self._check()
        strand = current.get()
        assert strand is not None
        assert strand.body is self
        name = spec.name
        if spec.key is None:
            n = strand.counts.get(name, 0)
            strand.counts[name] = n + 1
            id = CallId(f"{strand.prefix}{name}#{n}")
        else:
            id = CallId(f"{self.scope.path}{name}[{spec.key}]")
            known = kernel.calls.get(id)
            if known is not None and known.attached:
                raise RunError(f"the key {spec.key!r} is already taken by another call of {name} in this flow: {id}")
        inputs: tuple[Call, ...] = ()
        passes: tuple[Call, ...] = ()
        encoded = fingerprint = None
        if not codec.all_immutable(args, kwargs):
            references = codec.find_references(args, kwargs)
            if references:
                inputs, passes = self._edges(spec, references, args, kwargs)
            encoded = codec.encode_arguments(args, kwargs, task=name, function=spec.function, own=True)
            fingerprint = codec.fingerprint(args, kwargs)
        past = execution.history.results.get(id) if execution.history.results else None
        try:
            call = kernel.called(self.scope, id, spec.note, inputs, passes)
            handle = Handle(call, self, spec, args, kwargs, encoded, fingerprint)
            if choose is not None:
                handle.choose = choose
            execution.handles[id] = handle
            if past is not None and call.attached:
                check_same(call, past, handle, execution)
        except ExoFlowError as error:
            execution.stop(error)
            raise
        if not call.attached:
            execution.advance()  # making this call has shown that the body has read what is not true any more
            self.dead = True
            raise Superseded
        self._activity += 1
        return handle

    def _edges(
        self, spec: TaskSpec, references: Sequence[codec.Reference], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Call, ...], tuple[Call, ...]]:
        """Refs among the arguments: those whose values are needed, and those that are passed on as they are."""
        passed: set[CallId] = set()
        if spec.ref_parameters:
            passed = codec_passed(spec, args, kwargs)
        kernel = self.execution.kernel
        inputs: dict[Call, None] = {}
        passes: dict[Call, None] = {}
        for reference in references:
            owner: Handle | None = getattr(reference, "_handle", None)  # ids are a run's own: another's would mislead
            if owner is not None and owner.body.execution is not self.execution:
                raise RuntimeError(
                    f"{reference!r} belongs to the run {owner.body.run_id}, and means nothing in {self.run_id}: "
                    "pass its value from one run to the other"
                )
            call = kernel.reference(CallId(reference.call_id.partition("!")[0]))
            (passes if reference.call_id in passed else inputs)[call] = None
        return tuple(inputs), tuple(passes)

    def submit(self, spec: TaskSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Handle:
        """Start a call; its value stays where it is made."""
        with self.lock:
            handle = self._make(spec, args, kwargs)
            self.execution.advance()
            return handle

    def call(self, spec: TaskSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
        """Make a call and wait for its value; where it can, it runs in this very thread."""
        with self.lock:
            handle = self._make(spec, args, kwargs)
            handle.order = -1  # nobody will ask which was first
            return self._await(handle, offer=self._runs_here(spec))

    def _runs_here(self, spec: TaskSpec) -> bool:
        execution = self.execution
        if spec.note.kind is Kind.FLOW:
            return True
        local = execution.default if spec.executor is None else spec.executor
        return local == "local" and not spec.is_async and spec.timeout_s is None

    # -- waiting, in a sync body -----------------------------------------------------------------------------------

    def _await(self, handle: Handle, *, offer: bool = False) -> object:
        """Wait for one call under the lock, and read it."""
        execution = self.execution
        call = handle.call
        kernel = execution.kernel
        if offer:
            execution._offers.add(call.id)
        try:
            execution.turn(kernel.wants, call)
            while True:
                self._until_there(call, offer)
                try:
                    return self._read(handle)
                except ValueLost:
                    continue  # it is being made again
        finally:
            if offer:
                execution._offers.discard(call.id)

    def _until_there(self, call: Call, offer: bool) -> None:
        execution = self.execution
        kernel = execution.kernel
        idle = False
        while not kernel.deliverable(call):
            self._check()
            stashed = execution._stash.pop(call.id, None) if offer else None
            if stashed is not None:
                self._run_here(*stashed)
            elif self._commit():
                continue
            elif not idle:
                idle = True
                execution.turn(kernel.waits, self.scope)
            else:
                self.park()
        self._check()

    def _run_here(self, handle: Handle, version: Version) -> None:
        """Run an attempt in the body's own thread, without the lock."""
        execution = self.execution
        if handle.spec.note.kind is Kind.FLOW:
            handle.started_s = execution.clock.now()
            body = handle.body.open_child(handle, version, here=True)
            assert body is not None
            self.lock.release()
            try:
                body.run()
            finally:
                self.lock.acquire()
            return
        attempt = execution.attempt(handle, version)
        executor = execution.executor_of(handle.spec)
        if execution.runtime_sources is not None:
            execution.runtime_sources(handle.spec.code, handle.spec.function)
        token = current.set(None)
        self.lock.release()
        try:
            outcome: Outcome = executor.run(attempt)  # type: ignore[attr-defined]  # only the local executor runs here
        finally:
            self.lock.acquire()
            current.reset(token)
        if execution.fatal is None:
            execution.turn(execution._take_outcome, handle, version, outcome)

    def _commit(self) -> bool:
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

    def _read(self, handle: Handle) -> object:
        """Give the body the value, or raise the error; under the lock."""
        execution = self.execution
        call = handle.call
        if call.failed:
            cause = _cause(call)
            try:
                check_error(cause, execution)
            except RunMismatch as mismatch:
                execution.stop(mismatch)
                raise
            execution.event(execution.kernel.read, self.scope, call)
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
            self._check()  # the run may stop for it, or this body begin anew
            execution.event(execution.kernel.wants, call)
            raise ValueLost(call.id) from error
        if self.strands > 1:
            reads = self.scope.reads
            execution.log.append(
                records.Read(Code.READ, execution.index, self.scope.path, call.id, self.scope.stamp, len(reads))
            )
        execution.event(execution.kernel.read, self.scope, call)
        return codec.decode(encoded, lookup=self._reference)

    def _reference(self, id: CallId) -> object:
        """The Ref that stands in a value that the body reads."""
        call = self.execution.kernel.reference(CallId(id.partition("!")[0]))
        handle = self.execution.handles.get(call.id)
        if reference_factory is None or handle is None:
            return codec.make_reference(id)
        return reference_factory(id, handle)

    def value(self, handle: Handle, timeout_s: float | None = None) -> object:
        """The value of a call; waits for it.

        Raises:
            TimeoutError: it was not there in time. Recorded: a replay sees the same.
        """
        with self.lock:
            if timeout_s is None:
                return self._await(handle)
            if self._timed_out(handle, timeout_s):
                raise TimeoutError(f"{handle.call.id} was not done after {timeout_s} s")
            return self._await(handle)

    def _timed_out(self, handle: Handle, timeout_s: float) -> bool:
        execution = self.execution
        kernel = execution.kernel
        note = self._make(TaskSpec("timeout", _nothing, _NOTE), (), {})
        execution.event(kernel.wants, note.call)
        execution.event(kernel.wants, handle.call)
        deadline = execution.clock.monotonic() + timeout_s
        execution.event(kernel.waits, self.scope)
        while not kernel.deliverable(note.call):
            self._check()
            left_s = deadline - execution.clock.monotonic()
            if (kernel.deliverable(handle.call) or left_s <= 0) and note.call.state is State.RUNNING:
                execution.event(execution.note, note, not kernel.deliverable(handle.call))
            elif not self._commit():
                self.park(left_s if left_s > 0 else None)
        return bool(self._await(note))

    def values(self, handles: Sequence[Handle], *, return_exceptions: bool = False) -> list[object]:
        """The values of many calls, in order; waits for all of them at once."""
        execution = self.execution
        kernel = execution.kernel
        with self.lock:
            self._check()
            for handle in handles:
                if not kernel.deliverable(handle.call):
                    execution.event(kernel.wants, handle.call)
                    self._pending.add(handle.call)
            self._pending = {call for call in self._pending if not kernel.deliverable(call)}
            if self._pending:
                execution.event(kernel.waits, self.scope)
            while self._pending:
                self._check()
                if not self._commit():
                    self.park()
                elif self._pending:
                    self._pending = {call for call in self._pending if not kernel.deliverable(call)}
            return [self._read_or(handle, return_exceptions) for handle in handles]

    def _read_or(self, handle: Handle, return_exceptions: bool) -> object:
        if not return_exceptions:
            return self._await(handle)
        try:
            return self._await(handle)
        except Exception as error:  # noqa: BLE001 -- whatever the user's code raises is an outcome
            return error

    def next_of(self, handles: Sequence[Handle]) -> int:
        """Index of a completed call among these; which one is recorded."""
        with self.lock:
            note = self._start_choice(handles)
            kernel = self.execution.kernel
            while not kernel.deliverable(note.call):
                self._check()
                if not self._choose(note, handles):
                    self.park()
            index = self._await(note)
            assert isinstance(index, int)
            return index

    def _start_choice(self, handles: Sequence[Handle]) -> Handle:
        kernel = self.execution.kernel
        note = self._make(TaskSpec("as_completed", _nothing, _NOTE), (), {})
        self.execution.event(kernel.wants, note.call)
        if not kernel.deliverable(note.call):
            for handle in handles:
                kernel.wants(handle.call)
            self.execution.event(lambda: kernel.waits(self.scope, settled=not self.is_async))
        return note

    def _choose(self, note: Handle, handles: Sequence[Handle]) -> bool:
        """Record which call is the next one, if one is there and the choice may be made now."""
        kernel = self.execution.kernel
        ready = [(handle.order, i) for i, handle in enumerate(handles) if kernel.deliverable(handle.call)]
        if ready and note.call.state is State.RUNNING:
            self.execution.event(self.execution.note, note, min(ready)[1])
        return kernel.deliverable(note.call)

    # -- waiting, in an async body ---------------------------------------------------------------------------------

    def call_async(
        self, spec: TaskSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Coroutine[Any, Any, object]:
        """Make a call now, where it is written; awaited, it waits for the value (I1)."""
        execution = self.execution
        here = spec.is_async and execution.executor_of(spec) is execution.executors.get("local")
        with self.lock:
            handle = self._make(spec, args, kwargs)
            if here:
                execution._offers.add(handle.call.id)
            execution.event(execution.kernel.wants, handle.call)
        return self._finish_async(handle) if here else self.value_async(handle)

    async def _finish_async(self, handle: Handle) -> object:
        """Wait for a call whose attempts run in this asyncio task, if nowhere else."""
        execution = self.execution
        call = handle.call
        try:
            while True:
                stashed = execution._stash.pop(call.id, None)
                if stashed is not None:
                    await self._run_here_async(*stashed)
                with self.lock, contextlib.suppress(ValueLost):  # lost: it is being made again
                    self._check()
                    if self._ready(call):
                        return self._give(handle)
                await self._suspend(call)
        finally:
            execution._offers.discard(call.id)

    async def _run_here_async(self, handle: Handle, version: Version) -> None:
        execution = self.execution
        with self.lock:
            attempt = execution.attempt(handle, version)
        token = current.set(None)
        try:
            outcome = await execution.executors["local"].run_async(attempt)  # type: ignore[attr-defined]
        finally:
            current.reset(token)
        with self.lock:
            if execution.fatal is None:
                execution.event(execution._take_outcome, handle, version, outcome)

    def _ready(self, call: Call) -> bool:
        """Whether the strand may be given the value now: not before what a recorded run was given first (L9)."""
        if not self.execution.kernel.deliverable(call):
            return False
        order, reads = self.order, len(self.scope.reads)
        while order and order[0].reads_at < reads:
            order.popleft()
        if not order or order[0].reads_at > reads:
            return True
        if order[0].version != self.scope.stamp:
            order.clear()  # another history: what was read before is not what it was
            return True
        return order[0].call == call.id

    async def value_async(self, handle: Handle) -> object:
        """The value of a call, for one strand of an async body."""
        call = handle.call
        with self.lock:
            self._check()
            self.execution.event(self.execution.kernel.wants, call)
        while True:
            with self.lock:
                self._check()
                if self._ready(call):
                    with contextlib.suppress(ValueLost):  # it is being made again
                        return self._give(handle)
            await self._suspend(call)

    def _give(self, handle: Handle) -> object:
        """Read a value whose turn it is; under the lock. Whoever waits for theirs looks again."""
        try:
            return self._read(handle)
        finally:
            if self.order:
                for waiting in list(self._futures):
                    self._wake_futures(waiting)

    async def _suspend(self, call: Call) -> None:
        loop = asyncio.get_running_loop()
        with self.lock:
            self._check()
            if self._ready(call) or call.id in self.execution._stash:
                return
            self._loop = loop
            future: asyncio.Future[None] = loop.create_future()
            self._futures.setdefault(call, []).append(future)
            if self.scope.deferred or self.order:
                loop.call_soon(self._idle, self._activity, IDLE_CYCLES)
        await future

    def _idle(self, activity: int, cycles: int) -> None:
        """Nothing has happened for some cycles of the loop: the body waits."""
        if activity != self._activity or self.dead:
            return
        if cycles and self._loop is not None:
            self._loop.call_soon(self._idle, activity, cycles - 1)
            return
        with self.lock:
            if self.execution.fatal is None:
                self.execution.event(lambda: self.execution.kernel.waits(self.scope, settled=False))

    async def values_async(self, handles: Sequence[Handle], *, return_exceptions: bool = False) -> list[object]:
        """The values of many calls, in order."""
        kernel = self.execution.kernel
        with self.lock:
            self._check()
            for handle in handles:
                self.execution.event(kernel.wants, handle.call)
        found: list[object] = []
        for handle in handles:
            try:
                found.append(await self.value_async(handle))
            except Exception as error:
                if not return_exceptions:
                    raise
                found.append(error)
        return found

    async def next_of_async(self, handles: Sequence[Handle]) -> int:
        """Index of a completed call among these; which one is recorded."""
        with self.lock:
            note = self._start_choice(handles)
        while True:
            with self.lock:
                self._check()
                if self._choose(note, handles):
                    break
                loop = self._loop = asyncio.get_running_loop()
                future: asyncio.Future[None] = loop.create_future()
                for handle in handles:
                    self._futures.setdefault(handle.call, []).append(future)
                self._futures.setdefault(note.call, []).append(future)
            await future
        index = await self.value_async(note)
        assert isinstance(index, int)
        return index

    # -- the world -------------------------------------------------------------------------------------------------

    def note(self, name: str, choose: Callable[[], object]) -> object:
        """A reading of the world, taken once and recorded."""
        with self.lock:
            return self._await(self._make(TaskSpec(name, _nothing, _NOTE), (), {}, choose))

    def done(self, handle: Handle) -> bool:
        with self.lock:
            kernel = self.execution.kernel
            return bool(
                self._await(
                    self._make(TaskSpec("done", _nothing, _NOTE), (), {}, lambda: kernel.deliverable(handle.call))
                )
            )

    def now(self) -> float:
        value = self.note("now", self.execution.clock.now)
        assert isinstance(value, float)
        return value

    def _chance(self, what: str) -> random.Random:
        strand = current.get()
        assert strand is not None
        n = strand.counts.get(what, 0)
        strand.counts[what] = n + 1
        return random.Random(f"{self.execution.seed}/{strand.prefix}{what}#{n}")  # replayable by design

    def uuid4(self) -> uuid.UUID:
        return uuid.UUID(int=self._chance("uuid4").getrandbits(128), version=4)

    def rng(self) -> random.Random:
        return self._chance("rng")

    def timer(self, seconds: float) -> Handle:
        """A call that completes after so many seconds; when is recorded, so a replay does not wait anew."""
        clock = self.execution.clock
        with self.lock:
            at = self._make(TaskSpec("timer_at", _nothing, _NOTE), (), {}, lambda: clock.now() + seconds)
            self.execution.advance()
            if not self.execution.kernel.deliverable(at.call):
                self.execution.event(self.execution.kernel.wants, at.call)
            handle = self._make(TaskSpec("timer", _nothing, _TIMER), (codec.make_reference(at.call.id),), {})
            self.execution.advance()
            return handle

    # -- child flows -----------------------------------------------------------------------------------------------

    def _child_spec(self, flow: FlowSpec) -> TaskSpec:
        assert flow.task is not None
        return flow.task

    def submit_child(self, flow: FlowSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Handle:
        with self.lock:
            handle = self._make(self._child_spec(flow), args, kwargs)
            handle.flow = flow
            self.execution.advance()
            return handle

    def child(self, flow: FlowSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
        with self.lock:
            handle = self._make(self._child_spec(flow), args, kwargs)
            handle.flow = flow
            return self._await(handle, offer=not flow.is_async)

    def child_async(
        self, flow: FlowSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Coroutine[Any, Any, object]:
        return self.value_async(self.submit_child(flow, args, kwargs))

    def open_child(self, handle: Handle, version: Version, *, here: bool = False) -> Body | None:
        """Begin the body of a child flow: in a thread or asyncio task of its own, or ``here``."""
        flow = handle.flow
        assert flow is not None
        body = Body(self.execution, flow, f"{handle.call.id}/", handle)
        if here:
            return body
        if not flow.is_async:
            threading.Thread(target=body.run, name=f"exoflow-{handle.call.id}", daemon=True).start()
        elif self._loop is not None or self.is_async:
            loop = self._loop or asyncio.get_running_loop()
            context = contextvars.copy_context()
            context.run(current.set, None)  # a child flow is no strand of its parent
            loop.call_soon_threadsafe(lambda: keep(loop.create_task(body.run_async())), context=context)
        else:
            asyncio.run_coroutine_threadsafe(body.run_async(), background_loop())
        return None

    # -- running the body ------------------------------------------------------------------------------------------

    def _arguments(self) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        execution = self.execution
        if self.owner is None:
            return execution.arguments()
        with self.lock:
            return self._child_arguments(self.owner)

    def _arguments_or_none(self) -> tuple[tuple[Any, ...], Mapping[str, Any]] | None:
        """The arguments; None: one is lost and is made again, and then this body begins anew."""
        try:
            return self._arguments()
        except ValueLost as lost:
            assert self.owner is not None
            with self.lock:
                if not self._over():
                    self.dead = True
                    self.execution.event(self.execution.forget_value, lost.args[0])
                    self.execution.event(self.execution.kernel.not_begun, self.owner.call.id)
            return None

    def _child_arguments(self, owner: Handle) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Values in the places of Refs; a parameter that is annotated as a Ref gets the Ref, to be read in here."""
        execution = self.execution
        args, kwargs = owner.args, owner.kwargs
        if owner.encoded is not None:
            args, kwargs = codec.decode(owner.encoded, lookup=self._reference)  # type: ignore[arg-type]
        wanted = owner.spec.ref_parameters
        if not wanted:
            return codec.substitute(args, kwargs, execution.value_of_ref)
        bound = inspect.signature(self.flow.function).bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if name not in wanted:
                (bound.arguments[name],), _ = codec.substitute((value,), {}, execution.value_of_ref)
        return bound.args, bound.kwargs

    def run(self) -> None:
        """Run a sync body to its end, and tell the kernel what it came to."""
        arguments = self._arguments_or_none()
        if arguments is None:
            return
        token = current.set(Strand(self, ""))
        _live[0] += 1
        try:
            args, kwargs = arguments
            value = self.flow.function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 -- whatever the user's code raises is an outcome
            self._returned(None, error)
        except BaseException as error:  # noqa: BLE001 -- an Interruption; or Ctrl-C, SystemExit: the run stops, and can be resumed
            if not self._over():
                self.execution.stop(error)
        else:
            self._returned(value, None)
        finally:
            _live[0] -= 1
            current.reset(token)

    async def run_async(self) -> None:
        """The same for an async body."""
        self._loop = asyncio.get_running_loop()
        self._mail = mailbox(self._loop)
        hook(self._loop)
        arguments = self._arguments_or_none()
        if arguments is None:
            return
        token = current.set(Strand(self, ""))
        _live[0] += 1
        try:
            args, kwargs = arguments
            value = await self.flow.function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 -- whatever the user's code raises is an outcome
            self._returned(None, error)
        except BaseException as error:  # noqa: BLE001 -- an Interruption; or Ctrl-C, SystemExit: the run stops, and can be resumed
            if not self._over():
                self.execution.stop(error)
        else:
            self._returned(value, None)
        finally:
            _live[0] -= 1
            current.reset(token)

    def _over(self) -> bool:
        return self.dead or self.execution.fatal is not None or self.execution.kernel.cancelling

    def _returned(self, value: object, error: Exception | None) -> None:
        """The body has ended. Its result is encoded here, in its own thread, unless Refs stand in it."""
        refs: Sequence[codec.Reference] = ()
        if error is None:
            try:
                refs = codec.find_references((value,), {})
                if not refs or self.owner is not None:
                    self._result = codec.encode_result(value, task=self.flow.name)
            except Exception as refused:  # noqa: BLE001 -- whatever the user's code raises is an outcome
                error = refused
        self._value = value if refs else None
        with self.lock:
            if self._over():
                return
            self._error = codec.encode_error(error) if error is not None else None
            kernel = self.execution.kernel
            calls = tuple(kernel.reference(CallId(ref.call_id.partition("!")[0])) for ref in refs)
            self.execution.event(lambda: kernel.returned(self.scope, calls, raised=error is not None))

    def settle(self, unread: CallId | None) -> None:
        """All calls of this body have ended: what it came to counts. Under the lock."""
        execution = self.execution
        error = self._error
        if unread is not None and error is None:
            error = codec.encode_error(execution.values.error(_cause(execution.kernel.calls[unread]).id))
        if self.owner is None:
            self._settle_root(error)
            return
        owner = self.owner
        if error is not None:
            execution.values.errors[owner.call.id] = error
            execution.kernel.failed(owner.call.id, owner.call.attempt)
            return
        assert self._result is not None
        value = execution.values.keep(self._result)
        seconds = execution.clock.now() - owner.started_s
        execution._take_value(owner, owner.call.attempt, Computed(value, seconds, self._result.refs))

    def _settle_root(self, error: bytes | None) -> None:
        execution = self.execution
        if error is None and self._result is None:
            try:
                (value,), _ = codec.substitute((self._value,), {}, execution.value_of_ref)
            except ValueLost as lost:
                execution.forget_value(lost.args[0])
                execution.kernel.unsettled()
                return
            self._result = codec.encode_result(value, task=self.flow.name)
        execution.settle_root(self._result, error)
        execution.kernel.settled(failed=error is not None)

    # -- waking ----------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        execution = self.execution
        if execution.fatal is not None:
            raise execution.fatal
        if self.dead:
            raise Superseded
        if execution.kernel.cancelling:
            raise Cancelled

    def deliver(self, handle: Handle) -> None:
        """A value is there. Under the lock."""
        call = handle.call
        if not handle.order:
            self._delivered += 1
            handle.order = self._delivered
        if self.is_async:
            self._wake_futures(call)
        elif self._pending:
            self._pending.discard(call)
            if not self._pending:
                self._unpark()
        else:
            self._unpark()

    def wake_for(self, handle: Handle) -> None:
        if self.is_async:
            self._wake_futures(handle.call)
        else:
            self._unpark()

    def _wake_futures(self, call: Call) -> None:
        futures = self._futures.pop(call, None)
        if futures and self._mail is not None:
            self._mail.post(futures)

    def wake(self) -> None:
        """Something about the run has changed: everybody who waits looks again."""
        for call in list(self._futures):
            self._wake_futures(call)
        if self._watchers and self._mail is not None:
            watchers, self._watchers = self._watchers, []
            self._mail.post(watchers)
        self._unpark()

    def park(self, timeout_s: float | None = None) -> None:
        """Wait in the body's thread until something has happened; under the lock, which is free meanwhile."""
        if self._condition is None:
            self._condition = threading.Condition(self.lock)
        self._parked = True
        try:
            self._condition.wait(timeout_s)
        finally:
            self._parked = False

    @property
    def waits(self) -> bool:
        """Whether it is at a place where it waits; of an async body: whether one of its strands is."""
        return bool(self._futures) if self.is_async else self._parked

    def _unpark(self) -> None:
        if self._condition is not None:
            self._condition.notify_all()

    async def changed(self) -> None:
        """Until something about the run has changed: its end, a body set aside."""
        with self.lock:
            if self.dead or self.execution.ended.is_set():
                return
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._watchers.append(future)
        await future

    def set_aside(self) -> None:
        """What it has read is not true any more."""
        self.dead = True
        self.wake()


def _cause(call: Call) -> Call:
    """The call whose own error is this one's."""
    while call.propagated and call.refs:
        call = call.refs[0]
    return call


_tasks: set[asyncio.Task[None]] = set()


def keep(task: asyncio.Task[None]) -> None:
    """The loop itself holds tasks weakly."""
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def _nothing() -> None: ...


def codec_passed(spec: TaskSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> set[CallId]:
    """Call ids of the Refs in parameters that are annotated as Refs."""
    bound = inspect.signature(spec.function).bind(*args, **kwargs)
    wanted = [value for name, value in bound.arguments.items() if name in spec.ref_parameters]
    return {reference.call_id for reference in codec.find_references(tuple(wanted), {})}
