"""A cluster that takes connections and answers nothing: Ray itself waits for it for a quarter of an hour."""

import os
import signal
import socket
import subprocess
import sys
import textwrap

import pytest

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


@pytest.mark.big
def test_a_signal_ends_a_command_whose_cluster_is_silent(tmp_path):
    (tmp_path / "jobs.py").write_text(textwrap.dedent(JOBS))
    said: list[str] = []
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
                with silent.accept()[0]:  # Ray's, which says so after five seconds: the main thread waits by then
                    assert process.stderr is not None
                    for line in process.stderr:
                        said.append(line)
                        if "Failed to connect" in line:
                            break
                    process.terminate()
                    _, err = process.communicate()
            finally:
                process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert "nothing that was recorded is lost. Go on with it: exoflow resume it" in err
    assert not any("SIGTERM handler is not set" in line for line in said)
