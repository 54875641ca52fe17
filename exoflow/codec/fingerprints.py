"""What tells the arguments of two calls apart, small enough for a journal record (rule I3): their forms."""

from __future__ import annotations

from collections.abc import Mapping

import msgpack

from exoflow.codec.forms import INT_MAX, INT_MIN, SHORT, Form, Walk, digest, form_of

SCHEME = 2
"""The last element of what ``fingerprint`` gives; forms of another scheme cannot be compared."""

ARGUMENT_MAX_BYTES = 512
"""Of all forms of a call; an argument that does not fit is a digest."""


def fingerprint(args: tuple[object, ...], kwargs: Mapping[str, object]) -> Form:
    """The comparable form of a call's arguments: ``((form, ...), {name: form}, SCHEME)``."""
    positional: list[Form] = []
    for value in args:
        kind = type(value)
        if kind is str:
            if len(value) <= SHORT and value.isascii():  # type: ignore[arg-type, attr-defined]  # kind is str
                positional.append(value)
                continue
        elif kind is int:
            if INT_MIN <= value <= INT_MAX:  # type: ignore[operator]  # kind is int
                positional.append(value)
                continue
        elif value is None or kind is bool:
            positional.append(value)
            continue
        positional.append(form_of(value))
    named = {name: form_of(value) for name, value in kwargs.items()} if kwargs else {}
    if len(positional) + len(named) > 4 or any(map(_is_large, positional)) or any(map(_is_large, named.values())):
        left = ARGUMENT_MAX_BYTES
        for index, form in enumerate(positional):
            positional[index], left = _fitted(form, left)
        for name, form in named.items():
            named[name], left = _fitted(form, left)
    return tuple(positional), named, SCHEME


def packed(form: Form) -> bytes:
    """For those who keep many: one object instead of a dozen."""
    data: bytes = msgpack.packb(form, unicode_errors="surrogatepass")
    return data


def unpacked(data: bytes) -> Form:
    """The form again, as a record has it."""
    return msgpack.unpackb(data, use_list=False, strict_map_key=False, unicode_errors="surrogatepass")


def same(old: Form, new: Form) -> bool:
    """Whether two fingerprints are surely the same: plain scalars are. If not, ``difference`` has to look closer."""
    (before, _, _), (after, named, scheme) = old, new
    if named or len(before) != len(after) or old[1:] != (named, scheme):
        return False
    return all(type(a) is type(b) and a == b and type(a) in _PLAIN for a, b in zip(before, after, strict=True))


_PLAIN = frozenset([int, str, bool, bytes, type(None)])


def whole_fingerprint(args: tuple[object, ...], kwargs: Mapping[str, object]) -> tuple[Form, Form]:
    """The same of any size, so that a difference can be shown; and, in the same places, what could not be compared.

    The second is a form of true for an argument that is, or holds, something that counts as equal, and of false.
    """
    walks = [Walk() for _ in range(len(args) + len(kwargs))]
    positional = [walk.form(value, 0) for walk, value in zip(walks, args, strict=False)]
    named = {name: walk.form(value, 0) for walk, (name, value) in zip(walks[len(args) :], kwargs.items(), strict=True)}
    blind = [walk.blind for walk in walks]
    return [positional, named, SCHEME], [blind[: len(args)], dict(zip(kwargs, blind[len(args) :], strict=True)), SCHEME]


def _is_large(form: Form) -> bool:
    return type(form) is list and form[0] != "#" and form[0] != "*"


def _fitted(form: Form, left: int) -> tuple[Form, int]:
    """The form, or a digest of it where it is larger than what is left; and what is left then."""
    data = packed(form)
    if len(data) <= left:
        return form, left - len(data)
    if type(form) is list:
        return (form if form[0] in ("#", "*") else ["#", form[1], len(form) - 2, digest(data)]), left
    return ["#", type(form).__name__, len(form), digest(data)] if len(data) > 9 else form, left
