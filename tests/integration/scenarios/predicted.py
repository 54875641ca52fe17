"""What must come of a flow that is killed, by the rules of ``docs/guarantees.md`` and by nothing in ExoFlow's code.

A life is played by hand: which calls it has to make (V1, V2), what falls with a choice that is made again (V3), what is
undone (V4), what an effect has saved before it starts (G3, G4, G6), and what of all that is durable when it dies.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Kind:
    """What a task says of itself."""

    choice: bool
    effect: str
    """``irr``, ``idem``, ``rb`` or nothing."""
    checkpoint: str
    stops: bool
    """In doubt, somebody has to be asked."""

    @classmethod
    def of(cls, words: Iterable[str]) -> Kind:
        said = set(words)
        effect = next(iter(said & {"irr", "idem", "rb"}), "")
        checkpoint = next(iter(said & {"sync", "async", "never"}), "auto")
        return cls("ND" in said, effect, checkpoint, not said & {"retry"})

    @property
    def saves(self) -> str:
        """When the result is saved, if nothing waits for it."""
        if self.effect == "irr":
            return "sync"
        if self.checkpoint == "auto" or self.checkpoint == "never" and self.effect == "idem":  # G8
            return "async"  # the bodies here cost more than a save
        return self.checkpoint

    @property
    def acts(self) -> bool:
        return self.effect in ("irr", "idem")

    @property
    def must_commit(self) -> bool:
        """Before an effect that stands on it starts: G3 for choices, G6 for what can be undone."""
        return self.choice or self.effect == "rb"


@dataclass(frozen=True)
class Made:
    """A result: its value as the tasks of ``world`` write it, and which attempt of each choice it stands on."""

    value: str
    stands_on: dict[str, int]


@dataclass(frozen=True)
class Intent:
    """Durable before the body of a task with ``irr`` or ``rb`` is entered (L4)."""

    task: str
    stands_on: dict[str, int]


@dataclass
class Run:
    """A run from its first life to its last. ``graph``: each task's inputs, in the order in which the body calls."""

    graph: dict[str, list[str]]
    kinds: dict[str, Kind]
    reads_all: bool
    """The body reads each value before it makes the next call; otherwise only the last one."""
    entered: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    acted: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """What each effect was asked for, each time that it was out."""
    undone: list[str] = field(default_factory=list)
    records: dict[str, Made] = field(default_factory=dict)
    intents: list[Intent] = field(default_factory=list)
    """Those that stand: a result or an undo has not answered for them."""
    memory: dict[str, Made] = field(default_factory=dict)
    doubted: str = ""
    """The call of which nobody knows whether it happened, when the last life stopped for it."""
    killed: bool = False
    """Whether the last life came to its crash."""

    # -- what stands on what -------------------------------------------------------------------------------------------

    def behind(self, task: str) -> list[str]:
        """Lineage: through data, and through what the body had read before it made the call (G10)."""
        names = list(self.graph)
        if self.reads_all:
            return names[: names.index(task)]
        found = {each for source in self.graph[task] for each in (source, *self.behind(source))}
        return [name for name in names if name in found]

    def to_make(self) -> tuple[list[str], set[str]]:
        """The calls that have to run, in order, and the choices among them that are made again (V1, V2, V3)."""
        again: set[str] = set()
        while True:
            needed: set[str] = set()
            pending = [task for task in self.graph if self.reads_all or task == self.last or self.kinds[task].acts]
            while pending:
                task = pending.pop()
                made = self.memory.get(task) or self.records.get(task)
                if task in needed or made is not None and not again & made.stands_on.keys():
                    continue
                needed.add(task)
                pending += self.graph[task]
                if self.kinds[task].acts:
                    pending += [each for each in self.behind(task) if self.kinds[each].must_commit]
            found = {task for task in needed if self.kinds[task].choice and self.attempts[task]}
            if found == again:
                return [task for task in self.graph if task in needed], again
            again = found

    # -- one life ------------------------------------------------------------------------------------------------------

    def live(
        self, crash: tuple[str, str] | None = None, held: Iterable[str] = (), *, domain: str = "ALL"
    ) -> dict[str, bool]:
        """Play one life; what returned in it, and whether that became durable.

        Args:
            crash: Point and task; ``gate``: it waits for what has to be durable first, some of which never is.
                What is called behind the task has not begun by then.
            held: Tasks whose values do not reach the store in this life.
            domain: ``W``: only the worker dies, nothing in memory is lost, and the life goes on.
        """
        todo, again = self.to_make()
        self.killed = crash is not None and crash[1] in todo and domain == "ALL"
        doubted = [task for task in todo if self._is_doubtful(task)]
        if doubted:  # it is not run, and so it needs no input
            self.doubted, self.killed = doubted[0], False
            names = list(self.graph)
            todo = names[: names.index(self.doubted)] if self.reads_all else []
            todo = [task for task in todo if task not in self.records]
        self._fall(todo, again)
        for task in todo:
            if crash is not None and task == crash[1]:
                self._attempt(task, crash[0], held)
                if domain == "ALL":
                    break
                if self._is_doubtful(task):
                    self.doubted = task
                    return {}
                self._undo([task])
            self._attempt(task, "", held)
        returned = {task: task in self.records for task in self.memory}
        if self.killed:
            self.memory.clear()
        return returned

    def _attempt(self, task: str, point: str, held: Iterable[str]) -> None:
        """As far as the point; to its end without one."""
        kind = self.kinds[task]
        if kind.acts:
            self._commit([each for each in self.behind(task) if self.kinds[each].must_commit and each not in held])
        if point == "gate":
            return
        self.attempts[task] += 1
        lineage = self._lineage(task)
        if kind.effect in ("irr", "rb"):
            self.intents.append(Intent(task, lineage))
        if point == "pre":
            return
        self.entered[task] += 1
        if point == "mid":
            return
        if kind.effect:
            self.acted[task].append(self._payload(task))
        if point in ("eff", "ret", "part"):
            return
        number = f":{self.entered[task]}" if kind.choice else ""
        self.memory[task] = Made(f"{task}{number}{self._payload(task)}", lineage)
        if kind.saves != "never" and task not in held:
            self._commit([task])

    def _lineage(self, task: str) -> dict[str, int]:
        return {each: self.attempts[each] for each in self.behind(task) if self.kinds[each].choice}

    def _commit(self, tasks: list[str]) -> None:
        for task in tasks:
            if task in self.memory and task not in self.records:
                self.records[task] = self.memory[task]

    # -- what falls ----------------------------------------------------------------------------------------------------

    def _is_doubtful(self, task: str) -> bool:
        begun = any(intent.task == task for intent in self.intents)
        return self.kinds[task].effect == "irr" and self.kinds[task].stops and begun and task not in self.records

    def _fall(self, todo: list[str], again: set[str]) -> None:
        """Retire what stands on a choice that is made again; undo that and what broke off, newest first (V3, V4)."""
        for task in [task for task, made in self.records.items() if again & made.stands_on.keys()]:
            del self.records[task]
        standing = [each for each in self.intents if self.kinds[each.task].effect == "rb"]
        self._undo([each.task for each in standing if each.task in todo or again & each.stands_on.keys()])

    def _undo(self, tasks: list[str]) -> None:
        for intent in reversed(self.intents):
            if intent.task in tasks and self.kinds[intent.task].effect == "rb":
                self.undone.append(intent.task)
        self.intents = [each for each in self.intents if each.task not in tasks or self.kinds[each.task].effect != "rb"]

    # -- how it ends ---------------------------------------------------------------------------------------------------

    @property
    def last(self) -> str:
        return list(self.graph)[-1]

    @property
    def result(self) -> str:
        return self._value(self.last)

    def _value(self, task: str) -> str:
        return (self.memory.get(task) or self.records[task]).value

    def _payload(self, task: str) -> str:
        return f"({','.join(self._value(each) for each in self.graph[task])})"
