"""Whose memory a large buffer is: nobody's who could still change it, or it is copied (L8).

A result's bytes are fixed before anyone may use it. Copying 100 MB costs more than writing them, so that what nobody
else holds is taken as it is: whoever made the value has let it go by then, and its memory has no other reference.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterable
from typing import Any

from exoflow.codec.sums import fix, is_fixed

_OWN_REFERENCES = 3
"""Of an array that nobody else holds: from the view or the array above it, from the loop below, from the question."""


def taken_over(views: Iterable[memoryview]) -> tuple[memoryview, ...]:
    """The same bytes for good: views of memory that nobody else can change any more, copies of the rest.

    To be called when the value itself has been let go, so that whoever still holds its memory is somebody else.
    """
    return tuple(view if is_constant(view) or _is_ours_alone(view) else copied(view) for view in views)


def copied(view: memoryview) -> memoryview:
    """Memory of its own, read-only."""
    copy = memoryview(bytes(view))
    fix(copy)
    return copy


def is_constant(view: memoryview) -> bool:
    """Whether nobody can ever change this memory. A read-only view says nothing of what it is a view of."""
    owner: Any = view.obj
    if is_fixed(view):
        return True
    numpy, pyarrow = sys.modules.get("numpy"), sys.modules.get("pyarrow")
    while numpy is not None and isinstance(owner, numpy.ndarray) and not owner.flags.writeable:
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
        if isinstance(owner, mmap.mmap):  # an object of the store; an array of the user's own lies on the file itself
            return view.readonly
    # Arrow's data does not change: who makes a table on an array's memory leaves that alone.
    if pyarrow is not None and isinstance(owner, pyarrow.Buffer):
        return True
    return type(owner) is bytes


def _is_ours_alone(view: memoryview) -> bool:
    numpy = sys.modules.get("numpy")
    array: Any = view.obj
    while numpy is not None and isinstance(array, numpy.ndarray):
        if sys.getrefcount(array) > _OWN_REFERENCES:
            return False
        if array.base is None:
            return True
        array = array.base
    return False
