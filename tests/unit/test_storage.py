import errno
import os
import pickle
import shutil
from pathlib import Path

import pytest

from exoflow import hooks
from exoflow.errors import StorageError, UnsupportedStore
from exoflow.protocols import SlotStore
from exoflow.storage import LocalStore, MemoryStore, open_store
from exoflow.storage.failures import storage_error


def test_a_plain_path_and_a_file_url_are_local_stores(tmp_path: Path) -> None:
    for url in (str(tmp_path), tmp_path, f"file://{tmp_path}", f"file://localhost{tmp_path}"):
        store = open_store(url)
        assert isinstance(store, LocalStore)
        assert store.root == str(tmp_path)
        assert isinstance(open_store(store.url), LocalStore)


def test_opening_a_store_writes_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path / "new")
    assert store.list("") == []
    assert not store.exists("a")
    assert list(tmp_path.iterdir()) == []


def test_two_opens_of_one_memory_url_are_the_same_store() -> None:
    assert open_store("memory://same") is open_store("memory://same")
    assert open_store("memory://same") is not open_store("memory://other")


def test_a_store_object_is_taken_as_it_is() -> None:
    store = MemoryStore()
    assert open_store(store) is store


@pytest.mark.parametrize("scheme", ["gs", "az", "http", "ftp"])
def test_a_store_without_a_proven_atomic_create_is_refused(scheme: str) -> None:
    with pytest.raises(UnsupportedStore, match=r"atomic.*use a path"):
        open_store(f"{scheme}://bucket/folder")


def test_a_cloud_without_a_proven_create_says_what_is_missing() -> None:
    with pytest.raises(UnsupportedStore, match="has to be run against the real thing first"):
        open_store("gs://bucket/folder")


def test_s3_without_s3fs_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnsupportedStore, match=r"pip install 'exoflow\[s3\]'"):
        open_store("s3://bucket")


def test_an_s3_url_must_name_a_bucket() -> None:
    with pytest.raises(UnsupportedStore, match="names no bucket"):
        open_store("s3:///folder")


@pytest.mark.parametrize(
    ("url", "meant"), [("s3:/bucket/x", "s3://bucket/x"), ("s3:bucket", "s3://bucket"), ("file:/tmp", "file:///tmp")]
)
def test_a_url_without_its_two_slashes_is_not_taken_for_a_folder(url: str, meant: str) -> None:
    with pytest.raises(UnsupportedStore, match=f"write {meant}; or ./{url}"):
        open_store(url)
    assert open_store(f"./{url}").url.endswith(url)


def test_a_file_url_with_a_host_is_refused() -> None:
    with pytest.raises(UnsupportedStore, match="cannot name a host"):
        open_store("file://server/share")


def test_temporary_files_are_never_listed_and_never_left(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.create("a", b"")
    store.create("a", b"")
    (tmp_path / ".tmp" / "stale").write_bytes(b"of a process that was killed")
    assert store.list("") == ["a"]
    assert os.listdir(tmp_path / ".tmp") == ["stale"]


@pytest.mark.parametrize("point", ["before_write", "before_fsync", "before_link", "before_dir_fsync"])
@pytest.mark.parametrize("action", ["eio", "enospc"])
@pytest.mark.parametrize("kind", ["store.create", "slot.create"])
def test_a_create_that_fails_leaves_nothing_and_says_why(tmp_path: Path, point: str, action: str, kind: str) -> None:
    store = LocalStore(str(tmp_path))
    create = store.create if kind == "store.create" else store.create_slot
    why = {"eio": "check the disk", "enospc": "the disk is full"}[action]
    with hooks.armed(hooks.fault(f"{kind}.{point}:1:{action}")), pytest.raises(StorageError, match=why):
        create("a/b", b"data")
    assert not store.exists("a/b")
    assert os.listdir(tmp_path / ".tmp") == []
    assert create("a/b", b"data")


def test_a_slot_whose_sync_failed_is_dead(tmp_path: Path) -> None:
    slot = LocalStore(str(tmp_path)).create_slot("s", b"")
    assert slot is not None
    with hooks.armed(hooks.fault("slot.sync.before:1:eio")), pytest.raises(StorageError, match="I/O error"):
        slot.sync()
    with pytest.raises(StorageError, match="closed or has failed"):
        slot.sync()
    with pytest.raises(StorageError, match="closed or has failed"):
        slot.append(b"x")
    slot.close()


def test_a_store_whose_directory_vanished_says_so(tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = LocalStore(str(root))
    slot = store.create_slot("s/0", b"")
    assert slot is not None
    shutil.rmtree(root)
    slot.append(b"x")
    with pytest.raises(StorageError, match="vanished"):
        slot.sync()
    with pytest.raises(StorageError, match="vanished"):
        store.create("a", b"")
    assert not root.exists()
    slot.close()


def test_a_store_that_cannot_be_made_did_not_vanish() -> None:
    with pytest.raises(StorageError, match="the store's directory cannot be made there"):
        LocalStore("/proc/none/store").create("a", b"")


@pytest.mark.parametrize("url", ["", "file://"])
def test_a_store_without_a_name_is_refused(url: str) -> None:
    with pytest.raises(UnsupportedStore, match="'' names no directory"):
        open_store(url)


def test_an_error_of_the_system_is_told_once() -> None:
    told = str(storage_error("write", "a", OSError(errno.EFBIG, "File too large")))
    assert told == "cannot write a: File too large; look into the system's log, and whether the store can be written to"


def test_a_read_only_file_system_is_named(tmp_path: Path) -> None:
    def read_only(point: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with hooks.armed(read_only), pytest.raises(StorageError, match="read-only"):
        LocalStore(str(tmp_path)).create("a", b"")


def test_a_path_below_a_file_is_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="part of the path is a file"):
        LocalStore(str(tmp_path / "file" / "store")).create("a", b"")


def test_new_folders_are_synced_once_and_again_when_they_are_made_anew(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.create("a/b/c", b"")
    assert store._durable_inodes[f"{tmp_path}/a"] == os.stat(tmp_path / "a").st_ino
    store.delete("a/b/c")
    assert not (tmp_path / "a").exists()
    store.create("a/b/c", b"")
    assert store._durable_inodes[f"{tmp_path}/a"] == os.stat(tmp_path / "a").st_ino


def test_a_child_that_inherited_the_lock_holds_it_too(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    assert isinstance(store, SlotStore)
    slot = store.create_slot("s", b"")
    assert slot is not None
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)  # until the parent closes its end
        os._exit(0)
    os.close(reader)
    slot.close()
    try:
        assert store.lock_holders("s") in ((child,), (-1,))
    finally:
        os.close(writer)
        os.waitpid(child, 0)
    assert store.lock_holders("s") == ()


@pytest.mark.parametrize("spec", ["", "point", "point:x", "point:1:explode", ":1"])
def test_a_fault_that_cannot_be_read_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="write it as point:n"):
        hooks.fault(spec)


def test_a_fault_strikes_at_the_nth_reach_only(tmp_path: Path) -> None:
    with hooks.armed(hooks.fault("here:2:eio")):
        hooks.reach("here")
        hooks.reach("elsewhere")
        with pytest.raises(OSError, match="Input/output"):
            hooks.reach("here")
        hooks.reach("here")
    hooks.reach("here")


def test_an_object_of_many_megabytes_is_written_whole(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "store"))
    block = bytes(range(256)) * 4096
    parts = [b"head", block * 9, b"", b"between", block * 3, *[b"x" * 100] * 2000, block, b"end"]
    assert store.create("values/large", *parts)
    assert store.read("values/large") == b"".join(parts)


def test_a_folder_of_another_machine_is_refused_where_it_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = pickle.dumps(LocalStore(str(tmp_path)))
    assert pickle.loads(arrived).root == str(tmp_path)
    monkeypatch.setattr("exoflow.storage.local.this_machine", lambda: "other/1")
    with pytest.raises(UnsupportedStore, match=r"is a folder of the machine .*, and this is other/1: with workers on"):
        pickle.loads(arrived)
