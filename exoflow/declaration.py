"""What the decorators accept, checked when a module is imported rather than when a run has come that far."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, get_args

from exoflow.attempts import is_async, wants_refs
from exoflow.attempts.actors import Creation, Method
from exoflow.driver.spec import FlowSpec, TaskSpec
from exoflow.model import Annotations, Checkpoint, Effect, Kind
from exoflow.naming import cleaned, code_of, key_text, name_of, place_of
from exoflow.options import (
    AttemptOptions,
    CallOptions,
    FlowOptions,
    OnFailure,
    TaskOptions,
    boolean,
    check_backoff,
    check_executor,
    count,
    known,
    number,
    one_of,
    shown,
)
from exoflow.protocols import Executor
from exoflow.transactions import Transacted, Transaction

__all__ = ["actor_specs", "call_spec", "flow_spec", "is_method", "task_spec"]


def task_spec(function: Callable[..., Any], options: TaskOptions) -> TaskSpec:
    """A task as the driver needs it.

    Raises:
        TypeError, ValueError: an option is wrong, or two of them contradict each other.
    """
    _check_function(function, "task")
    known(options, TaskOptions, "@task")
    effect, undo, doubt = options.get("effect"), options.get("rollback"), options.get("on_doubt", "stop")
    if isinstance(effect, Transaction):
        return _transactional_spec(function, effect, options)
    one_of("effect", effect, (None, *get_args(Effect)), "or exoflow.transaction(engine)")
    boolean("deterministic", options.get("deterministic", False))
    if undo is not None and effect is not None:
        raise ValueError(
            f"effect={effect!r} and rollback={shown(undo)} exclude each other: an effect that can be undone is "
            "declared by its rollback alone"
        )
    if doubt != "stop" and effect != "irrevocable":
        raise ValueError(f"on_doubt={shown(doubt)} needs effect='irrevocable': only such an effect can be in doubt")
    if undo is not None:
        _check_looks_back("rollback", undo, function)
    if callable(doubt):
        _check_looks_back("on_doubt", doubt, function)
    else:
        one_of("on_doubt", doubt, ("stop", "retry"), "or a function (key, *inputs)")
    if "undo_retries" in options and undo is None and not callable(doubt):
        raise ValueError("undo_retries needs rollback=..., or a probe for on_doubt: there is nothing else to try again")
    note = Annotations(
        deterministic=options.get("deterministic", False),
        effect=effect,
        rollback=undo is not None,
        on_doubt="probe" if callable(doubt) else doubt,
    )
    name = name_of(function, options.get("name"), "task")
    spec = TaskSpec(
        name=name,
        function=function,
        note=note,
        is_async=is_async(function),
        undo=undo,
        undo_retries=count("undo_retries", options.get("undo_retries", 9)),
        probe=doubt if callable(doubt) else None,
        ref_parameters=wants_refs(function),
        code=code_of(name, function, options.get("version")),
    )
    return _with_attempt_options(spec, options)


def actor_specs(
    cls: type, tasks: Mapping[str, Any], executor: str | Executor | None, resources: Mapping[str, float]
) -> tuple[TaskSpec, dict[str, TaskSpec]]:
    """How an actor is created, and its methods.

    Raises:
        TypeError, ValueError: the class cannot be an actor's.
    """
    name = cls.__qualname__.rpartition("<locals>.")[2]
    if isinstance(inspect.getattr_static(cls, "__init__"), Callable) is False or "__init__" in tasks:  # type: ignore[arg-type]
        raise TypeError(f"{name}.__init__ must not be a task: {name}(...) in a flow is a call of its own")
    if not tasks:
        raise TypeError(f"{name} has no method that is a task: put @task on those that a flow calls")
    for option in ("__reduce__", "__reduce_ex__"):
        if getattr(cls, option) is not getattr(object, option):
            raise TypeError(
                f"{name} defines {option}, or a class that it is made from does; a snapshot is restored into an object "
                f"that __init__ has made: write __getstate__ and __setstate__ instead"
            )
    resources = dict(resources)
    for key, amount in resources.items():
        number(f"resources[{key!r}]", amount)
    methods = {each: _method_spec(cls, name, each, task, executor, resources) for each, task in tasks.items()}
    function = Creation(cls)
    initial = cls.__init__  # type: ignore[misc]  # of this very class
    code = code_of(name, initial, None) if inspect.isfunction(initial) else b""
    note = Annotations(actor=True)
    wanted = wants_refs(initial) if inspect.isfunction(initial) else frozenset()
    creates = TaskSpec(name, function, note, executor=executor, resources=resources, ref_parameters=wanted, code=code)
    return creates, methods


def _method_spec(
    cls: type, owner: str, name: str, task: Any, executor: str | Executor | None, resources: Mapping[str, float]
) -> TaskSpec:
    spec: TaskSpec = task.spec
    note = spec.note
    if note.rollback or note.effect == "irrevocable":
        what = "has a rollback" if note.rollback else "has an irrevocable effect"
        raise ValueError(
            f"{owner}.{name} {what}: what an actor's call changes outside must bear being done again. "
            f"Return the decision, and act on it in a task that is no actor's; or use effect='idempotent'"
        )
    for option, value in (("executor", spec.executor), ("resources", spec.resources)):
        if value:
            raise ValueError(f"{owner}.{name} has {option}={value!r}: an actor's calls run where it lives, so write "
                             f"@exoflow.actor({option}=...)")  # fmt: skip
    return replace(
        spec,
        name=f"{owner}.{name}",
        function=Method(cls, name),
        note=replace(note, actor=True),
        executor=executor,
        resources=resources,
    )


def _transactional_spec(function: Callable[..., Any], transaction: Transaction, options: TaskOptions) -> TaskSpec:
    """The spec of a task whose effect is a transaction: irrevocable, with a probe that knows."""
    if is_async(function):
        raise TypeError(
            f"{function.__qualname__} is a coroutine, and exoflow.connection() blocks: write it as `def`; an async "
            f"flow then writes `await {function.__name__}.submit(...)`"
        )
    without = {
        "rollback": "an error rolls it back, and once it is committed nothing undoes it",
        "on_doubt": "its marker says whether it happened",
        "deterministic": "what it returns depends on what is in the database",
    }
    for name, why in without.items():
        if options.get(name):
            raise ValueError(f"{name}={shown(options.get(name))} does not go with effect=transaction(...): {why}")
    transacted = Transacted(transaction, function)
    rest: TaskOptions = {**options, "effect": "irrevocable", "on_doubt": transacted.probe}
    return replace(task_spec(function, rest), function=transacted, inside=function)


def call_spec(spec: TaskSpec, options: CallOptions) -> TaskSpec:
    """The task with the options of one call.

    Raises:
        TypeError, ValueError: an option is wrong, or belongs to the decorator.
    """
    for name in options:
        if name in TaskOptions.__annotations__ and name not in CallOptions.__annotations__:
            raise TypeError(f"{name!r} says what the task is, not how it is called: write @task({name}=...)")
    known(options, CallOptions, f"{spec.name}.options")
    fixed = [name for name in ("checkpoint", "executor") if name in options] if spec.note.paid else []
    if fixed:
        raise TypeError(
            f"{fixed[0]!r} is fixed: {spec.name} is paid for, runs here, and is saved before anybody sees it"
        )
    if options.keys() != {"key"}:  # a key alone may be given to each of a million calls
        spec = _with_attempt_options(spec, options)
    return replace(spec, key=key_text(options["key"])) if "key" in options else spec


def flow_spec(function: Callable[..., Any], options: FlowOptions) -> FlowSpec:
    """A flow as the driver needs it.

    Raises:
        TypeError, ValueError: an option is wrong.
    """
    _check_function(function, "flow")
    known(options, FlowOptions, "@flow")
    one_of("on_failure", options.get("on_failure", "keep"), get_args(OnFailure))
    strict: object = options.get("strict", False)
    if not isinstance(strict, bool):
        raise TypeError(f"strict={strict!r} must be True or False")
    executor = options.get("executor")
    check_executor(executor)
    place = place_of(function)
    name = options.get("name")
    own = name_of(function, name, "flow")
    code = code_of(own, function, options.get("version"))
    return FlowSpec(
        name=name if name is not None else f"{place.name}.{cleaned(function)}" if place.name else own,
        function=function,
        is_async=is_async(function),
        version=options.get("version"),
        executor=executor,
        undo_on_failure=options.get("on_failure") == "rollback",
        strict=strict,
        module=place.module,
        file=place.file,
        qualname=function.__qualname__,
        code=code,
        task=TaskSpec(
            own,
            function,
            Annotations(kind=Kind.FLOW),
            is_async(function),
            ref_parameters=wants_refs(function),
            code=code,
        ),
    )


def _with_attempt_options(spec: TaskSpec, options: AttemptOptions | TaskOptions | CallOptions) -> TaskSpec:
    note = spec.note
    if "checkpoint" in options:
        one_of("checkpoint", options["checkpoint"], get_args(Checkpoint))
        note = replace(note, checkpoint=options["checkpoint"])
    if "retries" in options:
        note = replace(note, retries=count("retries", options["retries"]))
    if "losses" in options:
        note = replace(note, losses=count("losses", options["losses"]))
    executor = options.get("executor", spec.executor)
    check_executor(executor)
    backoff = options.get("backoff", spec.backoff)
    check_backoff(backoff)
    timeout_s = options.get("timeout", spec.timeout_s)
    if timeout_s is not None:
        number("timeout", timeout_s, above=0)
    resources = options.get("resources", spec.resources)
    if not isinstance(resources, Mapping):
        raise TypeError(f"resources={resources!r} must be a mapping of names to numbers, as {{'num_gpus': 1}}")
    for name, amount in resources.items():
        number(f"resources[{name!r}]", amount)
    return replace(spec, note=note, executor=executor, backoff=backoff, timeout_s=timeout_s, resources=dict(resources))


def _check_function(function: object, kind: str) -> None:
    if isinstance(function, type):
        raise TypeError(f"@{kind} goes on a function, and {function.__qualname__} is a class")
    if isinstance(function, staticmethod | classmethod):
        raise TypeError(f"@{kind} goes below @{type(function).__name__}, next to the function")
    if not inspect.isfunction(function):
        raise TypeError(f"@{kind} goes on a function, not on {function!r}")
    if is_method(function) and (kind == "flow" or function.__code__.co_varnames[0] == "cls"):
        raise TypeError(
            f"{function.__qualname__} is a method, and a {kind} is a function: a replay in another process has no "
            f"object to call it on. Write it outside the class, or as a @staticmethod (above @{kind}), and give it "
            "what it needs"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{function.__qualname__} is a generator: a {kind} returns its result once, so return a list instead of "
            "yielding"
        )


def is_method(function: Callable[..., Any]) -> bool:
    """Whether it stands in a class and takes the object, or the class, by the name that everybody uses."""
    within = function.__qualname__.rpartition(".")[0]
    first = function.__code__.co_varnames[: function.__code__.co_argcount][:1]
    return within != "" and not within.endswith("<locals>") and first in (("self",), ("cls",))


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
            f"{option}={shown(undo)} is called with the key and with what {function.__qualname__} was called with: "
            f"it must take ({wanted}); {error}"
        ) from None
