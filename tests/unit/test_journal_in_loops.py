"""An event loop whose turn asked to be told writes at its end itself, where a write is short."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exoflow import hooks
from exoflow.errors import StorageError
from exoflow.journal import Journal, Kind
from exoflow.storage import LocalStore, MemoryStore

ME = threading.get_ident


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = begun(tmp_path)
    yield journal
    journal.close()


def begun(folder: Path) -> Journal:
    """With a run in it: from then on records are appended."""
    journal = Journal(LocalStore(str(folder)))
    name, epoch, run = journal.new_run("flow")
    journal.wait(journal.append((Kind.START, run, name, epoch, b"inputs")))
    return journal


def told(journal: Journal) -> asyncio.Future[tuple[BaseException | None, int]]:
    """Append a record, and ask to be told of it: the error, and in which thread."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def callback(error: BaseException | None) -> None:
        answer = error, ME()
        loop.call_soon_threadsafe(lambda: future.done() or future.set_result(answer))

    journal.notify(journal.append((Kind.SAVED, 1, "a")), callback)
    return future


async def test_what_a_turn_has_brought_is_one_write_of_the_loops_own(journal: Journal) -> None:
    written_by: list[int] = []
    with hooks.armed(lambda point: written_by.append(ME()) if point == "slot.sync.before" else None):
        futures = [told(journal) for _ in range(20)]
        assert not any(future.done() for future in futures)
        answers = await asyncio.gather(*futures)
    assert answers == [(None, ME())] * 20
    assert written_by == [ME()]


async def test_a_loop_that_is_busy_for_long_leaves_it_to_the_background_thread(journal: Journal) -> None:
    called = threading.Event()
    journal.notify(journal.append((Kind.SAVED, 1, "a")), lambda _: called.set())
    assert called.wait(20), "the loop has had no turn, and nobody else has written"


async def test_a_thread_that_asks_meanwhile_is_told_by_the_background_thread(journal: Journal) -> None:
    future, answers = told(journal), list[int]()
    called = threading.Event()

    def ask() -> None:
        journal.notify(journal.append((Kind.SAVED, 1, "b")), lambda _: (answers.append(ME()), called.set()))

    await asyncio.to_thread(ask)
    await asyncio.to_thread(called.wait, 20)
    error, _ = await future
    assert error is None
    assert answers


async def test_after_a_long_write_the_loop_leaves_the_next_ones_to_the_background_thread(journal: Journal) -> None:
    def slow(point: str) -> None:
        if point == "slot.sync.before" and ME() == loop_thread:
            time.sleep(0.2)  # a slow disk

    loop_thread = ME()
    with hooks.armed(slow):
        assert await told(journal) == (None, loop_thread)
        error, thread = await told(journal)
    assert error is None
    assert thread != loop_thread


async def test_a_write_of_the_loops_that_fails_is_told_to_who_asked(journal: Journal, tmp_path: Path) -> None:
    def vanish(point: str) -> None:
        if point == "slot.sync.before":
            shutil.rmtree(tmp_path)
            raise StorageError("the disk has gone")

    with hooks.armed(vanish):
        error, _ = await told(journal)
    assert isinstance(error, StorageError)
    with pytest.raises(StorageError):
        told(journal)


async def test_where_every_batch_is_an_object_a_loop_never_writes() -> None:
    journal = Journal(MemoryStore())
    for _ in range(3):
        error, thread = await told(journal)
        assert error is None
        assert thread != ME()
    journal.close()


def test_a_loop_that_was_closed_before_its_write_leaves_nobody_untold(journal: Journal) -> None:
    called = threading.Event()

    async def ask_and_leave() -> None:
        journal.notify(journal.append((Kind.SAVED, 1, "a")), lambda _: called.set())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(ask_and_leave())
    assert called.wait(20)


async def test_ctrl_c_in_the_loops_write_is_not_eaten(journal: Journal) -> None:
    seen: list[BaseException] = []

    def interrupt(point: str) -> None:
        if point == "slot.sync.before" and ME() == loop_thread and not seen:
            seen.append(KeyboardInterrupt())
            raise seen[0]

    loop_thread = ME()
    position = journal.append((Kind.SAVED, 1, "a"))
    with hooks.armed(interrupt), pytest.raises(KeyboardInterrupt):
        journal._serve_in(asyncio.get_running_loop())
    journal.wait(position)


async def test_two_loops_write_at_the_same_time(journal: Journal, tmp_path: Path) -> None:
    another = begun(tmp_path / "another")
    both_write = threading.Barrier(2)
    written_by: list[int] = []

    def write(point: str) -> None:
        if point == "slot.sync.before":
            both_write.wait(20)
            written_by.append(ME())

    async def write_there() -> None:
        assert await told(another) == (None, ME())

    beside = threading.Thread(target=asyncio.run, args=(write_there(),))
    with hooks.armed(write):
        beside.start()
        assert await told(journal) == (None, ME())
        beside.join()
    assert sorted(written_by) == sorted([ME(), beside.ident])
    another.close()
