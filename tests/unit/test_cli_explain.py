"""What ``explain`` reads out of a flow's source: nothing runs, and what may stand behind an effect counts."""

from __future__ import annotations

import exoflow
from exoflow import flow, task
from exoflow.cli.explaining import Explained, explain_source


@task(deterministic=True)
def read(part: int) -> int:
    return part


@task
def judge(number: int) -> int:
    return number


@task
def guess(number: int) -> int:
    return number


@task(checkpoint="sync")
def safe(number: int) -> int:
    return number


@task(checkpoint="never")
def fleeting(number: int) -> int:
    return number


@task(effect="idempotent", deterministic=True)
def publish(number: object) -> None: ...


@task(effect="irrevocable")
def charge(number: int) -> None: ...


@task(rollback=lambda key, number: None)
def reserve(number: int) -> int:
    return number


def explained(given: object) -> dict[str, Explained]:
    return {each.call: each for each in explain_source(given._spec)}  # type: ignore[attr-defined]  # any flow


def waits(given: object, call: str = "publish.submit") -> list[str]:
    return [words.partition(" ")[0] for words in explained(given)[call].waits_for]


@task(effect=exoflow.transaction("sqlite://"))
def order(number: int) -> None: ...


@flow
def orders() -> None:
    order(judge.submit(1))


def test_a_transaction_is_called_one_and_may_choose_for_itself() -> None:
    told = explained(orders)["order"]
    assert told.effect == "transaction"
    assert [words.partition(" ")[0] for words in told.waits_for] == ["judge"]
    assert told.warnings == ()


@flow
def by_arguments() -> None:
    left, right = judge.submit(1), guess.submit(2)
    publish.submit([left])
    safe.submit(right)


def test_an_effect_waits_for_the_choices_in_its_arguments_and_for_no_other() -> None:
    assert waits(by_arguments) == ["judge"]


@flow
def behind() -> None:
    publish.submit(read.submit(judge.submit(1)))


def test_a_choice_behind_a_deterministic_task_counts() -> None:
    assert waits(behind) == ["judge"]


@flow
def by_reading() -> None:
    left = judge.submit(1)
    right = guess.submit(2)
    if left.result() > 1:
        publish.submit(3)
    right.result()


def test_what_the_body_has_read_counts_for_every_later_call_and_what_it_reads_later_does_not() -> None:
    assert waits(by_reading) == ["judge"]


@flow
def in_a_loop() -> None:
    last = 0
    for _ in range(3):
        publish.submit(last)
        last = judge.submit(1)  # type: ignore[assignment]  # a Ref, on purpose


def test_a_turn_of_a_loop_stands_on_the_turns_before() -> None:
    assert waits(in_a_loop) == ["judge"]


@flow
def in_a_branch(which: bool) -> None:
    chosen = judge.submit(1)
    if which:
        chosen = guess.submit(2)
    publish.submit(chosen)


def test_either_branch_may_have_been_taken() -> None:
    assert waits(in_a_branch) == ["judge", "guess"]


@flow
def in_a_container() -> None:
    found: list[object] = []
    for number in range(3):
        found.extend([judge.submit(number)])
    publish.submit({"all": [each for each in found if each]})


def test_a_list_holds_what_was_put_into_it() -> None:
    assert waits(in_a_container) == ["judge"]


@flow
def saved_first() -> None:
    publish.submit(safe.submit(1))


def test_a_result_that_is_saved_before_it_is_read_holds_nobody_up() -> None:
    found = explained(saved_first)
    assert found["publish.submit"].waits_for == ()
    assert found["safe.submit"].saved == "saved before anyone may read it"


@flow
def never_saved() -> None:
    publish.submit(fleeting.submit(1))


def test_a_result_that_is_never_to_be_saved_is_warned_of_where_an_effect_needs_it() -> None:
    assert "it is saved all the same" in explained(never_saved)["fleeting.submit"].warnings[0]


@flow
def pays() -> None:
    charge(judge(1))


def test_a_nondeterministic_effect_is_warned_of() -> None:
    [decides, doubt] = explained(pays)["charge"].warnings
    assert "Decide in one task and act in the next" in decides
    assert "in doubt" in doubt
    assert explained(behind)["publish.submit"].warnings == ()


@flow
def booked() -> None:
    publish.submit(reserve.submit(1))


def test_an_effect_waits_for_what_could_still_be_undone() -> None:
    assert waits(booked) == ["reserve"]


@flow
def child(number: int) -> int:
    return judge(number)


@flow
def parent() -> None:
    publish.submit(child(1))


def test_a_child_flow_is_gone_through() -> None:
    found = explained(parent)
    assert list(found) == ["child/judge", "publish.submit"]
    assert found["publish.submit"].waits_for[0].startswith("child/judge (line ")


def chosen_by_a_helper() -> object:
    return judge.submit(1)


@flow
def with_a_helper() -> None:
    publish.submit(chosen_by_a_helper())


def test_a_plain_function_of_the_same_module_is_gone_through() -> None:
    assert waits(with_a_helper) == ["judge"]


@flow
def by_the_clock() -> None:
    publish.submit(exoflow.now())


def test_a_look_at_the_clock_is_a_choice() -> None:
    assert waits(by_the_clock) == ["now"]


@flow
def with_options() -> None:
    publish.submit(judge.options(checkpoint="sync", key=str(1)).submit(1))


def test_constant_options_of_a_call_count() -> None:
    assert waits(with_options) == []


@flow
async def asynchronous() -> None:
    left = judge.submit(1)
    publish.submit(2)
    await left
    publish.map([3])


def test_in_an_async_flow_await_is_the_read() -> None:
    assert waits(asynchronous) == []
    assert waits(asynchronous, "publish.map") == ["judge"]


@flow
def calls_itself(depth: int) -> int:
    if depth == 0:
        return judge(1)
    return calls_itself(depth - 1)


def test_a_flow_that_calls_itself_is_gone_through_once() -> None:
    assert list(explained(calls_itself)) == ["judge"]


@exoflow.actor(snapshot_every=5)
class Trainer:
    @task(deterministic=True)
    def step(self, by: object) -> int:
        return 1

    @task
    def noise(self) -> int:
        return 1

    @task(checkpoint="sync")
    def drawn(self) -> int:
        return 1


@exoflow.actor
class Counter:
    @task
    def add(self) -> int:
        return 1


@flow
def trains() -> None:
    trainer = Trainer()
    trainer.step.submit(1)
    publish.submit(trainer.noise.options(key="k").submit())
    trainer.drawn()


def test_an_actor_its_creation_and_its_calls_are_listed_as_tasks_are() -> None:
    found = explained(trains)
    assert list(found) == ["Trainer", "Trainer.step.submit", "Trainer.noise.submit", "publish.submit", "Trainer.drawn"]
    assert found["Trainer"].kind == "actor"
    assert "when it has been created, behind every 5th call" in found["Trainer"].state
    assert "up to 4 calls behind that made again" in found["Trainer"].after_crash
    assert found["Trainer.step.submit"].kind == "deterministic"
    assert found["Trainer.step.submit"].after_crash.startswith("what it had returned, and was recorded, stays")
    assert found["Trainer.noise.submit"].kind == "choice"
    assert "with it whatever was derived" in found["Trainer.noise.submit"].after_crash
    assert "before anyone may read its result" in found["Trainer.drawn"].state
    assert found["publish.submit"].after_crash == found["publish.submit"].state == ""


def test_an_effect_waits_until_the_choices_of_an_actor_are_in_a_snapshot() -> None:
    waits_for = explained(trains)["publish.submit"].waits_for
    assert [words.partition(" ")[0] for words in waits_for] == ["Trainer", "Trainer.noise"]
    assert all(words.endswith(", in a snapshot)") for words in waits_for)


@flow
def of_two_actors() -> None:
    left, right = Trainer(), Counter()
    right.add.submit()
    publish.submit(left.noise.submit())


def test_what_another_actor_did_holds_nobody_up() -> None:
    assert waits(of_two_actors) == ["Trainer", "Trainer.noise"]


@flow
def of_many_actors() -> None:
    trainers = [Trainer() for _ in range(3)]
    for trainer in trainers:
        trainer.noise.submit()
    publish.submit([trainers[0].step.submit(1)])


def test_actors_in_a_list_are_found_and_a_call_stands_on_the_calls_before() -> None:
    assert waits(of_many_actors) == ["Trainer", "Trainer.noise"]
    assert "every call, and where" in explained(of_two_actors)["Counter"].state
    assert explained(of_two_actors)["Counter"].after_crash.endswith("given the state of the last snapshot")
