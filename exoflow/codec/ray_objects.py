"""Ray's objects inside values: an ``ObjectRef``, also where it stands in a Dataset, and an ``ActorHandle``.

An actor's content is its class and its state, as they are when its handle is returned; one that is made again has the
resources that its class asks for.
"""

from __future__ import annotations

import logging
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
_PATIENCE_S = 10.0
_REFUSAL_S = 300.0
"""Its state an actor tells between two calls: after how long it is said that it is waited for, and is refused."""

_log = logging.getLogger(__name__)


def kind_of(thing: type) -> str | None:
    """See ``engines.EngineObjects``."""
    return _KINDS.get(thing.__name__)


def changes(kind: str) -> bool:
    """Whether what an object of the kind stands for may change, so that its content is to be taken when it is told."""
    return kind == ACTOR


def load(thing: Any) -> object:
    """See ``engines.EngineObjects``.

    Raises:
        KeyError: it is lost.
        CodecError: an actor cannot tell its state, or the object stands for an error.
    """
    import ray
    from ray.exceptions import ObjectLostError, RayError, RayTaskError

    try:
        return _told_by(thing) if _is_actor(thing) else ray.get(thing)
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else None
        if cause is None or isinstance(cause, ObjectLostError):
            raise KeyError(f"what {thing} stands for is lost: {_in_a_line(cause or error)}") from error
        if _is_actor(thing):
            raise CodecError(
                f"the state of {thing}, whose handle was returned, cannot be pickled ({_in_a_line(cause)}): give its "
                "class a __getstate__ and a __setstate__ that do without that, or return what such an actor is made of"
            ) from error
        raise CodecError(
            f"{thing} stands for an error, which is not saved with a result ({_in_a_line(cause)}): look at it in the "
            "task that returns it, by ray.get"
        ) from error


def _told_by(actor: Any) -> object:
    import ray
    from ray.exceptions import GetTimeoutError

    answer = actor.__ray_call__.remote(_state_of)
    try:
        return ray.get(answer, timeout=_PATIENCE_S)
    except GetTimeoutError:
        _log.warning(
            "%s, whose handle was returned, is waited for: it tells its state when its calls have ended", actor
        )
    try:
        return ray.get(answer, timeout=_REFUSAL_S)
    except GetTimeoutError as error:
        raise CodecError(
            f"{actor}, whose handle was returned, has not told its state in {_PATIENCE_S + _REFUSAL_S:.0f} s: it is in "
            "another call, or has not been started. Return it when its calls have ended, or return what such an actor "
            "is made of"
        ) from error


def _in_a_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


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
