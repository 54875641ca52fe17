"""Timeouts, cancels, and the end of the executor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exoflow.errors import ExecutorError
from exoflow.model import RunId, Version
from exoflow.protocols import Computed, Vanished
from exoflow.testing.executors.bench import Bench, OnBench
from exoflow.testing.executors.bodies import (
    WAIT_S,
    failing,
    lines,
    returned,
    wait_for_line,
    waits,
    waits_async,
)


class Stopping(OnBench):
    """What is stopped is reported once, and has ended then where the executor can end it."""

    @pytest.mark.parametrize("body", [waits, waits_async])
    def test_a_timeout_is_a_vanished_attempt(self, bench: Bench, tmp_path: Path, body: Callable[..., Any]) -> None:
        gate, started = tmp_path / "gate", tmp_path / "started"
        bench.run(returned, 0)  # a worker has imported this module: on a machine that is busy that takes longer
        outcome = bench.run(body, str(started), str(gate), timeout_s=0.5)
        assert isinstance(outcome, Vanished)
        assert "timed out after 0.5 s" in outcome.reason
        self.has_ended(started)
        gate.touch()
        assert bench.has_nothing_more()

    def test_what_ends_in_time_is_not_timed_out(self, bench: Bench) -> None:
        assert bench.result(returned, 1, timeout_s=WAIT_S) == 1

    @pytest.mark.parametrize("body", [waits, waits_async])
    def test_a_running_attempt_can_be_cancelled(self, bench: Bench, tmp_path: Path, body: Callable[..., Any]) -> None:
        gate, started = tmp_path / "gate", tmp_path / "started"
        attempt = bench.start(body, str(started), str(gate))
        wait_for_line(started)
        bench.executor.cancel(attempt.version, attempt.run_id)
        outcome = bench.outcome()
        assert isinstance(outcome, Vanished)
        assert outcome.reason == "cancelled"
        self.has_ended(started)
        gate.touch()
        assert bench.has_nothing_more()

    def test_an_attempt_that_waits_for_a_worker_can_be_cancelled(self, bench: Bench, tmp_path: Path) -> None:
        gate, never = tmp_path / "gate", tmp_path / "never"
        busy = 64
        for _ in range(busy):
            bench.start(waits, str(tmp_path / "started"), str(gate))
        queued = bench.start(waits, str(never), str(gate))
        bench.executor.cancel(queued.version, queued.run_id)
        assert bench.reports.get(timeout=WAIT_S) == (busy + 1, Vanished("cancelled"))
        gate.touch()
        assert all(isinstance(bench.outcome(), Computed) for _ in range(busy))
        assert lines(never) == []

    def test_an_attempt_that_was_cancelled_does_not_begin_in_the_place_of_its_undo(
        self, bench: Bench, tmp_path: Path
    ) -> None:
        gate, never = tmp_path / "gate", tmp_path / "never"
        for _ in range(64):
            bench.start(waits, str(tmp_path / "started"), str(gate))
        queued = bench.start(waits, str(never), str(gate))
        bench.executor.cancel(queued.version, queued.run_id)
        assert bench.outcome() == Vanished("cancelled")
        bench.start(returned, "undone", undoes=queued)
        gate.touch()
        assert all(isinstance(bench.outcome(), Computed) for _ in range(65))
        assert bench.has_nothing_more()
        assert lines(never) == []

    def test_the_deadline_of_an_attempt_is_not_that_of_its_undo(self, bench: Bench, tmp_path: Path) -> None:
        gate, started = tmp_path / "gate", tmp_path / "started"
        failed = bench.start(failing, "no", timeout_s=0.5)
        bench.outcome()  # its error; on a machine that is busy it is late already
        bench.start(waits, str(started), str(gate), undoes=failed)
        bench.start(waits, str(started), str(gate), timeout_s=1.0)  # its deadline is behind that one
        assert bench.reports.get(timeout=WAIT_S)[0] == 3
        gate.touch()
        assert isinstance(bench.outcome(), Computed)

    def test_cancelling_what_has_ended_or_never_was_does_nothing(self, bench: Bench) -> None:
        attempt = bench.start(returned, 1)
        assert isinstance(bench.outcome(), Computed)
        bench.executor.cancel(attempt.version, attempt.run_id)
        bench.executor.cancel(Version(99), RunId("nobody"))
        assert bench.has_nothing_more()

    def test_nothing_starts_after_close(self, bench: Bench) -> None:
        bench.executor.close()
        with pytest.raises(ExecutorError):
            bench.start(returned, 1)

    def test_close_ends_what_it_can(self, bench: Bench, tmp_path: Path) -> None:
        gate, started = tmp_path / "gate", tmp_path / "started"
        bench.start(waits, str(started), str(gate))
        wait_for_line(started)
        bench.executor.close()
        self.has_ended(started)
        gate.touch()
