"""Messages to a run, from any process: inbox/H/N is durable before its sender is told, whoever owns the run.

A bell at bells/J/... tells the owner's journal J that there is one. It is a hint: who misses it looks once a minute.
"""

from __future__ import annotations

import os
import zlib
from typing import Literal, NamedTuple

import msgpack

from exoflow.errors import Corrupt
from exoflow.hooks import reach
from exoflow.journal import numbered
from exoflow.journal.creation import created
from exoflow.journal.owners import hashed
from exoflow.protocols import Buffer, Store

What = Literal["event", "cancel", "happened", "did not happen"]

_TRIES = 3
_SUM_BYTES = 4


class Message(NamedTuple):
    """What somebody outside told a run."""

    what: What
    time_s: float
    name: str = ""
    """Of an event; or the call whose effect is in doubt."""
    payload: bytes | None = None
    """An encoded value: the event's data, or what the call returned."""
    id: str | None = None
    """The sender's: of several messages with one id the first counts."""
    version: int = 0
    """Of the intent that is in doubt."""
    number: int = 0
    """Its place among the run's messages, from 1; given by ``post``."""


def post(store: Store, run_id: str, message: Message) -> int:
    """Append a message to a run's inbox; its number. Durable when it returns.

    Raises:
        StorageError: the store failed: it is unknown whether the message was taken. Under the same id it can be sent
            again.
    """
    body: bytes = msgpack.packb([*message[:-1], os.urandom(8)], unicode_errors="surrogatepass")
    data = zlib.crc32(body).to_bytes(_SUM_BYTES, "big") + body
    folder = _folder(run_id)
    number = max(numbered.numbers(store, folder, 1), default=0) + 1
    reach("inbox.post.before")
    while not created(store, f"{folder}/{number}", data, _TRIES):
        number += 1
    reach("inbox.post.after")
    return number


def messages_after(store: Store, run_id: str, number: int) -> list[Message]:
    """A run's messages behind the ``number``-th, in order.

    Raises:
        Corrupt: one is damaged.
    """
    folder = _folder(run_id)
    if numbered.in_bucket(store):
        found_there = numbered.read_on(store, folder, number + 1)
        return [_parse(data, n, f"{store.url}: {folder}/{n}") for n, data in found_there]
    found = [n for n in numbered.numbers(store, folder, 1) if n > number]
    return [_read(store, f"{folder}/{n}", n) for n in found]


def payload_of(store: Store, run_id: str, number: int) -> bytes | None:
    """What a run's message carries.

    Raises:
        Corrupt: it is damaged.
    """
    return _read(store, f"{_folder(run_id)}/{number}", number).payload


def _read(store: Store, name: str, number: int) -> Message:
    return _parse(store.read(name), number, f"{store.url}: {name}")


def has_messages(store: Store, run_id: str) -> bool:
    """Whether anybody has told the run anything."""
    folder = _folder(run_id)
    return store.exists(f"{folder}/1") if numbered.in_bucket(store) else bool(store.list(folder))


def _parse(data: Buffer, number: int, place: str) -> Message:
    sum, body = bytes(data[:_SUM_BYTES]), bytes(data[_SUM_BYTES:])
    if zlib.crc32(body).to_bytes(_SUM_BYTES, "big") != sum:
        raise Corrupt(f"{place} is damaged: a message whose sender was told that it is safe. Put it back from a copy")
    what, time_s, name, payload, id, version, _ = msgpack.unpackb(body, unicode_errors="surrogatepass")
    return Message(what, time_s, name, payload, id, version, number)


def names(store: Store, hash: str) -> list[str]:
    """The objects of an inbox, by the hash of its run's id."""
    return store.list(f"inbox/{hash}")


def empty(store: Store, run_id: str) -> None:
    """Delete the messages of a run that is gone."""
    for name in store.list(_folder(run_id)):
        store.delete(name)


def told(store: Store) -> set[str]:
    """The hashes of all runs that were ever told anything."""
    return {name.split("/")[1] for name in store.list("inbox")}


def _folder(run_id: str) -> str:
    return f"inbox/{hashed(run_id)}"


# -- bells -------------------------------------------------------------------------------------------------------------


def ring(store: Store, journal: str, run_id: str, number: int) -> None:
    """Tell the owner of this journal that a message has come for a run of its."""
    data = run_id.encode("utf-8", "surrogatepass")
    if not numbered.in_bucket(store):
        store.create(f"bells/{journal}/{hashed(run_id)}-{number}", data)
        return
    folder = f"bells/{journal}"
    bell = numbered.newest(store, folder, 1) + 1
    while not created(store, f"{folder}/{bell}", data):  # another's for the same run, rung since we looked, is as good
        bell += 1


def hear_on(store: Store, journal: str, seen: int) -> tuple[set[str], int]:
    """The runs for which somebody rang since bell ``seen``, and the last bell. One request where nobody did."""
    rung = list(numbered.read_on(store, f"bells/{journal}", seen + 1))
    return {bytes(data).decode("utf-8", "surrogatepass") for _, data in rung}, seen + len(rung)


def hear(store: Store, journal: str) -> set[str]:
    """The runs for which somebody rang, once. Not in a bucket."""
    run_ids = set()
    for name in store.list(f"bells/{journal}"):
        try:
            run_ids.add(bytes(store.read(name)).decode("utf-8", "surrogatepass"))
        except FileNotFoundError:
            continue
        store.delete(name)
    return run_ids


def bells(store: Store) -> dict[str, list[str]]:
    """Every bell that nobody has heard, by the journal that it is for."""
    found: dict[str, list[str]] = {}
    for name in store.list("bells"):
        found.setdefault(name.split("/")[1], []).append(name)
    return found
