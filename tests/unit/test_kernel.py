"""Transcripts of the kernel: events in, commands out, nothing more. Each was a fault that random histories showed."""

import pytest

from exoflow.errors import Corrupt, NondeterministicFlow, RunError
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


def test_a_body_that_waits_without_a_recorded_call_though_it_has_read_nothing_new_is_refused() -> None:
    kernel, root = recovered((A, True))
    with pytest.raises(NondeterministicFlow, match="a#0"):
        kernel.waits(root)


def failed_before(*ids: CallId) -> tuple[Kernel, Scope]:
    """A run that had failed, and is resumed: these calls' errors are recorded."""
    kernel = Kernel(2)
    for number, id in enumerate(ids, 1):
        kernel.recall_result(
            id,
            "",
            version(1, number),
            saved=True,
            failed=True,
            choice=True,
            effect=False,
            names=(),
            refs=(),
            reads_at=0,
        )
    kernel.recalled()
    kernel.forgiving = True
    return kernel, kernel.opened("", None)


def test_an_error_that_nobody_has_read_is_forgotten_when_the_body_returns() -> None:
    kernel, root = failed_before(A)
    a = kernel.called(root, A, Annotations())
    kernel.returned(root)
    assert orders(kernel.take()) == [("Run", A)]
    assert not a.failed


def test_somebody_is_asked_about_an_effect_once_nothing_is_left_to_be_undone() -> None:
    kernel = Kernel(2)
    kernel.recall_intent(A, "", version(1, 1), names=(), releases=(), rollback=False, reads_at=0)
    kernel.recall_intent(B, "", version(1, 2), names=(), releases=(), rollback=True, reads_at=0)
    kernel.recalled()
    root = kernel.opened("", None)
    charge = kernel.called(root, A, Annotations(effect="irrevocable"))
    kernel.wants(charge)
    assert orders(kernel.take()) == [("Undo", B)]
    kernel.undone(B, version(1, 2))
    kernel.take()
    kernel.durable(kernel.seq)
    assert orders(kernel.take()) == [("Doubt", A)]


def test_what_an_effect_stands_on_is_neither_undone_nor_done_again_when_its_result_is_gone() -> None:
    kernel = Kernel(2)
    kernel.recall_intent(A, "", version(1, 1), names=(), releases=(), rollback=True, reads_at=0)
    kernel.recall_result(
        A, "", version(1, 1), saved=False, failed=False, choice=False, effect=False, names=(), refs=(), reads_at=0
    )
    kernel.recall_intent(B, "", version(1, 2), names=(), releases=(A,), rollback=False, reads_at=0)
    kernel.recalled()
    root = kernel.opened("", None)
    kernel.wants(kernel.called(root, A, Annotations(deterministic=True, rollback=True)))
    with pytest.raises(Corrupt, match="neither be undone nor done again"):
        kernel.take()


def test_a_strict_flow_refuses_an_effect_that_would_force_a_save() -> None:
    kernel = Kernel(1, strict=True)
    root = kernel.opened("", None)
    a = kernel.called(root, A, NEVER)
    kernel.wants(kernel.called(root, B, Annotations(effect="irrevocable"), (a,)))
    kernel.take()
    with pytest.raises(RunError, match="the flow is strict"):
        made(kernel, a)


def test_a_cancelled_effect_that_did_not_happen_leaves_no_intent() -> None:
    kernel = Kernel(2)
    kernel.recall_intent(A, "", version(1, 1), names=(), releases=(), rollback=False, reads_at=0)
    kernel.recalled()
    kernel.declined(kernel.calls[A])
    assert orders(kernel.take()) == [("RecordUndone", A)]


def test_an_attempt_that_is_retired_cannot_be_given_up() -> None:
    kernel = Kernel(1)
    root = kernel.opened("", None)
    a = kernel.called(root, A, NEVER)
    kernel.wants(a)
    kernel.take()
    old = a.attempt
    kernel.vanished(A, old)
    assert orders(kernel.take()) == [("Run", A)]
    kernel.given_up(A, old)
    assert a.state.name == "RUNNING", "the second attempt is somebody else's"


def test_after_a_damaged_record_an_effect_whose_completion_it_may_have_been_is_not_asked_about() -> None:
    kernel = Kernel(2)
    kernel.damaged = True
    kernel.recall_intent(A, "", version(1, 1), names=(), releases=(), rollback=False, reads_at=0)
    kernel.recalled()
    root = kernel.opened("", None)
    kernel.wants(kernel.called(root, A, Annotations(effect="irrevocable")))
    with pytest.raises(Corrupt, match="look at the service"):
        kernel.take()


def test_a_call_is_past_when_its_child_flow_or_its_body_stands_on_a_choice_that_was_made_again() -> None:
    kernel, root = recovered((A, False), (INNER, True), (B, True))
    inner, b = kernel.calls[INNER], kernel.calls[B]
    a = kernel.called(root, A, NEVER)
    child = kernel.called(root, CHILD, FLOW, (a,))
    kernel.wants(a)
    kernel.take()
    assert not kernel.is_past(a), "it was made"
    made(kernel, a)
    assert kernel.is_past(inner), "its child flow takes the new a"
    assert not kernel.is_past(b)
    kernel.read(root, a)
    assert kernel.is_past(b), "its body has read the new a"
    assert child.attached


def test_a_doubt_that_is_resolved_after_a_cancel_runs_nothing() -> None:
    kernel = Kernel(2)
    kernel.recall_intent(A, "", version(1, 1), names=(), releases=(), rollback=False, reads_at=0)
    kernel.recalled()
    root = kernel.opened("", None)
    kernel.wants(kernel.called(root, A, Annotations(effect="irrevocable", on_doubt="probe")))
    assert orders(kernel.take()) == [("Probe", A)]
    kernel.cancel()
    kernel.settled(failed=False)
    assert orders(kernel.take()) == [("Finish", "")]
    assert kernel.resolved(A, happened=True) == 0


def test_nothing_is_made_for_who_asks_after_a_cancel() -> None:
    kernel = Kernel(1)
    root = kernel.opened("", None)
    kernel.cancel()
    kernel.wants(kernel.called(root, A, NEVER))
    assert orders(kernel.take()) == [("Finish", "")]


def test_an_undo_that_is_told_twice_is_carried_out_once() -> None:
    kernel, _ = reserving(A)
    intent = kernel.calls[A].intent
    kernel._void(kernel.calls[A])
    assert orders(kernel.take()) == [("Undo", A)]
    kernel.undone(A, intent)
    assert orders(kernel.take()) == [("RecordUndone", A)]
    kernel.undone(A, intent)
    assert kernel.take() == []


def test_an_undo_of_a_call_whose_intent_was_damaged_is_passed_over() -> None:
    kernel = Kernel(2)
    kernel.recall_undone(A, version(1, 1))
    kernel.recalled()
    assert A not in kernel.calls


def test_a_choice_that_a_finished_effect_stands_on_is_not_made_again() -> None:
    kernel = Kernel(2)
    for number, (id, saved) in enumerate(((A, False), (B, True)), 1):
        kernel.recall_result(
            id, "", version(1, number), saved=saved, failed=False, choice=True, effect=id == B, names=(), refs=(),
            reads_at=0,
        )  # fmt: skip
    kernel.recalled()
    root = kernel.opened("", None)
    a = kernel.called(root, A, NEVER)
    kernel.called(root, B, Annotations(effect="irrevocable"), (a,))
    kernel.wants(a)
    with pytest.raises(Corrupt, match="cannot be undone"):
        kernel.take()


def test_a_snapshot_that_cannot_be_read_is_not_passed_over_where_its_call_had_an_effect() -> None:
    kernel = Kernel(1)
    root = kernel.opened("", None)
    origin = kernel.called(root, A, Annotations(actor=True), turn=Turn(None, True))
    pay = kernel.called(root, B, Annotations(actor=True, effect="idempotent"), turn=Turn(origin, True))
    for call in (origin, pay):
        kernel.take()
        kernel.durable(kernel.seq)
        kernel.take()
        kernel.computed(call.id, call.attempt, size=10, inline=True, state=True, snapshot=True)
    kernel.durable(kernel.seq)
    assert kernel.forsake_snapshot(pay) == "for it had an effect"
    assert pay.snapped


def test_a_snapshot_that_is_taken_of_a_state_that_was_lost_meanwhile_is_no_snapshot() -> None:
    kernel = Kernel(1)
    root = kernel.opened("", None)
    origin = kernel.called(root, A, Annotations(actor=True), turn=Turn(None, True))
    kernel.take()
    kernel.computed(A, origin.attempt, size=10, inline=True, state=True)
    assert ("Snapshot", A) in orders(kernel.take())
    kernel.state_lost(A)
    kernel.snapshot_taken(A, origin.version)
    assert kernel.take() == []
    assert not origin.has_state


def test_who_takes_the_state_alone_does_not_take_what_the_value_refers_to() -> None:
    kernel = Kernel(1)
    root = kernel.opened("", None)
    a = kernel.called(root, A, NEVER)
    origin = kernel.called(root, B, Annotations(actor=True), turn=Turn(None, False))
    method = kernel.called(root, C, Annotations(actor=True), turn=Turn(origin, False))
    kernel.take()
    kernel.computed(B, origin.attempt, size=10, inline=True, refs=(a,), state=True)
    assert not method.contents


@pytest.mark.parametrize("takes", ["value", "state"])
def test_an_error_is_forgotten_for_who_takes_what_failed(takes: str) -> None:
    kernel = Kernel(2)
    kernel.recall_result(
        A, "", version(1, 1), saved=True, failed=True, choice=True, effect=False, names=(), refs=(), reads_at=0,
        actor=takes == "state", dead=True,
    )  # fmt: skip
    kernel.recalled()
    kernel.forgiving = True
    root = kernel.opened("", None)
    if takes == "state":
        a = kernel.called(root, A, Annotations(actor=True), turn=Turn(None, False))
        b = kernel.called(root, B, Annotations(actor=True), turn=Turn(a, False))
    else:
        a = kernel.called(root, A, Annotations())
        b = kernel.called(root, B, Annotations(), (a,))
    kernel.wants(b)
    assert orders(kernel.take()) == [("Run", A)]


def test_a_flow_that_reads_a_newer_choice_than_its_record_knows_falls() -> None:
    kernel, root = recovered((INNER, False), (CHILD, True))
    child = kernel.called(root, CHILD, FLOW)
    kernel.returned(root, (child,))
    assert orders(kernel.take()) == [("Deliver", CHILD), ("Run", CHILD)]
    body = kernel.opened(f"{CHILD}/", CHILD)
    new = kernel.called(body, CallId("child#0/new#0"), Annotations())
    kernel.wants(new)
    kernel.take()
    made(kernel, new)
    assert child.state.name == "DONE"
    kernel.read(body, new)
    assert child.state.name != "DONE", "its value was made without"


def test_what_a_flow_returns_from_another_that_is_not_replayed_stands_by_its_own_record() -> None:
    kernel, root = recovered((INNER, True), (CHILD, True))
    kernel.called(root, CHILD, FLOW)
    other = kernel.called(root, CallId("other#0"), FLOW)
    kernel.wants(other)
    kernel.take()
    body = kernel.opened("other#0/", other.id)
    kernel.returned(body, (kernel.reference(INNER),))
    assert ("EndScope", "other#0/") in orders(kernel.take())
    assert not other.late


def test_what_a_flow_reads_of_its_parent_counts_once_what_it_was_called_with_is_committed() -> None:
    kernel = Kernel(1)
    root = kernel.opened("", None)
    a = kernel.called(root, A, NEVER)
    b = kernel.called(root, B, Annotations(checkpoint="sync"))
    child = kernel.called(root, CHILD, FLOW, (a,), (b,))
    kernel.take()
    made(kernel, a)
    made(kernel, b)
    kernel.durable(kernel.seq)
    assert b.closed
    body = kernel.opened(f"{CHILD}/", CHILD)
    kernel.read(body, b)
    pay = kernel.called(body, INNER, Annotations(effect="irrevocable"))
    kernel.wants(pay)
    assert ("Upload", A) in orders(kernel.take()), "its body was called with a"
    kernel.uploaded(A, a.version)
    kernel.take()
    kernel.durable(kernel.seq)
    assert orders(kernel.take()) == [("Intend", INNER)]
    assert child.state.name == "RUNNING"


def test_a_result_that_names_a_call_twice_waits_for_it_once() -> None:
    kernel = Kernel(1)
    root = kernel.opened("", None)
    a = kernel.called(root, A, NEVER)
    kernel.take()
    kernel.returned(root, (a, a))
    assert orders(made(kernel, a)) == [("Make", A), ("Deliver", A), ("EndScope", "")]


def test_what_is_inside_a_flow_that_is_not_replayed_is_not_undone_as_nobodys() -> None:
    inner, deep = CallId("child#0/grandchild#0/inner#0"), CallId("child#0/grandchild#0")
    kernel = Kernel(2)
    kernel.recall_intent(inner, f"{deep}/", version(1, 1), names=(), releases=(), rollback=True, reads_at=0)
    for number, id in enumerate((inner, deep, CHILD), 1):
        path = id.rpartition("/")[0]
        kernel.recall_result(
            id, f"{path}/" if path else "", version(1, number), saved=True, failed=False, choice=id == inner,
            effect=False, names=(), refs=(), reads_at=0,
        )  # fmt: skip
    kernel.recalled()
    root = kernel.opened("", None)
    kernel.called(root, CHILD, FLOW)
    kernel.returned(root)
    assert orders(kernel.take()) == [("EndScope", "")]
    kernel.settled(failed=False)
    assert orders(kernel.take()) == [("Finish", "")]


def test_a_call_that_a_strand_makes_when_its_body_has_returned_still_runs() -> None:
    kernel, root = recovered((A, True))
    kernel.returned(root)
    kernel.called(root, B, NEVER)
    kernel.called(root, A, Annotations())
    assert orders(kernel.take()) == [("Run", B)]


def test_a_child_flow_whose_argument_fails_now_is_not_replayed_for_what_its_old_record_names() -> None:
    """Seed 2003773: its body ran with an argument that had failed, and what it read made an effect's lineage newer."""
    kernel = Kernel(2)
    for number, (id, saved) in enumerate(((A, False), (INNER, False), (CHILD, True)), 1):
        kernel.recall_result(
            id, f"{id.rpartition('/')[0]}/".lstrip("/"), version(1, number), saved=saved, failed=False,
            choice=id != CHILD, effect=False, names=(A, INNER) if id == CHILD else (), refs=(), reads_at=0,
        )  # fmt: skip
    kernel.recalled()
    root = kernel.opened("", None)
    a = kernel.called(root, A, NEVER)
    child = kernel.called(root, CHILD, FLOW, (a,))
    kernel.wants(child)
    kernel.wants(a)
    kernel.take()
    kernel.failed(A, a.attempt)
    kernel.take()
    assert child.failed
    assert child.propagated
    kernel.read(root, child)
    kernel.wants(kernel.called(root, B, Annotations(effect="irrevocable")))
    assert not [order for order in orders(kernel.take()) if order[0] == "Run"]
    kernel.durable(kernel.seq)
    assert orders(kernel.take()) == [("Intend", B)]
