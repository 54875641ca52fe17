"""The table "T by determinism, checkpoint and effect", killed at every point: A → T → V → E, T → U → E.

What must come of each case is computed in ``predicted.py``. By default a sample is played in which every row of the
table meets every checkpoint and point, and all other pairs of factors occur; ``-m big`` plays the product.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import pytest
from scenario_predicted import Kind, Run

GRAPH = "A→T→V→E, T→U→E"
KINDS = tuple(
    f"{choice} {checkpoint} {effect}".strip()
    for choice in ("det", "ND")
    for checkpoint in ("sync", "async", "never", "auto")
    for effect in ("", "idem", "rb", "irr stop", "irr retry")
)
POINTS = ("pre", "mid", "eff", "ret", "part", "dur", "used", "used unsaved", "over", "over unsaved")
"""Those of T; then, with V durable, U at work or at its gate, T saved as it says or its save still under way; then,
with U durable too, E at work."""


@dataclass(frozen=True)
class Case:
    """A row of the table, what is around it, and how it dies."""

    t: str
    a: str
    v: str
    u: str
    point: str
    form: str
    domain: str
    lives: int
    """That end so."""

    def __str__(self) -> str:
        times = " twice" if self.lives == 2 else ""
        return f"{self.t}, {self.domain} {self.point}{times}, A {self.a}, V {self.v}, U {self.u}, {self.form}"

    @property
    def notes(self) -> dict[str, str]:
        big = "big" if self.point == "part" or "unsaved" in self.point else ""
        return {"A": self.a, "T": f"{self.t} {big} slow", "V": self.v, "U": self.u, "E": "sync"}

    @property
    def kind(self) -> Kind:
        return Kind.of(self.t.split())

    @property
    def target(self) -> str:
        return {"used": "U", "over": "E"}.get(self.point.split()[0], "T")

    @property
    def waits(self) -> bool:
        """U does not start before T is saved, which is not going to be."""
        return self.point == "used unsaved" and "irr" in self.u and self.kind.must_commit

    @property
    def alone(self) -> bool:
        """Consumers that are called would have an intent written, or A saved, at the time of the crash or behind it."""
        writes = "rb" in self.v + self.u or "irr" in self.u and self.a == "ND never"
        return self.point in ("part", "dur") and self.kind.saves == "async" and writes

    @property
    def is_raced(self) -> bool:
        """Something begins on durable results, and falls when it turns out that a choice behind them is made again.

        V is called before U, for whose effect A is made again; E's inputs are there, and T has an effect to complete.
        """
        lost = self.a == "ND never" and not self.kind.acts and self.point == "dur" and "irr" in self.u
        incomplete = self.kind.choice and self.kind.effect == "idem" and self.point == "over unsaved"
        return self.form == "last" and (lost or incomplete)

    def exists(self) -> bool:
        saves = self.kind.saves
        if self.point in ("part", "dur") and saves == "never" or "unsaved" in self.point and saves != "async":
            return False
        if self.domain == "W":
            here = self.point in ("pre", "mid", "eff", "ret", "used") or self.point == "part" and saves == "sync"
            return here and self.lives == 1
        if self.is_raced or self.point == "over unsaved" and "irr" in self.u and self.kind.must_commit:
            return False
        return self.lives == 1 or not self.alone and plan(self) is not None


FACTORS = {
    "t": KINDS,
    "a": ("never", "ND async", "ND never"),
    "v": ("sync", "rb sync"),
    "u": ("sync", "irr retry sync", "rb sync"),
    "point": POINTS,
    "form": ("last", "every"),
    "domain": ("ALL", "W"),
    "lives": (1, 2),
}


def plan(case: Case) -> tuple[list[str], Run] | None:
    """The lives of a case as the stage takes them, and what must come of them; None: one does not come to its crash."""
    graph = {"A": [], "T": ["A"], "V": ["T"], "U": ["T"], "E": ["V", "U"]}
    kinds = {name: Kind.of(words.split()) for name, words in case.notes.items()}
    run = Run(graph, kinds, reads_all=case.form == "every")
    point = case.point if case.target == "T" else "gate" if case.waits else "mid"
    if case.domain == "W":
        run.live((point, case.target), domain="W")
        return [f"W {point}({case.target})"], run
    texts = []
    unsaved = {"T"} if "unsaved" in case.point else set()
    for _ in range(case.lives):
        returned = run.live((point, case.target), unsaved)
        if not run.killed:
            return None
        when = " and ".join(f"{'anew' if durable else 'returned'}({task})" for task, durable in returned.items())
        words = [
            f"ALL {point}({case.target})",
            f"when {when}" if when else "",
            "alone" * case.alone,
            "saves wait" * bool(unsaved),
        ]
        texts.append(" ".join(word for word in words if word))
    run.live()
    return [*texts, "none"], run


def play(stage, case: Case) -> None:
    planned = plan(case)
    assert planned is not None
    check(stage, GRAPH, case, *planned)


def check(stage, graph: str, case: Case, lives: list[str], run: Run) -> None:
    counts = " ".join(f"{task}{count}" for task, count in run.entered.items())
    fails = {len(lives): "InDoubt"} if run.doubted else {}
    notes = {task: case.notes[task] for task in run.graph}
    story = stage.play(graph, notes, "; ".join(lives), counts, form=case.form, fails=fails)
    assert [line[1] for line in story.lines if line[0] == "undo"] == run.undone
    for task in run.graph:
        assert [line[3] for line in story.of("effect", task)] == run.acted[task]
    assert case.kind.saves != "sync" or not any(line[0] == "early" for line in story.lines), "G1"
    if run.doubted:
        assert f"{run.doubted}#0" in story.lives[-1].message
        return
    assert story.result == run.result
    for task, kind in run.kinds.items():
        keys = [line[2] for line in story.of("effect", task)]
        if kind.effect:
            assert story.standing(task) == [(keys[-1], run.acted[task][-1])]
            assert len(set(keys)) == (len(keys) if kind.effect == "rb" else 1), "G11"


AROUND = ("a", "v", "u", "form", "lives")


def product(**fixed: tuple[object, ...]) -> Iterator[Case]:
    values = [fixed.get(field.name, FACTORS[field.name]) for field in fields(Case)]
    return (case for case in itertools.starmap(Case, itertools.product(*values)) if case.exists())


def pairs(case: Case) -> set[tuple[object, ...]]:
    return set(itertools.combinations(((name, getattr(case, name)) for name in FACTORS), 2))


def sample(domain: str, kinds: Iterable[str], points: Iterable[str]) -> Iterator[Case]:
    """Each kind at each point, with what is around it such that most new pairs occur."""
    around = [dict(zip(AROUND, values, strict=True)) for values in itertools.product(*(FACTORS[n] for n in AROUND))]
    seen: set[tuple[object, ...]] = set()
    for t, point in itertools.product(kinds, points):
        cases = [Case(t=t, point=point, domain=domain, **values) for values in around]
        cases.sort(key=lambda case: len(pairs(case) - seen), reverse=True)
        found = next((case for case in cases if case.exists()), None)
        if found is not None:
            seen |= pairs(found)
            yield found


SAMPLED = tuple(t for t in KINDS if "irr" not in t or "sync" in t.split() or "never" in t)  # G8: it is sync in any case
ALL_DIE = list(sample("ALL", SAMPLED, POINTS))
WORKER_DIES = list(sample("W", [t for t in KINDS if "ND sync" in t], ("mid", "ret", "part", "used")))


def test_the_sample_has_all_pairs():
    every = set().union(*map(pairs, product(t=SAMPLED, domain=("ALL",))))
    assert every == set().union(*map(pairs, ALL_DIE))


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.big] if at % 2 else []) for at, case in enumerate(ALL_DIE)], ids=str
)
def test_all_die(stage, case):
    play(stage, case)


@pytest.mark.big
@pytest.mark.parametrize("case", WORKER_DIES, ids=str)
def test_only_the_worker_dies(stage, case):
    play(stage, case)


@pytest.mark.big
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("t", KINDS)
def test_the_whole_product(stage, t):
    for n, case in enumerate(product(t=(t,), domain=("ALL",))):
        play(stage.beside(str(n)), case)


CHILD = [
    Case(t, a, "sync", "sync", point, form, "ALL", 1)
    for n, (t, point) in enumerate(itertools.product(KINDS, ("pre", "mid", "eff", "ret")))
    if "sync" in t.split() or "never" in t.split()
    for a, form in [(("ND async", "ND never")[(n + n // 4) % 2], ("nested", "nested and reads")[(n // 2 + n // 8) % 2])]
]


@pytest.mark.big
@pytest.mark.parametrize("case", CHILD, ids=str)
def test_in_a_child_flow_it_is_the_same(stage, case):
    """A → T → V → U, where T and V are called by a child flow: as long as that has not ended, it is one graph."""
    graph = {"A": [], "T": ["A"], "V": ["T"], "U": ["V"]}
    run = Run(graph, {n: Kind.of(case.notes[n].split()) for n in graph}, reads_all=case.form == "nested and reads")
    returned = run.live((case.point, "T"))
    when = " and ".join(f"{'anew' if durable else 'returned'}({task})" for task, durable in returned.items())
    run.live()
    check(stage, "A→T→V→U", case, [f"ALL {case.point}(T) when {when}", "none"], run)
