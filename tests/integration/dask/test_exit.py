"""Programs that end with a cluster: they say nothing of it."""

import contextlib
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROGRAM = """
    import sys
    import exoflow
    from exoflow import flow, task

    @exoflow.actor
    class Counter:
        def __init__(self):
            self.n = 0

        @task
        def inc(self):
            self.n += 1
            return self.n

    @task
    def large(size):
        return bytes(size)

    @flow
    def both():
        return len(large(200_000)) + Counter().inc()

    if __name__ == "__main__":
        if sys.argv[1] == "client":
            from distributed import Client

            client = Client(n_workers=1, threads_per_worker=1, dashboard_address=":0")
        print(both.options(store=sys.argv[2], executor="dask:1" if sys.argv[1] == "own" else "dask").run())
"""


@pytest.mark.parametrize(
    ("cluster", "flags"),
    [("own", []), ("client", ["-W", "error"]), pytest.param("own", ["-W", "error"], marks=pytest.mark.big)],
)
def test_a_program_ends_without_a_word(tmp_path: Path, cluster: str, flags: list[str]) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    with socket.socket() as dashboard:
        with contextlib.suppress(OSError):  # it is in use already, as it is to be
            dashboard.bind(("", 8787))
            dashboard.listen()
        ran = subprocess.run(
            [sys.executable, *flags, str(program), cluster, str(tmp_path / "store")],
            capture_output=True,
            text=True,
            check=False,
        )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("200001\n", "", 0)
