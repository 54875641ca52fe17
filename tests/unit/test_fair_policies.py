"""VTC and its baselines, request by request."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from exoflow.errors import LLMError
from exoflow.llm.fair import DRR, FCFS, LCF, RPM, VTC, Linear, Policy
from exoflow.llm.fair.charges import Within
from exoflow.llm.fair.line import ENDED_MAX


@dataclass(frozen=True)
class Asked:
    number: int
    client: tuple[str, ...] = ("a",)
    input_tokens: int = 10
    output_tokens: int = 5
    arrival_s: float = 0.0
    max_output_tokens: int = 100
    priority: int = 0
    job: str = ""


POLICIES = [
    pytest.param(VTC, id="vtc"),
    pytest.param(FCFS, id="fcfs"),
    pytest.param(LCF, id="lcf"),
    pytest.param(lambda: RPM(1000), id="rpm"),
    pytest.param(DRR, id="drr"),
    pytest.param(lambda: VTC(charge="reserve"), id="reserve"),
    pytest.param(lambda: VTC(predict="mean"), id="mean"),
]


def order(policy: Policy[Asked], now_s: float = 0.0) -> list[int]:
    numbers = []
    while (w := policy.peek(now_s)) is not None:
        assert policy.pop(now_s) is w
        numbers.append(w.number)
    return numbers


def filled(policy: Any, *asked: Asked) -> Any:
    for w in asked:
        policy.add(w, w.arrival_s)
    return policy


def test_three_of_one_and_one_of_another() -> None:
    policy = filled(VTC(Linear(1, 2)), *(Asked(number, ("A",), 100) for number in (1, 2, 3)), Asked(4, ("B",), 10))
    assert order(policy) == [1, 4, 2, 3]
    assert policy.counters() == {("A",): 300, ("B",): 10}


@pytest.mark.parametrize("make", POLICIES)
def test_what_is_peeked_is_popped_and_nothing_is_lost(make: Any) -> None:
    asked = [Asked(number, (f"c{number % 3}",)) for number in range(9)]
    policy = filled(make(), *asked)
    assert len(policy) == 9 and set(policy) == set(asked)
    assert policy.cancel(asked[4]) and not policy.cancel(asked[4])
    first = policy.pop(0.0)
    assert not policy.cancel(first)
    policy.charge(first, 3)
    policy.requeue(first, 0.0)
    assert len(policy) == 8 and policy.cancel(first)
    assert sorted([*order(policy), first.number]) == [0, 1, 2, 3, 5, 6, 7, 8]
    for w in asked:
        if w not in (first, asked[4]):
            policy.finish(w)
    assert len(policy) == 0 and policy.peek(0.0) is None


@pytest.mark.parametrize("make", POLICIES)
def test_what_gave_up_its_place_comes_before_what_its_client_asked_later(make: Any) -> None:
    policy = filled(make(), *(Asked(number) for number in range(3)))
    first, second = policy.pop(0.0), policy.pop(0.0)
    policy.requeue(second, 0.0)
    policy.requeue(first, 0.0)
    assert order(policy) == [0, 1, 2]


@pytest.mark.parametrize("make", POLICIES)
def test_the_most_urgent_band_never_waits_for_another(make: Any) -> None:
    urgent = [Asked(number, ("late",), arrival_s=9.0) for number in (4, 5)]
    policy = filled(make(), *(Asked(number, priority=1 + number % 2) for number in range(4)), *urgent)
    assert order(policy, 9.0) == [4, 5, 0, 2, 1, 3]


def test_within_a_band_it_is_fair() -> None:
    asked = [Asked(number, ("flood",), priority=1) for number in range(5)] + [Asked(9, ("other",), priority=1)]
    assert order(filled(VTC(), *asked)) == [0, 9, 1, 2, 3, 4]


@pytest.mark.parametrize("make", [VTC, FCFS, LCF])
def test_who_has_waited_long_rises_by_a_band_at_a_time(make: Any) -> None:
    old = Asked(0, priority=2)
    policy = filled(make(ageing_s=10), old, Asked(1, ("b",), arrival_s=9.0, priority=1))
    policy.add(Asked(2, ("b",), arrival_s=12.0), 12.0)
    assert order(policy, 9.0) == [2, 1, 0]
    policy = filled(make(ageing_s=10), old, Asked(1, ("b",), arrival_s=5.0), Asked(2, ("b",), arrival_s=11.0))
    assert policy.pop(11.0).number == 1
    assert policy.pop(20.0).number == 0
    policy.finish(old)
    assert policy.pop(20.0).number == 2


def test_who_has_risen_can_be_cancelled_and_requeued() -> None:
    policy = VTC[Any](ageing_s=10)
    filled(policy, Asked(0, priority=1), Asked(1, priority=1))
    assert policy.pop(15.0).number == 0
    policy.requeue(Asked(0, priority=1), 15.0)
    assert policy.cancel(Asked(1, priority=1))
    assert [w.number for w in policy] == [0]
    assert order(policy, 100.0) == [0]


def test_who_was_cancelled_and_asks_again_rises_once() -> None:
    policy = VTC[Any](ageing_s=10)
    for _ in range(2):
        policy.add(Asked(0, priority=2), 0.0)
        policy.add(Asked(1, ("b",), priority=2), 0.0)
        assert policy.cancel(Asked(0, priority=2)) and policy.cancel(Asked(1, ("b",), priority=2))
    policy.add(Asked(0, priority=2), 0.0)
    policy.add(Asked(2, ("b",), arrival_s=9.0, priority=0), 9.0)
    assert order(policy, 15.0) == [2, 0]
    assert not policy._rises


# Jobs.


def test_jobs_keep_together_in_the_order_of_their_first_arrival() -> None:
    jobs = ["x", "y", "x", "", "y", "x"]
    policy = filled(VTC(), *(Asked(number, job=job) for number, job in enumerate(jobs)))
    assert order(policy) == [0, 2, 5, 1, 4, 3]


def test_a_job_keeps_its_place_between_two_calls() -> None:
    policy = filled(VTC(), Asked(0, job="x"), Asked(1, job="y"), Asked(2, job="y"))
    policy.pop(0.0)
    policy.finish(Asked(0, job="x"))
    policy.add(Asked(3, job="x"), 0.0)
    assert order(policy) == [3, 1, 2]


def test_jobs_do_not_change_who_of_two_clients_is_next() -> None:
    asked = [Asked(number, ("a",), job="vote") for number in range(4)] + [Asked(9, ("b",))]
    assert order(filled(VTC(), *asked)) == [0, 9, 1, 2, 3]


def test_the_places_that_are_kept_are_bounded() -> None:
    policy = filled(VTC(), Asked(-1))  # so that the client is never idle
    policy.pop(0.0)
    for number in range(ENDED_MAX + 10):
        w = Asked(number, job=str(number))
        policy.add(w, 0.0)
        policy.pop(0.0)
        policy.finish(w)
    line = policy._band(0)._find(("a",)).line
    assert len(line._places) == ENDED_MAX and not line._heap


# Charges.


@pytest.mark.parametrize(
    "how", [{}, {"charge": "reserve"}, {"predict": "oracle"}, {"predict": lambda w: 3}], ids=itertools.count()
)
def test_in_the_end_a_client_has_paid_what_it_got(how: dict[str, Any]) -> None:
    policy = filled(VTC(**how), Asked(0))
    policy.pop(0.0)
    for _ in range(5):
        policy.charge(Asked(0), 1)
    policy.finish(Asked(0))
    assert policy.counters() == {("a",): 10 + 2 * 5}


def test_what_is_predicted_is_charged_at_once_and_only_more_than_that_while_decoding() -> None:
    policy = filled(VTC(predict=lambda w: 3), Asked(0))
    policy.pop(0.0)
    seen = [policy.counters()["a",]]
    for _ in range(5):
        policy.charge(Asked(0), 1)
        seen.append(policy.counters()["a",])
    assert seen == [16, 16, 16, 16, 18, 20]


def test_the_mean_is_of_the_last_five() -> None:
    policy, lengths, expected = VTC[Any](predict="mean"), [10, 1, 2, 3, 4, 6], []
    for number, length in enumerate([*lengths, 0]):
        before = policy.counters().get(("a",), Fraction(0))
        w = Asked(number)
        policy.add(w, 0.0)
        policy.pop(0.0)
        expected.append((policy.counters()["a",] - before - 10) / 2)
        policy.charge(w, length)
        policy.finish(w)
    assert expected == [0, 10, 5, 4, 4, 4, 3]


def test_what_ends_in_the_middle_gets_its_reserve_back() -> None:
    policy = filled(VTC(charge="reserve"), Asked(0), Asked(1))
    policy.pop(0.0)
    assert policy.counters() == {("a",): 210}
    policy.charge(Asked(0), 4)
    policy.requeue(Asked(0), 0.0)
    assert policy.cancel(Asked(0))
    assert policy.counters() == {("a",): 18}


def test_a_refund_moves_its_client_forward() -> None:
    policy = filled(VTC(charge="reserve"), Asked(0, ("a",)), Asked(1, ("b",), max_output_tokens=50))
    filled(policy, Asked(2, ("a",)), Asked(3, ("b",)))
    policy.pop(0.0), policy.pop(0.0)
    assert policy.peek(0.0).client == ("b",)
    policy.finish(Asked(0, ("a",)))
    assert policy.counters() == {("a",): 10, ("b",): 110}
    assert policy.peek(0.0).client == ("a",)


def test_nobody_is_lifted_for_a_refund() -> None:
    policy = filled(VTC(charge="reserve"), Asked(0, ("a",)), Asked(1, ("b",)), Asked(2, ("b",)))
    policy.pop(0.0), policy.pop(0.0)
    policy.finish(Asked(0, ("a",)))
    assert policy.counters() == {("a",): 10, ("b",): 210}
    policy.add(Asked(3, ("a",)), 0.0)
    assert policy.counters()["a",] == 210


def test_what_is_billed_is_what_it_cost() -> None:
    cost = Linear(1, 2, cached="0.1")
    policy = filled(VTC(cost), Asked(0, input_tokens=100))
    policy.pop(0.0)
    policy.charge(Asked(0), 5)
    policy.finish(Asked(0), billed=cost(100, 5, cached_tokens=80))
    assert policy.counters() == {("a",): (20 + 10 + 8) * cost.unit}


def test_a_preempted_request_is_not_charged_twice() -> None:
    policy = filled(VTC(), Asked(0))
    for _ in range(3):
        policy.pop(0.0)
        policy.charge(Asked(0), 1)
        policy.requeue(Asked(0), 0.0)
    assert policy.counters() == {("a",): 10 + 3 * 2}


def test_any_cost_that_does_not_fall_will_do() -> None:
    policy = filled(VTC(lambda n_p, n_q: n_p * n_p + n_p * n_q), Asked(0))
    policy.pop(0.0)
    policy.charge(Asked(0), 2)
    assert policy.counters() == {("a",): 120}
    policy = filled(VTC(lambda n_p, n_q: 100 - n_q), Asked(0))
    policy.pop(0.0)
    with pytest.raises(ValueError, match="must not fall"):
        policy.charge(Asked(0), 2)


@dataclass(frozen=True)
class Cached(Asked):
    cached: int = 8


@pytest.mark.parametrize("charge", ["complete", "reserve"])
def test_what_an_engine_found_in_its_cache_has_its_own_price_at_the_end(charge: Any) -> None:
    for price, charged in ((None, 10 + 2 * 3), ("0.25", 2 + 8 / 4 + 2 * 3)):
        cost = Linear(1, 2, cached=price)
        policy = filled(VTC(cost, charge=charge), Cached(0), Asked(1))
        policy.charge(policy.pop(0.0), 3)
        policy.finish(Cached(0))
        assert policy.counters()[("a",)] == charged * cost.unit


@pytest.mark.parametrize("kind", [VTC, LCF, DRR])
def test_a_cost_function_that_fails_is_named(kind: Any) -> None:
    policy = filled(kind(lambda n_p, n_q: {}[n_p]), Asked(0))
    with pytest.raises(LLMError, match=r"cost=.*<lambda>, asked for 10 tokens in and 0 out, failed, KeyError: 10"):
        policy.pop(0.0)


def test_what_a_resumed_run_has_spent_is_charged_to_its_client() -> None:
    policy = VTC[Any]()
    policy.spend("a", 1000)
    filled(policy, Asked(0, ("b",)), Asked(1, ("a",)), Asked(2, ("b",)))
    assert order(policy) == [0, 2, 1]


def test_heaps_do_not_grow_with_what_has_left_them() -> None:
    asked = [Asked(number) for number in range(200)]
    policy = filled(VTC(charge="reserve"), *asked)
    assert len(order(policy)) == 200
    filled(policy, Asked(200), Asked(201, ("b",)))
    for w in asked:
        policy.finish(w)  # each refund moves its client forward
    group = policy._band(0).root
    assert len(group.heap) <= 2 * group.queued + 33
    later = [Asked(number) for number in range(300, 400)]
    filled(policy, *later)
    assert all(policy.cancel(w) for w in later)
    line = policy._band(0)._find(("a",)).line
    assert len(line._heap) <= 2 * len(line) + 17
    assert order(policy) == [200, 201]


def test_means_are_remembered_of_so_many_clients_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exoflow.llm.fair.charges.CLIENTS_MAX", 2)
    policy = VTC[Any](predict="mean")
    for number, client in enumerate("abac"):
        policy.add(Asked(number, (client,)), 0.0)
        policy.pop(0.0)
        policy.charge(Asked(number, (client,)), 4)
        policy.finish(Asked(number, (client,)))
    policy.add(Asked(9, ("b",)), 0.0)
    before = policy.counters()["b",]
    policy.pop(0.0)
    assert policy.counters()["b",] - before == 10, "who ended the longest ago is forgotten"


# Weights.


def test_weights_are_taken_at_their_digits() -> None:
    policy = VTC[Any](weights={"a": 1.5, ("b",): "0.1", "c": Decimal(3), ("d", "x"): 7})
    filled(policy, *(Asked(number, client) for number, client in enumerate([("a",), ("b",), ("c",), ("d", "x")])))
    assert len(order(policy)) == 4
    assert policy.counters() == {
        ("a",): Fraction(20, 3), ("b",): 100, ("c",): Fraction(10, 3), ("d",): 10, ("d", "x"): Fraction(10, 7)
    }  # fmt: skip


def test_a_weight_that_changes_leaves_the_counters_and_changes_what_comes() -> None:
    policy = filled(VTC(weights={"b": 3}), Asked(0), Asked(1, ("b",)), Asked(2), Asked(3, ("b",)))
    policy.pop(0.0), policy.pop(0.0)
    before = policy.counters()
    policy.weigh("a", "0.7")
    assert policy.counters() == before == {("a",): 10, ("b",): Fraction(10, 3)}
    policy.charge(Asked(0), 7)
    policy.charge(Asked(1, ("b",)), 3)
    assert policy.counters() == {("a",): 10 + 20, ("b",): Fraction(10, 3) + 2}
    policy.weigh("b", 1_000_003)
    policy.charge(Asked(1, ("b",)), 1)
    assert policy.counters()["b",] == Fraction(16, 3) + Fraction(2, 1_000_003)
    assert order(policy) == [3, 2]


def test_a_reserve_is_given_back_exactly_after_its_weight_has_changed() -> None:
    policy = filled(VTC(charge="reserve"), Asked(0))
    policy.pop(0.0)
    policy.charge(Asked(0), 2)
    policy.weigh("a", 3)
    policy.charge(Asked(0), 3)
    policy.finish(Asked(0))
    assert policy.counters() == {("a",): 10 + 4 + Fraction(6, 3)}


def test_a_group_has_the_weight_of_its_path() -> None:
    policy = VTC[Any](weights={"a": 2, ("a", "x"): 5})
    filled(policy, Asked(0, ("a", "x")), Asked(1, ("b", "x")))
    order(policy)
    assert policy.counters() == {("a",): 5, ("a", "x"): 2, ("b",): 10, ("b", "x"): 10}
    policy.weigh("nobody", 2)


def test_a_tenant_and_its_users_may_both_ask() -> None:
    policy = filled(VTC(), Asked(0, ("a",)), Asked(1, ("a", "x")), Asked(2, ("a",)), Asked(3, ("b",)), Asked(4, ()))
    assert order(policy) == [0, 3, 4, 1, 2]
    assert policy.counters()[()] == 10


# Baselines.


def test_a_minute_has_no_more_of_a_client_than_its_limit() -> None:
    asked = [Asked(0), Asked(1), Asked(2), Asked(3, ("b",)), Asked(4, priority=1)]
    policy = filled(RPM(2), *asked)
    assert order(policy, 10.0) == [0, 1, 3]
    assert policy.peek(59.0) is None and policy.ready_s(59.0) == 60.0
    policy.requeue(asked[0], 59.0)
    assert order(policy, 59.0) == [0]
    assert order(policy, 60.0) == [2, 4]
    assert policy.ready_s(60.0) is None


def test_turns_go_round_and_debts_wait() -> None:
    asked = [Asked(number, ("a",), 100) for number in range(3)] + [Asked(9, ("b",), 10), Asked(10, ("b",), 10)]
    policy = filled(DRR(quantum=50), *asked)
    assert order(policy) == [0, 9, 10, 1, 2]
    heavy = filled(DRR(quantum=50, weights={"b": "2.5"}), *(Asked(n, (c,), 100) for n, c in enumerate("abababbbb")))
    assert order(heavy)[:7] == [0, 1, 3, 5, 2, 6, 7]


def test_least_counter_first_serves_who_was_away_alone() -> None:
    for make, expected in ((LCF, [5, 6, 7, 3]), (VTC, [3, 5, 4, 6])):
        policy = filled(make(), *(Asked(number) for number in range(3)))
        order(policy)
        filled(policy, Asked(3), Asked(4), *(Asked(number, ("b",)) for number in (5, 6, 7)))
        assert order(policy)[:4] == expected


def test_least_counter_first_never_forgets_a_credit() -> None:
    policy = LCF[Any]()
    for number in range(600):
        w = Asked(number, (f"c{number}",), input_tokens=number)
        policy.add(w, 0.0)
        policy.pop(0.0)
        policy.finish(w)
    assert policy.counters() == {(f"c{number}",): number for number in range(600)}


# Wrong use.


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: VTC(weights={"a": 0}), "above 0"),
        (lambda: VTC(weights={"a": "much"}), "no number"),
        (lambda: VTC(weights={"a": float("nan")}), "no number"),
        (lambda: VTC(charge="later"), "complete"),  # type: ignore[arg-type]
        (lambda: VTC(predict="median"), "oracle"),  # type: ignore[arg-type]
        (lambda: VTC(predict="mean", charge="reserve"), "leave predict out"),
        (lambda: VTC(ageing_s=0), "ageing_s"),
        (lambda: VTC().add(Asked(0, priority=-1), 0.0), "most urgent"),
        (lambda: VTC().spend("a", -1), "spend"),
        (lambda: Linear(-1, 2), "nothing or more"),
        (lambda: RPM(0), "limit"),
        (lambda: DRR(quantum=0), "quantum"),
        (lambda: Within(2), "share"),
    ],
    ids=itertools.count(),
)
def test_wrong_settings_are_refused(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_an_oracle_needs_requests_that_know_their_length() -> None:
    class Unknown:
        number, client, arrival_s, input_tokens, max_output_tokens, priority, job = 0, ("a",), 0.0, 1, 2, 0, ""

    policy = filled(VTC(predict="oracle"), Unknown())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="output_tokens"):
        policy.pop(0.0)


def test_a_prediction_within_a_share_is_the_same_for_the_same_request() -> None:
    predict = Within("0.5", seed=1)
    lengths = [predict(Asked(number, output_tokens=100)) for number in range(1000)]
    assert lengths == [Within("0.5", seed=1)(Asked(number, output_tokens=100)) for number in range(1000)]
    assert lengths != [Within("0.5", seed=2)(Asked(number, output_tokens=100)) for number in range(1000)]
    assert 50 <= min(lengths) < 60 and 140 < max(lengths) <= 150 and 98 < sum(lengths) / 1000 < 102


def test_costs_are_equal_by_what_they_say() -> None:
    assert Linear(1, 2) == Linear("1.0", Decimal(2)) != Linear(1, 3)
    assert len({Linear(1, 2), Linear(1, 2, cached=1), Linear(1, 2, cached=0)}) == 2
    assert repr(Linear(1, 2, cached="0.1")) == "Linear(1, 2, cached=0.1)"
    assert Linear("0.15", "0.6").unit == 20 and Linear("0.15", "0.6")(100, 10) == (15 + 6) * 20
    assert pickle.loads(pickle.dumps(Linear(1, "2.5"))) == Linear(1, "2.5")
