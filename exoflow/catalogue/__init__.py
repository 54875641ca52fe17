"""An index of runs and calls, derived from the journals: delete it, and it is rebuilt. Runs never write it."""

from exoflow.catalogue.description import ActorSeen, AttemptSeen, CallSeen, Description, UndoSeen
from exoflow.catalogue.index import Catalogue, describe
from exoflow.catalogue.spending import spent_by_flow, spent_on
from exoflow.catalogue.summary import RunSummary, Waits

__all__ = [
    "ActorSeen", "AttemptSeen", "CallSeen", "Catalogue", "Description", "RunSummary", "UndoSeen", "Waits",
    "describe", "spent_by_flow", "spent_on",
]  # fmt: skip
