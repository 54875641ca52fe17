"""What a run's paid calls have cost, by the flows that made them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from exoflow.catalogue.description import CallSeen, path_of
from exoflow.model import Bill


@dataclass(frozen=True, slots=True)
class Spent:
    """The sum of some bills. Of an attempt whose process died before its bill was durable nobody knows."""

    calls: int = 0
    bill: Bill = field(default_factory=Bill)
    maybe_rebilled: int = 0
    """Calls of which an earlier attempt may have been charged for, too."""

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.calls + other.calls, self.bill + other.bill, self.maybe_rebilled + other.maybe_rebilled)


def spent_on(calls: Iterable[CallSeen]) -> Spent:
    """What these calls have cost themselves."""
    bills = (call.bill for call in calls)
    return sum((Spent(1, bill, int(bill.maybe_rebilled)) for bill in bills if bill is not None), Spent())


def spent_by_flow(calls: Iterable[CallSeen]) -> Mapping[str, Spent]:
    """By path, with all that is below: ``""`` is the whole run, ``"vote#0/"`` a child flow."""
    own: dict[str, list[CallSeen]] = defaultdict(list)
    for call in calls:
        if call.bill is not None:
            own[call.path].append(call)
    found: dict[str, Spent] = {}
    for path, made in own.items():
        spent, above = spent_on(made), path
        while True:
            found[above] = found.get(above, Spent()) + spent
            if not above:
                break
            above = path_of(above[:-1])
    return dict(sorted(found.items()))
