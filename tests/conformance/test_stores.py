import os
from pathlib import Path

import pytest

from exoflow.protocols import SlotStore, Store
from exoflow.storage import LocalStore, MemoryStore, S3Store
from exoflow.testing.stores import StoreConformance


class TestLocalStore(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return LocalStore(str(tmp_path / "store"))

    def test_it_has_slots_and_is_shared(self, store: Store) -> None:
        assert isinstance(store, SlotStore)
        assert store.shared


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()

    def test_it_has_no_slots_and_is_not_shared(self, store: Store) -> None:
        assert not isinstance(store, SlotStore)
        assert not store.shared


class TestS3Store(StoreConformance):
    @pytest.fixture
    def store(self, s3_url: str) -> Store:
        return S3Store(s3_url)

    def test_it_has_no_slots_and_is_shared(self, store: Store) -> None:
        assert not isinstance(store, SlotStore)
        assert store.shared


class CheckThenWrite(LocalStore):
    """A store as fsspec's generic create would make it: look, then write."""

    def create(self, name: str, *parts: object) -> bool:
        if self.exists(name):
            return False
        path = Path(self.root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        LocalStore.create(self, f"elsewhere/{os.urandom(8).hex()}")  # gives the others the time to look, too
        path.write_bytes(b"".join(bytes(part) for part in parts))  # type: ignore[call-overload]  # they are buffers
        return True


def reopen_check_then_write(url: str) -> Store:
    return CheckThenWrite(url.removeprefix("file://"))


def test_the_race_catches_a_store_that_checks_and_then_writes(tmp_path: Path) -> None:
    class Suite(StoreConformance):
        reopen = staticmethod(reopen_check_then_write)

    with pytest.raises(AssertionError):
        Suite().test_of_racing_processes_one_wins_each_name(CheckThenWrite(str(tmp_path)))
