"""Nodes of Ray that die, and with them the only copy of a value: a counter outside shows who runs what again."""

import os
import subprocess
import sys

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

import exoflow
from exoflow import flow, task
from exoflow.codec import make_reference
from exoflow.executors.ray import RayExecutor
from exoflow.model import CallId
from exoflow.protocols import Vanished
from exoflow.testing.executors import LARGE, WAIT_S, Bench, wait_for_line, waits

QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 2}


@pytest.fixture(scope="module")
def cluster():
    """Its head has a CPU; other nodes come and go."""
    size = {"object_store_memory": 100 << 20}
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": QUICK, **size}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def node(cluster):
    """A second node, with the resource ``there``."""
    node = cluster.add_node(num_cpus=1, object_store_memory=100 << 20, resources={"there": 1})
    cluster.wait_for_nodes()
    yield node
    if node in cluster.list_all_nodes():
        cluster.remove_node(node)


@pytest.fixture
def bench():
    executor = RayExecutor()
    yield Bench(executor)
    executor.close()


THERE = {"num_cpus": 1, "there": 1}


def made(number, log):
    with open(log, "a") as file:
        file.write(f"{number}\n")
    return os.urandom(LARGE)


@pytest.mark.big
def test_a_value_lost_with_its_node_is_reported_and_not_made_again_by_ray(cluster, node, bench, tmp_path):
    log = tmp_path / "log"
    here = bench.compute(made, 1, str(log))
    there = bench.compute(made, 2, str(log), resources=THERE)
    cluster.remove_node(node, allow_graceful=False)
    inputs = {CallId("a"): here, CallId("b"): there}
    outcome = bench.run(lambda *values: None, *map(make_reference, inputs), inputs=inputs)
    assert isinstance(outcome, Vanished)
    assert outcome.lost == ("b",)
    with pytest.raises(KeyError, match="is lost"):
        bench.executor.fetch(there)
    assert isinstance(bench.save(there, "x"), KeyError)
    assert log.read_text() == "1\n2\n"


@pytest.mark.big
def test_an_attempt_that_runs_on_a_node_that_dies_vanishes(cluster, node, bench, tmp_path):
    started = tmp_path / "started"
    bench.start(waits, str(started), str(tmp_path / "gate"), resources=THERE)
    wait_for_line(started)
    cluster.remove_node(node, allow_graceful=False)
    outcome = bench.outcome()
    assert isinstance(outcome, Vanished)
    assert "its worker died" in outcome.reason


@pytest.mark.big
def test_a_choice_that_is_lost_with_its_node_is_made_again_by_our_recovery(cluster, node, tmp_path):
    """And what stood on it, though it had finished, with it (V3, V6): they would be of two different choices."""
    log = tmp_path / "log"
    choose = task(checkpoint="never", resources=THERE)(made)

    @task(checkpoint="sync", resources=THERE)
    def first(choice):
        with open(log, "a") as file:
            file.write("first\n")
        return bytes(choice[:8])

    @task(checkpoint="sync", resources={"num_cpus": 1})
    def second(choice, head):
        with open(log, "a") as file:
            file.write("second\n")
        return bytes(choice[:8]) == head

    @flow(executor="ray")
    def trial():
        choice = choose.submit(1, str(log))
        head = first.submit(choice)
        head.done()
        exoflow.gather(head).result()
        if not (tmp_path / "removed").exists():
            (tmp_path / "removed").touch()
            cluster.remove_node(node, allow_graceful=False)
            nodes.append(cluster.add_node(num_cpus=1, object_store_memory=100 << 20, resources={"there": 1}))
        return second.submit(choice, head).result()

    nodes = []
    assert trial.options(store=tmp_path / "store").run() is True
    assert log.read_text().split() == ["1", "first", "1", "first", "second"]
    cluster.remove_node(nodes[0])


PROGRAM = """
import sys
import ray
from exoflow import flow, task
from exoflow.testing.executors import waits

@flow(executor="ray")
def trial(started, gate):
    return task(waits)(started, gate)

if __name__ == "__main__":
    ray.init(sys.argv[1], log_to_driver=False)
    trial.options(store=sys.argv[2]).run(sys.argv[3], sys.argv[4])
"""


@pytest.mark.big
def test_bodies_end_with_the_program_on_a_cluster_that_goes_on(cluster, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    started = tmp_path / "started"
    words = [cluster.address, str(tmp_path / "store"), str(started), str(tmp_path / "gate")]
    program = subprocess.Popen([sys.executable, str(tmp_path / "program.py"), *words], stderr=subprocess.DEVNULL)
    body = psutil.Process(int(wait_for_line(started)))
    program.kill()
    program.wait()
    body.wait(WAIT_S)
