"""What the driver keeps of one call beside what the kernel knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from exoflow import codec
from exoflow.driver.spec import FlowSpec, TaskSpec
from exoflow.kernel.call import Call
from exoflow.kernel.rarely import Rarely
from exoflow.model import Bill, CallId

if TYPE_CHECKING:
    from exoflow.driver.body import Body

PLAIN = -1
"""The order of a plain call: no Ref stands for it, so nobody asks which was there first."""

_NONE: Mapping[str, Any] = {}


class Handle:
    """A call that a flow body has made: what a Ref wraps. A run may have a hundred thousand: every field counts."""

    __slots__ = ("args", "body", "call", "kwargs", "number", "order", "rare", "refs", "seconds", "spec", "started_s")

    encoded = Rarely[object | None](None)
    """The arguments, where they hold anything mutable."""
    flow = Rarely[FlowSpec | None](None)
    choose = Rarely[Callable[[], object] | None](None)
    """For a note: reads the world, when nothing was recorded."""
    why = Rarely[str | None](None)
    event_name = Rarely[str]("")
    event_type = Rarely[Any](object)
    message = Rarely[int](0)
    """Of an event: the number of the message that it took."""
    may_go = Rarely[bool](False)
    """Its value is large and can be made again: it is let go when nobody has a Ref to it and nobody is to take it."""
    put_ids = Rarely[tuple[CallId, ...]](())
    ref_ids = Rarely[tuple[CallId, ...]](())
    """Refs inside of its value."""
    passing = Rarely[bool](False)
    """It has not ended, and may return the Refs that it was passed."""
    linked = Rarely[bool](False)
    """Whether some of them stand in what it put."""
    worker = Rarely[str]("")
    """Which process ran its last attempt, where that was not this one."""
    bill = Rarely[Bill | None](None)
    """What a paid call has cost, until that is recorded."""
    _fingerprint = Rarely[bytes | None](None)

    def __init__(
        self, call: Call, body: Body, spec: TaskSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any],
        encoded: object | None, fingerprint: bytes | None,
    ) -> None:  # fmt: skip
        self.call = call
        self.body = body
        self.spec = spec
        self.args = args if encoded is None else ()
        self.kwargs = kwargs if encoded is None and kwargs else _NONE
        self.rare: dict[str, Any] | None = None
        self.started_s = 0.0
        self.seconds = 0.0
        self.number = 0
        self.refs = 0
        """So many Refs to it are in somebody's hands. What is encoded holds none."""
        self.order = 0
        """When its value was first there, among all of its body."""
        if encoded is not None:
            self.encoded = encoded
            self._fingerprint = fingerprint

    @property
    def fingerprint(self) -> object:
        """Of the arguments as they were when the call was made; those that cannot change tell it at any time."""
        found = self._fingerprint
        return codec.fingerprint(self.args, self.kwargs) if found is None else codec.unpacked(found)

    @property
    def call_id(self) -> CallId:
        return self.call.id
