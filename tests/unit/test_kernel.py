"""Transcripts of the kernel: events in, commands out, nothing more. Each was a fault that random histories showed."""

import pytest

from exoflow.kernel.call import Call, Scope, Turn
from exoflow.kernel.commands import Command, Intend
from exoflow.kernel.kernel import Kernel
from exoflow.model import Annotations, CallId, Kind, version

NEVER = Annotations(checkpoint="never")
FLOW = Annotations(kind=Kind.FLOW)
A, B, C, CHILD, INNER = (CallId(id) for id in ("a#0", "b#0", "c#0", "child#0", "child#0/inner#0"))


def orders(commands: list[Command]) -> list[tuple[str, str]]:
    """What the commands are about, without their versions."""
    return [(type(command).__name__, getattr(command, "call", getattr(command, "scope", ""))) for command in commands]


def made(kernel: Kernel, call: Call, *refs: Call) -> list[Command]:
    """The attempt that runs returns a small value."""
    assert kernel.computed(call.id, call.attempt, size=10, inline=True, refs=refs)
    return kernel.take()


def recovered(*results: tuple[CallId, bool]) -> tuple[Kernel, Scope]:
    """The second epoch of a run: these were made in the first, in this order, and saved or not.

    A child flow's value refers to the call before it.
    """
    kernel = Kernel(2)
    for number, (id, saved) in enumerate(results, 1):
        inner = tuple(id for id, _ in results[: number - 1]) if id == CHILD else ()
        kernel.recall_result(
            id, f"{id.rpartition('/')[0]}/".lstrip("/"), version(1, number), saved=saved, failed=False,
            choice=id != CHILD, effect=False, names=inner, refs=inner[-1:], reads_at=0,
        )  # fmt: skip
    kernel.recalled()
    return kernel, kernel.opened("", None)


def test_a_child_flow_is_no_longer_expected_when_its_argument_has_fallen_since_it_was_ordered() -> None:
    kernel, root = recovered((A, False), (B, True))
    a = kernel.called(root, A, NEVER)
    b = kernel.called(root, B, Annotations(), (a,))
    child = kernel.called(root, CHILD, FLOW, (b,))
    kernel.wants(child)
    kernel.wants(a)
    commands = kernel.take()
    assert orders(commands) == [("Run", CHILD), ("Run", A)]
    assert not kernel.expects(child, commands[0].version), "b was made from the a that is made again"  # type: ignore[union-attr]
    made(kernel, a)
    assert [order for order in orders(made(kernel, b)) if order[0] == "Run"] == [("Run", CHILD)]
    assert kernel.expects(child, child.attempt)


def test_who_waits_for_what_a_value_refers_to_looks_again_when_the_value_has_fallen() -> None:
    kernel, root = recovered((A, False), (INNER, False), (CHILD, True))
    a = kernel.called(root, A, NEVER)
    child = kernel.called(root, CHILD, FLOW, (a,))
    c = kernel.called(root, C, NEVER, (child,))
    kernel.wants(c)
    assert orders(kernel.take()) == [("Run", A)], "the child is replayed to make the inner value, with a as it was"
    assert child.state.name == "NEEDED", "but a is a choice, and the child stood on it"
    assert kernel.failed(A, a.attempt)
    kernel.take()
    assert child.failed, "its argument's error is its own"
    assert c.failed, "and so is c's: it does not wait for an inner value that nobody makes again"


def test_a_lost_attempt_of_a_body_that_was_set_aside_runs_again_when_the_new_body_makes_the_call() -> None:
    kernel = Kernel(1)
    root = kernel.opened("", None)
    a = kernel.called(root, A, NEVER)
    b = kernel.called(root, B, NEVER)
    kernel.wants(a)
    assert orders(kernel.take()) == [("Run", A), ("Run", B)]
    made(kernel, a)
    kernel.read(root, a)
    kernel.lost(A)
    kernel.called(root, C, NEVER, (a,))
    assert ("Replay", "") in orders(kernel.take()), "c takes a, which is lost, and the body has read it"
    assert kernel.vanished(B, b.attempt), "b does not stand on a: its attempt was left to go on"
    assert kernel.take() == []
    kernel.called(root, A, NEVER)
    kernel.called(root, B, NEVER)
    kernel.waits(root)
    assert orders(kernel.take()) == [("Run", A), ("Run", B)]


def test_an_attempt_that_goes_on_is_stopped_when_the_new_body_shows_that_it_stands_on_an_older_choice() -> None:
    kernel = Kernel(1)
    root = kernel.opened("", None)
    a = kernel.called(root, A, NEVER)
    c = kernel.called(root, C, NEVER)
    kernel.wants(a)
    kernel.take()
    made(kernel, a)
    made(kernel, c)
    kernel.read(root, a)
    kernel.called(root, B, NEVER)
    kernel.wants(c)
    kernel.take()
    kernel.read(root, c)
    kernel.lost(A)
    kernel.lost(C)
    kernel.called(root, CallId("d#0"), NEVER, (c,))
    assert orders(kernel.take()) == [("Replay", "")], "b was called behind a, before c was read: its attempt goes on"
    a = kernel.called(root, A, NEVER)
    kernel.wants(a)
    assert orders(kernel.take()) == [("Run", A)]
    made(kernel, a)
    kernel.read(root, a)
    kernel.called(root, B, NEVER)
    assert orders(kernel.take()) == [("Stop", B), ("Run", B)], "b is called behind the new a now"


def test_a_doubt_that_is_resolved_while_its_body_is_set_aside_is_left_to_the_new_body() -> None:
    charge = Annotations(effect="irrevocable", on_doubt="probe")
    kernel = Kernel(2)
    kernel.recall_result(
        A, "", version(1, 1), saved=False, failed=False, choice=True, effect=False, names=(), refs=(), reads_at=0
    )
    kernel.recall_intent(B, "", version(1, 2), names=(), releases=(), rollback=False, reads_at=0)
    kernel.recalled()
    root = kernel.opened("", None)
    b = kernel.called(root, B, charge)
    kernel.wants(b)
    assert orders(kernel.take()) == [("Probe", B)]
    kernel._set_aside(root)
    kernel.take()
    kernel.resolved(B, happened=False)
    assert orders(kernel.take()) == [("RecordUndone", B)], "no body has asked for it"
    kernel.called(root, B, charge)
    kernel.wants(b)
    assert orders(kernel.take()) == [("Intend", B)]
    assert root.active == 1


@pytest.mark.parametrize("end", ["failed", "vanished"])
def test_a_probe_that_says_no_gives_no_more_tries_than_the_task_has(end: str) -> None:
    kernel = Kernel(1)
    root = kernel.opened("", None)
    b = kernel.called(root, B, Annotations(effect="irrevocable", on_doubt="probe", retries=1, losses=1))
    kernel.wants(b)
    for _ in range(2):
        kernel.take()
        kernel.durable(kernel.seq)  # the intent
        assert orders(kernel.take()) == [("Run", B)]
        getattr(kernel, end)(B, b.attempt)
        assert orders(kernel.take()) == [("Probe", B)]
        assert not b.failed
        kernel.resolved(B, happened=False)
    assert b.failed, "its error is told, rather than the body tried for ever"


def test_a_run_does_not_end_while_a_child_flow_is_replayed_to_find_a_value() -> None:
    kernel, root = recovered((INNER, False), (CHILD, True))
    child = kernel.called(root, CHILD, FLOW)
    kernel.returned(root, (child,))
    assert orders(kernel.take()) == [("Deliver", CHILD), ("Run", CHILD)]
    body = kernel.opened(f"{CHILD}/", CHILD)
    inner = kernel.called(body, INNER, NEVER)
    kernel.take()
    made(kernel, inner)
    assert not root.ended, "what the child calls after that is part of the run, and not to be undone as nobody's"
    kernel.returned(body, (inner,))
    assert ("EndScope", f"{CHILD}/") in orders(kernel.take())


def test_nothing_falls_while_an_event_is_noted() -> None:
    kernel, root = recovered((A, False), (B, True))
    a = kernel.called(root, A, NEVER)
    b = kernel.called(root, B, Annotations(), (a,))
    kernel.wants(b)
    assert orders(kernel.take()) == [("Deliver", B)]
    kernel.read(root, b)
    c = kernel.called(root, C, NEVER, (a,))
    kernel.wants(c)
    assert c.attached
    assert a.state.name == "NEEDED" or kernel._ready
    assert orders(kernel.take())[0] == ("Replay", "")
    assert not c.attached


RESERVE = Annotations(rollback=True, checkpoint="never")


def reserving(*ids: CallId, undo_on_failure: bool = False) -> tuple[Kernel, Scope]:
    """A run whose body has made these reservations, durably intended and done, and has read each."""
    kernel = Kernel(1, undo_on_failure=undo_on_failure)
    root = kernel.opened("", None)
    for id in ids:
        call = kernel.called(root, id, RESERVE)
        kernel.wants(call)
        assert orders(kernel.take()) == [("Intend", id)]
        kernel.durable(kernel.seq)
        assert orders(kernel.take()) == [("Run", id)]
        made(kernel, call)
        kernel.read(root, call)
    return kernel, root


def test_nothing_is_undone_for_a_failed_run_before_it_is_durable_that_it_has_failed() -> None:
    kernel, root = reserving(A, B, undo_on_failure=True)
    kernel.returned(root, raised=True)
    assert orders(kernel.take()) == [("EndScope", "")]
    kernel.settled(failed=True)
    assert orders(kernel.take()) == [("RecordFailing", "")]
    kernel.durable(kernel.seq)
    assert orders(kernel.take()) == [("Undo", B)]
    kernel.undone(B, kernel.calls[B].intent)
    assert orders(kernel.take()) == [("RecordUndone", B), ("Undo", A)]
    kernel.undone(A, kernel.calls[A].intent)
    kernel.take()
    kernel.durable(kernel.seq)
    assert orders(kernel.take()) == [("Finish", "")]


def test_a_failed_run_that_has_nothing_to_undo_just_ends() -> None:
    kernel, root = reserving(undo_on_failure=True)
    kernel.returned(root, raised=True)
    kernel.take()
    kernel.settled(failed=True)
    assert orders(kernel.take()) == [("Finish", "")]


def test_a_run_that_was_rolled_back_when_it_died_goes_on_with_that_and_runs_no_body() -> None:
    kernel = Kernel(2)
    for number, id in enumerate((A, B, C), 1):
        kernel.recall_intent(id, "", version(1, number), names=(), releases=(), rollback=True, reads_at=0)
    kernel.recall_undone(C, version(1, 3))
    kernel.recalled()
    kernel.goes_on_failing()
    assert orders(kernel.take()) == [("Undo", B)]
    kernel.undone(B, version(1, 2))
    assert orders(kernel.take()) == [("RecordUndone", B), ("Undo", A)]
    kernel.undone(A, version(1, 1))
    kernel.take()
    kernel.durable(kernel.seq)
    assert orders(kernel.take()) == [("Finish", "")]


def test_an_undo_that_fails_for_good_holds_up_the_older_ones_and_the_run_ends_when_what_runs_has_ended() -> None:
    kernel, root = reserving(A, B)
    c = kernel.called(root, C, NEVER)
    kernel.wants(c)
    kernel.take()
    kernel._void(kernel.calls[A])
    kernel._void(kernel.calls[B])
    assert orders(kernel.take()) == [("Undo", B)]
    kernel.undo_failed(B, kernel.calls[B].intent)
    assert orders(kernel.take()) == [("RecordUndoFailed", B)], "c still runs"
    assert orders(made(kernel, c)) == [("Make", C), ("Deliver", C), ("Finish", "")]


def test_an_effect_releases_what_is_committed_inside_a_child_flow_that_is_not_replayed() -> None:
    """Seed 2002343: it was undone below an irrevocable effect."""
    inner, deep = CallId("child#0/grandchild#0/inner#0"), CallId("child#0/grandchild#0")
    kernel = Kernel(2)
    for number, id in enumerate((inner, deep, CHILD), 1):
        path = id.rpartition("/")[0]
        if id == inner:
            kernel.recall_intent(id, f"{path}/", version(1, 1), names=(), releases=(), rollback=True, reads_at=0)
        kernel.recall_result(
            id, f"{path}/" if path else "", version(1, number), saved=True, failed=False, choice=id == inner,
            effect=False, names=(), refs=(), reads_at=0,
        )  # fmt: skip
    kernel.recalled()
    root = kernel.opened("", None)
    child = kernel.called(root, CHILD, FLOW)
    pay = kernel.called(root, A, Annotations(effect="irrevocable"), (child,))
    kernel.wants(pay)
    intends = [command for command in kernel.take() if isinstance(command, Intend)]
    assert [(command.call, command.releases) for command in intends] == [(A, (inner,))]
    kernel.cancel()
    assert orders(kernel.take()) == [("Finish", "")], "an effect may stand on it: it is not undone"


def test_an_effect_waits_for_what_made_a_call_of_its_actor_stand_aside() -> None:
    method = Annotations(actor=True)
    kernel = Kernel(1)
    root = kernel.opened("", None)
    a = kernel.called(root, A, NEVER)
    b = kernel.called(root, B, Annotations(), (a,))
    origin = kernel.called(root, CallId("m#0"), method, turn=Turn(None, True))
    aside = kernel.called(root, CallId("m#1"), method, (b,), turn=Turn(origin, True))
    last = kernel.called(root, CallId("m#2"), method, turn=Turn(aside, True))
    charge = kernel.called(root, C, Annotations(effect="irrevocable"), (last,))
    assert orders(kernel.take()) == [("Run", A), ("Run", origin.id)]
    kernel.computed(origin.id, origin.attempt, size=10, inline=True, state=True, snapshot=True)
    made(kernel, a)
    kernel.failed(B, b.attempt)
    assert ("Run", last.id) in orders(kernel.take()), "it takes the state that the first call has left"
    assert aside.skipped
    kernel.computed(last.id, last.attempt, size=10, inline=True, state=True, snapshot=True)
    kernel.durable(kernel.seq)
    assert ("Upload", A) in orders(kernel.take()), "with another a, b would not fail, and the call not stand aside"
    kernel.uploaded(A, a.version)
    kernel.take()
    kernel.durable(kernel.seq)
    assert orders(kernel.take()) == [("Intend", charge.id)]
