"""Runs that clients ask for: begun, joined, queued, waited for, adopted, and let end. Knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from exoflow import codec, settings
from exoflow.adoption import Adoption
from exoflow.driver.loops import mailbox
from exoflow.driver.runtime import Runtime
from exoflow.driver.spec import FlowSpec
from exoflow.errors import ExoFlowError, Interruption, RunIsLive
from exoflow.executors.threads import Take, Threads
from exoflow.flows import AnyFlow
from exoflow.hosting import is_first
from exoflow.model import Status
from exoflow.protocols import Executor, Store
from exoflow.web.elsewhere import Elsewhere, Stopping, look
from exoflow.web.naming import run_id_of

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution
    from exoflow.web.turns import Turns

logger = logging.getLogger(__name__)

COUNT_S = 0.2
"""Between two counts of the flows that wait, while all places are taken."""
LOOK_S = 1.0
"""Between two looks for runs that a dead process has left."""
OWNER = "token"
"""The label that says whose token asked for a run."""
_CLAIMS = 32
"""At a time: each waits for the disk, and the file system makes one write of those that wait together."""

Flow = AnyFlow[..., Any, Any]
Begin = Callable[[], "Execution"]


class Overloaded(ExoFlowError):
    """As many flows run, and as many wait, as may."""


class Gateway:
    """The runs of some flows in one process. To be used on one event loop, all but ``store``.

    Args:
        store: Where runs are kept.
        flows: What is served, by the names in URLs.
        max_running: Flows at a time, those not counted that wait for time or an event and keep no thread.
        max_queue: Flows that wait for their turn; they are begun durably, and survive this process.
        executor: Where tasks run, instead of where the flow says.
        fair: Tokens take turns among the flows that wait; else who came first is next.
    """

    def __init__(
        self, store: Store, flows: Mapping[str, Flow], *, max_running: int = 200, max_queue: int = 1000,
        executor: str | None = None, fair: bool = False,
    ) -> None:  # fmt: skip
        self.store = store
        self.flows = dict(flows)
        self.runtime = Runtime.of(store)
        self.stopping = asyncio.Event()
        self._max_running = max_running
        self._max_queue = max_queue
        self._executor = executor
        self._threads: Threads[Execution] = Threads(max_running, _serve, "exoflow-flow")
        self._running: set[Execution] = set()
        self._queue: deque[Execution] | Turns = deque() if not fair else _turns()
        specs = {flow.name: flow._spec for flow in flows.values()}
        self._adoption = Adoption(store, specs, executor=executor)
        self._adopted: deque[Execution] = deque()
        """They wait, too, and go before the others: they have waited longest."""
        self._waiting = 0
        """Async flows among the running ones that waited when they were last counted."""
        self._counted_s = 0.0
        self._entering = 0
        self._beginning: dict[str, asyncio.Future[None]] = {}
        self.elsewhere = Elsewhere(self.runtime, self.stopping)
        self._idle = asyncio.Event()
        self._idle.set()
        self._executors: dict[str, Executor] = {}
        """Of each flow, by its name."""
        self._cwd = os.getcwd()
        self._claims = ThreadPoolExecutor(_CLAIMS, "exoflow-claim")

    # -- beginning ---------------------------------------------------------------------------------------------------

    async def begin(
        self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, token: str = "", key: str | None = None,
        wait_s: float | None = None,
    ) -> Execution:  # fmt: skip
        """A run of a flow: a new one, or that of the token, flow and key. It goes on whoever waits for it.

        Args:
            wait_s: How long to wait for another process that has the run; None: until it has ended.

        Raises:
            Overloaded, Stopping: it is not begun.
            NotEnded: another process has it.
            RunMismatch: the key was given with other arguments.
            CodecError: an argument cannot be recorded.
        """
        begin = self._begin_of(self.flows[name]._spec, args, kwargs, token, key)
        if key is not None:
            return await self._begin_named(begin, run_id_of(token, self.flows[name].name, key), wait_s)
        self._admit()
        return self._enter(begin())

    def _begin_of(
        self, spec: FlowSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any], token: str, key: str | None
    ) -> Begin:
        """As ``flow.start`` begins a run, without what is the same for every request."""
        return partial(
            self.runtime.begin,
            spec,
            args,
            kwargs,
            run_id=None if key is None else run_id_of(token, spec.name, key),
            labels={OWNER: token} if token else {},
            executor=self._executor_of(spec),
            executors=settings.executors_of(self.store),
            cwd=self._cwd,
        )

    def _executor_of(self, spec: FlowSpec) -> Executor:
        executor = self._executors.get(spec.name)
        if executor is None:
            wanted = settings.executor_of(self._executor or spec.executor, self._cwd)
            executor = self._executors[spec.name] = settings.executors_of(self.store)(wanted)
        return executor

    def check(self) -> None:
        """Refuse now what every request would be refused for.

        Raises:
            ExecutorError, ValueError: there is no such executor.
        """
        for flow in self.flows.values():
            self._executor_of(flow._spec)

    async def _begin_named(self, begin: Begin, run_id: str, wait_s: float | None) -> Execution:
        until = None if wait_s is None else asyncio.get_running_loop().time() + wait_s
        told = False
        while True:
            begun = self._beginning.get(run_id)
            if begun is not None:
                await asyncio.wait([begun])
            elif run_id in self.runtime.executions:
                return self._enter(begin())
            else:
                try:
                    return await self._claim(begin, run_id)
                except RunIsLive:
                    if told:
                        await self.elsewhere.wait(run_id, until)
                    else:  # its owner may have claimed it only: look once more, now that its inputs can be compared
                        await asyncio.to_thread(look, self.runtime, run_id)
                        told = True

    async def _claim(self, begin: Begin, run_id: str) -> Execution:
        """Begin it by its name, which is a durable write, so in a thread; whoever asks meanwhile waits for that."""
        self._admit()
        self._entering += 1
        begun = self._beginning[run_id] = asyncio.get_running_loop().create_future()
        claiming = asyncio.get_running_loop().run_in_executor(self._claims, begin)
        claiming.add_done_callback(lambda _: self._claimed(run_id, begun, claiming))
        return await asyncio.shield(claiming)

    def _claimed(self, run_id: str, begun: asyncio.Future[None], claiming: asyncio.Future[Execution]) -> None:
        """Also where nobody waits any more: a run that exists is to be run."""
        self._entering -= 1
        del self._beginning[run_id]
        begun.set_result(None)
        if claiming.exception() is None:
            self._enter(claiming.result())

    # -- running -----------------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        if self.stopping.is_set():
            raise Stopping("this process stops, and begins nothing any more")
        if self._at_work() + self._entering + len(self._queue) >= self._max_running + self._max_queue:
            raise Overloaded(f"{len(self._running)} flows run, and {len(self._queue)} wait")

    def _enter(self, execution: Execution, *, adopted: bool = False) -> Execution:
        """Start it or have it wait for its turn, if nobody did so yet."""
        if execution.ended.is_set() or not is_first(execution):
            return execution
        (self._adopted if adopted else self._queue).append(execution)
        self._start_next()
        return execution

    def _at_work(self) -> int:
        """How many places are taken. An async flow that waits for time or an event has none: it may be for days."""
        taken = len(self._running)
        if taken < self._max_running:
            return taken
        now = asyncio.get_running_loop().time()
        if now >= self._counted_s + COUNT_S:
            self._counted_s = now
            standing = (each.standing() for each in self._running if each.flow.is_async)
            self._waiting = sum(status is Status.WAITING for status in standing)
        return taken - min(self._waiting, taken)

    def _start_next(self) -> None:
        while self._at_work() < self._max_running and not self.stopping.is_set():
            queue = self._adopted or self._queue
            if not queue:
                return
            self._start(queue.popleft())

    def _start(self, execution: Execution) -> None:
        self._running.add(execution)
        self._idle.clear()
        loop = asyncio.get_running_loop()
        mail, freed = mailbox(loop), loop.create_future()
        freed.add_done_callback(lambda _: self._freed(execution))
        execution.when_ended(lambda: mail.post((freed,)))
        if execution.flow.is_async:
            execution.start()
        else:
            self._threads.put(execution)

    def _freed(self, execution: Execution) -> None:
        self._running.discard(execution)
        if execution.status is Status.IN_DOUBT:
            self._adoption.doubt(execution.run_id)
            logger.warning("%s stopped: %s", execution.run_id, execution.fatal, extra={"run": execution.run_id})
        elif execution.root_error is not None:
            why = codec.decode_error(execution.root_error)
            logger.warning("%s failed: %r", execution.run_id, why, extra={"run": execution.run_id})
        self._start_next()
        if not self._running:
            self._idle.set()

    async def has_ended(self, execution: Execution, until: float | None) -> bool:
        """Wait for its end, at most until that time of the loop's clock; whether it has ended."""
        if execution.ended.is_set():
            return True
        loop = asyncio.get_running_loop()
        mail, ended = mailbox(loop), loop.create_future()
        execution.when_ended(lambda: mail.post((ended,)))
        if until is None:
            await ended
        elif until > loop.time():
            await asyncio.wait([ended], timeout=until - loop.time())
        return execution.ended.is_set()

    async def accepted(self, execution: Execution) -> None:
        """Wait until the run durably exists: then it comes to an end, whatever becomes of this process."""
        loop = asyncio.get_running_loop()
        mail, known = mailbox(loop), loop.create_future()
        errors: list[BaseException] = []

        def tell(error: BaseException | None) -> None:
            errors.extend(() if error is None else (error,))
            mail.post((known,))

        execution.when_accepted(tell)
        await known
        if errors:
            raise errors[0]

    # -- what others left, and the end -------------------------------------------------------------------------------

    async def adopt_forever(self) -> None:
        """Take over what dead processes leave, as long as this one lives."""
        while not self.stopping.is_set():
            try:
                await asyncio.to_thread(self._adopt, asyncio.get_running_loop())
            except ExoFlowError as error:
                logger.warning("looking for runs to go on with failed: %s", error)
            self._start_next()  # some may have begun to wait, and have given their places back
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), LOOK_S)

    def _adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        room = self._max_running - len(self._adopted)
        for execution in self._adoption.look(room):
            loop.call_soon_threadsafe(partial(self._enter, execution, adopted=True))
            if self.stopping.is_set():
                return

    async def drain(self, grace_s: float) -> None:
        """Begin nothing more, let what runs end, and stop what has not after so long: others can go on with it."""
        self.stopping.set()
        stopped = Interruption("the gateway stops")
        waiting = [each for each in self._running if each.standing() is Status.WAITING]  # for days, maybe
        await _stop([*self._adopted, *self._queue, *waiting], stopped)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), grace_s)
        if self._running:
            logger.info("stopping %d flows that have not ended in %g s", len(self._running), grace_s)
        await _stop(self._running, stopped)


def _turns() -> Turns:
    from exoflow.web.turns import Turns

    return Turns(lambda execution: execution.labels.get(OWNER, ""))


async def _stop(executions: Iterable[Execution], why: BaseException) -> None:
    for execution in list(executions):
        await asyncio.to_thread(execution.stop, why)


def _serve(take: Take[Execution]) -> None:
    """A thread in which sync flows run, one after the other."""
    while (execution := take()) is not None:
        with contextlib.suppress(BaseException):  # whoever asks for the result gets it
            execution.run()
