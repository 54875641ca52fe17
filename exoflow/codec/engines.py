"""Objects of an execution engine inside values: a ``ray.ObjectRef``, a dask ``Future``. Each stands for something that
lies on a cluster, and is worth nothing where the cluster is gone.

So one in a task's result is tracked as if the body had ``put`` what it stands for: it lies with whoever ran the body,
its content is saved with the value, and where that is read later another object of the kind is made of it. One that
stands in such a content is part of it, by its own.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, cast

from exoflow.codec.references import session
from exoflow.errors import CodecError
from exoflow.model import CallId

_ENGINES = {"ray": "exoflow.codec.ray_objects", "distributed": "exoflow.codec.dask_objects"}
"""By the package that defines a type: the module that knows its objects."""


class EngineObjects(Protocol):
    """What there is to know of the objects of one engine. A module will do."""

    def kind_of(self, thing: type) -> str | None:
        """The name of the kind, if objects of this type stand for something on the cluster.

        Raises:
            CodecError: they do, and of that nothing could be saved.
        """

    def changes(self, kind: str) -> bool:
        """Whether what an object of the kind stands for may change: then its content is taken when it is told."""

    def load(self, thing: Any) -> object:
        """What the object stands for, brought here.

        Raises:
            KeyError: it is lost.
        """

    def is_lost(self, thing: Any) -> bool:
        """Whether what the object stands for is gone, as far as can be said at once."""

    def make(self, kind: str, content: object) -> object:
        """Another object of the kind, for this content, on the cluster that this process is connected to.

        Raises:
            CodecError: it is connected to none.
        """


class Live:
    """An engine's object itself, where otherwise an encoded value would be."""

    __slots__ = ("kind", "thing")
    size = 0
    """Unknown."""

    def __init__(self, kind: str, thing: object) -> None:
        self.kind = kind
        self.thing = thing

    def __repr__(self) -> str:
        return f"<Live {self.kind}>"

    @property
    def engine(self) -> str:
        """``ray`` or ``distributed``."""
        return self.kind.partition(".")[0]

    def changes(self) -> bool:
        """Whether what it stands for may change."""
        return engine_objects(self.engine).changes(self.kind)

    def content(self) -> object:
        """What it stands for, brought here.

        Raises:
            KeyError: it is lost.
        """
        return engine_objects(self.engine).load(self.thing)

    def is_lost(self) -> bool:
        """Whether that is gone, as far as can be said at once."""
        return engine_objects(self.engine).is_lost(self.thing)


class ContentLost(KeyError):
    """What an engine's object stands for is lost, found out while that is pickled: no fault of what is pickled."""


_kinds: dict[type, str | None] = {}


def reduce_engine_object(thing: Any) -> tuple[Any, ...] | None:
    """How an object of an engine is pickled; None: it is none.

    Raises:
        CodecError: it stands in something that is not a task's result.
        ContentLost: it was to be embedded.
    """
    kind = type(thing)
    name = _kinds[kind] if kind in _kinds else _kind_of(kind)
    if name is None:
        return None
    if session.embeds:
        return engine_object, (name, _embedded(Live(name, thing)))
    if session.adopt is None:
        raise CodecError(
            f"a {name} means something only while its cluster lives. Return it from a task, in the result itself: its "
            "content is then saved and restored with that; elsewhere pass a Ref, or what it stands for"
        )
    call = session.adopt(Live(name, thing))
    assert session.met is not None
    session.met[call] = None
    return _found, (call, name)


def _embedded(live: Live) -> object:
    """The content of an object that stands in the content of another one."""
    if live.changes():
        raise CodecError(
            f"a {live.kind} stands in what another object of an engine stands for, where nobody sees it when that is "
            "returned, and what it stands for may have changed since. Return it beside that, in the task's result"
        )
    try:
        return live.content()
    except KeyError as error:
        raise ContentLost(*error.args) from error


def _kind_of(kind: type) -> str | None:
    module = getattr(kind, "__module__", None)
    engine = module.partition(".")[0] if isinstance(module, str) else ""
    name = engine_objects(engine).kind_of(kind) if engine in _ENGINES else None
    _kinds[kind] = name
    return name


def engine_objects(engine: str) -> EngineObjects:
    """What is known of the objects of ``ray`` or ``distributed``."""
    return cast(EngineObjects, import_module(_ENGINES[engine]))


def _found(call: CallId, kind: str) -> object:
    if session.bring is None:
        raise CodecError(f"the value holds a {kind}, and nobody said where its content ({call}) is")
    return session.bring(call, kind)


def engine_object(kind: str, found: object) -> object:
    """The object that stands in a value: itself, where it is at hand (Live), or another one of its content.

    Raises:
        CodecError: this process is connected to no cluster that could have it.
    """
    if isinstance(found, Live):
        return found.thing
    return engine_objects(kind.partition(".")[0]).make(kind, found)


Bring = Callable[[CallId, str], object]
"""Gets the engine's object of this kind that stands in a value under this id."""
