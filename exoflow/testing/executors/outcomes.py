"""What a body gets, and what comes of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from exoflow.codec import decode, encode_arguments, from_bytes, make_reference
from exoflow.errors import DidNotHappen
from exoflow.model import CallId, Held, Inline, version
from exoflow.protocols import Computed, Raised, Vanished
from exoflow.testing.executors.bench import Bench, OnBench
from exoflow.testing.executors.bodies import (
    LARGE,
    WAIT_S,
    about_itself,
    appended,
    both,
    did_not,
    exits,
    failing,
    follows,
    lines,
    puts,
    returned,
    returned_async,
    wait_for_line,
    waits,
)


class Outcomes(OnBench):
    """Each attempt has one, and the right one."""

    def test_a_result_comes_back(self, bench: Bench) -> None:
        assert bench.result(returned, {"a": [1, 2.5, None]}) == {"a": [1, 2.5, None]}

    def test_a_coroutine_is_awaited(self, bench: Bench) -> None:
        assert bench.result(returned_async, "x") == "x"

    @pytest.mark.parametrize("batchable", [False, True])
    def test_each_attempt_is_reported_exactly_once(self, bench: Bench, *, batchable: bool) -> None:
        for number in range(200):
            bench.start(returned_async if number % 7 == 0 else returned, number, batchable=batchable)
        reports = [bench.reports.get(timeout=WAIT_S) for _ in range(200)]
        assert sorted(serial for serial, _ in reports) == list(range(1, 201))
        for serial, outcome in reports:
            assert isinstance(outcome, Computed)
            assert isinstance(outcome.value, Inline)
            assert decode(from_bytes(outcome.value)) == serial - 1
        assert bench.has_nothing_more()

    def test_an_error_comes_back_as_itself(self, bench: Bench) -> None:
        error, did_not_happen = bench.error(failing, "no such row")
        assert type(error) is LookupError
        assert error.args == ("no such row",)
        assert "in failing" in error.__notes__[0]
        assert not did_not_happen

    def test_a_body_can_say_that_its_effect_did_not_happen(self, bench: Bench) -> None:
        error, did_not_happen = bench.error(did_not, "card declined")
        assert isinstance(error, DidNotHappen)
        assert did_not_happen

    def test_a_body_that_exits_ends_neither_the_worker_nor_the_program(self, bench: Bench) -> None:
        error, _ = bench.error(exits)
        assert "SystemExit: 3" in str(error)
        assert bench.result(returned, 1) == 1

    def test_a_result_that_cannot_be_pickled_is_an_error_that_says_where(self, bench: Bench) -> None:
        error, _ = bench.error(eval, "{'rows': [1, (x for x in ())]}")
        assert "['rows'][1]: a generator cannot be pickled" in str(error)

    def test_a_body_knows_which_attempt_it_is(self, bench: Bench) -> None:
        assert bench.result(about_itself, number=3) == ["run", "call#1", "run/call#1", 3, version(1, 1)]

    def test_a_function_without_a_name_goes_by_value(self, bench: Bench) -> None:
        factor = 3
        assert bench.result(lambda x: factor * x, 14) == 42

    def test_inputs_stand_in_the_places_of_refs(self, bench: Bench) -> None:
        ref = make_reference(CallId("a"))
        inputs = {CallId("a"): Inline(b"i\x05")}
        assert bench.result(both, [ref, {"deep": (ref,)}], 1, inputs=inputs) == [[5, {"deep": (5,)}], 1]

    def test_encoded_arguments_are_decoded_for_each_attempt(self, bench: Bench) -> None:
        encoded = encode_arguments(([0],), {}, task="appended")
        assert [bench.result(appended, encoded=encoded) for _ in range(2)] == [[0, 1], [0, 1]]

    def test_what_a_body_puts_is_reported_beside_its_result(self, bench: Bench) -> None:
        outcome = bench.run(puts, LARGE)
        assert isinstance(outcome, Computed)
        assert outcome.refs == ("call#1!0", "call#1!1")
        (first, small), (second, big) = outcome.puts
        assert (first, second) == outcome.refs
        assert small == Inline(b"sa")
        assert isinstance(big, Held)
        assert len(bench.fetched(big)) == LARGE

    def test_failures_follow_the_table_and_no_attempt_is_run_again(self, bench: Bench, tmp_path: Path) -> None:
        log = tmp_path / "log"
        tables = {"steady": ["ok"], "flaky": ["fail", "fail", "ok"], "doomed": ["fail", "fail"]}
        if self.kills:
            tables |= {"killed": ["lost", "ok"], "unlucky": ["lost", "fail", "lost", "ok"]}
        expected = {"ok": Computed, "fail": Raised, "lost": Vanished}
        for plan in tables.values():
            for number, what in enumerate(plan, 1):
                assert type(bench.run(follows, plan, str(log), number=number)) is expected[what]
        assert bench.has_nothing_more()
        attempts = sum(map(len, tables.values()))
        assert len(lines(log)) == attempts
        assert len(set(lines(log))) == attempts

    def test_a_killed_worker_is_one_vanished_attempt(self, bench: Bench, tmp_path: Path) -> None:
        if not self.kills:
            pytest.skip("its bodies run in this process")
        gate, started = tmp_path / "gate", tmp_path / "started"
        bench.start(waits, str(started), str(gate))
        pid = int(wait_for_line(started))
        bench.start(waits, str(tmp_path / "other"), str(gate))
        wait_for_line(tmp_path / "other")
        os.kill(pid, signal.SIGKILL)
        serial, outcome = bench.reports.get(timeout=WAIT_S)
        assert serial == 1
        assert isinstance(outcome, Vanished)
        assert "died" in outcome.reason
        gate.touch()
        assert isinstance(bench.outcome(), Computed)
        assert bench.has_nothing_more()
