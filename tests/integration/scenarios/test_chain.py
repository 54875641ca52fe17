"""A→B→C: what is saved when, and what is therefore run again."""

import pytest

CHAIN = "A→B→C"

ALL_DIE = [
    ("3", "sync", "ALL mid(A)", "A2 B1 C1"),
    ("3 pre", "sync", "ALL pre(A)", "A1 B1 C1"),
    ("4", "sync", "ALL ret(A)", "A2 B1 C1"),
    ("5", "sync big", "ALL part(A)", "A2 B1 C1"),
    ("6", "sync", "ALL dur(A)", "A1 B1 C1"),
    ("7", "sync", "ALL mid(B)", "A1 B2 C1"),
    ("7 big", "sync big", "ALL mid(B)", "A1 B2 C1"),
    ("8", "sync", "ALL mid(C)", "A1 B1 C2"),
    ("9", "sync", "ALL ret(C)", "A1 B1 C2"),
    ("9 ND", "ND sync", "ALL ret(C)", "A1 B1 C2"),
    ("10", "sync", "ALL end(run); none; none", "A1 B1 C1"),
    ("11", "sync", "ALL mid(B); ALL mid(B)", "A1 B3 C1"),
    ("15", {"A": "never", "B": "sync", "C": "sync"}, "ALL mid(B)", "A2 B2 C1"),
    ("16", {"A": "never", "B": "sync", "C": "sync"}, "ALL mid(C)", "A2 B1 C2 | last A1 B1 C2"),
    ("17", {"A": "never", "B": "never", "C": "sync"}, "ALL mid(C)", "A2 B2 C2"),
    ("22", {"A": "ND async big", "B": "sync", "C": "sync"}, "ALL mid(B) saves wait", "A2 B2 C1"),
    ("22 det", {"A": "async big", "B": "sync", "C": "sync"}, "ALL mid(B) saves wait", "A2 B2 C1"),
    ("23", {"A": "ND async", "B": "sync", "C": "sync"}, "ALL mid(B) when saved(A)", "A1 B2 C1"),
    ("24", "async", "none", "A1 B1 C1"),
    ("25a", {"A": "async big", "B": "sync", "C": "sync"}, "none saves fail 1", "A1 B1 C1"),
]


@pytest.mark.parametrize(("notes", "lives", "counts"), [row[1:] for row in ALL_DIE], ids=[row[0] for row in ALL_DIE])
def test_all_die(stage, form, notes, lives, counts):
    stage.play(CHAIN, notes, lives, counts, form=form)


def test_4_and_5_what_is_not_durable_was_not_used(stage, form):
    for point in ("ret", "part"):
        story = stage.beside(point).play(CHAIN, "sync big", f"ALL {point}(A)", "A2 B1 C1", form=form)
        crash = next(i for i, line in enumerate(story.lines) if line[0] == "crash")
        assert crash < story.at("enter", "B")


@pytest.mark.parametrize("form", ["last", "every"])
def test_the_controller_dies_while_its_workers_are_at_work(stage, form):
    stage.play(CHAIN, "sync big", "ALL mid(B)", "A1 B2 C1", form=form, executor="processes")


WORKER_DIES = [
    ("13", "sync", "W mid(B)", "A1 B2 C1"),
    ("13 pre", "sync", "W pre(B)", "A1 B1 C1"),
    ("13 ret", "sync", "W ret(B)", "A1 B2 C1"),
    ("13 part", "sync big", "W part(B)", "A1 B2 C1"),
    ("13 ND", "ND async", "W eff(B)", "A1 B2 C1"),
    ("18", {"A": "never big", "B": "never big", "C": "sync"}, "W mid(C)", "A1 B1 C2"),
    ("18 ND", {"A": "ND never big", "B": "ND never big", "C": "sync"}, "W mid(C)", "A1 B1 C2"),
]


@pytest.mark.parametrize("form", ["last", "every"])
@pytest.mark.parametrize(
    ("notes", "lives", "counts"), [row[1:] for row in WORKER_DIES], ids=[row[0] for row in WORKER_DIES]
)
def test_only_the_worker_dies_and_no_resume_is_needed(stage, form, notes, lives, counts):
    stage.play(CHAIN, notes, lives, counts, form=form)


@pytest.mark.parametrize("form", ["last", "every"])
def test_14_without_losses_left_the_run_fails_and_resume_goes_on(stage, form):
    notes = {"A": "sync", "B": "sync losses=0", "C": "sync"}
    story = stage.play(CHAIN, notes, "W mid(B); none", "A1 B2 C1", form=form, fails={1: "TaskFailed"})
    assert "signal SIGKILL" in story.lives[0].message


@pytest.mark.parametrize(("form", "counts"), [("last", "A1 B2 C2"), ("refs", "A1 B2 C2"), ("every", "A1 B1 C2")])
@pytest.mark.parametrize("choice", ["", "ND"])
def test_20_only_what_was_lost_with_the_worker_is_made_again(stage, form, counts, choice):
    """B's only copy dies with the worker; A's is still live. What the body has read, the controller has."""
    notes = {"A": f"never big {choice}", "B": f"never big {choice}", "C": "sync"}
    stage.play(CHAIN, notes, "W mid(C)", counts, form=form, executor="forgetful")


def test_22_b_starts_before_a_is_durable(stage, form):
    notes = {"A": "ND async big", "B": "ND async big", "C": "sync"}
    story = stage.play(CHAIN, notes, "none saves wait for returned(B)", "A1 B1 C1", form=form)
    assert story.result == "C(B:1(A:1()))"


def test_24_async_is_durable_at_the_end_by_fewer_writes_than_sync(stage, form, tmp_path):
    chain = "→".join("ABCDEFGHIJKLMNOPQRST")
    counts = " ".join(f"{name}1" for name in chain.split("→"))
    lazy = stage.play(chain, "ND async", "none; none", counts, form=form)
    eager = stage.beside("eager").play(chain, "ND sync", "none; none", counts, form=form)
    assert len(chain.split("→")) <= eager.lives[0].writes
    assert lazy.lives[0].writes < eager.lives[0].writes


def test_25b_a_save_that_fails_for_good_is_never_success(stage, form):
    notes = {"A": "async big", "B": "sync", "C": "sync"}
    story = stage.play(CHAIN, notes, "none saves fail 99", None, form=form, fails={1: "StorageError"})
    assert max(story.counts.values()) == 1
    assert stage.play(CHAIN, notes, "none", None, form=form).result == "C(B(A()))"
