"""The journal: what happened, durably and in order, and who owns it. One per process; ``docs/`` has the protocol."""

from exoflow.journal.catalogue import Listed, Reader
from exoflow.journal.journal import Adopted, Claimed, Journal
from exoflow.journal.records import Kind, value_names
from exoflow.journal.scan import Damaged
from exoflow.journal.takeover import Found, State, find

__all__ = [
    "Adopted",
    "Claimed",
    "Damaged",
    "Found",
    "Journal",
    "Kind",
    "Listed",
    "Reader",
    "State",
    "find",
    "value_names",
]
