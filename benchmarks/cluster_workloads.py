"""What is measured on the engines: each workload, its figures, and how near they should be to the bare engine's."""

from __future__ import annotations

from dataclasses import dataclass

from systems import OURS, System
from workloads import Figure, Workload

BARE, ALONE, AGAIN, DISK = "bare", "ours", "deterministic", "disk"
"""As ``peers/on_engine.py`` names them."""
WORKFLOWS = System(
    "ray-workflows",
    "Ray Workflows 2.47.1",
    "ray_workflows_peer.py",
    "from ray import workflow",
    ("ray==2.47.1", "numpy", "pyarrow"),
    "its storage is a folder; a checkpoint of each step, as it comes",
)
ON_ENGINE = System(OURS, "exoflow", "on_engine.py", "from exoflow import flow, task")

ENGINES = {"ray": "Ray", "dask": "Dask"}
MODES = ("auto", "sync", "async", "never")
PLACES = ("preparation", "training", "driver", "cluster", "store")
TITLES = {
    BARE: "the bare engine",
    ALONE: "exoflow",
    AGAIN: "exoflow, deterministic",
    DISK: "the disk alone",
    WORKFLOWS.name: WORKFLOWS.title,
    **{mode: f'checkpoint="{mode}"' for mode in MODES},
    "preparation": "kill -9 of a worker that prepares",
    "training": "kill -9 of the worker that trains",
    "driver": "kill -9 of the driver",
    "cluster": "kill -9 of the whole cluster",
    "store": "the store is away for two seconds",
}


@dataclass(frozen=True, slots=True)
class Bound:
    """How a figure of ours should be."""

    system: str
    bound: float | None
    """None: nobody has set a goal, the ratio is told."""
    against: tuple[str, ...] = (BARE,)
    """Times the sum of what these have in the same turn; nothing: the figure itself."""


OURS_BOTH = (ALONE, AGAIN)


def told(against: str, *systems: str) -> tuple[Bound, ...]:
    """How these stand to another, without a goal."""
    return tuple(Bound(system, None, (against,)) for system in systems)


def rate_figures(bound: float) -> tuple[Figure, ...]:
    bounds = tuple(Bound(system, bound) for system in OURS_BOTH)
    return (
        Figure("tasks_per_s", "tasks", "tasks/s", bounds, larger_is_better=True),
        Figure("driver_us", "processor of the driver's process, a task", "µs"),
        Figure("others_us", "processor of the engine's other processes, a task", "µs"),
    )


ARRAY_FIGURES = (
    Figure("s", "time", "s", (Bound(AGAIN, 1.15), Bound(ALONE, 1.15, (BARE, DISK)))),
    Figure("stored_mb", "written to the store", "MB", (Bound(AGAIN, 0.1, ()),)),
)
ARRAY_METHOD = (
    "A task makes {} of float64, the next adds them up; the sum is checked. `exoflow`: the array has been saved when "
    "the flow returns. `deterministic`: it need not be. The disk alone: write, crc32 and fdatasync of the same bytes "
    "by one process; what we save is to take no longer than the bare engine and the disk one after the other. Written "
    "to the store: by how much its folder grew."
)

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            "fanout",
            "Fan-out of 1,000 no-ops",
            "1,000 tasks that return their argument, and all results in the driver: `ray.get([f.remote(i) ...])`, "
            "`client.gather(client.map(...))`, `f.map(...).result()`. Everything is durable when our flow returns. "
            "Processor: what the processes used, the driver's (with Dask's scheduler, which lives in it) and all "
            "others of the engine together.",
            rate_figures(0.85),
            (BARE, ALONE, AGAIN),
            size=1000,
            quick_size=300,
            times=7,
        ),
        Workload(
            "fanout_10ms",
            "Fan-out of 400 tasks of 10 ms",
            "The same with tasks that sleep for 10 ms.",
            rate_figures(0.95),
            (BARE, ALONE, AGAIN),
            size=400,
            quick_size=100,
            times=5,
        ),
        Workload(
            "array",
            "100 MB between two tasks",
            ARRAY_METHOD.format("100 MB"),
            ARRAY_FIGURES,
            (BARE, ALONE, AGAIN, DISK),
            size=100_000_000,
            quick_size=100_000_000,
            times=7,
        ),
        Workload(
            "array_1gb",
            "1 GB between two tasks",
            ARRAY_METHOD.format("1 GB"),
            ARRAY_FIGURES,
            (BARE, ALONE, AGAIN, DISK),
            size=1_000_000_000,
            quick_size=200_000_000,
            times=5,
        ),
        Workload(
            "by_reference",
            "10 GB by reference",
            "100 arrays of 100 MB, each made by one task and added up by another, 8 at a time. The driver's resident "
            "set is read every 50 ms, and what the engine's workers hold (Ray: what its store has left; Dask: what "
            "its workers tell the scheduler).",
            (
                Figure(
                    "growth_mb",
                    "growth of the driver's resident set, at most",
                    "MB",
                    (Bound(ALONE, 100, ()), Bound(AGAIN, 100, ())),
                ),
                Figure("least_mb", "the driver's resident set, at least", "MB"),
                Figure("most_mb", "the driver's resident set, at most", "MB"),
                Figure("held_mb", "held by the engine, at most", "MB", told(BARE, *OURS_BOTH)),
                Figure("s", "time", "s", told(BARE, *OURS_BOTH)),
                Figure("stored_mb", "written to the store", "MB"),
            ),
            (BARE, ALONE, AGAIN),
            size=10_000_000_000,
            quick_size=500_000_000,
            times=3,
        ),
        Workload(
            "shuffle",
            "Shuffle of 50×50",
            "50 tasks make 50 arrays of 1 MB each, 50 tasks add up one of each; the sum is checked. Ray: "
            "`num_returns=50`; Dask: a `getitem` for each part; ours: `exoflow.put` of each part, Refs in the map's "
            "result. The disk alone: what the maps make, written by one process.",
            (
                Figure("s", "time", "s", (Bound(AGAIN, None), Bound(ALONE, None, (BARE, DISK)))),
                Figure("stored_mb", "written to the store", "MB"),
            ),
            (BARE, ALONE, AGAIN, DISK),
            size=1_000_000,
            quick_size=20_000,
            times=3,
        ),
        Workload(
            "chain",
            "Chain of 100 tasks, beside Ray Workflows",
            "100 no-ops one after another. The bare engine: a `ray.get` for each. Ray Workflows: each step bound to "
            "the one before it, saved before the next one begins. Ours: a call for each, all durable when the flow "
            "returns.",
            (Figure("step_ms", "a step", "ms", told(BARE, ALONE) + told(WORKFLOWS.name, ALONE)),),
            (BARE, ALONE, WORKFLOWS.name),
            quick_size=30,
            times=5,
        ),
        Workload(
            "reduce",
            "Fan-out of 1,000 tasks and reduce, beside Ray Workflows",
            "1,000 no-ops, and one task that adds up their results.",
            (
                Figure(
                    "tasks_per_s",
                    "tasks",
                    "tasks/s",
                    told(BARE, ALONE) + told(WORKFLOWS.name, ALONE),
                    larger_is_better=True,
                ),
            ),
            (BARE, ALONE, WORKFLOWS.name),
            size=1000,
            quick_size=200,
            times=5,
        ),
        Workload(
            "array_steps",
            "100 MB between two tasks, beside Ray Workflows",
            "As above, in turns with Ray Workflows, which saves the array before the next step begins.",
            (
                Figure("s", "time", "s", told(WORKFLOWS.name, *OURS_BOTH)),
                Figure("stored_mb", "written to the store", "MB"),
            ),
            (BARE, ALONE, AGAIN, WORKFLOWS.name),
            size=100_000_000,
            quick_size=100_000_000,
            times=5,
        ),
        Workload(
            "train",
            "Training, by checkpoint mode, and with an accident",
            "[examples/train](../examples/train): 336,776 flights, prepared on the engine, augmented, and a network "
            "trained by an actor on the engine, as a program of its own from its start to its end. Each mode once a "
            'turn without accidents, and each accident once with `checkpoint="auto"`; the command is given again '
            "when it has failed. Time to recover: by how much longer it took than without, in the same turn. Bodies "
            "run again: those that began more often than without.",
            (
                Figure("s", "time of the whole program", "s"),
                Figure("stored_mb", "the store's folder at the end", "MB"),
                Figure("recovery_s", "time to recover", "s"),
                Figure("again", "bodies run again", "bodies"),
                Figure("lives", "programs that were started", "programs"),
            ),
            (*MODES, *PLACES),
            size=3,
            quick_size=1,
            times=2,
        ),
    )
}


def keys() -> list[str]:
    """Every workload on every engine, as results name them."""
    return [
        f"{engine}.{name}"
        for name, workload in WORKLOADS.items()
        for engine in ENGINES
        if engine == "ray" or WORKFLOWS.name not in workload.systems
    ]
