"""Effects that are seen from outside: they start only when what they stand on can never change."""

import pytest

import exoflow

CHAIN = "A→B→C"
SLOW_CHOICE = {"A": "ND async big", "B": "never", "C": "irr retry"}


def test_27_an_effect_waits_for_the_save_that_everything_else_overlaps(stage, form):
    story = stage.play(CHAIN, SLOW_CHOICE, "none saves wait for done(B)", "A1 B1 C1", form=form)
    assert story.at("enter", "B") < story.at("saved", "A") < story.at("enter", "C")


def test_28_no_effect_of_a_choice_that_was_lost(stage, form):
    story = stage.play(CHAIN, SLOW_CHOICE, "ALL done(B) saves wait", "A2 B2 C1", form=form)
    assert story.result == "C(B(A:2()))"


def test_29_choice_durable_before_the_crash(stage, form):
    notes = {"A": "ND async", "B": "never", "C": "irr retry"}
    stage.play(CHAIN, notes, "ALL pre(C)", "A1 B2 C1", form=form)


def test_31_a_choice_that_is_never_saved_is_saved_for_an_effect(stage, form):
    notes = {"A": "ND never big", "B": "det never", "C": "irr"}
    story = stage.play(CHAIN, notes, "none", "A1 B1 C1", form=form)
    assert story.at("saved", "A") < story.at("enter", "C")


@pytest.mark.parametrize("effect", ["irr", "idem"])
def test_33_an_effect_waits_for_all_choices_behind_it(stage, form, effect):
    notes = {"A": "ND async", "B": "ND async big", "C": effect}
    story = stage.play(CHAIN, notes, "ALL done(B) when saved(A) saves wait", "A1 B2 C1", form=form)
    assert story.result == "C(B:2(A:1()))"


@pytest.mark.parametrize("effect", ["irr retry", "idem", "irr retry never", "idem never", "idem sync", "idem async"])
def test_34_again_with_the_same_key(stage, form, effect):
    notes = {"A": "ND", "B": "ND", "C": effect}
    story = stage.play(CHAIN, notes, "ALL eff(C)", "A1 B1 C2", form=form)
    assert len(story.of("effect", "C")) == 2
    assert len(story.standing("C")) == 1


@pytest.mark.parametrize("lives", ["ALL eff(C); none; none", "ALL ret(C); none; none", "ALL mid(C); none; none"])
def test_35_in_doubt_it_stops_and_is_never_run_again_without_an_operator(stage, form, lives):
    notes = {"A": "ND", "B": "ND", "C": "irr stop"}
    story = stage.play(CHAIN, notes, lives, "A1 B1 C1", form=form, fails={2: "InDoubt", 3: "InDoubt"})
    assert "C#0" in story.lives[1].message
    assert story.of("enter", "C")[0][2] == ["B:1(A:1())"]
    assert exoflow.get("the run", store=str(stage.store)).status == "in_doubt"


@pytest.mark.parametrize(("point", "count"), [("eff", 2), ("ret", 2), ("dur", 1)])
def test_37_a_completion_is_recorded_whatever_the_checkpoint_says(stage, form, point, count):
    notes = {"A": "sync", "B": "sync", "C": "irr never retry"}
    stage.play(CHAIN, notes, f"ALL {point}(C)", f"A1 B1 C{count}", form=form)


@pytest.mark.parametrize("form", ["last", "every"])
@pytest.mark.parametrize("point", ["mid", "eff", "ret"])
def test_an_effect_whose_worker_died_is_in_doubt_and_is_asked_again_only_where_that_is_allowed(stage, form, point):
    notes = {"A": "ND", "B": "irr stop"}
    stage.play("A→B", notes, f"W {point}(B)", "A1 B1", form=form, fails={1: "InDoubt"})
    again = stage.beside("retry").play("A→B", {"A": "ND", "B": "irr retry"}, f"W {point}(B)", "A1 B2", form=form)
    assert len(again.standing("B")) == 1
