"""What the kernel knows of a run. Data only."""

from __future__ import annotations

from collections import deque

from exoflow.kernel.call import Call, Scope
from exoflow.kernel.commands import Command
from exoflow.model import CallId, Version, version

SECONDS_PER_BYTE = 1 / 200e6  # of a store whose rate nobody has measured


class RunState:
    """Everything that is known of one run, in one epoch."""

    def __init__(self, epoch: int, *, undo_on_failure: bool = False, strict: bool = False) -> None:
        self.epoch = epoch
        self.undo_on_failure = undo_on_failure
        self.strict = strict  # an effect may not force a save of what is never to be saved (G4)
        self.damaged = False  # the journal had damaged records: a missing one may have existed
        self.forgiving = False  # the run had failed: errors that nothing stands on are forgotten (V14)
        self.cancelling = False
        self.failing = False  # it has failed, and all that can be undone is: a record says so (V15)
        self.stuck = False  # an undo has failed for good: nothing starts, and the run ends when what runs has ended
        self.finishing = False  # the root body's result is settled
        self.finished = False
        self.seconds_per_byte = SECONDS_PER_BYTE

        self.calls: dict[CallId, Call] = {}
        self.scopes: dict[str, Scope] = {}
        self.by_path: dict[str, list[Call]] = {}  # recalled calls by the path of their flow
        self.former: dict[str, list[Call]] = {}  # what the incarnation before made, of bodies that were set aside here
        self.unattached: set[Call] = set()  # with results or intents that the body has not asked for yet
        self.standing: dict[CallId, list[Call]] = {}  # open choice -> calls of older epochs whose intent names it
        self.stale: dict[Version, Call] = {}  # attempts that still run though their result will not be used
        self.out: list[Command] = []

        self.seq = 0  # records appended so far
        self.durable_seq = 0
        self.urgent = 0  # something waits until the records up to here are durable
        self.start_seq = 0  # of the run's Start record
        self.records: deque[tuple[int, Call, Version, str]] = deque()  # appended, not known to be durable
        self.fallen = 0  # results taken back so far
        self.remade = 0  # choices ordered again so far; stamps of unmade calls are cached against it
        self._number = 0

        # What the last events gave rise to, until the commands are taken; and what waits for something else.
        self._ready: list[Call] = []  # needed calls: they may start, or are told what they wait for
        self._ending: list[Scope] = []  # bodies that may have ended
        self._misled: list[Call] = []  # they wait for what stood in a value that is not true any more
        self._closing: list[Call] = []
        self._held_back: list[Call] = []  # until everything is undone
        self._waiting_start: list[Call] = []  # until the run's inputs are durable, or what they stand on is made
        self._unsaved: dict[CallId, Version] = {}  # uploads under way
        self._unsure: set[CallId] = set()  # intents whose completion may have been a damaged record
        self._uncovered: list[Call] = []  # actors' calls for whose sake a snapshot is to be taken
        self._hoping: list[Call] = []  # ... unless a recorded call of the actor, that has one, is made again
        self._hopeless: list[Call] = []  # ... and it has not been, or is about to stand aside
        self._recovered = False  # one of a recorded call is among those below
        self._covers: dict[Call, None] = {}  # durable snapshots that may commit calls before them
        self._sought: set[Call] = set()  # in child flows whose bodies have not been replayed
        self._reopening: set[Call] = set()  # child flows whose bodies are about to be replayed to find a value
        self._to_undo: dict[Version, Call] = {}
        self._undoing = Version(0)
        self._holding: set[Call] = set()  # effects that may happen, or not, and have released what they stand on
        self._undone_seq = 0  # its record has to be durable before anything runs again
        self._failing_seq = 0  # that the run has failed has to be durable before anything is undone for it

    @property
    def unwinding(self) -> bool:
        """It was cancelled, or has failed and rolls back: no body has anything to do any more."""
        return self.cancelling or self.failing

    def _next_version(self) -> Version:
        self._number += 1
        return version(self.epoch, self._number)
