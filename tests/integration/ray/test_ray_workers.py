"""Workers of Ray that are killed: which bodies run again, counted outside of any store; and what Ray is not to do."""

import logging
import os
import signal
import subprocess
from pathlib import Path

import pytest
import ray

from exoflow import actor, flow, gather, put, resume, task
from exoflow.attempts.actors import Creation, Method
from exoflow.codec import decode, from_bytes, make_reference
from exoflow.errors import ExecutorError, RunCancelled, TaskFailed
from exoflow.executors.ray import RayExecutor
from exoflow.model import CallId, Held
from exoflow.protocols import ActorPart, Computed, Vanished
from exoflow.testing.executors import (
    LARGE,
    TALLY,
    Bench,
    Tally,
    array,
    is_gone,
    returned,
    wait_for_line,
    wait_until,
    waits,
    with_state,
)

pytestmark = pytest.mark.usefixtures("ray_cluster")


def note(log, name):
    with open(log, "a") as file:
        file.write(f"{name} {os.getpid()}\n")


def counts(log):
    lines = [line.split()[0] for line in Path(log).read_text().splitlines()]
    return {name: lines.count(name) for name in sorted(set(lines))}


def strike(log, *, once):
    """End this worker, in its first life only."""
    mark = Path(f"{log}.{once}")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


@task
def first(log):
    note(log, "A")
    return os.urandom(LARGE)


@task
def second(value, log, dies):
    note(log, "B")
    if dies == "B":
        strike(log, once="B")
    return bytes(value[::-1])


@task
def third(value, log, dies):
    note(log, "C")
    if dies == "C":
        strike(log, once="C")
    return len(value)


@flow
def chain(log, dies, saved, losses=3):
    a = first.options(checkpoint=saved).submit(log)
    b = second.options(checkpoint=saved, losses=losses).submit(a, log, dies)
    return third.submit(b, log, dies).result()


@pytest.fixture
def log(tmp_path):
    return str(tmp_path / "log")


@pytest.fixture
def run_chain(tmp_path, log):
    def run(*args, **options):
        return chain.options(store=tmp_path / "store", executor="ray", **options).run(log, *args)

    return run


@pytest.mark.parametrize(
    ("dies", "saved", "expected"),
    [
        ("B", "sync", {"A": 1, "B": 2, "C": 1}),  # 13
        ("B", "async", {"A": 1, "B": 2, "C": 1}),
        ("C", "never", {"A": 1, "B": 1, "C": 2}),  # 18
    ],
)
def test_a_worker_that_dies_costs_its_own_attempt_and_no_resume_is_needed(run_chain, log, dies, saved, expected):
    assert run_chain(dies, saved) == LARGE
    assert counts(log) == expected


def test_14_without_losses_left_the_run_fails_and_resume_goes_on(run_chain, tmp_path, log):
    with pytest.raises(TaskFailed, match="its worker died"):
        run_chain("B", "sync", 0, run_id="r")
    assert counts(log) == {"A": 1, "B": 1}
    assert resume("r", store=tmp_path / "store") == LARGE
    assert counts(log) == {"A": 1, "B": 2, "C": 1}


@actor(snapshot_every=5)
class Counter:
    def __init__(self, log):
        note(log, "New")
        self.log = log
        self.count = 0
        self.ballast = bytearray(LARGE)

    @task(deterministic=True, checkpoint="sync")
    def add(self, name):
        note(self.log, name)
        if name == "G":
            strike(self.log, once=name)
        self.count += 1
        return self.count

    @task(deterministic=True)
    def lives_in(self):
        return os.getpid()


@flow(executor="ray")
def ten(log):
    counter = Counter(log)
    return [counter.add.submit(name) for name in "ABCDEFGHIJ"][-1].result()


def test_65_a_process_that_dies_with_its_actor_costs_what_came_behind_the_snapshot_and_no_resume(tmp_path, log):
    assert ten.options(store=tmp_path / "store").run(log) == 10
    assert counts(log) == {**dict.fromkeys("ABCDEFGHIJ", 1), "F": 2, "G": 2, "New": 2}


def test_a_process_that_dies_between_two_calls_is_noticed_by_the_next(tmp_path, log):
    @flow(executor="ray")
    def trial():
        counter = Counter(log)
        made = [counter.add(name) for name in "ABCDEF"]
        if not struck:
            struck.append(counter.lives_in())
            os.kill(struck[0], signal.SIGKILL)
            wait_until(lambda: is_gone(struck[0]), "the process of the actor lives")
        return [*made, counter.add("H")]

    struck = []
    assert trial.options(store=tmp_path / "store").run() == [1, 2, 3, 4, 5, 6, 7]
    assert counts(log) == {**dict.fromkeys("ABCDE", 1), "F": 2, "H": 1, "New": 2}


def test_20_what_was_lost_is_made_again_by_our_recovery_and_by_nobody_else(tmp_path, log):
    """B's only copy is lost; A's is still live."""
    executor = RayExecutor()
    lost = []

    @task
    def loses(value, log):
        note(log, "C")
        return len(value)

    @flow(executor=executor)
    def trial(log):
        a = first.options(checkpoint="never").submit(log)
        b = second.options(checkpoint="never").submit(a, log, None)
        assert loses(b, log) == LARGE
        if not lost:
            held = values_of(executor)[-1]
            lost.append(held)
            executor.drop(held)
        return loses(b, log)

    kept = []
    named = executor._values.named
    executor._values.named = lambda *args: keep(kept, named(*args))
    values_of = lambda _: [outcome.value for outcome in kept if isinstance(outcome.value, Held)]  # noqa: E731
    assert trial.options(store=tmp_path).run(log) == LARGE
    assert counts(log) == {"A": 1, "B": 2, "C": 3}
    executor.close()


def keep(kept, outcome):
    if isinstance(outcome, Computed):
        kept.append(outcome)
    return outcome


@pytest.fixture
def bench():
    executor = RayExecutor()
    yield Bench(executor)
    executor.close()


def made_by(number, log):
    note(log, "made")
    return [os.getpid(), bytes([number]) * LARGE]


def puts_by(log):
    note(log, "put")
    return [os.getpid(), put(os.urandom(LARGE))]


def test_values_and_puts_outlive_the_worker_that_made_them(bench, log):
    """They belong to this process: Ray loses what a worker owns together with the worker."""
    held = bench.compute(made_by, 7, log)
    outcome = bench.run(puts_by, log)
    for pid in {int(line.split()[1]) for line in Path(log).read_text().splitlines()}:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: is_gone(pid), "the worker lives")
    assert decode(bench.executor.fetch(held))[1] == bytes([7]) * LARGE
    assert len(decode(bench.executor.fetch(outcome.puts[0][1]))) == LARGE
    inputs = {CallId("a"): held}
    refs = [make_reference(CallId("a"))]
    while not isinstance(outcome := bench.run(lambda value: len(value[1]), *refs, inputs=inputs), Computed):
        assert "its worker died" in outcome.reason  # Ray has not noticed yet
    assert decode(from_bytes(outcome.value)) == LARGE
    assert counts(log) == {"made": 1, "put": 1}


def test_an_actors_process_ends_with_a_cancelled_call_before_that_is_told_and_with_its_release(bench, tmp_path):
    started, gate = str(tmp_path / "started"), str(tmp_path / "gate")
    first, second = [bench.act(Creation(Tally), 0, actor=ActorPart(TALLY))[1].state for _ in range(2)]
    attempt = bench.start(Method(Tally, "add_when"), 1, started, gate, actor=with_state(first))
    pid = int(wait_for_line(tmp_path / "started"))
    bench.executor.cancel(attempt.version, attempt.run_id)
    assert bench.outcome().reason == "cancelled"
    assert is_gone(pid)
    (_, pid), left = bench.act(Method(Tally, "add"), 1, actor=with_state(second))
    bench.executor.release(left.state)
    wait_until(lambda: is_gone(pid), "a released actor lives on")


def test_an_actor_that_is_late_is_ended_and_its_state_with_it(bench, tmp_path):
    started, gate = str(tmp_path / "started"), str(tmp_path / "gate")
    _, created = bench.act(Creation(Tally), 0, actor=ActorPart(TALLY))
    outcome = bench.run(Method(Tally, "add_when"), 1, started, gate, actor=with_state(created.state), timeout_s=0.5)
    assert "timed out after 0.5 s" in outcome.reason
    assert outcome.state is None
    assert is_gone(int(wait_for_line(tmp_path / "started")))


def test_what_a_body_has_started_ends_with_it(bench, tmp_path):
    child = tmp_path / "child"

    def body():
        process = subprocess.Popen(["sleep", "1000"])
        child.write_text(f"{process.pid}\n")
        process.wait()

    attempt = bench.start(body)
    pid = int(wait_for_line(child))
    bench.executor.cancel(attempt.version, attempt.run_id)
    assert bench.outcome().reason == "cancelled"
    wait_until(lambda: is_gone(pid), "the child of a cancelled body runs on")


def test_a_cancelled_run_ends_the_bodies_that_run(tmp_path):
    started = tmp_path / "started"
    wait = task(waits)

    @flow(executor="ray")
    def trial():
        gather(*[wait.submit(str(started), str(tmp_path / "gate")) for _ in range(5)]).result()

    run = trial.options(store=tmp_path / "store").start()
    pid = int(wait_for_line(started))
    run.cancel()
    with pytest.raises(RunCancelled):
        run.result()
    wait_until(lambda: is_gone(pid), "a cancelled body runs on")


def test_large_values_do_not_come_to_this_process(tmp_path, monkeypatch):
    fetched = []
    monkeypatch.setattr(RayExecutor, "fetch", lambda executor, value: fetched.append(value))
    make, measure = task(checkpoint="async")(array), task(lambda values: values.size)

    @actor
    class Measure:
        @task
        def size(self, values):
            return values.size

    @flow(executor="ray")
    def trial():
        made = [make.submit(LARGE) for _ in range(3)]
        return sum(measure.map(made).result()) + Measure().size(made[0])

    assert trial.options(store=tmp_path).run() == 4 * LARGE
    assert fetched == []


def test_memory_of_released_values_is_given_back(bench, ray_cluster):
    """Three times as much as Ray has room for: it would write what is held to its disk."""
    for _ in range(10):
        bench.executor.release(bench.compute(array, 4_000_000))
    assert not [path for path in ray_cluster.glob("session*/**/ray_spilled_objects*/*") if path.is_file()]


def test_resources_are_rays_and_what_nobody_has_is_told(bench, caplog):
    assert bench.result(returned, 1, resources={"num_cpus": 0.5, "memory": 1e6, "scale": 1}) == 1
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        attempt = bench.start(returned, 1, resources={"num_cpus": 1, "rocket": 2})
        wait_until(lambda: caplog.records, "nothing was said")
    assert (
        "returned needs num_cpus=1, rocket=2, and the nodes of the Ray cluster have num_cpus=2, memory=" in caplog.text
    )
    bench.executor.cancel(attempt.version, attempt.run_id)
    assert isinstance(bench.outcome(), Vanished)


def test_a_resource_under_the_name_that_nodes_have_for_it_is_refused_with_the_one_that_tasks_have(bench):
    error, _ = bench.error(returned, 1, resources={"GPU": 1})
    assert isinstance(error, ExecutorError)
    assert "write that" in str(error) and "num_gpus" in str(error)


def test_a_cluster_of_the_programs_own_is_left_as_it_is(bench):
    assert bench.result(returned, 1) == 1
    bench.executor.close()
    assert ray.is_initialized()
    other = RayExecutor(workers=8)
    error, _ = Bench(other).error(returned, 1)
    other.close()
    assert isinstance(error, ExecutorError)
    assert "write executor='ray'" in str(error)
