"""One trip, five times: the same functions, annotated so that each variant buys something over the one before."""

from __future__ import annotations

import exoflow
import travel_tasks as to
from exoflow import Backoff, flow, task
from exoflow.options import TaskOptions
from travel_tables import writer
from travel_trip import Steps, in_turn, side_by_side

PATIENT: TaskOptions = {"retries": 20, "backoff": Backoff(max_s=2.0)}  # the database may be restarted

# 1. All sync: every result is durable before anybody may look at it.
saved = task(checkpoint="sync", **PATIENT)
saved_once = task(checkpoint="sync", effect="idempotent", **PATIENT)
paid = task(effect="irrevocable", on_doubt="retry", **PATIENT)  # the till knows a key that it has seen
sync = Steps(
    identify=saved(to.identify),
    search=saved(to.search),
    acquire=saved_once(to.acquire),
    release=saved_once(to.release),
    reserve=saved_once(to.reserve),
    order=paid(to.order),
)
reserve_sync = flow(name="reserve_sync")(in_turn(sync))

# 2. Parallel: the same annotations, room and seat side by side.
reserve_parallel = flow(name="reserve_parallel")(side_by_side(sync))

# 3. Async: nothing is said of checkpoints, so results are saved while the flow goes on. An effect waits until the
# choices that it stands on are saved, and for nothing else.
plain = task(**PATIENT)
once = task(effect="idempotent", **PATIENT)
unhurried = Steps(
    identify=plain(to.identify),
    search=plain(to.search),
    acquire=once(to.acquire),
    release=once(to.release),
    reserve=once(to.reserve),
    order=paid(to.order),
)
reserve_async = flow(name="reserve_async")(side_by_side(unhurried))

# 4. Async with rollback: what can be undone need not wait, and a trip that fails or is cancelled leaves nothing.
undoable = Steps(
    identify=plain(to.identify),
    search=plain(to.search),
    acquire=task(rollback=to.undo_acquire, **PATIENT)(to.acquire),
    release=once(to.release),
    reserve=task(rollback=to.undo_reserve, **PATIENT)(to.reserve),
    order=paid(to.order),
)
reserve_rollback = flow(name="reserve_rollback", on_failure="rollback")(side_by_side(undoable))

# 5. Transactional: ExoFlow's mark is part of each write's transaction, so that the database need not know any key.
transacted = task(effect=exoflow.transaction(writer), **PATIENT)
transactional = Steps(
    identify=plain(to.identify),
    search=plain(to.search),
    acquire=transacted(to.acquire_in),
    release=transacted(to.release_in),
    reserve=transacted(to.reserve_in),
    order=transacted(to.order_in),
)
reserve_transactional = flow(name="reserve_transactional")(side_by_side(transactional))

# Whoever only looks.
look = plain(to.search)
advise = plain(to.recommend)


@flow(name="search")
def search(kind: str, city: str) -> list[str]:
    return look(kind, city)


@flow(name="recommend")
def recommend(kind: str, city: str, by: str) -> list[str]:
    return advise(kind, city, by)
