"""What is told of one seed."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Report:
    """What happened under one seed."""

    seed: int
    status: str = ""
    calls: int = 0
    faults: int = 0
    epochs: int = 0
    attempts: int = 0
    undos: int = 0
    given_up: int = 0
    """Ends with an undo that had failed for good; the run was resumed."""
    paid: int = 0
    """Attempts that somebody charged for."""
    trace: list[str] = field(default_factory=list)
