"""The inside of a scenario: tasks that leave a trace outside the store, and the points at which a process dies.

Entries, effects and undos are lines of one file, appended in the order in which they happened. Worker processes import
this to find the bodies, and find their plan in the environment.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exoflow
from exoflow import hooks, settings
from exoflow.driver.runtime import Runtime
from exoflow.journal import Kind

BIG = "." * 70_000  # more than rides in a record
ENVIRONMENT = "EXOFLOW_SCENARIO"

plan: dict[str, Any] = {}
changed = threading.Condition()
returned: set[str] = set()
done: set[str] = set()
here = threading.local()
in_controller = False
writes = 0
saved: set[int] = set()


# -- the trace ---------------------------------------------------------------------------------------------------------


def trace(*line: object) -> None:
    data = (json.dumps(line) + "\n").encode()
    fd = os.open(plan["trace"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(fd, data)  # one write: lines of several processes do not mix
    os.close(fd)


def traced(*start: object) -> int:
    """How many lines begin so."""
    path = Path(plan["trace"])
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return sum(line[: len(start)] == list(start) for line in lines)


# -- what a body does --------------------------------------------------------------------------------------------------


def act(name: str, words: list[str], *inputs: object) -> str:
    """Enter, perhaps have an effect, return who was made of what: ``B:2(A:1())``."""
    strike("pre", name)
    seen = [shown(value) for value in inputs]
    trace("enter", name, seen, exoflow.attempt())
    number = traced("enter", name)
    strike("mid", name)
    while name in plan["gates"] and not is_open(name):
        time.sleep(0.001)
    if "raises" in words and number <= words.count("raises"):
        raise ValueError(f"{name} fails for the {number}. time")
    payload = f"({','.join(seen)})"
    if {"irr", "idem", "rb"} & set(words):
        key = exoflow.idempotency_key()
        trace("refused" if traced("undo", name, key) else "effect", name, key, payload)
    strike("eff", name)
    left(name)
    value = f"{name}{f':{number}' if 'ND' in words else ''}{payload}"
    return f"{value}#{BIG}" if "big" in words else value


def is_open(name: str) -> bool:
    """Whether a body may go on: somebody made a file, or has taken the run over, and this process knows of it."""
    if plan["gates"][name] == "fenced":
        return not Runtime.of(settings.store_of(plan["store"])).journal.can_write()
    return Path(plan["folder"], f"gate-{name}").exists()


def shown(value: object) -> str:
    return str(value).replace(f"#{BIG}", "")


def left(name: str) -> None:
    """The body is about to return."""
    here.returned = name
    with changed:
        returned.add(name)
        changed.notify_all()


def undoing(name: str) -> Callable[..., None]:
    def undo(key: str, *inputs: object) -> None:
        trace("undo", name, key, f"({','.join(map(shown, inputs))})")

    return undo


def task(name: str, words: list[str], function: Callable[..., object] | None = None) -> Any:
    def body(*inputs: object) -> str:
        return act(name, words, *inputs)

    given: dict[str, Any] = {"name": name, "deterministic": "ND" not in words}
    for word in words:
        if word in ("sync", "async", "never", "auto"):
            given["checkpoint"] = word
        elif word in ("irr", "idem"):
            given["effect"] = {"irr": "irrevocable", "idem": "idempotent"}[word]
        elif word == "rb":
            given["rollback"] = undoing(name)
        elif word in ("stop", "retry"):
            given["on_doubt"] = word
        elif "=" in word:
            given[word.partition("=")[0]] = int(word.partition("=")[2])
        else:
            assert word in ("ND", "det", "big", "raises"), word
    return exoflow.task(**given)(function or body)


# -- dying -------------------------------------------------------------------------------------------------------------


def is_due(point: str, name: str) -> bool:
    crash = plan.get("crash")
    return bool(crash) and [point, name] == crash["at"] and not traced("crash", plan["life"])


def strike(point: str, name: str) -> None:
    """Die here, if that is the plan, once all that was to happen first has happened."""
    if is_due(point, name):
        if in_controller:
            wait_for([["began", ""], *plan["crash"]["when"]])
        die(point, name)
    elif in_controller and (is_due("ret", name) or is_due("part", name)):
        wait_for([["began", ""]])  # so that the next write is that of the result


def die(point: str, name: str) -> None:
    trace("crash", plan["life"], point, name)
    if in_controller or plan["crash"]["domain"] == "W":
        os.kill(os.getpid(), signal.SIGKILL)
    os.kill(plan["pid"], signal.SIGKILL)
    signal.pause()  # a worker dies with its controller


def wait_for(conditions: list[list[str]]) -> None:
    with changed:
        changed.wait_for(lambda: all(holds(*condition) for condition in conditions))


def holds(what: str, name: str) -> bool:
    if what == "returned":
        return name in returned
    if what == "done":
        return name in done
    runtime = Runtime.of(settings.store_of(plan["store"]))
    found = runtime.journal.find(plan["run_id"])
    if what == "began":
        return bool(found.history.began)
    assert what == "saved", what
    return any(record[0] in (Kind.SAVED, Kind.FAILED) and record[2].startswith(f"{name}#") for record in found.records)


def reached(point: str) -> None:
    """A fault point of the package."""
    global writes
    writes += point == "slot.sync.after"
    if point == "driver.turned":
        name, here.returned = getattr(here, "returned", None), None
        if name is not None:
            with changed:
                done.add(name)
                changed.notify_all()
            strike("done", name)
        return
    if point == "journal.acknowledged":
        with changed:
            changed.notify_all()
        if in_controller:
            trace_saved()
    elif point == "store.create.before_write" and threading.current_thread().name.startswith("exoflow-save"):
        hold_or_fail()
    if not plan.get("crash") or not getattr(here, "free", True):
        return
    here.free = False
    try:
        strike_at_write(point, *plan["crash"]["at"])
    finally:
        here.free = True


def trace_saved() -> None:
    """Say of each result that is durable now, in this life, that it is."""
    if not getattr(here, "looks", True):
        return
    here.looks = False
    runtime = Runtime.of(settings.store_of(plan["store"]))
    for record in runtime.journal.find(plan["run_id"]).records:
        if record[0] == Kind.SAVED and record[3] not in saved:
            saved.add(record[3])
            trace("saved", record[2].partition("#")[0])
    here.looks = True


def strike_at_write(point: str, at: str, name: str) -> None:
    if at == "ret" and point in ("slot.append.before", "worker.returned") and name in returned:
        due = True
    elif at == "part" and point in ("store.create.after", "worker.value_written") and name in returned:
        due = any(Path(plan["store"]).glob("values/**/*")) or point.startswith("worker")
    else:
        due = at == "dur" and point == "journal.acknowledged" and holds("saved", name)
    if due and is_due(at, name):
        die(at, name)


def hold_or_fail() -> None:
    saves = plan.get("saves")
    if saves is None:
        return
    if saves["do"] == "fail":
        if saves["times"] > traced("failed save", plan["life"]):
            trace("failed save", plan["life"])
            raise OSError(5, "the disk is tired")
    elif saves["until"]:
        wait_for([saves["until"]])
    else:
        threading.Event().wait()


# -- beginning -------------------------------------------------------------------------------------------------------


def obey(given: dict[str, Any]) -> None:
    global in_controller
    plan.clear()
    plan.update(given)
    hooks._armed = reached
    in_controller = os.getpid() == plan["pid"]


if ENVIRONMENT in os.environ:
    obey(json.loads(os.environ[ENVIRONMENT]))
