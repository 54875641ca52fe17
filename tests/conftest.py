"""What all tests share: hypothesis' profiles, an S3 server, and that none leaves its configuration to the next."""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from distributed import Client

# Deadlines measure the machine, not the code. A failure prints the blob that repeats it; chance is not taken away,
# so that a hundred runs see a hundred times as much.
settings.register_profile("ci", deadline=None, derandomize=False, print_blob=True)
settings.register_profile("quick", settings.get_profile("ci"), max_examples=20)
settings.register_profile(
    "thorough",
    settings.get_profile("ci"),
    max_examples=5_000,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def configured_for_itself() -> Iterator[None]:
    """What ``exoflow.configure`` set for one test is gone after it."""
    from exoflow import settings as ours

    before = dict(ours._configured)
    yield
    ours._configured.clear()
    ours._configured.update(before)  # type: ignore[typeddict-item]  # it was one


@pytest.fixture
def quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a bucket an owner is called dead after three seconds of silence instead of 15."""
    from exoflow.journal import journal, takeover

    monkeypatch.setattr(journal, "BEAT_S", 1.0)
    monkeypatch.setattr(takeover, "BEAT_S", 1.0)


_stores = itertools.count()


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of an S3 server with an empty bucket named ``bucket``, in a process of its own."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    program = Path(__file__).parent / "s3" / "server.py"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, str(program)], stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdout is not None
        endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/bucket", method="PUT")).close()
        yield endpoint
        assert server.stdin is not None
        server.stdin.close()  # it ends with it


@pytest.fixture
def s3_environment(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The endpoint; this process and those that it starts find it, as they would find Amazon's."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return s3_endpoint


@pytest.fixture
def s3_url(s3_environment: str) -> str:
    """A store in the bucket that no other test has seen."""
    return f"s3://bucket/store-{next(_stores)}"


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Path]:
    """A Ray of two CPUs that this process is connected to, by its folder. It takes seconds to start."""
    import ray

    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # a short path: sockets have no room for pytest's
    settings = {"include_dashboard": False, "log_to_driver": False, "_temp_dir": folder}
    ray.init(num_cpus=2, object_store_memory=100 << 20, resources={"scale": 1.0}, **settings)
    yield Path(folder)
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def dask_cluster() -> Iterator["Client"]:
    """A client of a Dask of two workers, one thread each, for all tests of a module that leave it as it was."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client
