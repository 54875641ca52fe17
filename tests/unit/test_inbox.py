"""Messages to a run, and the bells that say so."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

import exoflow
from exoflow import event, flow, hooks, send, wait_for
from exoflow.driver import bells
from exoflow.driver.execution import Execution
from exoflow.driver.runtime import Runtime
from exoflow.errors import Corrupt, StorageError
from exoflow.journal import Journal, Kind, inbox
from exoflow.journal.gc import collect
from exoflow.journal.inbox import Message, messages_after, payload_of, post
from exoflow.protocols import Store
from exoflow.settings import store_of
from exoflow.storage import LocalStore, MemoryStore
from exoflow.testing import skipping_time


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return LocalStore(str(tmp_path)) if request.param == "local" else MemoryStore()


def message(name: str = "x", **more: Any) -> Message:
    return Message("event", 1.5, name, b"data", **more)


def test_what_is_posted_is_read_in_order_with_its_numbers(store: Store) -> None:
    names = ["a", "ä\n/..", "\ud800", ""]
    assert [post(store, "run", message(name, id=f"id {name}")) for name in names] == [1, 2, 3, 4]
    found = messages_after(store, "run", 0)
    assert found == [message(name, id=f"id {name}", number=n) for n, name in enumerate(names, 1)]
    assert messages_after(store, "run", 2) == found[2:]
    assert messages_after(store, "another", 0) == []
    assert payload_of(store, "run", 3) == b"data"


def test_of_many_who_post_at_once_none_is_lost(store: Store) -> None:
    def posting(sender: int) -> None:
        for n in range(5):
            post(store, "run", message(f"{sender}/{n}"))

    threads = [threading.Thread(target=posting, args=(sender,)) for sender in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = messages_after(store, "run", 0)
    assert [each.number for each in found] == list(range(1, 21))
    for sender in range(4):
        assert [each.name for each in found if each.name[0] == str(sender)] == [f"{sender}/{n}" for n in range(5)]


def test_a_damaged_message_is_named(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    post(store, "run", message())
    post(store, "run", message())
    place = next(tmp_path.glob("inbox/*/2"))
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.chmod(0o600)
    place.write_bytes(data)
    with pytest.raises(Corrupt, match=r"inbox/\w+/2 is damaged"):
        messages_after(store, "run", 0)
    data[-1] ^= 1
    place.write_bytes(data)
    assert len(messages_after(store, "run", 0)) == 2


def test_a_post_whose_answer_was_lost_is_not_posted_twice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    create = store.create

    def losing(name: str, *parts: bytes) -> bool:
        create(name, *parts)
        monkeypatch.setattr(store, "create", create)
        raise StorageError("the answer was lost")

    monkeypatch.setattr(store, "create", losing)
    assert post(store, "run", message()) == 1
    assert len(messages_after(store, "run", 0)) == 1


def test_a_bell_is_heard_once_and_by_whom_it_is_for(store: Store) -> None:
    inbox.ring(store, "mine", "run \ud800", 1)
    inbox.ring(store, "mine", "run \ud800", 2)
    inbox.ring(store, "mine", "other", 1)
    assert inbox.hear(store, "another") == set()
    assert inbox.hear(store, "mine") == {"run \ud800", "other"}
    assert inbox.hear(store, "mine") == set()


def test_the_inbox_of_a_run_goes_with_the_run_and_unheard_bells_with_their_journal(store: Store) -> None:
    journal = Journal(store)
    for run_id in ("gone", "kept"):
        claimed = journal.claim(run_id)
        journal.append((Kind.START, claimed.run, run_id, claimed.epoch))
        journal.wait(journal.append((Kind.ENDED, claimed.run, "done")))
        post(store, run_id, message())
    inbox.ring(store, journal.name, "gone", 1)
    journal.close()
    collect(store, lambda run: run.run_id == "kept")
    assert messages_after(store, "gone", 0) == []
    assert len(messages_after(store, "kept", 0)) == 1
    assert inbox.bells(store) == {}


# -- the owner's side --------------------------------------------------------------------------------------------------


@flow
def waiter() -> object:
    return wait_for("x")


@flow
async def busy() -> object:
    await event("go")
    return await event("x")


def execution_of(run: exoflow.Run[Any]) -> Execution:
    return Runtime.of(store_of(None)).executions[run.id]


def posted(run: exoflow.Run[Any], name: str = "x", data: object = 1) -> int:
    payload = bytes(exoflow.codec.to_bytes(exoflow.codec.encode(data)))
    return post(store_of(None), run.id, Message("event", 0.0, name, payload))


def test_a_run_whose_bell_was_lost_is_looked_at_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    exoflow.configure(store="memory://lost-bell")
    runtime = Runtime.of(store_of(None))
    run = waiter.start()
    posted(run)
    runtime.bells.hear()
    assert execution_of(run).inbox.seen == 0
    monkeypatch.setattr(bells, "LOOK_S", 0.0)
    runtime.bells.hear()
    assert run.result() == 1


def test_a_bell_in_a_bucket_is_missed_by_none_either(monkeypatch: pytest.MonkeyPatch) -> None:
    exoflow.configure(store="memory://bucket")  # it has no slots, as a bucket has none
    monkeypatch.setattr(bells, "LOOK_S", 0.0)
    told, untold = waiter.start(), waiter.start()
    posted(told)
    Runtime.of(store_of(None)).bells.hear()
    assert told.result() == 1
    send(untold.id, "x", 2)
    assert untold.result() == 2


def test_a_bell_brings_the_message(tmp_path: Path) -> None:
    exoflow.configure(store=str(tmp_path))
    run = waiter.start()
    number = posted(run)
    store = store_of(None)
    inbox.ring(store, Runtime.of(store).journal.name, run.id, number)  # the thread that listens hears it
    assert run.result() == 1


def test_a_damaged_message_stops_its_run_and_is_taken_when_it_is_mended(tmp_path: Path) -> None:
    exoflow.configure(store=str(tmp_path))
    run = waiter.start()
    posted(run)
    place = next(tmp_path.glob("inbox/*/1"))
    good = place.read_bytes()
    place.chmod(0o600)
    place.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    bells.look(execution_of(run))
    with pytest.raises(Corrupt, match=r"inbox/\w+/1 is damaged"):
        run.result()
    with pytest.raises(Corrupt):
        waiter.resume(run.id)
    place.write_bytes(good)
    assert waiter.resume(run.id) == 1


def test_an_inbox_that_cannot_be_read_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    exoflow.configure(store="memory://unread")
    run = waiter.start()
    posted(run)
    store, read = store_of(None), MemoryStore.list

    def failing(*_: object) -> list[str]:
        raise StorageError("not now")

    monkeypatch.setattr(MemoryStore, "list", failing)
    with caplog.at_level(logging.WARNING):
        bells.look(execution_of(run))
    assert "looked at again" in caplog.text
    monkeypatch.setattr(MemoryStore, "list", read)
    bells.look(execution_of(run))
    assert run.result() == 1
    assert store.url == "memory://unread"


def test_a_cancel_that_cannot_be_written_stops_the_run_and_not_who_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    exoflow.configure(store="memory://unwritten")
    run = waiter.start()
    execution = execution_of(run)

    def failing(_: object) -> int:
        raise StorageError("the journal stopped")

    monkeypatch.setattr(execution.log, "append", failing)
    post(store_of(None), run.id, Message("cancel", 0.0))
    bells.look(execution)
    with pytest.raises(StorageError, match="the journal stopped"):
        run.result()


def test_a_message_to_a_run_that_never_began_reaches_the_run_of_that_id(tmp_path: Path) -> None:
    exoflow.configure(store=str(tmp_path))
    store = store_of(None)
    lost = Journal(store)
    lost.claim("chosen")
    post(store, "chosen", Message("event", 0.0, "x", bytes(exoflow.codec.to_bytes(exoflow.codec.encode(5)))))
    lost.close()
    assert waiter.options(run_id="chosen").run() == 5


def test_what_was_posted_before_its_sender_died_is_taken_once_when_it_is_sent_again() -> None:
    exoflow.configure(store="memory://again")

    @flow
    def twice() -> list[object]:
        return [wait_for("x"), wait_for("x")]

    class Died(Exception): ...

    def die(point: str) -> None:
        if point == "inbox.post.after":
            raise Died

    with skipping_time() as clock:
        run = twice.start()
        clock.advance(0)
        with hooks.armed(die), pytest.raises(Died):
            send(run.id, "x", 1, id="mine")
        send(run.id, "x", 1, id="mine")
        send(run.id, "x", 2)
        assert run.result() == [1, 2]
