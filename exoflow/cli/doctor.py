"""``exoflow doctor``: does everything that a run needs work here?"""

from __future__ import annotations

import importlib.util
import os
import platform
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer
from rich.text import Text

from exoflow.cli.failures import FAILED, WrongUsage, reported
from exoflow.cli.options import DebugOption, JsonOption, StoreOption
from exoflow.cli.place import store_of
from exoflow.cli.terminal import Terminal
from exoflow.cli.words import duration, size
from exoflow.errors import ExoFlowError, StorageError
from exoflow.protocols import SlotStore, Store
from exoflow.storage import open_store

_LEAST_PYTHON = (3, 11)
_LEAST_FREE_BYTES = 1_000_000_000
_SLOW_SYNC_S = 0.05
_SYNCS = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    good: bool
    found: str
    hint: str = ""
    """What to do, where it is not good."""


def doctor(store: StoreOption = None, json_output: JsonOption = False, debug: DebugOption = False) -> None:
    """Check Python, the store and what is installed; exit code 1 if something is wrong."""
    terminal = Terminal(json_output=json_output)
    with reported(terminal, debug=debug):
        findings = list(_findings(store))
        if json_output:
            terminal.print_json([asdict(finding) for finding in findings])
        else:
            for finding in findings:
                _print(finding, terminal)
        if not all(finding.good for finding in findings):
            raise typer.Exit(FAILED)


def _print(finding: Finding, terminal: Terminal) -> None:
    mark = ("✓", "green") if finding.good else ("✗", "red")
    terminal.out.print(Text.assemble(mark, f" {finding.what:<16} {finding.found}"), soft_wrap=True)
    if finding.hint:
        terminal.out.print(Text(f"{'':19}{finding.hint}", style="yellow"), soft_wrap=True)


def _findings(url: str | None) -> Iterator[Finding]:
    yield _python()
    yield _platform()
    yield Finding("exoflow", True, _versions())
    yield Finding("executors", True, _with_extras("local", "processes", ray="ray", dask="distributed"))
    yield Finding("stores", True, _with_extras("folders", s3="s3fs"))
    try:
        opened = store_of(url)
    except (ExoFlowError, WrongUsage) as error:
        yield Finding("store", False, url or "", str(error))
        return
    yield from _store(opened)


def _python() -> Finding:
    found = f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}"
    good = sys.version_info >= _LEAST_PYTHON
    return Finding("python", good, found, "" if good else "ExoFlow needs Python 3.11 or newer")


def _platform() -> Finding:
    good = sys.platform in ("linux", "darwin")
    hint = "" if good else "stores on local files need Linux or macOS; use WSL on Windows"
    return Finding("platform", good, f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs", hint)


def _versions() -> str:
    names = ("exoflow", "cloudpickle", "fsspec", "msgpack", "rich", "sqlite-utils", "typer")
    return ", ".join(f"{name} {_version(name)}" for name in names)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _with_extras(*names: str, **extras: str) -> str:
    """What there is, by name; each extra's name with its package's version, or what to install."""
    found = [
        f"{name} ({package} {_version(package)})"
        if importlib.util.find_spec(package)
        else f"no {name}: pip install 'exoflow[{name}]'"
        for name, package in extras.items()
    ]
    return ", ".join([*names, *found])


def _store(store: Store) -> Iterator[Finding]:
    root = getattr(store, "root", None)
    if not isinstance(root, str) and store.shared:
        yield from _try_bucket(store)
        return
    if not isinstance(root, str):
        yield Finding("store", True, f"{store.url}: lasts as long as its process")
        return
    parent = next(each for each in [Path(root), *Path(root).parents] if each.exists())
    if not parent.is_dir():
        yield Finding("store", False, store.url, f"{parent} is no directory: name another place")
        return
    yield Finding("store", True, f"{store.url}{'' if os.path.isdir(root) else ', not made yet'}")
    yield _free(parent)
    try:
        with tempfile.TemporaryDirectory(prefix=".exoflow-doctor-", dir=parent) as folder:
            yield from _try(open_store(folder))
    except (OSError, ExoFlowError) as error:
        yield Finding("write", False, str(error), f"{parent} has to be writable for whoever runs flows")


def _free(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    good = free >= _LEAST_FREE_BYTES
    hint = (
        "" if good else "make room: a full disk stops every run (nothing that was committed is lost); see `exoflow gc`"
    )
    return Finding("disk", good, f"{size(free)} free", hint)


def _try(store: Store) -> Iterator[Finding]:
    """Use a store of the same kind, in a folder of its own beside the real one."""
    took = _timed(lambda: store.create("trial/a", b"one"))
    again = store.create("trial/a", b"two")
    same = bytes(store.read("trial/a")) == b"one"
    hint = "" if same and not again else "two processes could own one run here: use a file system with hard links"
    yield Finding("atomic create", same and not again, f"{duration(took)}", hint)
    if isinstance(store, SlotStore):
        yield from _try_slot(store)


def _try_bucket(store: Store) -> Iterator[Finding]:
    """Use the store itself: whether a service keeps the condition of a create cannot be seen from outside."""
    name = f"trial/{secrets.token_hex(8)}"
    try:
        store.create(f"{name}/0", b"")  # connects
        took = _timed(lambda: store.create(f"{name}/1", b"one"))
        once = not store.create(f"{name}/1", b"two") and bytes(store.read(f"{name}/1")) == b"one"
        store.delete(f"{name}/0")
        store.delete(f"{name}/1")
    except StorageError as error:
        yield Finding("store", False, str(error), "see docs/how-to/object-stores.md")
        return
    yield Finding("store", True, store.url)
    hint = "" if once else "two processes could own one run here: use another service"
    yield Finding("atomic create", once, duration(took), hint)


def _try_slot(store: SlotStore) -> Iterator[Finding]:
    slot = store.create_slot("trial/slot", b"begin")
    assert slot is not None
    try:
        held = bool(store.lock_holders("trial/slot"))
        hint = "" if held else "locks do not hold here (a network file system?): a run could be taken from a live owner"
        yield Finding("locks", held, "held while their owner lives" if held else "not held", hint)
        times = []
        for _ in range(_SYNCS):
            slot.append(secrets.token_bytes(200))
            times.append(_timed(slot.sync))
        middle = sorted(times)[_SYNCS // 2]
        hint = "" if middle < _SLOW_SYNC_S else "each durable write waits this long: use a faster disk for the store"
        yield Finding("durable write", middle < _SLOW_SYNC_S, f"{duration(middle)} (middle of {_SYNCS})", hint)
    finally:
        slot.close()


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
