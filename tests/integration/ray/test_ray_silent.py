"""A cluster that takes connections and answers nothing: Ray itself waits for it for a quarter of an hour."""

import os
import signal
import socket
import subprocess
import sys
import textwrap

import psutil
import pytest

from exoflow.testing.executors import wait_until

pytestmark = pytest.mark.slow

JOBS = """
    from exoflow import flow, task

    @task
    def one():
        return 1

    @flow(executor="ray")
    def asks():
        return one()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_command_whose_cluster_is_silent(tmp_path, number):
    (tmp_path / "jobs.py").write_text(textwrap.dedent(JOBS))
    with socket.create_server(("", 0)) as silent:
        process = subprocess.Popen(
            [sys.executable, "-c", "from exoflow.cli import main; main()", "run", "jobs.py:asks", "--id", "it"],
            cwd=tmp_path,
            text=True,
            stderr=subprocess.PIPE,
            env={**os.environ, "EXOFLOW_STORE": "store", "RAY_ADDRESS": f"127.0.0.1:{silent.getsockname()[1]}"},
        )
        with process:
            try:
                silent.accept()[0].close()  # ours, to see whether anybody is there
                with silent.accept()[0]:  # Ray's
                    # Python may overlook a signal that comes when its main thread is just about to wait.
                    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING, "it is busy")
                    process.send_signal(number)
                    _, err = process.communicate()
            finally:
                process.kill()
    assert process.returncode == 128 + number
    assert "nothing that was recorded is lost. Go on with it: exoflow resume it" in err
    assert "SIGTERM handler is not set" not in err
