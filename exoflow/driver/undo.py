"""Undoing an effect, and asking whether one happened."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from exoflow import codec
from exoflow.driver.spec import Backoff
from exoflow.errors import Corrupt, DidNotHappen, ExoFlowError, InDoubt, RunError
from exoflow.kernel import commands as do
from exoflow.model import CallId, Happened, RunId, Value, Version
from exoflow.protocols import Attempt, Computed, Outcome, Raised

if TYPE_CHECKING:
    import threading

    from exoflow.driver.handle import Handle
    from exoflow.driver.history import History
    from exoflow.driver.values import Values
    from exoflow.kernel.kernel import Kernel
    from exoflow.protocols import Clock, Executor

logger = logging.getLogger(__name__)

TRIES = 5
BACKOFF = Backoff(initial_s=0.1, max_s=10.0, jitter=0.0)


class ValueLost(Exception):
    """An executor has lost a value that is needed here; ``args`` is its call."""


class Undoing:
    """The part of an execution that looks back."""

    run_id: RunId
    lock: threading.RLock
    kernel: Kernel
    values: Values
    history: History
    handles: dict[CallId, Handle]
    executors: Mapping[str, Executor]
    default: str
    clock: Clock
    fatal: BaseException | None

    def undo_payload(self, handle: Handle) -> bytes | None:
        """The undo and its arguments by value, for another process (L4). None: one is lost, and nothing will start."""
        try:
            args, kwargs = self._arguments_by_value(handle)
        except ValueLost:
            return None
        return codec.to_bytes(
            codec.encode((handle.spec.undo, args, dict(kwargs)), what=f"the undo of {handle.spec.name}")
        )

    def lost_input(self, handle: Handle) -> tuple[CallId, ...]:
        """Which value the arguments lack, however deep in them it stands; nothing if it is there again."""
        try:
            self._arguments_by_value(handle)
        except ValueLost as lost:
            return (lost.args[0],)
        return ()

    def _arguments_by_value(self, handle: Handle) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        args, kwargs = handle.args, handle.kwargs
        passed = {call.id for call in handle.call.passes}

        def lookup(id: CallId) -> object:
            return codec.make_reference(id) if id in passed else self.value_of_ref(id)

        if handle.encoded is not None:
            assert isinstance(handle.encoded, codec.Encoded)
            args, kwargs = codec.decode(handle.encoded, lookup=lookup)
            return args, kwargs
        return codec.substitute(args, kwargs, lookup)

    def value_of_ref(self, id: CallId) -> object:
        """What stands for a Ref in arguments by value; one that is passed on stays a Ref."""
        if id not in self.values.at:
            return codec.make_reference(id)
        try:
            encoded = self.values.fetch(self.values.at[id])
            if encoded.checksums is not None:
                encoded.checksums.verify()
        except (KeyError, Corrupt) as error:
            raise ValueLost(id) from error
        return codec.decode(encoded, lookup=self.value_of_ref)

    def undo(self, command: do.Undo) -> None:
        """Run the undo of one attempt on the default executor, again and again until it is done."""
        payload = self.history.intents[command.call].inputs
        if payload is None:  # nothing was started under this intent
            self.kernel.undone(command.call, command.version)
            return
        assert isinstance(payload, bytes)
        function, args, kwargs = codec.decode(codec.from_bytes(payload), lookup=codec.make_reference)
        self._look_back(command.call, command.version, function, args, kwargs, self._undo_ended, 1)

    def probe(self, command: do.Probe) -> None:
        """Ask the task's probe whether the effect happened."""
        handle = self.handles[command.call]
        assert handle.spec.probe is not None
        try:
            args, kwargs = self._arguments_by_value(handle)
        except ValueLost as lost:
            self.forget_value(lost.args[0])
            self.kernel.doubt_again(command.call)
            return
        self._look_back(command.call, command.version, handle.spec.probe, args, kwargs, self._probe_ended, 1)

    def _look_back(
        self, call: CallId, version: Version, function: Callable[..., Any], args: tuple[Any, ...],
        kwargs: Mapping[str, Any], ended: Callable[..., None], number: int,
    ) -> None:  # fmt: skip
        rollback = ended == self._undo_ended
        key = self.key(call, version if rollback else None)
        attempt = Attempt(
            self.run_id, call, version, number, key, f"{function.__name__} of {call}", function,
            (key, *args), kwargs, {},
            encoded=None if codec.all_immutable(args, kwargs) else codec.encode(((key, *args), dict(kwargs))),
        )  # fmt: skip

        def report(outcome: Outcome) -> None:
            with self.lock:
                if self.fatal is None:
                    self.event(self._looked_back, call, version, function, args, kwargs, ended, number, outcome)

        name = "local" if "local" in self.executors and not inspect.iscoroutinefunction(function) else self.default
        self.executors[name].start(attempt, report)

    def _looked_back(
        self, call: CallId, version: Version, function: Callable[..., Any], args: tuple[Any, ...],
        kwargs: Mapping[str, Any], ended: Callable[..., None], number: int, outcome: Outcome,
    ) -> None:  # fmt: skip
        if isinstance(outcome, Computed):
            ended(call, version, codec.decode(self.values.fetch(outcome.value)))
            return
        if isinstance(outcome, Raised) and outcome.did_not_happen:
            ended(call, version, DidNotHappen())
            return
        why = codec.decode_error(outcome.error) if isinstance(outcome, Raised) else ExoFlowError(outcome.reason)
        logger.warning("%s of %s failed (try %d): %s", function.__name__, call, number, why)
        if number >= TRIES:
            raise RunError(
                f"{function.__name__} of {call} failed {number} times: {why!r}. The run stopped with this effect in "
                f"place; `exoflow resume {self.run_id}` tries again."
            ) from why
        delay_s = min(BACKOFF.max_s, BACKOFF.initial_s * BACKOFF.factor ** (number - 1))

        def again() -> None:
            with self.lock:
                if self.fatal is None:
                    self.event(self._look_back, call, version, function, args, kwargs, ended, number + 1)

        self.clock.call_at(self.clock.now() + delay_s, again)

    def _undo_ended(self, call: CallId, version: Version, _: object) -> None:
        self.kernel.undone(call, version)

    def _probe_ended(self, call: CallId, version: Version, answer: object) -> None:
        if isinstance(answer, Happened):
            self.happened(call, self.values.keep(codec.encode(answer.value)))
        elif isinstance(answer, DidNotHappen):
            self.kernel.resolved(call, happened=False)
        else:
            raise InDoubt(f"the probe of {call} returned {answer!r}; it must return Happened(value) or DidNotHappen()")

    def happened(self, call: CallId, value: Value) -> None:
        """The effect of a call in doubt did happen, with this result."""
        version = self.kernel.resolved(call, happened=True)
        if version:
            self._take_value(self.handles[call], version, Computed(value, 0.0))

    # -- what the execution adds -------------------------------------------------------------------------------------

    def event(self, event: Callable[..., object], *args: Any) -> None:
        raise NotImplementedError

    def forget_value(self, id: CallId) -> None:
        raise NotImplementedError

    def key(self, call: CallId, version: Version | None) -> str:
        raise NotImplementedError

    def _take_value(self, handle: Handle, version: Version, outcome: Computed) -> None:
        raise NotImplementedError
