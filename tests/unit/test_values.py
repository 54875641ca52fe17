"""Where the values of a run are: what is saved stays at hand while there is room, and goes with the run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from exoflow import codec
from exoflow.driver import values as module
from exoflow.driver.values import Room, Values
from exoflow.executors.local import LocalExecutor, LocalHandle
from exoflow.model import CallId, Held, Stored
from exoflow.storage.memory import MemoryStore

SIZE = 100_000
A, B = CallId("a#0"), CallId("b#0")


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> Iterator[Values]:
    monkeypatch.setattr(module, "_room", Room(SIZE + SIZE // 2))
    store = MemoryStore()
    executor = LocalExecutor(store=store)
    yield Values(store, {"local": executor})
    executor.close()


def made(values: Values, id: CallId) -> Held:
    encoded = codec.encode(id.encode() * (SIZE // len(id)))
    held = Held("local", LocalHandle(encoded), encoded.size)
    values.at[id] = held
    return held


def saved(values: Values, id: CallId) -> Stored:
    held = values.at[id]
    encoded = values.fetch(held)
    values.store.create(f"values/{id[0]}", *codec.to_parts(encoded))
    stored = Stored(f"values/{id[0]}", encoded.size)
    values.saved(id, stored)
    return stored


def is_held(held: Held) -> bool:
    assert isinstance(held.handle, LocalHandle)
    return held.handle.made is not None


def test_a_saved_value_is_given_from_where_it_was_made(values: Values) -> None:
    held = made(values, A)
    stored = saved(values, A)
    assert values.at[A] == stored
    assert values.given(A) is held
    values.store.delete(stored.name)
    assert codec.decode(values.fetch(stored)) == b"a#0" * (SIZE // 3)


def test_an_older_value_makes_room_and_is_read_from_the_store(values: Values) -> None:
    old = made(values, A)
    stored = saved(values, A)
    new = made(values, B)
    saved(values, B)
    assert not is_held(old)
    assert values.given(A) == stored
    assert values.given(B) is new
    assert codec.decode(values.fetch(stored)) == b"a#0" * (SIZE // 3)


def test_a_value_that_its_executor_lost_is_read_from_the_store(values: Values) -> None:
    held = made(values, A)
    stored = saved(values, A)
    values.executors["local"].drop(held)
    assert codec.decode(values.fetch(stored)) == b"a#0" * (SIZE // 3)
    assert values.given(A) == stored


def test_a_run_that_is_over_holds_nothing_and_takes_no_room(values: Values) -> None:
    kept, unsaved = made(values, A), made(values, B)
    saved(values, A)
    values.release_all()
    assert not is_held(kept)
    assert not is_held(unsaved)
    assert module._room.take(SIZE + SIZE // 2)


def test_what_an_attempt_uses_stays_until_it_has_ended(values: Values) -> None:
    held = made(values, A)
    values.give(1, [held])  # type: ignore[arg-type]  # a version
    values.release_all()
    assert is_held(held)
    values.take_back(1)  # type: ignore[arg-type]  # a version
    assert not is_held(held)
