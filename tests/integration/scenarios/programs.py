"""Flows that are more than a graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import counting
import world

import exoflow
from exoflow import Ref

COUNTS = ("counts", "chooses", "settles", "publishes")

Tasks = dict[str, Any]
Body = Callable[..., object]


def reads_first(tasks: Tasks) -> Body:
    """69: reads P, then calls X and Y."""

    def body() -> object:
        p = tasks["P"]()
        return tasks["Y"].submit(tasks["X"].submit(p)).result()

    return body


def branches(tasks: Tasks) -> Body:
    """70: which way it goes is P's choice."""

    def body() -> object:
        p = tasks["P"]()
        return tasks["X"](p, "left") if ":1(" in p else tasks["Z"](p, "right")

    return body


def catches(tasks: Tasks) -> Body:
    """76: D is called with T's error."""

    def body() -> object:
        try:
            return tasks["T"]()
        except ValueError as error:
            return tasks["D"](str(error))

    return body


def catches_late(tasks: Tasks) -> Body:
    """76, with Refs."""

    def body() -> object:
        error = tasks["T"].submit().exception()
        return tasks["D"].submit(str(error)).result()

    return body


def sleeps(tasks: Tasks) -> Body:
    """81: when it began and when it woke, by the wall clock, are lines of the trace."""

    def body() -> object:
        world.trace("began", time.time())
        exoflow.sleep(0.4)
        world.trace("woke", time.time())
        return tasks["A"]()

    return body


def waits(tasks: Tasks) -> Body:
    """79: two events of one name."""

    def body() -> object:
        tasks["P"]()
        world.trace("waits", "")
        first = exoflow.event("event").result()
        return tasks["A"].submit(first, exoflow.event("event").result()).result()

    return body


def echoes(tasks: Tasks) -> Body:
    """86: its input is seen in its result."""

    def body(what: object) -> object:
        return tasks["B"](tasks["A"](what))

    return body


def pair(tasks: Tasks) -> Body:
    """58: A returns references, B gets their contents."""

    def put_two() -> list[Ref[str]]:
        value = world.act("A", plan_words("A"))
        return [exoflow.put(f"x{value}#{world.BIG}"), exoflow.put(f"y{value}")]

    a = world.task("A", plan_words("A"), put_two)

    def body() -> object:
        x, y = a()
        return tasks["B"].submit(x, y).result()

    def nested() -> object:
        return tasks["B"].submit(a.submit()).result()

    return nested if world.plan["form"] == "pair in one Ref" else body


def passes(tasks: Tasks) -> Body:
    """61: P hands A's reference on."""

    def hand_on(ref: Ref[str]) -> Ref[str]:
        world.act("P", plan_words("P"))
        return ref

    p = world.task("P", plan_words("P"), hand_on)

    def body() -> object:
        return tasks["B"].submit(p.submit(tasks["A"].submit())).result()

    def reads() -> object:
        return tasks["B"].submit(p(tasks["A"].submit())).result()

    return reads if world.plan["form"] == "passes and reads" else body


def nested(tasks: Tasks) -> Body:
    """T and V are called by a child flow."""

    def child(a: object) -> object:
        return tasks["V"].submit(tasks["T"].submit(a)).result()

    def child_reads(a: object) -> object:
        return tasks["V"](tasks["T"](a))

    reads = world.plan["form"] == "nested and reads"
    inner: Any = exoflow.flow(name="child")(child_reads if reads else child)

    def body() -> object:
        return tasks["U"].submit(inner.submit(tasks["A"].submit())).result()

    def body_reads() -> object:
        return tasks["U"](inner(tasks["A"]()))

    return body_reads if reads else body


def counts(tasks: Tasks) -> Body:
    """64, 65: an actor counts to as many as there are letters; then its state is read."""
    made = {"each": counting.Every, "fifth": counting.Fifth, "once": counting.Once}[world.plan["form"].split()[1]]

    def body() -> object:
        counter = made(0)
        for number in range(len(tasks)):
            name = counting.LETTERS[number]
            world.strike("call", name)
            counter.inc(number)
        return counter.get()

    def chooses() -> object:
        counter = made(0)
        for number in range(len(tasks)):
            world.strike("call", counting.LETTERS[number])
            last = counter.choose(number)
        return last

    def settles() -> object:
        counter = made(0)
        for number in range(len(tasks)):
            world.strike("call", counting.LETTERS[number])
            last = counter.settle(number)
        return last

    def publishes() -> object:
        counter = made(0)
        for number in range(len(tasks) - 1):
            last = counter.choose(number)
        published = counting.publish(last)
        return f"{published} then {counter.choose(len(tasks) - 1)}"

    kinds: dict[str, Body] = {"chooses": chooses, "settles": settles, "publishes": publishes}
    return kinds.get(world.plan["form"].split()[0], body)


def plan_words(name: str) -> list[str]:
    words: list[str] = world.plan["notes"][name]
    return words


PROGRAMS: dict[str, Callable[[Tasks], Body]] = {
    "reads first": reads_first,
    "branches": branches,
    "catches": catches,
    "catches late": catches_late,
    "sleeps": sleeps,
    "echoes": echoes,
    "waits": waits,
    "nested": nested,
    "nested and reads": nested,
    "pair": pair,
    "pair in one Ref": pair,
    "passes": passes,
    "passes and reads": passes,
    **{f"{what} {often}": counts for what in COUNTS for often in ("each", "fifth", "once")},
}
