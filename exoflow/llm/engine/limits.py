"""What can ever run: within the context, and in the pool beside the adapters that are pinned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from exoflow.errors import ContextTooLong, OutOfPages
from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.request import AdapterRef, Request, WrongRequest
from exoflow.llm.engine.residency import AdapterCost, Residency


class Limits:
    """Of one engine.

    Args:
        pages: of the pool.
        max_context: tokens of prompt and answer together.
        cost: of the adapter of this version.
    """

    def __init__(
        self,
        config: EngineConfig,
        residency: Residency,
        pages: int,
        *,
        max_context: int,
        cost: Callable[[str], AdapterCost],
    ) -> None:
        self.max_context = max_context
        self.pins: Counter[str] = Counter()
        """How often each version was pinned."""
        self.pinned_pages = 0
        self._config, self._residency, self._pages, self._cost = config, residency, pages, cost

    def longest(self, adapter: AdapterRef | None) -> int:
        """Tokens of prompt and answer that would fit if the pool were theirs alone."""
        pages = self._pages - self.pinned_pages
        if adapter is not None and adapter.version not in self.pins:
            pages -= self._cost(adapter.version).pages
        return min(self.max_context, pages * self._config.block)

    def check(self, request: Request) -> None:
        """Raises WrongRequest, ContextTooLong, OutOfPages: it could never run."""
        if not request.prompt:
            raise WrongRequest("the prompt is empty: it has no tokens")
        if _longest(request) > self.max_context:
            raise ContextTooLong(
                f"{len(request.prompt)} tokens of prompt and {request.params.max_tokens} of answer are more than"
                f" the {self.max_context} of the context: shorten the prompt or lower max_tokens"
            )
        self.check_room(request)

    def check_room(self, request: Request) -> None:
        """Raises OutOfPages: it could not run if there were only what is pinned besides."""
        longest = _longest(request)
        pages = self._config.pages_for(longest)
        if request.adapter is not None and request.adapter.version not in self.pins:
            pages += self._cost(request.adapter.version).pages
            if len(self.pins) >= self._config.adapter_slots:
                raise OutOfPages(f"all {len(self.pins)} adapter slots are pinned: start the engine with more")
        if pages > self._pages - self.pinned_pages:
            raise OutOfPages(
                f"{longest} tokens and the adapter need {pages} pages; the pool has {self._pages}, of which"
                f" {self.pinned_pages} are pinned: start the engine with more pages"
            )

    def pin(self, version: str, instead_of: str | None, under_way: Callable[[], Iterable[Request]]) -> None:
        """Keep this adapter in the pool, from now on and whether it is used or not; undo one ``pin`` of another.

        Args:
            under_way: requests that were accepted, and have not ended.

        Raises:
            OutOfPages: there is no room for it now, or would be too little for a request that is under way; nothing
                changes.
        """
        was_pinned = instead_of if instead_of in self.pins else None
        if was_pinned is not None:
            self.unpin(was_pinned)
        cost = self._cost(version)
        self.pinned_pages += 0 if version in self.pins else cost.pages
        self.pins[version] += 1
        try:
            for request in under_way():
                self.check_room(request)
            self._residency.hold(version, cost.pages, cost.load_s)
        except OutOfPages:
            self._unmark(version, cost.pages)
            if was_pinned is not None:
                self.pin(was_pinned, None, under_way)  # where it was: nobody has taken its pages meanwhile
            raise

    def unpin(self, version: str) -> None:
        """Undo one ``pin``. Nothing happens if it could not be brought."""
        if version not in self.pins:
            return
        self._unmark(version, self._residency.size_of(version))
        self._residency.let_go(version)

    def _unmark(self, version: str, pages: int) -> None:
        self.pins[version] -= 1
        if not self.pins[version]:
            del self.pins[version]
            self.pinned_pages -= pages


def _longest(request: Request) -> int:
    return len(request.prompt) + (0 if request.scores else request.params.max_tokens)
