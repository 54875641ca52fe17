"""Ray's objects inside values: an ``ObjectRef``."""

from __future__ import annotations

from typing import Any

from exoflow.errors import CodecError

OBJECT_REF = "ray.ObjectRef"


def kind_of(thing: type) -> str | None:
    """See ``engines.EngineObjects``."""
    return OBJECT_REF if thing.__name__ in ("ObjectRef", "ClientObjectRef") else None


def load(thing: Any) -> object:
    """See ``engines.EngineObjects``."""
    import ray
    from ray.exceptions import RayError

    try:
        return ray.get(thing)
    except RayError as error:
        raise KeyError(f"the object {thing} is lost: {error}") from error


def is_lost(thing: Any) -> bool:
    """See ``engines.EngineObjects``."""
    import ray
    from ray.exceptions import GetTimeoutError, ObjectLostError, OwnerDiedError

    try:
        ray.get(thing, timeout=0)
    except (ObjectLostError, OwnerDiedError):
        return True
    except GetTimeoutError:
        return False
    return False


def make(kind: str, content: object) -> object:
    """See ``engines.EngineObjects``."""
    import ray

    if not ray.is_initialized():
        raise CodecError(f"the value holds a {kind}, and this process is connected to no Ray cluster: call ray.init()")
    return ray.put(content)
