"""The words for resources: as tasks ask for them, as Ray's options are called, and as its nodes have them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import ray

from exoflow.errors import ExecutorError

_OPTIONS = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
"""The resources that Ray has options for, and what its nodes call them; the others are the user's own."""

_log = logging.getLogger(__name__)


def options_of(resources: Mapping[str, float]) -> dict[str, Any]:
    """The resources of a task or an actor, as Ray's options. What is not told is as Ray has it."""
    own = {kind: amount for kind, amount in resources.items() if kind not in _OPTIONS}
    return {**{kind: resources[kind] for kind in _OPTIONS if kind in resources}, "resources": own}


def check_resources(task: str, resources: Mapping[str, float]) -> None:
    """Say so if no node can run the task: Ray lets it wait, for one that may come.

    Raises:
        ExecutorError: a resource has a name that Ray's tasks cannot ask for.
    """
    for word, node_word in _OPTIONS.items():
        if node_word in resources and node_word != word:
            raise ExecutorError(f"{task} asks for {node_word!r}, which Ray's tasks call {word!r}: write that")
    wanted = {_OPTIONS.get(kind, kind): amount for kind, amount in resources.items()}
    nodes = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's
    alive: list[Mapping[str, float]] = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(all(node.get(kind, 0) >= amount for kind, amount in wanted.items()) for node in alive):
        _log.warning("no node of the Ray cluster has %s, which %s asks for: it waits until one joins", wanted, task)
