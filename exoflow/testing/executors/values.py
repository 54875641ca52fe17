"""Large values: held, fetched, given to others, saved, lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from exoflow.codec import make_reference
from exoflow.model import CallId, Inline, Stored, Value
from exoflow.protocols import Store, Vanished
from exoflow.testing.executors.bench import Bench, OnBench
from exoflow.testing.executors.bodies import (
    LARGE,
    array,
    both,
    follows,
    large,
    puts_large,
    returned,
    written_to,
)


class Values(OnBench):
    """What is too large to be told stays where it is."""

    def test_a_large_result_is_held_and_can_be_fetched(self, bench: Bench) -> None:
        held = bench.held(large, 1)
        assert held.size >= LARGE
        assert bench.fetched(held) == bytes([1]) * LARGE

    def test_a_held_value_is_an_input(self, bench: Bench) -> None:
        held = bench.held(large, 2)
        inputs = {CallId("a"): held}
        value = bench.held(both, make_reference(CallId("a")), 0, inputs=inputs)
        assert bench.fetched(value) == [bytes([2]) * LARGE, 0]

    def test_a_large_argument_arrives(self, bench: Bench) -> None:
        assert bench.result(len, b"x" * LARGE) == LARGE

    def test_a_held_value_can_be_saved(self, bench: Bench, store: Store) -> None:
        held = bench.held(large, 3)
        saved = bench.save(held, "values/j/3")
        assert isinstance(saved, Stored)
        assert store.exists("values/j/3")
        bench.executor.release(held)
        assert bench.result(len, make_reference(CallId("a")), inputs={CallId("a"): saved}) == LARGE

    def test_what_a_body_put_can_be_saved_together(self, bench: Bench, store: Store) -> None:
        held = bench.put_by(puts_large, 3)
        saved = bench.save_together(held, "values/j/9")
        assert not isinstance(saved, BaseException)
        assert [part.name for part in saved] == ["values/j/9"] * 3
        assert len({part.at for part in saved}) == 3
        for number, part in enumerate(saved):
            bench.executor.release(held[number])
            inputs: dict[CallId, Value] = {CallId("a"): part}
            assert bench.result(len, make_reference(CallId("a")), inputs=inputs) == LARGE
            assert bench.result(set, make_reference(CallId("a")), inputs=inputs) == {number}

    def test_lost_values_cannot_be_saved_together_and_say_so(self, bench: Bench, store: Store) -> None:
        held = bench.put_by(puts_large, 2)
        for one in held:  # on some executors they lie in one object, which goes with the last of them
            bench.executor.drop(one)
        assert isinstance(bench.save_together(held, "values/j/10"), KeyError)
        assert not store.exists("values/j/10")

    def test_a_large_result_is_stored_by_whoever_computed_it(self, bench: Bench, store: Store) -> None:
        value = bench.compute(large, 4, save_to="values/j/4")
        assert isinstance(value, Stored)
        assert value.name == "values/j/4"
        assert store.exists("values/j/4")
        assert bench.result(len, make_reference(CallId("a")), inputs={CallId("a"): value}) == LARGE

    def test_a_small_result_is_inline_wherever_it_could_be_saved(self, bench: Bench, store: Store) -> None:
        assert bench.compute(returned, 1, save_to="values/j/5") == Inline(b"i\x01")
        assert not store.exists("values/j/5")

    @pytest.mark.parametrize("lose", ["release", "drop"])
    def test_a_lost_value_cannot_be_fetched_and_says_so(self, bench: Bench, lose: str) -> None:
        held = bench.held(large, 6)
        getattr(bench.executor, lose)(held)
        with pytest.raises(KeyError):
            bench.executor.fetch(held)
        assert isinstance(bench.save(held, "values/j/6"), KeyError)
        bench.executor.release(held)

    def test_an_attempt_whose_input_is_lost_vanishes_and_names_it(self, bench: Bench, tmp_path: Path) -> None:
        held = bench.held(large, 7)
        bench.executor.drop(held)
        ref = make_reference(CallId("a"))
        outcome = bench.run(follows, ["ok"], ref, inputs={CallId("a"): held})
        assert isinstance(outcome, Vanished)
        assert outcome.lost == ("a",)

    def test_a_damaged_input_is_named_too(self, bench: Bench, store: Store) -> None:
        store.create("values/j/8", b"rubbish" * 20_000)
        inputs: dict[CallId, Value] = {CallId("a"): Stored("values/j/8", 140_000)}
        outcome = bench.run(len, make_reference(CallId("a")), inputs=inputs)
        assert isinstance(outcome, Vanished)
        assert outcome.lost == ("a",)
        assert "values/j/8 is damaged" in outcome.reason

    def test_no_consumer_can_write_to_a_large_input(self, bench: Bench) -> None:
        pytest.importorskip("numpy")
        held = bench.held(array, LARGE)
        for _ in range(2):
            answer = bench.result(written_to, make_reference(CallId("a")), inputs={CallId("a"): held})
            assert answer.startswith("refused")
