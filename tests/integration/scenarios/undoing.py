"""One life of a run whose undos are watched: ``python undoing.py FOLDER HOW POINT``, killed at the point.

Bookings, tries to pay and undos are lines of FOLDER/trace, appended outside of the store. HOW the undos come about:

    recovery   a choice that was never saved is lost with the first life, and made again in the next
    retry      the body of a booking has failed, and is tried again
    rollback   the flow has failed, and rolls back
    cancel     the run was cancelled

POINT, of the newest booking, the first to be undone: ``before`` it begins, ``in`` it, after its ``effect``, when it is
``undone`` durably, or before the run has ``ended``; ``none``: the life is not killed. ``late``: as the first life of a
recovery has to be.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import exoflow
from exoflow import Backoff, flow, task
from exoflow.driver import records
from exoflow.driver.execution import Execution
from exoflow.driver.runtime import Runtime
from exoflow.kernel import commands as do
from exoflow.settings import store_of

FOLDER, HOW, POINT = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
STORE = FOLDER / "store"
AT_ONCE = Backoff(initial_s=0.0)


def trace(*line: object) -> None:
    fd = os.open(FOLDER / "trace", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(fd, (json.dumps(line) + "\n").encode())
    os.close(fd)


def traced(*start: object) -> bool:
    path = FOLDER / "trace"
    lines = path.read_text().splitlines() if path.exists() else []
    return any(json.loads(line)[: len(start)] == list(start) for line in lines)


def strike(point: str, if_it_holds: bool = True) -> None:
    if point == POINT and if_it_holds:
        os.kill(os.getpid(), signal.SIGKILL)


# -- the points of the driver ------------------------------------------------------------------------------------------

_carry_out = dict(Execution.carry_out)


def before_undo(execution: Execution, command: do.Undo) -> None:
    strike("before")
    _carry_out[do.Undo](execution, command)


def before_end(execution: Execution, command: do.Finish) -> None:
    strike("ended")
    _carry_out[do.Finish](execution, command)


class Watched(Execution):
    carry_out: ClassVar[Any] = {**_carry_out, do.Undo: before_undo, do.Finish: before_end}

    def catch_up(self) -> None:
        super().catch_up()
        if POINT == "undone":
            found = Runtime.of(store_of(STORE)).journal.find("r")
            strike("undone", any(record[0] == records.Kind.UNDONE for record in found.records))


sys.modules["exoflow.driver.runtime"].Execution = Watched  # type: ignore[attr-defined]


# -- the flow ----------------------------------------------------------------------------------------------------------


def release(key: str, what: str) -> None:
    trace("undoing", what, key)
    strike("in")
    trace("undone", what, key)
    strike("effect")


@task(rollback=release, checkpoint="never" if HOW == "recovery" else "auto")
def book(what: str) -> str:
    trace("booked", what, exoflow.idempotency_key())
    return what


@task(rollback=release, retries=1, backoff=AT_ONCE)
def book_badly(what: str) -> str:
    failed = traced("booked", what)
    trace("booked", what, exoflow.idempotency_key())
    if not failed:
        raise ValueError("the line went dead")
    return what


@task(checkpoint="never")
def choose() -> str:
    trace("chosen")
    return "flight"


@task
def pay() -> None:
    trace("paid")
    if HOW == "cancel":
        signal.pause()
    elif HOW == "rollback":
        raise ValueError("card declined")
    strike("late")


@flow(on_failure="rollback" if HOW == "rollback" else "keep")
def trip() -> str:
    if HOW == "retry":
        return book_badly("hotel")
    first = book.submit(choose.submit() if HOW == "recovery" else "flight")
    second = book(f"hotel after {first.result()}")
    pay.submit().result()
    return second


def main() -> None:
    configured = trip.options(run_id="r", store=STORE)
    if (FOLDER / "trace").exists():
        result: object = exoflow.resume("r", store=STORE)
    elif HOW == "cancel":
        run = configured.start()
        while not traced("paid"):
            time.sleep(0.001)
        run.cancel()
        result = run.result()
    else:
        result = configured.run()
    print(result)


if __name__ == "__main__":
    main()
