"""Objects of an engine in results. The engine here is a dict of this process; its things are worth nothing outside."""

from __future__ import annotations

import itertools
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import exoflow
from exoflow import flow, task
from exoflow.codec import engines
from exoflow.errors import CodecError

cluster: dict[int, object] = {}
numbers = itertools.count()
made: list[object] = []
pickled: list[int] = []


class Thing:
    """Stands for what lies in the cluster."""

    def __init__(self, content: object) -> None:
        self.number = next(numbers)
        cluster[self.number] = content
        made.append(content)

    def get(self) -> Any:
        return cluster[self.number]

    def __reduce__(self) -> Any:
        raise TypeError("a thing cannot be pickled")


class Counter(Thing):
    """What it stands for changes."""


class Told(list[object]):
    """Tells each time that it is pickled."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        pickled.append(1)
        return super().__reduce_ex__(protocol)


class Wrapped:
    """Not a container that Refs are found in."""

    def __init__(self, thing: Thing) -> None:
        self.thing = thing


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = types.ModuleType("fake_engine_objects")
    module.kind_of = lambda kind: f"fake_engine.{kind.__name__}" if kind in (Thing, Counter) else None  # type: ignore[attr-defined]
    module.changes = lambda kind: kind == "fake_engine.Counter"  # type: ignore[attr-defined]
    module.load = lambda thing: thing.get()  # type: ignore[attr-defined]
    module.is_lost = lambda thing: thing.number not in cluster  # type: ignore[attr-defined]
    module.make = lambda kind, content: Thing(content)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_engine_objects", module)
    monkeypatch.setitem(engines._ENGINES, "fake_engine", "fake_engine_objects")
    monkeypatch.setattr(Thing, "__module__", "fake_engine.api")
    monkeypatch.setattr(Counter, "__module__", "fake_engine.api")
    monkeypatch.setattr(engines, "_kinds", {})
    cluster.clear()
    made.clear()
    pickled.clear()
    yield
    assert all(isinstance(content, str | int | list) for content in made)


@task
def load(text: str) -> dict[str, Thing]:
    return {"a": Thing(text)}


@task
def load_both(text: str) -> tuple[Wrapped, list[Thing]]:
    thing = Thing(text)
    return Wrapped(thing), [thing, Thing("b")]


@task
def read(things: dict[str, Thing]) -> str:
    return str(things["a"].get())


@task
def read_one(thing: Thing) -> str:
    return str(thing.get())


@task
def read_both(both: tuple[Wrapped, list[Thing]]) -> list[Any]:
    wrapped, things = both
    return [wrapped.thing.get(), things[0] is wrapped.thing, things[1].get()]


def test_what_lies_there_still_is_passed_on_as_it_is() -> None:
    @flow
    def f() -> str:
        return read(load.submit("x"))

    assert f.options(store="memory://").run() == "x"
    assert made == ["x"]


def test_one_that_stands_twice_in_a_result_is_one() -> None:
    @flow
    def f() -> list[Any]:
        return read_both(load_both.submit("x"))

    assert f.options(store="memory://").run() == ["x", True, "b"]
    assert made == ["x", "b"]


def test_a_body_may_look_at_it_and_pass_it_on() -> None:
    @flow
    def f() -> list[str]:
        things = load("x")
        return [read_one(things["a"]), read({"a": things["a"]}), str(things["a"].get())]

    assert f.options(store="memory://").run() == ["x", "x", "x"]
    assert made == ["x"]


def test_one_of_the_bodys_own_making_is_refused() -> None:
    @flow
    def f() -> str:
        return read_one(Thing("y"))

    with pytest.raises(
        CodecError, match=r"fake_engine\.Thing that no task of this run has returned cannot be restored"
    ):
        f.options(store="memory://").run()


def test_one_in_a_runs_result_or_inputs_is_refused() -> None:
    @flow
    def f(thing: Thing | None = None) -> object:
        return load("x")

    with pytest.raises(CodecError, match="only while its cluster lives"):
        f.options(store="memory://").run()
    with pytest.raises(CodecError, match="only while its cluster lives"):
        f.options(store="memory://").run(Thing("z"))


@pytest.mark.parametrize("checkpoint", ["sync", "async"])
def test_another_life_finds_one_of_the_same_content(tmp_path: Path, checkpoint: Any) -> None:
    lives = []

    @flow
    def f() -> list[str]:
        things = load.options(checkpoint=checkpoint)("x")
        first = read_one(things["a"])
        lives.append(first)
        if len(lives) == 1:
            raise LookupError("the first life ends here")
        return [first, read({"a": things["a"]})]

    run = f.options(store=str(tmp_path), run_id="r")
    with pytest.raises(LookupError):
        run.run()
    cluster.clear()  # the cluster dies with the process
    assert exoflow.resume("r", store=str(tmp_path)) == ["x", "x"]
    assert set(made) == {"x"}
    assert made[1:]


@task(checkpoint="sync")
def load_within(text: str) -> Thing:
    return Thing([Thing([Thing(text)]), lambda: text])


@task
def read_within(thing: Thing) -> str:
    return str(thing.get()[0].get()[0].get())


def test_one_that_stands_in_what_another_stands_for_is_saved_and_made_again_with_it(tmp_path: Path) -> None:
    lives = []

    @flow
    def f() -> str:
        thing = load_within.submit("x")
        lives.append(read_within(thing))
        if len(lives) == 1:
            raise LookupError("the first life ends here")
        return read_within(thing)

    with pytest.raises(LookupError):
        f.options(store=str(tmp_path), run_id="r").run()
    cluster.clear()
    assert exoflow.resume("r", store=str(tmp_path)) == "x"


@pytest.mark.parametrize("checkpoint", ["sync", "async"])
def test_one_that_may_have_changed_in_what_another_stands_for_is_refused_without_another_try(checkpoint: Any) -> None:
    @task(checkpoint=checkpoint)
    def loads() -> Thing:
        return Thing(Told([Counter(3)]))

    @flow
    def f() -> str:
        return read_one(loads())

    with pytest.raises(CodecError, match=r"Counter stands in what another .* Return it beside"):
        f.options(store="memory://").run()
    assert pickled == [1]


def test_one_that_is_lost_in_what_another_stands_for_is_made_again_with_the_call(tmp_path: Path) -> None:
    entered: list[int] = []

    @task(checkpoint="sync")
    def loads(text: str) -> Thing:
        entered.append(1)
        inner = Thing([Thing(text)])
        outer = Thing([inner])
        if len(entered) == 1:
            del cluster[inner.number]
        return outer

    @flow
    def f() -> str:
        return read_within(loads("x"))

    assert f.options(store=str(tmp_path)).run() == "x"
    assert entered == [1, 1]


def test_one_that_is_lost_is_made_again_with_the_call(tmp_path: Path) -> None:
    @task(checkpoint="never", deterministic=True)
    def loads(text: str) -> list[Thing]:
        return [Thing(text)]

    @flow
    def f() -> str:
        things = loads.submit("x")
        assert read_one(things.result()[0]) == "x"
        cluster.clear()
        return read_one(things.result()[0])

    assert f.options(store=str(tmp_path)).run() == "x"


def test_a_large_thing_put_beside_a_small_result_is_saved_with_it(tmp_path: Path) -> None:
    entered: list[int] = []

    @task
    def parts() -> list[exoflow.Ref[bytes]]:
        entered.append(1)
        return [exoflow.put(os.urandom(300_000))]

    @task
    def size(parts: list[bytes]) -> int:
        if len(entered) == 1:
            entered.append(2)
            raise LookupError("once")
        return len(parts[0])

    @flow
    def f() -> int:
        return size(parts.submit())

    with pytest.raises(LookupError):
        f.options(store=str(tmp_path), run_id="r").run()
    assert exoflow.resume("r", store=str(tmp_path)) == 300_000
    assert entered == [1, 2]
