"""Time, damage, and several processes at one run."""

import threading
from pathlib import Path

import pytest

import exoflow
from exoflow.journal import Kind, frames
from exoflow.journal.records import decode

CHAIN = "A→B→C"


def test_81_a_sleep_goes_on_while_no_process_lives(stage):
    story = stage.play("A", "sync", "ALL dur(timer_at)", "A1", form="sleeps")
    (_, began), (_, again), (_, woke) = [line for line in story.lines if line[0] in ("began", "woke")]
    assert began + 0.4 <= woke < again + 0.4


@pytest.mark.parametrize("point", ["unsent", "sent"])
def test_79_an_event_is_sent_again_with_its_id_and_taken_once(stage, point):
    graph, notes = stage.parsed("P, A", "sync")
    name, pid = stage.start(graph, notes, "none", form="waits")
    stage.until("waits", "")
    stage.kill(pid)
    assert stage.wait((name, pid)).exit_code == -9
    stage.send("x", "1", dies=point)
    for data, id in (("x", "1"), ("y", "2"), ("x", "1")):
        assert stage.send(data, id).error is None
    for _ in range(2):
        life = stage.wait(stage.start(graph, notes, "none", form="waits"))
        assert life.result == "A(x,y)", life.stderr
    assert stage.counts() == "A1 P1"


def test_79_an_event_that_was_taken_is_not_taken_again(stage):
    graph, notes = stage.parsed("P, A", "sync")
    started = stage.start(graph, notes, "ALL mid(A)", form="waits")
    stage.until("waits", "")
    for data, id in (("x", "1"), ("x", "1"), ("y", "2"), ("x", "1")):
        assert stage.send(data, id).error is None
    assert stage.wait(started).exit_code == -9
    assert stage.send("x", "1").error is None
    life = stage.wait(stage.start(graph, notes, "none", form="waits"))
    assert life.result == "A(x,y)", life.stderr
    assert stage.counts() == "A2 P1"


def test_83_two_processes_resume_a_dead_run(stage, form):
    graph, notes = stage.parsed(CHAIN, "ND sync")
    assert stage.wait(stage.start(graph, notes, "ALL mid(B)", form=form)).exit_code == -9
    both = [stage.start(graph, notes, "none", form=form) for _ in range(2)]
    ended = [stage.wait(each) for each in both]
    assert {life.error for life in ended} <= {None, "RunIsLive"}
    assert {life.result for life in ended} - {None} == {"C:1(B:2(A:1()))"}
    assert stage.counts() == "A1 B2 C1"


def last_slot(stage) -> Path:
    return max(stage.store.glob("journals/*/*"), key=lambda path: path.stat().st_mtime_ns)


@pytest.mark.parametrize("cut", [1, 40])
def test_85_a_torn_end_is_absent(stage, form, cut):
    graph, notes = stage.parsed(CHAIN, "sync")
    stage.wait(stage.start(graph, notes, "ALL dur(A)", form=form))
    slot = last_slot(stage)
    slot.write_bytes(slot.read_bytes()[:-cut])
    life = stage.wait(stage.start(graph, notes, "none", form=form))
    assert life.result == "C(B(A()))", life.stderr
    assert stage.counts() == "A2 B1 C1"


def flip(stage, call: str) -> None:
    """Flip a bit in the middle of a call's record."""
    slot = last_slot(stage)
    data = bytearray(slot.read_bytes())
    for batch in frames.batches(memoryview(bytes(data))):
        for item in frames.found(batch):
            if item.kind == Kind.SAVED and decode(item.data)[2] == call:
                data[item.offset + len(item.data) // 2] ^= 0x10
                slot.write_bytes(data)
                return
    raise AssertionError(f"no record of {call}")


def test_85_a_flipped_bit_in_a_pure_result_is_absent(stage, form):
    graph, notes = stage.parsed(CHAIN, "sync")
    stage.wait(stage.start(graph, notes, "ALL mid(C) when saved(B)", form=form))
    flip(stage, "B#0")
    life = stage.wait(stage.start(graph, notes, "none", form=form))
    assert life.result == "C(B(A()))", life.stderr
    assert stage.counts() == "A1 B2 C2"


@pytest.mark.parametrize("effect", ["irr", "irr retry"])
def test_85_a_flipped_bit_in_an_irrevocable_completion_is_corrupt_however_often_it_is_resumed(stage, form, effect):
    graph, notes = stage.parsed(CHAIN, {"A": "ND sync", "B": effect, "C": "sync"})
    stage.wait(stage.start(graph, notes, "ALL mid(C) when saved(B)", form=form))
    flip(stage, "B#0")
    for _ in range(3):
        life = stage.wait(stage.start(graph, notes, "none", form=form))
        assert life.error == "Corrupt", life.stderr
        assert "B#0" in life.message
    assert stage.counts() == "A1 B1 C1"


def test_85_a_flipped_bit_in_a_choice_that_an_effect_stands_on_never_makes_another(stage, form):
    """Where nobody reads the choice it is not needed any more; else there is nothing that could be true."""
    graph, notes = stage.parsed(CHAIN, {"A": "ND sync", "B": "irr retry", "C": "sync"})
    stage.wait(stage.start(graph, notes, "ALL mid(C) when saved(B)", form=form))
    flip(stage, "A#0")
    lives = [stage.wait(stage.start(graph, notes, "none", form=form)) for _ in range(2)]
    if form == "last":
        assert {life.result for life in lives} == {"C(B(A:1()))"}
        assert stage.counts() == "A1 B1 C2"
    else:
        assert {life.error for life in lives} == {"Corrupt"}, lives[-1].stderr
        assert stage.counts() == "A1 B1 C1"


ECHO = ("A, B", "sync")


def begin(stage, life, argument="x", **options):
    graph, notes = stage.parsed(*ECHO)
    return stage.start(graph, notes, life, form="echoes", arguments=(argument,), begins=True, **options)


def test_86_run_again_goes_on_with_what_is_dead(stage):
    assert stage.wait(begin(stage, "ALL mid(B)")).exit_code == -9
    assert stage.wait(begin(stage, "none")).result == "B(A(x))"
    assert stage.counts() == "A1 B2"


def test_86_run_again_gives_the_stored_result(stage):
    for _ in range(3):
        assert stage.wait(begin(stage, "none")).result == "B(A(x))"
    assert stage.counts() == "A1 B1"


def test_86_run_again_gives_the_error_of_a_failed_run(stage):
    graph, notes = stage.parsed("A, B", {"A": "sync", "B": "sync raises"})
    for _ in range(2):
        life = stage.wait(stage.start(graph, notes, "none", form="echoes", arguments=("x",), begins=True))
        assert (life.error, life.message) == ("ValueError", "B fails for the 1. time")
    assert stage.counts() == "A1 B1"


@pytest.mark.parametrize("life", ["none", "ALL mid(B)"])
def test_86_run_again_with_other_inputs_is_refused(stage, life):
    stage.wait(begin(stage, life))
    again = stage.wait(begin(stage, "none", "y"))
    assert again.error == "RunMismatch"
    assert "'x'" in again.message
    assert "'y'" in again.message
    assert stage.counts() == "A1 B1"


def test_86_run_again_while_it_lives_elsewhere_is_refused(stage):
    name, pid = begin(stage, "ALL mid(B) when returned(nothing)")
    stage.until("enter", "B")
    again = stage.wait(begin(stage, "none"))
    assert again.error == "RunIsLive"
    assert str(pid) in again.message
    stage.kill(pid)
    assert stage.wait((name, pid)).exit_code == -9
    assert stage.wait(begin(stage, "none")).result == "B(A(x))"
    assert stage.counts() == "A1 B2"


def test_83_whoever_comes_while_the_other_is_at_work_is_told_so(stage, form):
    graph, notes = stage.parsed(CHAIN, "ND sync")
    stage.wait(stage.start(graph, notes, "ALL mid(B)", form=form))
    first = stage.start(graph, notes, "none", form=form, gates={"C": "open"})
    stage.until("enter", "C")
    second = stage.wait(stage.start(graph, notes, "none", form=form))
    stage.open_gate("C")
    assert second.error == "RunIsLive"
    assert stage.wait(first).result == "C:1(B:2(A:1()))"
    assert stage.wait(stage.start(graph, notes, "none", form=form)).result == "C:1(B:2(A:1()))"
    assert stage.counts() == "A1 B2 C1"


@pytest.mark.parametrize("checkpoint", ["sync", "never"])
def test_84_a_stopped_controller_that_wakes_behind_a_takeover_changes_nothing(stage, form, checkpoint):
    """What it had begun ends; nothing of it is recorded; its effect meets the mark of the undo at its key."""
    graph, notes = stage.parsed(CHAIN, {"A": "ND sync", "B": f"ND rb {checkpoint}", "C": "sync"})
    name, pid = stage.start(graph, notes, "none", form=form, gates={"B": "open"})
    stage.until("enter", "B")
    stage.stop(pid)
    life = stage.wait(stage.start(graph, notes, "none", form=form, takeover=True))
    assert life.result == "C(B:2(A:1()))", life.stderr
    stage.wake(pid)
    stage.open_gate("B")
    late = stage.wait((name, pid))
    assert late.error == "Fenced", late.stderr
    story = stage.story([life], notes)
    story.check()
    assert len(story.of("refused", "B")) == 1
    assert stage.wait(stage.start(graph, notes, "none", form=form)).result == life.result
    assert (story.counts["A"], story.counts["B"]) == (1, 2)


def test_84_what_ends_behind_the_takeover_ends_the_run_too(stage):
    """The journal knows already that it is not the owner: the thread that brings the next result must not die of it."""
    kinds = {"A": "ND sync"} | dict.fromkeys("BDE", "ND async")  # who enters B finds the run in the journal
    graph, notes = stage.parsed("A→B→E, A→D→E", kinds)
    name, pid = stage.start(graph, notes, "none", gates={"B": "fenced", "D": "open"})
    stage.until("enter", "B")
    stage.until("enter", "D")
    stage.stop(pid)
    assert stage.wait(stage.start(graph, notes, "none", takeover=True)).error is None
    stage.wake(pid)
    stage.open_gate("D")
    late = stage.wait((name, pid))
    assert late.error == "Fenced", late.stderr


def test_86_run_again_in_the_same_process_joins_it(tmp_path):
    go, entered = threading.Event(), []

    @exoflow.task
    def waits():
        entered.append(1)
        go.wait()
        return 5

    @exoflow.flow(name="joined")
    def joined():
        return waits.submit().result()

    runs = [joined.options(run_id="one", store=tmp_path).start() for _ in range(3)]
    go.set()
    assert [run.result() for run in runs] == [5, 5, 5]
    assert entered == [1]


def test_86_run_again_of_a_cancelled_run_gives_its_error(tmp_path):
    go, entered = threading.Event(), threading.Semaphore(0)

    @exoflow.task
    def waits():
        entered.release()
        go.wait()

    @exoflow.flow(name="cancelled")
    def cancelled():
        waits.submit().result()

    run = cancelled.options(run_id="one", store=tmp_path).start()
    entered.acquire()
    run.cancel()
    go.set()
    for again in (run.result, cancelled.options(run_id="one", store=tmp_path).run):
        with pytest.raises(exoflow.RunCancelled):
            again()
    assert not entered.acquire(blocking=False)
