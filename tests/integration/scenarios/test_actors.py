"""V7, with real kills: an actor goes on from the snapshot of its committed version."""

import re

import pytest

TEN = "A→B→C→D→E→F→G→H→I→J"
ONCE = "A1 B1 C1 D1 E1 F1 G1 H1 I1 J1 New1"

executors = pytest.mark.parametrize("executor", ["local", "processes"])


@executors
def test_64_an_actor_counts_each_once(stage, executor):
    story = stage.play(TEN, "sync", "none", ONCE, form="counts each", executor=executor)
    assert story.result == "10"


@executors
def test_65_it_is_created_again_restored_from_the_fifth_and_counts_from_there(stage, executor):
    story = stage.play(
        TEN, "sync", "ALL mid(G)", "A1 B1 C1 D1 E1 F2 G2 H1 I1 J1 New2", form="counts fifth", executor=executor
    )
    assert story.result == "10"


def test_65_without_a_snapshot_but_the_first_it_counts_all_again_and_keeps_the_results(stage):
    story = stage.play("A→B→C→D", "sync", "ALL mid(D)", "A2 B2 C2 D2 New2", form="counts once")
    assert story.result == "4"


def test_a_killed_worker_costs_what_came_behind_the_snapshot_and_no_resume(stage):
    story = stage.play(TEN, "sync", "W mid(G)", "A1 B1 C1 D1 E1 F2 G2 H1 I1 J1 New2", form="counts fifth")
    assert story.result == "10"
    assert len(story.lives) == 1


@executors
@pytest.mark.parametrize("form", ["chooses fifth", "chooses each"])
def test_choices_behind_the_last_snapshot_are_made_again_and_so_is_what_was_read_of_them(stage, form, executor):
    story = stage.play(TEN, "ND", "ALL mid(G)", None, form=form, executor=executor)
    assert story.result is not None
    seen = dict(re.findall(r"(\w):(\d)", story.result))
    assert list(seen) == list("ABCDEFGHIJ")
    assert {name: story.counts[name] for name in seen} == {name: int(number) for name, number in seen.items()}
    again = [name for name in "ABCDEFG" if seen[name] == "2"]
    assert again == list("ABCDEFG")[-len(again) :]
    assert "G" in again


def test_a_choice_that_is_to_be_committed_before_it_is_read_has_a_snapshot_of_its_own(stage):
    counts = "A1 B1 C1 D2 New2"
    story = stage.play("A→B→C→D", "ND", "ALL mid(D)", counts, form="settles once")
    assert story.result is not None
    assert story.result.startswith("4 A:1(),B:1(),C:1()")


@executors
@pytest.mark.parametrize("crash", ["ALL eff(publish)", "ALL mid(D)"])
def test_an_effect_waits_for_a_snapshot_and_what_it_has_shown_is_never_made_again(stage, executor, crash):
    counts = "A1 B1 C1 D1 New1" if "eff" in crash else "A1 B1 C1 D2 New2"
    story = stage.play("A→B→C→D", "ND", crash, None, form="publishes once", executor=executor)
    assert {line[3] for line in story.of("effect", "publish")} == {"3 A:1(),B:1(),C:1()"}
    assert story.result is not None
    assert story.result.startswith("3 A:1(),B:1(),C:1() then 4 A:1(),B:1(),C:1()")
    assert " ".join(f"{k}{v}" for k, v in sorted(story.counts.items())) in (counts, counts.replace("New1", "New2"))
