"""Ray's objects inside values: an ``ObjectRef``, also where it stands in a Dataset, and an ``ActorHandle``.

An actor's content is its class and its state, as they are when its handle is returned; one that is made again has the
resources that its class asks for.
"""

from __future__ import annotations

import pickle
from typing import Any

import cloudpickle

from exoflow.errors import CodecError

OBJECT_REF = "ray.ObjectRef"
ACTOR = "ray.ActorHandle"
_KINDS = {
    "ObjectRef": OBJECT_REF,
    "ClientObjectRef": OBJECT_REF,
    "ActorHandle": ACTOR,
    "ClientActorHandle": ACTOR,
}
_LOOK_S = 1.0
"""Whether an actor lives, it has to say itself."""


def kind_of(thing: type) -> str | None:
    """See ``engines.EngineObjects``."""
    return _KINDS.get(thing.__name__)


def changes(kind: str) -> bool:
    """Whether what an object of the kind stands for may change, so that its content is to be taken when it is told."""
    return kind == ACTOR


def load(thing: Any) -> object:
    """See ``engines.EngineObjects``."""
    import ray
    from ray.exceptions import RayError

    try:
        return ray.get(thing.__ray_call__.remote(_state_of) if _is_actor(thing) else thing)
    except RayError as error:
        raise KeyError(f"what {thing} stands for is lost: {error}") from error


def is_lost(thing: Any) -> bool:
    """See ``engines.EngineObjects``."""
    import ray
    from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError

    try:
        if _is_actor(thing):
            ray.get(thing.__ray_ready__.remote(), timeout=_LOOK_S)
        else:
            ray.get(thing, timeout=0)
    except (ObjectLostError, RayActorError):
        return True
    except GetTimeoutError:
        return False
    return False


def make(kind: str, content: Any) -> object:
    """See ``engines.EngineObjects``."""
    import ray

    if not ray.is_initialized():
        raise CodecError(f"the value holds a {kind}, and this process is connected to no Ray cluster: call ray.init()")
    return _restored(content) if kind == ACTOR else ray.put(content)


def _is_actor(thing: object) -> bool:
    return kind_of(type(thing)) == ACTOR


def _state_of(actor: Any) -> bytes:
    """In the actor: its class, as it was before Ray made one of its own of it, and its state."""
    cls = type(actor).__ray_actor_class__
    state: bytes = cloudpickle.dumps((cls, actor.__getstate__()))
    return state


def _restored(content: bytes) -> object:
    import ray

    cls, state = pickle.loads(content)

    def restore(actor: Any) -> None:
        if hasattr(actor, "__setstate__"):
            actor.__setstate__(state)
        else:
            actor.__dict__.update(state or {})

    again = type(cls.__name__, (cls,), {"__init__": restore, "__module__": cls.__module__})
    return ray.remote(again).remote()
