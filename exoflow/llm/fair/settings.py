"""What is described of a scheduler, and what it is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from exoflow.llm.fair.asks import Waiter
from exoflow.llm.fair.baselines import DRR, FCFS, LCF
from exoflow.llm.fair.charges import Charge
from exoflow.llm.fair.costs import Cost
from exoflow.llm.fair.dispatch import Dispatch
from exoflow.llm.fair.policy import Path, Policy
from exoflow.llm.fair.reserving import ReservingVTC
from exoflow.llm.fair.tenants import Tenant, Tenants, check_tenant, check_whole
from exoflow.llm.fair.turns import Turns
from exoflow.llm.fair.vtc import VTC
from exoflow.protocols import Clock

PolicyName = Literal["vtc", "fcfs", "lcf", "drr"]


@dataclass(frozen=True, slots=True)
class Settings:
    """As given to ``FairScheduler``.

    Raises:
        ValueError: a value is out of range.
    """

    policy: PolicyName | Callable[[], Policy[Waiter]]
    slots: int
    cost: Cost
    charge: Charge
    group_by: tuple[str, ...]
    tenants: tuple[tuple[Path, Tenant], ...]
    each_run: Tenant | None
    ageing_s: float | None

    def __post_init__(self) -> None:
        if not callable(self.policy) and self.policy not in get_args(PolicyName):
            raise ValueError(
                f"policy={self.policy!r}: it is one of {', '.join(get_args(PolicyName))}, or an importable function "
                "that makes one"
            )
        if self.charge not in get_args(Charge):
            raise ValueError(f"charge={self.charge!r}: it is one of {', '.join(get_args(Charge))}")
        ageing_s: object = self.ageing_s
        if ageing_s is not None and (not isinstance(ageing_s, int | float) or not ageing_s > 0):
            raise ValueError(f"ageing_s={self.ageing_s!r}: give seconds above 0, or None")
        check_whole("slots", self.slots, 1)
        if not self.group_by or len(set(self.group_by)) < len(self.group_by) or not all(map(_is_name, self.group_by)):
            raise ValueError(f"group_by={self.group_by!r}: give names of labels, each once")
        if self.each_run is not None:
            check_tenant("each_run", self.each_run)
        if not callable(self.cost):
            raise TypeError(f"cost={self.cost!r}: give Linear(1, 2), or a function of input and output tokens")
        for path, tenant in self.tenants:
            self.checked(path, tenant)

    def checked(self, path: Path, tenant: Tenant) -> Path:
        """Of somebody who can be charged.

        Raises:
            ValueError: nobody is so far below.
            TypeError: it is no ``Tenant``.
        """
        levels = (*self.group_by, "run")
        if len(path) > len(levels):
            raise ValueError(f"{path!r} has {len(path)} names, and the levels are {', '.join(levels)}")
        check_tenant(f"tenants[{path!r}]", tenant)
        return path

    def turns(self, clock: Clock) -> Turns:
        """The live state."""
        tenants = Tenants(self.tenants, self.each_run, len(self.group_by) + 1)
        return Turns(Dispatch(self._policy(), self.cost, tenants, self.group_by, self.slots), clock)

    def _policy(self) -> Policy[Waiter]:
        match self.policy:
            case "vtc" if self.charge == "reserve":
                return ReservingVTC(self.cost, ageing_s=self.ageing_s)
            case "vtc":
                return VTC(self.cost, ageing_s=self.ageing_s)
            case "lcf":
                return LCF(self.cost, charge=self.charge, ageing_s=self.ageing_s)
            case "drr":
                return DRR(self.cost, ageing_s=self.ageing_s)
            case "fcfs":
                return FCFS(ageing_s=self.ageing_s)
            case made:
                return made()


def _is_name(label: object) -> bool:
    return isinstance(label, str) and label != ""
