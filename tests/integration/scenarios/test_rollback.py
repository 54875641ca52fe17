"""Effects that can be undone: they start early, and are undone when what they stand on is lost."""

import pytest

RESERVE = "acq_h, acq_f, acq_h→res_h→order, acq_f→res_f→order"
NOTES = {
    "acq_h": "ND async rb", "acq_f": "ND async rb", "res_h": "never rb", "res_f": "never rb", "order": "irr retry sync",
}  # fmt: skip


@pytest.mark.parametrize("choice", ["", "ND"])
@pytest.mark.parametrize("checkpoint", ["sync", "async", "never", "auto"])
@pytest.mark.parametrize("point", ["eff", "ret"])
def test_48_an_attempt_that_broke_off_is_undone_before_the_next(stage, form, choice, checkpoint, point):
    story = stage.play("T", f"rb {checkpoint} {choice}", f"ALL {point}(T)", "T2", form=form)
    first = story.of("effect", "T")[0]
    assert [line[2] for line in story.of("undo", "T")] == [first[2]]
    assert story.at("undo", "T") < story.at("enter", "T", 2)


def test_49_a_committed_reservation_stays(stage, form):
    story = stage.play("T→U", {"T": "rb sync", "U": "sync"}, "ALL mid(U)", "T1 U2", form=form)
    assert not story.of("undo", "T")


def test_50_undone_newest_first_and_all_before_the_choice_is_made_again(stage, form):
    notes = {"T0": "ND never", "T1": "rb never", "T2": "rb never", "U": ""}
    story = stage.play("T0→T1→T2→U", notes, "ALL mid(U)", "T02 T12 T22 U2", form=form)
    assert len(story.of("undo", "T1")) == len(story.of("undo", "T2")) == 1
    assert story.at("undo", "T2") < story.at("undo", "T1") < story.at("enter", "T0", 2)


@pytest.mark.parametrize("point", ["pre", "mid", "eff", "ret"])
def test_what_broke_off_is_undone_before_what_it_stood_on(stage, form, point):
    notes = {"T1": "rb never", "T2": "rb never", "U": "sync"}
    story = stage.play("T1→T2→U", notes, f"ALL {point}(T2)", f"T12 T2{1 + (point != 'pre')} U1", form=form)
    assert [line[1] for line in story.lines if line[0] == "undo"] == ["T2", "T1"]
    assert story.at("undo", "T1") < story.at("enter", "T1", 2)


UNDO_DIES = [("pre", 1), ("mid", 1), ("eff", 2), ("ret", 2), ("dur", 1)]


@pytest.mark.parametrize("task", ["T1", "T2"])
@pytest.mark.parametrize(("point", "times"), UNDO_DIES, ids=[point for point, _ in UNDO_DIES])
def test_an_undo_that_broke_off_is_done_again_and_those_that_are_done_are_not(stage, form, task, point, times):
    notes = {"T0": "ND never", "T1": "rb never", "T2": "rb never", "U": ""}
    lives = f"ALL mid(U); ALL undo_{point}({task})" + (" when undone(T2)" if task == "T1" else "")
    story = stage.play("T0→T1→T2→U", notes, lives, "T02 T12 T22 U2", form=form)
    other = {"T1": "T2", "T2": "T1"}[task]
    undone = [line[1] for line in story.lines if line[0] == "undo"]
    assert undone == sorted([task] * times + [other], reverse=True)
    for each in ("T1", "T2"):
        first = story.of("effect", each)[0]
        assert {line[2] for line in story.of("undo", each)} == {first[2]}
    assert len(story.of("undoing", task)) == 1 + (point in ("mid", "eff", "ret"))
    assert story.at("undo", "T1", -1) < story.at("enter", "T0", 2)


def test_52_a_reservation(stage, form):
    counts = "acq_h1 acq_f1 res_h1 res_f1 order1"
    story = stage.play(RESERVE, NOTES, "none", counts, form=form)
    assert not any(line[0] == "undo" for line in story.lines)


def test_54_reserved_and_not_ordered(stage, form):
    crash = "ALL call(order) when done(res_h) and done(res_f) and saved(acq_h) and saved(acq_f)"
    story = stage.play(RESERVE, NOTES, crash, "acq_h1 acq_f1 res_h2 res_f2 order1", form=form)
    for task, undos in {"acq_h": 0, "acq_f": 0, "res_h": 1, "res_f": 1, "order": 0}.items():
        assert len(story.of("undo", task)) == undos, task


def test_55_reserved_on_choices_that_were_lost(stage, form):
    notes = {**NOTES, "acq_h": "ND async rb big", "acq_f": "ND async rb big"}
    crash = "ALL call(order) when done(res_h) and done(res_f) saves wait"
    story = stage.play(RESERVE, notes, crash, "acq_h2 acq_f2 res_h2 res_f2 order1", form=form)
    for task in ("acq_h", "acq_f", "res_h", "res_f"):
        assert len(story.of("undo", task)) == 1, task
    for name in ("h", "f"):
        assert story.at("undo", f"res_{name}") < story.at("undo", f"acq_{name}") < story.at("enter", f"acq_{name}", 2)


@pytest.mark.parametrize("form", ["last", "every"])
@pytest.mark.parametrize("point", ["mid", "eff", "ret"])
def test_an_attempt_whose_worker_died_is_undone_before_the_next(stage, form, point):
    story = stage.play("A→T→U", {"A": "ND", "T": "ND rb", "U": "irr"}, f"W {point}(T)", "A1 T2 U1", form=form)
    assert len(story.of("undo", "T")) == 1
    assert story.at("undo", "T") < story.at("enter", "T", 2)


@pytest.mark.parametrize("losses", [0, 1])
def test_an_attempt_that_failed_for_good_is_undone_before_its_error_is_told(stage, form, losses):
    notes = {"A": "ND", "T": f"ND rb raises raises retries={losses}"}
    story = stage.play("A→T", notes, "none", f"A1 T{1 + losses}", form=form, fails={1: "ValueError"})
    assert len(story.of("undo", "T")) == 1 + losses
