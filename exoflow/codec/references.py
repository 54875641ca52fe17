"""Refs inside values: how they are pickled, found, and replaced by what they stand for.

The class ``Ref`` belongs to a layer above; it makes itself known by ``register_reference``.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Protocol, TypeVar, cast

from exoflow.errors import CodecError
from exoflow.model import CallId

IMMUTABLE: frozenset[type] = frozenset({type(None), bool, int, float, str, bytes})
"""Exact types whose objects can be shared without being encoded."""


class Reference(Protocol):
    """Stands for the result of a call."""

    @property
    def call_id(self) -> CallId: ...


class Detached:
    """A Ref where nobody has said how to make one: it can be passed on, and nothing else."""

    __slots__ = ("call_id",)

    def __init__(self, call_id: CallId) -> None:
        self.call_id = call_id

    def __repr__(self) -> str:
        return f"<Ref to {self.call_id}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return reduce_reference(self.call_id)


class Session(threading.local):
    """What is being encoded or decoded in this thread."""

    met: dict[CallId, None] | None = None
    lookup: Callable[[CallId], object] | None = None
    adopt: Callable[[Any], CallId] | None = None
    """Takes an engine's object that was met, as a ``Live``; the id by which it will be found."""
    bring: Callable[[CallId, str], object] | None = None
    """Finds it again."""
    embeds: bool = False
    """Whether an engine's object is pickled as what it stands for, instead."""


session = Session()


class _Shape(enum.IntEnum):
    """What the walk does with a type."""

    LEAF = 0
    REFERENCE = 1
    GROUP = 2  # a sequence of references that stands for the list of their values
    LIST = 3
    TUPLE = 4
    NAMED_TUPLE = 5
    DICT = 6
    DATACLASS = 7


_registered: dict[type, _Shape] = {Detached: _Shape.REFERENCE}
_shapes: dict[type, _Shape] = dict.fromkeys(IMMUTABLE, _Shape.LEAF)
_make: Callable[[CallId], object] = Detached

C = TypeVar("C", bound=type)


def register_reference(cls: C, *, group: bool = False, make: Callable[[CallId], object] | None = None) -> C:
    """Make a class (and its subclasses, unless registered themselves) known as a Ref.

    Args:
        cls: A class whose objects have ``call_id`` and return ``reduce_reference(self.call_id)`` from ``__reduce__``.
        group: Its objects are iterable, hold references, and stand for the list of their values.
        make: Makes one from a call id, where a task gets the Ref itself.
    """
    global _make
    _registered[cls] = _Shape.GROUP if group else _Shape.REFERENCE
    _shapes.clear()
    _shapes.update(dict.fromkeys(IMMUTABLE, _Shape.LEAF))
    if make is not None:
        _make = make
    return cls


def is_reference(kind: type) -> bool:
    """Whether objects of this type stand for the result of one call."""
    return _shape(kind) is _Shape.REFERENCE


def make_reference(call: CallId) -> object:
    """A Ref with this call id and no flow behind it."""
    return _make(call)


def reduce_reference(call: CallId) -> tuple[Any, ...]:
    """What ``Ref.__reduce__`` returns.

    Raises:
        CodecError: somebody pickles a Ref by hand; only the codec knows what to do with one.
    """
    if session.met is None:
        raise CodecError(
            f"the Ref to {call} cannot be pickled by hand: it means something inside its run only. "
            "Pass it to a task, return it from one, or pickle its value: ref.result()"
        )
    session.met[call] = None
    return _resolve, (call,)


def _resolve(call: CallId) -> object:
    if session.lookup is None:
        raise CodecError(f"the value holds a Ref to {call}, and nobody said what it stands for here")
    return session.lookup(call)


def find_references(args: Iterable[object], kwargs: Mapping[str, object]) -> list[Reference]:
    """The Refs in lists, tuples, dicts (as values) and dataclasses, depth first, each call once."""
    if IMMUTABLE.issuperset(map(type, args)) and (not kwargs or IMMUTABLE.issuperset(map(type, kwargs.values()))):
        return []
    found: dict[CallId, Reference] = {}
    visited: set[int] = set()
    stack: list[object] = [*args, *kwargs.values()]
    stack.reverse()
    while stack:
        node = stack.pop()
        shape = _shape(type(node))
        if shape is _Shape.LEAF:
            continue
        if shape is _Shape.REFERENCE:
            reference = cast(Reference, node)
            found.setdefault(reference.call_id, reference)
        elif id(node) not in visited:
            visited.add(id(node))
            items = _items(node, shape)
            if not IMMUTABLE.issuperset(map(type, items)):
                stack.extend(reversed(items))
    return list(found.values())


def substitute(
    args: tuple[object, ...], kwargs: Mapping[str, object], lookup: Callable[[CallId], object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """The arguments with ``lookup(call_id)`` in the place of every Ref that ``find_references`` finds.

    Containers keep their exact type; those without a Ref are the same objects as before.

    Raises:
        CodecError: a container holds a Ref and itself.
    """
    return cast(tuple[tuple[object, ...], dict[str, object]], _rebuilt((args, dict(kwargs)), lookup))


class _Frame:
    """A container on the way: how far its items are done, and whether one of them was replaced."""

    __slots__ = ("at", "changed", "items", "node", "shape")

    def __init__(self, node: object, shape: _Shape) -> None:
        self.node = node
        self.shape = shape
        self.items = _items(node, shape)
        self.changed = shape is _Shape.GROUP
        self.at = 0

    def put(self, item: object) -> None:
        if item is not self.items[self.at]:
            self.items[self.at] = item
            self.changed = True
        self.at += 1


def _rebuilt(root: object, lookup: Callable[[CallId], object]) -> object:
    # Iterative: data may be nested deeper than the interpreter recurses.
    done: dict[int, object] = {}
    entered: set[int] = {id(root)}
    holds_itself = False
    result = root
    frames = [_Frame(root, _shape(type(root)))]
    while True:
        frame = frames[-1]
        if frame.at == len(frame.items):
            result = _built(frame) if frame.changed else frame.node
            done[id(frame.node)] = result
            frames.pop()
            if not frames:
                break
            frames[-1].put(result)
            continue
        item = frame.items[frame.at]
        shape = _shape(type(item))
        if shape is _Shape.LEAF:
            frame.at += 1
        elif shape is _Shape.REFERENCE:
            frame.put(lookup(cast(Reference, item).call_id))
        elif id(item) in done:
            frame.put(done[id(item)])
        elif id(item) in entered:
            holds_itself = True
            frame.at += 1
        else:
            entered.add(id(item))
            frames.append(_Frame(item, shape))
    if holds_itself and result is not root:
        raise CodecError("an argument holds both a Ref and itself; the Ref cannot be replaced by its value there")
    return result


def _shape(kind: type) -> _Shape:
    shape = _shapes.get(kind)
    if shape is None:
        shape = _shapes[kind] = _classify(kind)
    return shape


def _classify(kind: type) -> _Shape:
    for ancestor in kind.__mro__:
        if ancestor in _registered:
            return _registered[ancestor]
    if issubclass(kind, list):
        return _Shape.LIST
    if issubclass(kind, tuple):
        return _Shape.NAMED_TUPLE if hasattr(kind, "_make") else _Shape.TUPLE if kind is tuple else _Shape.LEAF
    if issubclass(kind, dict):
        return _Shape.DICT
    return _Shape.DATACLASS if is_dataclass(kind) else _Shape.LEAF


_UNSET = object()


def _items(node: Any, shape: _Shape) -> list[object]:
    if shape is _Shape.DICT:
        return list(node.values())
    if shape is _Shape.DATACLASS:
        return [getattr(node, field.name, _UNSET) for field in fields(node)]
    return list(node)


def _built(frame: _Frame) -> object:
    """A container like the frame's, with its new items."""
    node: Any = frame.node
    items = frame.items
    match frame.shape:
        case _Shape.TUPLE:
            return tuple(items)
        case _Shape.NAMED_TUPLE:
            return type(node)._make(items)
        case _Shape.GROUP:
            return items
        case _Shape.LIST:
            return items if type(node) is list else _copy_with(node, slice(None), items)
        case _Shape.DICT:
            return dict(zip(node, items, strict=True)) if type(node) is dict else _copy_of_dict(node, items)
        case _:
            return _copy_of_dataclass(node, items)


def _copy_with(node: Any, place: object, items: object) -> object:
    import copy

    twin = copy.copy(node)
    twin[place] = items
    return twin


def _copy_of_dict(node: Any, items: list[object]) -> object:
    import copy

    twin = copy.copy(node)
    for key, item in zip(node, items, strict=True):
        twin[key] = item
    return cast(object, twin)


def _copy_of_dataclass(node: Any, items: list[object]) -> object:
    import copy

    twin = copy.copy(node)
    for field, item in zip(fields(node), items, strict=True):
        if item is not getattr(node, field.name, _UNSET):
            object.__setattr__(twin, field.name, item)  # also where it is frozen
    return cast(object, twin)
