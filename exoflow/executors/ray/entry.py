"""An attempt between ``start`` and its report."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from exoflow.model import CallId, RunId, Version
from exoflow.protocols import Attempt, Outcome

if TYPE_CHECKING:
    from ray import ObjectRef

    from exoflow.executors.ray.actors import Home

Key = tuple[RunId, Version]


class Entry:
    """What the executor knows of an attempt."""

    __slots__ = (
        "answer",
        "attempt",
        "batch",
        "deadline",
        "home",
        "key",
        "lenders",
        "reason",
        "report",
        "session",
        "started",
        "submitted",
        "values",
    )

    def __init__(self, attempt: Attempt, report: Callable[[Outcome], None]) -> None:
        self.attempt = attempt
        self.report = report
        self.key: Key = (attempt.run_id, attempt.version)
        self.deadline = None if attempt.timeout_s is None else (attempt.timeout_s, secrets.token_bytes(12))
        self.submitted = False
        self.home: Home | None = None
        """Of an actor's attempt: where it has been sent."""
        self.session: int | None = None
        self.reason: str | None = None
        self.lenders: dict[str, CallId] = {}
        """By the id of the object that holds an input: whose value it is."""
        self.started = monotonic()
        self.answer: ObjectRef[Any] | None = None
        self.values: ObjectRef[Any] | None = None
        self.batch: list[Entry] | None = None
        """All that were sent in one Ray task with it."""
