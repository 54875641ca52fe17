"""Recorded values that the store has lost or damaged (L10)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exoflow.driver.saving import append_result
from exoflow.errors import Corrupt
from exoflow.journal.records import Kind as Code
from exoflow.model import CallId, Stored

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution


def verify(execution: Execution, id: CallId) -> None:
    """Look whether a value that an attempt could not read lies whole in the store. Under the lock.

    Raises:
        Corrupt: it does not; see ``forsake``.
    """
    value = execution.values.at.get(id)
    if not isinstance(value, Stored):
        return
    try:
        checksums = execution.values.fetch(value).checksums
        if checksums is not None:
            checksums.verify()
    except Corrupt as error:
        raise forsake(execution, id, error) from error


def forsake(execution: Execution, id: CallId, why: Corrupt) -> Corrupt:
    """The error that the run stops with. Unless the call had an effect, its result counts as absent from then on.

    Not at once: what has run since may stand on it, and telling that apart is what a recovery is for.
    """
    owner = CallId(id.partition("!")[0])
    handle = execution.handles.get(owner)
    call = execution.kernel.calls[owner]
    if handle is None or call.note.effect is not None:
        return Corrupt(
            f"the result of {owner} cannot be read: {why}. It is not run again, for it had an effect: put the object "
            f"back from a copy of the store and resume, or start a new run"
        )
    append_result(execution, Code.MADE, handle, call.version, ())
    execution.log.append((Code.NOTE, execution.index, "damaged", [id]))
    return Corrupt(
        f"the result of {owner} cannot be read: {why}. From now on it counts as absent: "
        f"`exoflow resume {execution.run_id}` runs {owner} again, and what stands on it"
    )
