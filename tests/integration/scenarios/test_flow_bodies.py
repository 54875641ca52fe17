"""What a body has read, branched on, caught or been handed by reference is the same in its next life."""

import pytest


@pytest.mark.parametrize("values", ["", "big"])
@pytest.mark.parametrize("form", ["pair", "pair in one Ref"])
def test_58_what_references_refer_to_is_loaded(stage, form, values):
    story = stage.play("A, B", f"sync {values}", "ALL mid(B)", "A1 B2", form=form)
    contents = [str(line[2]) for line in story.of("enter", "B")]
    assert contents[0] == contents[1]
    assert "xA()" in contents[0]
    assert "yA()" in contents[0]


@pytest.mark.parametrize("values", ["", "big"])
@pytest.mark.parametrize("form", ["passes", "passes and reads"])
def test_61_the_owner_of_a_reference_is_recovered_though_who_passed_it_on_is_committed(stage, form, values):
    notes = {"A": f"never {values}", "P": "sync", "B": "sync"}
    story = stage.play("A, P, B", notes, "ALL mid(B)", "A2 P1 B2", form=form)
    assert [line[2] for line in story.of("enter", "B")] == [["A()"], ["A()"]]


@pytest.mark.parametrize("form", ["passes", "passes and reads"])
def test_61_who_only_passed_it_on_has_not_seen_the_choice_that_was_lost(stage, form):
    notes = {"A": "ND never", "P": "sync", "B": "sync"}
    story = stage.play("A, P, B", notes, "ALL mid(B)", "A2 P1 B2", form=form)
    assert story.result == "B(A:2())"


@pytest.mark.parametrize("notes", ["sync", "ND sync", "ND"])
def test_69_the_body_reads_and_goes_on(stage, notes):
    stage.play("P, X, Y", notes, "ALL mid(X) when saved(P)", "P1 X2 Y1", form="reads first")


@pytest.mark.parametrize("notes", ["ND sync", "ND async"])
def test_70_the_same_branch_in_every_life(stage, notes):
    lives = "; ".join(["ALL mid(X) when saved(P)"] * 3)
    story = stage.play("P, X, Z", {"P": notes, "X": "sync", "Z": "sync"}, lives, "P1 X4", form="branches")
    assert {str(line[2]) for line in story.of("enter", "X")} == {"['P:1()', 'left']"}


def test_70_a_choice_that_was_lost_may_branch_anew(stage):
    notes = {"P": "ND never", "X": "sync", "Z": "sync"}
    story = stage.play("P, X, Z", notes, "ALL mid(X)", "P2 X1 Z1", form="branches")
    assert story.result == "Z(P:2(),right)"


def test_74_a_failed_run_keeps_what_it_has_and_resume_makes_the_rest(stage, form):
    notes = {"A": "sync", "B": "sync raises"}
    story = stage.play("A→B", notes, "none; none", "A1 B2", form=form, fails={1: "ValueError"})
    assert story.result == "B(A())"


def test_75_errors_are_tried_again_where_that_is_allowed(stage, form):
    story = stage.play("A→B", {"A": "sync", "B": "sync raises raises retries=2"}, "none", "A1 B3", form=form)
    assert story.lives[0].error is None


@pytest.mark.parametrize("form", ["catches", "catches late"])
@pytest.mark.parametrize("notes", ["sync raises", "ND sync raises", "ND async raises"])
def test_76_an_error_that_the_body_caught_is_the_same_in_its_next_life(stage, form, notes):
    story = stage.play("T, D", {"T": notes, "D": "sync"}, "ALL mid(D) when saved(T)", "T1 D2", form=form)
    assert {str(line[2]) for line in story.of("enter", "D")} == {"['T fails for the 1. time']"}
