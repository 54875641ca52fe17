"""What a running body can ask about itself, and tell."""

from __future__ import annotations

from contextvars import ContextVar

from exoflow.codec import Encoded, Live, encode
from exoflow.model import Bill, CallId, RunId, Version
from exoflow.protocols import Attempt


class AttemptContext:
    """What a running body can ask about itself."""

    __slots__ = ("attempt", "bill", "given", "puts", "rolled_back")

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.bill: Bill | None = None
        """What a paid call costs, as its body says."""
        self.puts: list[tuple[CallId, Encoded | Live]] = []
        self.given: dict[CallId, Live] = {}
        """Engines' objects among the inputs."""
        self.rolled_back = False
        """If the body raises now, its effect certainly did not happen, as if it had raised ``DidNotHappen``."""

    @property
    def run_id(self) -> RunId:
        return self.attempt.run_id

    @property
    def call(self) -> CallId:
        return self.attempt.call

    @property
    def key(self) -> str:
        """The idempotency key."""
        return self.attempt.key

    @property
    def number(self) -> int:
        """The n-th try, from 1."""
        return self.attempt.number

    @property
    def version(self) -> Version:
        return self.attempt.version

    @property
    def task(self) -> str:
        return self.attempt.task

    def put(self, value: object) -> CallId:
        """Encode the value now and report it beside the result; the id by which a Ref can stand for it."""
        encoded = encode(value, what=f"what {self.attempt.task} put", own=True, adopt=self.adopt)
        return self._added(encoded)

    def adopt(self, live: Live) -> CallId:
        """Report an engine's object that stands in the result, once, as if the body had put what it stands for."""
        for call, put in self.puts:
            if isinstance(put, Live) and put.thing is live.thing:
                return call
        return self._added(live)

    def bring(self, call: CallId, _kind: str) -> object:
        """The object that was adopted under this id."""
        return next(put.thing for id, put in self.puts if id == call and isinstance(put, Live))

    def end(self) -> None:
        """Let go of values. Who begins something in a body, as Dask's client does, may keep its context for good."""
        self.puts.clear()
        self.given.clear()

    def _added(self, put: Encoded | Live) -> CallId:
        call = CallId(f"{self.attempt.call}!{len(self.puts)}")
        self.puts.append((call, put))
        return call


current: ContextVar[AttemptContext | None] = ContextVar("exoflow_attempt", default=None)


def current_attempt() -> AttemptContext | None:
    """The attempt whose body runs in this thread or asyncio task."""
    return current.get()
