"""A thread that was given up and comes back changes nothing."""

import threading
from queue import SimpleQueue

from exoflow.codec import decode, from_bytes
from exoflow.executors import LocalExecutor
from exoflow.model import CallId, RunId, version
from exoflow.protocols import Attempt, Computed, Vanished

WAIT_S = 60.0


def attempt_at(function):
    return Attempt(RunId("run"), CallId("call#0"), version(1, 1), 1, "key", "task", function, (), {}, {})


def test_a_thread_that_was_given_up_does_not_end_the_undo_of_its_attempt():
    executor, reports = LocalExecutor(), SimpleQueue()
    began, gate, undo_gate = SimpleQueue(), threading.Event(), threading.Event()

    def body():
        began.put(threading.current_thread())
        assert gate.wait(WAIT_S)

    def undo():
        assert undo_gate.wait(WAIT_S)
        return "undone"

    given_up = attempt_at(body)
    executor.start(given_up, reports.put)
    thread = began.get(timeout=WAIT_S)
    executor.cancel(given_up.version, given_up.run_id)
    assert reports.get(timeout=WAIT_S) == Vanished("cancelled")
    executor.start(attempt_at(undo), reports.put)
    gate.set()
    thread.join(WAIT_S)
    undo_gate.set()
    outcome = reports.get(timeout=WAIT_S)
    assert isinstance(outcome, Computed)
    assert decode(from_bytes(outcome.value)) == "undone"
    executor.close()
