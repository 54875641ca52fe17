"""One live run: brings the kernel its events and carries out its commands, under one lock."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from exoflow import codec
from exoflow.driver import records
from exoflow.driver.body import Body, keep
from exoflow.driver.damage import made_again, verify
from exoflow.driver.handle import Handle
from exoflow.driver.history import History
from exoflow.driver.latch import Latch
from exoflow.driver.loops import background_loop, mailbox
from exoflow.driver.spec import FlowSpec, TaskSpec
from exoflow.driver.undo import Undoing
from exoflow.driver.values import Values, payload_of, value_of
from exoflow.errors import InDoubt, Interruption, RunCancelled, StorageError
from exoflow.hooks import reach
from exoflow.journal.records import Kind as Code
from exoflow.kernel import commands as do
from exoflow.kernel.kernel import Kernel
from exoflow.kernel.state import State
from exoflow.model import CallId, Held, Inline, Kind, RunId, Status, Stored, Value, Version, show_version
from exoflow.protocols import Attempt, Clock, Computed, Executor, Log, Outcome, Raised, Store, Vanished

logger = logging.getLogger(__name__)

SAVE_TRIES = 3
LAG_MAX = 512
"""Records that may be durable for a while before the kernel is told."""


class Execution(Undoing):
    """A run in this process and epoch. Every method that is not private may be called from any thread."""

    kernel_type: type[Kernel] = Kernel
    """The zoo of broken kernels puts its animals here."""

    encoded_inputs: codec.Encoded | None = None
    status = Status.RUNNING
    fatal: BaseException | None = None
    accepted: frozenset[str] = frozenset()
    runtime_sources: Callable[[bytes, Callable[..., Any]], None] | None = None
    outcome: Value | bytes | None = None
    """The encoded result, or the encoded error."""
    end_position = 0
    taken = False
    """Whether somebody runs its body."""
    _end_status = Status.RUNNING
    _seq = 0
    _asked = 0
    """Highest seq that the journal was asked to tell us of."""
    _root_error: bytes | None = None

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
    ) -> None:
        self.run_id = run_id
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
        self.labels = dict(labels or {})
        self.history = history if history is not None else History()
        self.values_prefix = values_prefix
        self.lock = threading.RLock()
        self.kernel = self.kernel_type(epoch, undo_on_failure=flow.undo_on_failure)
        self.values = Values(store, executors)
        self.handles: dict[CallId, Handle] = {}
        self.bodies: dict[str, Body] = {}
        self.ended = Latch()
        self.on_end: list[Callable[[], None]] = []
        self._positions: deque[tuple[int, int]] = deque()
        self._stash: dict[CallId, tuple[Handle, Version]] = {}
        self._offers: set[CallId] = set()
        self._save_tries: dict[CallId, int] = {}
        if history is not None:
            history.tell(self.kernel, self.values)

    # -- events ----------------------------------------------------------------------------------------------------

    def arguments(self) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """The flow's inputs, a fresh copy for each incarnation of the body."""
        if self.encoded_inputs is None:
            return self.args, self.kwargs
        args, kwargs = codec.decode(self.encoded_inputs)
        return args, kwargs

    def begun(self, start: records.Start | None) -> None:
        """Append the Start record of a new run; an adopted one has its own already."""
        with self.lock:
            if start is not None:
                self._append(start)
                self.kernel.started()
            self.advance()

    def report(self, handle: Handle, version: Version, outcome: Outcome) -> None:
        """An executor says what became of an attempt."""
        with self.lock:
            if self.fatal is None:
                self.event(self._take_outcome, handle, version, outcome)

    def _take_outcome(self, handle: Handle, version: Version, outcome: Outcome) -> None:
        self.values.take_back(version)
        call = handle.call
        if isinstance(outcome, Computed):
            self._take_value(handle, version, outcome)
            return
        if call.attempt == version:
            self._timed(handle, outcome.seconds)
        if isinstance(outcome, Raised):
            self.values.errors[call.id] = outcome.error
            self.kernel.failed(call.id, version, did_not_happen=outcome.did_not_happen)
        else:
            if call.attempt == version:
                self.values.errors[call.id] = self._vanished_error(handle, outcome.reason)
            for lost in outcome.lost:
                self.forget_value(lost)
            if outcome.lost and not call.attached and call.attempt == version and call.state is State.RUNNING:
                call.state = State.IDLE  # its body has been set aside, and makes it again
            else:
                self.kernel.vanished(call.id, version)

    def value_lost(self, id: CallId) -> None:
        """An executor has lost a value that it held."""
        with self.lock:
            if self.fatal is None:
                self.event(self.forget_value, id)

    def forget_value(self, id: CallId) -> None:
        if isinstance(self.values.at.get(id), Held):
            self.kernel.lost(_owner(id))
        else:
            self.values.only_stored(id)
            verify(self, id)

    def _take_value(self, handle: Handle, version: Version, outcome: Computed) -> None:
        call = handle.call
        value = outcome.value
        if call.attempt == version:
            self._timed(handle, outcome.seconds)
        refs = tuple(self.kernel.reference(_owner(ref)) for ref in outcome.refs if _owner(ref) != call.id)
        inline = type(value) is Inline
        size = len(value.data) if isinstance(value, Inline) else value.size
        counts = self.kernel.computed(
            call.id,
            version,
            size=size,
            inline=inline,
            stored=isinstance(value, Stored),
            seconds=outcome.seconds,
            refs=refs,
        )
        if not counts:
            self.values.release(value)
            return
        self.values.at[call.id] = value
        if outcome.puts:
            handle.put_ids = tuple(id for id, _ in outcome.puts)
            self.values.at.update(outcome.puts)

    def _timed(self, handle: Handle, seconds: float) -> None:
        """Note when the body began: an attempt may have waited for its executor long before that."""
        handle.seconds = seconds
        handle.started_s = self.clock.now() - seconds

    def _vanished_error(self, handle: Handle, reason: str) -> bytes:
        from exoflow.errors import TaskFailed

        error: Exception = TaskFailed(f"{handle.call.id}: {reason}")
        if reason.startswith("timed out"):
            error = TimeoutError(f"{handle.call.id} {reason}")
        return codec.encode_error(error)

    def catch_up(self) -> None:
        """Tell the kernel how far the journal is durable."""
        positions = self._positions
        durable = self.log.durable
        seq = 0
        while positions and positions[0][0] <= durable:
            seq = positions.popleft()[1]
        if seq:
            self.kernel.durable(seq)

    def _on_durable(self, error: BaseException | None) -> None:
        with self.lock:
            if error is not None:
                self.stop(error)
            elif self.fatal is None:
                self.event(self.catch_up)

    def event(self, event: Callable[..., object], *args: Any) -> None:
        """Bring the kernel an event and do what it says; an error of either stops the run, and loses nothing."""
        self.turn(event, *args)
        self.ask()

    def turn(self, event: Callable[..., object], *args: Any) -> None:
        """The same for a thread that makes durable itself what the run waits for, or asks later that it be made."""
        try:
            event(*args)
            self._carry_out_all()
            if len(self._positions) > LAG_MAX and self._positions[LAG_MAX][0] <= self.log.durable:
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
                for body in list(self.bodies.values()):
                    body.wake()
                self._close()

    # -- commands --------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Carry out whatever the kernel wants done; an error stops the run, and is none of the body's own."""
        try:
            self._carry_out_all()
        except (Exception, Interruption) as error:
            logger.debug("run %s stopped: %s", self.run_id, error, exc_info=True)
            self.stop(error)
        self.ask()

    def _carry_out_all(self) -> None:
        kernel = self.kernel
        while commands := kernel.take():
            for command in commands:
                self._carry_out(command)

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
        for position, number in reversed(self._positions):
            if number == seq:
                return position
        return None

    def _carry_out(self, command: do.Command) -> None:
        _CARRY_OUT[type(command)](self, command)

    def _make(self, command: do.Make) -> None:
        self.append_result(Code.MADE, self.handles[command.call], command.version, ())

    def _record_undone(self, command: do.RecordUndone) -> None:
        self._append(records.Undone(Code.UNDONE, self.index, command.call, command.version, self.clock.now()))

    def _replay(self, command: do.Replay) -> None:
        for path, body in list(self.bodies.items()):
            if path.startswith(command.scope):
                body.set_aside()

    def _append(self, record: tuple[Any, ...]) -> int:
        position = self.log.append(record)
        self._seq += 1
        self._positions.append((position, self._seq))
        return position

    def _run(self, command: do.Run) -> None:
        handle = self.handles[command.call]
        kind = handle.spec.note.kind
        if kind is Kind.NOTE:
            if handle.choose is not None:
                self.note(handle, handle.choose())
            else:
                handle.body.wake_for(handle)
            return
        handle.number = command.number
        handle.why = command.why if command.why != "first" else None
        if command.why == "retry":
            delay_s = self._backoff(handle)
            if delay_s > 0:
                self.clock.call_at(self.clock.now() + delay_s, lambda: self._launch_later(handle, command.version))
                return
        if handle.call.id in self._offers:
            self._stash[handle.call.id] = (handle, command.version)
            handle.body.wake_for(handle)
            return
        self._launch(handle, command.version)

    def _launch_later(self, handle: Handle, version: Version) -> None:
        with self.lock:
            if self.fatal is None and handle.call.attempt == version:
                self.event(self._launch, handle, version)

    def _launch(self, handle: Handle, version: Version) -> None:
        note = handle.spec.note
        kind = note.kind
        handle.started_s = self.clock.now()
        if kind is Kind.FLOW:
            if handle.call.body is not None or not handle.call.attached:
                self.kernel._reopening.discard(handle.call)  # or nobody could open it again
                return  # its parent was set aside after this was ordered
            handle.body.open_child(handle, version)
        elif kind is Kind.TIMER:
            self._arm(handle, version)
        else:
            if note.rollback and self.history.intents[handle.call.id].inputs is None:
                self._take_outcome(handle, version, Vanished("an input is lost", lost=self.lost_input(handle)))
                return
            attempt = self.attempt(handle, version)
            executor = self.executor_of(handle.spec)
            if self.runtime_sources is not None:
                self.runtime_sources(handle.spec.code, handle.spec.function)
            executor.start(attempt, lambda outcome: self.report(handle, version, outcome))

    def _arm(self, handle: Handle, version: Version) -> None:
        when = codec.decode(self.values.fetch(self.values.at[handle.call.inputs[0].id]))
        assert isinstance(when, float)
        ring = Computed(Inline(NONE), 0.0)
        self.clock.call_at(when, lambda: self.report(handle, version, ring))

    def _backoff(self, handle: Handle) -> float:
        backoff = handle.spec.backoff
        tries = handle.call.tries
        chance = random.Random(f"{self.seed}/{handle.call.id}/{tries}")  # jitter, not a secret
        delay_s: float = min(backoff.max_s, backoff.initial_s * backoff.factor ** (tries - 1))
        return delay_s * (1 + backoff.jitter * (2 * chance.random() - 1))

    def executor_of(self, spec: TaskSpec) -> Executor:
        if spec.executor is None:
            return self.executors[self.default]
        if isinstance(spec.executor, str):
            return self.executors[spec.executor]
        return spec.executor

    def attempt(self, handle: Handle, version: Version) -> Attempt:
        """What an executor needs to know."""
        spec, call = handle.spec, handle.call
        inputs = self._input_values(handle) if call.inputs else {}
        self.values.give(version, inputs.values())
        save_to = self._value_name(call.id, version) if spec.note.saves == "sync" else None
        return Attempt(
            self.run_id,
            call.id,
            version,
            handle.number,
            self.key(call.id, version if spec.note.rollback else None),
            spec.name,
            spec.function,
            handle.args,
            handle.kwargs,
            inputs,
            spec.timeout_s,
            spec.resources,
            save_to,
            handle.encoded,
        )

    def _input_values(self, handle: Handle) -> dict[CallId, Value]:
        """The value of every Ref in the arguments, and of the Refs inside those values."""
        at = self.values.at
        inputs: dict[CallId, Value] = {}
        pending = list(handle.call.inputs)
        while pending:
            source = pending.pop()
            if source.id in inputs or source.id not in at:
                continue
            inputs[source.id] = self.values.given(source.id)
            owner = self.handles.get(source.id)
            here = owner.put_ids if owner is not None else ()  # empty, too, where the call's record is used
            for put in here or self.history.puts.get(source.id, ()):
                inputs[put] = self.values.given(put)
            pending.extend(source.refs)
        return inputs

    def key(self, call: CallId, version: Version | None) -> str:
        """The idempotency key (G11): of the call; of the attempt, where it can be undone."""
        return f"{self.run_id}/{call}" if version is None else f"{self.run_id}/{call}@{show_version(version)}"

    def _stop_attempt(self, command: do.Stop) -> None:
        handle = self.handles.get(command.call)
        if handle is not None:
            self.executor_of(handle.spec).cancel(command.version, self.run_id)

    # -- saving ----------------------------------------------------------------------------------------------------

    def _value_name(self, id: CallId, version: Version, put: int | None = None) -> str:
        suffix = "" if put is None else f".{put}"
        return f"values/{self.values_prefix}/{self.index:x}/{abs(hash_of(id)):x}-{version:x}{suffix}"

    def _save(self, command: do.Save) -> None:
        handle = self.handles[command.call]
        code = Code.FAILED if command.failed else Code.SAVED
        self.append_result(code, handle, command.version, command.names, command.newest)

    def append_result(
        self, code: Code, handle: Handle, version: Version, names: tuple[CallId, ...], newest: int = 0
    ) -> None:
        call = handle.call
        at = self.values.at
        payload: records.Payload = None
        puts: list[list[Any]] | None = None
        if code is Code.SAVED:
            payload = payload_of(at[call.id])
            if handle.put_ids:
                puts = [[id, payload_of(at[id])] for id in handle.put_ids]
        elif code is Code.FAILED:
            payload = self.values.errors[call.id]
        note = call.note
        bits = call.is_choice | (note.effect is not None) << 1 | (note.kind is Kind.FLOW) << 2
        if self.history.absent:
            made_again(self, call.id)
        self._append(
            (
                code,
                self.index,
                call.id,
                version,
                payload,
                puts,
                [ref.id for ref in call.refs] if call.refs else None,
                list(names) if names else None,
                call.reads_at,
                [i.id for i in call.inputs] if call.inputs else None,
                handle.fingerprint,
                handle.spec.code,
                handle.started_s,
                handle.seconds,
                handle.number,
                handle.why,
                bits,
                newest,
            )
        )

    def _upload(self, command: do.Upload) -> None:
        """Store a large value; the puts beside it go first (L2)."""
        handle = self.handles[command.call]
        parts: list[tuple[CallId, str]] = [(handle.call.id, self._value_name(handle.call.id, command.version))]
        for n, id in enumerate(handle.put_ids):
            parts.append((id, self._value_name(handle.call.id, command.version, n)))
        self._upload_next(
            handle, command.version, [part for part in parts if isinstance(self.values.at[part[0]], Held)]
        )

    def _upload_next(self, handle: Handle, version: Version, parts: list[tuple[CallId, str]]) -> None:
        if not parts:
            self.kernel.uploaded(handle.call.id, version)
            return
        id, name = parts.pop()

        def report(saved: Stored | BaseException) -> None:
            with self.lock:
                if self.fatal is None:
                    self.event(self._uploaded_part, handle, version, parts, id, name, saved)

        self.values.save(self.values.at[id], name, report)

    def _uploaded_part(
        self,
        handle: Handle,
        version: Version,
        parts: list[tuple[CallId, str]],
        id: CallId,
        name: str,
        saved: Stored | BaseException,
    ) -> None:
        if handle.call.version != version or handle.call.upload != version:
            return
        if isinstance(saved, KeyError):
            self.kernel.lost(handle.call.id)
            return
        if isinstance(saved, BaseException):
            tries = self._save_tries[id] = self._save_tries.get(id, 0) + 1
            if tries >= SAVE_TRIES:
                raise StorageError(
                    f"the result of {handle.call.id} could not be saved in {tries} tries: {saved}. Nothing that was "
                    f"committed is lost: mend the store, then `exoflow resume {self.run_id}`."
                ) from saved
            parts.append((id, f"{name}.{tries}"))
        else:
            self.values.saved(id, saved)
        self._upload_next(handle, version, parts)

    def _intend(self, command: do.Intend) -> None:
        handle = self.handles[command.call]
        note = handle.spec.note
        what = "rollback" if note.rollback else str(note.effect)
        key = self.key(command.call, command.version if note.rollback else None)
        intent = records.Intent(
            Code.INTENT,
            self.index,
            command.call,
            command.version,
            what,
            list(command.names),
            list(command.releases),
            self.undo_payload(handle) if note.rollback else None,
            self.clock.now(),
            key,
        )
        self.history.intents[command.call] = intent
        self._append(intent)

    # -- delivering and ending -------------------------------------------------------------------------------------

    def _deliver(self, command: do.Deliver) -> None:
        handle = self.handles.get(command.call)
        if handle is not None:
            handle.body.deliver(handle)

    def note(self, handle: Handle, value: object) -> None:
        """A reading of the world, recorded like any choice (L7)."""
        data = codec.to_bytes(codec.encode(value))
        self._take_value(handle, handle.call.attempt, Computed(Inline(data), 0.0))

    def _end_scope(self, command: do.EndScope) -> None:
        self.bodies[command.scope].settle(command.error)

    def settle_root(self, value: codec.Encoded | None, error: bytes | None) -> None:
        """What the root body came to."""
        self._root_error = error
        self.outcome = self.values.keep(value) if value is not None else None

    def _in_doubt(self, command: do.Doubt) -> None:
        error = InDoubt(
            f"the effect of {command.call} may or may not have happened (key {self.key(command.call, None)}). Look at "
            'the service that it speaks to, say in the code what happened (on_doubt="retry", or a probe), and resume.'
        )
        error.run_id = self.run_id
        self.stop(error)

    def _finish(self, _: do.Finish) -> None:
        """Append the end. It is the run's output commit: nobody sees the result before it is durable (G7)."""
        if self.kernel.cancelling:
            status: Status = Status.CANCELLED
            payload: records.Payload = None
        elif self._root_error is not None:
            status, payload = Status.FAILED, self._root_error
        else:
            status, payload = Status.DONE, self._result_payload()
        position = self.log.append(records.Ended(Code.ENDED, self.index, str(status), payload, self.clock.now()))
        self._end_status = status
        self.end_position = position
        for body in list(self.bodies.values()):
            body.wake()
        root = self.bodies.get("")  # none where a run is cancelled whose body was not replayed
        if root is None or not root.waits_for_end:
            self.log.notify(position, self._on_end)

    def _result_payload(self) -> records.Payload:
        value = self.outcome
        assert isinstance(value, Inline | Held)
        if isinstance(value, Held):
            assert isinstance(value.handle, codec.Encoded)
            name = f"values/{self.values_prefix}/{self.index:x}/result-{self.epoch:x}"
            self.values.store.create(name, *codec.to_parts(value.handle))
            self.outcome = Stored(name, value.size)
            return ["@", name, value.size]
        return value.data

    def _on_end(self, error: BaseException | None) -> None:
        with self.lock:
            if error is not None:
                self.stop(error)
            elif not self.ended.is_set():
                self.status = self._end_status
                self._close()
                self._come_apart()

    def _come_apart(self) -> None:
        """Cut the cycles between the parts of an ended run, so that its memory is free as soon as nobody has it."""
        for body in self.bodies.values():
            body.dead = True  # a strand that outlives its flow does nothing any more
        self.bodies.clear()
        self.handles.clear()
        for scope in self.kernel.scopes.values():
            scope.calls.clear()
            scope.reads.clear()

    def _close(self) -> None:
        self.ended.set()
        self.values.release_all()
        for body in list(self.bodies.values()):
            body.wake()
        callbacks, self.on_end = self.on_end, []
        for callback in callbacks:
            callback()

    def had_ended(self, status: Status, payload: records.Payload) -> None:
        """It is a run that ended before: there is only its result, or its error."""
        self.status = status
        if status is Status.FAILED:
            assert isinstance(payload, bytes)
            self._root_error = payload
        elif status is Status.DONE:
            self.outcome = value_of(payload)
        self.ended.set()

    def when_ended(self, callback: Callable[[], None]) -> None:
        with self.lock:
            if self.ended.is_set():
                callback()
            else:
                self.on_end.append(callback)

    # -- running the root body ---------------------------------------------------------------------------------------

    def run(self) -> object:
        """Run a sync flow in this thread to its end, replaying it as often as the kernel says.

        Raises:
            Exception: as ``result``.
        """
        try:
            while not self.ended.is_set():
                body = Body(self, self.flow)
                body.waits_for_end = True
                body.run()
                self._wait_for_end(body)
        except BaseException as error:
            self.stop(error)
            raise
        return self.result()

    def _wait_for_end(self, body: Body) -> None:
        with self.lock:
            while not (self.ended.is_set() or body.dead or self.end_position):
                body.park()
            if self.ended.is_set() or body.dead and not self.end_position:
                return
        self.log.wait(self.end_position)  # this thread itself does the durable write
        self._on_end(None)

    async def run_async(self) -> object:
        """The same for an async flow, on the running loop."""
        await self._live_async()
        return self.result()

    async def _live_async(self) -> None:
        try:
            while not self.ended.is_set():
                body = Body(self, self.flow)
                await body.run_async()
                while not self.ended.is_set() and not body.dead:
                    await body.changed()
        except BaseException as error:
            self.stop(error)
            raise

    def start(self) -> None:
        """Run it in the background: a thread for a sync flow, an asyncio task for an async one."""
        if not self.flow.is_async:
            threading.Thread(target=self._run_quietly, name=f"exoflow-{self.run_id}", daemon=True).start()
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run_coroutine_threadsafe(self._run_quietly_async(), background_loop())
        else:
            keep(loop.create_task(self._run_quietly_async()))

    def _run_quietly(self) -> None:
        with contextlib.suppress(BaseException):  # whoever asks for the result gets it
            self.run()

    async def _run_quietly_async(self) -> None:
        with contextlib.suppress(Exception):
            await self._live_async()

    async def result_async(self) -> object:
        """As ``result``, without blocking the loop."""
        if not self.ended.is_set():
            loop = asyncio.get_running_loop()
            mail, ended = mailbox(loop), loop.create_future()
            self.when_ended(lambda: mail.post((ended,)))
            await ended
        return self.result()

    def result(self, timeout_s: float | None = None) -> object:
        """The run's result, once it is durable.

        Raises:
            TimeoutError: it is not there in time; the run goes on.
            RunCancelled: it was cancelled.
            Exception: the run failed: its own error.
        """
        if not self.ended.wait(timeout_s):
            raise TimeoutError(f"{self.run_id} is still {self.status} after {timeout_s} s")
        if self.fatal is not None:
            raise self.fatal
        if self.status is Status.CANCELLED:
            raise RunCancelled(f"the run {self.run_id} was cancelled")
        if self.status is Status.FAILED:
            assert self._root_error is not None
            raise codec.decode_error(self._root_error)
        assert isinstance(self.outcome, Inline | Held | Stored)
        return codec.decode(self.values.fetch(self.outcome))

    def standing(self) -> Status:
        """How the run stands now; waiting: nothing but a timer will bring it on."""
        with self.lock:
            live = [body for body in self.bodies.values() if not body.dead]
            if self.status is not Status.RUNNING or not all(body.waits for body in live):
                return self.status
            running = {call.note.kind for call in self.kernel.calls.values() if call.state is State.RUNNING}
            return Status.WAITING if running - {Kind.FLOW, Kind.NOTE} == {Kind.TIMER} else Status.RUNNING

    def cancel(self) -> None:
        """Cancel durably, then tell the body (V15)."""
        with self.lock:
            if self.ended.is_set() or self.kernel.cancelling or self.end_position:
                return
            position = self.log.append(records.Cancel(Code.CANCEL, self.index, self.clock.now()))
        self.log.wait(position)
        with self.lock:
            if self.fatal is None and not self.ended.is_set() and not self.end_position:
                self.event(self.kernel.cancel)
                for body in list(self.bodies.values()):
                    body.wake()


_CARRY_OUT: dict[type[do.Command], Callable[[Execution, Any], None]] = {
    do.Run: Execution._run,
    do.Stop: Execution._stop_attempt,
    do.Save: Execution._save,
    do.Upload: Execution._upload,
    do.Make: Execution._make,
    do.Intend: Execution._intend,
    do.Undo: Execution.undo,
    do.RecordUndone: Execution._record_undone,
    do.Probe: Execution.probe,
    do.Deliver: Execution._deliver,
    do.Replay: Execution._replay,
    do.Doubt: Execution._in_doubt,
    do.EndScope: Execution._end_scope,
    do.Finish: Execution._finish,
}
"""A table, since a chain of comparisons would be paid for at every step of every run."""


def _owner(ref: CallId) -> CallId:
    """Values that a task put belong to it: ``task#0!1`` is part of ``task#0``."""
    return CallId(ref.partition("!")[0])


def hash_of(id: CallId) -> int:
    """A short stable name for a call's value object."""
    import zlib

    return zlib.crc32(id.encode())


NONE = codec.to_bytes(codec.encode(None))
