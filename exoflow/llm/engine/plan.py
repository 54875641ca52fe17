"""What a step is to do."""

from __future__ import annotations

from dataclasses import dataclass

from exoflow.llm.engine.request import Request
from exoflow.llm.engine.residency import Load


@dataclass(frozen=True, slots=True)
class Chunk:
    """Compute the tokens ``start`` to ``start + count`` of a sequence."""

    request: Request
    start: int
    count: int

    @property
    def gives_token(self) -> bool:
        """The last known token is among them, so that the next one can be chosen."""
        return self.start + self.count == self.request.length


@dataclass(frozen=True, slots=True)
class Plan:
    chunks: tuple[Chunk, ...]
    loads: tuple[Load, ...]
    """To be begun now; the steps do not wait for them."""
    dropped: tuple[Request, ...]
    """Too late for their deadline: ended, nothing was computed."""
