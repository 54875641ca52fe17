"""Random flows: a graph of tasks with random annotations, and a body that submits, reads, branches and catches."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

from exoflow.codec import reduce_reference, register_reference
from exoflow.driver import notes
from exoflow.driver.async_body import AsyncBody
from exoflow.driver.body import current_body
from exoflow.driver.handle import Handle
from exoflow.driver.spec import Backoff, Chain, FlowSpec, TaskSpec
from exoflow.model import Annotations, CallId, Kind

UNDO_RETRIES = 3
CHECKPOINTS = ("auto", "auto", "sync", "async", "never", "never")


Pair = tuple[str, int, int]
"""A choice: the call, and which of its attempts; one that was made twice in one history is a violation."""

Provenance = tuple[Pair, ...]


class Made(list[Handle | None]):
    """What a body has called, in order; None: a plain call, to which nobody has a Ref."""

    def __init__(self, before: Sequence[Handle | None] = ()) -> None:
        super().__init__(before)
        self.actors: list[Chain] = []
        self.acted: list[Handle] = []
        """Calls of actors, and what was called with them."""


class SimulatedError(Exception):
    """A task's error; it carries its provenance as a value does."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a body."""

    kind: str
    """submit, call, read, branch, child, choose, note, event, deadline, gather; create, act or feed."""
    task: int = 0
    inputs: tuple[int, ...] = ()
    passed: bool = False
    """The inputs are handed on as Refs."""
    body: tuple[Step, ...] = ()
    """Of a child flow, or the steps that a branch may take."""
    strands: tuple[tuple[Step, ...], ...] = ()
    """What goes on side by side, each in an asyncio task; they share what they have seen."""
    actor: int = -1
    """To act on: of those that the body has created, or one that this step creates."""
    reads: bool = False
    """It reads what the actor's call returns."""


@dataclass(frozen=True, slots=True)
class Program:
    """A flow and its tasks."""

    tasks: tuple[TaskSpec, ...]
    steps: tuple[Step, ...]
    plain: bool = False
    """Its calls are plain ones: there is no Ref to them, and steps that would take it do without."""
    methods: tuple[TaskSpec, ...] = ()
    """Of its actors; the first one creates them."""
    snapshots_every: int = 1


class SimulatedRef:
    """A Ref of the simulated flow."""

    __slots__ = ("call_id",)

    def __init__(self, call_id: CallId) -> None:
        self.call_id = call_id

    def __reduce__(self) -> tuple[Any, ...]:
        return reduce_reference(self.call_id)


register_reference(SimulatedRef)


def write_program(
    chance: random.Random, run: Callable[..., object], undo: Callable[..., object], probe: Callable[..., object]
) -> Program:
    """A random program. Bodies of tasks are never called: the world says what they return."""
    tasks = tuple(_task(chance, n, run, undo, probe) for n in range(chance.randint(3, 8)))
    count = chance.choice((3, 6, 8, 10, 10, 12, 14, 20))
    return Program(tasks, _steps(chance, tasks, count, depth=0, strands=chance.random() < 0.3))


def with_actors(program: Program, chance: random.Random) -> Program:
    """The same program, and actors in some of its bodies. They have results of their own, so that nothing moves."""
    if chance.random() < 0.55:
        return program
    run = program.tasks[0].function
    methods = tuple(_method(chance, n, run) for n in range(chance.randint(2, 4)))
    steps = _with_actors(program.steps, chance, program, len(methods))
    return replace(program, methods=methods, steps=steps, snapshots_every=chance.choice((1, 2, 3, 3, 100)))


def with_paid(program: Program, chance: random.Random) -> Program:
    """The same program, and some of its choices are paid for: nothing else moves."""
    if chance.random() < 0.6:
        return program
    return replace(program, tasks=tuple(_paid(task) if chance.random() < 0.7 else task for task in program.tasks))


def _paid(task: TaskSpec) -> TaskSpec:
    note = task.note
    if note.deterministic or note.effect or note.rollback:
        return task
    return replace(task, note=replace(note, checkpoint="sync", paid=True))


def _method(chance: random.Random, n: int, run: Callable[..., object]) -> TaskSpec:
    note = Annotations(
        deterministic=n > 0 and chance.random() < 0.5,
        checkpoint=chance.choice(CHECKPOINTS) if n else "auto",  # type: ignore[arg-type]  # as above
        effect="idempotent" if n and chance.random() < 0.15 else None,
        retries=chance.choice((0, 1, 3)) if n else 3,
        losses=8,
        actor=True,
    )
    return TaskSpec(f"m{n}", run, note, backoff=Backoff(initial_s=0.01, jitter=0.0), code=b"c", executor="sim")


def _with_actors(
    steps: Sequence[Step], chance: random.Random, program: Program, methods: int, depth: int = 0
) -> tuple[Step, ...]:
    mixed: list[Step] = []
    created = made = 0
    for step in (*steps, None):
        for _ in range(chance.choice((0, 0, 1, 1, 2, 3)) if depth < 2 else 0):
            inputs = tuple(sorted(chance.sample(range(made), min(made, chance.choice((0, 0, 1))))))
            roll = chance.random()
            if not created or roll < 0.1:
                mixed.append(Step("create", 0, inputs))
                created += 1
            elif roll < 0.8:
                method = chance.randrange(1, methods)
                mixed.append(Step("act", method, inputs, actor=chance.randrange(created), reads=chance.random() < 0.4))
            else:
                mixed.append(Step("feed", chance.randrange(len(program.tasks)), reads=chance.random() < 0.3))
        if step is None:
            return tuple(mixed)
        if step.kind == "child":
            step = replace(step, body=_with_actors(step.body, chance, program, methods, depth + 1))
        made += step.kind in ("submit", "call", "child", "event")
        mixed.append(step)
    raise AssertionError


def _task(
    chance: random.Random, n: int, run: Callable[..., object], undo: Callable[..., object], probe: Callable[..., object]
) -> TaskSpec:
    effect = chance.choices((None, "idempotent", "irrevocable"), (6, 1, 1.5))[0]
    rollback = effect is None and chance.random() < 0.25
    note = Annotations(
        deterministic=chance.random() < 0.4,
        checkpoint=chance.choice(CHECKPOINTS),  # type: ignore[arg-type]  # of text, as its names are
        effect=effect,  # type: ignore[arg-type]  # likewise
        rollback=rollback,
        on_doubt=chance.choice(("retry", "probe", "probe")),
        retries=chance.choice((0, 1, 3)),
        losses=chance.choice((2, 8, 8)),
    )
    return TaskSpec(
        f"t{n}", run, note, backoff=Backoff(initial_s=0.01, jitter=0.0), undo=undo if rollback else None, probe=probe,
        undo_retries=UNDO_RETRIES, code=b"c", executor="sim",
    )  # fmt: skip


def _steps(
    chance: random.Random, tasks: Sequence[TaskSpec], count: int, depth: int, *, made: int = 0, strands: bool = False
) -> tuple[Step, ...]:
    steps: list[Step] = []
    for _ in range(count):
        if strands and chance.random() < 0.2:
            sides = range(chance.randint(2, 3))
            side = tuple(_steps(chance, tasks, chance.randint(2, 5), depth + 1, made=made) for _ in sides)
            steps.append(Step("gather", strands=side))
            continue
        roll = chance.random()
        inputs = tuple(sorted(chance.sample(range(made), min(made, chance.choice((0, 1, 1, 2, 3))))))
        if roll < 0.55 or not made:
            passed = bool(inputs) and chance.random() < 0.1
            steps.append(Step("submit", chance.randrange(len(tasks)), inputs, passed))
            made += 1
        elif roll < 0.65:
            steps.append(Step("call", chance.randrange(len(tasks)), inputs))
            made += 1
        elif roll < 0.80:
            steps.append(Step("read", inputs=(chance.randrange(made),)))
        elif roll < 0.86 and depth < 2:
            body = _steps(chance, tasks, chance.randint(1, 4), depth + 1)
            steps.append(Step("child", inputs=inputs, body=body))
            made += 1
        elif roll < 0.92:
            body = _steps(chance, tasks, chance.randint(1, 3), depth + 1)
            steps.append(Step("branch", inputs=(chance.randrange(made),), body=body))
        elif roll < 0.96 and inputs:
            steps.append(Step("choose", inputs=inputs))
        elif roll < 0.97:
            steps.append(Step("note"))
        else:
            steps.append(Step(chance.choice(("note", "event", "deadline"))))
            made += steps[-1].kind == "event"
    return tuple(steps)


def flow_of(program: Program) -> FlowSpec:
    """The program as a flow."""

    async def body() -> object:
        return await _perform(program, program.steps, ())

    return FlowSpec("sim", body, is_async=True, code=b"f")


async def _perform(program: Program, steps: Sequence[Step], given: Provenance) -> object:
    """Run the steps; what a body has read goes into everything that it calls later, as in a real one."""
    seen = set(given)
    made = Made()
    for step in steps:
        await _step(program, step, seen, made)
    last = [*(handle for handle in made[-2:] if handle), *made.acted[-2:]]
    return [tuple(sorted(seen)), [SimulatedRef(handle.call_id) for handle in last]]


async def _step(program: Program, step: Step, seen: set[Pair], made: Made) -> None:  # noqa: C901 -- one line a kind
    body = current_body()
    assert isinstance(body, AsyncBody)
    taken = [handle for i in step.inputs if (handle := made[i])]
    arguments = [SimulatedRef(handle.call_id) for handle in taken], tuple(sorted(seen))
    if step.kind in ("submit", "call"):
        spec = program.tasks[step.task]
        if step.passed:
            spec = replace(spec, ref_parameters=frozenset({"refs"}))
        if step.kind == "call" and program.plain:
            made.append(None)
            await _see(body.call(spec, arguments, {}), seen)
            return
        made.append(handle := body.submit(spec, arguments, {}))
        if step.kind == "call":
            await _see(body.value(handle), seen)
    elif step.kind in ("read", "branch"):
        for handle in taken:
            await _see(body.value(handle), seen)
        if step.kind == "branch" and zlib.crc32(repr(sorted(seen)).encode()) % 2:
            for inner in step.body:
                if all(i < len(made) for i in inner.inputs):
                    await _step(program, inner, seen, made)
    elif step.kind in ("create", "act", "feed"):
        await _act(program, step, seen, made, arguments)
    elif step.kind == "child":
        made.append(body.submit_child(_child(program, step), arguments, {}))
    elif step.kind == "gather":
        sides = (_side(program, side, seen, made) for side in step.strands)
        for of_its_own in await asyncio.gather(*sides):
            made.extend(of_its_own)
    elif step.kind == "choose":
        if taken:
            index = await body.next_of(taken)
            seen.add(("chose", len(made), index))
            await _see(body.value(taken[index]), seen)
    else:
        await _outside(body, step, seen, made)


async def _act(program: Program, step: Step, seen: set[Pair], made: Made, arguments: tuple[Any, ...]) -> None:
    """A step that is about an actor."""
    body = current_body()
    assert isinstance(body, AsyncBody)
    if step.kind == "feed":
        refs = [SimulatedRef(handle.call_id) for handle in made.acted[-1:]]
        handle = body.submit(program.tasks[step.task], (refs, tuple(sorted(seen))), {})
    else:
        if step.kind == "create":
            made.actors.append(Chain(program.snapshots_every))
        handle = body.submit(replace(program.methods[step.task], actor=made.actors[step.actor]), arguments, {})
    if step.kind != "create":
        made.acted.append(handle)
    if step.reads:
        await _see(body.value(handle), seen)


async def _outside(body: AsyncBody, step: Step, seen: set[Pair], made: Made) -> None:
    """A step that is about what comes from outside: time, or a message."""
    if step.kind == "note":
        made.append(notes.timer(body, 1.0))
        return
    waited = notes.event(body, event_name(len(made)), object)
    if step.kind == "event":
        made.append(waited)
        return
    index = await body.next_of([waited, notes.timer(body, 1.0)])
    seen.add(("chose", len(made), index))
    if not index:
        await _see(body.value(waited), seen)


def event_name(number: int) -> str:
    """Of few names, so that several wait for one."""
    return "ab"[number % 2]


async def _side(program: Program, steps: Sequence[Step], seen: set[Pair], before: Made) -> Made:
    made = Made(before)
    for step in steps:
        if all(i < len(made) for i in step.inputs):
            await _step(program, step, seen, made)
    return Made(made[len(before) :])


def _child(program: Program, step: Step) -> FlowSpec:
    async def body(refs: list[Any], given: Provenance) -> object:
        return await _perform(program, step.body, tuple({*given, *provenance(refs)}))

    task = TaskSpec("child", body, Annotations(kind=Kind.FLOW), code=b"f")
    return FlowSpec("child", body, is_async=True, code=b"f", task=task)


async def _see(reading: Coroutine[Any, Any, object], seen: set[Pair]) -> None:
    try:
        value = await reading
    except SimulatedError as error:
        value = error.args[0]
    seen.update(provenance(value))


def provenance(value: Any) -> set[Pair]:
    """All choices that stand in a value: every value of the simulation carries what it was made from."""
    if isinstance(value, (list, tuple)):
        if len(value) == 3 and isinstance(value[0], str):
            return {tuple(value)}
        return {pair for part in value for pair in provenance(part)}
    return set()
