"""A value as Dask keeps and moves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distributed.protocol import dask_deserialize, dask_serialize

from exoflow.codec import Encoded
from exoflow.model import CallId

FUTURES = "exoflow-future-"
"""How the keys begin of what a Future in a result stands for: it is no Parcel, but the user's own object."""


class Parcel:
    """An encoded value under the key that it has on the cluster."""

    __slots__ = ("encoded", "key")

    def __init__(self, key: str, encoded: Encoded) -> None:
        self.key = key
        self.encoded = encoded

    def __sizeof__(self) -> int:
        """By which a worker knows when to spill."""
        return self.encoded.size


# Not by pickle: what passes through the scheduler is pickled by an older protocol, which copies every buffer.
@dask_serialize.register(Parcel)
def _sent(parcel: Parcel) -> tuple[dict[str, Any], list[Any]]:
    head, buffers, refs, checksums = parcel.encoded
    if checksums is not None:
        checksums.verify()
    return {"key": parcel.key, "refs": list(refs)}, [head, *buffers]


@dask_deserialize.register(Parcel)
def _arrived(header: dict[str, Any], frames: Sequence[Any]) -> Parcel:
    head, *buffers = (memoryview(frame).cast("B").toreadonly() for frame in frames)
    return Parcel(header["key"], Encoded(head, tuple(buffers), tuple(map(CallId, header["refs"]))))
