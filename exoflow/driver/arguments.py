"""A call's arguments: what it needs, what it passes on, and their bytes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from exoflow import codec
from exoflow.driver.spec import TaskSpec
from exoflow.kernel.call import Call
from exoflow.model import CallId

if TYPE_CHECKING:
    from exoflow.driver.body import Body
    from exoflow.driver.handle import Handle


class Given(NamedTuple):
    """What a call was given. Scalars alone need no bytes, and are compared as they are."""

    inputs: tuple[Call, ...] = ()
    """Whose values are needed."""
    passes: tuple[Call, ...] = ()
    """Whose Refs are passed on as they are."""
    encoded: codec.Encoded | None = None
    fingerprint: bytes | None = None
    """``codec.packed``."""


_NOTHING = Given()


def taken(body: Body, spec: TaskSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Given:
    """The arguments of a call as the body makes it, as they are now. Under the lock.

    Raises:
        CodecError: they cannot be encoded.
        RuntimeError: one of them belongs to another run.
    """
    if codec.all_immutable(args, kwargs):
        return _NOTHING
    execution = body.execution
    inputs: tuple[Call, ...] = ()
    passes: tuple[Call, ...] = ()
    references = codec.find_references(args, kwargs)
    if references:
        inputs, passes = _edges(body, spec, references, args, kwargs)
    adopt = execution.values.recognise
    encoded = codec.encode_arguments(args, kwargs, task=spec.name, function=spec.function, own=True, adopt=adopt)
    if len(encoded.refs) > len(references):  # engines' objects: what they stand for is needed, too
        owners = (execution.kernel.reference(CallId(ref.partition("!")[0])) for ref in encoded.refs)
        inputs = tuple(dict.fromkeys((*inputs, *(owner for owner in owners if owner not in passes))))
    return Given(inputs, passes, encoded, codec.packed(codec.fingerprint(args, kwargs)))


def _edges(
    body: Body,
    spec: TaskSpec,
    references: Sequence[codec.Reference],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> tuple[tuple[Call, ...], tuple[Call, ...]]:
    """Refs among the arguments: those whose values are needed, and those that are passed on as they are."""
    passed: set[CallId] = set()
    if spec.ref_parameters:
        passed = _passed(spec, args, kwargs)
    kernel = body.execution.kernel
    inputs: dict[Call, None] = {}
    passes: dict[Call, None] = {}
    for reference in references:
        owner: Handle | None = getattr(reference, "_handle", None)  # ids are a run's own: another's would mislead
        if owner is not None and owner.body.execution is not body.execution:
            raise RuntimeError(
                f"{reference!r} belongs to the run {owner.body.run_id}, and means nothing in {body.run_id}: "
                "pass its value from one run to the other"
            )
        call = kernel.reference(CallId(reference.call_id.partition("!")[0]))
        (passes if reference.call_id in passed else inputs)[call] = None
    return tuple(inputs), tuple(passes)


def _passed(spec: TaskSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> set[CallId]:
    """Call ids of the Refs in parameters that are annotated as Refs."""
    bound = inspect.signature(spec.function).bind(*args, **kwargs)
    wanted = [value for name, value in bound.arguments.items() if name in spec.ref_parameters]
    return {reference.call_id for reference in codec.find_references(tuple(wanted), {})}
