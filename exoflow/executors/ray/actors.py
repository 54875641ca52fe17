"""Actors on a Ray cluster: each lives in a Ray actor of its own, which Ray never starts again (V7, ADR 0018)."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from exoflow.attempts.actors import STATE
from exoflow.executors.actors.living import key_of, place_of
from exoflow.executors.ray.cluster import Cluster
from exoflow.executors.ray.connection import is_client
from exoflow.executors.ray.resources import options_of
from exoflow.executors.ray.worker_actors import Residence, await_end, whereabouts
from exoflow.executors.wire import pack_saving
from exoflow.model import Held
from exoflow.protocols import Attempt

_DEAD = 4
"""``ActorTableData.DEAD`` of Ray's."""
_log = logging.getLogger(__name__)


class Home:
    """The Ray actor that an actor lives in."""

    __slots__ = ("key", "place", "process", "session")

    def __init__(self, place: str, process: Any, session: int) -> None:
        self.place = place
        self.process = process
        self.session = session
        self.key: str | None = None
        """Of the state that it has; None while an attempt has that."""

    def perform(self, name: str, message: bytes, boxes: list[ObjectRef[Any]]) -> tuple[ObjectRef[Any], ...]:
        """Send an attempt: what will be the answer, and the values."""
        sent: tuple[ObjectRef[Any], ...] = self.process.perform.options(name=name, num_returns=2).remote(
            message, *boxes
        )
        return sent


class Homes:
    """By place: the homes of one executor.

    Args:
        executor: Its name.
        cluster: Where they are.
        setup: Of ``setup_of``.
    """

    def __init__(self, executor: str, cluster: Cluster, setup: bytes) -> None:
        self._executor = executor
        self._cluster = cluster
        self._setup = setup
        # Ray is not to start one again, nor to call it twice: its state would be another (V11).
        self._residence = ray.remote(max_restarts=0, max_task_retries=0)(Residence)
        self._whereabouts = ray.remote(max_retries=0, num_cpus=0)(whereabouts)
        self._await_end = ray.remote(max_retries=0, num_cpus=0)(await_end)
        self._told = 0
        """The session whose GCS has these functions: a dead one is not to be told of them."""
        self._homes: dict[str, Home] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def of(self, attempt: Attempt) -> Home:
        """The home that has the attempt's state, or a new one where it needs none.

        Raises:
            KeyError: the state is gone; it is the argument.
        """
        part = attempt.actor
        assert part is not None
        if part.state is None:
            return self._new(attempt)
        with self._lock:
            home = self._homes.get(place_of(part.state))
            if home is None or home.key != key_of(part.state) or not self._lives(home):
                raise KeyError(f"{part.holder}{STATE}")
            home.key = None
            return home

    def left(self, home: Home, state: Held | None) -> None:
        """An attempt has ended and left this state; None: nobody can use the home any more, and it ends."""
        if state is not None:
            home.key = key_of(state)
            return
        with self._lock:
            self._homes.pop(home.place, None)
        self.kill(home)

    def kill(self, home: Home) -> None:
        """Have Ray end its process; returns before that has ended."""
        with self._cluster.kept(home.session) as there_is, contextlib.suppress(RayError, ConnectionError):
            if there_is:
                ray.kill(home.process)

    def take(self, state: Held) -> Home | None:
        """Nobody needs the state: the home that is to end, if one has it."""
        with self._lock:
            home = self._homes.get(place_of(state))
            return self._homes.pop(home.place) if home is not None and home.key == key_of(state) else None

    def save(self, state: Held, name: str) -> ObjectRef[Any] | None:
        """Begin to save a state, behind all that was sent to its home; None: it is gone."""
        with self._lock:
            home = self._homes.get(place_of(state))
        if home is None or home.key != key_of(state) or not self._cluster.has(home.session):
            return None
        answer: ObjectRef[Any] = home.process.save.remote(pack_saving(state, name))
        return answer

    def end(self, home: Home) -> None:
        """Kill the home, if it lives, and return when no body runs there any more (V10)."""
        with self._lock:
            self._homes.pop(home.place, None)
        self.kill(home)
        try:
            with self._cluster.kept(home.session) as there_is:
                if not there_is:
                    return
                asked = self._whereabouts.remote(home.process._actor_id.hex())
            found = self._cluster.get(asked)
            if found is not None:  # else it never began
                node, pid = found
                there = NodeAffinitySchedulingStrategy(node, soft=False)
                self._cluster.get(self._await_end.options(scheduling_strategy=there).remote(pid))
        except (RayError, ConnectionError) as error:  # its node is dead, and has ended it (``_end_with_the_node``)
            _log.debug("cannot look whether the process of an actor has ended: %s", error)

    def close(self) -> None:
        """Kill all."""
        with self._lock:
            homes = list(self._homes.values())
            self._homes.clear()
        for home in homes:
            self.kill(home)

    def _lives(self, home: Home) -> bool:
        """As far as this process has heard; by the Ray Client it hears nothing."""
        return self._cluster.has(home.session) and (is_client() or home.process._get_local_state() != _DEAD)

    def _new(self, attempt: Attempt) -> Home:
        self._cluster.placement.check(attempt.task, attempt.resources)
        place = f"actor-{next(self._numbers)}"
        process: Any = self._residence.options(**options_of(attempt.resources)).remote(
            self._setup, self._executor, place
        )
        home = Home(place, process, self._cluster.session)
        if self._told != home.session:
            self._told = home.session
            self._whereabouts.remote(process._actor_id.hex())
            self._await_end.remote(0)
        with self._lock:
            self._homes[place] = home
        return home
