"""What the Ray actor does that an actor lives in: its calls, one after another as they are sent, and its snapshots."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ray._private.state import actors

from exoflow.executors.actors.living import WorkerActors
from exoflow.executors.ray.worker import Boxed, Unboxed, perform_as, tools
from exoflow.executors.wire import pack_saved, unpack_saving

_POLL_S = 0.01


class Residence:
    """The state, wherever Ray has put it.

    Args:
        setup: Of ``setup_of``.
        executor: The name of the executor.
        place: By which that calls it.
    """

    def __init__(self, setup: bytes, executor: str, place: str) -> None:
        self._performer, stored = tools(setup)
        self._actors = WorkerActors(executor, place, stored)

    def perform(self, message: bytes, *boxes: list[Unboxed]) -> tuple[bytes, list[Boxed] | None]:
        """``worker.perform``, for an attempt that takes the state."""
        return perform_as(message, boxes, self._actors)

    def save(self, message: bytes) -> bytes:
        """Save the state that ``pack_saving`` names."""
        saving = unpack_saving(message)
        assert saving is not None
        return pack_saved(self._performer.save_state(*saving, self._actors))


def whereabouts(actor: str) -> tuple[str, int] | None:
    """Node and process of a Ray actor, dead or alive, by its id. Asked of a worker: who asks a dead GCS waits long."""
    record = actors(actor)
    node, pid = record.get("Address", {}).get("NodeID"), record.get("Pid")
    return (node, pid) if node and pid else None


def await_end(pid: int) -> None:
    """Return when this process of the same node, which is being killed, has ended."""
    while _is_sibling(pid):
        time.sleep(_POLL_S)


def _is_sibling(pid: int) -> bool:
    """Whether Ray has started it, as it has this one: by then, its number may be another's."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return False
    return state != "Z" and int(parent) == os.getppid()
