"""Clusters that the program leaves and joins in the middle of a run, and one that is started for it."""

import os

import pytest
import ray

import exoflow
from exoflow import flow, task
from exoflow.errors import ExecutorError
from exoflow.executors.ray import RayExecutor
from exoflow.protocols import Computed
from exoflow.testing.executors import LARGE, Bench, returned, wait_for_line, waits

SETTINGS = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False, "log_to_driver": False}


@pytest.fixture(autouse=True)
def alone():
    """No cluster before and after."""
    ray.shutdown()
    yield
    ray.shutdown()


def note(log, name):
    with open(log, "a") as file:
        file.write(f"{name}\n")


@task(checkpoint="never")
def first(log):
    note(log, "first")
    return os.urandom(LARGE)


@task
def second(value, log):
    note(log, "second")
    return len(value)


@pytest.mark.big
def test_a_program_that_leaves_its_cluster_in_mid_run_is_told_and_goes_on_when_it_is_back(tmp_path):
    log = tmp_path / "log"

    @flow(executor="ray")
    def trial():
        value = first.submit(log)
        sizes = [second(value, log)]
        lives.append(len(sizes))
        if len(lives) == 1:
            ray.shutdown()
        return [*sizes, second(value, log)]

    lives = []
    ray.init(**SETTINGS)
    with pytest.raises(ExecutorError, match=r"has left its Ray cluster .* connect again by ray\.init"):
        trial.options(store=tmp_path / "store", run_id="r").run()
    assert not ray.is_initialized()
    ray.init(**SETTINGS)
    assert exoflow.resume("r", store=tmp_path / "store") == [LARGE, LARGE]
    assert log.read_text().split() == ["first", "second", "first", "second", "second"]


@pytest.mark.big
def test_a_program_that_joins_another_cluster_in_mid_run_goes_on_there_at_once(tmp_path):
    """What was on the old one is lost, and no attempt is taken for one of there."""
    log, started = tmp_path / "log", tmp_path / "started"

    @task
    def waits_once():
        if not started.exists():
            waits(str(started), str(tmp_path / "gate"))
        return "again"

    @flow(executor="ray")
    def trial():
        value = first.submit(log)
        sizes = [second(value, log)]
        waiting = waits_once.submit()
        if not lives:
            lives.append(wait_for_line(started))
            ray.shutdown()
            ray.init(**SETTINGS)
        return [*sizes, second(value, log), waiting.result()]

    lives = []
    ray.init(**SETTINGS)
    assert trial.options(store=tmp_path / "store").run() == [LARGE, LARGE, "again"]
    assert log.read_text().split() == ["first", "second", "first", "second", "second"]
    assert ray.is_initialized()


@pytest.mark.big
def test_a_cluster_that_was_started_has_what_it_has_and_one_that_took_its_place_is_left_alone():
    executor = RayExecutor(workers=1)
    bench = Bench(executor)
    for resources in ({"num_cpus": 1, "rocket": 2}, {"num_cpus": 2}):
        error, _ = bench.error(returned, 1, resources=resources)
        assert isinstance(error, ExecutorError)
        assert "returned needs num_cpus=" in str(error)
        assert "was started on this machine has num_cpus=1, memory=" in str(error)
        assert "correct the task's resources=" in str(error)
    assert isinstance(bench.run(returned, 1, resources={"num_cpus": 1}), Computed)
    ray.shutdown()
    ray.init(**SETTINGS)
    executor.close()
    assert ray.is_initialized()
