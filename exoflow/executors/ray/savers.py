"""Processes on a Ray cluster that write values to the store: one a node, so that a value is written where it lies.

A Ray task would do, but for one beside a cluster that is busy Ray starts another worker each time.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import ray
from ray import ObjectRef
from ray.experimental import get_object_locations
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from exoflow.executors.ray.connection import is_client
from exoflow.executors.ray.worker import Unboxed, write
from exoflow.model import Stored

_AT_ONCE = 2


class Saver:
    """Writes what it is given. The body of a Ray actor."""

    def write(self, setup: bytes, name: str, places: Sequence[int], box: list[Unboxed]) -> list[Stored] | bytes:
        return write(setup, name, places, box)


class Savers:
    """Those of one executor. They start when they are needed, and end when it is closed."""

    def __init__(self) -> None:
        self._actor: Any = ray.remote(Saver)
        self._by_node: dict[tuple[int, str | None], Any] = {}
        self._lock = threading.Lock()

    def write(
        self, session: int, setup: bytes, name: str, places: Sequence[int], ref: ObjectRef[Any]
    ) -> ObjectRef[Any]:
        """Have values of one box written; the answer of ``worker.write``."""
        # The Ray Client does not say where an object lies: one saver gets them all, by the network.
        found = {} if is_client() else get_object_locations([ref]).get(ref, {})
        nodes = found.get("node_ids") or [None]
        answer: ObjectRef[Any] = self._of(session, nodes[0]).write.remote(setup, name, places, ref)
        return answer

    def close(self) -> None:
        """End them when they have written what they were given; those that come after are others."""
        with self._lock:
            savers, self._by_node = self._by_node, {}
        savers.clear()  # Ray ends an actor to which nobody has a handle

    def _of(self, session: int, node: str | None) -> Any:
        with self._lock:
            saver = self._by_node.get((session, node))
            if saver is None:
                near = NodeAffinitySchedulingStrategy(node, soft=True) if node else "DEFAULT"
                options = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0, "max_concurrency": _AT_ONCE}
                saver = self._actor.options(**options, scheduling_strategy=near).remote()
                self._by_node[session, node] = saver
            return saver
