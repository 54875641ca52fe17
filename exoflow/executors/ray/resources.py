"""The words for resources: as tasks ask for them, as Ray's options are called, and as its nodes have them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import ray

from exoflow.errors import ExecutorError

_OPTIONS = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
"""The resources that Ray has options for, and what its nodes call them; the others are the user's own."""
_OF_RAY = ("node:", "object_store_memory")

_log = logging.getLogger(__name__)


def options_of(resources: Mapping[str, float]) -> dict[str, Any]:
    """The resources of a task or an actor, as Ray's options. What is not told is as Ray has it."""
    own = {kind: amount for kind, amount in resources.items() if kind not in _OPTIONS}
    return {**{kind: resources[kind] for kind in _OPTIONS if kind in resources}, "resources": own}


class Placement:
    """Whether the nodes of a cluster have what is asked for: Ray itself lets a task wait for a node that has it.

    Args:
        is_fixed: Whether no other nodes will come.
    """

    def __init__(self, *, is_fixed: bool) -> None:
        self._is_fixed = is_fixed
        self._seen: set[tuple[str, frozenset[tuple[str, float]]]] = set()

    def check(self, task: str, resources: Mapping[str, float]) -> None:
        """Look once for a task and what it asks for; a word to the log if such a node may come.

        Raises:
            ExecutorError: none will come, or a resource has a name that Ray's tasks cannot ask for.
        """
        key = (task, frozenset(resources.items()))
        if key in self._seen:
            return
        for word, node_word in _OPTIONS.items():
            if node_word in resources and node_word != word:
                raise ExecutorError(f"{task} asks for {node_word!r}, which Ray's tasks call {word!r}: write that")
        # One CPU is what Ray takes where nothing is said of them.
        wanted = {"CPU": 1.0, **{_OPTIONS.get(kind, kind): amount for kind, amount in resources.items()}}
        nodes = _nodes()
        if not any(all(node.get(kind, 0) >= amount for kind, amount in wanted.items()) for node in nodes):
            self._tell(f"{task} needs {_show(wanted)}", " or ".join(map(_show, nodes)))
        self._seen.add(key)

    def _tell(self, needs: str, have: str) -> None:
        if self._is_fixed:
            raise ExecutorError(
                f"{needs}, and the Ray cluster that was started on this machine has {have}: correct the task's "
                "resources=, or connect to a cluster that has them, by ray.init(...) or executor='ray://host:10001'"
            )
        _log.warning("%s, and the nodes of the Ray cluster have %s: it waits until another one joins", needs, have)


def _nodes() -> list[dict[str, float]]:
    """What each has in all, without what Ray has for itself."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's
    return [
        {kind: amount for kind, amount in node["Resources"].items() if not kind.startswith(_OF_RAY)}
        for node in nodes
        if node["Alive"]
    ]


def _show(resources: Mapping[str, float]) -> str:
    words = {node_word: word for word, node_word in _OPTIONS.items()}
    return ", ".join(f"{words.get(kind, kind)}={amount:.12g}" for kind, amount in sorted(resources.items()))
