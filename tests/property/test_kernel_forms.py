"""The running kernel and its reference say the same after every event of random histories, with faults and crashes."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from exoflow.kernel.call import Call
from exoflow.kernel.kernel import Kernel
from exoflow.kernel.reference import agrees, closed, due, gate, needed, to_retire, to_undo, untaken
from exoflow.kernel.reference.facts import BodyFacts, CallFacts, Facts
from exoflow.model import Annotations, CallId, Kind, Version
from exoflow.testing.simulation import Violation, simulate
from exoflow.testing.simulation.checked import Checked, FormsDiffer, compare_forms
from exoflow.testing.simulation.world import World

A, B, T = CallId("a#0"), CallId("b#0"), CallId("t#0")
THOROUGH = settings.get_current_profile_name() == "thorough"
SEEN = range(30)
ONCE_DIFFERENT = {
    503: "V3: a choice that a child flow's record names has a record by now, and a newer one",
    328: "V7: an attempt starts from a state that falls as soon as a choice behind it may be made again",
    546: "V7: what a snapshot has committed stays so while a body is replayed that has not come to the snapshot yet",
    626: "G6: what one take orders is ordered one by one: an intent that follows holds up nothing before it",
}


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class WithoutActors(World):
    has_actors = False


# About one history in a thousand still shows a difference of order in child flows that are replayed, and of those with
# actors about one in a hundred, in when a state is asked for: the thorough profile looks for them, the others see the
# same examples each time.
@settings(max_examples=5_000 if THOROUGH else 60, derandomize=not THOROUGH, database=None)
@given(seed=st.integers(0, 2**32))
def test_both_forms_say_the_same_in_any_history(loop: asyncio.AbstractEventLoop, seed: int) -> None:
    compare_forms(seed, loop=loop, world=World if THOROUGH else WithoutActors)


def test_both_forms_say_the_same_in_the_first_histories(loop: asyncio.AbstractEventLoop) -> None:
    for seed in (*SEEN, *ONCE_DIFFERENT):
        compare_forms(seed, loop=loop)


class WaitsForNothing(Checked):
    def _may_act(self, call: Call) -> bool:
        still_open, call.open = call.open, 0
        may = super()._may_act(call)
        call.open = still_open
        return may


def test_a_kernel_that_breaks_a_rule_differs_from_the_reference(loop: asyncio.AbstractEventLoop) -> None:
    assert issubclass(WaitsForNothing, Kernel)
    differences: list[FormsDiffer] = []
    kernel = type("Broken", (WaitsForNothing,), {"differences": differences})
    for seed in SEEN:
        with contextlib.suppress(FormsDiffer, Violation):  # the simulator may see it first
            simulate(seed, kernel=kernel, loop=loop)
        if differences:
            return
    pytest.fail("no difference was seen")


def facts(*calls: CallFacts, reads: tuple[CallId, ...] = (), awaited: tuple[CallId, ...] = ()) -> Facts:
    """A root body that has made these calls."""
    return Facts({call.id: call for call in calls}, {"": BodyFacts("", reads=reads)}, frozenset(awaited))


def done(id: CallId, version: int, note: Annotations | None = None, **what: object) -> CallFacts:
    known = {"held": True, "has_result": True, "made": Version(version), "started": Version(version)} | what
    return CallFacts(id, note or Annotations(), attached=True, **known)  # type: ignore[arg-type]  # a test's shorthand


CHARGE = Annotations(effect="irrevocable")
RESERVE = Annotations(rollback=True)


def test_g3_an_effect_waits_for_a_choice_behind_a_committed_input() -> None:
    a = done(A, 1, Annotations(checkpoint="never"))
    b = done(B, 2, inputs=(A,), recorded=True, durable=True)
    charge = CallFacts(T, CHARGE, attached=True, inputs=(B,))
    known = facts(a, b, charge, awaited=(T,))
    assert str(gate(known, charge)).startswith("G3")
    assert ("Upload", A) in due(known), "G4: it is saved now all the same"


def test_g10_an_effect_waits_for_what_its_body_has_read() -> None:
    charge = CallFacts(T, CHARGE, attached=True, reads_at=1)
    assert str(gate(facts(done(A, 1), charge, reads=(A,)), charge)).startswith("G3")
    before = CallFacts(T, CHARGE, attached=True, reads_at=0)
    assert str(gate(facts(done(A, 1), before, reads=(A,)), before)).startswith("L4")


def test_v3_what_was_derived_from_a_choice_that_is_made_again_is_retired_near_and_far() -> None:
    again = done(A, 1, started=Version(4), running=True, has_result=False, held=False)
    near = done(B, 2, inputs=(A,), recorded=True, durable=True)
    far = done(T, 3, Annotations(deterministic=True), inputs=(B,))
    assert to_retire(facts(again, near, far)) == {B, T}


def test_v3_a_recorded_child_flow_falls_with_a_choice_that_its_record_names() -> None:
    inner = CallFacts(CallId("child#0/a#0"), has_result=True, recorded=True, durable=True)
    flow = Annotations(kind=Kind.FLOW)
    child = done(CallId("child#0"), 2, flow, recorded=True, durable=True, open_names=(inner.id,))
    assert agrees(facts(replace(inner, made=Version(1)), child), child), "it was saved after the child flow"
    assert not agrees(facts(replace(inner, made=Version(3)), child), child), "it was made again after that"


def test_v5_a_deterministic_call_that_is_made_again_takes_nothing_with_it() -> None:
    again = done(A, 1, Annotations(deterministic=True), started=Version(4), running=True, has_result=False, held=False)
    assert to_retire(facts(again, done(B, 2, inputs=(A,)))) == set()


def test_v4_the_newest_intent_is_undone_first() -> None:
    again = done(A, 1, started=Version(4), running=True, has_result=False, held=False)
    first = done(B, 2, RESERVE, inputs=(A,), intent=Version(2), intent_durable=True)
    second = done(T, 3, RESERVE, inputs=(A,), intent=Version(3), intent_durable=True)
    known = facts(again, first, second)
    assert to_undo(known) == [3, 2]
    assert ("Undo", T) in due(known)


def test_g6_what_an_effect_stands_on_is_never_undone() -> None:
    again = done(A, 1, started=Version(4), running=True, has_result=False, held=False)
    assert to_undo(facts(again, done(B, 2, RESERVE, inputs=(A,), intent=Version(2), released=True))) == []


def test_v4_what_broke_off_is_undone_with_all_that_broke_off_behind_it() -> None:
    known = {"recorded": False, "has_result": False, "held": False, "intent_durable": True, "intent_is_old": True}
    first = done(A, 0, RESERVE, intent=Version(1), **known)
    second = done(B, 0, RESERVE, inputs=(A,), intent=Version(2), **known)
    finished = done(T, 3, RESERVE, intent=Version(3), **known)
    assert to_undo(facts(first, second, finished)) == [2, 1]


def test_v1_what_served_a_committed_result_near_or_far_is_not_made_again() -> None:
    lost = {"has_result": False, "held": False}
    a, b = done(A, 1, **lost), done(B, 2, inputs=(A,), **lost)
    saved = done(T, 3, inputs=(B,), recorded=True, durable=True)
    assert untaken(facts(a, b, saved), "") == {T}
    assert untaken(facts(a, b), "") == {B, A}


def test_v13_nothing_is_made_for_a_call_of_which_somebody_has_to_be_asked_first() -> None:
    a = done(A, 1, Annotations(deterministic=True), has_result=False, held=False)
    charge = CallFacts(
        T, CHARGE, attached=True, inputs=(A,), intent=Version(2), intent_durable=True, intent_is_old=True
    )
    known = facts(a, charge, awaited=(T,))
    assert needed(known) == {T}
    assert due(known) == {("Probe", T)}


def test_v2_a_choice_that_was_lost_behind_a_waiting_effect_is_made_again() -> None:
    lost = done(A, 1, held=False)
    saved = done(B, 2, inputs=(A,), recorded=True, durable=True)
    charge = CallFacts(T, CHARGE, attached=True, inputs=(B,))
    known = facts(lost, saved, charge, awaited=(T,))
    assert needed(known) == {A, T}
    assert to_retire(known) == {B}


def test_a_result_is_pinned_when_every_choice_behind_it_is_committed() -> None:
    plain = Annotations(deterministic=True)
    assert not closed(facts(done(A, 1), done(B, 2, plain, inputs=(A,))), done(B, 2, plain, inputs=(A,)))
    saved = done(A, 1, recorded=True, durable=True)
    assert closed(facts(saved, done(B, 2, plain, inputs=(A,))), done(B, 2, plain, inputs=(A,)))
    assert not agrees(facts(done(A, 5)), done(B, 2, inputs=(A,)))


def test_v15_that_a_run_has_failed_is_durable_before_anything_is_undone_for_it() -> None:
    booked = done(B, 2, RESERVE, intent=Version(2), intent_durable=True, recorded=True, durable=True)
    failed = replace(facts(booked), outcome="failed", undo_on_failure=True)
    assert due(failed) == {("RecordFailing", B)}
    assert due(replace(failed, failing=True, failing_durable=False)) == set()
    assert due(replace(failed, failing=True)) == {("Undo", B)}
    assert due(replace(failed, failing=True, stuck=True)) == set()
    assert due(replace(facts(booked), failing=True)) == {("Undo", B)}, "an older epoch had failed"
