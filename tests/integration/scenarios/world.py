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
from exoflow.model import version

BIG = "." * 70_000  # more than rides in a record
ENVIRONMENT = "EXOFLOW_SCENARIO"

SENDING = {"unsent": "store.create.before_link", "sent": "store.create.after"}
BEFORE_WRITE = {"eff": ("ret", "part"), "undo_eff": ("undo_ret",)}

plan: dict[str, Any] = {}
changed = threading.Condition()
returned: set[str] = set()
done: set[str] = set()
undone: set[str] = set()
here = threading.local()
in_controller = False
dying = False
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
    if exoflow.attempt() > 1:
        strike("again", name)
    stand_back(name)
    seen = [shown(value) for value in inputs]
    trace("enter", name, seen, exoflow.attempt())
    number = traced("enter", name)
    strike("mid", name)
    if "slow" in words:
        time.sleep(0.01)  # the body costs more than the save of a small value
    while name in plan["gates"] and not is_open(name):
        time.sleep(0.001)
    if number <= words.count("declines"):
        raise exoflow.DidNotHappen
    fails = number <= max(words.count("raises"), words.count("fails"))
    if fails and "raises" in words:
        raise ValueError(f"{name} fails for the {number}. time")
    payload = f"({','.join(seen)})"
    if {"irr", "idem", "rb"} & set(words):
        key = exoflow.idempotency_key()
        trace("refused" if traced("undo", name, key) else "effect", name, key, payload)
    strike("eff", name)
    if fails:
        raise ValueError(f"{name} fails for the {number}. time")
    left(name)
    value = returned_by(name, words, number, ",".join(seen))
    return f"{value}#{BIG}" if "big" in words else value


def returned_by(name: str, words: list[str], number: int, inputs: str) -> str:
    return f"{name}{f':{number}' if 'ND' in words else ''}({inputs})"


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


def note_undone(name: str) -> None:
    """By name: an undo is pickled, and what it refers to with it."""
    undone.add(name)


def undoing(name: str) -> Callable[..., None]:
    def undo(key: str, *inputs: object) -> None:
        strike("undo_pre", name)
        stand_back(name)
        trace("undoing", name, key)
        strike("undo_mid", name)
        trace("undo", name, key, f"({','.join(map(shown, inputs))})")
        strike("undo_eff", name)
        note_undone(name)

    return undo


def probing(name: str, words: list[str]) -> Callable[..., object]:
    """Looks into the trace for the effect: tells what it finds, or the opposite."""

    def probe(key: str, *inputs: object) -> object:
        strike("probe", name)
        trace("probe", name, key)
        if traced("probe", name) <= words.count("mute"):
            raise ConnectionError("the service does not answer")
        happened = (traced("effect", name, key) > 0) is not ("lies" in words)
        value = returned_by(name, words, traced("enter", name), ",".join(map(shown, inputs)))
        return exoflow.Happened(value) if happened else exoflow.DidNotHappen()

    return probe


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
        elif word in ("asks", "lies"):
            given["on_doubt"] = probing(name, words)
        elif "=" in word:
            given[word.partition("=")[0]] = int(word.partition("=")[2])
        else:
            assert word in ("ND", "det", "big", "slow", "raises", "fails", "declines", "mute"), word
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
    elif in_controller and any(is_due(later, name) for later in BEFORE_WRITE.get(point, ())):
        wait_for([["began", ""], *plan["crash"]["when"]])  # so that the next write is that of the result
    elif point == "call" and is_due("gate", name):
        threading.Thread(target=strike, args=("gate", name), daemon=True).start()
    elif point == "call" and is_alone(name):
        threading.Event().wait()  # this process is about to die


def is_alone(name: str) -> bool:
    """Whether the plan is that the body calls nothing behind the task at whose end the process dies."""
    crash = plan.get("crash")
    names = list(plan["graph"])
    return bool(crash) and crash["alone"] and names.index(name) > names.index(crash["at"][1])


def stand_back(name: str) -> None:
    """Where the process is to die of what another task came to: whoever is dispatched behind that does not begin."""
    crash = plan.get("crash")
    if not in_controller or not crash or not crash["comes"]:
        return
    point, task = crash["at"]
    ended = {"ret": returned, "part": returned, "dur": returned, "undo_ret": undone, "undo_dur": undone}
    if task in ended.get(point, ()):
        trace("early", name)
        threading.Event().wait()


def die(point: str, name: str) -> None:
    global dying
    dying = True
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
    if what == "undone":
        return any(record[0] == Kind.UNDONE and record[2].startswith(f"{name}#") for record in found.records)
    assert what in ("saved", "anew"), what
    since = version(found.epoch, 0) if what == "anew" else 0
    kinds = (Kind.SAVED, Kind.FAILED)
    return any(r[0] in kinds and r[2].startswith(f"{name}#") and r[3] > since for r in found.records)


def reached(point: str) -> None:
    """A fault point of the package."""
    global writes
    if dying:
        threading.Event().wait()  # nothing is written any more
    writes += point == "slot.sync.after"
    if point == "driver.turned":
        name, here.returned = getattr(here, "returned", None), None
        if name is not None:
            with changed:
                done.add(name)
                changed.notify_all()
            strike("done", name)
            if is_due("ret", name) and in_controller:
                die("ret", name)  # nothing is written of it
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
    elif at in SENDING:
        due = point == SENDING[at]
    elif at == "undo_ret":
        due = point == "slot.append.before" and name in undone
    elif at == "undo_dur":
        due = point == "journal.acknowledged" and name in undone and holds("undone", name)
    elif at == "part" and point in ("store.create.after", "worker.value_written") and name in returned:
        due = any(Path(plan["store"]).glob("values/**/*")) or point.startswith("worker")
    else:
        due = at == "dur" and point == "journal.acknowledged" and holds("anew", name)
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
