"""The catalogue against journals on disk: it may be deleted, damaged or shared, and never says what they do not."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exoflow.catalogue import Catalogue, describe
from exoflow.driver.records import Ended, Intent, Result, Start, Undone
from exoflow.errors import RunNotFound
from exoflow.journal import Journal, Kind
from exoflow.journal.gc import collect
from exoflow.model import Status, version
from exoflow.protocols import Store
from exoflow.storage import LocalStore, MemoryStore

DAY_S = 1_700_000_000.0


class Owner:
    """One process's journal, and the runs that it writes."""

    def __init__(self, store: Store) -> None:
        self.journal = Journal(store, linger_s=None)
        self._last = 0

    def begin(
        self, run_id: str, *, at_s: float = DAY_S, flow: str = "daily", labels: dict[str, str] | None = None
    ) -> Run:
        index = self.journal.claim(run_id).run
        self.add(Start(
            Kind.START, index, run_id, 1, at_s, flow, "jobs", "jobs.py", flow, None, b"code", b"in", labels or {},
            1, "/", "local",
        ))  # fmt: skip
        return Run(self, run_id, index, 1)

    def adopt(self, run_id: str) -> Run:
        adopted = self.journal.adopt(run_id)
        return Run(self, run_id, adopted.run, adopted.epoch)

    def add(self, record: tuple[object, ...]) -> None:
        self._last = self.journal.append(tuple(record))

    def flush(self) -> None:
        self.journal.wait(self._last)

    def die(self) -> None:
        """What is left behind of a process that was killed: no Released, no Seal."""
        self.flush()
        self.journal.close(release=False)


class Run:
    """One epoch of a run."""

    def __init__(self, owner: Owner, run_id: str, index: int, epoch: int) -> None:
        self.id = run_id
        self.epoch = epoch
        self._owner = owner
        self.index = index
        self._number = 0

    def result(
        self, call: str, kind: Kind = Kind.SAVED, payload: object = b"value", *, inputs: list[str] | None = None,
        why: str | None = None, number: int = 1, choice: int = 1, at_s: float = DAY_S,
    ) -> int:  # fmt: skip
        self._number += 1
        made = version(self.epoch, self._number)
        self._owner.add(Result(
            kind, self.index, call, made, payload, None, None, None, 0, inputs, None, b"code", at_s, 0.5,
            number, why, choice,
        ))  # type: ignore[arg-type]  # fmt: skip  # payloads of every form
        return made

    def save_made(self, call: str, made: int, payload: object) -> None:
        """The value of a result that was made before."""
        self._owner.add(Result(
            Kind.SAVED, self.index, call, made, payload, None, None, None, 0, None, None, b"code", DAY_S, 0.5,
            1, None, 1,
        ))  # type: ignore[arg-type]  # fmt: skip

    def intend(self, call: str, what: str = "irrevocable") -> None:
        self._number += 1
        made = version(self.epoch, self._number)
        self._owner.add(Intent(Kind.INTENT, self.index, call, made, what, [], [], None, DAY_S, "key"))

    def undo(self, call: str) -> None:
        made = version(self.epoch, self._number)
        self._owner.add(Undone(Kind.UNDONE, self.index, call, made, DAY_S))

    def end(self, status: str = "done", *, at_s: float = DAY_S + 1) -> None:
        self._owner.add(Ended(Kind.ENDED, self.index, status, b"result", at_s))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "store"))


@pytest.fixture
def owner(store: LocalStore) -> Iterator[Owner]:
    made = Owner(store)
    yield made
    made.journal.close()


def states(store: LocalStore) -> dict[str, Status]:
    with Catalogue(store) as catalogue:
        catalogue.refresh()
        return {run.run_id: run.status for run in catalogue.runs()}


def test_a_run_without_an_end_is_running_while_its_process_lives_and_broken_off_after(store: LocalStore) -> None:
    owner = Owner(store)
    owner.begin("alive")
    owner.flush()
    assert states(store) == {"alive": Status.RUNNING}
    owner.die()
    assert states(store) == {"alive": Status.BROKEN_OFF}


def test_a_broken_off_run_with_a_begun_irrevocable_effect_is_in_doubt(store: LocalStore) -> None:
    owner = Owner(store)
    run = owner.begin("begun")
    run.intend("charge#0")
    ended = owner.begin("charged")
    ended.intend("charge#0")
    ended.result("charge#0", choice=3)
    owner.die()
    assert states(store) == {"begun": Status.IN_DOUBT, "charged": Status.BROKEN_OFF}
    assert [call.in_doubt for call in describe("begun", store).calls] == [True]
    assert [call.in_doubt for call in describe("charged", store).calls] == [False]


def test_what_was_read_once_is_not_read_again(store: LocalStore, owner: Owner) -> None:
    owner.begin("one").end()
    owner.flush()
    with Catalogue(store) as catalogue:
        assert catalogue.refresh() == 2
        assert catalogue.refresh() == 0
    owner.begin("two").end("failed")
    owner.flush()
    with Catalogue(store) as again:
        assert again.refresh() == 2
        assert {run.run_id: str(run.status) for run in again.runs()} == {"one": "done", "two": "failed"}


def test_records_of_a_run_that_began_before_the_last_read_find_their_run(store: LocalStore, owner: Owner) -> None:
    run = owner.begin("long")
    owner.flush()
    assert states(store) == {"long": Status.RUNNING}
    run.result("read#0")
    run.end()
    owner.flush()
    assert states(store) == {"long": Status.DONE}


def test_a_deleted_catalogue_is_built_again(store: LocalStore, owner: Owner) -> None:
    owner.begin("kept", labels={"team": "a"}).end()
    owner.flush()
    before = states(store)
    Path(store.root, "catalogue.sqlite").unlink()
    assert states(store) == before == {"kept": Status.DONE}


@pytest.mark.parametrize("junk", [b"", b"this is no database" * 100], ids=["empty", "junk"])
def test_a_damaged_catalogue_is_built_again_and_an_info_line_says_so(
    store: LocalStore, owner: Owner, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    owner.begin("kept").end()
    owner.flush()
    states(store)
    Path(store.root, "catalogue.sqlite").write_bytes(junk)
    with caplog.at_level("INFO", "exoflow.catalogue"):
        assert states(store) == {"kept": Status.DONE}
    assert bool(junk) == ("built again" in caplog.text)


def test_a_page_of_garbage_in_the_middle_is_noticed_and_mended(store: LocalStore) -> None:
    owner = Owner(store)
    for n in range(300):
        owner.begin(f"run-{n}").end()
    owner.die()
    states(store)
    path = Path(store.root, "catalogue.sqlite")
    data = bytearray(path.read_bytes())
    data[8192:-4096] = b"\xa5" * (len(data) - 8192 - 4096)
    path.write_bytes(data)
    late = Owner(store)
    late.begin("late").end()
    late.die()
    assert len(states(store)) == 301


def test_a_catalogue_of_another_format_is_built_again(store: LocalStore, owner: Owner) -> None:
    owner.begin("kept").end()
    owner.flush()
    states(store)
    with sqlite3.connect(Path(store.root, "catalogue.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 7")
        connection.execute("DELETE FROM runs")
    connection.close()
    assert states(store) == {"kept": Status.DONE}


def test_a_folder_that_cannot_be_written_gets_a_catalogue_in_memory(
    store: LocalStore, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.begin("kept").end()
    owner.flush()
    Path(store.root, "catalogue.sqlite").mkdir()
    with Catalogue(store) as catalogue:
        catalogue.refresh()
        assert catalogue.path is None
        assert [run.run_id for run in catalogue.runs()] == ["kept"]


def test_runs_never_write_the_catalogue(store: LocalStore, owner: Owner) -> None:
    owner.begin("one").end()
    owner.flush()
    assert not Path(store.root, "catalogue.sqlite").exists()


def test_a_store_in_memory_has_its_catalogue_in_memory() -> None:
    store = MemoryStore()
    owner = Owner(store)
    owner.begin("one").end()
    owner.begin("two")
    owner.flush()
    with Catalogue(store) as catalogue:
        catalogue.refresh()
        assert {run.run_id: str(run.status) for run in catalogue.runs()} == {"one": "done", "two": "running"}
    owner.journal.close()


def test_looking_at_a_store_that_is_not_there_makes_nothing(tmp_path: Path) -> None:
    with Catalogue(LocalStore(str(tmp_path / "none"))) as catalogue:
        catalogue.refresh()
        assert catalogue.runs() == []
    assert list(tmp_path.iterdir()) == []


REFRESH = """
import sys
from exoflow.catalogue import Catalogue
from exoflow.storage import LocalStore
for _ in range(5):
    with Catalogue(LocalStore(sys.argv[1])) as catalogue:
        catalogue.refresh()
"""


def test_processes_that_refresh_at_once_neither_lose_nor_double_anything(store: LocalStore, owner: Owner) -> None:
    readers = [subprocess.Popen([sys.executable, "-c", REFRESH, store.root]) for _ in range(3)]
    for n in range(200):
        run = owner.begin(f"run-{n}")
        run.result("read#0")
        run.end()
        owner.flush()
    assert [reader.wait() for reader in readers] == [0, 0, 0]
    with Catalogue(store) as catalogue:
        catalogue.refresh()
        assert {(run.run_id, run.calls) for run in catalogue.runs()} == {(f"run-{n}", 1) for n in range(200)}


def test_the_newest_epoch_says_how_a_run_ended(store: LocalStore) -> None:
    first = Owner(store)
    run = first.begin("mended")
    run.result("read#0")
    run.end("failed")
    first.die()
    assert states(store) == {"mended": Status.FAILED}
    second = Owner(store)
    mended = second.adopt("mended")
    second.flush()
    assert states(store) == {"mended": Status.RUNNING}
    mended.end("done")
    second.die()
    assert states(store) == {"mended": Status.DONE}
    Path(store.root, "catalogue.sqlite").unlink()
    assert states(store) == {"mended": Status.DONE}


def test_after_gc_the_catalogue_tells_the_same_of_the_runs_that_stay(store: LocalStore) -> None:
    first = Owner(store)
    run = first.begin("mended")
    run.result("read#0", payload=["@", "values/x/1", 5_000_000])
    run.result("join#0", Kind.MADE, None, inputs=["read#0"])
    run.end("failed")
    first.begin("old", at_s=DAY_S - 1e6).end(at_s=DAY_S - 1e6 + 5)
    first.die()
    second = Owner(store)
    again = second.adopt("mended")
    again.result("join#0", inputs=["read#0"], why="not saved")
    again.end()
    second.die()
    before = describe("mended", store)
    assert collect(store, lambda ended: ended.run_id != "old").dropped == ("old",)
    assert states(store) == {"mended": Status.DONE}
    after = describe("mended", store)
    assert after.calls == before.calls
    assert (after.run.status, after.run.epoch) == (before.run.status, before.run.epoch)


def test_a_description_says_what_was_saved_how_and_what_ran_again(store: LocalStore) -> None:
    first = Owner(store)
    run = first.begin("story")
    run.result("read#0", payload=["@", "values/x/1", 5_000_000], choice=0)
    run.result("flaky#0", number=3, why="retry")
    run.result("join#0", Kind.MADE, None, inputs=["read#0", "flaky#0"], choice=0)
    run.intend("reserve#0", "rollback")
    run.result("reserve#0", inputs=["join#0"])
    run.undo("reserve#0")
    first.die()
    second = Owner(store)
    again = second.adopt("story")
    again.result("join#0", inputs=["read#0", "flaky#0"], why="not saved", choice=0)
    again.result("week#0/score#0", inputs=["join#0"])
    again.result("week#0", choice=4)
    second.flush()
    found = describe("story", store)
    calls = {call.id: call for call in found.calls}
    assert found.run.epoch == 2 and found.processes
    assert calls["read#0"].last is not None and calls["read#0"].last.saved == "object"
    assert calls["read#0"].last.size == 5_000_000
    assert [calls[id].loaded for id in ("read#0", "flaky#0", "join#0", "reserve#0")] == [True, True, False, False]
    assert [calls[id].runs for id in ("read#0", "flaky#0", "join#0")] == [1, 3, 2]
    assert calls["join#0"].again == ((2, "not saved"),)
    assert calls["join#0"].inputs == ("read#0", "flaky#0")
    assert (calls["reserve#0"].effect, calls["reserve#0"].intents, calls["reserve#0"].undos) == ("rollback", 1, 1)
    assert calls["reserve#0"].last is not None and calls["reserve#0"].last.undone
    assert (calls["week#0/score#0"].path, calls["week#0"].child_flow) == ("week#0/", True)
    second.die()


def test_a_result_that_is_saved_later_is_one_attempt(store: LocalStore, owner: Owner) -> None:
    run = owner.begin("late")
    made = run.result("read#0", Kind.MADE, None)
    run.save_made("read#0", made, ["@", "values/x/1", 70_000])
    owner.flush()
    [call] = describe("late", store).calls
    assert [(attempt.saved, attempt.size) for attempt in call.attempts] == [("object", 70_000)]


def test_records_of_older_versions_say_nothing_of_who_ran_a_call_and_those_of_today_do(
    store: LocalStore, owner: Owner
) -> None:
    run = owner.begin("places")
    run.result("first#0")
    ends: dict[str, tuple[object, ...]] = {
        "old#0": (),
        "older#0": (0,),
        "new#0": (0, ["dask", "7@node"], "Model#0"),
        "local#0": (0, None, "Model#0"),
        "odd#0": (0, ["dask", 7], 7),
    }
    for number, (call, end) in enumerate(ends.items(), start=2):
        made = version(1, number)
        owner.add((
            Kind.SAVED, run.index, call, made, b"", None, None, None, 0, None, None, b"code", DAY_S, 0.5, 1, None, 1,
            *end,
        ))  # fmt: skip
    owner.flush()
    calls = {call.id: call for call in describe("places", store).calls}
    where = {id: call.last and (call.last.executor, call.last.worker, call.actor) for id, call in calls.items()}
    assert where == {
        "first#0": (None, None, None),
        "old#0": (None, None, None),
        "older#0": (None, None, None),
        "new#0": ("dask", "7@node", "Model#0"),
        "local#0": (None, None, "Model#0"),
        "odd#0": (None, None, None),
    }


def test_the_newest_run_comes_first_and_conditions_are_joined_by_and(store: LocalStore, owner: Owner) -> None:
    owner.begin("a", at_s=DAY_S + 1, labels={"team": "x", "size": "s"}).end()
    owner.begin("b", at_s=DAY_S + 3, labels={"team": "x", "size": "l"}).end("failed")
    owner.begin("c", at_s=DAY_S + 2, flow="weekly", labels={"team": "y"})
    owner.flush()
    with Catalogue(store) as catalogue:
        catalogue.refresh()

        def ids(**conditions: object) -> list[str]:
            return [run.run_id for run in catalogue.runs(**conditions)]  # type: ignore[arg-type]  # tested as used

        assert ids() == ["b", "c", "a"]
        assert ids(limit=2) == ["b", "c"]
        assert ids(flow="daily") == ["b", "a"]
        assert ids(labels={"team": "x"}) == ["b", "a"]
        assert ids(labels={"team": "x", "size": "s"}) == ["a"]
        assert ids(status=Status.FAILED) == ["b"]
        assert ids(status=Status.RUNNING) == ["c"]
        assert ids(status=Status.BROKEN_OFF) == []
        assert ids(status=Status.DONE, flow="weekly") == []
        assert catalogue.count() == 3


def test_an_unknown_run_is_answered_with_the_nearest(store: LocalStore, owner: Owner) -> None:
    owner.begin("nightly-2026-03-01").end()
    owner.flush()
    for near in ("nightly", "nigthly-2026-03-01", "nightly-2026-03-02"):
        with pytest.raises(RunNotFound, match="did you mean 'nightly-2026-03-01'"):
            describe(near, store)
    with pytest.raises(RunNotFound) as caught:
        describe("zzz", store)
    assert "did you mean" not in str(caught.value)


def test_the_tables_may_be_read_with_sqlites_own_tools(store: LocalStore, owner: Owner) -> None:
    run = owner.begin("one", labels={"team": "x"})
    run.result("read#0")
    run.result("read#0", why="remade")
    owner.flush()
    states(store)
    with sqlite3.connect(Path(store.root, "catalogue.sqlite")) as connection:
        assert connection.execute("SELECT run_id, call, attempts, why FROM calls").fetchall() == [
            ("one", "read#0", 2, "remade")
        ]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
