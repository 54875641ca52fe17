"""An attempt between ``start`` and its report."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from exoflow.codec import Encoded
from exoflow.executors.dask.placing import needs_of
from exoflow.model import Held, RunId, Version
from exoflow.protocols import Attempt, Outcome

if TYPE_CHECKING:
    from distributed import Future

    from exoflow.executors.dask.placing import Seat

Key = tuple[RunId, Version]


class Entry:
    """What is known of an attempt. Prepared by one thread, and then of the dispatcher's loop."""

    __slots__ = (
        "attempt",
        "expected_s",
        "future",
        "held",
        "is_acting",
        "key",
        "needs",
        "order",
        "reason",
        "report",
        "seat",
        "sent",
        "serial",
        "settled",
        "started",
    )

    def __init__(self, attempt: Attempt, report: Callable[[Outcome], None]) -> None:
        self.attempt = attempt
        self.report = report
        self.key: Key = (attempt.run_id, attempt.version)
        self.needs = needs_of(attempt.resources, is_actor=attempt.actor is not None)
        self.order = b""
        self.held: dict[str, int] = {}
        """The held inputs, and their sizes."""
        self.sent: dict[str, Encoded] = {}
        """Large values that go with it."""
        self.serial = 0
        self.expected_s = 0.0
        self.seat: Seat | None = None
        self.future: Future[bytes] | None = None
        self.is_acting = False
        """Whether its worker was told of it, an actor's call. That is no task of Dask's, and has no future."""
        self.reason: str | None = None
        """Why it is to be stopped."""
        self.settled = False
        self.started = monotonic()

    @property
    def state(self) -> Held | None:
        """Of the actor: what it takes, if there is one yet."""
        return self.attempt.state

    @property
    def is_sent(self) -> bool:
        return self.is_acting or self.future is not None
