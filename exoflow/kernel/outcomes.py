"""What became of attempts: results, errors, losses, doubts."""

from __future__ import annotations

from exoflow.errors import Corrupt, RunError
from exoflow.kernel.call import Call, State
from exoflow.kernel.commands import Doubt, Make, Probe
from exoflow.kernel.graph import states
from exoflow.kernel.saving import Saving
from exoflow.model import CallId, Kind, Version


class Outcomes(Saving):
    """An outcome counts only if its attempt is the one that the call waits for (V10)."""

    def computed(
        self,
        id: CallId,
        version: Version,
        *,
        size: int,
        inline: bool,
        stored: bool = False,
        seconds: float = 0.0,
        refs: tuple[Call, ...] = (),
        state: bool = False,
        snapshot: bool = False,
    ) -> bool:
        """An attempt returned. Whether its result counts: a retired attempt's does not.

        ``state``: it has left that of an actor, in memory; ``snapshot``: and in the store, or a small one.
        """
        call = self.calls[id]
        if not self._is_live(call, version):
            return False
        call.held = True
        if call.note.kind is Kind.FLOW:  # it is as new as the newest choice that its body made
            version = self._next_version()
            self._fix_stamp(call)
            call.record_stamp = call.stamp
        call.version = version
        call.refs = refs
        call.cost_s = (
            seconds + sum(i.cost_s for i in call.inputs if not i.saved) if call.note.saves == "cost" else seconds
        )
        if not call.has_derived:
            self._mark_derived(call)
        saves = call.note.saves
        if saves == "cost":
            worth = call.cost_s > size * self.seconds_per_byte and call.cost_s > 0.001
            saves = "async" if worth else "never"
        if call.note.kind is Kind.FLOW:
            call.names = self._open_lineage(call)
        if saves == "never" and not call.forced and not call.due:
            self.seq += 1
            self.out.append(Make(id, version))
        elif inline or stored:
            self._append_save(call)
        else:
            self.seq += 1
            self.out.append(Make(id, version))
            self._upload(call)
        if call.note.actor:
            self._left(call, state=state, snapshot=snapshot)
        self._done(call, failed=False)
        return True

    def expects(self, call: Call, version: Version) -> bool:
        """Whether a body that was ordered for a child flow is still to begin: the order may have been overtaken."""
        if not call.attached or call.body is not None:
            return False
        return call.state is State.RUNNING and call.attempt == version or call in self._reopening

    def _is_live(self, call: Call, version: Version) -> bool:
        if version in self.stale:
            del self.stale[version]
            return False
        return call.state is State.RUNNING and call.attempt == version

    def failed(
        self,
        id: CallId,
        version: Version,
        *,
        did_not_happen: bool = False,
        state: bool = False,
        snapshot: bool = False,
        unheard: bool = False,
    ) -> bool:
        """An attempt raised; whether that counts. An actor's state is as its body has left it.

        ``unheard``: it did not even raise, and whatever it did goes unheard.
        """
        call = self.calls[id]
        if not self._is_live(call, version):
            return False
        call.tries += 1
        if call.note.paid:
            call.unheard = unheard
        if call.note.effect == "irrevocable":
            if did_not_happen:
                self._forget_intent(call, call.intent)
            elif call.note.on_doubt != "retry":
                self._doubt(call)
                return True
        self._again(call, "retry", may=call.tries <= call.note.retries)
        if call.note.actor and call.failed and call.state is State.DONE:
            self._left(call, state=state, snapshot=snapshot)
        return True

    def vanished(self, id: CallId, version: Version, *, began: bool = True) -> bool:
        """An attempt ended without a word: lost, timed out or stopped. ``began``: an actor may have been changed."""
        call = self.calls[id]
        if not self._is_live(call, version):
            return False
        call.losses += 1
        if call.note.paid:
            call.unheard = True
        if not began and call.took:
            self._give_back(call)
        if call.note.effect == "irrevocable" and call.note.on_doubt != "retry":
            self._doubt(call)
            return True
        self._again(call, "lost", may=call.losses <= call.note.losses)
        return True

    def given_up(self, id: CallId, version: Version) -> None:
        """Who ran this attempt, and alone waited for the call, was cancelled: nobody wants it any more."""
        call = self.calls[id]
        if not self._is_live(call, version):
            return
        call.wanted = False
        if not call.note.stands_firm and not call.note.rollback:
            call.state = State.IDLE  # as if it had not been made; a replay makes it again, and may give it up again
            self._ended(call)
            return
        call.seen = True
        call.tries = call.note.retries
        self.failed(id, version, unheard=True)

    def abandoned(self, call: Call) -> None:
        """Who alone waited for the call was cancelled. Of one given up in another life: nobody will read its error."""
        call.seen = call.seen or call.failed

    def not_begun(self, id: CallId) -> None:
        """The body of a child flow could not begin: an argument's value was lost."""
        call = self.calls[id]
        call.body = None
        if call.state is State.RUNNING:
            self._again(call, "lost", may=True)
        else:
            self._open_again(call)

    def _once_more(self, call: Call) -> None:
        """Have it run again; one whose body was set aside, if that makes the call again."""
        call.state = State.IDLE
        if call.attached:
            call.state = State.NEEDED
            call.missing = 0
            self._ready.append(call)

    def _again(self, call: Call, why: str, *, may: bool) -> None:
        """Another attempt if one is left; else the error stands. What the last one did is undone first (V4)."""
        call.why = why
        if not call.attached or may and not self.cancelling:
            self._once_more(call)
            return
        call.state = State.NEEDED
        call.missing = 0
        if call.note.rollback and call.intent:
            call.fail_after_undo = True
            self._held_back.append(call)
            self._queue_undo(call)
        else:
            self._fail(call)

    def _fail(self, call: Call) -> None:
        if call.version not in (0, call.attempt) and call.note.deterministic and not self.cancelling:
            raise RunError(
                f"{call.id} is deterministic and returned a value before, but it fails now. What was derived from that "
                f"value stays true, so the run stops here: mend what makes it fail, then resume."
            )
        call.fail_after_undo = False
        self._open_up(call)
        call.failed = True
        call.version = call.attempt
        if call.note.kind is Kind.FLOW:
            call.version = self._next_version()
            self._fix_stamp(call)
            call.record_stamp = call.stamp
            call.names = self._open_lineage(call)
        self._mark_derived(call)
        if not self.cancelling:
            self._append_save(call)
        self._done(call, failed=True)

    def _open_up(self, call: Call) -> None:
        """As a function of its inputs it was no choice; an error is one, and its actor may go on."""
        stack = [call]
        while stack:
            source = stack.pop()
            if not source.closed:
                continue
            source.closed = False
            for taker in (*source.takers, *source.late_takers):
                taker.open += 1
                if taker.note.actor and source in states(taker):
                    stack.append(taker)

    def _fail_with(self, call: Call, source: Call) -> None:
        """An input's error is the call's own."""
        source.seen = True
        call.propagated = True
        call.refs = (source,)
        if call.names:
            call.names = ()  # of a recorded child flow: it was made with another input, and there is no body to replay
        self._mark_derived(call)
        self._done(call, failed=True)

    def _done(self, call: Call, *, failed: bool) -> None:
        call.state = State.DONE
        if call.note.actor:
            call.dead = failed and not call.skipped
        if self._holding:
            self._holding.discard(call)
        call.failed = failed
        if failed and call.recalled:
            call.failed_anew = True
        if call.note.kind is Kind.FLOW:
            self._release(call)
        if call.refs and not failed:
            self._link_refs(call)
        if call.takers and (call.refs or call.note.kind is Kind.FLOW):
            self._drop_older(call)
        self._settle(call)
        self._announce(call)
        self._ended(call)
        if call.note.actor:
            self._state_there(call)

    def _drop_older(self, call: Call) -> None:
        """What is behind the value is known only now: recorded results that were made from an older one fall."""
        older = [
            taker
            for taker in call.takers
            if taker.version
            and (taker.state is State.DONE or taker.intent)
            and taker.version < self._fresh_stamp(taker)
        ]
        if older:
            self._fall([], older)

    def _ended(self, call: Call) -> None:
        scope = call.scope
        if scope is None or call.note.may_be_left:
            return
        scope.active -= 1
        if scope.returned:
            self._ending.append(scope)

    def lost(self, id: CallId) -> None:
        """The value is no longer in memory."""
        call = self.calls[id]
        call.held = False
        if call.upload and call.upload == call.version:
            call.upload = Version(0)
            self._unsaved.pop(id, None)
        if call.state is State.DONE and not call.saved and call.attached:
            call.why = "lost"
            if self.finishing:
                pass  # the run's result is encoded: nobody needs the value any more
            elif call.wanted or call.forced or call.waiters or any(_waits_for(call, t) for t in call.takers):
                self._need(call)

    # -- doubt -----------------------------------------------------------------------------------------------------

    def _doubt_settled(self, call: Call) -> bool:
        if call.id in self._unsure and call.note.on_doubt != "probe":
            raise Corrupt(
                f"a damaged record in the journal may have said that the effect of {call.id} happened. Nothing was run "
                f"again: look at the service that it speaks to, then start a new run."
            )
        if call.note.on_doubt == "retry" or not call.recalled and call.attempt < call.intent:
            return True
        self._doubt(call)
        return False

    def _doubt(self, call: Call) -> None:
        call.state = State.DOUBT
        command = Probe if call.note.on_doubt == "probe" else Doubt
        self.out.append(command(call.id, call.intent))

    def resolved(self, id: CallId, *, happened: bool) -> Version:
        """Somebody knows whether the effect happened; the version that the value gets if it did."""
        call = self.calls[id]
        if call.state is not State.DOUBT:
            return Version(0)  # cancelled in the meantime
        call.state = State.RUNNING
        if happened:  # of a result that was lost, the value is back: it is no new choice
            call.attempt = call.version if call.version > call.intent else self._next_version()
            return call.attempt
        self._forget_intent(call, call.intent)
        self._again(call, "did not happen", may=call.tries <= call.note.retries and call.losses <= call.note.losses)
        return Version(0)

    def declined(self, call: Call) -> None:
        """Somebody has said that the effect did not happen, and nobody will run it again: the run is cancelled."""
        if call.state is not State.DONE:
            self._forget_intent(call, call.intent)

    def doubt_again(self, id: CallId) -> None:
        """The probe could not be asked: an input of the call was lost."""
        call = self.calls[id]
        if call.state is State.DOUBT:
            self._once_more(call)


def _waits_for(call: Call, taker: Call) -> bool:
    """Whether a call waits for the value of another, and not only for the state that it has left."""
    return taker.state is State.NEEDED and (taker.before is None or call in taker.inputs or call in taker.contents)
