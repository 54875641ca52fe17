"""What a simulated run gave whom, in the paper's measures (section 5.1)."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from exoflow.extras import needed
from exoflow.llm.fair.costs import Cost
from exoflow.llm.fair.policy import Path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WARM_UP_S = 30.0
HALF_WINDOW_S = 30.0
CENTRES_S = tuple(WARM_UP_S + 28.5 * number for number in range(1, 20))


@dataclass(frozen=True, slots=True)
class Served:
    """One request, and when it got what."""

    client: str
    """A path is joined by ``/``."""
    arrival_s: float
    input_tokens: int
    output_tokens: int
    first_token_s: float
    finish_s: float

    def share(self, start_s: float, end_s: float) -> float:
        """How much of it falls into a span: spread evenly from its first token to its last, a single one at once."""
        if self.finish_s == self.first_token_s:
            return float(start_s <= self.finish_s < end_s)
        overlap = min(end_s, self.finish_s) - max(start_s, self.first_token_s)
        return max(0.0, overlap) / (self.finish_s - self.first_token_s)


@dataclass(frozen=True)
class Result:
    """Who got what, and when."""

    served: tuple[Served, ...]
    """In order of arrival."""
    cost: Cost
    """What a request is worth to who got it."""

    @cached_property
    def clients(self) -> tuple[str, ...]:
        return tuple(sorted(self._by_client))

    @property
    def finish_s(self) -> float:
        """When all had drained."""
        return max((each.finish_s for each in self.served), default=0.0)

    @property
    def tokens_per_s(self) -> float:
        """Of prompts and answers, from the beginning until all had drained."""
        tokens = sum(each.input_tokens + each.output_tokens for each in self.served)
        return tokens / self.finish_s if self.served else 0.0

    def service(self, client: str | Path, start_s: float, end_s: float) -> float:
        """What a client got in a span; a path may be joined by ``/``."""
        return sum(self._worth(each) * each.share(start_s, end_s) for each in self._of(client))

    def demand(self, client: str | Path, start_s: float, end_s: float) -> float:
        """What a client asked for in a span."""
        return sum(self._worth(each) for each in self._of(client) if start_s <= each.arrival_s <= end_s)

    def first_token_s(self, client: str | Path) -> tuple[float, ...]:
        """How long each of its requests waited for its first token, in order of arrival."""
        return tuple(each.first_token_s - each.arrival_s for each in self._of(client))

    def difference(self, centre_s: float) -> float:
        """How unequal the rates of service are round a time, without what somebody did not ask for: D in the paper.

        A client lacks what the best served has more, but no more than it has itself asked for beyond what it got.
        """
        start_s, end_s = centre_s - HALF_WINDOW_S, centre_s + HALF_WINDOW_S
        rates = {client: self.service(client, start_s, end_s) / (end_s - start_s) for client in self.clients}
        best = max(rates.values(), default=0.0)
        return sum(
            min(best - rate, abs(self.demand(client, start_s, end_s) / (end_s - start_s) - rate))
            for client, rate in rates.items()
        )

    @cached_property
    def differences(self) -> tuple[float, ...]:
        """At each of ``CENTRES_S``."""
        return tuple(map(self.difference, CENTRES_S))

    @property
    def max_difference(self) -> float:
        return max(self.differences)

    @property
    def mean_difference(self) -> float:
        return statistics.fmean(self.differences)

    def accumulated_difference(self, end_s: float, start_s: float = WARM_UP_S) -> float:
        """By how much who got most in a span is ahead of who got least."""
        got = [self.service(client, start_s, end_s) for client in self.clients]
        return max(got, default=0.0) - min(got, default=0.0)

    @property
    def max_accumulated_difference(self) -> float:
        """The greatest from the warm-up to one of ``CENTRES_S``."""
        return max(map(self.accumulated_difference, CENTRES_S))

    def table(self) -> str:
        """A line for each client and one for all, in Markdown."""
        head = ("client", "requests", "tokens in", "tokens out", "service", "share",
                "first token: median", "worst")  # fmt: skip
        total = sum(map(self._worth, self.served))
        rows = [head, ("---",) + ("---:",) * (len(head) - 1)]
        for name, requests in [*((name, self._of(name)) for name in self.clients), ("all", self.served)]:
            waits = [each.first_token_s - each.arrival_s for each in requests] or [0.0]
            worth = sum(map(self._worth, requests))
            rows.append((
                name, f"{len(requests):,}", f"{_total(each.input_tokens for each in requests):,}",
                f"{_total(each.output_tokens for each in requests):,}", f"{worth:,.0f}",
                f"{worth / total if total else 0:.3f}", f"{statistics.median(waits):.1f} s", f"{max(waits):.1f} s",
            ))  # fmt: skip
        lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        return (
            f"{lines}\n\nmax D {self.max_difference:.2f}, mean D {self.mean_difference:.2f}, greatest accumulated "
            f"difference {self.max_accumulated_difference:,.0f}, {self.tokens_per_s:.0f} tokens/s\n"
        )

    def history(self, end_s: float | None = None, points: int = 200) -> tuple[list[float], dict[str, list[float]]]:
        """Times from 0 to the end, and what each client had got by each."""
        end_s = self.finish_s if end_s is None else end_s
        times_s = [end_s * number / points for number in range(points + 1)]
        return times_s, {client: [self.service(client, 0.0, at) for at in times_s] for client in self.clients}

    def plot(self) -> Figure:
        """What each client had got, and D, over time: ``.savefig`` writes it."""
        with needed("a plot", "plan"):
            from exoflow.llm.fair.plots import draw, sheet

        figure, (left, right) = sheet(2)
        draw(left, "service so far, tokens' worth", *self.history())
        draw(right, "D: difference of service rates in ±30 s, a second", CENTRES_S, {"D": self.differences}, marker="o")
        return figure

    def _worth(self, served: Served) -> float:
        return float(self.cost(served.input_tokens, served.output_tokens))

    def _of(self, client: str | Path) -> tuple[Served, ...]:
        try:
            return self._by_client[client if isinstance(client, str) else "/".join(client)]
        except KeyError:
            raise KeyError(f"{client!r} asked for nothing here; clients: {', '.join(self.clients)}") from None

    @cached_property
    def _by_client(self) -> Mapping[str, tuple[Served, ...]]:
        found: dict[str, list[Served]] = {}
        for each in self.served:
            found.setdefault(each.client, []).append(each)
        return {client: tuple(requests) for client, requests in found.items()}


def _total(values: Iterable[int]) -> int:
    return sum(values)
