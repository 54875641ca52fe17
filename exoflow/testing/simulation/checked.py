"""A kernel that holds itself against the reference after every event."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from exoflow.kernel import reference as rules
from exoflow.kernel.call import State
from exoflow.kernel.commands import Command, Dispatch, RecordUndone, Replay, Run, Undo
from exoflow.kernel.reference.facts import CallFacts, Facts
from exoflow.model import CallId, Kind, show_version
from exoflow.testing.simulation.mirror import LOST, NONE
from exoflow.testing.simulation.report import Report
from exoflow.testing.simulation.told import Told
from exoflow.testing.simulation.world import World, simulate


class FormsDiffer(BaseException):
    """The running kernel and the reference do not say the same. No flow body may take it for an error of its own."""


class Checked(Told):
    """The running form, compared with the reference before any command is carried out."""

    differences: list[FormsDiffer]
    _undoing_now = False

    def take(self) -> list[Command]:
        commands = super().take()
        if self._changed or commands:
            self._changed = False
            self._adopt_errors(commands)
            self._tell(commands)
            self._compare(commands)
        return commands

    def _tell(self, commands: list[Command]) -> None:
        """Commands are facts as well; what they retire falls before what a body has made is forgotten."""
        self.mirror.retire()
        for command in commands:
            if not isinstance(command, Replay):
                self.mirror.given(command)
        self.mirror.retire()
        replayed = False
        for command in commands:
            replayed = replayed or isinstance(command, Replay)
            if replayed and isinstance(command, Replay | Run):  # a child flow that fell may begin anew at once
                self.mirror.given(command)
        self.mirror.retire()

    def _adopt_errors(self, commands: list[Command]) -> None:
        """When the kernel tells an error, or forgives one, there is no event: check that it may, and note it."""
        facts = self.mirror.facts()
        undone = {command.call for command in commands if isinstance(command, RecordUndone)}
        for call in self.calls.values():
            known = self.mirror.calls[call.id]
            if call.state is State.RUNNING and not known.running and f"{call.id}/" in self.mirror.bodies:
                self.mirror.set(call.id, running=True, started=call.attempt)  # its body was at work again already (V6)
            if known.failed and call.state is not State.DONE and self.forgiving and call.attached:
                self.mirror.set(call.id, **LOST)
            if call.state is not State.DONE or not call.failed or known.failed or not call.attached:
                continue
            if call.propagated:
                sources = (facts.calls[id] for id in (*rules.taken(facts, known), *rules.states(facts, known)))
                may = any(self.calls[source.id].failed for source in sources)
            else:
                may = known.given_up and (not known.note.rollback or not known.intent or call.id in undone)
            self.agreed("whether an error may be told", call.id, True, may)
            error: dict[str, Any] = {
                "has_result": True, "failed": True, "inherited": call.propagated, "given_up": False,
                "made": known.made if call.propagated else call.version,
                "recorded": not call.propagated and known.recorded or call.saved,
                "live": not call.propagated and self.left_states.get(call.id, False),
                "dead": known.note.actor and not self.left_states.get(call.id, False),
                "open_names": () if call.propagated else known.open_names,
            }  # fmt: skip
            self.mirror.set(call.id, **LOST | error)

    def _compare(self, commands: list[Command]) -> None:
        facts = self.mirror.facts()
        if self.finished or self.cancelling:
            return
        if self.failing:  # what stands on what was undone is nobody's concern any more
            self._check_undos(facts)
            return
        self._undoing_now = any(isinstance(command, Undo) for command in commands)
        for command in commands:
            self._check_due(facts, command)
        for id, known in facts.calls.items():
            if known.attached and not self._heir(facts, known):
                call = self.calls[id]
                has_value = call.state is State.DONE and self._has_value(call)
                if self._waits_first() and has_value and not known.has_result:
                    continue  # it falls when the choice behind it may be made again: the reference knows that before
                if call.state is State.NEEDED and call.why == "state lost" and known.has_result:
                    continue  # it is made again for its state; what it had returned is true as long as nobody does
                self.agreed("has a usable result", id, has_value, known.has_result and rules.has_value(known))
                self.agreed("available", id, self._available(call), rules.available(facts, known))
                if known.has_result and call.closed:  # an effect that waits too long is seen below
                    self.agreed("closed", id, True, rules.closed(facts, known))
            if known.attached and known.running and known.note.kind is Kind.TASK and not self._waits_first():
                self.agreed("runs, though it will not count", id, False, rules.stands_on_fallen(facts, known))
        for name, id in sorted(rules.due(facts)):
            if not self._is_late(facts, id):
                self._differ(f"{name} of {id} is due and was not ordered: {self._show(id)}")

    def _check_undos(self, facts: Facts) -> None:
        """A run that rolls back orders nothing else, and each as soon as it may."""
        for name, id in sorted(rules.due(facts)):
            self._differ(f"{name} of {id} is due and was not ordered: {self._show(id)}")

    def _is_late(self, facts: Facts, id: CallId) -> bool:
        return self._waits_first() or self._heir(facts, facts.calls[id]) or self._asks_for_state(facts, id)

    def _asks_for_state(self, facts: Facts, id: CallId) -> bool:
        """The running form asks for a state when it looks at who takes it, and gives no value out until it is there."""
        concerned = (self.calls[i] for i in (id, *rules.taken(facts, facts.calls[id])))
        return any(
            call.note.actor and self._has_value(call) and (call is self.calls[id]) != (call.state is State.NEEDED)
            for call in concerned
        )

    def _waits_first(self) -> bool:
        """The running form goes on when something is undone, or more is durable, where the reference looks further."""
        return self._is_blocked() or bool(self._waiting_start)

    def _heir(self, facts: Facts, call: CallFacts) -> bool:
        """It stands on an inherited error: the running form counts all the inputs of an heir as lineage."""
        return call.inherited or any(facts.calls[id].inherited for id in rules.lineage(facts, call))

    def _check_due(self, facts: Facts, command: Command) -> None:
        if isinstance(command, Dispatch):
            self.agreed("whether an intent is durable", command.call, True, facts.calls[command.call].intent_durable)
        if not isinstance(command, Run) or command.why == "reopened":
            return
        call = facts.calls[command.call]
        if not call.running or call.started != command.version or self._heir(facts, call):
            return
        again = {c.id: replace(c, holds=()) for c in facts.calls.values() if c.intent > command.version}  # later orders
        again[call.id] = replace(call, running=False, started=NONE)
        if source := self.mirror.took.get(command.version):
            again[source] = replace(facts.calls[source], live=True)
        before = replace(facts, calls={**facts.calls, **again})
        reason = rules.gate(before, before.calls[call.id])
        if reason is None or reason.startswith("V4") and self._is_apart(before, call):
            return
        if not self._is_ahead(before, call):
            self._differ(f"{command} was ordered, but {reason}: {self._show(call.id)}")

    def _is_apart(self, facts: Facts, call: CallFacts) -> bool:
        """The running form takes calls one by one: what it found ready first does not wait for an undo found later."""
        falling = [facts.calls[c.id] for c in self.calls.values() if c.intent in rules.to_undo(facts)]
        concerned = rules.is_choice(call) and any(
            call.id in {c.id, *c.intent_names, *rules.lineage(facts, c)} for c in falling
        )
        return not (concerned or facts.undoing and not self._undoing_now or not facts.undone_recorded)

    def _is_ahead(self, facts: Facts, call: CallFacts) -> bool:
        """A choice behind it is made again when more is durable; until then it may run all the same (G2, V3)."""
        behind = rules.lineage(facts, call)
        return any(waiting.is_choice and waiting.id in behind for waiting in self._waiting_start)

    def _differ(self, what: str) -> None:
        difference = FormsDiffer(what)
        self.differences.append(difference)
        raise difference

    def agreed(self, what: str, id: CallId, running: bool, reference: bool) -> None:
        if running != reference:
            self._differ(f"{what}: running form {running}, reference {reference}: {self._show(id)}")

    def _show(self, id: CallId) -> str:
        known = self.mirror.calls[id]
        facts = self.mirror.facts()
        lineage = sorted(rules.lineage(facts, known))
        behind = ", ".join(f"{source} {show_version(rules.newest(facts.calls[source]))}" for source in lineage)
        return f"\n  running:   {self.calls[id]!r}\n  reference: {known}\n  stands on: {behind}"


def compare_forms(
    seed: int, *, loop: asyncio.AbstractEventLoop | None = None, trace: bool = False, world: type[World] = World
) -> Report:
    """Live through one seed with both forms.

    Raises:
        FormsDiffer: they do not say the same.
        Violation: the invariant does not hold.
    """
    differences: list[FormsDiffer] = []
    kernel = type("Comparing", (Checked,), {"differences": differences})
    try:
        report = simulate(seed, kernel=kernel, loop=loop, trace=trace, world=world)
    except BaseException as error:
        if differences:  # it may have been raised in a child flow's task, where nobody looks
            raise differences[0] from error
        raise
    if differences:
        raise differences[0]
    return report
