"""Ray Workflows, the library that Ray had until 2.47: every step's result is saved before the workflow goes on."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from typing import Any

from measure import Figures, Options, program, repeat, seconds

warnings.filterwarnings("ignore")  # it is deprecated, we know
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray  # noqa: E402
from ray import workflow  # noqa: E402

CORES = os.cpu_count() or 1
STORE_BYTES = 2_000_000_000


@ray.remote
def noop(i: int) -> int:
    return i


@ray.remote
def add_all(*numbers: int) -> int:
    return sum(numbers)


@ray.remote
def make(size: int) -> Any:
    import numpy as np

    return np.arange(size // 8, dtype=np.float64)


@ray.remote
def total(array: Any) -> float:
    return float(array.sum())


def launch(options: Options, short: str) -> None:
    """Start Ray, its workflows' storage in the given folder, and run one step, which imports everything."""
    (options.directory / "storage").mkdir()
    ray.init(
        address="local",
        num_cpus=CORES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=STORE_BYTES,
        storage=(options.directory / "storage").as_uri(),
        _temp_dir=short,
    )
    workflow.init()
    workflow.run(noop.bind(1))


def chain(options: Options) -> Figures:
    def run() -> None:
        step = noop.bind(0)
        for _ in range(options.size - 1):
            step = noop.bind(step)
        workflow.run(step)

    return {"step_ms": [1e3 * s / options.size for s in repeat(options.times, run)]}


def reduce(options: Options) -> Figures:
    def run() -> None:
        workflow.run(add_all.bind(*[noop.bind(i) for i in range(options.size)]))

    return {"tasks_per_s": [options.size / s for s in repeat(options.times, run)]}


def array_steps(options: Options) -> Figures:
    storage = options.directory / "storage"
    workflow.run(total.bind(make.bind(1_000_000)))
    times, stored = [], []
    for _ in range(options.times):
        before = sum(path.stat().st_size for path in storage.rglob("*") if path.is_file())
        times.append(seconds(lambda: workflow.run(total.bind(make.bind(options.size)))))
        after = sum(path.stat().st_size for path in storage.rglob("*") if path.is_file())
        stored.append((after - before) / 1e6)
    return {"s": times, "stored_mb": stored}


def main() -> None:
    def launched(work: Any) -> Any:
        def run(options: Options) -> Figures:
            with tempfile.TemporaryDirectory(prefix="bench", ignore_cleanup_errors=True) as short:
                launch(options, short)
                figures: Figures = work(options)
                ray.shutdown()
            return {f"ray-workflows/{name}": values for name, values in figures.items()}

        return run

    program({work.__name__: launched(work) for work in (chain, reduce, array_steps)})
    sys.stdout.flush()


if __name__ == "__main__":
    main()
