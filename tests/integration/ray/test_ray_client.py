"""Through a Ray Client, which this process is then: its objects and tasks belong to a server on the cluster."""

import socket
from collections.abc import Iterator

import pytest

pytest.importorskip("grpc", reason="ray[client] is not installed")

from ray.cluster_utils import Cluster

from exoflow.executors import open_executor
from exoflow.protocols import Executor, Store
from exoflow.testing.executors import ExecutorConformance


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    head = {"num_cpus": 2, "object_store_memory": 100 << 20, "include_dashboard": False, "ray_client_server_port": port}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield f"ray://127.0.0.1:{port}"
    cluster.shutdown()


class TestRayClient(ExecutorConformance):
    kills = True

    @pytest.fixture(autouse=True)
    def cluster(self, address: str) -> None:
        self.address = address

    def open(self, store: Store) -> Executor:
        return open_executor(self.address, store=store)
