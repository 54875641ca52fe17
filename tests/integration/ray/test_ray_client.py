"""Through the Ray Client, where a server of the cluster's does what this process asks for: ray://host:port."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from pathlib import Path

import psutil
import pytest

from exoflow.testing.executors import WAIT_S

pytestmark = [
    pytest.mark.big,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("grpc") is None, reason="needs ray[client]"),
]

PROGRAM = """
    import os, signal, sys, time
    from pathlib import Path
    import numpy as np
    import psutil, ray
    import exoflow
    from exoflow import flow, task
    from exoflow.errors import RunCancelled

    FOLDER = Path(sys.argv[1])
    LARGE = 300_000

    def note(name):
        with open(FOLDER / "log", "a") as file:
            file.write(f"{name} {os.getpid()}\\n")

    def entered(name):
        log = FOLDER / "log"
        lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        return [int(pid) for word, pid in lines if word == name]

    def wait_until(condition):
        while not condition():
            time.sleep(0.01)

    def is_gone(pid):
        return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE

    @task
    def make(size):
        note("make")
        return np.arange(size)

    @task
    def measure(values):
        note("measure")
        if len(entered("measure")) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return int(values.size)

    @task
    def waits():
        note("waits")
        while True:
            time.sleep(0.01)

    @task
    def refers():
        return {"in": [ray.put("x")]}

    @task
    def follows(found):
        return ray.get(found["in"][0])

    @exoflow.actor(snapshot_every=2)
    class Counter:
        def __init__(self):
            note("New")
            self.count = 0
            self.ballast = np.zeros(LARGE)

        @task(deterministic=True, checkpoint="sync")
        def add(self, values, name):
            note(name)
            if name == "D" and len(entered("D")) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += values.size
            return self.count

    @flow
    def passed():
        values = make.submit(LARGE)
        return measure(values), int(values.result()[-1]), measure(np.zeros(LARGE))

    @flow
    def counted():
        counter = Counter()
        values = make.submit(LARGE)
        return [counter.add.submit(values, name) for name in "ABCDE"][-1].result()

    @flow
    def followed():
        return follows(refers.submit())

    @flow
    def cancelled():
        waits()

    def through(flow, **options):
        return flow.options(store=FOLDER / "store", executor=sys.argv[2], **options)

    if __name__ == "__main__":
        assert through(passed).run() == (LARGE, LARGE - 1, LARGE)
        assert len(entered("make")) == 1 and len(entered("measure")) == 3
        assert through(counted).run() == 5 * LARGE
        assert [len(entered(name)) for name in ("New", *"ABCDE")] == [2, 1, 1, 2, 2, 1]
        assert through(followed).run() == "x"
        run = through(cancelled).start()
        wait_until(lambda: entered("waits"))
        run.cancel()
        try:
            run.result()
        except RunCancelled:
            wait_until(lambda: is_gone(entered("waits")[0]))
            print("all is well")
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def settings():
    """Of everybody who may use the cluster: it listens to the network."""
    paths = [path for path in sys.path if path and os.path.isdir(path)]
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
    return {**os.environ, **token, "PYTHONPATH": os.pathsep.join(paths), "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}


@pytest.fixture(scope="module")
def address(settings):
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # a short path: sockets have no room for pytest's
    port, client_port = free_port(), free_port()
    words = [f"--port={port}", f"--ray-client-server-port={client_port}", f"--temp-dir={folder}", "--num-cpus=2"]
    words += ["--object-store-memory=100000000", "--include-dashboard=false", "--disable-usage-stats", "--block"]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", *words]
    log = Path(folder, "start.log")
    with log.open("w") as file:
        head = subprocess.Popen(command, env=settings, stdout=file, stderr=file)
    deadline = time.monotonic() + WAIT_S
    while "will now block" not in log.read_text():
        assert head.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    yield f"ray://127.0.0.1:{client_port}"
    parts = psutil.Process(head.pid).children(recursive=True)
    head.send_signal(signal.SIGTERM)
    head.wait(WAIT_S)
    for part in parts:
        if part.is_running():
            part.kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.timeout(300)
def test_values_actors_rays_objects_deaths_and_a_cancel_are_as_for_a_driver(address, settings, tmp_path):
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    words = [sys.executable, str(tmp_path / "program.py"), str(tmp_path), address]
    program = subprocess.run(words, check=False, env=settings, capture_output=True, text=True, timeout=2 * WAIT_S)
    assert "all is well" in program.stdout, program.stderr
