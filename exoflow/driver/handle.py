"""What the driver keeps of one call beside what the kernel knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from exoflow.driver.spec import FlowSpec, TaskSpec
from exoflow.kernel.state import Call
from exoflow.model import CallId, Version

if TYPE_CHECKING:
    from exoflow.driver.body import Body


class Handle:
    """A call that a flow body has made: what a Ref wraps."""

    __slots__ = (
        "args", "body", "call", "choose", "encoded", "fingerprint", "flow", "kwargs", "number", "put_ids", "seconds", "spec",
        "order", "started_s", "why",
    )  # fmt: skip

    def __init__(
        self, call: Call, body: Body, spec: TaskSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any],
        encoded: object | None, fingerprint: object,
    ) -> None:  # fmt: skip
        self.call = call
        self.body = body
        self.spec = spec
        self.args = args
        self.kwargs = kwargs
        self.encoded = encoded
        self.fingerprint = fingerprint
        self.flow: FlowSpec | None = None
        self.choose: Callable[[], object] | None = None
        """For a note: reads the world, when nothing was recorded."""
        self.started_s = 0.0
        self.seconds = 0.0
        self.number = 0
        self.why: str | None = None
        self.order = 0
        """When its value was first there, among all of its body."""
        self.put_ids: tuple[CallId, ...] = ()

    @property
    def call_id(self) -> CallId:
        return self.call.id

    @property
    def attempt_version(self) -> Version:
        return self.call.attempt
