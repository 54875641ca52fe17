"""The simulated machine, on batches that can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from exoflow.llm.fair import FCFS, RPM, VTC, Arrival, BatchCost, Linear, Result, simulate, steady
from exoflow.llm.fair.policy import Policy
from exoflow.llm.fair.simulator import SimulatedRequest, most_needed

A_SECOND = BatchCost(prefill_s=1.0, prefill_token_s=0.0, step_s=1.0, sequence_s=0.0, context_token_s=0.0)
LONG = 10_000


def served(arrivals: Sequence[Arrival], memory_tokens: int = LONG, cost: BatchCost = A_SECOND) -> Result:
    return simulate(arrivals, FCFS(), cost, memory_tokens=memory_tokens)


def times(result: Result) -> list[tuple[float, float]]:
    return [(each.first_token_s, each.finish_s) for each in result.served]


def test_prefill_gives_the_first_token_and_each_step_one_more() -> None:
    assert times(served([Arrival(0, "a", 5, 3)])) == [(1.0, 3.0)]


def test_one_token_is_given_by_the_prefill_alone() -> None:
    assert times(served([Arrival(0, "a", 5, 1)])) == [(1.0, 1.0)]


def test_an_idle_machine_waits_for_who_comes_next() -> None:
    assert times(served([Arrival(0, "a", 5, 2), Arrival(7.5, "a", 5, 2)])) == [(1.0, 2.0), (8.5, 9.5)]


def test_who_comes_while_a_batch_runs_is_admitted_ten_steps_after_the_last_was() -> None:
    result = served([Arrival(0, "a", 5, 20), Arrival(0.5, "b", 5, 2)])
    # 1 s prefill, ten steps, 1 s prefill in which a waits, then eighteen minus nine steps for a
    assert times(result) == [(1.0, 21.0), (12.0, 13.0)]


def test_after_ten_steps_admission_is_tried_at_every_step() -> None:
    assert times(served([Arrival(0, "a", 5, 30), Arrival(13.5, "b", 5, 2)])) == [(1.0, 31.0), (15.0, 16.0)]


def test_an_emptied_batch_admits_at_once() -> None:
    assert times(served([Arrival(0, "a", 5, 3), Arrival(0.5, "b", 5, 2)])) == [(1.0, 3.0), (4.0, 5.0)]


def test_time_grows_with_prompts_sequences_and_context() -> None:
    cost = BatchCost(prefill_s=1.0, prefill_token_s=0.1, step_s=1.0, sequence_s=0.01, context_token_s=0.001)
    result = served([Arrival(0, "a", 10, 3), Arrival(0, "b", 20, 3)], cost=cost)
    first = 1.0 + 0.1 * 30
    steps = 2 * (1.0 + 0.01 * 2) + 0.001 * (32 + 34)
    assert [time for pair in times(result) for time in pair] == pytest.approx([first, first + steps] * 2)


def test_an_a10g_has_the_paper_s_figures() -> None:
    assert BatchCost.a10g().prefill(1000) == pytest.approx(0.24898)
    assert BatchCost.a10g().decode(30, 10_000) == pytest.approx(0.020432 + 0.0063546 + 0.0155992 + 0.003)


@pytest.mark.parametrize(
    ("held", "most"),
    [
        ([], 0),
        ([(9, 1)], 10),
        ([(9, 1), (9, 1)], 20),
        ([(9, 1), (0, 10)], 11),  # when the short one ends, the long one has grown by nothing yet
        ([(5, 10), (5, 2)], 22),
        ([(10, 1), (2, 50)], 55),
    ],
)
def test_the_most_memory_that_a_batch_will_need(held: list[tuple[int, int]], most: int) -> None:
    assert most_needed(held) == most


def test_a_request_that_does_not_fit_waits_and_nobody_passes_it() -> None:
    arrivals = [Arrival(0, "a", 50, 40), Arrival(0.1, "b", 50, 40), Arrival(0.2, "c", 1, 2)]
    long, blocked, small = times(served(arrivals, memory_tokens=150))
    assert blocked[0] > long[1]
    assert small[0] >= blocked[0]


def test_each_client_in_the_batch_takes_room_for_its_adapter() -> None:
    both = [Arrival(0, "a", 10, 10), Arrival(0, "b", 10, 10)]
    same = [Arrival(0, "a", 10, 10), Arrival(0, "a", 10, 10)]
    assert times(served(same, memory_tokens=41 + 32))[1] == (1.0, 10.0)
    assert times(served(both, memory_tokens=41 + 32))[1] != (1.0, 10.0)
    assert times(served(both, memory_tokens=41 + 64))[1] == (1.0, 10.0)


def test_a_prefill_takes_no_more_prompts_than_it_may() -> None:
    result = simulate(
        [Arrival(0, "a", 60, 2)] * 3, FCFS(), A_SECOND, memory_tokens=LONG, prefill_tokens=120, retry_steps=0
    )
    assert [first for first, _ in times(result)] == [1.0, 1.0, 2.0]


def test_a_request_that_can_never_run_is_told() -> None:
    with pytest.raises(ValueError, match=r"request 0 of a .* can never run: there is room for 100 tokens"):
        served([Arrival(0, "a", 60, 60)], memory_tokens=100)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Arrival(-1, "a", 1, 1),
        lambda: Arrival(0, "a", 0, 1),
        lambda: Arrival(0, "a", 1, 0),
        lambda: Arrival(0, "a", 1, 8, max_output_tokens=7),
    ],
    ids=["before the beginning", "no input", "no output", "more than asked for"],
)
def test_an_arrival_that_makes_no_sense_is_told(wrong: Callable[[], Arrival]) -> None:
    with pytest.raises(ValueError, match="Arrival"):
        wrong()


class Closed:
    """A policy that lets nobody go."""

    def __init__(self) -> None:
        self.waiting: list[SimulatedRequest] = []

    def add(self, w: SimulatedRequest, now_s: float) -> None:
        self.waiting.append(w)

    def peek(self, now_s: float) -> SimulatedRequest | None:
        return None

    def __len__(self) -> int:
        return len(self.waiting)


def test_a_policy_that_lets_nobody_go_is_told() -> None:
    closed: Policy[SimulatedRequest] = Closed()  # type: ignore[assignment]  # what is never called is left out
    with pytest.raises(ValueError, match="lets none of 1 requests go"):
        simulate([Arrival(0, "a", 1, 1)], closed, A_SECOND, memory_tokens=LONG)


class LateOpening(FCFS):
    def peek(self, now_s: float) -> SimulatedRequest | None:
        return super().peek(now_s) if now_s >= 5.0 else None


def test_a_policy_may_hold_back_on_an_idle_machine() -> None:
    result = simulate([Arrival(0, "a", 1, 1)], LateOpening(), A_SECOND, memory_tokens=LONG)
    assert result.first_token_s("a")[0] == pytest.approx(6.0, abs=0.02)


def test_a_limit_a_minute_is_kept_on_an_idle_machine() -> None:
    result = simulate([Arrival(0, "a", 1, 1)] * 5, RPM(2), A_SECOND, memory_tokens=LONG)
    assert [each.first_token_s for each in result.served] == pytest.approx([1, 1, 61, 61, 121], abs=0.03)


def test_service_is_spread_evenly_from_the_first_token_to_the_last() -> None:
    result = served([Arrival(0, "a", 10, 5)])  # first token at 1 s, last at 5 s, worth 20
    assert result.service("a", 0, 1) == 0
    assert result.service("a", 1, 2) == pytest.approx(5.0)
    assert result.service("a", 2, 100) == pytest.approx(15.0)


def test_service_may_be_worth_something_else() -> None:
    result = simulate([Arrival(0, "a", 10, 5)], FCFS(), A_SECOND, memory_tokens=LONG, service=Linear(1, 4))
    assert result.service("a", 0, 100) == pytest.approx(30.0)


def test_tokens_a_second_are_all_tokens_by_the_drained_time() -> None:
    assert served([Arrival(0, "a", 10, 5), Arrival(0, "b", 10, 5)]).tokens_per_s == pytest.approx(30 / 5)


def test_the_difference_leaves_out_what_a_client_did_not_ask_for() -> None:
    # a gets 10 tokens a second all the time, b asks for little and gets it
    result = served([*(Arrival(at, "a", 5, 2) for at in range(0, 120, 4)), Arrival(40, "b", 5, 2)])
    assert result.service("b", 10, 70) == pytest.approx(9.0)
    assert result.difference(40.0) == pytest.approx(0.0, abs=0.01)


def test_the_difference_counts_what_a_client_asked_for_and_lacks() -> None:
    # b waits until a has ended: it got nothing of all that it asked for, a got 60 tokens and their part of its prompt
    result = served([Arrival(0, "a", 100, 1001), *[Arrival(40, "b", 1100, 1)] * 12], memory_tokens=1200)
    got = result.service("a", 10, 70) / 60
    assert got == pytest.approx(2102 / 1000)
    assert result.difference(40.0) == pytest.approx(got)


def test_a_client_that_is_a_path_is_named_by_it() -> None:
    result = served([Arrival(0, ("acme", "ann"), 1, 1)])
    assert result.clients == ("acme/ann",)
    assert len(result.first_token_s(("acme", "ann"))) == len(result.first_token_s("acme/ann")) == 1


def test_an_unknown_client_is_told_with_those_that_are_known() -> None:
    with pytest.raises(KeyError, match="'c' asked for nothing here; clients: a, b"):
        served([Arrival(0, "a", 1, 1), Arrival(0, "b", 1, 1)]).service("c", 0, 1)


def test_a_run_without_requests_has_nothing_to_tell() -> None:
    result = served([])
    assert (result.tokens_per_s, result.max_difference, result.clients) == (0.0, 0.0, ())


def test_the_table_has_a_line_for_each_client() -> None:
    lines = served([Arrival(0, "a", 10, 5), Arrival(0, "b", 20, 10)]).table().splitlines()
    assert lines[2] == "| a | 1 | 10 | 5 | 20 | 0.333 | 1.0 s | 1.0 s |"
    assert lines[4] == "| all | 2 | 30 | 15 | 60 | 1.000 | 1.0 s | 1.0 s |"


def test_steady_clients_ask_at_their_pace_from_a_phase_of_their_own() -> None:
    arrivals = steady({"a": 2.0, "b": 0.5}, duration_s=20.0, seed=3)
    by_client = {name: [each.time_s for each in arrivals if each.client == name] for name in ("a", "b")}
    assert {name: len(times_s) for name, times_s in by_client.items()} == {"a": 40, "b": 10}
    assert 0.5 <= by_client["a"][0] <= 1.0 and 2.0 <= by_client["b"][0] <= 4.0
    gaps = [later - sooner for sooner, later in zip(by_client["b"], by_client["b"][1:], strict=False)]
    assert gaps == pytest.approx([2.0] * 9)
    assert arrivals == steady({"a": 2.0, "b": 0.5}, duration_s=20.0, seed=3) != steady({"a": 2.0, "b": 0.5}, seed=4)


def test_the_same_run_gives_the_same_result() -> None:
    arrivals = steady([1.5, 3.0], duration_s=30)
    once, again = (simulate(arrivals, VTC(Linear(1, 2)), BatchCost.a10g(), memory_tokens=LONG) for _ in range(2))
    assert once == again


def test_a_drawing_has_a_line_for_each_client() -> None:
    pytest.importorskip("matplotlib")
    service, differences = served([Arrival(0, "a", 10, 5), Arrival(0, "b", 20, 10)]).plot().axes
    assert [line.get_label() for line in service.lines] == ["a", "b"]
    assert len(differences.lines) == 1


@pytest.mark.parametrize("time_s", [float("nan"), float("inf"), -1.0])
def test_an_arrival_that_never_comes_is_refused(time_s: float) -> None:
    with pytest.raises(ValueError, match="a time must be"):
        Arrival(time_s, "a", 1, 1)
