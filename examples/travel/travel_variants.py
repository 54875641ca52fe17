"""One trip, five times: the same functions, annotated so that each variant buys something over the one before."""

from __future__ import annotations

import exoflow
import travel_tasks as to
from exoflow import flow, task
from travel_desk import Offer
from travel_tables import writer
from travel_trip import Steps, in_turn, side_by_side

# 1. All sync: every result is durable before anybody may look at it.
sync = Steps(
    identify=task(checkpoint="sync")(to.identify),
    search=task(checkpoint="sync")(to.search),
    acquire=task(checkpoint="sync", effect="idempotent")(to.acquire),
    release=task(checkpoint="sync", effect="idempotent")(to.release),
    reserve=task(checkpoint="sync", effect="idempotent")(to.reserve),
    order=task(effect="irrevocable", on_doubt="retry")(to.order),  # the till knows a key that it has seen
)
reserve_sync = flow(name="reserve_sync")(in_turn(sync))

# 2. Parallel: the same annotations, room and seat side by side.
reserve_parallel = flow(name="reserve_parallel")(side_by_side(sync))

# 3. Async: nothing is said of checkpoints, so results are saved while the flow goes on. An effect waits for the
# choices that it stands on, and for nothing else.
unhurried = Steps(
    identify=task(to.identify),
    search=task(to.search),
    acquire=task(effect="idempotent")(to.acquire),
    release=task(effect="idempotent")(to.release),
    reserve=task(effect="idempotent")(to.reserve),
    order=task(effect="irrevocable", on_doubt="retry")(to.order),
)
reserve_async = flow(name="reserve_async")(side_by_side(unhurried))

# 4. Async with rollback: what can be undone need not wait, and a trip that fails or is cancelled leaves nothing.
undoable = Steps(
    identify=task(to.identify),
    search=task(to.search),
    acquire=task(rollback=to.undo_acquire)(to.acquire),
    release=task(effect="idempotent")(to.release),
    reserve=task(rollback=to.undo_reserve)(to.reserve),
    order=task(effect="irrevocable", on_doubt="retry")(to.order),
)
reserve_rollback = flow(name="reserve_rollback", on_failure="rollback")(side_by_side(undoable))

# 5. Transactional: ExoFlow's mark is in the transaction of each write. The database need not know any key.
once = task(effect=exoflow.transaction(writer))
transactional = Steps(
    identify=task(to.identify),
    search=task(to.search),
    acquire=once(to.acquire_in),
    release=once(to.release_in),
    reserve=once(to.reserve_in),
    order=once(to.order_in),
)
reserve_transactional = flow(name="reserve_transactional")(side_by_side(transactional))

# Whoever only looks.
look = task(to.search)
advise = task(to.recommend)


@flow(name="search")
def search(kind: str, city: str) -> list[Offer]:
    return look(kind, city)


@flow(name="recommend")
def recommend(kind: str, city: str, by: str) -> list[str]:
    return advise(kind, city, by)
