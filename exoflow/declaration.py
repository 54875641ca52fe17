"""What the decorators accept, checked when a module is imported rather than when a run has come that far."""

from __future__ import annotations

import difflib
import inspect
import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypedDict, TypeVar, get_args

from exoflow.attempts import is_async, wants_refs
from exoflow.codec import code_fingerprint
from exoflow.driver.spec import Backoff, FlowSpec, TaskSpec
from exoflow.errors import DidNotHappen
from exoflow.model import Annotations, Checkpoint, Effect, Happened, Kind
from exoflow.protocols import Executor, Store

OnFailure = Literal["keep", "rollback"]
T = TypeVar("T")

_FORBIDDEN = frozenset("/#~!:[]")  # they divide the parts of a call's id
_IN_KEYS = str.maketrans({c: f"%{ord(c):02X}" for c in "%![]\n\r\t"})


class AttemptOptions(TypedDict, total=False):
    """Options that a task has for all its calls, and that one call may have instead."""

    checkpoint: Checkpoint
    """When the result is saved: ``"auto"``, ``"sync"``, ``"async"``, ``"never"``."""
    retries: int
    """How often an error of the body is tried again; 0."""
    losses: int
    """How often an attempt that vanished or timed out is made again; 3."""
    backoff: Backoff
    """How long to wait before a retry."""
    timeout: float | None
    """Seconds after which an attempt is given up."""
    executor: str | Executor | None
    """Who runs it; None: as the run has it."""
    resources: Mapping[str, float]
    """What the executor must have for it."""


class CallOptions(AttemptOptions, total=False):
    """What ``task.options`` takes."""

    key: str | int
    """Names the call, instead of its being the n-th of its task."""


class TaskOptions(AttemptOptions, total=False):
    """What ``@task`` takes."""

    deterministic: bool
    """The same inputs give the same result, bit for bit; False."""
    effect: Effect | None
    """It is seen from outside: ``"idempotent"`` or ``"irrevocable"``."""
    rollback: Callable[..., object] | None
    """Undoes it: ``undo(key, *inputs)``. Not together with ``effect``."""
    on_doubt: Literal["stop", "retry"] | Callable[..., Happened | DidNotHappen]
    """What to do if nobody knows whether an irrevocable effect happened; a probe is called with ``(key, *inputs)``."""
    name: str
    version: str
    """Stands for the code: as long as it stays the same, recorded results of older code are used."""


class FlowOptions(TypedDict, total=False):
    """What ``@flow`` takes."""

    name: str
    version: str
    executor: str | Executor | None
    on_failure: OnFailure
    """``"rollback"`` undoes what can be undone when the flow fails; ``"keep"``, so that it can be resumed."""
    strict: bool
    """Refuse where a gate would save what a task says is never to be saved; False."""


class RunOptions(TypedDict, total=False):
    """What ``flow.options`` takes."""

    run_id: str | None
    store: str | os.PathLike[str] | Store | None
    executor: str | Executor | None
    labels: Mapping[str, str]
    key: str | int
    """Of a child flow: names the call, instead of its being the n-th of its flow."""


def known(options: Mapping[str, object], kind: type, what: str) -> None:
    """Refuse options that there are not.

    Raises:
        TypeError: with the nearest name.
    """
    names = list(kind.__annotations__)
    for name in options:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise TypeError(f"{what} has no option {name!r}; {hint}It takes {', '.join(names)}")


def task_spec(function: Callable[..., Any], options: TaskOptions) -> TaskSpec:
    """A task as the driver needs it.

    Raises:
        TypeError, ValueError: an option is wrong, or two of them contradict each other.
    """
    _check_function(function, "task")
    known(options, TaskOptions, "@task")
    effect, undo, doubt = options.get("effect"), options.get("rollback"), options.get("on_doubt", "stop")
    _one_of("effect", effect, (None, *get_args(Effect)))
    _boolean("deterministic", options.get("deterministic", False))
    if undo is not None and effect is not None:
        raise ValueError(
            f"effect={effect!r} and rollback={_shown(undo)} exclude each other: an effect that can be undone is "
            "declared by its rollback alone"
        )
    if doubt != "stop" and effect != "irrevocable":
        raise ValueError(f"on_doubt={_shown(doubt)} needs effect='irrevocable': only such an effect can be in doubt")
    if undo is not None:
        _check_looks_back("rollback", undo, function)
    if callable(doubt):
        _check_looks_back("on_doubt", doubt, function)
    else:
        _one_of("on_doubt", doubt, ("stop", "retry"), "or a function (key, *inputs)")
    note = Annotations(
        deterministic=options.get("deterministic", False),
        effect=effect,
        rollback=undo is not None,
        on_doubt="probe" if callable(doubt) else doubt,
    )
    spec = TaskSpec(
        name=_name_of(function, options.get("name"), "task"),
        function=function,
        note=note,
        is_async=is_async(function),
        undo=undo,
        probe=doubt if callable(doubt) else None,
        ref_parameters=wants_refs(function),
        code=_code(function, options.get("version")),
    )
    return _with_attempt_options(spec, options)


def call_spec(spec: TaskSpec, options: CallOptions) -> TaskSpec:
    """The task with the options of one call.

    Raises:
        TypeError, ValueError: an option is wrong, or belongs to the decorator.
    """
    for name in options:
        if name in TaskOptions.__annotations__ and name not in CallOptions.__annotations__:
            raise TypeError(f"{name!r} says what the task is, not how it is called: write @task({name}=...)")
    known(options, CallOptions, f"{spec.name}.options")
    spec = _with_attempt_options(spec, options)
    return replace(spec, key=key_text(options["key"])) if "key" in options else spec


def flow_spec(function: Callable[..., Any], options: FlowOptions) -> FlowSpec:
    """A flow as the driver needs it.

    Raises:
        TypeError, ValueError: an option is wrong.
    """
    _check_function(function, "flow")
    known(options, FlowOptions, "@flow")
    _one_of("on_failure", options.get("on_failure", "keep"), get_args(OnFailure))
    _boolean("strict", options.get("strict", False))
    executor = options.get("executor")
    _check_executor(executor)
    place = place_of(function)
    name = options.get("name")
    own = _name_of(function, name, "flow")
    code = _code(function, options.get("version"))
    return FlowSpec(
        name=name if name is not None else f"{place.name}.{_cleaned(function)}" if place.name else own,
        function=function,
        is_async=is_async(function),
        version=options.get("version"),
        executor=executor,
        undo_on_failure=options.get("on_failure") == "rollback",
        strict=options.get("strict", False),
        module=place.module,
        file=place.file,
        qualname=function.__qualname__,
        code=code,
        task=TaskSpec(own, function, Annotations(kind=Kind.FLOW), is_async(function), code=code),
    )


class Place(NamedTuple):
    """Where code lies."""

    module: str
    """By which it is imported; empty: it is not."""
    file: str | None
    name: str
    """Stands before the names of its flows."""


def place_of(function: Callable[..., Any]) -> Place:
    """Where a function is defined, said so that another process finds it."""
    name = function.__module__
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None) or function.__code__.co_filename
    path = os.path.realpath(file) if os.path.exists(file) else None
    if name != "__main__" and not name.startswith("__exoflow_main_"):
        return Place(name, path, name)
    spec = getattr(module, "__spec__", None)
    imported = "" if spec is None or spec.name.startswith("__exoflow_main_") else spec.name
    stem = os.path.splitext(os.path.basename(path))[0] if path else ""
    return Place(imported, path, imported or stem)


def key_text(key: object) -> str:
    """A user's key as it stands in a call's id.

    Raises:
        TypeError, ValueError: it is neither text nor a number, or empty.
    """
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise TypeError(f"key={key!r} must be a str or an int")
    text = str(key).translate(_IN_KEYS)
    if not text:
        raise ValueError("key='' names nothing")
    return text


def _with_attempt_options(spec: TaskSpec, options: AttemptOptions | TaskOptions | CallOptions) -> TaskSpec:
    note = spec.note
    if "checkpoint" in options:
        _one_of("checkpoint", options["checkpoint"], get_args(Checkpoint))
        note = replace(note, checkpoint=options["checkpoint"])
    if "retries" in options:
        note = replace(note, retries=_count("retries", options["retries"]))
    if "losses" in options:
        note = replace(note, losses=_count("losses", options["losses"]))
    executor = options.get("executor", spec.executor)
    _check_executor(executor)
    backoff = options.get("backoff", spec.backoff)
    _check_backoff(backoff)
    timeout_s = options.get("timeout", spec.timeout_s)
    if timeout_s is not None:
        _number("timeout", timeout_s, above=0)
    resources = options.get("resources", spec.resources)
    if not isinstance(resources, Mapping):
        raise TypeError(f"resources={resources!r} must be a mapping of names to numbers, as {{'gpu': 1}}")
    for name, amount in resources.items():
        _number(f"resources[{name!r}]", amount)
    return replace(spec, note=note, executor=executor, backoff=backoff, timeout_s=timeout_s, resources=dict(resources))


def _check_function(function: object, kind: str) -> None:
    if isinstance(function, type):
        raise TypeError(f"@{kind} goes on a function, and {function.__qualname__} is a class")
    if isinstance(function, staticmethod | classmethod):
        raise TypeError(f"@{kind} goes below @{type(function).__name__}, next to the function")
    if not inspect.isfunction(function):
        raise TypeError(f"@{kind} goes on a function, not on {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{function.__qualname__} is a generator: a {kind} returns its result once, so return a list instead of "
            "yielding"
        )


def _check_looks_back(option: str, undo: object, function: Callable[..., Any]) -> None:
    """An undo or a probe that cannot be called must not come to light when it is needed."""
    if not callable(undo):
        raise TypeError(f"{option}={undo!r} must be a function (key, *inputs)")
    inputs = inspect.signature(function).parameters.values()
    positional = [each for each in inputs if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    named = {each.name: None for each in inputs if each.kind is each.KEYWORD_ONLY}
    try:
        inspect.signature(undo).bind("key", *positional, **named)
    except TypeError as error:
        wanted = ", ".join(["key", *(each.name for each in positional), *(f"{name}=..." for name in named)])
        raise TypeError(
            f"{option}={_shown(undo)} is called with the key and with what {function.__qualname__} was called with: "
            f"it must take ({wanted}); {error}"
        ) from None


def _name_of(function: Callable[..., Any], name: object, kind: str) -> str:
    if name is None:
        return _cleaned(function).rpartition(".")[2] if kind == "flow" else _cleaned(function, last=True)
    if not isinstance(name, str) or not name or not name.isprintable() or _FORBIDDEN.intersection(name):
        raise ValueError(f"name={name!r} must be printable text without {' '.join(sorted(_FORBIDDEN))}")
    return name


def _cleaned(function: Callable[..., Any], *, last: bool = False) -> str:
    """The qualified name, fit for ids; of a function inside another the ``last`` part only, or all of them."""
    qualname = function.__qualname__
    qualname = qualname.rpartition("<locals>.")[2] if last else qualname.replace("<locals>.", "")
    return qualname.replace("<lambda>", "lambda")


def _code(function: Callable[..., Any], version: object) -> bytes:
    if version is None:
        return code_fingerprint(function)
    if not isinstance(version, str) or not version:
        raise TypeError(f"version={version!r} must be text, as '2'")
    return b"version " + version.encode()


def _check_executor(executor: object) -> None:
    if executor is not None and not isinstance(executor, str) and not callable(getattr(executor, "start", None)):
        raise TypeError(f"executor={executor!r} must be a name, as 'local' or 'processes', or an Executor")


def _check_backoff(backoff: object) -> None:
    if not isinstance(backoff, Backoff):
        raise TypeError(
            f"backoff={backoff!r} must be an exoflow.Backoff(initial_s=..., factor=..., max_s=..., jitter=...)"
        )
    for name, least in (("initial_s", 0.0), ("factor", 1.0), ("max_s", 0.0), ("jitter", 0.0)):
        _number(f"backoff.{name}", getattr(backoff, name), least=least)
    if backoff.jitter > 1:
        raise ValueError(f"backoff.jitter={backoff.jitter} must be at most 1: waits would be negative")


def _one_of(option: str, value: object, allowed: tuple[object, ...], also: str = "") -> None:
    if not any(value is each or (isinstance(value, str) and value == each) for each in allowed):
        listed = ", ".join(map(repr, allowed))
        raise ValueError(f"{option}={_shown(value)} must be one of {listed}{f' {also}' if also else ''}")


def _boolean(option: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{option}={value!r} must be True or False")


def _count(option: str, value: T) -> T:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{option}={value!r} must be a whole number")
    if value < 0:
        raise ValueError(f"{option}={value} must not be negative")
    return value


def _number(option: str, value: object, *, least: float = 0.0, above: float | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{option}={value!r} must be a number (of seconds, for times)")
    if math.isnan(value) or value < least or (above is not None and value <= above):
        raise ValueError(f"{option}={value} must be {f'above {above}' if above is not None else f'at least {least}'}")


def _shown(value: object) -> str:
    return str(getattr(value, "__qualname__", None) or repr(value))
