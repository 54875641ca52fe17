"""Scenarios as a few words each, played with real processes and real SIGKILL.

``Stage.play("A→B→C", "sync", "ALL mid(B)", "A1 B2 C1")`` runs the flow, kills it where the words say, resumes it in
another process, and counts. The words of a life:

    none                      it is not killed
    ALL mid(B)                the controller dies, and with it every thread: another life follows
    W mid(B)                  the worker process dies, and nothing else
    … when saved(A)           not before A's record is durable; also anew(A), one of this life; undone(A), that
                              it is; returned(A); done(A), the driver knows of it
    … alone                   the body calls nothing behind the task at which it dies
    … saves wait              large values do not reach the store in this life
    … saves wait for done(B)  not before
    … saves fail 2            the first two tries to save a large value fail

The points: ``pre mid eff`` before the body, in it before its effect, behind that; ``ret part dur`` returned and nothing
written, a large value written, its record durable and nobody told; ``done`` the driver has taken the result;
``call`` the flow's body is about to make the call; ``gate`` the call has been made, and something that it waits for
does not come; ``again`` like ``pre``, of a retry; ``probe`` while its probe is asked; ``undo_pre mid eff ret dur``
before its undo, in it, behind what it does, it has returned, ``Undone`` is durable; ``end(run)`` the result is out.

The words of a task: ``ND``; its checkpoint; ``irr idem rb`` for its effect; for its doubt ``stop retry``, ``asks`` a
probe that knows, or one that ``lies``, and that raises first for each ``mute``; ``big`` for a value that does not ride
in its record; ``slow`` for a body that costs more than a save; for each time before it succeeds ``raises`` before its
effect, ``fails`` behind it or ``declines`` (``DidNotHappen``); ``losses=0``, ``retries=1``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

FORMS = ("last", "every", "refs", "async")
"""Only the last Ref is read; plain calls; every Ref is passed on and read; an async body awaits each call."""

HERE = Path(__file__).parent
_LIFE = re.compile(
    r"(?:none|(?P<domain>ALL|W) (?P<point>\w+)\((?P<task>\w+)\))"
    r"(?: when (?P<when>\w+\(\w+\)(?: and \w+\(\w+\))*))?"
    r"(?P<alone> alone)?"
    r"(?: saves (?:(?P<wait>wait)(?: for (?P<until>\w+\(\w+\)))?|fail (?P<times>\d+)))?"
)
_VERSION = re.compile(r"(\w+):(\d+)\(")


class Zygote:
    """A process that has imported everything, and forks the others."""

    def __init__(self) -> None:
        paths = [str(HERE), *(path for path in sys.path if path)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("EXOFLOW_")}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", "import lives; lives.serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self._asked = 0

    def _ask(self, request: object) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._asked += 1
        self._process.stdin.write(json.dumps([self._asked, request]) + "\n")
        self._process.stdin.flush()
        while True:  # a test that was interrupted has left its answer to the next one
            number, answer = map(int, self._process.stdout.readline().split())
            if number == self._asked:
                return answer

    def fork(self, job: dict[str, object]) -> int:
        return self._ask(job)

    def wait(self, pid: int) -> int:
        """Its exit code; negative: the signal that it died of."""
        return self._ask(pid)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@dataclass
class Life:
    """One process: how it ended, and what it said."""

    name: str
    exit_code: int
    result: str | None = None
    error: str | None = None
    message: str = ""
    stderr: str = ""
    writes: int = 0
    """Durable writes of its journal."""


@dataclass
class Story:
    """What came of a scenario."""

    lines: list[list[object]]
    lives: list[Life]
    notes: dict[str, list[str]] = field(default_factory=dict)

    @property
    def counts(self) -> Counter[str]:
        """Entries of each body, over all lives."""
        return Counter(str(line[1]) for line in self.lines if line[0] == "enter")

    @property
    def result(self) -> str | None:
        return self.lives[-1].result

    def of(self, what: str, task: str) -> list[list[object]]:
        """The effects, undos or entries of a task, in their order."""
        return [line for line in self.lines if line[:2] == [what, task]]

    def standing(self, task: str) -> list[tuple[object, object]]:
        """Keys and payloads of the task's effects that were not undone, as a sink that goes by keys shows them."""
        undone = {line[2] for line in self.of("undo", task)}
        seen = {(line[2], line[3]) for line in self.of("effect", task)}
        return sorted(effect for effect in seen if effect[0] not in undone)

    def at(self, what: str, task: str, number: int = 1) -> int:
        """Where the n-th such line stands, to compare with another's place; ``-1`` counts from the end."""
        places = [i for i, line in enumerate(self.lines) if line[:2] == [what, task]]
        return places[number - 1 if number > 0 else number]

    def check(self) -> None:
        """The invariant: one failure-free execution, of which the result and every effect are."""
        assert self.result is not None
        versions: dict[str, str] = {}
        for task, number in _VERSION.findall(self.result):
            assert versions.setdefault(task, number) == number, f"two versions of {task} in {self.result}"
        for task, words in self.notes.items():
            if {"irr", "idem", "rb"} & set(words) and task in self.counts and "lies" not in words:
                standing = self.standing(task)
                assert len(standing) == 1, f"{task} has the effects {standing}"
                assert re.search(rf"\b{task}(:\d+)?{re.escape(str(standing[0][1]))}", self.result), (task, standing)


class Stage:
    """Where scenarios are played: a folder, and a zygote."""

    def __init__(self, zygote: Zygote, folder: Path) -> None:
        self.zygote = zygote
        self.folder = folder
        self.store = folder / "store"
        self.trace = folder / "trace"
        self.number = 0

    def beside(self, name: str) -> Stage:
        """Another stage, with a store of its own."""
        folder = self.folder / name
        folder.mkdir()
        return Stage(self.zygote, folder)

    def play(
        self, graph: str, notes: str | dict[str, str], lives: str, counts: str | None, *, form: str = "last",
        executor: str = "", fails: dict[int, str] | None = None, arguments: tuple[object, ...] = (),
    ) -> Story:  # fmt: skip
        """Play it to its end and check counts, how each life ended, and, where the last succeeded, the invariant.

        Args:
            graph: ``"A→B, A→D"``; calls are made in the order in which tasks appear.
            notes: The words of each task; the same for all as text.
            lives: Separated by ``;``. After a life that is killed whole, one more follows.
            counts: How often each body was entered: ``"A1 B2"``; ``"A1 B2 | last A1 B1"`` where the forms differ;
                None: not checked.
            form: One of FORMS, or the name of a program.
            fails: Lives (from 1) that end with an error, and its type.
        """
        texts = [text.strip() for text in lives.split(";")]
        if texts[-1].startswith("ALL"):
            texts.append("none")
        inputs, words = parse_graph(graph), parse_notes(graph, notes)
        ended = []
        for text in texts:
            started = self.start(inputs, words, text, form=form, executor=executor, arguments=arguments, comes=True)
            ended.append(self.wait(started))
            self._check_end(ended[-1], text, (fails or {}).get(len(ended)))
        story = Story(self.lines(), ended, words)
        assert len({life.result for life in ended if life.result is not None}) <= 1
        if counts is not None:
            assert " ".join(f"{k}{v}" for k, v in sorted(story.counts.items())) == counts_of(counts, form), story.lines
        if ended[-1].error is None:
            story.check()
        return story

    def start(
        self, inputs: dict[str, list[str]], words: dict[str, list[str]], text: str, *, form: str = "last",
        executor: str = "", begins: bool | None = None, arguments: tuple[object, ...] = (),
        gates: Mapping[str, str] | None = None, takeover: bool = False, comes: bool = False,
    ) -> tuple[str, int]:  # fmt: skip
        """Begin a life; its name and process.

        Args:
            begins: By ``run`` rather than ``resume``; None: the first one does.
            gates: Tasks that wait before their effect: ``"open"`` for ``open_gate``; ``"fenced"`` for a takeover.
            takeover: Take the run from a process that lives.
            comes: The point certainly comes: what could only begin before it by chance does not.
        """
        self.number += 1
        life = _LIFE.fullmatch(text)
        assert life is not None, text
        crash = saves = None
        if life["domain"]:
            when = [_condition(each) for each in (life["when"] or "").split(" and ") if each]
            crash = {"domain": life["domain"], "at": [life["point"], life["task"]], "when": when}
            crash["alone"] = life["alone"] is not None
            crash["comes"] = comes
        if life["wait"]:
            saves = {"do": "wait", "until": _condition(life["until"]) if life["until"] else None}
        elif life["times"]:
            saves = {"do": "fail", "times": int(life["times"])}
        job = {
            "name": str(self.number), "life": self.number, "folder": str(self.folder), "store": str(self.store),
            "trace": str(self.trace), "run_id": "the run", "graph": inputs, "notes": words, "form": form,
            "crash": crash, "saves": saves, "executor": executor or ("processes" if life["domain"] == "W" else "local"),
            "begins": self.number == 1 if begins is None else begins, "arguments": arguments,
            "gates": gates or {}, "takeover": takeover,
        }  # fmt: skip
        return str(self.number), self.zygote.fork(job)

    def send(self, data: str, id: str, *, dies: str | None = None) -> Life:
        """Send the run an event from a process of its own, which may die ``unsent`` or ``sent`` and not told."""
        self.number += 1
        crash = {"domain": "ALL", "at": [dies, "event"], "when": [], "alone": False, "comes": True} if dies else None
        job = {
            "name": str(self.number), "life": self.number, "folder": str(self.folder), "store": str(self.store),
            "trace": str(self.trace), "run_id": "the run", "sends": [data, id], "crash": crash,
        }  # fmt: skip
        life = self.wait((str(self.number), self.zygote.fork(job)))
        assert life.exit_code == (-signal.SIGKILL if dies else 0), life.stderr
        return life

    def wait(self, started: tuple[str, int]) -> Life:
        name, pid = started
        life = Life(name, self.zygote.wait(pid))
        said = self.folder / f"outcome-{name}"
        for key, value in (json.loads(said.read_text()) if said.exists() else {}).items():
            setattr(life, key, value)
        life.stderr = (self.folder / f"err-{name}").read_text()
        return life

    def parsed(self, graph: str, notes: str | dict[str, str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        return parse_graph(graph), parse_notes(graph, notes)

    def story(self, lives: list[Life], words: dict[str, list[str]]) -> Story:
        return Story(self.lines(), lives, words)

    def counts(self) -> str:
        return " ".join(f"{task}{count}" for task, count in sorted(Story(self.lines(), []).counts.items()))

    def until(self, what: str, task: str) -> None:
        """Wait for a line of the trace."""
        while not any(line[:2] == [what, task] for line in self.lines()):
            time.sleep(0.001)

    def open_gate(self, task: str) -> None:
        (self.folder / f"gate-{task}").touch()

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    def stop(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)

    def wake(self, pid: int) -> None:
        os.kill(pid, signal.SIGCONT)

    def _check_end(self, life: Life, text: str, error: str | None) -> None:
        if text.startswith("ALL"):
            assert life.exit_code == -signal.SIGKILL, f"life {life.name} ({text}) was not killed\n{life.stderr}"
        else:
            assert life.exit_code == 0, f"life {life.name} ({text}) exited with {life.exit_code}\n{life.stderr}"
            assert life.error == error, f"life {life.name} ({text}): {life.message}\n{life.stderr}\n{self.lines()}"

    def lines(self) -> list[list[object]]:
        return [json.loads(line) for line in self.trace.read_text().splitlines()] if self.trace.exists() else []


def parse_graph(text: str) -> dict[str, list[str]]:
    """``"A→B→C, A→D"``: each task's inputs; tasks in the order in which they appear, behind their inputs."""
    inputs: dict[str, list[str]] = {}
    for path in text.split(","):
        names = [name.strip() for name in path.split("→")]
        for name in names:
            inputs.setdefault(name, [])
        for source, target in pairwise(names):
            inputs[target].append(source)
    ordered: dict[str, list[str]] = {}
    while len(ordered) < len(inputs):
        name = next(name for name in inputs if name not in ordered and all(each in ordered for each in inputs[name]))
        ordered[name] = inputs[name]
    return ordered


def parse_notes(graph: str, notes: str | dict[str, str]) -> dict[str, list[str]]:
    return {name: (notes if isinstance(notes, str) else notes.get(name, "")).split() for name in parse_graph(graph)}


def counts_of(text: str, form: str) -> str:
    """``"A2 B1 | last A1 B1"``: other counts in one form."""
    usual, *others = text.split("|")
    special = {words.split()[0]: words.split()[1:] for words in others}
    return " ".join(sorted(each for each in special.get(form, usual.split()) if not each.endswith("0")))


def _condition(text: str) -> list[str]:
    what, _, name = text.removesuffix(")").partition("(")
    return [what, name]
