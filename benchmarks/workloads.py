"""What is measured: each workload, its figures, and the goal of each figure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from systems import LIMIT, OURS


class Than(Enum):
    """What a goal's number is compared with."""

    NOTHING = "itself"
    LIMIT = "the machine alone"
    PEER = "the best peer"


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound that our median should keep."""

    bound: float
    than: Than = Than.NOTHING
    """LIMIT: at most ``bound`` times the machine alone. PEER: at least ``bound`` times better than the best peer."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that a workload gives."""

    name: str
    title: str
    unit: str
    goals: tuple[Goal, ...] = ()
    larger_is_better: bool = False
    peers_from: str = ""
    """The workload whose figure of the same name the peers are compared by, where they have none in this one."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What each system is asked to do, in one process a stage, and what it tells."""

    name: str
    title: str
    method: str
    figures: tuple[Figure, ...]
    systems: tuple[str, ...] = (OURS,)
    size: int = 100
    quick_size: int = 100
    times: int = 3
    stages: tuple[str, ...] = ()
    """The programs' names of it, one process after another in one folder; the workload's own name by default."""
    once: bool = False
    """Heavy, and of one system: measured in the first repeat only."""


EVERYONE = (LIMIT, OURS, "dbos", "langgraph", "absurd")
PEER_TIMES = (OURS, "dbos", "langgraph", "absurd")

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            "chain",
            "Chain of 100 steps",
            "100 no-op, nondeterministic steps one after another; all durable when the flow returns. The machine "
            "alone: 100 records of 200 bytes, one fdatasync at the end.",
            (Figure("step_ms", "chain of 100 steps, per step", "ms", (Goal(0.03), Goal(30, Than.PEER))),),
            EVERYONE,
            times=5,
        ),
        Workload(
            "chain_sync",
            "Chain of 100 steps, each durable before the next",
            '`checkpoint="sync"` at each step. The machine alone: a record of 200 bytes and an fdatasync for each '
            "step.",
            (
                Figure(
                    "step_ms",
                    'chain of 100 steps, checkpoint="sync", per step',
                    "ms",
                    (Goal(1.8, Than.LIMIT),),
                    peers_from="chain",
                ),
            ),
            (LIMIT, OURS),
            times=5,
        ),
        Workload(
            "fanout",
            "Fan-out of 1,000 tasks and reduce",
            "1,000 no-op tasks at once on local threads, and the sum of their results. DBOS: `asyncio.gather` of "
            "async steps, the fastest of its three ways. absurd has no tasks side by side within a task. The machine "
            "alone: `ThreadPoolExecutor.map`.",
            (Figure("tasks_per_s", "fan-out of 1,000 tasks", "tasks/s", (Goal(25_000),), larger_is_better=True),),
            (LIMIT, OURS, "dbos", "langgraph"),
            size=1000,
            quick_size=1000,
        ),
        Workload(
            "flows",
            "1,000 flows of one step, from threads",
            "1,000 flows of one no-op step, as many at once as the system likes best: 32 threads (exoflow), 8 (DBOS, "
            "LangGraph), 8 workers (absurd).",
            (
                Figure(
                    "flows_per_s",
                    "1,000 flows of one step, threads",
                    "flows/s",
                    (Goal(4_800), Goal(10, Than.PEER)),
                    larger_is_better=True,
                ),
            ),
            PEER_TIMES,
            size=1000,
            quick_size=300,
        ),
        Workload(
            "flows_async",
            "1,000 flows of one step, on one event loop",
            "1,000 `async` flows of one `async` no-op step, all started at once on one loop; the peers' figures are "
            "those of the threads.",
            (
                Figure(
                    "flows_per_s",
                    "1,000 flows of one step, asyncio",
                    "flows/s",
                    (Goal(12_000),),
                    larger_is_better=True,
                    peers_from="flows",
                ),
            ),
            size=1000,
            quick_size=300,
        ),
        Workload(
            "one",
            "One flow of one step",
            "The median of 200 flows of one no-op step, one after another, each durable when it returns. The machine "
            "alone: a record of 200 bytes and an fdatasync.",
            (Figure("flow_ms", "one flow of one step, p50", "ms", (Goal(1.0),)),),
            EVERYONE,
            size=200,
            quick_size=50,
        ),
        Workload(
            "array",
            "100 MB between two steps",
            "A NumPy array of 100 MB of random bytes, made before the clock starts, is returned by one step and read "
            "by the next. Bytes written: `write_bytes` of the process (of PostgreSQL's processes, for absurd, which "
            "takes only JSON: base64 by hand). The machine alone: write, crc32 and fdatasync of the same bytes.",
            (
                Figure("s", "100 MB between two steps", "s", (Goal(1.6, Than.LIMIT),)),
                Figure("written_mb", "bytes written for 100 MB", "MB", (Goal(1.02, Than.LIMIT),)),
            ),
            EVERYONE,
            size=100_000_000,
            quick_size=100_000_000,
        ),
        Workload(
            "array_deterministic",
            "100 MB between two steps, deterministic",
            "The same with `@task(deterministic=True)`: recomputing costs less than saving, so nothing of the value "
            "is written.",
            (
                Figure("s", "100 MB from a deterministic step", "s", peers_from="array"),
                Figure("written_mb", "bytes written, deterministic", "MB", (Goal(0.1),), peers_from="array"),
            ),
            size=100_000_000,
            quick_size=100_000_000,
        ),
        Workload(
            "crash",
            "kill -9 at step 10 of 20",
            "20 steps of 0.2 s. SIGKILL of the process group in the middle of step 10; a new process resumes. Time "
            "from its start to its first step, imports and all, and how many finished steps ran again.",
            (
                Figure("first_step_s", "resume after kill -9, to the first step", "s", (Goal(0.5),)),
                Figure("again", "finished steps that ran again", "steps", (Goal(0),)),
            ),
            PEER_TIMES,
        ),
        Workload(
            "calls",
            "A run of 100,000 calls",
            "One flow makes 100,000 no-op calls, then SIGKILLs itself. Memory: growth of the process's resident set "
            "over the calls. Resume: from `resume` to the result, every call handed back from the journal. Linear: "
            "seconds of the last tenth of the calls over those of the first.",
            (
                Figure("bytes_per_call", "memory per call, 100,000 calls", "bytes", (Goal(1024),)),
                Figure("resume_s", "resume of 100,000 calls", "s", (Goal(2.0),)),
                Figure("last_over_first", "last tenth of the calls over the first", "×", (Goal(1.3),)),
            ),
            size=100_000,
            quick_size=10_000,
            times=1,
            stages=("calls", "calls_resume"),
        ),
        Workload(
            "waiting",
            "10,000 flows that wait",
            "10,000 async flows in one process, each in a durable sleep of an hour. The process's resident set.",
            (Figure("rss_mb", "memory of 10,000 waiting flows", "MB", (Goal(500),)),),
            size=10_000,
            quick_size=1_000,
            times=1,
            once=True,
        ),
        Workload(
            "events",
            "10,000 flows that wait for events",
            "10,000 async flows in one process, each waiting for an event; then SIGKILL. Another process takes all of "
            "them over, as a server does, and sends each its event. Seconds until all wait, and until all wait again.",
            (
                Figure("rss_mb", "memory of 10,000 flows that wait for events", "MB", (Goal(500),)),
                Figure("threads", "threads of that process", "threads"),
                Figure("start_s", "start of 10,000 flows that wait for events", "s"),
                Figure("resume_s", "taking over 10,000 of them after kill -9", "s"),
                Figure("send_ms", "sending an event", "ms"),
            ),
            size=10_000,
            quick_size=1_000,
            times=1,
            stages=("events", "events_resume"),
            once=True,
        ),
        Workload(
            "list",
            "A list of 100,000 runs",
            "The newest 100 runs out of 100,000 in one store, by the catalogue, in a new process: the first list "
            "brings the index up to date, the others are what is measured.",
            (
                Figure("list_ms", "list of 100,000 runs, the newest 100", "ms", (Goal(50),)),
                Figure("all_s", "list of 100,000 runs, every one of them", "s"),
                Figure("index_s", "index of 100,000 runs, first time", "s"),
            ),
            size=100_000,
            quick_size=10_000,
            stages=("list_build", "list"),
            once=True,
        ),
        Workload(
            "import",
            "Import",
            "What a script imports first, in a new interpreter whose bytecode is cached; without the interpreter's "
            "own start.",
            (Figure("import_ms", "import", "ms", (Goal(150),)),),
            PEER_TIMES,
            times=5,
        ),
    )
}
