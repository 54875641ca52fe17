"""The lives of a scenario: flows made of the plan, in processes forked from one that has imported everything."""

import asyncio
import atexit
import faulthandler
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import programs
import world
from world import ENVIRONMENT, obey, plan, shown, strike, task

import exoflow
import exoflow.executors.local
import exoflow.executors.processes
from exoflow import settings
from exoflow.model import Held
from exoflow.protocols import Attempt, Executor, Outcome, Vanished

HANG_S = 60.0

for _name in dir(exoflow):
    getattr(exoflow, _name)


def straight(tasks: dict[str, Any]) -> Callable[[], object]:
    """The graph of the plan, in one of the forms in which a body can be written."""
    graph: dict[str, list[str]] = plan["graph"]

    def submits() -> object:
        refs: dict[str, Any] = {}
        for name, inputs in graph.items():
            strike("call", name)
            refs[name] = tasks[name].submit(*(refs[each] for each in inputs))
        return refs[name].result()

    def reads() -> object:
        values: dict[str, Any] = {}
        for name, inputs in graph.items():
            strike("call", name)
            values[name] = tasks[name](*(values[each] for each in inputs))
        return values[name]

    def looks() -> object:
        refs: dict[str, Any] = {}
        for name, inputs in graph.items():
            strike("call", name)
            refs[name] = tasks[name].submit(*(refs[each] for each in inputs))
            refs[name].result()
        return refs[name].result()

    async def awaits() -> object:
        values: dict[str, Any] = {}
        for name, inputs in graph.items():
            strike("call", name)
            values[name] = await tasks[name].submit(*(values[each] for each in inputs))
        return values[name]

    return {"last": submits, "every": reads, "refs": looks, "async": awaits}[plan["form"]]


def flow() -> Any:
    tasks = {name: task(name, words) for name, words in plan["notes"].items()}
    body = programs.PROGRAMS.get(plan["form"], straight)(tasks)
    return exoflow.flow(name="scenario")(body)


class Forgetful:
    """Worker processes that take with them what they were given: the only copy of each input is lost with them."""

    def __init__(self, processes: Executor) -> None:
        self._processes = processes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processes, name)

    def start(self, attempt: Attempt, report: Callable[[Outcome], None]) -> None:
        def forget(outcome: Outcome) -> None:
            if isinstance(outcome, Vanished) and not outcome.lost:
                for value in attempt.inputs.values():
                    assert isinstance(value, Held)
                    self._processes.drop(value)
            report(outcome)

        self._processes.start(attempt, forget)


def live(outcome: Path) -> None:
    """One life: begin the run, or go on with it; say what came of it."""
    said: dict[str, object] = {}
    try:
        if plan.get("sends"):
            data, id = plan["sends"]
            exoflow.send(plan["run_id"], "event", data, id=id, store=plan["store"])
            outcome.write_text("{}")
            return
        made = flow()
        executor = plan["executor"]
        if executor == "forgetful":
            executor = Forgetful(settings.executors_of(settings.store_of(plan["store"]))("processes"))
        options = {"store": plan["store"], "executor": executor}
        if plan["begins"]:
            result = made.options(run_id=plan["run_id"], **options).run(*plan["arguments"])
            said["result"] = shown(asyncio.run(result) if asyncio.iscoroutine(result) else result)
        else:
            said["result"] = shown(exoflow.resume(plan["run_id"], **options, takeover=plan["takeover"]))
        strike("end", "run")
    except BaseException as error:  # noqa: BLE001  # whatever it is, the test wants to see it
        traceback.print_exc()
        said.update(error=type(error).__name__, message=str(error))
    outcome.write_text(json.dumps({**said, "writes": world.writes}))


# -- processes ---------------------------------------------------------------------------------------------------------


def born(job: dict[str, Any]) -> None:
    """A process of its own, from here on."""
    folder = Path(job["folder"])
    err = os.open(folder / f"err-{job['name']}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (err, 1), (err, 2)):
        os.dup2(source, target)
    faulthandler.dump_traceback_later(HANG_S, exit=True)
    os.chdir(folder)
    job["pid"] = os.getpid()
    os.environ[ENVIRONMENT] = json.dumps(job)
    obey(job)
    live(folder / f"outcome-{job['name']}")
    atexit._run_exitfuncs()
    sys.stderr.flush()
    os._exit(0)


def serve() -> None:
    """Read one line of JSON a request; tell its number, and the pid of a job that is forked or the status of a pid."""
    for line in sys.stdin:
        number, asked = json.loads(line)
        if isinstance(asked, int):
            _, status = os.waitpid(asked, 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                try:
                    born(asked)
                finally:
                    os._exit(1)
        print(number, answer, flush=True)
