"""A→B, A→D, {B,D}→E: what stands on a choice falls with it."""

from itertools import product

import pytest

DIAMOND = "A→B→E, A→D→E"

ROWS = [
    ("40", {"A": "ND never", "B": "sync", "D": "never", "E": "sync"}, "A2 B2 D2 E1"),
    ("41", {"A": "never", "B": "sync", "D": "never", "E": "sync"}, "A2 B1 D2 E1"),
    ("42", {"A": "ND async", "B": "ND sync", "D": "ND never", "E": "sync"}, "A1 B1 D2 E1"),
    ("45", {"A": "ND never", "B": "ND sync", "D": "ND sync", "E": "sync"}, "A2 B2 D2 E1"),
    ("46", {"A": "ND sync", "B": "sync", "D": "never", "E": "sync"}, "A1 B1 D2 E1"),
]


@pytest.mark.parametrize(("notes", "counts"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_all_die_while_d_is_at_work_and_b_is_durable(stage, form, notes, counts):
    stage.play(DIAMOND, notes, "ALL mid(D) when saved(B)", counts, form=form)


def test_43_what_stands_on_a_lost_choice_is_undone_before_it_is_made_again(stage, form):
    notes = {"A": "ND never", "B": "rb sync", "D": "never", "E": "sync"}
    story = stage.play(DIAMOND, notes, "ALL mid(D) when saved(B)", "A2 B2 D2 E1", form=form)
    first, second = (line[2] for line in story.of("effect", "B"))
    assert [line[2:] for line in story.of("undo", "B")] == [[first, "(A:1())"]]
    assert story.standing("B") == [(second, "(A:2())")]
    assert story.at("undo", "B") < story.at("enter", "B", 2)


A = ["ND never", "ND async big", "ND sync", "never"]
B = ["ND sync", "ND async", "sync", "ND never", "rb sync", "rb async", "rb never"]
E = ["", "irr retry", "idem"]
BY_DEFAULT = {("ND never", "irr retry"), ("ND async big", "idem"), ("ND sync", ""), ("never", "irr retry")}
"""Each A with one effect behind each B; the others with ``-m big``."""
NOTES = [pytest.param(a, b, e, marks=[] if (a, e) in BY_DEFAULT else [pytest.mark.big]) for e, a, b in product(E, A, B)]


@pytest.mark.parametrize(("a", "b", "effect"), NOTES)
def test_whatever_is_annotated_and_lost_one_failure_free_execution_is_seen(stage, a, b, effect):
    """The harness checks: one version of each in the result, one effect standing, and for that version."""
    notes = {"A": a, "B": b, "D": "never", "E": f"{effect} sync"}
    for form, point in (("last", "mid(D)"), ("every", "eff(B)"), ("last", "mid(E)")):
        stage.beside(f"{form} {point}").play(DIAMOND, notes, f"ALL {point}", None, form=form)
