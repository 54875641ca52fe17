"""Dask clusters of two workers: one for all tests that leave it as it was, and others that may be broken."""

from collections.abc import Iterator

import pytest

pytest.importorskip("distributed")
from distributed import Client, LocalCluster


@pytest.fixture
def client() -> Iterator[Client]:
    """A client of a cluster whose workers may be killed: nannies start others."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client
