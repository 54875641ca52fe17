"""Ray and Dask on this machine, and each work in the engine's own idiom."""

from __future__ import annotations

import contextlib
import logging
import operator
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import engine_bodies as bodies

CORES = os.cpu_count() or 1
LARGE, SMALL = 6_000_000_000, 1_000_000_000
"""Of Ray's object store, so that no work here needs to spill."""


class Engine(Protocol):
    """A cluster that runs, with nothing of ours in it."""

    name: str

    def fan(self, body: Callable[[int], int], count: int) -> int: ...
    def chain(self, count: int) -> int: ...
    def reduce(self, count: int) -> int: ...
    def between(self, size: int) -> float: ...
    def waves(self, count: int, size: int, at_once: int) -> float: ...
    def shuffle(self, count: int, size: int) -> float: ...
    def held_bytes(self) -> float:
        """What its workers keep for others now; asked from any thread."""


class OnRay:
    """Bare Ray, by ``ray.remote`` and ``ray.get``."""

    name = "ray"

    def __init__(self, store_bytes: int) -> None:
        import ray

        self.ray = ray
        self.store_bytes = store_bytes
        self.remote = {body: ray.remote(body) for body in (bodies.noop, bodies.nap, bodies.make, bodies.total)}

    def fan(self, body: Callable[[int], int], count: int) -> int:
        remote = self.remote[body]
        return len(self.ray.get([remote.remote(i) for i in range(count)]))

    def chain(self, count: int) -> int:
        last = 0
        for i in range(count):
            last = self.ray.get(self.remote[bodies.noop].remote(i))
        return last

    def reduce(self, count: int) -> int:
        add = self.ray.remote(bodies.add_all)
        return int(self.ray.get(add.remote(*[self.remote[bodies.noop].remote(i) for i in range(count)])))

    def between(self, size: int) -> float:
        return float(self.ray.get(self._total(size)))

    def waves(self, count: int, size: int, at_once: int) -> float:
        found = 0.0
        for first in range(0, count, at_once):
            found += sum(self.ray.get([self._total(size) for _ in range(first, min(count, first + at_once))]))
        return found

    def shuffle(self, count: int, size: int) -> float:
        make = self.ray.remote(num_returns=count)(bodies.make_parts)
        total = self.ray.remote(bodies.total_of_all)
        made = [make.remote(number, count, size) for number in range(count)]
        return float(sum(self.ray.get([total.remote(*[parts[i] for parts in made]) for i in range(count)])))

    def held_bytes(self) -> float:
        # A node tells what its store has left every 100 ms.
        return float(self.store_bytes - self.ray.available_resources().get("object_store_memory", 0.0))

    def _total(self, size: int) -> Any:
        return self.remote[bodies.total].remote(self.remote[bodies.make].remote(size))


class OnDask:
    """Bare Dask, by ``Client.submit``, ``map`` and ``gather``."""

    name = "dask"

    def __init__(self, client: Any) -> None:
        self.client = client

    def fan(self, body: Callable[[int], int], count: int) -> int:
        return len(self.client.gather(self.client.map(body, range(count), pure=False)))

    def chain(self, count: int) -> int:
        last = 0
        for i in range(count):
            last = self._submit(bodies.noop, i).result()
        return last

    def reduce(self, count: int) -> int:
        return int(self._submit(sum, self.client.map(bodies.noop, range(count), pure=False)).result())

    def between(self, size: int) -> float:
        return float(self._total(size).result())

    def waves(self, count: int, size: int, at_once: int) -> float:
        found = 0.0
        for first in range(0, count, at_once):
            found += sum(self.client.gather([self._total(size) for _ in range(first, min(count, first + at_once))]))
        return found

    def shuffle(self, count: int, size: int) -> float:
        made = [self._submit(bodies.make_parts, number, count, size) for number in range(count)]
        totals = [
            self._submit(bodies.total_of, [self._submit(operator.getitem, parts, i) for parts in made])
            for i in range(count)
        ]
        return float(sum(self.client.gather(totals)))

    def held_bytes(self) -> float:
        return float(self.client.run_on_scheduler(_held_by_workers))

    def _submit(self, body: Callable[..., Any], *args: Any) -> Any:
        return self.client.submit(body, *args, pure=False)

    def _total(self, size: int) -> Any:
        return self._submit(bodies.total, self._submit(bodies.make, size))


def _held_by_workers(dask_scheduler: Any) -> int:
    return sum(worker.nbytes for worker in dask_scheduler.workers.values())


@contextlib.contextmanager
def ray_cluster(_directory: Path, store_bytes: int) -> Iterator[Engine]:
    """Ray with a worker a core, as long as the block runs.

    The store's memory is taken at once, as a cluster has it that has run for a while: else an array now and then costs
    five times as much, for pages that nobody has touched before.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # or it warns of a change to come
    import ray

    with tempfile.TemporaryDirectory(prefix="bench", ignore_cleanup_errors=True) as short:  # its sockets lie there
        ray.init(
            address="local",
            num_cpus=CORES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=store_bytes,
            _system_config={"preallocate_plasma_memory": True},
            _temp_dir=short,
        )
        try:
            yield OnRay(store_bytes)
        finally:
            ray.shutdown()


@contextlib.contextmanager
def dask_cluster(directory: Path, _store_bytes: int) -> Iterator[Engine]:
    """A LocalCluster with a worker process of one thread a core, as long as the block runs."""
    from distributed import Client, LocalCluster

    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # exoflow's client outlives the cluster
    spill = directory / "dask"
    with (
        LocalCluster(
            n_workers=CORES,
            threads_per_worker=1,
            dashboard_address=None,
            local_directory=str(spill),
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield OnDask(client)


CLUSTERS = {"ray": ray_cluster, "dask": dask_cluster}
