"""Turns, budgets and limits in front of an endpoint."""

from __future__ import annotations

import asyncio
import gc
import pickle
import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from exoflow.errors import BudgetExceeded, LLMError
from exoflow.llm.engine.request import Overloaded, Usage, WrongRequest
from exoflow.llm.fair import RPM
from exoflow.llm.fair.pace import Pace
from exoflow.llm.fair.scheduler import Ask, FairScheduler, Grant, Tenant
from exoflow.llm.fair.settings import PolicyName
from exoflow.testing import SkippedTime


def ask(call: object, tenant: str = "acme", user: str = "", **more: object) -> Ask:
    about = {"input_tokens": 10, "max_output_tokens": 10, "run": "r", **more}
    return Ask(call=str(call), labels={"tenant": tenant, "user": user}, **about)  # type: ignore[arg-type]


async def turned() -> None:
    """Let whoever can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def asking(sched: FairScheduler, *asks: Ask) -> AsyncIterator[list[asyncio.Task[Grant]]]:
    """Tasks that wait for their turns, in this order; those that still do so at the end are cancelled."""
    tasks = []
    for each in asks:
        tasks.append(asyncio.create_task(sched.admit(each)))
        await turned()
    yield tasks
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Grant):
            outcome.release()


def standing(tasks: list[asyncio.Task[Grant]]) -> str:
    """``+`` has its turn, ``-`` waits, ``!`` is refused, ``x`` is cancelled."""
    return "".join(
        "-" if not task.done() else "x" if task.cancelled() else "!" if task.exception() else "+" for task in tasks
    )


async def test_a_slot_is_free_again_when_a_call_is_settled_or_released() -> None:
    sched = FairScheduler(slots=2)
    async with asking(sched, *map(ask, range(4))) as tasks:
        assert standing(tasks) == "++--"
        tasks[0].result().settle(Usage(10, 5), 0)
        await turned()
        assert standing(tasks) == "+++-"
        tasks[1].result().release()
        await turned()
        assert standing(tasks) == "++++"


async def test_a_call_that_is_settled_may_keep_its_slot_until_its_answer_is_durable() -> None:
    sched = FairScheduler(slots=1, tenants={"acme": Tenant(budget_tokens=40)})
    async with asking(sched, *map(ask, range(2))) as tasks:
        grant = tasks[0].result()
        grant.settle(Usage(10, 5), 7, keeps_slot=True)
        await turned()
        assert standing(tasks) == "+-"
        assert sched.stats()["acme"].spent_tokens == 15
        grant.release()
        grant.release()
        await turned()
        assert standing(tasks) == "++"
        assert sched.stats()["acme"].in_flight == 1


async def test_a_grant_ends_once() -> None:
    sched = FairScheduler(slots=1)
    async with asking(sched, *map(ask, range(3))) as tasks:
        grant = tasks[0].result()
        grant.settle(Usage(10, 5), 7)
        grant.settle(Usage(10, 5), 7)
        grant.release()
        grant.charge(3)
        await turned()
        assert standing(tasks) == "++-"
        assert sched.stats()["acme"].spent_tokens == 15


async def test_a_call_id_is_charged_once_whoever_settles_it() -> None:
    sched = FairScheduler(slots=4)
    for _ in range(2):
        (await sched.admit(ask("a"))).settle(Usage(10, 5), 7)
    sched.fold("r", "a", {"tenant": "acme"}, Usage(10, 5), 7)
    sched.fold("r", "b", {"tenant": "acme"}, Usage(1, 1), 1)
    (await sched.admit(ask("b"))).settle(Usage(1, 1), 1)
    stats = sched.stats()["acme"]
    assert (stats.calls, stats.spent_tokens, stats.in_flight) == (2, 17, 0)


async def test_cancelled_while_it_waits_it_is_passed_over() -> None:
    sched = FairScheduler(slots=1)
    async with asking(sched, *map(ask, range(3))) as tasks:
        tasks[1].cancel()
        await turned()
        assert standing(tasks) == "+x-" and sched.stats()["acme"].waiting == 1
        tasks[0].result().release()
        await turned()
        assert standing(tasks) == "+x+"


async def test_cancelled_just_when_its_turn_has_come_it_gives_it_on() -> None:
    sched = FairScheduler(slots=1)
    async with asking(sched, *map(ask, range(3))) as tasks:
        tasks[0].result().release()
        tasks[1].cancel()
        await turned()
        assert standing(tasks) == "+x+"


async def test_a_forgotten_grant_is_released() -> None:
    sched = FairScheduler(slots=1, tenants={"acme": Tenant(budget_tokens=1000)})
    async with asking(sched, ask(0), ask(1)) as tasks:
        del tasks[0]
        gc.collect()
        await turned()
        assert standing(tasks) == "+"
        assert sched.stats()["acme"].in_flight == 1


async def test_64_calls_at_once_cannot_overspend_a_budget() -> None:
    sched = FairScheduler(slots=64, tenants={"acme": Tenant(budget_usd=1)})
    rng = random.Random(7)
    spent, refused, most_reserved = 0, 0, 0

    async def call(number: int) -> None:
        nonlocal spent, refused, most_reserved
        try:
            grant = await sched.admit(ask(number, nano_usd=30_000_000))
        except BudgetExceeded:
            refused += 1
            return
        stats = sched.stats()["acme"]
        assert stats.spent_usd + stats.reserved_usd <= 1
        for _ in range(rng.randrange(5)):
            await asyncio.sleep(0)
        costs = rng.randrange(30_000_001)
        spent += costs
        grant.settle(Usage(10, 5), costs)

    await asyncio.gather(*map(call, range(300)))
    assert spent <= 10**9 < spent + 30_000_000, "it is used up to less than one call"
    assert refused > 0 and sched.stats()["acme"].spent_usd * 10**9 == spent


async def test_what_may_still_fit_waits_and_is_not_refused() -> None:
    sched = FairScheduler(slots=8, tenants={"acme": Tenant(budget_tokens=50)})
    async with asking(sched, *map(ask, range(4)), ask("other", "other")) as tasks:
        assert standing(tasks) == "++--+", "only the tenant itself waits for its budget"
        tasks[0].result().settle(Usage(5, 5), 0)
        await turned()
        assert standing(tasks) == "+++-+"
        tasks[1].result().settle(Usage(10, 11), 0)
        await turned()
        assert standing(tasks) == "+++!+", "31 are spent: it cannot go whatever the one in flight takes"


async def test_a_small_call_does_not_pass_a_large_one_that_waits_for_the_budget() -> None:
    sched = FairScheduler(slots=8, tenants={"acme": Tenant(budget_tokens=100)})
    large = ask("large", max_output_tokens=80)
    async with asking(sched, ask(0), large, ask("ann's", user="ann"), ask("small", max_output_tokens=1)) as tasks:
        assert standing(tasks) == "+---"
        tasks[1].cancel()
        await turned()
        assert standing(tasks) == "+x++"


async def test_who_waits_for_a_users_budget_goes_when_the_tenants_has_room_too() -> None:
    sched = FairScheduler(slots=8, tenants={"acme": Tenant(budget_tokens=100, each=Tenant(budget_tokens=50))})
    sizes = [("x", 40), ("x", 20), ("y", 40), ("z", 30)]
    asks = [ask(number, user=user, max_output_tokens=most - 10) for number, (user, most) in enumerate(sizes)]
    async with asking(sched, *asks) as tasks:
        assert standing(tasks) == "+-+-", "one waits for its user's budget, the other for the tenant's"
        tasks[0].result().settle(Usage(0, 0), 0)
        await turned()
        assert standing(tasks) == "++++"


@pytest.mark.parametrize("ends", ["released", "cancelled", "dropped"])
async def test_a_dead_call_gives_back_what_it_had_reserved(ends: str) -> None:
    sched = FairScheduler(slots=8, tenants={"acme": Tenant(budget_tokens=30)})
    async with asking(sched, ask(0), ask(1)) as tasks:
        assert standing(tasks) == "+-"
        if ends == "released":
            tasks[0].result().release()
        else:
            tasks[1 if ends == "cancelled" else 0].cancel()
            del tasks[1 if ends == "cancelled" else 0]
            gc.collect()
        await turned()
        assert standing(tasks)[-1] == "+"


async def test_the_error_says_whose_budget_how_much_and_what_to_do() -> None:
    sched = FairScheduler(tenants={"acme": Tenant(budget_usd=50, each=Tenant(budget_usd="0.5"))})
    sched.fold("r0", "a", {"tenant": "acme", "user": "ann"}, Usage(1, 1), 499_000_000)
    with pytest.raises(BudgetExceeded) as caught:
        await sched.admit(ask(0, user="ann", nano_usd=2_000_000))
    assert str(caught.value) == (
        "tenant acme, user ann: 0.499 USD of 0.5 USD are spent, and this call may take 0.002 USD: "
        "raise budget_usd, or lower max_tokens"
    )
    found = pickle.loads(pickle.dumps(caught.value))
    assert (found.who, found.unit, found.limit, found.spent, found.reserved, found.asked) == (
        "tenant acme, user ann", "nano_usd", 500_000_000, 499_000_000, 0, 2_000_000,
    )  # fmt: skip
    (await sched.admit(ask(1, user="ann", nano_usd=1_000_000))).release()
    assert sched.stats()["acme"].refused == 1


async def test_where_a_budget_is_kept_a_call_says_what_it_may_take() -> None:
    sched = FairScheduler(tenants={"acme": Tenant(budget_tokens=50), "rich": Tenant(budget_usd=1)})
    with pytest.raises(WrongRequest, match="max_tokens="):
        await sched.admit(ask(0, max_output_tokens=None))
    with pytest.raises(WrongRequest, match="Prices"):
        await sched.admit(ask(0, "rich"))
    (await sched.admit(ask(0, "other", max_output_tokens=None))).release()


async def test_a_run_cannot_spend_more_than_each_run_may() -> None:
    sched = FairScheduler(each_run=Tenant(budget_tokens=25))
    (await sched.admit(ask(0))).settle(Usage(10, 10), 0)
    with pytest.raises(BudgetExceeded, match=r"tenant acme, user .none., run r: 20 tokens of 25 tokens"):
        await sched.admit(ask(1))
    (await sched.admit(ask(1, run="other"))).release()


async def test_a_budget_raised_while_calls_wait_lets_them_go() -> None:
    sched = FairScheduler(tenants={"acme": Tenant(budget_tokens=30)})
    async with asking(sched, ask(0), ask(1), ask(2)) as tasks:
        assert standing(tasks) == "+--"
        await sched.update("acme", Tenant(budget_tokens=40))
        await turned()
        assert standing(tasks) == "++-"
        await sched.update("acme", Tenant())
        await turned()
        assert standing(tasks) == "+++"


async def test_band_0_waits_for_nothing_but_what_is_in_flight() -> None:
    sched = FairScheduler(slots=2, tenants={"urgent": Tenant(priority=0), "later": Tenant(priority=1)})
    later = [ask(number, "later") for number in range(6)]
    async with asking(sched, *later, *[ask(number, "urgent") for number in range(3)]) as tasks:
        assert standing(tasks) == "++-------"
        tasks[0].result().release()
        tasks[1].result().release()
        await turned()
        assert standing(tasks) == "++----++-"
        tasks[6].result().release()
        tasks[7].result().release()
        await turned()
        assert standing(tasks) == "+++---+++"


async def test_a_band_changed_while_calls_wait_counts_for_them() -> None:
    sched = FairScheduler(slots=1, tenants={"b": Tenant(priority=1)})
    async with asking(sched, ask(0, "a"), ask(1, "a"), ask(2, "b"), ask(3, "b")) as tasks:
        assert standing(tasks) == "+---"
        await sched.update("a", Tenant(priority=2))
        tasks[0].result().release()
        await turned()
        assert standing(tasks) == "+-+-"


async def test_one_more_than_may_wait_is_refused() -> None:
    sched = FairScheduler(slots=1, tenants={"acme": Tenant(max_waiting=1), (): Tenant(max_waiting=2)})
    everyone = [ask(0), ask(1), ask(2), ask(3, "other"), ask(4, "other")]
    async with asking(sched, *everyone) as tasks:
        assert standing(tasks) == "+-!-!"
        with pytest.raises(Overloaded, match="tenant acme: 1 calls wait already, which is max_waiting"):
            tasks[2].result()
        with pytest.raises(Overloaded, match="all tenants together"):
            tasks[4].result()
        assert sched.stats()["acme"].waiting == 1 and sched.stats()["acme"].refused == 1


async def test_who_has_not_had_its_turn_by_its_deadline_is_refused(clock: SkippedTime) -> None:
    sched = FairScheduler(slots=1)
    async with asking(sched, ask(0), ask(1, deadline_s=5), ask(2, deadline_s=7), ask(3)) as tasks:
        await asyncio.to_thread(clock.advance, 6)
        await turned()
        assert standing(tasks) == "+!--"
        with pytest.raises(Overloaded, match="deadline_s=5"):
            tasks[1].result()
        tasks[0].result().release()
        await turned()
        await asyncio.to_thread(clock.advance, 6)
        assert standing(tasks) == "+!+-", "a deadline is for the turn, not for the answer"


async def test_calls_wait_for_the_endpoints_minute_and_are_not_refused(clock: SkippedTime) -> None:
    sched, pace = FairScheduler(slots=8), Pace(rpm=2)
    async with asking(sched, *[ask(number, pace=pace) for number in range(4)]) as tasks:
        assert standing(tasks) == "++--"
        await asyncio.to_thread(clock.advance, 59)
        await turned()
        assert standing(tasks) == "++--"
        await asyncio.to_thread(clock.advance, 1)
        await turned()
        assert standing(tasks) == "++++"
        assert sched.stats()["acme"].wait_p95_s == 60


async def test_who_waits_for_the_minute_waits_in_order_of_the_bands(clock: SkippedTime) -> None:
    sched, pace = FairScheduler(slots=8, tenants={"later": Tenant(priority=1)}), Pace(rpm=1)
    async with asking(sched, *[ask(number, name, pace=pace) for number, name in enumerate(["later"] * 3 + ["a"])]) as (
        tasks
    ):
        await asyncio.to_thread(clock.advance, 60)
        await turned()
        assert standing(tasks) == "+--+"


async def test_a_policy_of_ones_own_may_wait_for_the_clock(clock: SkippedTime) -> None:
    sched = FairScheduler(partial(RPM, 1), slots=8)
    async with asking(sched, ask(0), ask(1), ask(2, "other")) as tasks:
        assert standing(tasks) == "+-+"
        await asyncio.to_thread(clock.advance, 60)
        await turned()
        assert standing(tasks) == "+++"


@pytest.mark.parametrize("policy", ["vtc", "fcfs", "lcf", "drr"])
async def test_each_policy_serves_all_and_counts_what_they_spend(policy: PolicyName) -> None:
    sched = FairScheduler(policy, slots=1, charge="complete", cost=longest)
    for number in range(4):
        (await sched.admit(ask(number, "ab"[number % 2]))).settle(Usage(10, 20), 10**9)
    stats = sched.stats()["a"]
    assert (stats.service, stats.share, stats.spent_usd) == (40, 0.5, 2)
    assert (stats.counter > 0) == (policy in ("vtc", "lcf"))
    told = sched.prometheus()
    assert f'exoflow_scheduler_spent_usd_total{{scheduler="{sched.name}",tenant="a"}} 2.0' in told
    assert f'exoflow_scheduler_wait_p95_seconds{{scheduler="{sched.name}",tenant="b"}}' in told


def longest(input_tokens: int, output_tokens: int) -> int:
    return max(input_tokens, output_tokens)


def table(input_tokens: int, output_tokens: int) -> int:
    return {10: 1, 11: 2}[input_tokens] * 100 + {0: 0, 10: 10}[output_tokens]


@pytest.mark.parametrize("policy", ["vtc", "lcf", "drr"])
async def test_who_asks_for_what_the_cost_function_cannot_price_is_told_so_and_nobody_else(policy: PolicyName) -> None:
    sched = FairScheduler(policy, slots=1, cost=table)
    first = await sched.admit(ask(0))
    with pytest.raises(LLMError, match=r"cost=table, asked for 12 tokens in and 0 out, failed, KeyError: 12") as failed:
        await sched.admit(ask(1, input_tokens=12))
    assert isinstance(failed.value.__cause__, KeyError)
    first.release()
    (await sched.admit(ask(2))).release()


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("policy", ["vtc", "lcf", "drr"])
async def test_a_cost_function_that_fails_at_the_end_costs_nobody_the_answer_nor_the_budget(
    policy: PolicyName, tells: bool, caplog: pytest.LogCaptureFixture
) -> None:
    sched = FairScheduler(policy, slots=1, cost=table, tenants={"acme": Tenant(budget_tokens=100)})
    grant = await sched.admit(ask(0))
    if tells:
        grant.charge(3)
    grant.settle(Usage(10, 5), 0)
    (await sched.admit(ask(1))).release()
    stats = sched.stats()["acme"]
    assert (stats.spent_tokens, stats.service, stats.in_flight) == (15, 110, 0)
    assert {record.message for record in caplog.records} == {
        "a call was paid for, and what it took of its share is a guess"
    }
    broken_off = await sched.admit(ask(2))
    broken_off.charge(3)
    broken_off.release()
    assert sched.stats()["acme"].in_flight == 0
    sched.fold("r", "before", {"tenant": "acme"}, Usage(1, 1), 0)
    assert sched.stats()["acme"].spent_tokens == 17


def half(input_tokens: int, output_tokens: int) -> float:
    return input_tokens / 2


async def test_a_cost_that_is_no_whole_number_is_refused() -> None:
    with pytest.raises(LLMError, match=r"cost=half.* gave 5.0: it must give a whole number"):
        await FairScheduler(cost=half).admit(ask(0))  # type: ignore[arg-type]


async def test_held_calls_that_are_cancelled_are_passed_over() -> None:
    sched = FairScheduler(slots=8, tenants={"acme": Tenant(budget_tokens=50)})
    async with asking(sched, *map(ask, range(5))) as tasks:
        assert standing(tasks) == "++---"
        tasks[3].cancel()
        await turned()
        tasks[0].result().release()
        tasks[1].result().release()
        await turned()
        assert standing(tasks) == "+++x+"


async def test_the_pace_of_an_endpoint_is_corrected_and_held(clock: SkippedTime) -> None:
    pace = Pace(tpm=100)
    assert pace.take(80) == 0
    pace.correct(80, 10)
    assert pace.take(80) == 0
    pace.hold(90)
    assert pace.take(1) == 90


async def test_threads_and_event_loops_share_the_slots() -> None:
    sched = FairScheduler(slots=3)
    lock, in_flight, most, done = threading.Lock(), 0, 0, 0

    async def call(number: int) -> None:
        nonlocal in_flight, most, done
        grant = await sched.admit(ask(number))
        with lock:
            in_flight += 1
            most = max(most, in_flight)
        await asyncio.sleep(0)
        with lock:
            in_flight -= 1
            done += 1
        grant.settle(Usage(10, 1), 0)

    async def all_of(thread: int) -> None:
        await asyncio.gather(*[call(thread * 100 + number) for number in range(50)])

    await asyncio.gather(*[asyncio.to_thread(asyncio.run, all_of(thread)) for thread in range(4)])
    assert (most, done) == (3, 200)
    stats = sched.stats()["acme"]
    assert (stats.calls, stats.waiting, stats.in_flight) == (200, 0, 0)


async def test_a_loop_that_closed_with_a_call_waiting_costs_nobody_a_turn() -> None:
    sched = FairScheduler(slots=1)
    first = await sched.admit(ask(0))

    def left_waiting() -> None:
        loop = asyncio.new_event_loop()
        waiting = loop.create_task(sched.admit(ask(1)))
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        waiting._log_destroy_pending = False  # type: ignore[attr-defined]  # that is what is tested

    await asyncio.to_thread(left_waiting)
    async with asking(sched, ask(2)) as tasks:
        first.release()
        await turned()
        assert standing(tasks) == "+"


async def test_a_loop_that_closed_with_a_call_in_flight_keeps_no_slot(caplog: pytest.LogCaptureFixture) -> None:
    sched = FairScheduler(slots=1, tenants={"acme": Tenant(budget_tokens=30)})
    left: list[asyncio.Task[None]] = []

    async def call() -> None:
        grant = await sched.admit(ask("left"))
        await asyncio.get_running_loop().create_future()
        grant.release()

    def left_in_flight() -> None:
        loop = asyncio.new_event_loop()
        left.append(loop.create_task(call()))
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        left[0]._log_destroy_pending = False  # type: ignore[attr-defined]  # that is what is tested

    await asyncio.to_thread(left_in_flight)
    assert sched.stats()["acme"].in_flight == 1
    async with asking(sched, ask("next"), ask("another")) as tasks:
        assert standing(tasks) == "+-"
    assert "call left was in flight when its event loop was closed" in caplog.text


def test_a_label_is_no_list_of_labels() -> None:
    with pytest.raises(TypeError, match=r"group_by='user' is a list of labels: write group_by=\('user',\)"):
        FairScheduler(group_by="user")


async def test_copies_of_a_scheduler_are_one_and_others_are_not() -> None:
    sched = FairScheduler(slots=1)
    copy, other = pickle.loads(pickle.dumps(sched)), FairScheduler(slots=1)
    grant = await copy.admit(ask(0))
    assert sched.stats()["acme"].in_flight == 1 and other.stats() == {}
    grant.release()


async def test_schedulers_of_one_name_are_one_and_the_one_made_here_rules() -> None:
    recorded = pickle.dumps(FairScheduler(name="of-one-name", tenants={"acme": Tenant(budget_tokens=10)}))
    here = FairScheduler(name="of-one-name", tenants={"acme": Tenant(budget_tokens=20)})
    there = pickle.loads(recorded)
    (await there.admit(ask(0))).release()
    await here.update("acme", Tenant(budget_tokens=19))
    with pytest.raises(BudgetExceeded):
        await there.admit(ask(1))
    FairScheduler(name="of-one-name", tenants={"acme": Tenant(budget_tokens=20)})
    with pytest.raises(ValueError, match="another name"):
        FairScheduler(name="of-one-name", slots=3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": "best"}, {"slots": 0}, {"charge": "later"}, {"ageing_s": 0}, {"group_by": ()},
        {"group_by": ("tenant", "tenant")}, {"tenants": {("a", "b", "c", "d"): Tenant()}},
    ],
)  # fmt: skip
def test_a_wrong_description_is_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(
        ValueError, match=next(iter(wrong)) if "tenants" not in wrong else "levels are tenant, user, run"
    ):
        FairScheduler(**wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="give a Tenant"):
        FairScheduler(tenants={"acme": 3})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="input_tokens"):
        Ask("a", input_tokens=-1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group_by": (1,)}, "give names of labels, each once"),
        ({"tenants": [("acme", Tenant())]}, "give a dict, as {'acme': Tenant"),
        ({"tenants": {5: Tenant()}}, "5 is nobody: give a tenant's name, or a path of names"),
        ({"tenants": {("acme", 5): Tenant()}}, r"\('acme', 5\) is nobody"),
        ({"each_run": 5}, "each_run=5: give a Tenant"),
        ({"cost": 5}, r"cost=5: give Linear\(1, 2\)"),
        ({"ageing_s": "soon"}, "give seconds above 0, or None"),
        ({"name": 5}, "name=5: give a text, or none"),
    ],
)
def test_settings_that_would_rule_nobody_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        FairScheduler(**settings)  # type: ignore[arg-type]  # that is what is tested


def test_terms_of_nobody_are_refused() -> None:
    with pytest.raises(TypeError, match="None is nobody"):
        FairScheduler().update(None, Tenant())  # type: ignore[arg-type]  # that is what is tested
