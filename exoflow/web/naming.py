"""The ids of runs that a client names by a key."""

from __future__ import annotations

from urllib.parse import quote

from exoflow.journal.owners import parse_id


def run_id_of(token: str, flow: str, key: str) -> str:
    """Made of all three, and never the same for two combinations."""
    run_id = ":".join(quote(part, safe="") for part in (token, flow, key))
    if parse_id(run_id) is not None:
        run_id = run_id.replace("-", "%2D")  # else it would look like an id that a journal has generated
    return run_id


def location_of(run_id: str) -> str:
    """The path of a run."""
    return f"/runs/{quote(run_id, safe=':~')}"
