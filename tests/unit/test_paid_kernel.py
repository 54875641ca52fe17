"""Transcripts of paid calls (ADR 0024): events in, commands out."""

from exoflow.kernel.call import Call, Scope
from exoflow.kernel.commands import Command, Intend, Run
from exoflow.kernel.kernel import Kernel
from exoflow.model import NO_VERSION, Annotations, CallId, version

NEVER = Annotations(checkpoint="never")
ASYNC = Annotations(checkpoint="async")
PAID = Annotations(checkpoint="sync", paid=True)
RESERVE = Annotations(deterministic=True, checkpoint="async", rollback=True)
A, B = CallId("a#0"), CallId("ask#0")


def orders(commands: list[Command]) -> list[str]:
    return [type(command).__name__ for command in commands]


def begun(epoch: int = 1) -> tuple[Kernel, Scope]:
    kernel = Kernel(epoch)
    kernel.recalled()
    return kernel, kernel.opened("", None)


def all_durable(kernel: Kernel) -> list[Command]:
    kernel.durable(kernel.seq)
    return kernel.take()


def returned(kernel: Kernel, call: Call) -> list[Command]:
    assert kernel.computed(call.id, call.attempt, size=10, inline=True)
    return kernel.take()


def sent(kernel: Kernel, call: Call) -> list[Command]:
    """Its body is about to send; what it is told when the intent is durable."""
    assert kernel.dispatching(call.id, call.attempt)
    return [*kernel.take(), *all_durable(kernel)]


def recalled_result(kernel: Kernel, number: int, *, saved: bool = True, failed: bool = False) -> None:
    kernel.recall_result(
        B, "", version(1, number), saved=saved, failed=failed, choice=True, effect=False, names=(), refs=(), reads_at=0
    )


def recalled_intent(kernel: Kernel, number: int) -> None:
    kernel.recall_intent(B, "", version(1, number), names=(), releases=(), rollback=False, reads_at=0, paid=True)


def asked_again(kernel: Kernel) -> Call:
    """The second life's body makes the call, and waits for it."""
    kernel.recalled()
    root = kernel.opened("", None)
    call = kernel.called(root, B, PAID)
    kernel.wants(call)
    return call


def test_it_sends_behind_its_durable_intent_and_is_seen_when_its_record_is_durable() -> None:
    kernel, root = begun()
    call = kernel.called(root, B, PAID)
    kernel.wants(call)
    assert orders(kernel.take()) == ["Run"], "it may have to wait for its turn: nothing is intended yet"
    assert not call.begun_before
    assert kernel.dispatching(B, call.attempt)
    assert orders(kernel.take()) == ["Intend"]
    assert kernel.take() == [], "an intent that is not durable is none"
    assert orders(all_durable(kernel)) == ["Dispatch"]
    assert kernel.dispatching(B, call.attempt)
    assert orders(kernel.take()) == ["Dispatch"], "one is enough for all that the body sends"
    assert orders(returned(kernel, call)) == ["Save"]
    assert orders(all_durable(kernel)) == ["Deliver"]
    assert call.intent == NO_VERSION, "it is known what became of it"


def test_one_that_never_asks_has_sent_nothing() -> None:
    kernel, root = begun()
    call = kernel.called(root, B, PAID)
    kernel.take()
    assert kernel.vanished(B, call.attempt)
    assert orders(kernel.take()) == ["Run"]
    assert not call.begun_before
    assert orders(returned(kernel, call)) == ["Save"]


def test_an_attempt_that_counts_no_more_may_not_send() -> None:
    kernel, root = begun()
    call = kernel.called(root, B, PAID)
    kernel.take()
    dead = call.attempt
    kernel.vanished(B, dead)
    kernel.take()
    assert not kernel.dispatching(B, dead)
    assert kernel.take() == []


def test_an_intent_of_an_attempt_whose_body_was_set_aside_is_kept_for_the_next() -> None:
    kernel, root = begun()
    call = kernel.called(root, B, PAID)
    kernel.take()
    kernel._set_aside(root)
    kernel.take()
    assert orders(sent(kernel, call)) == ["Intend", "Dispatch"]
    kernel.vanished(B, call.attempt)
    assert kernel.take() == []
    call = kernel.called(kernel.opened("", None), B, PAID)
    assert orders(kernel.take()) == ["Run"]
    assert call.begun_before


def test_it_waits_for_the_choices_behind_its_prompt_and_has_them_saved() -> None:
    kernel, root = begun()
    a = kernel.called(root, A, NEVER)
    kernel.called(root, B, PAID, (a,))
    assert orders(kernel.take()) == ["Run"]
    assert orders(returned(kernel, a)) == ["Make", "Upload"], "it is never saved, but for this"
    kernel.uploaded(A, a.version)
    assert orders(kernel.take()) == ["Save"]
    assert orders(all_durable(kernel)) == ["Run"]


def test_what_the_body_has_read_is_behind_its_prompt_too() -> None:
    kernel, root = begun()
    a = kernel.called(root, A, ASYNC)
    kernel.wants(a)
    kernel.take()
    returned(kernel, a)
    kernel.read(root, a)
    kernel.called(root, B, PAID)
    assert kernel.take() == [], "the body may have written the prompt from it"
    assert orders(all_durable(kernel)) == ["Run"]


def test_it_releases_nothing_that_can_be_undone() -> None:
    kernel, root = begun()
    a = kernel.called(root, A, RESERVE)
    call = kernel.called(root, B, PAID, (a,))
    assert orders(kernel.take()) == ["Intend"]
    assert orders(all_durable(kernel)) == ["Run"]
    returned(kernel, a)
    assert orders(all_durable(kernel)) == ["Run"]
    commands = sent(kernel, call)
    assert orders(commands) == ["Intend", "Dispatch"]
    assert isinstance(commands[0], Intend)
    assert commands[0].releases == () == commands[0].names
    assert not a.released
    kernel.cancel()
    assert orders(kernel.take()) == ["Stop"]
    kernel.vanished(B, call.attempt)
    assert "Undo" in orders(kernel.take()), "a paid call is no effect: what it stands on is undone as ever (G6)"


def test_a_record_is_handed_back_and_never_made_again() -> None:
    kernel = Kernel(2)
    recalled_intent(kernel, 1)
    recalled_result(kernel, 2)
    call = asked_again(kernel)
    assert orders(kernel.take()) == ["Deliver"]
    assert call.intent == NO_VERSION


def test_an_intent_alone_is_run_again_and_its_body_can_know() -> None:
    kernel = Kernel(2)
    recalled_intent(kernel, 1)
    call = asked_again(kernel)
    assert orders(kernel.take()) == ["Run"]
    assert call.begun_before
    assert orders(sent(kernel, call)) == ["Dispatch"], "its intent is durable already"


def test_a_call_that_was_not_dispatched_has_nothing_to_know() -> None:
    kernel = Kernel(2)
    call = asked_again(kernel)
    assert orders(kernel.take()) == ["Run"]
    assert not call.begun_before


def test_a_lost_attempt_is_made_again_under_its_intent_and_knows() -> None:
    kernel, root = begun()
    call = kernel.called(root, B, PAID)
    kernel.take()
    sent(kernel, call)
    first = call.attempt
    assert kernel.vanished(B, first)
    commands = kernel.take()
    assert orders(commands) == ["Run"]
    assert isinstance(commands[0], Run)
    assert commands[0].version > first
    assert call.begun_before


def test_an_error_that_stands_settles_its_intent_and_a_resume_begins_anew() -> None:
    kernel = Kernel(2)
    kernel.forgiving = True
    recalled_intent(kernel, 1)
    recalled_result(kernel, 2, failed=True)
    call = asked_again(kernel)
    assert orders(kernel.take()) == ["Run"], "it is forgiven (V14)"
    assert not call.begun_before, "it was known what had become of it"
    assert orders(sent(kernel, call)) == ["Intend", "Dispatch"]


def test_a_result_that_was_lost_before_its_record_was_whole_may_be_charged_for_twice() -> None:
    kernel = Kernel(2)
    recalled_intent(kernel, 1)
    recalled_result(kernel, 2, saved=False)
    call = asked_again(kernel)
    assert orders(kernel.take()) == ["Run"]
    assert call.begun_before


def test_one_whose_prompt_falls_with_a_damaged_choice_needs_another_intent() -> None:
    kernel, root = begun()
    a = kernel.called(root, A, ASYNC)
    call = kernel.called(root, B, PAID, (a,))
    kernel.take()
    returned(kernel, a)
    assert orders(all_durable(kernel)) == ["Run"]
    sent(kernel, call)
    kernel._void(call)
    assert call.intent == NO_VERSION
    assert orders(kernel.take()) == ["Stop"]


def test_the_result_of_an_attempt_that_was_declared_dead_does_not_count() -> None:
    kernel, root = begun()
    call = kernel.called(root, B, PAID)
    kernel.take()
    sent(kernel, call)
    dead = call.attempt
    kernel.vanished(B, dead)
    kernel.take()
    returned(kernel, call)
    all_durable(kernel)
    assert not kernel.computed(B, dead, size=10, inline=True)
    assert kernel.take() == []


def test_an_attempt_that_was_lost_for_good_or_given_up_leaves_its_intent_in_place() -> None:
    kernel, root = begun()
    call = kernel.called(root, B, Annotations(checkpoint="sync", paid=True, losses=0))
    kernel.take()
    sent(kernel, call)
    intent = call.intent
    kernel.vanished(B, call.attempt)
    assert orders(kernel.take()) == ["Save"]
    assert call.failed
    assert call.intent == intent, "who runs it again, when the run is resumed, is to know"
    kernel = Kernel(2)
    kernel.forgiving = True
    recalled_intent(kernel, 1)
    kernel.recall_result(
        B, "", version(1, 2), saved=True, failed=True, choice=True, effect=False, names=(), refs=(), reads_at=0,
        unheard=True,
    )  # fmt: skip
    call = asked_again(kernel)
    assert orders(kernel.take()) == ["Run"]
    assert call.begun_before
