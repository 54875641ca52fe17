"""What a run's calls have cost, by the flows that made them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from exoflow.catalogue.description import CallSeen, path_of
from exoflow.model import Bill, Spent

_NOTHING = Bill()


def spent_on(calls: Iterable[CallSeen]) -> Spent:
    """What these calls have cost themselves; one that was refused, or handed a batch in, is not among them."""
    return Spent.on(call.bill for call in calls if call.bill is not None and call.bill != _NOTHING)


def spent_by_flow(calls: Iterable[CallSeen]) -> Mapping[str, Spent]:
    """By path, with all that is below: ``""`` is the whole run, ``"vote#0/"`` a child flow."""
    own: dict[str, list[CallSeen]] = defaultdict(list)
    for call in calls:
        if call.bill is not None and call.bill != _NOTHING:
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
