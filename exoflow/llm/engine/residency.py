"""Which adapters are in the pool, in which slot and pages, and for whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from exoflow.errors import OutOfPages
from exoflow.llm.engine.memory import Kept, Memory


class Place(Enum):
    COMING = "coming"
    """Its pages are taken; they are being filled."""
    HERE = "here"


@dataclass(slots=True, eq=False)
class Resident:
    """One adapter version in the pool. A slot is its row in the tables of the kernels."""

    version: str
    slot: int
    pages: list[int]
    kept: Kept = field(init=False)
    place: Place = Place.COMING
    holders: int = 0


@dataclass(frozen=True, slots=True)
class AdapterCost:
    pages: int
    load_s: float
    """From host memory into the pool."""


@dataclass(frozen=True, slots=True)
class Load:
    """An order: fill these pages with this version."""

    version: str
    slot: int
    pages: tuple[int, ...]


class Residency:
    """Adapters by version. One that nobody holds stays for later, until its pages are worth more to others."""

    def __init__(self, memory: Memory, slots: int) -> None:
        self._memory = memory
        self._free_slots = list(range(slots - 1, -1, -1))
        self._residents: dict[str, Resident] = {}
        self._orders: list[Load] = []
        self.loads = 0
        """Orders given so far."""

    def find(self, version: str) -> Resident | None:
        return self._residents.get(version)

    def size_of(self, version: str) -> int:
        """Pages of one that is resident."""
        return len(self._residents[version].pages)

    def missing_pages(self, version: str, pages: int) -> int:
        """Pages that must be taken before a request of this version can run."""
        return 0 if version in self._residents else pages

    def hold(self, version: str, pages: int, cost_s: float) -> Resident:
        """Somebody needs it: ordered if it is not there, and not dropped until it is let go.

        Raises:
            OutOfPages: there is no room for it, or no slot; nothing changes.
        """
        resident = self._residents.get(version) or self._order(version, pages, cost_s)
        if resident.holders == 0 and resident.place is Place.HERE:
            self._memory.reclaimable -= len(resident.pages)
            self._memory.hold(resident.kept)
        resident.holders += 1
        resident.kept.uses += 1
        return resident

    def let_go(self, version: str) -> None:
        resident = self._residents[version]
        resident.holders -= 1
        self._settle(resident)

    def prefetch(self, version: str, pages: int, cost_s: float) -> None:
        """Order it if that costs nobody anything: there are free pages and a free slot."""
        if version not in self._residents and self._free_slots and self._memory.pool.free >= pages:
            self._order(version, pages, cost_s)

    def arrived(self, version: str) -> None:
        """Its pages are filled."""
        resident = self._residents[version]
        resident.place = Place.HERE
        self._settle(resident)

    def failed(self, version: str) -> None:
        """Its pages could not be filled. Those who hold it must have let it go."""
        resident = self._residents[version]
        assert resident.holders == 0
        self._remove(resident)

    def forget(self, version: str) -> bool:
        """Drop it now, if nobody holds it and nothing is being copied; whether it is gone."""
        resident = self._residents.get(version)
        if resident is None:
            return True
        if resident.holders or resident.place is Place.COMING:
            return False
        self._memory.hold(resident.kept)
        self._drop(resident)
        return True

    def take_orders(self) -> list[Load]:
        """What is to be copied, and was not told before."""
        orders, self._orders = self._orders, []
        return orders

    def __iter__(self) -> Iterator[Resident]:
        return iter(self._residents.values())

    def _order(self, version: str, pages: int, cost_s: float) -> Resident:
        slot = self._free_slot(pages)
        resident = Resident(version, slot, self._memory.take(pages))
        self._free_slots.remove(slot)
        resident.kept = Kept(pages, cost_s, lambda: self._drop(resident))
        self._residents[version] = resident
        self._orders.append(Load(version, slot, tuple(resident.pages)))
        self.loads += 1
        return resident

    def _free_slot(self, pages: int) -> int:
        if not self._free_slots:
            loose = [resident for resident in self._residents.values() if resident.kept.is_loose]
            if not loose:
                raise OutOfPages(f"all {len(self._residents)} adapter slots are in use (adapter_slots)")
            least = min(loose, key=lambda resident: resident.kept.worth)
            if self._memory.room < pages:
                raise OutOfPages(f"{pages} pages are needed and {self._memory.room} can be had")
            self._memory.hold(least.kept)
            self._drop(least)
        return self._free_slots[-1]

    def _settle(self, resident: Resident) -> None:
        if resident.holders == 0 and resident.place is Place.HERE:
            self._memory.reclaimable += len(resident.pages)
            self._memory.loosen(resident.kept)

    def _drop(self, resident: Resident) -> None:
        self._memory.reclaimable -= len(resident.pages)
        self._remove(resident)

    def _remove(self, resident: Resident) -> None:
        del self._residents[resident.version]
        self._memory.pool.release(resident.pages)
        self._free_slots.append(resident.slot)
