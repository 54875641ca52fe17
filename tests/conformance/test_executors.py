from typing import TYPE_CHECKING

import pytest

from exoflow.executors import LocalExecutor
from exoflow.executors.processes import ProcessExecutor
from exoflow.protocols import Executor, Store
from exoflow.testing.executors import ExecutorConformance

if TYPE_CHECKING:
    from distributed import Client


class TestLocal(ExecutorConformance):
    def open(self, store: Store) -> Executor:
        return LocalExecutor(store=store)


class TestProcesses(ExecutorConformance):
    kills = True

    def open(self, store: Store) -> Executor:
        return ProcessExecutor(2, store=store)


class TestRay(ExecutorConformance):
    kills = True

    @pytest.fixture(autouse=True)
    def cluster(self, ray_cluster: object) -> None: ...

    def open(self, store: Store) -> Executor:
        from exoflow.executors.ray import RayExecutor

        return RayExecutor(store=store)


class TestDask(ExecutorConformance):
    kills = True

    @pytest.fixture(autouse=True)
    def cluster(self, dask_cluster: "Client") -> None:
        self.client = dask_cluster

    def open(self, store: Store) -> Executor:
        from exoflow.executors.dask import DaskExecutor

        return DaskExecutor(self.client, store=store)
