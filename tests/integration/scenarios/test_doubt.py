"""In doubt: what is asked, what is believed, and how often."""

import pytest

CHAIN = "A→T→U"
POINTS = ("pre", "mid", "eff", "ret")


def notes(t: str, a: str = "ND") -> dict[str, str]:
    return {"A": a, "T": t, "U": "sync"}


@pytest.mark.parametrize("choice", ["det", "ND"])
@pytest.mark.parametrize("mute", [0, 2])
@pytest.mark.parametrize("point", POINTS)
def test_a_probe_that_knows_settles_it(stage, form, choice, mute, point):
    """One that raises is asked again."""
    happened = point in ("eff", "ret")
    entries = 1 if happened or point == "pre" else 2
    words = f"irr asks {choice} {'mute ' * mute}"
    story = stage.play(CHAIN, notes(words), f"ALL {point}(T)", f"A1 T{entries} U1", form=form)
    assert len(story.of("probe", "T")) == 1 + mute
    assert len(story.of("effect", "T")) == 1
    assert {line[2] for line in story.of("probe", "T")} == {story.of("effect", "T")[0][2]}


@pytest.mark.parametrize("point", POINTS)
def test_a_probe_that_lies_is_believed(stage, form, point):
    happened = point in ("eff", "ret")
    entries = {"pre": 0, "mid": 1}.get(point, 2)
    story = stage.play(CHAIN, notes("irr lies"), f"ALL {point}(T)", f"A1 T{entries} U1", form=form)
    assert len(story.of("effect", "T")) == (2 if happened else 0)
    assert story.result == "U(T(A:1()))"


@pytest.mark.parametrize("point", POINTS)
def test_a_probe_that_a_crash_cut_short_is_asked_again(stage, form, point):
    happened = point in ("eff", "ret")
    entries = 1 if happened or point == "pre" else 2
    lives = f"ALL {point}(T); ALL probe(T); ALL probe(T)"
    story = stage.play(CHAIN, notes("irr ND asks"), lives, f"A1 T{entries} U1", form=form)
    assert len(story.of("probe", "T")) == len(story.of("effect", "T")) == 1


def test_what_a_probe_said_is_recorded(stage, form):
    happened = stage.play(CHAIN, notes("irr ND asks"), "ALL eff(T); ALL dur(T)", "A1 T1 U1", form=form)
    assert len(happened.of("probe", "T")) == 1
    did_not = stage.beside("not").play(CHAIN, notes("irr ND asks"), "ALL mid(T); ALL mid(T)", "A1 T3 U1", form=form)
    assert len(did_not.of("probe", "T")) == 2
    assert len({line[2] for line in did_not.of("probe", "T")}) == 1


@pytest.mark.parametrize("point", ["mid", "eff", "ret"])
def test_a_probe_is_asked_in_the_same_life_where_only_the_worker_died(stage, point):
    story = stage.play(CHAIN, notes("irr ND asks"), f"W {point}(T)", f"A1 T{1 + (point == 'mid')} U1")
    assert len(story.of("probe", "T")) == len(story.of("effect", "T")) == 1


@pytest.mark.parametrize(("then", "entries"), [("irr retry", 2), ("irr asks", 1)])
def test_the_code_may_say_later_what_to_do(stage, form, then, entries):
    graph, stops = stage.parsed(CHAIN, notes("irr stop"))
    stage.wait(stage.start(graph, stops, "ALL eff(T)", form=form))
    assert stage.wait(stage.start(graph, stops, "none", form=form)).error == "InDoubt"
    _, knows = stage.parsed(CHAIN, notes(then))
    life = stage.wait(stage.start(graph, knows, "none", form=form))
    assert life.result == "U(T(A:1()))", life.stderr
    assert stage.counts() == f"A1 T{entries} U1"


def test_nothing_is_computed_for_a_call_of_which_somebody_has_to_be_asked_first(stage):
    stage.play(
        CHAIN, notes("irr stop", a="never"), "ALL eff(T); none; none", "A1 T1", fails={2: "InDoubt", 3: "InDoubt"}
    )


# -- retries -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["raises", "fails"])
@pytest.mark.parametrize("t", ["det", "ND", "idem", "ND idem", "rb", "ND rb never", "irr retry", "ND irr retry"])
def test_killed_between_two_attempts(stage, form, t, how):
    """The first raised before or behind its effect; the second was on its way."""
    story = stage.play(CHAIN, notes(f"{t} {how} retries=1"), "ALL again(T)", "A1 T2 U1", form=form)
    keys = [line[2] for line in story.of("effect", "T")]
    undone = [line[2] for line in story.of("undo", "T")]
    acts = t not in ("det", "ND")
    assert len(keys) == (acts + (acts and how == "fails"))
    if "rb" in t:
        assert len(set(undone)) == len(undone) == 2
        assert keys[-1] not in undone and set(keys[:-1]) <= set(undone)
    else:
        assert not undone and len(set(keys)) <= 1


@pytest.mark.parametrize("how", ["raises", "fails"])
@pytest.mark.parametrize(("point", "times"), [("pre", 1), ("mid", 1), ("eff", 2), ("ret", 2), ("dur", 1)])
def test_killed_while_the_first_attempt_is_undone(stage, form, how, point, times):
    story = stage.play(CHAIN, notes(f"ND rb {how} retries=1"), f"ALL undo_{point}(T)", "A1 T2 U1", form=form)
    assert len(story.of("undo", "T")) == times
    assert len({line[2] for line in story.of("undo", "T")}) == 1


@pytest.mark.parametrize("how", ["raises", "fails"])
def test_an_irrevocable_attempt_that_raises_is_in_doubt(stage, form, how):
    words = notes(f"irr stop {how} retries=1")
    stage.play(CHAIN, words, "none; none", "A1 T1", form=form, fails={1: "InDoubt", 2: "InDoubt"})


@pytest.mark.parametrize("how", ["raises", "fails"])
def test_a_probe_tells_what_an_attempt_that_raised_has_done(stage, form, how):
    words = notes(f"ND irr asks {how} retries=1")
    story = stage.play(CHAIN, words, "none", f"A1 T{1 + (how == 'raises')} U1", form=form)
    assert len(story.of("effect", "T")) == len(story.of("probe", "T")) == 1


def test_an_attempt_that_says_that_it_did_not_happen_is_no_doubt(stage, form):
    story = stage.play(CHAIN, notes("irr stop declines retries=1"), "none", "A1 T2 U1", form=form)
    assert len(story.of("effect", "T")) == 1


def test_but_the_next_attempt_is(stage, form):
    words = notes("irr stop declines retries=1")
    stage.play(CHAIN, words, "ALL again(T); none", "A1 T1", form=form, fails={2: "InDoubt"})
