"""The adapters that a server knows by name. Each is loaded when it is asked for the first time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from exoflow.errors import AdapterError
from exoflow.llm.engine.adapters.configuration import CONFIG
from exoflow.llm.engine.request import AdapterRef
from exoflow.llm.server.refusals import Refusal, no_model

if TYPE_CHECKING:
    from exoflow.llm.engine.engine import Engine

T = TypeVar("T")
READERS = 4


class Library:
    """Names and directories; of the event loop's thread.

    A name means what ``load`` gave it, else what it was given at the start, else the sub-directory of ``folder`` of
    that name, whenever that appeared there; but nothing once it was unloaded, until it is loaded again.

    Args:
        folder: whose sub-directories are adapters, and below which clients may name paths.
        named: others, by name.
        reserved: the base model's name: no adapter can have it.
    """

    def __init__(
        self, engine: Engine, reserved: str, *, folder: Path | None = None, named: Mapping[str, Path] | None = None
    ) -> None:
        self._engine, self._reserved = engine, reserved
        self._folder = folder.absolute() if folder is not None else None
        self._named = dict(named or {})
        self._loaded: set[str] = set()
        self._withdrawn: set[str] = set()
        self._locks: dict[str, asyncio.Lock] = {}
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="exoflow-llm-library")

    async def ready(self, name: str) -> None:
        """It can be asked for.

        Raises:
            Refusal: 404, nothing has this name; 400, its directory is broken.
        """
        if name in self._loaded:
            return
        path = await asyncio.to_thread(self._path, name)
        if path is None:
            raise no_model(name)
        async with self._lock(name):
            if name not in self._loaded and name not in self._withdrawn:
                await self._load(name, path, pin=False)

    async def load(self, name: str, path: str, *, in_place: bool, pin: bool) -> AdapterRef:
        """What clients ask for: from now on the name means what lies at ``path``.

        Raises:
            Refusal: the name is taken, or the path may not be read, or it is broken; nothing changes then.
        """
        wanted = self._allowed(path)
        if name == self._reserved:
            raise Refusal(400, f"{name!r} is the base model's name", param="lora_name")
        async with self._lock(name):
            own = await asyncio.to_thread(self._path, name)
            if not in_place and (name in self._loaded or own not in (None, wanted)):
                raise Refusal(400, f"{name!r} is taken: load_inplace replaces an adapter", param="lora_name")
            ref = await self._load(name, wanted, pin=pin)
            self._named[name] = wanted
            self._withdrawn.discard(name)
            return ref

    async def unload(self, name: str) -> None:
        """Raises Refusal: nothing has this name, or it is the base model's."""
        if name == self._reserved:
            raise Refusal(400, f"{name!r} is the base model: adapters can be unloaded", param="lora_name")
        if await asyncio.to_thread(self._path, name) is None and name not in self._loaded:
            raise no_model(name)
        async with self._lock(name):
            self._withdrawn.add(name)
            self._named.pop(name, None)
            if name in self._loaded:
                self._loaded.discard(name)
                await self._run(lambda: self._engine.unload_adapter(name))

    async def has(self, name: str) -> bool:
        return name in self._loaded or await asyncio.to_thread(self._path, name) is not None

    async def names(self) -> list[str]:
        """All, whether they were loaded or not."""
        found = set(await asyncio.to_thread(self.found))
        return sorted((found | set(self._named) | self._loaded) - self._withdrawn - {self._reserved})

    def found(self) -> list[str]:
        """Those in the folder."""
        if self._folder is None:
            return []
        with os.scandir(self._folder) as entries:
            return [entry.name for entry in entries if _is_name(entry.name) and _is_adapter(entry.path)]

    def close(self) -> None:
        self._readers.shutdown(wait=True, cancel_futures=True)

    async def _load(self, name: str, path: Path, *, pin: bool) -> AdapterRef:
        try:
            ref = await self._run(lambda: self._engine.load_adapter(name, path, pin=pin))
        except AdapterError as error:
            raise Refusal(400, f"the adapter {name!r} cannot be loaded: {error}", code="adapter_broken") from error
        self._loaded.add(name)
        return ref

    def _path(self, name: str) -> Path | None:
        if name == self._reserved or name in self._withdrawn:
            return None
        if name in self._named:
            return self._named[name]
        if self._folder is None or not _is_name(name) or not _is_adapter(self._folder / name):
            return None
        return self._folder / name

    def _allowed(self, path: str) -> Path:
        """A client names files of this machine: below the folder that was opened for it, and nowhere else."""
        if self._folder is None:
            raise Refusal(400, "this server loads no adapters: start it with --adapters FOLDER")
        found = Path(os.path.normpath(self._folder / path))  # links are the operator's own, and followed
        if "\0" in path or found == self._folder or not found.is_relative_to(self._folder):
            raise Refusal(400, f"{path!r} does not lie in the folder of adapters", param="lora_path")
        return found

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    async def _run(self, work: Callable[[], T]) -> T:
        """In threads of its own, so that nothing else waits for disks. It goes on if nobody waits for it."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._readers, work))


def _is_name(name: str) -> bool:
    return name.isprintable() and "/" not in name and not name.startswith(".") and 0 < len(name.encode()) <= 255


def _is_adapter(path: str | Path) -> bool:
    return os.path.isfile(os.path.join(path, CONFIG))
