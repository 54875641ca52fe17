"""Who is charged, on which terms: accounts, bands and weights by path."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from exoflow.llm.fair.asks import Client
from exoflow.llm.fair.costs import Amount
from exoflow.llm.fair.ledger import Ledger
from exoflow.llm.fair.meters import Meter
from exoflow.llm.fair.policy import Path
from exoflow.llm.fair.tenants import Tenant, Tenants

SWEEP_MIN = 16_384


class Clients:
    """All that were charged once.

    Args:
        levels: the labels that say who it is, from the root.
        weigh: told of each weight that is not 1, before anybody there is charged, and of each that changes.
    """

    def __init__(self, tenants: Tenants, levels: tuple[str, ...], weigh: Callable[[Path, Amount], None]) -> None:
        self.ledger = Ledger(tenants.of)
        self.meters: dict[str, Meter] = {}
        """By tenant."""
        self._tenants = tenants
        self._levels = levels
        self._weigh = weigh
        self._weights: dict[Path, Amount] = {}
        self._stamps: dict[Path, int] = {}
        self._clients: dict[Path, Client] = {}
        self._sweep_at = SWEEP_MIN

    def of(self, labels: Mapping[str, str], run: str) -> Client:
        path = (*[labels.get(level, "") for level in self._levels], run)
        found = self._clients.get(path)
        if found is None:
            if len(self._clients) >= self._sweep_at:
                self._sweep()
            meter = self.meters.setdefault(path[0], Meter())
            found = self._clients[path] = Client(path, self.ledger.account(path), meter)
            self._look_up(found)
        return found

    def update(self, path: Path, tenant: Tenant, stamp: int) -> bool:
        """The terms are these from now on. False: later ones are known, and stay."""
        if stamp < self._stamps.get(path, stamp):
            return False
        self._stamps[path] = stamp
        self._tenants.update(path, tenant)
        self.ledger.limits_changed()
        for client in self._clients.values():
            self._look_up(client)
        return True

    def band(self, path: Path) -> int:
        return self._tenants.band(path)

    def __iter__(self) -> Iterator[Client]:
        return iter(self._clients.values())

    def _sweep(self) -> None:
        """Runs end, and nobody says so: those that wait for nothing, and have no budget to be kept, are forgotten."""
        for path, client in list(self._clients.items()):
            if not client.account.waiting and not client.account.has_budget:
                del self._clients[path]
                self.ledger.forget(client.account)
        self._sweep_at = max(SWEEP_MIN, 2 * len(self._clients))

    def _look_up(self, client: Client) -> None:
        client.band = self._tenants.band(client.path)
        client.has_budget = any(account.has_budget for account in client.account.upwards)
        for account in client.account.upwards:
            weight = self._tenants.of(account.path).weight
            if self._weights.get(account.path, 1) != weight:
                self._weights[account.path] = weight
                self._weigh(account.path, weight)
