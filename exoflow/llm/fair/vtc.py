"""The Virtual Token Counter: who has had the least is next."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, ClassVar

from exoflow.llm.fair.bands import Bands
from exoflow.llm.fair.charges import Charge, Expectation, Predict
from exoflow.llm.fair.costs import Amount, Cost, Linear, checked, weight_of
from exoflow.llm.fair.counters import Counters
from exoflow.llm.fair.policy import Path, W, path_of

Weights = Mapping[str, Amount] | Mapping[Path, Amount] | Mapping[str | Path, Amount]


class VTC(Bands[W]):
    """Clients that wait get equal service, or service in proportion to their weights, whatever they ask for.

    Sheng et al., "Fairness in Serving Large Language Models", OSDI '24. With U = max(w_p * longest input, w_q * tokens
    of a batch), counters of clients that wait differ by U at most, and their service by 2U.

    Siblings are compared with siblings: a tenant that splits its work among users gains nothing. Each priority has
    counters of its own.

    Args:
        cost: of a request.
        weights: of a client's path, or of a name for the path of this name alone; 1 if not given.
        predict: how long an answer will be, which is charged when it begins; what it did not use is given back at its
            end. ``"mean"`` of the client's last five, ``"oracle"``, or a function of the request.
        charge: ``"complete"``: tokens are charged as they are told. ``"reserve"``: ``max_output_tokens`` at dispatch,
            and what is left is given back at the end: where nobody sees the tokens before that.
        ageing_s: as of ``Bands``.

    Raises:
        ValueError: a weight is not above 0, or both predict and "reserve" are given.
    """

    _counters: ClassVar[type[Counters[Any]]] = Counters

    def __init__(
        self,
        cost: Cost | None = None,
        weights: Weights | None = None,
        predict: Predict[W] = None,
        charge: Charge = "complete",
        *,
        ageing_s: float | None = None,
    ) -> None:
        self.cost = cost if cost is not None else Linear(1, 2)
        self._weights = {path_of(client): weight_of(weight) for client, weight in (weights or {}).items()}
        expectation = Expectation[W](predict, charge)
        super().__init__(lambda: self._counters(checked(self.cost), expectation, self._weights), ageing_s)

    def weigh(self, client: str | Path, weight: Amount) -> None:
        """Change a weight. Counters stay as they are; what is charged from now on is divided by it."""
        self._weights[path_of(client)] = weight_of(weight)
        for band in self._bands.values():
            assert isinstance(band, Counters)
            band.weigh(path_of(client), self._weights[path_of(client)])

    def spend(self, client: str | Path, amount: int, priority: int = 0) -> None:
        """Charge a client for what did not wait here: a resumed run's calls that were answered before.

        Args:
            amount: in the units of ``cost``.
        """
        if amount < 0:
            raise ValueError(f"spend({client!r}, {amount}): nobody can have spent less than nothing")
        band = self._band(priority)
        assert isinstance(band, Counters)
        band.spend(path_of(client), amount)

    def counters(self, priority: int = 0) -> dict[Path, Fraction]:
        """Of each client and group of clients that is remembered: its charges by its weight, and what it was lifted.

        Only those of siblings can be compared.
        """
        band = self._bands.get(priority)
        return band.counters() if isinstance(band, Counters) else {}
