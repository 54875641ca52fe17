"""Whether anybody listens at a scheduler's address. Dask itself would try for half a minute, without a word."""

from __future__ import annotations

import socket
import time

import dask
from dask.utils import parse_timedelta
from distributed.comm import parse_host_port

_LISTENS_S = 5.0
"""How long an address at which nobody listens is tried: its scheduler may be just about to start."""

_ANSWERS_S = 20.0
"""How long whoever listens there may take to answer as a scheduler."""

_AGAIN_S = 0.2


def patience_s() -> float:
    """Seconds for a scheduler to answer, or fewer, if Dask is configured so."""
    configured: float = parse_timedelta(dask.config.get("distributed.comm.timeouts.connect"), default="s")
    return min(configured, _ANSWERS_S)


def reach(address: str) -> None:
    """See that somebody listens there.

    Raises:
        OSError: nobody does.
        ValueError: it is no address.
    """
    scheme, separator, place = address.rpartition("://")
    if separator and scheme not in ("tcp", "tls"):
        return
    host_and_port = parse_host_port(place)
    deadline = time.monotonic() + min(patience_s(), _LISTENS_S)
    while True:
        try:
            socket.create_connection(host_and_port, timeout=_LISTENS_S).close()
        except OSError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_AGAIN_S)
        else:
            return
